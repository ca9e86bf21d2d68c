"""`device deploy`: installs and starts a service on a board over ssh, from the workstation.

Steps: check the board, create the environment, copy the files, verify the bundle there, install, start, wait. A running
service is not touched before the new bundle has passed its self-test on the board's own backend. An interrupted
deployment can be repeated: it goes on, and keeps what is there already.
"""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path, PurePosixPath
from typing import Any

from edge_lstm.backends.kinds import BACKENDS
from edge_lstm.bundle.archive import Bundle
from edge_lstm.bundle.signing import open_trusted
from edge_lstm.deploy.install import service_name
from edge_lstm.deploy.own_wheel import own_wheel
from edge_lstm.deploy.ssh import Ssh
from edge_lstm.deploy.wheel_hashes import refuse_other_wheels
from edge_lstm.deploy.wheel_target import Target, constraints
from edge_lstm.foundation.child_process import signal_name
from edge_lstm.foundation.config import read_toml
from edge_lstm.foundation.errors import EdgeLstmError
from edge_lstm.foundation.text import printable
from edge_lstm.hardware.boards import BoardConfig, detected, read_board
from edge_lstm.hardware.machine import Machine
from edge_lstm.mqtt.credentials import beside_config, read_secret
from edge_lstm.service.accepted_bundle import require_purpose
from edge_lstm.service.config import ServiceConfig

Log = Callable[[str], None]

CONFIG = "service.toml"
HOME = "/opt/edge-lstm"  # on the board: environments, and the files of services
_NEEDED_MB = 500  # for an environment and its wheels
_SPARE_MB = 50  # with less, pip fails for lack of space, whatever its message
_LAST_LINES = 15
_STEP_S = 600.0
_SLOW_STEP_S = 3600.0  # of a step that copies files, installs packages or runs a self-test, on a slow board
_ANSWER_S = 60.0  # of a small program, beyond the time that it waits itself
# Its source comes first on stdin, then its input: so the board needs no file for it.
_BOOT = "import sys; exec(compile(sys.stdin.buffer.read(int(sys.argv.pop(1))), 'board_agent', 'exec'))"


@dataclass(frozen=True)
class DeploymentFiles:
    """The files of a service: its config and the files that the config names, by path in the folder of the service."""

    name: str  # of its systemd unit
    config: ServiceConfig
    bundle: Bundle
    files: Mapping[str, bytes]

    @property
    def extras(self) -> list[str]:
        """The extras that its environment needs in addition to those of the board."""
        config = self.config
        formats = {config.input.format, config.output.format}
        return [
            *(["signing"] if config.trusted_keys else []),
            *(["msgpack"] if "msgpack" in formats else []),
        ]


@dataclass(frozen=True)
class Outcome:
    """The result of a deployment."""

    service: str
    changed: list[str]  # descriptions of all changes; empty: everything was up to date
    prediction: str | None  # topic and payload of the first one; None: none came, or `wait_s` was 0
    not_received: str | None = None  # why the broker did not deliver it


def deployment_files(service: Path, bundle: Path) -> DeploymentFiles:
    """Read and check every file that goes to the board. Raises EdgeLstmError where one is missing."""
    config = read_toml(service, ServiceConfig)
    sources = {config.bundle: ("bundle", bundle)}
    for file in config.files():
        if file.role != "bundle" and not PurePosixPath(file.path).is_absolute():  # an absolute one is the board's own
            sources[file.path] = (file.key, service.parent / file.path)
            if file.role == "secret":
                read_secret(beside_config(service.parent, file.path, file.name))
    files = {CONFIG: service.read_bytes()}
    for place, (name, source) in sources.items():
        pure = PurePosixPath(place)
        if pure.is_absolute() or ".." in pure.parts:
            raise EdgeLstmError(
                f"{service}: {name}: expected a path below the folder of this config, found {place}",
                "use such a path: the board keeps the same layout of files",
            )
        if str(pure) in files:
            raise EdgeLstmError(
                f"{service}: {name}: expected another name than {place}, which is the name of the installed config",
                "rename the file",
            )
        try:
            files[str(pure)] = source.read_bytes()
        except OSError as error:
            raise EdgeLstmError(f"expected to read {source}, found: {error.strerror}", "check the path") from None
    trusted = config.trusted_keys
    here = all(path in files for path in trusted)  # others are on the board, which verifies in any case
    opened = open_trusted(bundle, [service.parent / path for path in trusted] if here else None)
    require_purpose(opened, config)
    return DeploymentFiles(service_name(config.mqtt.client_id), config, opened, files)


