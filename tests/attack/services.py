"""Attacks on a running service by whoever may publish to it, or by its broker; measured from outside."""

from __future__ import annotations

import dataclasses
import json
import random
import shutil
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

from edge_lstm.backends.reference import ReferenceBackend
from edge_lstm.backends.selftest import replay_tape
from edge_lstm.bundle.archive import GOLDEN, Bundle, write_bundle
from edge_lstm.bundle.contract import Sampling
from edge_lstm.bundle.golden import Expected, GoldenVectors, to_npz
from edge_lstm.bundle.network import from_npz
from tests.attack.raw_broker import (
    PUBACK,
    RECEIVE_MAXIMUM,
    RawBroker,
    length_bytes,
    packet,
    publish,
    publish_311,
    text,
)
from tests.attack.watched_service import WatchedService
from tests.conftest import make_level_bundle, mosquittos
from tests.flow.floods import PINGRESPS, PUBACKS, PUBRELS, SECOND_CONNACKS, SUBACKS
from tests.hostile.costly_messages import filling_list, late_list
from tests.hostile.name_flood import flood, small_disk
from tests.paths import PUMP

HONEST = "honest"  # a device that goes on during each attack
_T0 = 1_700_000_000
_HONEST_IDS = 60_000  # its packet ids are above these


@dataclasses.dataclass
class Result:
    """What an attack did to a service."""

    outcomes: Counter[str] = dataclasses.field(default_factory=Counter)
    faults: list[str] = dataclasses.field(default_factory=list)
    memory_mib: float = 0.0  # above idle
    silence_s: float = 0.0
    stop_s: float = 0.0


class Stage:
    """A broker, a service and an honest device, and what is measured."""

    def __init__(self, folder: Path, settings: str = "", five: bool = True, bundle: Path = PUMP) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copy(bundle, folder)
        self.broker = RawBroker(five)
        self._config = folder / "service.toml"
        protocol = "" if five else 'mqtt.protocol = "3.1.1"\n'
        self._config.write_text(
            f'bundle = "{bundle.name}"\nbackend = "numpy"\n{settings}\n{protocol}'
            f'mqtt.url = "{self.broker.address}"\nmqtt.client_id = "edge-lstm-attacked"\n'
        )
        self.result = Result()
        self._sent = 0  # of the honest device
        self._has_honest = bundle == PUMP  # on a grid, its readings would fill intervals of their own
        self._ended = False
        self.service: WatchedService

    def __enter__(self) -> Stage:
        self.broker.__enter__()
        self.service = WatchedService(self._config)
        self.service.__enter__()
        if not self.broker.wait_subscribed():
            raise AssertionError(f"the service did not connect: {self.service.log.read_text()[-1500:]}")
        for _ in range(20 if self._has_honest else 0):
            self.honest("before")
        time.sleep(0.3)
        self.service.begin()
        self.result = Result(faults=self.result.faults)
        return self

    def __exit__(self, *error: object) -> None:
        self.service.__exit__(None, None, None)
        self.broker.__exit__(None, None, None)

    def honest(self, what: str, timeout_s: float = 30.0) -> bool:
        """Whether a reading of the honest device gets its prediction, with the number of its step."""
        self._sent += 1
        number = self._sent
        facts = {"time": _T0 + 60 * number, "pressure": 4.0 + number % 3, "flow": 12.0}
        deadline = time.monotonic() + timeout_s
        expected = lambda: len(self.broker.published.get(HONEST, [])) >= number  # noqa: E731
        connection = -1
        while not expected() and time.monotonic() < deadline and self.service.alive:
            if self.broker.connections != connection and self.broker.wait_subscribed(1.0):
                connection = self.broker.connections
                data = publish(f"sensors/{HONEST}", json.dumps(facts).encode(), _HONEST_IDS + number % 5000)
                if not self.broker.five:
                    data = publish_311(f"sensors/{HONEST}", json.dumps(facts).encode(), _HONEST_IDS + number % 5000)
                self.broker.send(data)
            self.broker.wait(expected, 0.1)
        self._measure()
        if not self.service.alive:
            self.fault(f"{what}: the service died: {self.service.log.read_text()[-600:]}")
            return False
        if not expected():
            self.fault(f"{what}: no prediction for an honest reading in {timeout_s:g} s")
            return False
        steps = [one["step"] for one in self.broker.published[HONEST]]
        if steps != list(range(1, len(steps) + 1)):
            self.fault(f"{what}: steps of the honest device are {steps[-5:]}")
            return False
        return True

    def _measure(self) -> None:
        if self.service.alive:
            self.result.memory_mib = max(self.result.memory_mib, self.service.memory_mib())
        self.result.silence_s = max(self.result.silence_s, self.service.longest_silence_s())

    def fault(self, found: str) -> None:
        self.result.faults.append(found)

    def hold(self, condition: Callable[[], bool], timeout_s: float) -> bool:
        """Wait for it, and measure."""
        held = self.broker.wait(lambda: condition() or not self.service.alive, timeout_s)
        self._measure()
        return held and self.service.alive

    def end(self) -> Result:
        """Stop the service by SIGTERM, and judge what was measured; once."""
        if self._ended:
            return self.result
        self._ended = True
        self._measure()
        if self.service.alive:
            self.result.stop_s = self.service.stop()
            if self.service.process.poll() not in (0, None):
                self.fault(f"it ended with {self.service.process.poll()}")
        elif not self.result.faults:
            self.fault(f"the service died: {self.service.log.read_text()[-600:]}")
        return self.result


