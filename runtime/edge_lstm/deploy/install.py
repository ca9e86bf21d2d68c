"""A service as files of a system: config and bundle in their folder, its unit beside systemd's others; and away again.

All is checked before anything is written; what is written appears at once, or not at all.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import site
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import edge_lstm
from edge_lstm.backends.registry import preferred
from edge_lstm.backends.selftest import load_verified
from edge_lstm.bundle.archive import Bundle
from edge_lstm.bundle.signing import require_trusted_signature
from edge_lstm.deploy.systemd_unit import HIDDEN, MARK, Program, unit_text
from edge_lstm.foundation.config import read_toml
from edge_lstm.foundation.errors import EdgeLstmError
from edge_lstm.foundation.files import write_file
from edge_lstm.hardware.boards import read_board
from edge_lstm.hardware.machine import prepared_machine, run_on
from edge_lstm.mqtt.credentials import read_password
from edge_lstm.service.config import ServiceConfig
from edge_lstm.service.systemd import is_running

_HOME = Path("/etc/edge-lstm")  # a folder for each service, reached by a link that is changed in one step
_UNITS = Path("/etc/systemd/system")
_WANTS = _UNITS / "multi-user.target.wants"
_STATE = Path("/var/lib")
_CREDENTIALS = Path("/etc/credstore")
_PUBLIC, _SECRET = 0o644, 0o600
_OLDEST_WITH_CREDENTIALS = 247
_LONGEST_NAME = 200
_CONFIG = "service.toml"


@dataclass(frozen=True)
class Content:
    """A file that the service reads."""

    data: bytes
    mode: int


@dataclass(frozen=True)
class Plan:
    """What an installation consists of; paths are the system's own, without the root in front."""

    root: Path
    name: str
    files: Mapping[str, Content]  # by path in the service's folder
    unit: str
    python: Path  # which the unit starts

    @property
    def folder(self) -> Path:
        return _HOME / self.name

    @property
    def unit_path(self) -> Path:
        return _UNITS / f"{self.name}.service"


def plan(config_path: Path, root: Path, program: Program | None = None) -> Plan:
    """What is to be installed for the config at `config_path` on the system at `root`.

    Raises EdgeLstmError where the config, a file of it, the bundle or the machine is unfit; nothing is written here.
    On the running system (`root` is /) the bundle's self-test has to pass as well.
    """
    live = _is_live(root)
    config = read_toml(config_path, ServiceConfig)
    name = service_name(config.mqtt.client_id)
    if live:
        _refuse_without_systemd()
    _refuse_misfit(config, root)
    files, credentials = _files(config, config_path, root, name)
    if live and credentials:
        _refuse_old_systemd()
    bundle = Bundle.open(config_path.parent / config.bundle)
    if config.trust is not None:
        require_trusted_signature(bundle, config_path.parent / config.trust)
    if live:
        if config.cores is not None:
            run_on(config.cores)
        load_verified(bundle, *preferred(bundle, config.backend, config.scheme), config.execution)
    _refuse_taken(root, name, config.mqtt.client_id)
    path = _HOME / name / _CONFIG
    program = program or this_program(root)
    return Plan(root, name, files, unit_text(name, config, path, program, credentials), program.python)


def service_name(client_id: str) -> str:
    """The unit's name: the client id, which is one per service, so that it is seen whose it is."""
    name = re.sub(r"[^A-Za-z0-9_.-]", "-", client_id)[:_LONGEST_NAME]
    return name if name.startswith("edge-lstm") else f"edge-lstm-{name}"


def this_program(root: Path) -> Program:
    """The Python that runs this, as the system at `root` sees it.

    Raises EdgeLstmError where a service, which is nobody's user, could not read it.
    """
    package = Path(edge_lstm.__file__).parents[1]
    if site.ENABLE_USER_SITE and package.is_relative_to(site.getusersitepackages()):
        raise EdgeLstmError(
            f"expected edge-lstm in a virtual environment, found it in a user's own packages at {package}",
            "run python3 -m venv /opt/edge-lstm, and install it there",
        )
    folders = (Path(sys.prefix), Path(sys.base_prefix), package)
    for folder in folders:
        if closed := _closed_to_others(folder):
            raise EdgeLstmError(
                f"expected a Python that every user may read, found {closed} closed",
                f"run chmod -R go+rX {closed}, or install edge-lstm in a virtual environment under /opt",
            )
    return Program(_inside(Path(sys.executable), root), tuple(_inside(folder, root) for folder in folders))


