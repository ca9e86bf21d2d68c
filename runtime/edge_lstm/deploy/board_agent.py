"""The actions of `device deploy` on a board without edge-lstm: sent as source text, run by the board's own Python.

Standard library only, and no syntax newer than Python 3.6: so a board that is too old can still report its version.
Every action can be repeated after an interruption. The answer is one line of JSON on stdout.
"""

import fcntl
import hashlib
import json
import os
import platform
import shutil
import struct
import subprocess
import sys
import tarfile
from typing import Any, Dict, List, Optional

COMPLETE = ".complete"  # the last file of an environment; without it, the environment is not complete


def probe(root: str, folder: str) -> Dict[str, Any]:
    """Facts about the board, without changing anything. `folder`: the future place of the deployment."""
    return {
        "python": platform.python_version(),
        "machine": _machine(),
        "glibc": _glibc(),
        "model": _text(root + "/proc/device-tree/model"),
        "compatible": list(filter(None, (_text(root + "/proc/device-tree/compatible") or "").split("\0"))),
        "venv": _has_module("ensurepip") and _has_module("venv"),
        "numpy": _version("numpy"),
        "systemd": os.path.isdir(root + "/run/systemd/system"),
        "free_mb": shutil.disk_usage(_existing(root + folder)).free // 1000000,
        "memory_mb": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 1048576,
    }


def _machine() -> str:
    machine = platform.machine()
    if struct.calcsize("P") == 4:  # Raspberry Pi OS (32 bit) has a 64-bit kernel
        return {"aarch64": "armv7l", "armv8l": "armv7l", "x86_64": "i686"}.get(machine, machine)
    return machine


def _glibc() -> Optional[str]:
    try:
        return (os.confstr("CS_GNU_LIBC_VERSION") or "").split()[-1]
    except (ValueError, IndexError, AttributeError, OSError):
        return None


def _has_module(module: str) -> bool:
    import importlib.util

    return importlib.util.find_spec(module) is not None


def _version(module: str) -> Optional[str]:
    try:
        return str(__import__(module).__version__)
    except Exception:  # a broken package counts as missing
        return None


def _text(path: str) -> Optional[str]:
    try:
        with open(path, "rb") as file:
            return file.read().decode("utf-8", "replace").rstrip("\0\n")
    except OSError:
        return None


def _existing(path: str) -> str:
    while not os.path.isdir(path):
        path = os.path.dirname(path)
    return path


def complete(folder: str) -> bool:
    """Whether the environment in `folder` is complete."""
    return os.path.exists(os.path.join(folder, COMPLETE))


def digests(folder: str) -> Dict[str, str]:
    """{path relative to the folder: SHA-256} of all files in it."""
    found = {}
    for parent, _, names in os.walk(folder):
        for name in names:
            path = os.path.join(parent, name)
            with open(path, "rb") as file:
                found[os.path.relpath(path, folder)] = hashlib.sha256(file.read()).hexdigest()
    return found


def receive(folder: str, secret: bool, stale: List[str]) -> Dict[str, Any]:
    """Write the files of a tar on stdin, each completely or not at all; remove the files `stale`.

    `secret`: only root may read them.
    """
    _make_folder(folder, 0o700 if secret else 0o755)
    written = 0
    with tarfile.open(fileobj=sys.stdin.buffer, mode="r|") as archive:
        for member in archive:
            place = os.path.join(folder, member.name)
            if not os.path.abspath(place).startswith(os.path.abspath(folder) + os.sep) or not member.isfile():
                raise ValueError("expected files inside the folder, found " + member.name)
            _make_folder(os.path.dirname(place), 0o700 if secret else 0o755)
            beside = place + ".part"
            with open(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
                content = archive.extractfile(member)
                assert content is not None  # isfile() is checked above
                shutil.copyfileobj(content, file)
                file.flush()
                os.fsync(file.fileno())
            os.chmod(beside, 0o600 if secret else 0o644)
            os.rename(beside, place)
            written += 1
    for name in stale:
        os.remove(os.path.join(folder, name))
    return {"written": written}


def environment(folder: str, distribution: bool, install: List[str], wheels: str) -> Dict[str, Any]:
    """Create a virtual environment with the packages that `install` (arguments for pip) names.

    An incomplete environment is created again. `distribution`: it also sees the packages of the board's distribution.
    `wheels`: a folder that is removed after use.
    """
    os.umask(0o022)  # the user of the service must be able to read it, whatever the umask of sudo
    _make_folder(os.path.dirname(folder), 0o755)
    with open(folder + ".lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # an agent that lost its workstation may still be running
        if complete(folder):
            return {"made": True}
        return _create(folder, distribution, install, wheels)


def _create(folder: str, distribution: bool, install: List[str], wheels: str) -> Dict[str, Any]:
    shutil.rmtree(folder, ignore_errors=True)
    seeing = ["--system-site-packages"] if distribution else []
    pip = [os.path.join(folder, "bin", "python"), "-m", "pip", "--disable-pip-version-check", "--no-input"]
    for command in ([sys.executable, "-m", "venv", *seeing, folder], [*pip, "install", "--quiet", *install]):
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, universal_newlines=True)
        output, _ = process.communicate()
        if process.returncode:
            free = shutil.disk_usage(os.path.dirname(folder)).free // 1000000
            shutil.rmtree(folder, ignore_errors=True)
            return {"failed": output, "free_mb": free}
    with open(os.path.join(folder, COMPLETE), "w"):
        pass
    shutil.rmtree(wheels)
    return {"made": True}


def small_file(path: str, text: Optional[str]) -> Optional[str]:
    """Write a small file in one step; with None, read it."""
    if text is None:
        return _text(path)
    with open(path + ".part", "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.rename(path + ".part", path)
    return text


def link(path: str, target: str) -> Dict[str, Any]:
    """Create or replace the link `path` in one step. It leads to the program that users of the board call."""
    beside = path + ".part"
    if os.path.lexists(beside):
        os.remove(beside)
    os.symlink(target, beside)
    os.replace(beside, path)
    return {"target": target}


def remove_unused(folder: str, units: str, incoming: str) -> Dict[str, Any]:
    """Remove environments in `folder` that no unit in the folder `units` uses, and their files in `incoming`."""
    texts = [_text(os.path.join(units, name)) or "" for name in os.listdir(units) if name.startswith("edge-lstm")]
    made = [name for name in os.listdir(folder) if os.path.isdir(os.path.join(folder, name))]
    unused = [name for name in made if not any("/" + name + "/" in text for text in texts)]
    sent = [name for name in os.listdir(incoming) if name not in made] if os.path.isdir(incoming) else []
    for name in unused + sent:
        shutil.rmtree(os.path.join(folder, name), ignore_errors=True)
        shutil.rmtree(os.path.join(incoming, name), ignore_errors=True)
        if os.path.exists(os.path.join(folder, name + ".lock")):
            os.remove(os.path.join(folder, name + ".lock"))
    return {"removed": unused}


def _make_folder(folder: str, permissions: int) -> None:
    if not os.path.isdir(folder):
        _make_folder(os.path.dirname(folder), 0o755)
        os.mkdir(folder)
        os.chmod(folder, permissions)


if __name__ == "__main__":
    action, arguments = sys.argv[1], json.loads(sys.argv[2])
    actions: Any = [probe, complete, digests, receive, environment, small_file, link, remove_unused]
    print(json.dumps({one.__name__: one for one in actions}[action](**arguments)))
