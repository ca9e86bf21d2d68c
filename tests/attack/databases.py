"""State databases that were damaged: a service opens each, steps on, and is compared with an undisturbed one.

A case ends equal, told (the log names the damaged row, batch, index or log, or the whole file), or refused (the service
does not start, and says why). Anything else is a fault: a stream that differs and is not named, or a crash.
"""

from __future__ import annotations

import json
import logging
import random
import re
import shutil
import warnings
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from edge_lstm.foundation.errors import EdgeLstmError
from edge_lstm.mqtt.client.received import Message
from edge_lstm.service.database.history_reader import read_history
from tests.attack.forked import in_child
from tests.attack.memory_broker import MemoryBroker, service_on
from tests.paths import PUMP

OUTCOMES = ("equal", "told", "refused", "wrong", "crash")
FILES = ("state.db", "state.db-wal")
STREAMS = 16
_LOG_HEADER, _LOG_FRAME = 32, 24 + 4096  # https://sqlite.org/fileformat2.html, 4.1
_LATER_US = 1_700_100_100_000_000  # when the service is started again
Files = Mapping[str, bytes]  # by name; one that is absent does not exist

_EXPLAINED = (  # of every stream
    "state database damaged, every stream starts cold",
    "state database damaged, it does not say of which bundle its states are; every stream starts cold",
    "write-ahead log damaged, every stream goes on from before its last commits",
    "write-ahead log lost or cut, every stream goes on from before its last commits",
    "streams were lost or changed outside of a commit",
    "the state database is new: every stream starts cold",
    "states belong to another bundle, every stream starts cold",
)
_OF_A_STREAM = re.compile(r"row of a stream damaged, it starts cold stream=(\S+)")
_OF_UNSENT = "unsent predictions damaged"
_OF_IDENTITIES = "identities of messages damaged"
_OF_HISTORY = ("history damaged", *_EXPLAINED)


class Case(NamedTuple):
    """A database, and what the broker sends to the service that opens it."""

    files: Files
    script: Sequence[Message]


class Played(NamedTuple):
    """What a service did with a database."""

    published: dict[str, list[str]]  # by stream
    history: list[str] | str  # the readings that a replay would step; a text: why there are none
    log: str
    damaged: int
    refused: str | None = None  # the error at the start


def message(number: int, stream: int, kind: str, packet_id: int, repeated: bool = False) -> Message:
    """The reading `number` of a stream; kind: timed, or with the time of its arrival."""
    facts = {"pressure": round(4 + (number * 37 + stream * 11) % 17 / 10, 2), "flow": 12 + (number + stream) % 5}
    if kind == "timed":
        facts = {"time": 1_700_000_000 + 60 * number, **facts}
    return Message(f"sensors/pump-{stream}", json.dumps(facts).encode(), packet_id % 65_535 + 1, 1, 1, repeated, False)


def readings(begin: int, end: int, kind: str, repeated: bool = False) -> list[Message]:
    """Of all streams, in the order of the numbers."""
    return [
        message(number, stream, kind, number * STREAMS + stream, repeated)
        for number in range(begin, end)
        for stream in range(STREAMS)
    ]


def prepared_folder(folder: Path, kind: str) -> Path:
    """A folder with a bundle and a config. Returns the config."""
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copy(PUMP, folder)
    put_back(folder, {})
    config = folder / "service.toml"
    time_from = [] if kind == "timed" else ['input.time_from = "arrival"']
    lines = [
        f'bundle = "{PUMP.name}"',
        'backend = "numpy"',
        "history = 300",
        "max_rewind = 4",
        "stats_interval_s = 1000",
        *time_from,
        'clock.trust = "never"',
        'mqtt.url = "mqtt://memory"',
    ]
    config.write_text("\n".join(lines))
    return config


def files_in(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in FILES if (folder / name).exists()}


def put_back(folder: Path, files: Files) -> None:
    """Nothing of an earlier case stays."""
    for path in folder.glob("state.db*"):
        path.unlink()
    for name, content in files.items():
        (folder / name).write_bytes(content)
        (folder / name).chmod(0o600)


class Written(NamedTuple):
    """The files of a service, each with how many messages of `readings(0, 8)` its commits hold."""

    killed: list[tuple[Files, int]]  # after each commit, as a kill leaves them
    checkpointed: tuple[Files, int]  # those of the last commit, its log moved into the database, and not yet used again
    stopped: tuple[Files, int]


