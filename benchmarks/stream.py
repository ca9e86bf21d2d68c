"""The cost of a reading: the service with mosquitto, and bare echoes by stock paho, MqttConnection and Node.js.

    python benchmarks/stream.py [--messages 20000] [--windows 200,1000] [--rounds 5] [--parts echoes,serving,core]
    python benchmarks/stream.py --instructions

Every contender runs as a separate process, in turn, for several rounds, and the medians are shown. So other load on the
machine affects all of them equally. Ratios are comparable between machines. Absolute numbers are not, since broker,
load and echo share the cores. The peers in benchmarks/peers are measured after `npm install --ignore-scripts` there.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

from bundles import write_pump_bundle
from core import print_core
from echoes import ECHOES
from serving import payload, print_serving, service_command

from edge_lstm.bundle.archive import Bundle
from edge_lstm.mqtt.address import Address
from edge_lstm.mqtt.connection import MqttConnection
from edge_lstm.mqtt.options import ConnectionOptions

HERE = Path(__file__).parent
PEERS = HERE / "peers"
STREAMS = 64
WARM_UP = 2000  # messages


@dataclass(frozen=True)
class Contender:
    """A process that answers messages: its name and its command."""

    name: str
    command: Callable[[], list[str]]


def main() -> None:
    options = _options()
    _print_machine()
    windows = [int(text) for text in options.windows.split(",")]
    parts = options.parts.split(",")
    with tempfile.TemporaryDirectory() as name, _mosquitto(Path(name)) as port:
        folder = Path(name)
        bundle = folder / "pump.elstm"
        write_pump_bundle(bundle)
        if options.instructions:
            _print_instructions(port, folder, bundle)
            return
        for qos in (0, 1) if "echoes" in parts else ():
            for window in windows if qos else windows[-1:]:
                print(f"\nQoS {qos}, {window} messages in flight, {options.messages} messages, {options.rounds} rounds")
                contenders = _contenders(port, qos, window, folder, bundle)
                measured: dict[str, list[tuple[float, float, float]]] = {contender.name: [] for contender in contenders}
                for _ in range(options.rounds):
                    for contender in contenders:
                        measured[contender.name].append(_measure(contender, port, qos, window, options.messages))
                _print_table(measured)
        if "serving" in parts:
            print_serving(folder, bundle, port, seconds=10)
        if "core" in parts:
            print_core(bundle)


def _options() -> Any:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--messages", type=int, default=20_000)
    parser.add_argument("--windows", default="200,1000", help="messages in flight; QoS 0 uses the last")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--parts", default="echoes,serving,core", help="which of them (default: %(default)s)")
    parser.add_argument(
        "--instructions", action="store_true", help="count instructions per message under callgrind instead"
    )
    return parser.parse_args()


def _print_machine() -> None:
    model = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    print(
        f"{platform.system()} {platform.machine()}, {model[1] if model else 'CPU unknown'}, {os.cpu_count()} cores, ",
        end="",
    )
    print(f"load {os.getloadavg()[0]:.1f} before")
    broker = subprocess.run(["mosquitto", "-h"], capture_output=True, text=True, check=False).stdout.split("\n")[0]
    print(f"Python {platform.python_version()}, paho-mqtt {version('paho-mqtt')}, {broker}", end="")
    if shutil.which("node"):
        print(
            f", node {subprocess.run(['node', '-v'], capture_output=True, text=True, check=True).stdout.strip()}",
            end="",
        )
        for name in ("mqtt", "onnxruntime-node"):
            manifest = PEERS / "node_modules" / name / "package.json"
            if manifest.exists():
                print(f", {name} {json.loads(manifest.read_text())['version']}", end="")
    print()


def _contenders(port: int, qos: int, window: int, folder: Path, bundle: Path) -> list[Contender]:
    contenders = [_echo(name, port, qos, window) for name in ECHOES]
    contenders.append(_service(port, qos, folder, bundle))
    if shutil.which("node") and (PEERS / "node_modules" / "mqtt").exists():
        settings: dict[str, Any] = {"port": port, "qos": qos}
        contenders.append(_peer("MQTT.js", settings))
        if (PEERS / "node_modules" / "onnxruntime-node").exists():
            contenders.append(_peer("MQTT.js + onnxruntime-node", settings | _model(folder, bundle)))
    return contenders


def _echo(name: str, port: int, qos: int, window: int) -> Contender:
    command = [sys.executable, str(HERE / "echoes.py"), name, str(port), str(qos), str(window)]
    return Contender(name, lambda: command)


def _service(port: int, qos: int, folder: Path, bundle: Path) -> Contender:
    """The whole service: it decodes, predicts, and commits at QoS 1. The others return the message unchanged."""
    durability = "exactly-once" if qos else "at-most-once"
    return Contender(
        f"edge-lstm run, {durability}", lambda: service_command(folder / "served", bundle, port, durability)
    )


def _peer(name: str, settings: dict[str, Any]) -> Contender:
    return Contender(name, lambda: ["node", str(PEERS / "echo.mjs"), json.dumps(settings)])


def _model(folder: Path, path: Path) -> dict[str, Any]:
    """The bundle's model as a file, with the sizes that the peer needs."""
    bundle = Bundle.open(path)
    (variant,) = [v for v in bundle.manifest.variants if (v.format, v.scheme) == ("onnx", "float32")]
    model = folder / variant.file
    with zipfile.ZipFile(path) as archive:
        model.write_bytes(archive.read(variant.file))
    sizes = {state.name: state.shape[0] for state in bundle.contract.states}
    states = [[pair.input, pair.output, sizes[pair.state]] for pair in variant.states]
    return {"model": str(model), "inputs": len(bundle.contract.inputs), "states": states}


