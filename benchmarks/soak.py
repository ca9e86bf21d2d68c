"""A service under steady load for minutes: constant memory, no leaked descriptor, no missing prediction.

    python benchmarks/soak.py [--minutes 10] [--streams 500] [--rate 1000]

It starts a mosquitto and a service on loopback, without restarts. It exits with 1 if resident memory grows by more than
2 % after the first fifth of the time, if more descriptors are open, or if a prediction is missing.
"""

from __future__ import annotations

import argparse
import platform
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from edge_lstm.messages.decoder import encode_reading
from edge_lstm.mqtt.address import Address
from edge_lstm.mqtt.connection import MqttConnection
from edge_lstm.streaming.reading import Reading

FIXTURE = Path(__file__).parents[1] / "tests" / "fixtures" / "pump-lstm.elstm"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--streams", type=int, default=500)
    parser.add_argument("--rate", type=float, default=1000.0, help="readings a second")
    arguments = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="edge-lstm-soak-"))
    folder.chmod(0o777)
    address = Address("127.0.0.1", _free_port())
    broker = _mosquitto(folder, address)
    service = _service(folder, address)
    try:
        return _soak(service.pid, address, arguments)
    finally:
        service.terminate()
        service.wait(10)
        broker.terminate()
        broker.wait(10)
        shutil.rmtree(folder)


def _soak(pid: int, address: Address, arguments: argparse.Namespace) -> int:
    listener = MqttConnection(address, "soak-listener", ["predictions/+"], session_expiry_s=600)
    listener.open()
    publisher = MqttConnection(address, "soak-publisher", session_expiry_s=600)
    publisher.open()
    rng = np.random.default_rng(0)
    begun = time.monotonic()
    seconds = 60 * arguments.minutes
    sent = received = 0
    marks: list[tuple[float, float, int]] = []
    while (now := time.monotonic() - begun) < seconds:
        due = int(now * arguments.rate)
        if due > sent:
            items = []
            for index in range(sent, min(due, sent + 500)):
                stream, step = index % arguments.streams, index // arguments.streams
                values = {"pressure": float(rng.normal(4, 0.5)), "flow": float(rng.normal(12, 3))}
                reading = Reading(f"pump-{stream}", 1_700_000_000.0 + 60 * step, values)
                items.append((f"sensors/pump-{stream}", encode_reading(reading).encode()))
            publisher.publish_many(items)
            sent += len(items)
        publisher.poll(0.0)
        messages = listener.poll(0.002)
        listener.acknowledge(messages)
        received += len(messages)
        if now > seconds * (0.2 + 0.1 * len(marks)):
            marks.append((now, _rss_mb(pid), _descriptors(pid)))
            print(
                f"{now:6.0f} s  {marks[-1][1]:.1f} MB  {marks[-1][2]} descriptors  {received:,} of {sent:,}", flush=True
            )
    deadline = time.monotonic() + 30
    while received < sent and time.monotonic() < deadline:
        publisher.poll(0.0)
        messages = listener.poll(0.1)
        listener.acknowledge(messages)
        received += len(messages)
    publisher.close()
    listener.close()
    first, last = marks[0], (seconds, _rss_mb(pid), _descriptors(pid))
    growth = last[1] / first[1] - 1
    print(f"{platform.platform()}, Python {platform.python_version()}, {arguments.streams} streams")
    print(
        f"{sent:,} readings, {received:,} predictions, "
        f"memory {first[1]:.1f} -> {last[1]:.1f} MB ({100 * growth:+.2f} %), "
        f"descriptors {first[2]} -> {last[2]}"
    )
    return 0 if received == sent and growth <= 0.02 and last[2] <= first[2] else 1


def _service(folder: Path, address: Address) -> subprocess.Popen[bytes]:
    shutil.copy(FIXTURE, folder / "pump.elstm")
    config = folder / "service.toml"
    config.write_text(f'bundle = "pump.elstm"\n[mqtt]\nurl = "{address}"\nclient_id = "edge-lstm-soak"\n')
    log = (folder / "service.log").open("wb")
    process = subprocess.Popen([sys.executable, "-m", "edge_lstm", "run", str(config)], stderr=log)
    while b"connected" not in (folder / "service.log").read_bytes():
        if process.poll() is not None:
            sys.exit((folder / "service.log").read_text())
        time.sleep(0.05)
    return process


def _mosquitto(folder: Path, address: Address) -> subprocess.Popen[bytes]:
    config = folder / "mosquitto.conf"
    config.write_text(
        f"listener {address.port} {address.host}\nallow_anonymous true\n"
        "max_queued_messages 0\nmax_inflight_messages 1000\n"
    )
    program = shutil.which("mosquitto") or "/usr/sbin/mosquitto"
    process = subprocess.Popen([program, "-c", str(config)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while True:
        with socket.socket() as probe:
            if probe.connect_ex((address.host, address.port)) == 0:
                return process
        time.sleep(0.05)


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def _rss_mb(pid: int) -> float:
    (line,) = [one for one in Path(f"/proc/{pid}/status").read_text().splitlines() if one.startswith("VmRSS")]
    return int(line.split()[1]) / 1024


def _descriptors(pid: int) -> int:
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


if __name__ == "__main__":
    sys.exit(main())