def reading(number: int, **values: object) -> dict[str, object]:
    return {"time": _T0 + 60 * number, "pressure": 4.0, "flow": 12.0, **values}


# lies of a broker -----------------------------------------------------------------------------------------------------

_PROPERTY_AFTER = {"user": b"\x26", "alias": b"\x23", "format": b"\x01", "expiry": b"\x02", "id": b"\x0b"}


def lies() -> Iterator[tuple[str, bytes]]:
    """What a broker may send that no broker sends."""
    good = json.dumps(reading(1)).encode()
    yield "a second CONNACK", b"\x20\x03\x00\x00\x00"
    yield "a CONNACK with a session that was not there", b"\x20\x03\x01\x00\x00"
    yield "a CONNECT", packet(0x10, text("MQTT") + b"\x05\x02\x00\x1e\x00" + text("x"))
    yield "a SUBSCRIBE", packet(0x82, b"\x00\x01\x00" + text("#") + b"\x01")
    yield "an UNSUBSCRIBE", packet(0xA2, b"\x00\x01\x00" + text("#"))
    yield "a PINGREQ", b"\xc0\x00"
    yield "an AUTH", packet(0xF0, b"\x18\x00")
    yield "a packet of the reserved kind 0", b"\x00\x00"
    yield "a PUBLISH of QoS 3", packet(0x36, text("sensors/a") + b"\x00\x01\x00" + good)
    yield (
        "a PUBLISH of QoS 2, and its PUBREL twice",
        packet(0x34, text("sensors/q2") + b"\x00\x07\x00" + good) + 2 * packet(0x62, b"\x00\x07"),
    )
    yield "a PUBLISH with packet id 0", packet(0x32, text("sensors/a") + b"\x00\x00\x00" + good)
    yield "a PUBLISH without a topic", publish("", good, 5)
    yield "a topic with wildcards", publish("sensors/+/#", good, 6)
    yield "a topic with a NUL", publish("sensors/a\0b", good, 7)
    yield "a topic that is not UTF-8", publish(b"sensors/\xff\xfe", good, 8)
    yield "a topic with a surrogate", publish("sensors/\ud800", good, 9)
    yield "a topic that nobody subscribed to", publish("$SYS/broker/uptime", b"1", 10)
    yield "a topic of the service itself", publish("predictions/honest", good, 11)
    yield "a topic longer than its packet", packet(0x32, b"\xff\xffsensors")
    yield "an empty PUBLISH", b"\x32\x00"
    yield "properties longer than their packet", packet(0x32, text("sensors/a") + b"\x00\x0c\x7f")
    yield "an unknown property", publish("sensors/a", good, 13, b"\x7e\x01")
    yield "a property twice", publish("sensors/a", good, 14, b"\x01\x01\x01\x01")
    yield "an unknown topic alias", publish("", good, 15, b"\x23\x00\x09")
    yield "topic alias 0", publish("sensors/a", good, 16, b"\x23\x00\x00")
    yield "a subscription id of 0", publish("sensors/a", good, 17, b"\x0b\x00")
    yield "a payload that is not the text it says", publish("sensors/a", b"\xff\xfe", 18, b"\x01\x01")
    yield "a user property that is not UTF-8", publish("sensors/a", good, 19, b"\x26" + text(b"\xff") + text("v"))
    yield "the same packet id for another message", publish("sensors/a", good, 20) + publish("sensors/b", good, 20)
    yield "one message a thousand times", 1000 * publish("sensors/again", good, 21, flags=8)
    yield (
        "acknowledgements of what was never sent",
        b"".join(packet(kind, struct.pack(">H", number)) for number in range(1, 2000) for kind in (0x40, 0x50, 0x70)),
    )
    yield "a SUBACK for nothing", packet(0x90, b"\x7f\x7f\x00\x80")
    yield "an UNSUBACK for nothing", packet(0xB0, b"\x7f\x7f\x00\x11")
    yield "a PUBACK that refuses", packet(PUBACK, b"\x00\x01\x87\x00")
    yield "a PUBACK with half a reason", packet(PUBACK, b"\x00\x01\x87\x1f\x00\x40no")
    yield "a DISCONNECT with control characters", packet(0xE0, b"\x8b\x09\x1f" + text("\x1b[2J\x07"))
    yield "a length of five bytes", b"\x32\xff\xff\xff\xff\x01"
    yield "a length of 256 MB, and then nothing", b"\x32\xff\xff\xff\x7f"
    yield "half a packet", publish("sensors/a", good, 22)[:-5]
    yield "random bytes", random.Random(1).randbytes(4000)