def written_by_a_service(config: Path, kind: str) -> Written:
    """A service takes 128 messages in 7 commits. The last predictions are not confirmed."""
    script = readings(0, 8, kind)
    broker = MemoryBroker(script, a_poll=20)
    service = service_on(broker, config)
    commit, killed = service._store.commit, []
    checkpointed: list[tuple[Files, int]] = []

    def commit_and_copy(*arguments: Any, **options: Any) -> None:
        commit(*arguments, **options)
        killed.append((files_in(config.parent), broker.taken))
        broker.confirms = len(killed) < 4
        if broker.taken == len(script):
            service._store._database.execute("pragma wal_checkpoint(passive)")
            checkpointed.append((files_in(config.parent), broker.taken))

    service._store.commit = commit_and_copy  # type: ignore[method-assign]
    service.run()
    return Written(killed, checkpointed[0], (files_in(config.parent), len(script)))


def used_bytes(name: str, content: bytes) -> int:
    """How much of a file matters. A log goes on behind its last commit with pages of an earlier use."""
    if not name.endswith("-wal"):
        return len(content)
    frames = range(_LOG_HEADER, len(content), _LOG_FRAME)
    present = [at for at in frames if content[at + 8 : at + 16] == content[16:24]]
    return present[-1] + _LOG_FRAME if present else len(content)


def further(kind: str, taken: int) -> list[Message]:
    """What comes next: the last batch again, then the rest, and more; some readings are late."""
    done = readings(0, 8, kind)
    again = [one._replace(repeated=True) for one in done[max(0, taken - 20) : taken]]
    more = readings(8, 11, kind)
    if kind == "timed":
        more[STREAMS:STREAMS] = [message(6, stream, kind, 60_000 + stream) for stream in range(0, STREAMS, 3)]
    return [*again, *done[taken:], *more]


def play(config: Path, case: Case) -> Played:
    """What a service does with the files of this case."""
    lines = _Lines()
    logging.disable(logging.NOTSET)
    root = logging.getLogger()
    root.handlers[:] = [lines]
    root.setLevel(logging.WARNING)
    warnings.simplefilter("ignore", RuntimeWarning)  # of numpy
    put_back(config.parent, case.files)
    broker = MemoryBroker(case.script, a_poll=20)
    try:
        service = service_on(broker, config, _LATER_US)
    except EdgeLstmError as error:
        return Played({}, "", lines.text, 0, str(error))
    service.run()
    damaged = service._store.damaged
    by_stream: defaultdict[str, list[str]] = defaultdict(list)
    for topic, payload in broker.published:
        by_stream[topic.rpartition("/")[2]].append(payload.decode())
    try:
        stepped, _ = read_history(config.parent / "state.db", service._files.bundle.id)
        history: list[str] | str = [_plain_reading(one) for one in stepped]
    except EdgeLstmError as error:
        history = str(error)
    return Played(dict(by_stream), history, lines.text, damaged)


def _plain_reading(reading: Any) -> str:
    return repr((reading.stream, reading.time, dict(reading.values), reading.restart))


class _Lines(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())

    @property
    def text(self) -> str:
        return "\n".join(self.lines)


def judged(found: Played, undisturbed: Played) -> tuple[str, str]:
    """(equal, told, refused or wrong; why)."""
    if found.refused is not None:
        return "refused", found.refused
    for_all = any(text in found.log for text in _EXPLAINED)
    said_names = _OF_A_STREAM.findall(found.log)
    named = {stream for stream in undisturbed.published if any(_is_name_of(one, stream) for one in said_names)}
    faults = []
    different = [
        stream
        for stream in sorted({*found.published, *undisturbed.published})
        if found.published.get(stream) != undisturbed.published.get(stream)
    ]
    for stream in different:
        unsent = _OF_UNSENT in found.log and _ends_like(found, undisturbed, stream)
        if not (for_all or stream in named or unsent or _OF_IDENTITIES in found.log):
            faults.append(f"{stream}: {_first_difference(found, undisturbed, stream)}")
    if found.history != undisturbed.history and isinstance(found.history, list):
        told = for_all or named or _OF_IDENTITIES in found.log or any(text in found.log for text in _OF_HISTORY)
        if not told:
            faults.append(f"the history differs: {_first_unequal(found.history, undisturbed.history)}")
    if faults:
        return "wrong", f"{'; '.join(faults)[:600]}; log: {found.log[:400]}"
    said = [line for line in found.log.splitlines() if "damaged" in line or "lost" in line]
    if different or found.history != undisturbed.history or said:
        return "told", "; ".join(said)[:600] or str(found.history)
    return "equal", ""


