"""A bundle and its config become a service on a board, over ssh, from the workstation.

Look, copy, make the environment, verify the bundle there, install, start, wait. The running service is touched only
after the new bundle has proven itself on that board's own backend; whatever was cut short is mended by doing it again,
and what is there already stays.
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
from edge_lstm.bundle.signing import require_trusted_signature
from edge_lstm.deploy.install import service_name
from edge_lstm.deploy.own_wheel import own_wheel
from edge_lstm.deploy.ssh import Ssh
from edge_lstm.deploy.wheel_target import Target, constraints
from edge_lstm.foundation.child_process import signal_name
from edge_lstm.foundation.config import read_toml
from edge_lstm.foundation.errors import EdgeLstmError
from edge_lstm.hardware.boards import BoardConfig, detected, read_board
from edge_lstm.hardware.machine import Machine
from edge_lstm.service.config import ServiceConfig

Say = Callable[[str], None]

CONFIG = "service.toml"
HOME = "/opt/edge-lstm"  # on the board: environments, and what services are made of
_NEEDED_MB = 500  # for an environment and the wheels that it is made of
_SPARE_MB = 50  # with less, pip fails for want of room, whatever it says
_LAST_LINES = 15
# The source comes first on stdin and what it works on behind it, so that nothing has to lie on the board for it.
_BOOT = "import sys; exec(compile(sys.stdin.buffer.read(int(sys.argv.pop(1))), 'board_agent', 'exec'))"


@dataclass(frozen=True)
class DeploymentFiles:
    """What a service is made of: its config, and the files beside it by their place in its folder."""

    name: str  # of its systemd unit
    config: ServiceConfig
    bundle: Bundle
    files: Mapping[str, bytes]

    @property
    def extras(self) -> list[str]:
        """What its environment needs beyond a board's own extras."""
        config = self.config
        formats = {config.input.format, config.output.format}
        return [
            *(["signing"] if config.trust is not None else []),
            *(["msgpack"] if "msgpack" in formats else []),
        ]


@dataclass(frozen=True)
class Outcome:
    """What a deployment came to."""

    service: str
    changed: list[str]  # what was not there already, in words; none: nothing was touched
    prediction: str | None  # the first one, with its topic; None: none came, or none was waited for
    unheard: str | None = None  # why the broker did not let it be heard


def deployment_files(service: Path, bundle: Path) -> DeploymentFiles:
    """Everything that goes to the board, read and checked here. Raises EdgeLstmError where a file of it is missing."""
    config = read_toml(service, ServiceConfig)
    mqtt = config.mqtt
    named = {
        "trust": config.trust,
        "mqtt.ca_file": mqtt.ca_file,
        "mqtt.cert_file": mqtt.cert_file,
        "mqtt.key_file": mqtt.key_file,
        "mqtt.password_file": mqtt.password_file,
    }
    sources = {config.bundle: ("bundle", bundle)}
    for name, place in named.items():
        if place is not None and not PurePosixPath(place).is_absolute():  # an absolute one is the board's own
            sources[place] = (name, service.parent / place)
    files = {CONFIG: service.read_bytes()}
    for place, (name, source) in sources.items():
        pure = PurePosixPath(place)
        if pure.is_absolute() or ".." in pure.parts:
            raise EdgeLstmError(
                f"{service}: {name}: expected a path below the folder of this config, found {place}",
                "name it so: on the board it will stand at the same place beside the config",
            )
        if str(pure) in files:
            raise EdgeLstmError(
                f"{service}: {name}: expected another name than {place}, under which the config itself goes",
                "rename the file",
            )
        try:
            files[str(pure)] = source.read_bytes()
        except OSError as error:
            raise EdgeLstmError(f"expected to read {source}, found: {error.strerror}", "check the path") from None
    opened = Bundle.open(bundle)
    if config.trust in files:
        require_trusted_signature(opened, service.parent / str(config.trust))
    return DeploymentFiles(service_name(mqtt.client_id), config, opened, files)