class _Board:
    """The board: runs actions of `board_agent` and other commands there, as root."""

    def __init__(self, ssh: Ssh, python: str) -> None:
        self.ssh = ssh
        self._python = python
        self._source = (resources.files("edge_lstm.deploy") / "board_agent.py").read_bytes()
        self._root = [] if ssh.run(["id", "-u"]).stdout.strip() == b"0" else ["sudo", "-n"]
        if self._root:  # checked once, because errors of sudo look like errors of the command
            status, _, stderr = self.run(["true"])
            if status:
                raise EdgeLstmError(
                    f"expected {ssh.destination} to become root by sudo, found: {_last_line(stderr)}",
                    "allow sudo without a password (visudo: USER ALL=(ALL) NOPASSWD: ALL), or deploy as root@HOST",
                )

    def run(self, command: Sequence[str], stdin: bytes = b"", limit_s: float = _STEP_S) -> tuple[int, str, str]:
        """Run a command as root: (exit status, stdout, stderr). Raises EdgeLstmError after `limit_s`."""
        done = self.ssh.run([*self._root, *command], stdin, limit_s)
        return done.returncode, done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace")

    def call(self, action: str, stdin: bytes = b"", **arguments: Any) -> Any:
        """Run an action of `board_agent`, and return its answer."""
        command = [self._python, "-I", "-c", _BOOT, str(len(self._source)), action, json.dumps(arguments)]
        limit_s = _SLOW_STEP_S if action in ("receive", "environment", "digests") else _STEP_S
        status, stdout, stderr = self.run(command, self._source + stdin, limit_s)
        if status == 127 or "command not found" in stderr:
            raise EdgeLstmError(
                f"expected {self._python} on {self.ssh.destination}, found none",
                "install it there (sudo apt install python3 python3-venv), or name another with --python",
            )
        if "Unknown option: -I" in stderr:  # as Python 2 answers
            raise EdgeLstmError(
                f"expected {self._python} on {self.ssh.destination} to be Python 3, found an older one",
                "name another with --python",
            )
        if status:
            raise EdgeLstmError(
                f"expected the step {action} to succeed on {self.ssh.destination}, found: {_last_line(stderr)}",
                "fix that there and deploy again: it continues from there",
            )
        return json.loads(stdout)

    def send(self, folder: str, files: Mapping[str, bytes], *, secret: bool, alone: bool) -> list[str]:
        """Send those of `files` that differ into `folder`, and return their names. `alone`: remove other files."""
        there = self.call("digests", folder=folder)
        differ = [name for name, content in files.items() if there.get(name) != hashlib.sha256(content).hexdigest()]
        stale = sorted(set(there) - set(files)) if alone else []
        if differ or stale:
            packed = _tar({name: files[name] for name in differ})
            self.call("receive", packed, folder=folder, secret=secret, stale=stale)
        return [*differ, *stale]