def _closed_to_others(folder: Path) -> Path | None:
    """The first part of the way to `folder` that others may not enter; what a unit binds has a way of its own."""
    hidden = any(folder.is_relative_to(one) for one in HIDDEN)
    for part in [folder] if hidden else [folder, *folder.parents]:
        if part.stat().st_mode & 0o001 == 0:
            return part
    return None


def _inside(path: Path, root: Path) -> Path:
    return Path("/") / path.relative_to(root) if path.is_relative_to(root) else path


def _refuse_without_systemd() -> None:
    if not is_running():
        raise EdgeLstmError(
            "expected systemd to manage this machine, found it does not",
            "start edge-lstm run by what manages it, or prepare another system with --root DIR",
        )


def _refuse_others_than_root() -> None:
    if os.geteuid() != 0:
        raise EdgeLstmError("expected to be root, to write under /etc, found another user", "run it with sudo")


def _refuse_old_systemd() -> None:
    first = subprocess.run(["systemctl", "--version"], capture_output=True, text=True, check=False).stdout.split()
    if len(first) > 1 and first[1].isdecimal() and int(first[1]) < _OLDEST_WITH_CREDENTIALS:
        raise EdgeLstmError(
            f"expected systemd {_OLDEST_WITH_CREDENTIALS} or newer, which hands secrets to a service, found {first[1]}",
            "use a newer system, or a broker on this machine that needs no password",
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


def _refuse_taken(root: Path, name: str, client_id: str) -> None:
    folder, unit = _HOME / name, _UNITS / f"{name}.service"
    theirs = [path for path in (folder,) if _at(root, path).exists() and not _at(root, path).is_symlink()]
    theirs += [path for path in (unit,) if _at(root, path).exists() and not _is_ours(_at(root, path))]
    if theirs:
        raise EdgeLstmError(
            f"expected {theirs[0]} to be free or of device install, found what something else wrote there",
            "move it away, or choose another client_id",
        )
    path = _at(root, folder / _CONFIG)
    if path.exists() and (found := read_toml(path, ServiceConfig).mqtt.client_id) != client_id:
        raise EdgeLstmError(
            f'expected {name} to be free or of client_id "{client_id}", found the service of "{found}"',
            "choose another client_id, or uninstall that one",
        )


def _files(
    config: ServiceConfig, config_path: Path, root: Path, name: str
) -> tuple[dict[str, Content], dict[str, Path]]:
    """What goes into the service's folder, and the files that systemd hands to it, by what for."""
    mqtt = config.mqtt
    if Path(config.state).is_absolute() or ".." in Path(config.state).parts:
        raise EdgeLstmError(
            f'{config_path}: expected state = "state.db" or so, within {_STATE / name}, found "{config.state}"',
            "a service writes nowhere else: leave state out",
        )
    files = {_CONFIG: Content(_read(config_path, "config"), _PUBLIC)}
    credentials = {}
    for file in config.files():
        files |= _placed(config_path, file.key, file.path, _SECRET if file.role == "secret" else _PUBLIC)
        if file.role == "secret":
            credentials[file.name] = _HOME / name / file.path  # which is `path` where that is absolute
    if mqtt.password_file is not None:
        read_password(config_path.parent / mqtt.password_file)
    if (tls := mqtt.tls(config_path.parent)) is not None:
        tls.context()
    if mqtt.password_credential is not None:
        if set(mqtt.password_credential) & set("/:") or not mqtt.password_credential.isprintable():
            raise EdgeLstmError(
                f"expected a credential's name without /, : and line ends, found {mqtt.password_credential!r}",
                "choose another password_credential",
            )
        credentials[mqtt.password_credential] = _CREDENTIALS / mqtt.password_credential
        if not _at(root, credentials[mqtt.password_credential]).is_file():
            raise EdgeLstmError(
                f"expected the password in {_at(root, credentials[mqtt.password_credential])}, found no file there",
                "write it there, for root alone: install -m 600 FILE, or set password_file",
            )
    return files, credentials


def _placed(config_path: Path, key: str, path: str, mode: int) -> dict[str, Content]:
    """A file that the config names, for the service's folder; nothing for one that stays where it is."""
    if ".." in Path(path).parts:
        raise EdgeLstmError(f'{config_path}: {key}: expected a path without .., found "{path}"', _BESIDE)
    if not path.isprintable():  # the unit would take what follows a line's end for a setting of its own
        raise EdgeLstmError(f"{config_path}: {key}: expected a path without line ends, found {path!r}", _BESIDE)
    if Path(path) == Path(_CONFIG):
        taken = (
            f"{config_path}: {key}: expected another name than {_CONFIG}, under which the config itself is installed"
        )
        raise EdgeLstmError(taken, "rename the file")
    if not Path(path).is_absolute():
        return {str(Path(path)): Content(_read(config_path.parent / path, key), mode)}
    if mode != _SECRET and any(Path(path).is_relative_to(one) for one in HIDDEN):
        hidden = f'{config_path}: {key}: expected a path that a service can read, found "{path}"'
        raise EdgeLstmError(hidden, _BESIDE)
    _read(Path(path), key)
    return {}


_BESIDE = "put the file beside the config, and name it by a relative path"


def _read(path: Path, key: str) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise EdgeLstmError(
            f"expected the file of {key} at {path}, found: {error.strerror}", "check the path"
        ) from None


def _at(root: Path, path: Path) -> Path:
    """A path of the system at `root`, as this one reaches it."""
    return root / path.relative_to("/")


# Writing


def install(wanted: Plan) -> list[str]:
    """Put it in place, and say what was done, a line for each file. Where a step fails, all is as it was before.

    Raises EdgeLstmError where the system does not take it.
    """
    root, folder = wanted.root, _at(wanted.root, wanted.folder)
    if _is_live(root):
        _refuse_others_than_root()
    unit, want = _at(root, wanted.unit_path), _at(root, _WANTS / wanted.unit_path.name)
    former_unit = unit.read_text() if unit.exists() else None
    former = folder.readlink() if folder.is_symlink() else None
    said = []
    try:
        same = _same(folder, wanted.files)
        said += [f"{'unchanged' if same else 'wrote'} {wanted.folder / name}" for name in wanted.files]
        for place in (folder.parent, unit.parent, want.parent):
            place.mkdir(mode=0o755, parents=True, exist_ok=True)
        with _undone_on_failure(folder, former, unit, former_unit, want):
            if not same:
                _point(folder, _staged(folder, wanted.files).name)
            if former_unit != wanted.unit:
                write_file(unit, wanted.unit)
                unit.chmod(_PUBLIC)
            said.append(f"{'unchanged' if former_unit == wanted.unit else 'wrote'} {wanted.unit_path}")
            if not want.is_symlink():
                want.symlink_to(wanted.unit_path)
                said.append(f"enabled {wanted.name}, which starts with the system")
            if _is_live(root):
                systemctl("daemon-reload")
    except OSError as error:
        raise EdgeLstmError(
            f"expected to write {error.filename or folder}, found: {error.strerror}; all is as it was before",
            "run it as root, with some space on the disk",
        ) from None
    _sweep(folder)
    return said


@contextlib.contextmanager
def _undone_on_failure(
    folder: Path, former: Path | None, unit: Path, former_unit: str | None, want: Path
) -> Iterator[None]:
    """What was there before is there again where the block fails."""
    enabled = want.is_symlink()
    try:
        yield
    except BaseException:
        with contextlib.suppress(OSError, EdgeLstmError):
            if not enabled:
                want.unlink(missing_ok=True)
            if former is None:
                folder.unlink(missing_ok=True)
            else:
                _point(folder, former.name)
            _sweep(folder)
            if former_unit is None:
                unit.unlink(missing_ok=True)
            elif unit.read_text() != former_unit:
                write_file(unit, former_unit)
        raise


def _same(folder: Path, files: Mapping[str, Content]) -> bool:
    found = {str(path.relative_to(folder)): path for path in folder.rglob("*") if path.is_file()}
    return found.keys() == files.keys() and all(
        path.read_bytes() == files[name].data and path.stat().st_mode & 0o777 == files[name].mode
        for name, path in found.items()
    )


def _staged(folder: Path, files: Mapping[str, Content]) -> Path:
    """A folder beside `folder` that holds the files, on the disk and not yet in use."""
    staged = Path(tempfile.mkdtemp(dir=folder.parent, prefix=_versions_of(folder)))
    staged.chmod(0o755)
    for name, content in files.items():
        place = staged / name
        place.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        place.touch(mode=_SECRET)  # a secret is nobody else's from its first byte on
        with place.open("wb") as file:
            file.write(content.data)
            file.flush()
            os.fsync(file.fileno())
        place.chmod(content.mode)
    return staged


def _point(folder: Path, target: str) -> None:
    """Make `folder` a link to `target`, in one step."""
    beside = folder.with_name(f"{_versions_of(folder)}link")
    beside.unlink(missing_ok=True)
    beside.symlink_to(target)
    beside.replace(folder)


def _versions_of(folder: Path) -> str:
    return f".{folder.name}@"  # no service's name has an @


def _sweep(folder: Path) -> None:
    """Away with versions that nobody points to: former ones, and what a crash left."""
    kept = folder.readlink().name if folder.is_symlink() else None
    for version in folder.parent.glob(f"{_versions_of(folder)}*"):
        if version.is_symlink():
            version.unlink()
        elif version.name != kept:
            shutil.rmtree(version, ignore_errors=True)


def uninstall(name: str, root: Path, with_state: bool = False) -> list[str]:
    """Stop the service, take away what `install` wrote, and say what was done; its state stays unless told otherwise.

    Of a service that is gone already it takes its state away, where told to.
    Raises EdgeLstmError where there is no such service; a unit that others wrote is none of ours.
    """
    folder, unit = _at(root, _HOME / name), _at(root, _UNITS / f"{name}.service")
    states = _state_paths(name, root) if with_state else []
    if service_name(name) != name or not (_is_ours(unit) or folder.is_symlink() or states):
        known = ", ".join(installed(root)) or "none"
        raise EdgeLstmError(f"expected a service {name} at {root}, found {known}", "name one of those, or its config")
    if _is_live(root):
        _refuse_without_systemd()
        _refuse_others_than_root()
        if _is_ours(unit):
            systemctl("stop", unit.name)
    said = []
    try:
        for path in (_at(root, _WANTS / unit.name), unit, folder):
            if path.is_symlink() or (path == unit and _is_ours(unit)):
                path.unlink()
                said.append(f"removed {_inside(path, root)}")
        _sweep(folder)
        if _is_live(root):
            systemctl("daemon-reload")
        said += _without_state(name, root) if with_state else _with_state(name, root)
    except OSError as error:
        raise EdgeLstmError(f"expected to remove {error.filename}, found: {error.strerror}", "run it as root") from None
    return said


def state_folder(config_path: Path, root: Path = Path("/")) -> Path | None:
    """Where systemd keeps the state of the installed service whose config this is; None: it is not an installed one.

    Before its first start that is the folder in which systemd will make it.
    """
    folder = config_path.absolute().parent
    if folder.parent != _at(root, _HOME):
        return None
    state = _at(root, _STATE / folder.name)
    return state if os.path.lexists(state) else state.parent


def _is_ours(unit: Path) -> bool:
    try:
        return unit.read_text(errors="replace").startswith(MARK)
    except OSError:
        return False


def _state_paths(name: str, root: Path) -> list[Path]:
    """DynamicUser= keeps the folder under private/, and a link to it where one looks."""
    return [path for path in (_at(root, _STATE / name), _at(root, _STATE / "private" / name)) if os.path.lexists(path)]


def _with_state(name: str, root: Path) -> list[str]:
    return [f"kept {_inside(path, root)}" for path in _state_paths(name, root)[:1]]


def _without_state(name: str, root: Path) -> list[str]:
    said = []
    for path in _state_paths(name, root):
        if path.is_symlink():
            path.unlink()
        else:
            shutil.rmtree(path)
        said.append(f"removed {_inside(path, root)}")
    return said


def installed(root: Path) -> list[str]:
    """The names of the services that are installed."""
    home = _at(root, _HOME)
    return sorted(path.name for path in home.glob("*") if path.is_symlink()) if home.is_dir() else []


def systemctl(*arguments: str) -> None:
    """Tell systemd. Raises EdgeLstmError with what it answers."""
    done = subprocess.run(["systemctl", *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        raise EdgeLstmError(
            f"expected systemctl {' '.join(arguments)} to succeed, found: {' '.join(done.stderr.split())}",
            _hint_after(arguments),
        )


def _hint_after(arguments: Sequence[str]) -> str:
    if arguments[0] in ("start", "restart"):
        return f"see why: systemctl status {arguments[-1]}; journalctl -u {arguments[-1]} -n 30"
    return "see systemctl status"


def _is_live(root: Path) -> bool:
    return root.resolve() == Path("/")