class _Board:
    """The other end: the verbs of `board_agent`, and commands, as root."""

    def __init__(self, ssh: Ssh, python: str) -> None:
        self.ssh = ssh
        self._python = python
        self._source = (resources.files("edge_lstm.deploy") / "board_agent.py").read_bytes()
        self._root = [] if ssh.run(["id", "-u"]).stdout.strip() == b"0" else ["sudo", "-n"]
        if self._root:  # asked once, since sudo's own complaints look like those of a command
            status, _, heard = self.run(["true"])
            if status:
                raise EdgeLstmError(
                    f"expected {ssh.destination} to become root by sudo, found: {_last(heard)}",
                    "allow it without a password there (visudo: USER ALL=(ALL) NOPASSWD: ALL), or deploy as root@HOST",
                )

    def run(self, command: Sequence[str], stdin: bytes = b"") -> tuple[int, str, str]:
        """Exit status, stdout, stderr of a command run as root."""
        done = self.ssh.run([*self._root, *command], stdin)
        return done.returncode, done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace")

    def ask(self, verb: str, stdin: bytes = b"", **arguments: Any) -> Any:
        """The answer of a verb of `board_agent`."""
        command = [self._python, "-I", "-c", _BOOT, str(len(self._source)), verb, json.dumps(arguments)]
        status, said, heard = self.run(command, self._source + stdin)
        if status == 127 or "command not found" in heard:
            raise EdgeLstmError(
                f"expected {self._python} on {self.ssh.destination}, found none",
                "install it there (sudo apt install python3 python3-venv), or name another with --python",
            )
        if "Unknown option: -I" in heard:  # Python 2 and its like
            raise EdgeLstmError(
                f"expected {self._python} on {self.ssh.destination} to be Python 3, found an older one",
                "name another with --python",
            )
        if status:
            raise EdgeLstmError(
                f"expected {self.ssh.destination} to {verb} {arguments.get('folder', '')}, found: {_last(heard)}",
                "mend that there and deploy again: it goes on where it stopped",
            )
        return json.loads(said)

    def send(self, folder: str, files: Mapping[str, bytes], *, secret: bool, alone: bool) -> list[str]:
        """Has `files` in `folder`; sends those that differ and returns their names. `alone`: others go away."""
        there = self.ask("digests", folder=folder)
        differ = [name for name, content in files.items() if there.get(name) != hashlib.sha256(content).hexdigest()]
        stale = sorted(set(there) - set(files)) if alone else []
        if differ or stale:
            packed = _tar({name: files[name] for name in differ})
            self.ask("receive", packed, folder=folder, secret=secret, stale=stale)
        return [*differ, *stale]


def deploy(
    ssh: Ssh,
    goods: DeploymentFiles,
    *,
    say: Say,
    wheelhouse: Path | None = None,
    python: str = "python3",
    root: str = "",
    wait_s: float = 30.0,
) -> Outcome:
    """Brings `goods` to the board behind `ssh` and returns when the service is ready and, if one comes, has predicted.

    `root`: a folder of the board that stands for its /. Raises EdgeLstmError with what refused, and the remedy.
    """
    board = _Board(ssh, python)
    facts = board.ask("probe", root=root, folder=HOME)
    name, kind, machine = _kind(ssh.destination, goods.config, facts)
    say(
        f"board        {facts['model'] or name}: {machine.architecture}, Python {machine.python}, glibc {machine.glibc}"
    )
    _refuse_unready(ssh.destination, kind, machine, facts)
    extras = _extras(kind, goods)
    changed = []
    environment, made = _environment(board, root, machine, extras, wheelhouse, python, say, name)
    if made:
        changed.append("the environment")
    folder = f"{root}{HOME}/services/{goods.name}"
    changed += board.send(folder, goods.files, secret=True, alone=False)
    program = f"{environment}/bin/edge-lstm"
    _verify(board, program, folder, goods)
    say(f"verified     {goods.bundle.id} on that board's {goods.config.backend or 'backends'}")
    status, said, heard = board.run([program, "device", "install", f"{folder}/{CONFIG}", *_rooted(root)])
    if status:
        raise EdgeLstmError(
            f"{ssh.destination}: {_line('error: ', heard) or _last(heard)}",
            _line("hint: ", heard) or "mend that and deploy again",
        )
    for line in said.splitlines():
        say(f"installed    {line}")
    mark = f"{folder}.deployed"
    digest = _digest(
        [environment, {name: hashlib.sha256(content).hexdigest() for name, content in goods.files.items()}]
    )
    unit = f"{goods.name}.service"
    active = board.run(["systemctl", "is-active", "--quiet", unit])[0] == 0
    if active and board.ask("note", path=mark, text=None) == digest:
        return Outcome(goods.name, changed, None)
    _start(board, unit)
    say(f"ready        {unit}")
    board.ask("link", path=f"{root}{HOME}/edge-lstm", target=program.removeprefix(f"{root}{HOME}/"))
    board.ask("note", path=mark, text=digest)
    board.ask(
        "tidy", folder=f"{root}{HOME}/envs", units=f"{root}/etc/systemd/system", incoming=f"{root}{HOME}/incoming"
    )
    status, said, heard = board.run(
        [f"{environment}/bin/python", "-m", "edge_lstm.deploy.first_prediction", f"{folder}/{CONFIG}", f"{wait_s:g}"]
    )
    unheard = (_line("error: ", heard) or _last(heard)) if status and heard.strip() else None
    return Outcome(goods.name, changed or ["the service"], said.strip() or None, unheard)


