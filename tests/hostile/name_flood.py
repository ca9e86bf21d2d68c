"""The attack by invented stream names: a stranger publishes one reading under each of many names.

`flood` runs it against a real service with a real broker, and says what became of the service and of honest devices.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from edge_lstm import Bundle, Prediction, Predictor, Reading
from edge_lstm.messages.decoder import encode_reading
from edge_lstm.messages.encoder import decode_prediction
from edge_lstm.mqtt.address import Address
from edge_lstm.mqtt.connection import MqttConnection
from tests.deadline import wait_until

HONEST = "pump-1"  # has readings before the flood
NEW = "pump-2"  # begins within it
_BEGIN = 1_700_000_000.0
_BEFORE = 20  # readings of the honest device before the flood
_WINDOW = 500  # readings of the flood that are not confirmed by the broker
_QUIET_S = 60.0


class Outcome(NamedTuple):
    """What the flood did."""

    alive: bool
    equal: bool  # whether the honest devices' predictions are those of an undisturbed predictor
    found: int  # predictions of the honest devices
    memory_mb: float  # at most, above the idle service
    disk_mb: float  # of the database and its log, at most
    stop_s: float  # from SIGTERM to the end
    took_s: float
    log: str


@contextmanager
def small_disk(folder: Path, megabytes: int) -> Iterator[Path | None]:
    """A file system of this size in the folder; None where none can be mounted (it needs root)."""
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "none", str(folder)]
    if subprocess.run(mount, check=False, stderr=subprocess.DEVNULL).returncode:
        yield None
        return
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def flood(
    bundle: Path,
    address: Address,
    disk: Path,
    names: int,
    honest_every: int,
    extra: str = "",
    most_unanswered: int | None = 2000,
) -> Outcome:
    """Send one reading of each of `names` invented names, and a reading of each honest device after so many of them.

    `bundle`: of one feature `level`; the service has its config beside it, and its database on `disk`.
    `most_unanswered`: readings without a prediction, so that the flood is not faster than the service (None: it is).
    """
    config = bundle.parent / "service.toml"
    config.write_text(
        f'bundle = "{bundle.name}"\nbackend = "numpy"\nstate = "{disk / "state.db"}"\n{extra}\n'
        f'[mqtt]\nurl = "{address}"\nclient_id = "flooded"\n'
    )
    log = bundle.parent / "service.log"
    received: list[Prediction] = []
    answered = 0
    listener = MqttConnection(address, "listener", ["predictions/#"])
    honest = {f"predictions/{name}" for name in (HONEST, NEW)}
    listener.open()
    listener.poll(0.2)
    with log.open("wb") as errors:
        process = subprocess.Popen([sys.executable, "-m", "edge_lstm", "run", str(config)], stderr=errors)
    publisher = MqttConnection(address, "stranger")
    try:
        wait_until(lambda: "connected address=" in log.read_text(), "the service is connected")
        publisher.open()
        idle, disk_most = _peak_memory(process), 0
        sent: list[Reading] = []

        def send(name: str) -> None:
            number = sum(one.stream == name for one in sent)
            sent.append(Reading(name, _BEGIN + 60 * number, {"level": round(0.1 * (number % 7), 3)}))
            publisher.publish(f"sensors/{name}", encode_reading(sent[-1]))

        def exchange(pause_s: float) -> None:
            publisher.poll(pause_s)
            messages = listener.poll(0.0)
            listener.acknowledge(messages)
            nonlocal answered
            answered += len(messages)
            received.extend(decode_prediction(one.payload.decode()) for one in messages if one.topic in honest)

        for _ in range(_BEFORE):
            send(HONEST)
        begun = time.monotonic()
        payload = encode_reading(Reading("", _BEGIN, {"level": 0.5}))
        for number in range(names):
            publisher.publish(f"sensors/{'%08x' % (number * 2_654_435_761 % 2**32)}", payload)
            if number % honest_every == 0:
                send(HONEST)
                send(NEW)
            while len(publisher.unconfirmed) > _WINDOW or (
                most_unanswered is not None and number + len(sent) - answered > most_unanswered
            ):
                exchange(0.005)
                if process.poll() is not None:
                    break
            if number % 20_000 == 0:
                disk_most = max(disk_most, _size(disk))
                if process.poll() is not None:
                    break
        expected = _expected(bundle, sent)
        seen, quiet_since = -1, time.monotonic()
        while len(received) < len(expected) and time.monotonic() - quiet_since < _QUIET_S and process.poll() is None:
            exchange(0.05)
            if len(received) != seen:
                seen, quiet_since = len(received), time.monotonic()
        took_s = time.monotonic() - begun
        alive, memory = process.poll() is None, _peak_memory(process)
        disk_most = max(disk_most, _size(disk))
        begun = time.monotonic()
        process.terminate()
        process.wait(30)
        stop_s = time.monotonic() - begun
        equal = sorted(map(repr, received)) == sorted(map(repr, expected))
        return Outcome(alive, equal, len(received), memory - idle, disk_most / 1e6, stop_s, took_s, log.read_text())
    finally:
        for connection in (publisher, listener):
            connection.close()
        if process.poll() is None:
            process.kill()
            process.wait(10)


def _expected(bundle: Path, readings: list[Reading]) -> list[Prediction]:
    """As a subscriber decodes them: a payload has the shortest digits of each number."""
    from edge_lstm.messages.encoder import encode_prediction

    opened = Bundle.open(bundle)
    predictor = Predictor.of(opened, "numpy", max_rewind=8)
    return [
        decode_prediction(encode_prediction(one, opened.id))
        for reading in readings
        for one in predictor.feed([reading])
    ]


def _peak_memory(process: subprocess.Popen[bytes]) -> float:
    """VmHWM in MB; 0 where the process ended."""
    try:
        status = Path(f"/proc/{process.pid}/status").read_text()
    except OSError:
        return 0.0
    return next((int(line.split()[1]) / 1024 for line in status.splitlines() if line.startswith("VmHWM")), 0.0)


def _size(disk: Path) -> int:
    return sum(path.stat().st_size for path in disk.glob("state.db*"))