def lying_broker(stage: Stage, part: range) -> None:
    """Each lie, then an honest reading on this connection or the next one."""
    for name, data in [*lies()][part.start : part.stop]:
        stage.broker.wait_subscribed(40)
        before = stage.broker.connections
        stage.broker.send(data)
        stage.hold(lambda before=before: stage.broker.connections != before, 0.3)  # type: ignore[misc]
        if stage.broker.connections == before and name.startswith(("a length of 256", "half a packet", "random")):
            stage.broker.cut()  # the service waits for the rest
        answered = stage.honest(name, 45)
        stage.result.outcomes["served on" if answered else "failed"] += 1


LYING_CONNACKS: dict[str, bytes] = {
    "Receive Maximum 1": b"\x20\x06\x00\x00\x03\x21\x00\x01",
    "Maximum QoS 0": b"\x20\x05\x00\x00\x02\x24\x00",
    "a packet size of 1": b"\x20\x08\x00\x00\x05\x27\x00\x00\x00\x01",
    "a keep-alive of 0": b"\x20\x06\x00\x00\x03\x13\x00\x00",
    "another client id": b"\x20\x08\x00\x00\x05\x12" + text("xy"),
    "no retained messages": b"\x20\x05\x00\x00\x02\x25\x00",
    "refused: server unavailable": b"\x20\x03\x00\x88\x00",
    "an unknown reason": b"\x20\x03\x00\xf7\x00",
    "half of it": b"\x20\x03\x00",
    "rubbish": b"\x20\x7f" + bytes(range(127)),
}


def lying_connacks(stage: Stage, part: range) -> None:
    """A connection that begins with each lie, and an honest one after it."""
    good = stage.broker.connack
    for name, connack in [*LYING_CONNACKS.items()][part.start : part.stop]:
        stage.broker.connack = connack
        before = stage.broker.connections
        stage.broker.cut()
        stage.hold(lambda before=before: stage.broker.connections != before, 60)  # type: ignore[misc]
        time.sleep(0.3)
        stage.broker.connack = good
        stage.broker.cut()
        answered = stage.honest(name, 60)
        stage.result.outcomes["served on" if answered else "failed"] += 1