def _kind(destination: str, config: ServiceConfig, facts: Mapping[str, Any]) -> tuple[str, BoardConfig, Machine]:
    """The board's name, what is known of it, and the machine that it is. Raises EdgeLstmError where they do not fit."""
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
            f"{destination}: expected a board that edge-lstm device list knows, "
            f"found {machine.model or machine.architecture}",
            'name the one that is nearest in the config: device = "..."',
        )
    board = read_board(name)
    if refusals := board.refusals(machine):
        reasons = "; ".join(reason for reason, _ in refusals)
        remedies = list(dict(refusals).values())
        if "expected Python" in reasons:
            remedies.append("where it has another one, name that with --python")
        raise EdgeLstmError(f"{destination} does not fit {board.title}: {reasons}", " / ".join(remedies))
    return name, board, machine


def _refuse_unready(destination: str, board: BoardConfig, machine: Machine, facts: Mapping[str, Any]) -> None:
    """Raises EdgeLstmError where something of the board's system is missing that its package manager brings."""
    target = Target(machine.python or "", board.architecture, machine.glibc or "0.0")
    lacking = []
    if machine.glibc is None:
        expected = "glibc, since there are no wheels for another C library"
        lacking.append((expected, "another one", "use a system that has it: Debian's"))
    if not facts["venv"]:
        lacking.append(("the modules venv and ensurepip", "none", "sudo apt install python3-venv"))
    if "numpy" in target.from_distribution and facts["numpy"] is None:
        expected = "the distribution's numpy, since there are no 32-bit wheels"
        lacking.append((expected, "none", "sudo apt install python3-numpy"))
    if not facts["systemd"]:
        lacking.append(("systemd", "none", "start it there by hand: edge-lstm run service.toml"))
    if facts["free_mb"] < _NEEDED_MB:
        lacking.append((f"{_NEEDED_MB} MB free below {HOME}", f"{facts['free_mb']} MB", "make room there"))
    if lacking:
        reasons = "; ".join(f"expected {expected}, found {found}" for expected, found, _ in lacking)
        raise EdgeLstmError(f"{destination}: {reasons}", " / ".join(remedy for *_, remedy in lacking))


def _extras(board: BoardConfig, goods: DeploymentFiles) -> list[str]:
    """The board's own, with the backend that the config chose instead, and what the config's other keys need."""
    chosen = goods.config.backend
    extras = set(board.extras)
    if chosen is not None:
        extras -= {kind.extra for kind in BACKENDS.values()}
        extras |= {BACKENDS[chosen].extra} - {""}  # empty: the base installs that backend
    return sorted({*extras, *goods.extras})