def deploy(
    ssh: Ssh,
    service: DeploymentFiles,
    *,
    log: Log,
    wheelhouse: Path | None = None,
    python: str = "python3",
    root: str = "",
    wait_s: float = 30.0,
) -> Outcome:
    """Deploy `service` to the board, start it, and wait up to `wait_s` for a prediction.

    `log` receives a line per step. `wheelhouse`: a folder of wheels, for a board without internet. `python`: a program
    on the board. `root`: a folder of the board in place of its /. Raises EdgeLstmError with the reason and a remedy.
    """
    board = _Board(ssh, python)
    facts = board.call("probe", root=root, folder=HOME)
    name, board_config, machine = _identified(ssh.destination, service.config, facts)
    log(f"board        {machine.model or name}: {machine.architecture}, Python {machine.python}, glibc {machine.glibc}")
    _refuse_unready(ssh.destination, board_config, machine, facts)
    extras = _extras(board_config, service)
    changed = []
    environment, made = _environment(board, root, machine, extras, wheelhouse, python, log, name)
    if made:
        changed.append("the environment")
    folder = f"{root}{HOME}/services/{service.name}"
    changed += board.send(folder, service.files, secret=True, alone=False)
    program = f"{environment}/bin/edge-lstm"
    _verify(board, program, folder, service)
    log(f"verified     {service.bundle.id} on that board's {service.config.backend or 'backends'}")
    status, stdout, stderr = board.run([program, "device", "install", f"{folder}/{CONFIG}", *_root_option(root)])
    if status:
        raise EdgeLstmError(
            f"{ssh.destination}: {_line_after('error: ', stderr) or _last_line(stderr)}",
            _line_after("hint: ", stderr) or "fix that and deploy again",
        )
    for line in stdout.splitlines():
        log(f"installed    {printable(line)}")
    deployed_file = f"{folder}.deployed"
    digest = _digest(
        [environment, {name: hashlib.sha256(content).hexdigest() for name, content in service.files.items()}]
    )
    unit = f"{service.name}.service"
    active = board.run(["systemctl", "is-active", "--quiet", unit])[0] == 0
    if active and board.call("small_file", path=deployed_file, text=None) == digest:
        return Outcome(service.name, changed, None)
    _start(board, unit)
    log(f"ready        {unit}")
    board.call("link", path=f"{root}{HOME}/edge-lstm", target=program.removeprefix(f"{root}{HOME}/"))
    board.call("small_file", path=deployed_file, text=digest)
    board.call(
        "remove_unused",
        folder=f"{root}{HOME}/envs",
        units=f"{root}/etc/systemd/system",
        incoming=f"{root}{HOME}/incoming",
    )
    prediction, not_received = _first_prediction(board, environment, f"{folder}/{CONFIG}", wait_s)
    return Outcome(service.name, changed or ["the service"], prediction, not_received)


def _identified(destination: str, config: ServiceConfig, facts: Mapping[str, Any]) -> tuple[str, BoardConfig, Machine]:
    """(name, board, machine) from the agent's `facts`. Raises EdgeLstmError where board and machine do not fit."""
    facts = {key: printable(value) if isinstance(value, str) else value for key, value in facts.items()}
    machine = Machine(
        facts["machine"],
        facts["python"],
        facts["glibc"],
        facts["memory_mb"],
        facts["model"],
        tuple(facts["compatible"]),
    )
    name = config.device or detected(machine)
    if name is None:
        raise EdgeLstmError(
            f"{destination}: expected a board of edge-lstm device list, found {machine.model or machine.architecture}",
            'name the most similar one in the config: device = "..."',
        )
    board = read_board(name)
    if refusals := board.refusals(machine):
        reasons = "; ".join(reason for reason, _ in refusals)
        remedies = list(dict(refusals).values())
        if "expected Python" in reasons:
            remedies.append("if it has another Python, name that with --python")
        raise EdgeLstmError(f"{destination} does not fit {board.title}: {reasons}", " / ".join(remedies))
    return name, board, machine