# poison ---------------------------------------------------------------------------------------------------------------


def send_until_acknowledged(stage: Stage, messages: list[bytes], what: str, timeout_s: float) -> None:
    """Messages with the packet ids 1, 2, …; again on each new connection, until each is acknowledged."""
    stage.broker.acknowledged.clear()
    deadline, connection = time.monotonic() + timeout_s, -1
    while len([one for one in stage.broker.acknowledged if one < _HONEST_IDS]) < len(messages):
        if not stage.service.alive or time.monotonic() > deadline:
            stage.fault(f"{what}: not acknowledged in {timeout_s:g} s")
            return
        if stage.broker.connections != connection and stage.broker.wait_subscribed(1.0):
            connection = stage.broker.connections
            for data in messages:
                stage.broker.send(data)
        stage.hold(lambda: len(stage.broker.acknowledged) >= len(messages), 0.2)


def of_the_pump(rows: list[dict[str, float]]) -> bytes:
    """Readings of a bundle with the one feature `level` as those of the pump."""
    changed = [{"time": row["time"], "pressure": 4 + row["level"], "flow": 12} for row in rows]
    return json.dumps(changed, separators=(",", ":")).encode()


def late_and_fresh(count: int, rewind: int) -> bytes:
    """A list of readings, every other of which is as late as is allowed: no two of them share a rewind."""
    rows = []
    for number in range(count):
        at = 10_000 + number if number % 2 == 0 else 10_000 + number - rewind
        rows.append({"time": _T0 + 60 * at + (7 if number % 2 else 0), "level": 0})
    return of_the_pump(rows)


def late_lists(rewind: int) -> list[bytes]:
    """Lists of about 252 KB: only late readings, and late ones among fresh ones."""
    of_level = 252_000 * 36 // 53  # `late_list` counts 36 bytes a reading, the pump's has 53
    return [of_the_pump(late_list(of_level, rewind)), late_and_fresh(4800, rewind - 1)]


def late_readings(stage: Stage, part: range) -> None:
    """Two lists of each kind, of two streams."""
    lists = 2 * late_lists(8)
    messages = [publish(f"sensors/poison-{number // 2}", one, number + 1) for number, one in enumerate(lists)]
    send_until_acknowledged(stage, messages, "late lists", 240)
    stage.result.outcomes["taken"] += stage.service.alive
    stage.honest("after late lists", 60)


def very_late_readings(stage: Stage, part: range) -> None:
    """A list of each kind with max_rewind = 200."""
    messages = [publish(f"sensors/poison-{number}", one, number + 1) for number, one in enumerate(late_lists(200))]
    send_until_acknowledged(stage, messages, "late lists", 300)
    stage.result.outcomes["taken"] += stage.service.alive
    stage.honest("after late lists", 60)


def grid_bundle(path: Path) -> Path:
    """The pump on a grid of a second, on which a silence of almost three hours is filled."""
    bundle = Bundle.open(PUMP)
    contract = dataclasses.replace(bundle.contract, sampling=Sampling(1.0, 9_999.0, True))
    network = from_npz(bundle.content[bundle.variant("numpy", "float32").file])
    tape = bundle_tape(bundle)
    import numpy as np

    marks = np.array([1, 10, len(tape)])
    prediction, states = replay_tape(ReferenceBackend(network), contract, tape, marks)
    variant = bundle.variant("numpy", "float32")
    content = {
        variant.file: bundle.content[variant.file],
        GOLDEN: to_npz(GoldenVectors(tape, marks, {"float32": Expected(prediction, states)})),
    }
    manifest = dataclasses.replace(bundle.manifest, contract=contract, variants=[variant], files={})
    write_bundle(path, manifest, content)
    return path


def bundle_tape(bundle: Bundle):  # type: ignore[no-untyped-def]
    from edge_lstm.bundle.golden import read_golden_vectors

    return read_golden_vectors(bundle).features


