"""Installs a service as files of a system (config, bundle, systemd unit), and uninstalls it.

Everything is checked before anything is written. The new files take effect in one step, or not at all.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import site
import stat
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import edge_lstm
from edge_lstm.backends.confined import self_test_confined
from edge_lstm.backends.registry import preferred
from edge_lstm.backends.selftest import required_isolation
from edge_lstm.deploy.system_root import SystemRoot
from edge_lstm.deploy.systemd_unit import HIDDEN, MARK, Program, unit_text
from edge_lstm.foundation.config import read_toml
from edge_lstm.foundation.errors import EdgeLstmError
from edge_lstm.foundation.permissions import is_within
from edge_lstm.hardware.boards import read_board
from edge_lstm.hardware.machine import prepared_machine, run_on
from edge_lstm.mqtt.credentials import beside_config, read_password
from edge_lstm.service.accepted_bundle import open_acceptable
from edge_lstm.service.config import ConfigFile, ServiceConfig
from edge_lstm.service.systemd import is_running

_HOME = Path("/etc/edge-lstm")  # per service a link to the folder of its files; the link changes in one step
_UNITS = Path("/etc/systemd/system")
_WANTS = _UNITS / "multi-user.target.wants"
_STATE = Path("/var/lib")
_CREDENTIALS = Path("/etc/credstore")
_PUBLIC, _SECRET = 0o644, 0o600
_OLDEST_WITH_CREDENTIALS = 247
_LONGEST_NAME = 200
_SYSTEMCTL_S = 300.0  # more than TimeoutStartSec and TimeoutStopSec of the unit together
_CONFIG = "service.toml"


@dataclass(frozen=True)
class InstalledFile:
    """Content and permissions of a file that the service reads."""

    data: bytes
    mode: int


@dataclass(frozen=True)
class Plan:
    """The parts of an installation; paths are absolute in the target system, without `root`."""

    root: Path
    name: str
    files: Mapping[str, InstalledFile]  # by path in the folder of the service
    unit: str
    python: Path  # the program that the unit starts

    @property
    def folder(self) -> Path:
        return _HOME / self.name

    @property
    def unit_path(self) -> Path:
        return _UNITS / f"{self.name}.service"


def plan(config_path: Path, root: Path, program: Program | None = None) -> Plan:
    """The plan to install the config in `config_path` on the system in the folder `root`; it writes nothing.

    Raises EdgeLstmError where the config, one of its files, the bundle or the machine does not fit.
    On the running system (`root` is /) the bundle must also pass its self-test.
    """
    system = SystemRoot(root)
    live = system.is_live
    config = read_toml(config_path, ServiceConfig)
    name = service_name(config.mqtt.client_id)
    if live:
        _refuse_without_systemd()
    _refuse_misfit(config, root)
    files, credentials = _files(config, config_path, system, name)
    if live and credentials:
        _refuse_old_systemd()
    bundle = open_acceptable(config, config_path.parent)
    if live:
        if config.cores is not None:
            run_on(config.cores)
        backend, scheme = preferred(bundle, config.backend, config.scheme)
        # in a child without the rights of root
        required_isolation(bundle, self_test_confined(bundle, backend, scheme, config.execution))
    _refuse_taken(system, name, config.mqtt.client_id)
    path = _HOME / name / _CONFIG
    program = program or this_program(root)
    return Plan(root, name, files, unit_text(name, config, path, program, credentials), program.python)


def service_name(client_id: str) -> str:
    """The name of the unit: the client id, which is unique per service."""
    name = re.sub(r"[^A-Za-z0-9_.-]", "-", client_id)[:_LONGEST_NAME]
    return name if name.startswith("edge-lstm") else f"edge-lstm-{name}"


def this_program(root: Path) -> Program:
    """The running Python, with paths of the system in `root`.

    Raises EdgeLstmError where the service, which has a user of its own, could not read it.
    """
    package = Path(edge_lstm.__file__).parents[1]
    if site.ENABLE_USER_SITE and package.is_relative_to(site.getusersitepackages()):
        raise EdgeLstmError(
            f"expected edge-lstm in a virtual environment, found it in the packages of a user at {package}",
            "run python3 -m venv /opt/edge-lstm, and install it there",
        )
    folders = (Path(sys.prefix), Path(sys.base_prefix), package)
    for folder in folders:
        if closed := _closed_to_others(folder):
            raise EdgeLstmError(
                f"expected a Python that every user may read, found {closed} not readable",
                f"run chmod -R go+rX {closed}, or install edge-lstm in a virtual environment under /opt",
            )
    return Program(_without_root(Path(sys.executable), root), tuple(_without_root(folder, root) for folder in folders))


def _closed_to_others(folder: Path) -> Path | None:
    """The first part of the path to `folder` that other users may not enter, or None.

    For a folder that the unit mounts, only the folder itself counts.
    """
    hidden = any(folder.is_relative_to(one) for one in HIDDEN)
    for part in [folder] if hidden else [folder, *folder.parents]:
        if part.stat().st_mode & 0o001 == 0:
            return part
    return None


def _without_root(path: Path, root: Path) -> Path:
    return Path("/") / path.relative_to(root) if path.is_relative_to(root) else path


def _refuse_without_systemd() -> None:
    if not is_running():
        raise EdgeLstmError(
            "expected systemd to manage this machine, found that it does not",
            "let your service manager start edge-lstm run, or prepare another system with --root DIR",
        )


def _refuse_others_than_root() -> None:
    if os.geteuid() != 0:
        raise EdgeLstmError("expected root, who may write under /etc, found another user", "run it with sudo")


def _refuse_old_systemd() -> None:
    first = subprocess.run(["systemctl", "--version"], capture_output=True, text=True, check=False).stdout.split()
    if len(first) > 1 and first[1].isdecimal() and int(first[1]) < _OLDEST_WITH_CREDENTIALS:
        raise EdgeLstmError(
            f"expected systemd {_OLDEST_WITH_CREDENTIALS} or newer, which can pass secrets to it, found {first[1]}",
            "use a newer system, or a broker on this machine without a password",
        )


def _refuse_misfit(config: ServiceConfig, root: Path) -> None:
    machine = prepared_machine(root)
    if config.device is not None:
        read_board(config.device).fit(machine)
    if config.memory_max_mb is not None and machine.memory_mb is not None and config.memory_max_mb > machine.memory_mb:
        raise EdgeLstmError(
            f"expected at least memory_max_mb = {config.memory_max_mb} MB of memory, found {machine.memory_mb}",
            "set a smaller memory_max_mb",
        )


def _refuse_taken(root: SystemRoot, name: str, client_id: str) -> None:
    folder, unit = _HOME / name, _UNITS / f"{name}.service"
    foreign = [folder] if root.exists(folder) and not root.is_link(folder) else []
    foreign += [unit] if root.exists(unit) and not _is_made_by_install(root, unit) else []
    if foreign:
        raise EdgeLstmError(
            f"expected {foreign[0]} to be free or made by device install, found files of another program",
            "move it away, or choose another client_id",
        )
    version = _version(root, folder)
    if version is None or not root.is_file(version / _CONFIG):
        return
    path = root.on_this_machine(version / _CONFIG)
    if (found := read_toml(path, ServiceConfig).mqtt.client_id) != client_id:
        raise EdgeLstmError(
            f'expected {name} to be free or of client_id "{client_id}", found the service of "{found}"',
            "choose another client_id, or uninstall that one",
        )


def _files(
    config: ServiceConfig, config_path: Path, root: SystemRoot, name: str
) -> tuple[dict[str, InstalledFile], dict[str, Path]]:
    """(files for the folder of the service, files that systemd passes to it by credential name)."""
    mqtt = config.mqtt
    if Path(config.state).is_absolute() or ".." in Path(config.state).parts:
        raise EdgeLstmError(
            f'{config_path}: expected a relative path for state, which is in {_STATE / name}, found "{config.state}"',
            "leave state out: the service may write only there",
        )
    files = {_CONFIG: InstalledFile(_read(config_path, "config"), _PUBLIC)}
    credentials = {}
    for file in config.files():
        secret = file.role == "secret"
        _refuse_stolen(config_path, file)
        files |= _copied_file(config_path, file.key, file.path, _SECRET if secret else _PUBLIC)
        if secret:
            credentials[file.name] = _HOME / name / file.path  # for an absolute path, that path
    if mqtt.password_file is not None:
        read_password(config_path.parent / mqtt.password_file)
    if (tls := mqtt.tls(config_path.parent)) is not None:
        tls.context()
    if mqtt.password_credential is not None:
        if set(mqtt.password_credential) & set("/:") or not mqtt.password_credential.isprintable():
            raise EdgeLstmError(
                f"expected the name of a credential without /, : and line ends, found {mqtt.password_credential!r}",
                "choose another password_credential",
            )
        credentials[mqtt.password_credential] = _CREDENTIALS / mqtt.password_credential
        stored = root.on_this_machine(credentials[mqtt.password_credential])
        if not root.is_file(credentials[mqtt.password_credential]):
            raise EdgeLstmError(
                f"expected the password in {stored}, found no file there",
                "write it there, readable only by root: install -m 600 FILE, or set password_file",
            )
    return files, credentials


def _refuse_stolen(config_path: Path, file: ConfigFile) -> None:
    """Refuse a config that would copy a file which its author may not read: root reads every file.

    Raises EdgeLstmError for a secret outside of the config's folder, and for a link to a closed file.
    """
    path = config_path.parent / file.path
    if file.role == "secret":
        beside_config(config_path.parent, file.path, file.name)
    elif path.exists() and not is_within(path, config_path.parent) and not path.stat().st_mode & stat.S_IROTH:
        raise EdgeLstmError(
            f"{config_path}: {file.key}: expected a file that everybody may read, found {path}, which is closed",
            "copy it beside the config",
        )


def _copied_file(config_path: Path, key: str, path: str, mode: int) -> dict[str, InstalledFile]:
    """The file `path` of the config, to be copied into the folder of the service; empty for an absolute path."""
    if ".." in Path(path).parts:
        raise EdgeLstmError(f'{config_path}: {key}: expected a path without .., found "{path}"', _BESIDE)
    if not path.isprintable():  # in the unit, text after a line end would be another setting
        raise EdgeLstmError(f"{config_path}: {key}: expected a path without line ends, found {path!r}", _BESIDE)
    if Path(path) == Path(_CONFIG):
        message = f"{config_path}: {key}: expected another name than {_CONFIG}, which is that of the installed config"
        raise EdgeLstmError(message, "rename the file")
    if not Path(path).is_absolute():
        return {str(Path(path)): InstalledFile(_read(config_path.parent / path, key), mode)}
    if mode != _SECRET and any(Path(path).is_relative_to(one) for one in HIDDEN):
        message = f'{config_path}: {key}: expected a path that a service can read, found "{path}"'
        raise EdgeLstmError(message, _BESIDE)
    _read(Path(path), key)
    return {}


_BESIDE = "put the file beside the config, and use a relative path"


def _read(path: Path, key: str) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise EdgeLstmError(
            f"expected the file of {key} at {path}, found: {error.strerror}", "check the path"
        ) from None


# Writing


def install(planned: Plan) -> list[str]:
    """Install the plan, and return what was done, a line per file. If a step fails, everything is restored.

    Raises EdgeLstmError where a file cannot be written, a link leads out of the root, or systemd refuses.
    """
    root, folder, unit = SystemRoot(planned.root), planned.folder, planned.unit_path
    if root.is_live:
        _refuse_others_than_root()
    done = []
    try:
        former_unit, former, enabled_link = root.read(unit), _version(root, folder), _WANTS / unit.name
        same = former is not None and root.files(former) == {
            name: (file.data, file.mode) for name, file in planned.files.items()
        }
        done += [f"{'unchanged' if same else 'wrote'} {folder / name}" for name in planned.files]
        for place in (folder.parent, unit.parent, enabled_link.parent):
            root.make_folder(place)
        with _restored_on_failure(root, folder, former, unit, former_unit, enabled_link):
            if not same:
                _set_version(root, folder, _write_version(root, folder, planned.files))
            if former_unit != planned.unit.encode():
                _write_unit(root, unit, planned.unit.encode())
            done.append(f"{'unchanged' if former_unit == planned.unit.encode() else 'wrote'} {unit}")
            if not root.is_link(enabled_link):
                root.link(enabled_link, unit)
                done.append(f"enabled {planned.name}, which starts with the system")
            if root.is_live:
                systemctl("daemon-reload")
        _remove_old_versions(root, folder)
    except OSError as error:
        raise EdgeLstmError(
            f"expected to write {error.filename or folder}, found: {error.strerror}; nothing was changed",
            "run it as root, and check the free space of the disk",
        ) from None
    return done


@contextlib.contextmanager
def _restored_on_failure(
    root: SystemRoot, folder: Path, former: Path | None, unit: Path, former_unit: bytes | None, enabled_link: Path
) -> Iterator[None]:
    """Restore the former link and unit where the block fails."""
    enabled = root.is_link(enabled_link)
    try:
        yield
    except BaseException:
        with contextlib.suppress(OSError, EdgeLstmError):
            if not enabled and root.exists(enabled_link):
                root.remove(enabled_link)
            if former is not None:
                _set_version(root, folder, former)
            elif root.is_link(folder):
                root.remove(folder)
            _remove_old_versions(root, folder)
            if former_unit is None and root.exists(unit):
                root.remove(unit)
            elif former_unit is not None and root.read(unit) != former_unit:
                _write_unit(root, unit, former_unit)
        raise


def _write_unit(root: SystemRoot, unit: Path, text: bytes) -> None:
    root.write(unit, text, _PUBLIC)


def _write_version(root: SystemRoot, folder: Path, files: Mapping[str, InstalledFile]) -> Path:
    """Write the files to a new folder beside the link `folder`, and fsync them; it is not yet in use."""
    version = folder.with_name(f"{_version_prefix(folder)}{secrets.token_hex(4)}")
    root.make_folder(version)
    for name, file in files.items():
        root.write(version / name, file.data, file.mode)
    return version


def _set_version(root: SystemRoot, folder: Path, version: Path) -> None:
    """Let the link `folder` lead to `version`, in one step."""
    root.link(folder, Path(version.name))


def _version(root: SystemRoot, folder: Path) -> Path | None:
    """The folder beside the link `folder` that is in use; None: there is none that `install` made."""
    target = root.target(folder)
    if target is None or len(target.parts) != 1 or not target.name.startswith(_version_prefix(folder)):
        return None
    return folder.with_name(target.name)


def _version_prefix(folder: Path) -> str:
    return f".{folder.name}@"  # no name of a service has an @


def _remove_old_versions(root: SystemRoot, folder: Path) -> None:
    """Remove versions that are not in use: former ones, and those that a crash left."""
    kept = _version(root, folder)
    # a crash can also leave a link or a file that was to replace one, see SystemRoot
    begins = (_version_prefix(folder), f".{folder.name}.")
    for name in root.names(folder.parent):
        if name.startswith(begins) and (kept is None or name != kept.name):
            with contextlib.suppress(OSError):
                root.remove_tree(folder.with_name(name))


def uninstall(name: str, root: Path, with_state: bool = False) -> list[str]:
    """Stop the service, remove what `install` wrote, and return what was done, a line per file.

    `with_state`: also remove the state of its streams, even where the service is uninstalled already.
    Raises EdgeLstmError where there is no such service. A unit of another program is not touched.
    """
    system, folder, unit = SystemRoot(root), _HOME / name, _UNITS / f"{name}.service"
    if service_name(name) != name or not (
        _is_made_by_install(system, unit) or system.is_link(folder) or (with_state and _state_paths(name, system))
    ):
        known = ", ".join(installed(root)) or "none"
        raise EdgeLstmError(f"expected a service {name} at {root}, found {known}", "name one of those, or its config")
    if system.is_live:
        _refuse_without_systemd()
        _refuse_others_than_root()
        if _is_made_by_install(system, unit):
            systemctl("stop", unit.name)
    done = []
    try:
        for path in (_WANTS / unit.name, unit, folder):
            if system.is_link(path) or (path == unit and _is_made_by_install(system, unit)):
                system.remove(path)
                done.append(f"removed {path}")
        _remove_old_versions(system, folder)
        if system.is_live:
            systemctl("daemon-reload")
        done += _remove_state(name, system) if with_state else _kept_state(name, system)
    except OSError as error:
        raise EdgeLstmError(f"expected to remove {error.filename}, found: {error.strerror}", "run it as root") from None
    return done


def state_folder(config_path: Path, root: Path = Path("/")) -> Path | None:
    """The folder of the state of the installed service with this config; None: the config is not an installed one.

    Before the first start of the service: the folder in which systemd will create it.
    """
    system, folder = SystemRoot(root), config_path.absolute().parent
    if folder.parent != system.on_this_machine(_HOME):
        return None
    state = system.on_this_machine(_STATE / folder.name)
    return state if os.path.lexists(state) else state.parent


def _is_made_by_install(root: SystemRoot, unit: Path) -> bool:
    try:
        return (root.read(unit) or b"").startswith(MARK.encode())
    except OSError:
        return False


def _state_paths(name: str, root: SystemRoot) -> list[Path]:
    """With DynamicUser=, systemd keeps the folder under private/, and a link to it in the usual place."""
    return [path for path in (_STATE / name, _STATE / "private" / name) if root.exists(path)]


def _kept_state(name: str, root: SystemRoot) -> list[str]:
    return [f"kept {path}" for path in _state_paths(name, root)[:1]]


def _remove_state(name: str, root: SystemRoot) -> list[str]:
    done = []
    for path in _state_paths(name, root):
        root.remove_tree(path)
        done.append(f"removed {path}")
    return done


def installed(root: Path) -> list[str]:
    """The names of the installed services."""
    system = SystemRoot(root)
    return [name for name in system.names(_HOME) if system.is_link(_HOME / name) and not name.startswith(".")]


def systemctl(*arguments: str) -> None:
    """Run systemctl. Raises EdgeLstmError with its answer."""
    try:
        done = subprocess.run(
            ["systemctl", *arguments], capture_output=True, text=True, check=False, timeout=_SYSTEMCTL_S
        )
    except subprocess.TimeoutExpired:
        raise EdgeLstmError(
            f"expected systemctl {' '.join(arguments)} to end within {_SYSTEMCTL_S:g} s, found that it still runs",
            _hint_after(arguments),
        ) from None
    if done.returncode:
        raise EdgeLstmError(
            f"expected systemctl {' '.join(arguments)} to succeed, found: {' '.join(done.stderr.split())}",
            _hint_after(arguments),
        )


def _hint_after(arguments: Sequence[str]) -> str:
    if arguments[0] in ("start", "restart"):
        return f"see why: systemctl status {arguments[-1]}; journalctl -u {arguments[-1]} -n 30"
    return "see systemctl status"