def _refuse_unready(destination: str, board: BoardConfig, machine: Machine, facts: Mapping[str, Any]) -> None:
    """Raises EdgeLstmError where a package of the board's system is missing, or disk space."""
    target = Target(machine.python or "", board.architecture, machine.glibc or "0.0")
    lacking = []
    if machine.glibc is None:
        expected = "glibc, since there are no wheels for another C library"
        lacking.append((expected, "another one", "use a system with glibc, such as Debian"))
    if not facts["venv"]:
        lacking.append(("the modules venv and ensurepip", "none", "sudo apt install python3-venv"))
    if "numpy" in target.from_distribution and facts["numpy"] is None:
        expected = "the distribution's numpy, since there are no 32-bit wheels"
        lacking.append((expected, "none", "sudo apt install python3-numpy"))
    if not facts["systemd"]:
        lacking.append(("systemd", "none", "start it there by hand: edge-lstm run service.toml"))
    if facts["free_mb"] < _NEEDED_MB:
        lacking.append((f"{_NEEDED_MB} MB free below {HOME}", f"{facts['free_mb']} MB", "free some space there"))
    if lacking:
        reasons = "; ".join(f"expected {expected}, found {found}" for expected, found, _ in lacking)
        raise EdgeLstmError(f"{destination}: {reasons}", " / ".join(remedy for *_, remedy in lacking))


def _extras(board: BoardConfig, service: DeploymentFiles) -> list[str]:
    """The extras of the board, with the backend that the config names, and those for other keys of the config."""
    chosen = service.config.backend
    extras = set(board.extras)
    if chosen is not None:
        extras -= {kind.extra for kind in BACKENDS.values()}
        extras |= {BACKENDS[chosen].extra} - {""}  # empty: the base installs that backend
    return sorted({*extras, *service.extras})


def _environment(
    board: _Board,
    root: str,
    machine: Machine,
    extras: list[str],
    wheelhouse: Path | None,
    python: str,
    log: Log,
    name: str,
) -> tuple[str, bool]:
    """(folder, whether it was created) of the environment. The name of the folder is a digest of its content."""
    own_name, own = own_wheel()
    limits = constraints(extras)
    digest = _digest([hashlib.sha256(own).hexdigest(), extras, limits, machine.python, python])
    folder, incoming = f"{root}{HOME}/envs/{digest}", f"{root}{HOME}/incoming/{digest}"
    if board.call("complete", folder=folder):
        log(f"environment  unchanged: {', '.join(extras)}")
        return folder, False
    target = Target(machine.python or "", machine.architecture or "", machine.glibc or "0.0")
    files = {own_name: own, "constraints.txt": limits.encode()}
    if wheelhouse is not None:
        wheels = [path for path in sorted(wheelhouse.glob("*.whl")) if target.takes(path.name)]
        if not wheels:
            raise EdgeLstmError(
                f"expected wheels for Python {target.minor} on {target.machine} in {wheelhouse}, found none",
                f"collect them: {_collecting(name, extras, wheelhouse)}",
            )
        refuse_other_wheels(wheels)
        files |= {path.name: path.read_bytes() for path in wheels if not path.name.startswith("edge_lstm-")}
    sent = board.send(incoming, files, secret=False, alone=True)
    log(f"environment  new, with {', '.join(extras)}: {len(sent)} files copied; pip takes minutes on a small board")
    offline = [] if wheelhouse is None else ["--no-index", "--find-links", incoming]
    install = [*offline, "--only-binary", ":all:", "--constraint", f"{incoming}/constraints.txt"]
    answer = board.call(
        "environment",
        folder=folder,
        distribution=bool(target.from_distribution),
        install=[*install, f"{incoming}/{own_name}[{','.join(extras)}]"],
        wheels=incoming,
    )
    if "failed" in answer:
        errors = [line for line in answer["failed"].splitlines() if line.startswith("ERROR: ")]
        raise EdgeLstmError(
            f"{board.ssh.destination}: expected pip to install edge-lstm[{','.join(extras)}], "
            f"found: {printable(errors[0].removeprefix('ERROR: ')) if errors else _last_line(answer['failed'])}",
            remedy(answer, name, extras, wheelhouse),
        )
    return folder, True


