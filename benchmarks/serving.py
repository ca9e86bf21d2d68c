"""Measurements of the service with a broker: latency of predictions, memory per stream, and start-up time."""

from __future__ import annotations

import os
import shutil
import signal
import statistics
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from edge_lstm.mqtt.address import Address
from edge_lstm.mqtt.connection import MqttConnection

HOST = "127.0.0.1"
_START_S = 1_767_225_600
_MANY = 100_000  # streams, as many as a service keeps in memory
_RATES = (100, 1000)  # readings a second
_ROUNDS = 5


def service_command(folder: Path, bundle: Path, port: int, durability: str, backend: str = "litert") -> list[str]:
    """The command for `edge-lstm run` in a new folder with an empty database, with the topics of the echoes."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    (folder / "service.toml").write_text(
        f'bundle = "{bundle}"\nbackend = "{backend}"\ndurability = "{durability}"\n'
        f"max_stream_names = {_MANY}\n"
        f'mqtt = {{url = "mqtt://{HOST}:{port}", client_id = "{folder.name}-{time.monotonic_ns()}"}}\n'
        'input.topic = "in/{stream}"\noutput.topic = "out/{stream}"\n'
    )
    return [sys.executable, "-m", "edge_lstm", "run", str(folder / "service.toml")]


def payload(step: int) -> bytes:
    """A device's reading as JSON; `step` counts minutes."""
    return b'{"time": %d, "pressure": 4.217, "flow": 12.84}' % (_START_S + 60 * step)


@contextmanager
def running(command: list[str]) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    try:
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(30)