def far_apart(stage: Stage, part: range) -> None:
    """A list of about a kilobyte: each reading fills a silence of 9,999 intervals."""
    payload = of_the_pump(filling_list(20, 9_999))
    send_until_acknowledged(stage, [publish("sensors/poison", payload, 1)], "readings far apart", 300)
    stage.result.outcomes["taken"] += stage.service.alive


# memory ---------------------------------------------------------------------------------------------------------------


def many_properties(stage: Stage, part: range) -> None:
    """1,000 readings with 72 KB of user properties each."""
    properties = b"".join(b"\x26" + text(f"k{number}") + text("v" * 60) for number in range(1000))
    for number in range(1000):
        data = publish(f"sensors/p{number % 50}", json.dumps(reading(number)).encode(), number + 1, properties)
        stage.broker.wait(lambda: len(stage.broker.acknowledged) > number - 900, 10)  # noqa: B023
        if not stage.broker.send(data):
            stage.broker.wait_subscribed(20)
    stage.hold(lambda: False, 1.0)
    answered = stage.honest("after properties", 60)
    stage.result.outcomes["served on" if answered else "failed"] += 1


def long_topics(stage: Stage, part: range) -> None:
    """4,000 topics of 65,000 characters."""
    for number in range(4000):
        topic = f"sensors/{number:05d}{'x' * 64_980}"
        stage.broker.wait(lambda: len(stage.broker.acknowledged) > number - 900, 5)  # noqa: B023
        if not stage.broker.send(publish(topic, json.dumps(reading(1)).encode(), number + 1)):
            stage.broker.wait_subscribed(20)
    stage.hold(lambda: False, 1.0)
    answered = stage.honest("after long topics", 60)
    stage.result.outcomes["served on" if answered else "failed"] += 1