def _environment(
    board: _Board,
    root: str,
    machine: Machine,
    extras: list[str],
    wheelhouse: Path | None,
    python: str,
    say: Say,
    name: str,
) -> tuple[str, bool]:
    """The folder of the environment, and whether it had to be made. Another one would have another name."""
    own_name, own = own_wheel()
    limits = constraints(extras)
    digest = _digest([hashlib.sha256(own).hexdigest(), extras, limits, machine.python, python])
    folder, incoming = f"{root}{HOME}/envs/{digest}", f"{root}{HOME}/incoming/{digest}"
    if board.ask("complete", folder=folder):
        say(f"environment  as it was: {', '.join(extras)}")
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
        files |= {path.name: path.read_bytes() for path in wheels if not path.name.startswith("edge_lstm-")}
    sent = board.send(incoming, files, secret=False, alone=True)
    say(
        f"environment  new, with {', '.join(extras)}: {len(sent)} files copied; pip takes some minutes on a small board"
    )
    offline = [] if wheelhouse is None else ["--no-index", "--find-links", incoming]
    install = [*offline, "--only-binary", ":all:", "--constraint", f"{incoming}/constraints.txt"]
    answer = board.ask(
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
            f"found: {errors[0].removeprefix('ERROR: ') if errors else _last(answer['failed'])}",
            remedy(answer, name, extras, wheelhouse),
        )
    return folder, True


def remedy(answer: Mapping[str, Any], name: str, extras: list[str], wheelhouse: Path | None) -> str:
    """What to do about an environment of `extras` that pip could not make on the board `name`."""
    if answer["free_mb"] < _SPARE_MB:
        return f"make room below {HOME}: {answer['free_mb']} MB were left"
    collecting = _collecting(name, extras, wheelhouse or Path("DIR"))
    if wheelhouse is not None:
        return f"collect the wheels again: {collecting}"
    return f"without internet there: {collecting} here, and deploy with --wheelhouse DIR"


def _collecting(name: str, extras: list[str], folder: Path) -> str:
    """The command that collects what an environment of these extras needs."""
    others = "".join(f"--extra {extra} " for extra in extras if extra not in read_board(name).extras)
    return f"edge-lstm device wheelhouse {name} {others}-o {folder}"


def _verify(board: _Board, program: str, folder: str, goods: DeploymentFiles) -> None:
    """The golden vectors on the board's own backend. Raises EdgeLstmError where they differ, or the backend dies."""
    config = goods.config
    chosen = [("--backend", config.backend), ("--scheme", config.scheme)]
    options = [word for option, value in chosen if value is not None for word in (option, value)]
    if config.trust is not None:
        options += ["--trust", f"{folder}/{config.trust}"]
    status, said, heard = board.run([program, "verify", f"{folder}/{config.bundle}", *options])
    if status:
        ended = f"died of {signal_name(status - 128)}" if status > 128 else f"ended with {status}, {_last(heard)}"
        failed = [" ".join(line.split()[1:]) for line in said.splitlines() if line.startswith("FAILED ")]
        found = "; ".join(failed) or _line("error: ", heard) or f"verify {ended}"
        raise EdgeLstmError(
            f"the bundle does not prove itself on {board.ssh.destination}: {found}",
            "what ran there runs on; another backend or scheme in the config may do",
        )


def _start(board: _Board, unit: str) -> None:
    """Raises EdgeLstmError with the service's own last words where it does not become ready."""
    for command in (["daemon-reload"], ["enable", "--quiet", unit], ["reset-failed", unit], ["restart", unit]):
        status, _, heard = board.run(["systemctl", *command])
        if status and command[0] != "reset-failed":  # which fails for a unit that was never started
            _, journal, _ = board.run(
                ["journalctl", "--unit", unit, "--output", "cat", "--no-pager", "-n", str(_LAST_LINES)]
            )
            words = "".join(f"\n  {line}" for line in journal.splitlines()) or f" {_last(heard)}"
            raise EdgeLstmError(
                f"{board.ssh.destination}: expected {unit} to become ready, found:{words}",
                f"mend that and deploy again; to see more: ssh {board.ssh.destination} journalctl -u {unit}",
            )


def _rooted(root: str) -> list[str]:
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


def _last(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else "nothing said"


def _line(beginning: str, text: str) -> str | None:
    """The first line of edge-lstm's own that begins so, without its beginning."""
    lines = [line.removeprefix(beginning) for line in text.splitlines() if line.startswith(beginning)]
    return lines[0] if lines else None