def remedy(answer: Mapping[str, Any], name: str, extras: list[str], wheelhouse: Path | None) -> str:
    """What to do where pip could not install `extras` on the board `name`; `answer` is that of the agent."""
    if answer["free_mb"] < _SPARE_MB:
        return f"free some space below {HOME}: {answer['free_mb']} MB were left"
    collecting = _collecting(name, extras, wheelhouse or Path("DIR"))
    if wheelhouse is not None:
        return f"collect the wheels again: {collecting}"
    return f"without internet there: {collecting} here, and deploy with --wheelhouse DIR"


def _collecting(name: str, extras: list[str], folder: Path) -> str:
    """The command that collects the wheels for an environment with these extras."""
    others = "".join(f"--extra {extra} " for extra in extras if extra not in read_board(name).extras)
    return f"edge-lstm device wheelhouse {name} {others}-o {folder}"


def _verify(board: _Board, program: str, folder: str, service: DeploymentFiles) -> None:
    """Run the bundle's self-test on the board. Raises EdgeLstmError where it fails or crashes."""
    config = service.config
    chosen = [("--backend", config.backend), ("--scheme", config.scheme)]
    options = [part for option, value in chosen if value is not None for part in (option, value)]
    for path in config.trusted_keys:
        options += ["--trust", str(PurePosixPath(folder, path))]
    status, stdout, stderr = board.run([program, "verify", f"{folder}/{config.bundle}", *options], limit_s=_SLOW_STEP_S)
    if status:
        ended = f"died of {signal_name(status - 128)}" if status > 128 else f"ended with {status}, {_last_line(stderr)}"
        failed = [" ".join(line.split()[1:]) for line in stdout.splitlines() if line.startswith("FAILED ")]
        found = printable("; ".join(failed)) or _line_after("error: ", stderr) or f"verify {ended}"
        raise EdgeLstmError(
            f"the bundle fails its self-test on {board.ssh.destination}: {found}",
            "the running service was not touched; try another backend or scheme in the config",
        )


def _start(board: _Board, unit: str) -> None:
    """Start the service. Raises EdgeLstmError with the end of its log where it does not become ready."""
    for command in (["daemon-reload"], ["enable", "--quiet", unit], ["reset-failed", unit], ["restart", unit]):
        status, _, stderr = board.run(["systemctl", *command])
        if status and command[0] != "reset-failed":  # reset-failed fails for a unit that was never started
            _, journal, _ = board.run(
                ["journalctl", "--unit", unit, "--output", "cat", "--no-pager", "-n", str(_LAST_LINES)]
            )
            journal_lines = (
                "".join(f"\n  {printable(line)}" for line in journal.splitlines()) or f" {_last_line(stderr)}"
            )
            raise EdgeLstmError(
                f"{board.ssh.destination}: expected {unit} to become ready, found:{journal_lines}",
                f"fix that and deploy again; to see more: ssh {board.ssh.destination} journalctl -u {unit}",
            )


def _first_prediction(board: _Board, environment: str, config: str, wait_s: float) -> tuple[str | None, str | None]:
    """(topic and payload of the first prediction or None, why the broker did not deliver one or None)."""
    python = f"{environment}/bin/python"
    command = [python, "-m", "edge_lstm.deploy.first_prediction", config, f"{wait_s:g}"]
    status, stdout, stderr = board.run(command, limit_s=wait_s + _ANSWER_S)
    not_received = (_line_after("error: ", stderr) or _last_line(stderr)) if status and stderr.strip() else None
    return printable(stdout.strip()) or None, not_received


def _root_option(root: str) -> list[str]:
    return ["--root", root] if root else []


def _tar(files: Mapping[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def _digest(facts: object) -> str:
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:12]


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return printable(lines[-1]) if lines else "no message"


def _line_after(beginning: str, text: str) -> str | None:
    """The rest of the first line that begins with `beginning`, or None."""
    lines = [line.removeprefix(beginning) for line in text.splitlines() if line.startswith(beginning)]
    return printable(lines[0]) if lines else None