def huge_payload(stage: Stage, part: range) -> None:
    """One payload of 200 MB."""
    topic, size = text("sensors/huge"), 200 * 2**20
    head = topic + struct.pack(">H", 77) + (b"\0" if stage.broker.five else b"")
    stage.broker.send(bytes([0x32]) + length_bytes(len(head) + size) + head)
    block = b" " * 2**20
    for _ in range(size // len(block)):
        if not stage.broker.send(block):
            break
    stage.hold(lambda: False, 0.5)
    answered = stage.honest("after a huge payload", 60)
    stage.result.outcomes["served on" if answered else "failed"] += 1


# overload -------------------------------------------------------------------------------------------------------------


def blocks_of_readings(streams: int, size: int) -> Iterator[bytes]:
    """Blocks of `size` readings with packet ids 1 … size, the streams in turn, without end."""
    number = 0
    while True:
        parts = []
        for place in range(size):
            payload = b'{"time":%d,"pressure":4.5,"flow":12}' % (_T0 + 60 * (number // streams))
            parts.append(publish(f"sensors/s{number % streams}", payload, place + 1))
            number += 1
        yield b"".join(parts)


def overload(stage: Stage, part: range, seconds: float = 45.0) -> None:
    """A broker that keeps to no Receive Maximum sends as fast as it can, and confirms no prediction."""
    stage.broker.confirms = False
    until, blocks = time.monotonic() + seconds, blocks_of_readings(200, 2000)
    sent = 0
    while time.monotonic() < until and stage.service.alive:
        if stage.broker.send(next(blocks), 1.0):
            sent += 2000
        else:
            stage.broker.wait_subscribed(2.0)
        stage._measure()
    stage.result.outcomes[f"{sent:,} sent"] = 1
    stage.broker.confirms = True
    stage.broker.cut()
    stage.honest("after the overload", 90)


FLOODS = {
    "PINGRESP": PINGRESPS,
    "PUBACK": PUBACKS,
    "SUBACK": SUBACKS,
    "CONNACK": SECOND_CONNACKS,
    "PUBREL": PUBRELS,
}


def floods(stage: Stage, part: range, seconds: float = 3.0) -> None:
    """Answers without end, of each kind in turn. The service has to end at SIGTERM during those that it bears."""
    for data in FLOODS.values():
        until = time.monotonic() + seconds
        while time.monotonic() < until and stage.service.alive:
            stage.broker.send(data, 1.0) or stage.broker.wait_subscribed(2.0)
            stage._measure()
    stage.broker.wait_subscribed(20)
    going = threading.Event()

    def flood() -> None:
        while not going.is_set() and stage.broker.send(PINGRESPS + PUBACKS, 1.0):
            pass

    sender = threading.Thread(target=flood, daemon=True)
    sender.start()
    stage.end()
    going.set()
    sender.join(5)
    stage.result.outcomes["ended"] += not stage.service.alive


# names ----------------------------------------------------------------------------------------------------------------


def invented_names(stage: Stage, part: range, names: int = 1_000_000, most_s: float = 150.0) -> None:
    """A million streams that nobody has, within the Receive Maximum."""
    begun, sent, block = time.monotonic(), 0, 500
    stage.broker.acknowledged.clear()
    while sent < names and time.monotonic() - begun < most_s and stage.service.alive:
        data = b"".join(
            publish(f"sensors/invented-{sent + place}", b'{"time":%d,"pressure":4,"flow":12}' % _T0, place + 1)
            for place in range(block)
        )
        if not stage.broker.send(data, 10.0):
            stage.broker.wait_subscribed(10.0)
            continue
        stage.hold(lambda: len(stage.broker.acknowledged) >= block, 20.0)
        stage.broker.acknowledged.clear()
        sent += block
        if sent % 50_000 == 0:
            stage.honest("during a flood of names", 30)
    stage.result.outcomes[f"{sent:,} names"] = 1
    stage.honest("after a flood of names", 30)
    folder = stage.service.log.parent
    size = sum(path.stat().st_size for path in folder.glob("state.db*")) / 1e6
    stage.result.outcomes[f"{size:.0f} MB on the disk"] = 1
    if size > 40:
        stage.fault(f"the state database takes {size:.0f} MB")


def names_on_a_small_disk(folder: Path, names: int) -> Result:
    """The same with a real broker and 40 MB of disk: the predictions of honest devices are those of a quiet day.

    One of them begins within the flood.
    """
    result = Result()
    make_level_bundle(folder / "tank.elstm")
    with small_disk(folder / "disk", 40) as disk, mosquittos(folder) as start:
        place = disk or folder / "disk"  # only root mounts a small one
        found = flood(folder / "tank.elstm", start().address, place, names, max(1, names // 200))
    result.memory_mib, result.stop_s = found.memory_mb, found.stop_s
    result.outcomes[f"{names:,} names in {found.took_s:.0f} s"] = 1
    result.outcomes[f"{found.disk_mb:.0f} MB on the disk"] = 1
    if not found.alive:
        result.faults.append(f"the service died: {found.log[-600:]}")
    elif not found.equal:
        result.faults.append(f"predictions of honest devices: {found.found}, not those of an undisturbed run")
    if found.disk_mb > 40:
        result.faults.append(f"the state database takes {found.disk_mb:.0f} MB")
    return result


STRANGE_NAMES = [
    "\u202egnp",
    "a\u2028b",
    "\ufeffa",
    "..",
    "{stream}",
    "{0}",
    "a\u200bb",
    "\x85",
    "x" * 500,
    " ",
    "%s",
    "\u2066x",
]


def strange_names(stage: Stage, part: range) -> None:
    """Names with signs that change how a text looks, or that mean something elsewhere."""
    for number, name in enumerate(STRANGE_NAMES):
        stage.broker.send(publish(f"sensors/{name}", json.dumps(reading(1)).encode(), number + 1))
    stage.honest("after strange names")
    shown = stage.service.log.read_text() + "".join(
        topic + payload.decode(errors="replace") for topic, payload in stage.broker.said
    )
    shown += "".join(stage.broker.published)
    for sign in "\u202e\u2028\ufeff\u200b\u2066\x85":
        if sign in shown:
            stage.fault(f"U+{ord(sign):04X} is shown as it came")
    stage.result.outcomes["shown escaped or refused"] += 1


assert RECEIVE_MAXIMUM >= 500