def _is_name_of(said: str, stream: str) -> bool:
    """Whether a name in the log is that of the stream; the damage may be in a letter of the name."""
    return len(said) == len(stream) and sum(one != other for one, other in zip(said, stream, strict=True)) <= 1


def _ends_like(found: Played, undisturbed: Played, stream: str) -> bool:
    """Whether only earlier predictions are missing."""
    ours, right = found.published.get(stream, []), undisturbed.published.get(stream, [])
    return set(ours) <= set(right)


def _first_difference(found: Played, undisturbed: Played, stream: str) -> str:
    return _first_unequal(found.published.get(stream, []), undisturbed.published.get(stream, []))


def _first_unequal(found: Sequence[str], right: Sequence[str] | str) -> str:
    for at, (one, other) in enumerate(zip(found, right, strict=False)):
        if one != other:
            return f"{at}: expected {other}, found {one}"
    return f"expected {len(right)}, found {len(found)}"


Damage = Callable[[random.Random, Files], tuple[str, Files]]  # what was done, and the files then


def flipped_bit(random: random.Random, files: Files) -> tuple[str, Files]:
    """One bit, in the database or in the used part of its log."""
    name = random.choice([name for name in FILES if files.get(name)])
    content = bytearray(files[name])
    used = used_bytes(name, files[name])
    at, bit = random.randrange(used), random.randrange(8)
    content[at] ^= 1 << bit
    return f"{name} byte {at} bit {bit}", {**files, name: bytes(content)}


def broken_block(random: random.Random, files: Files) -> tuple[str, Files]:
    """A block of the disk: zeros, ones, random bytes, another block, or the file ends there."""
    name = random.choice([name for name in FILES if files.get(name)])
    content = bytearray(files[name])
    used = used_bytes(name, files[name])
    size = random.choice([512, 4096])
    at = random.randrange(0, used, size)
    how = random.choice(["zeros", "ones", "random", "other", "end"])
    other = random.randrange(0, used, size)
    block = {
        "zeros": bytes(size),
        "ones": b"\xff" * size,
        "random": random.randbytes(size),
        "other": bytes(content[other : other + size]),
        "end": b"",
    }[how]
    if how == "end":
        del content[at:]
    else:
        content[at : at + size] = block[: len(content) - at]
    return f"{name} {how} of {size} bytes at {at}", {**files, name: bytes(content)}


def torn(random: random.Random, before: Files, after: Files) -> tuple[str, Files]:
    """The files after writes of which some did not reach the disk: of each sector the old or the new content.

    A log is never shorter than before, and a database that a checkpoint tears still has its log.
    """
    share = random.choice([0.1, 0.5, 0.9])
    size = random.choice([512, 4096])
    files = {}
    for name in FILES:
        old, new = before.get(name, b""), after.get(name, b"")
        length = random.choice([len(old), len(new)]) if len(old) < len(new) else len(new)
        content = bytearray(new[:length])
        for at in range(0, length, size):
            if random.random() >= share and new[at : at + size] != old[at : at + size]:
                content[at : at + size] = old[at : at + size].ljust(size, b"\0")[: length - at]
        files[name] = bytes(content)
    return f"{share:g} of the sectors of {size} bytes were written", files


def undisturbed(config: Path, case: Case) -> Played:
    """What a service does with files that are whole."""
    ended = in_child(lambda: play(config, case))
    if ended.fault is not None or ended.value.refused is not None:
        raise AssertionError(ended.fault or ended.value.refused)
    found: Played = ended.value
    return found


def run_case(config: Path, case: Case, right: Sequence[Played], timeout_s: float = 60.0) -> tuple[str, str, float]:
    """(outcome, why, memory in MiB) of the service in a child process; it has to do one of what is right."""
    ended = in_child(lambda: play(config, case), timeout_s)
    if ended.fault is not None:
        return "crash", ended.fault, ended.peak_mib
    found = [judged(ended.value, one) for one in right]
    return *min(found, key=lambda one: OUTCOMES.index(one[0])), ended.peak_mib