class Client:
    """Sends readings, and receives predictions and the status of the service."""

    def __init__(self, port: int) -> None:
        self.connection = MqttConnection(Address(HOST, port), topics=["out/#", "edge-lstm/+/status"])
        self.connection.open()
        self.online = False

    def predictions(self, timeout_s: float) -> list[str]:
        """The streams of the predictions that arrived within the timeout."""
        messages = self.connection.poll(timeout_s)
        self.connection.acknowledge(messages)
        for message in messages:
            if message.topic.endswith("/status") and not message.retained:
                self.online = message.payload == b"online"
        return [message.topic[4:] for message in messages if message.topic.startswith("out/")]

    def wait(self, done: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 120
        while not done():
            if time.monotonic() > deadline:
                raise RuntimeError("the service does not answer")

    def wait_online(self) -> None:
        self.wait(lambda: (self.predictions(0.05), self.online)[1])

    def ask(self, items: list[tuple[str, bytes]]) -> None:
        """Send readings, and wait for as many predictions."""
        self.connection.publish_many(items)
        back = 0

        def done() -> bool:
            nonlocal back
            back += len(self.predictions(0.05))
            return back >= len(items)

        self.wait(done)


def latencies_ms(folder: Path, bundle: Path, port: int, rate: float, seconds: float) -> list[float]:
    """Times from publish to prediction, exactly-once, at an even `rate` of single readings over 64 streams."""
    client = Client(port)
    found: list[float] = []
    with running(service_command(folder, bundle, port, "exactly-once")):
        client.wait_online()
        client.ask([(f"in/pump-{number % 64}", payload(number // 64)) for number in range(2000)])
        sent_at: dict[str, deque[float]] = {f"pump-{number}": deque() for number in range(64)}
        begun, sent, count = time.monotonic(), 0, int(rate * seconds)
        while len(found) < count:
            now = time.monotonic()
            due = begun + sent / rate
            if sent < count and now >= due:
                stream = f"pump-{sent % 64}"
                sent_at[stream].append(now)
                client.connection.publish(f"in/{stream}", payload(1000 + sent // 64))
                sent += 1
                continue
            streams = client.predictions(min(0.05, max(0.0, due - now)) if sent < count else 0.05)
            now = time.monotonic()
            found += [1000 * (now - sent_at[stream].popleft()) for stream in streams]
            if now > begun + seconds + 60:
                raise RuntimeError("predictions are missing")
    client.connection.close()
    return found


def memory(folder: Path, bundle: Path, port: int, backend: str) -> tuple[float, float]:
    """Resident MB with one stream, and additional KB per stream with _MANY of them."""
    client = Client(port)
    with running(service_command(folder, bundle, port, "exactly-once", backend)) as process:
        client.wait_online()
        client.ask([("in/pump-0", payload(step)) for step in range(500)])
        one = _rss_kib(process.pid)
        for _ in range(2):
            for start in range(0, _MANY, 500):
                client.ask([(f"in/pump-{start + number}", payload(1000 + _)) for number in range(500)])
        many = _rss_kib(process.pid)
    client.connection.close()
    return one / 1024, (many - one) / _MANY


def start_s(folder: Path, bundle: Path, port: int) -> float:
    """Seconds from the start of the process to its first prediction, for a reading that is queued at the broker."""
    client = Client(port)
    command = service_command(folder, bundle, port, "exactly-once")
    with running(command):
        client.wait_online()
        client.ask([("in/pump-0", payload(0))])
    client.wait(lambda: (client.predictions(0.05), not client.online)[1])
    client.connection.publish("in/pump-0", payload(1))
    client.wait(lambda: (client.predictions(0.05), not client.connection.unconfirmed)[1])
    begun = time.monotonic()
    with running(command):
        client.wait(lambda: bool(client.predictions(0.05)))
        taken = time.monotonic() - begun
    client.connection.close()
    return taken


def fsync_ms(folder: Path) -> tuple[float, float]:
    """p50 and p99 of a 4 KiB append with fdatasync, on the disk of the databases."""
    taken = []
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "fsync").open("wb", buffering=0) as file:
        for _ in range(300):
            begun = time.perf_counter()
            file.write(bytes(4096))
            os.fdatasync(file.fileno())
            taken.append(1000 * (time.perf_counter() - begun))
    return percentiles(taken)


def stolen_ms() -> float:
    """Steal time of the machine since its start: its cores had work, but the hypervisor ran another machine."""
    return 1000 * int(Path("/proc/stat").read_text().split()[8]) / os.sysconf("SC_CLK_TCK")


def percentiles(values: list[float]) -> tuple[float, float]:
    """p50 and p99."""
    return statistics.median(values), sorted(values)[int(0.99 * len(values))]


def print_serving(folder: Path, bundle: Path, port: int, seconds: float) -> None:
    """Print latency, memory and start-up time, one line each."""
    print("\nThe service, exactly-once, LiteRT")
    _print_latency(folder, bundle, port, seconds)
    for backend in ("litert", "onnx"):
        one, each = memory(folder / "memory", bundle, port, backend)
        print(f"{backend}: {one:.1f} MB with one stream, {each:.2f} KB for each of {_MANY:,} more", flush=True)
    taken = [start_s(folder / "start", bundle, port) for _ in range(5)]
    print(f"start to first prediction: {statistics.median(taken):.2f} s")


def _print_latency(folder: Path, bundle: Path, port: int, seconds: float) -> None:
    """Print rounds of all rates with the times of disk and hypervisor meanwhile, and the medians."""
    found: dict[int, list[tuple[float, float]]] = {rate: [] for rate in _RATES}
    for _ in range(_ROUNDS):
        print("fsync p50 {:.2f} ms, p99 {:.2f} ms".format(*fsync_ms(folder / "disk")), end="")
        for rate, rounds in found.items():
            before = stolen_ms()
            rounds.append(percentiles(latencies_ms(folder / "latency", bundle, port, rate, seconds)))
            stolen = stolen_ms() - before
            print("; {}/s: p50 {:.2f} ms, p99 {:.2f} ms".format(rate, *rounds[-1]), f"({stolen:.0f} ms stolen)", end="")
        print(flush=True)
    for rate, rounds in found.items():
        p50, p99 = (statistics.median(column) for column in zip(*rounds, strict=True))
        print(
            f"publish to prediction at {rate:>4}/s, medians of {_ROUNDS}: p50 {p50:.2f} ms, p99 {p99:.2f} ms",
            flush=True,
        )


def _rss_kib(pid: int) -> int:
    (line,) = [one for one in Path(f"/proc/{pid}/status").read_text().splitlines() if one.startswith("VmRSS")]
    return int(line.split()[1])