@contextmanager
def _mosquitto(folder: Path) -> Iterator[int]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
    config = folder / "mosquitto.conf"
    # by default, mosquitto drops messages when 1000 are queued, and sends 20 before it waits for acknowledgements
    config.write_text(
        f"listener {port} 127.0.0.1\nallow_anonymous true\nmax_queued_messages 0\nmax_inflight_messages 2000\n"
    )
    program = shutil.which("mosquitto") or "/usr/sbin/mosquitto"
    process = subprocess.Popen([program, "-c", str(config)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 10
        while socket.socket().connect_ex(("127.0.0.1", port)):
            if time.monotonic() > deadline:
                raise RuntimeError("mosquitto does not listen")
            time.sleep(0.05)
        yield port
    finally:
        process.terminate()
        process.wait(10)


class Load:
    """Keeps a window of messages in flight through an echo, and counts those that return."""

    def __init__(self, port: int, qos: Literal[0, 1]) -> None:
        self._qos = qos
        self._connection = MqttConnection(
            Address("127.0.0.1", port),
            topics=["out/#", "ready", "edge-lstm/+/status"],
            options=ConnectionOptions(qos=0, client="batching"),
        )
        self._connection.open()
        self._topics = [f"in/pump-{number}" for number in range(STREAMS)]
        self._sent = 0

    def wait_ready(self, process: subprocess.Popen[bytes]) -> None:
        deadline = time.monotonic() + 300  # a start under valgrind on a busy machine takes minutes
        # a retained "online" is from an earlier service
        while not any(not one.retained and one.payload in (b"ready", b"online") for one in self._connection.poll(0.1)):
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError("the echo did not get ready")

    def run(self, count: int, window: int) -> float:
        """Seconds until `count` messages have returned."""
        places = range(self._sent, self._sent + count)
        items = [(self._topics[place % STREAMS], payload(place // STREAMS)) for place in places]
        self._sent += count
        begun = received_at = time.monotonic()
        back = out = 0
        while back < count:
            more = min(window - (out - back), count - out)
            if more > 0:
                self._connection.publish_many(items[out : out + more], qos=self._qos)
                out += more
            received = sum(message.topic.startswith("out/") for message in self._connection.poll(0.2))
            back += received
            if received:
                received_at = time.monotonic()
            elif time.monotonic() - received_at > 60:
                raise RuntimeError(f"{count - back} of {count} messages did not come back")
        return time.monotonic() - begun

    def close(self) -> None:
        self._connection.close()


def _measure(contender: Contender, port: int, qos: Any, window: int, count: int) -> tuple[float, float, float]:
    """Messages per second, CPU µs per message and resident MB of the process that answers."""
    load = Load(port, qos)
    process = subprocess.Popen(contender.command(), cwd=HERE, stderr=subprocess.DEVNULL)
    try:
        load.wait_ready(process)
        load.run(WARM_UP, window)
        before = _cpu_s(process.pid)
        seconds = load.run(count, window)
        return count / seconds, 1e6 * (_cpu_s(process.pid) - before) / count, _rss_mb(process.pid)
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(10)
        load.close()


def _cpu_s(pid: int) -> float:
    """CPU seconds of a process and its threads so far, with nanosecond resolution."""
    return sum(int(path.read_text().split()[0]) for path in Path(f"/proc/{pid}/task").glob("*/schedstat")) / 1e9


def _rss_mb(pid: int) -> float:
    (line,) = [one for one in Path(f"/proc/{pid}/status").read_text().splitlines() if one.startswith("VmRSS")]
    return int(line.split()[1]) / 1024


def _print_table(measured: dict[str, list[tuple[float, float, float]]]) -> None:
    reference = statistics.median(rate for rate, _, _ in measured["paho own loop"])
    print(f"{'':<28}{'messages/s':>12}{'of stock':>10}{'CPU µs':>9}{'MB':>7}   load {os.getloadavg()[0]:.1f}")
    for name, values in measured.items():
        rate, cpu, held = (statistics.median(column) for column in zip(*values, strict=True))
        print(f"{name:<28}{rate:>12,.0f}{rate / reference:>9.1f}×{cpu:>9.1f}{held:>7.0f}", flush=True)


def _print_instructions(port: int, folder: Path, bundle: Path) -> None:
    """Print instructions per message, from the difference between a long and a short run, without the start-up."""
    if shutil.which("valgrind") is None:
        print("\ninstructions: not counted; valgrind is not installed")
        return
    print("\nInstructions per message under callgrind (user space), 200 messages in flight")
    for qos in (0, 1):
        contenders = [_echo(name, port, qos, 200) for name in ("paho own loop", "MqttConnection, batching")]
        for contender in [*contenders, _service(port, qos, folder, bundle)]:
            short, long = (_instructions(contender, port, qos, count) for count in (1000, 3000))
            print(f"{contender.name:<28}QoS {qos}{(long - short) / 2000:>12,.0f}", flush=True)


def _instructions(contender: Contender, port: int, qos: Any, count: int) -> int:
    load = Load(port, qos)
    valgrind = ["valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null"]
    process = subprocess.Popen([*valgrind, *contender.command()], cwd=HERE, stderr=subprocess.PIPE)
    load.wait_ready(process)
    load.run(count, 200)
    process.terminate()
    _, report = process.communicate(timeout=300)
    load.close()
    collected = re.search(rb"Collected : (\d+)", report)
    if collected is None:
        raise RuntimeError(report.decode())
    return int(collected[1])


if __name__ == "__main__":
    main()
