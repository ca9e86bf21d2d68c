"""What every room's tests share: small bundles without torch, real brokers on loopback, and an option for the data."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from edge_lstm.backends.reference import ReferenceBackend
from edge_lstm.bundle import GOLDEN, Architecture, Bundle, Manifest, TensorPair, Variant, write_bundle
from edge_lstm.contract import Contract, Feature, Sampling, StateTensor
from edge_lstm.golden import Expected, Golden
from edge_lstm.golden import to_npz as golden_npz
from edge_lstm.mqtt import Address
from edge_lstm.network import GATES, Cell, Layer, Network, to_npz
from edge_lstm.selftest import replay_tape

HOST = "127.0.0.1"


def random_network(
    cell: Cell = "lstm", *, inputs: int = 3, hidden: int = 8, layers: int = 1, outputs: int = 2
) -> Network:
    """A network of random weights that predicts changes of its first feature."""
    rng = np.random.default_rng(0)

    def array(*shape: int) -> np.ndarray:
        return rng.normal(0, 0.4, shape).astype(np.float32)

    rows = GATES[cell] * hidden
    stack = tuple(
        Layer(array(rows, inputs if index == 0 else hidden), array(rows, hidden), array(rows), array(rows))
        for index in range(layers)
    )
    mean, scale = array(inputs), np.abs(array(inputs)) + 1
    return Network(cell, mean, scale, stack, array(outputs, hidden), array(outputs), np.zeros(outputs, np.int32))


def contract_of(network: Network, **changes: object) -> Contract:
    """A contract for `random_network`: feature `level` with a clock of the day, two horizons."""
    states = [StateTensor(name, [network.hidden]) for name in network.state_names]
    sampling = Sampling(interval_s=60.0, max_gap_s=600.0)
    facts = {
        "name": "tank",
        "task": "forecast",
        "features": [Feature("level", "m", 1.0, 2.0)],
        "targets": ["level"],
        "horizons": [1, 5],
        "states": states,
        "clock": ["time_of_day"],
        "sampling": sampling,
    }
    return Contract(**{**facts, **changes})  # type: ignore[arg-type]


@pytest.fixture(scope="session")
def make_bundle() -> Callable[..., Bundle]:
    """make_bundle(path, network=None, contract=None): a numpy float32 bundle, its golden vectors by the reference."""

    def make(path: Path, network: Network | None = None, contract: Contract | None = None) -> Bundle:
        network = network or random_network()
        contract = contract or contract_of(network)
        tape = np.random.default_rng(1).normal(0, 1, (200, len(contract.inputs))).astype(np.float32)
        marks = np.array([1, 10, 200])
        prediction, states = replay_tape(ReferenceBackend(network), contract, tape, marks)
        golden = Golden(tape, marks, {"float32": Expected(prediction, states)})
        pairs = [TensorPair(name, name, f"next_{name}") for name in network.state_names]
        variant = Variant("numpy", "float32", "weights.float32.npz", "features", "prediction", pairs, 1e-5, 1e-4)
        architecture = Architecture(network.cell, len(network.layers), network.hidden, network.parameters)
        manifest = Manifest(1, contract, architecture, [variant], {})
        content = {variant.file: to_npz(network), GOLDEN: golden_npz(golden)}
        return write_bundle(path, manifest, content)

    return make


@pytest.fixture
def bundle_path(tmp_path: Path, make_bundle: Callable[..., Bundle]) -> Path:
    """A small bundle's file."""
    make_bundle(tmp_path / "tank.elstm")
    return tmp_path / "tank.elstm"


class Mosquitto:
    """A real mosquitto with persistence, on a free loopback port; it can be stopped and started again."""

    def __init__(self, folder: Path) -> None:
        with socket.socket() as free:
            free.bind((HOST, 0))
            self.address = Address(HOST, free.getsockname()[1])
        self._config = folder / "mosquitto.conf"
        # what a durable broker needs: the defaults drop queued messages after 1000 and save every 30 minutes
        self._config.write_text(
            f"listener {self.address.port} {HOST}\nallow_anonymous true\npersistence true\n"
            f"persistence_location {folder}/\nautosave_interval 1\nmax_queued_messages 0\nmax_inflight_messages 100\n"
        )
        self._log = folder / "mosquitto.log"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        program = shutil.which("mosquitto") or "/usr/sbin/mosquitto"
        with self._log.open("ab") as log:
            user = ["-v"] if os.environ.get("MOSQUITTO_VERBOSE") else []
            self._process = subprocess.Popen([program, "-c", str(self._config), *user], stdout=log, stderr=log)
        wait_until(self._listens, "mosquitto listens")

    def _listens(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, self._log.read_text()
        with socket.socket() as probe:
            return probe.connect_ex((HOST, self.address.port)) == 0

    def stop(self) -> None:
        """SIGTERM: mosquitto saves its sessions and queues."""
        if self._process is not None:
            self._process.terminate()
            self._process.wait(10)
            self._process = None


@pytest.fixture
def mosquitto(tmp_path: Path) -> Iterator[Mosquitto]:
    """A running mosquitto; skips where it is not installed."""
    if not (shutil.which("mosquitto") or Path("/usr/sbin/mosquitto").exists()):
        pytest.skip("mosquitto is not installed (Debian: apt-get install mosquitto)")
    folder = tmp_path / "mosquitto"
    folder.mkdir()
    if os.geteuid() == 0:
        folder.chmod(0o777)  # started by root it changes to its own user
        for parent in (tmp_path, tmp_path.parent, tmp_path.parent.parent):
            parent.chmod(parent.stat().st_mode | 0o055)
    broker = Mosquitto(folder)
    broker.start()
    yield broker
    broker.stop()


def wait_until(done: Callable[[], bool], what: str, timeout_s: float = 30.0) -> None:
    """Until `done()` is true; a failure that names `what` after the deadline."""
    deadline = time.monotonic() + timeout_s
    while not done():
        assert time.monotonic() < deadline, f"expected within {timeout_s:.0f} s that {what}"
        time.sleep(0.02)
