"""Shared by all tests: small bundles made without torch, real brokers on loopback, and the option --data."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import re
import shutil
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from edge_lstm.backends.reference import ReferenceBackend
from edge_lstm.backends.selftest import replay_tape
from edge_lstm.bundle.archive import (
    GOLDEN,
    Architecture,
    Bundle,
    Manifest,
    TensorPair,
    Variant,
    format_version,
    write_bundle,
)
from edge_lstm.bundle.contract import Contract
from edge_lstm.bundle.golden import Expected, GoldenVectors
from edge_lstm.bundle.golden import to_npz as golden_npz
from edge_lstm.bundle.network import Network, to_npz
from edge_lstm.deploy.wheel_target import Target
from edge_lstm.deploy.wheelhouse import collect
from edge_lstm.foundation.errors import EdgeLstmError
from edge_lstm.hardware.machine import this_machine
from edge_lstm.mqtt.address import Address
from tests.deadline import DEADLINE_S, wait_until
from tests.networks import contract_of, random_network

HOST = "127.0.0.1"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--device-only", action="store_true", help="fail at once where torch could be imported")
    parser.addoption(
        "--data", type=Path, metavar="DIR", help="folder of recordings (or EDGE_LSTM_DATA; ../shared/data)"
    )


def pytest_configure(config: pytest.Config) -> None:
    present = [name for name in ("torch", "onnx", "tflite") if importlib.util.find_spec(name) is not None]
    if config.getoption("--device-only") and present:
        raise pytest.UsageError(f"expected an environment without the workshop's packages, found {', '.join(present)}")


@pytest.fixture(scope="session")
def data(request: pytest.FixtureRequest) -> Path:
    """The folder of public recordings and messages; skips if it does not exist."""
    named = request.config.getoption("--data") or os.environ.get("EDGE_LSTM_DATA")
    folder = Path(named or Path(__file__).parents[1] / "../shared/data").resolve()
    if named and not folder.is_dir():
        pytest.fail(f"expected a folder of recordings at {folder}, found none")
    if not folder.is_dir():
        pytest.skip(f"there are no recordings at {folder}; name their folder with --data or EDGE_LSTM_DATA")
    return folder


def make_level_bundle(path: Path, network: Network | None = None, contract: Contract | None = None) -> Bundle:
    """A numpy float32 bundle, by default of the one feature `level`; its golden vectors by the reference."""
    network = network or random_network()
    contract = contract or contract_of(network)
    tape = np.random.default_rng(1).normal(0, 1, (200, len(contract.inputs))).astype(np.float32)
    marks = np.array([1, 10, 200])
    prediction, states = replay_tape(ReferenceBackend(network), contract, tape, marks)
    golden = GoldenVectors(tape, marks, {"float32": Expected(prediction, states)})
    pairs = [TensorPair(name, name, f"next_{name}") for name in network.state_names]
    variant = Variant("numpy", "float32", "weights.float32.npz", "features", "prediction", pairs, 1e-5, 1e-4)
    architecture = Architecture(network.cell, len(network.layers), network.hidden, network.parameters)
    manifest = Manifest(format_version(contract), contract, architecture, [variant], {})
    content = {variant.file: to_npz(network), GOLDEN: golden_npz(golden)}
    return write_bundle(path, manifest, content)


@pytest.fixture(scope="session")
def make_bundle() -> Callable[..., Bundle]:
    """make_bundle(path, network=None, contract=None): a numpy float32 bundle, its golden vectors by the reference."""

    return make_level_bundle


@pytest.fixture
def bundle_path(tmp_path: Path, make_bundle: Callable[..., Bundle]) -> Path:
    """A small bundle's file."""
    make_bundle(tmp_path / "tank.elstm")
    return tmp_path / "tank.elstm"


def free_port() -> int:
    """A TCP port on loopback that nothing listens on."""
    with socket.socket() as free:
        free.bind((HOST, 0))
        return int(free.getsockname()[1])


class Mosquitto:
    """A real mosquitto with persistence, on a free loopback port; it can be stopped and started again."""

    def __init__(self, folder: Path, settings: str = "allow_anonymous true", tls: bool = False) -> None:
        """`settings`: more lines of its configuration; with `tls` they must hold the TLS settings of the listener."""
        self.address = Address(HOST, free_port(), tls)
        self.folder = folder
        self._config = folder / "mosquitto.conf"
        # Started by root, mosquitto would change to its own user, which cannot write here once another pytest run
        # has closed the parent folder: it would then lose its sessions at its stop.
        user = "user root\n" if os.geteuid() == 0 else ""
        # what a durable broker needs: the defaults drop queued messages after 1000 and save every 30 minutes
        self._config.write_text(
            f"{user}listener {self.address.port} {HOST}\npersistence true\n"
            f"persistence_location {folder}/\nautosave_interval 1\nmax_queued_messages 0\n"
            f"max_inflight_messages 100\n{settings}\n"
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
        for port in re.findall(r"^listener (\d+)", self._config.read_text(), re.MULTILINE):
            with socket.socket() as probe:
                if probe.connect_ex((HOST, int(port))):
                    return False
        return True

    def stop(self) -> None:
        """SIGTERM: mosquitto saves its sessions and queues."""
        if self._process is not None:
            self._process.terminate()
            self._process.wait(DEADLINE_S)
            self._process = None


@contextlib.contextmanager
def mosquittos(folder: Path) -> Iterator[Callable[..., Mosquitto]]:
    """start(settings="allow_anonymous true", tls=False), until the block ends; skips where it is not installed."""
    if not (shutil.which("mosquitto") or Path("/usr/sbin/mosquitto").exists()):
        pytest.skip("mosquitto is not installed (Debian: apt-get install mosquitto)")
    started: list[Mosquitto] = []

    def start(settings: str = "allow_anonymous true", tls: bool = False) -> Mosquitto:
        own = folder / f"mosquitto-{len(started)}"
        own.mkdir()
        started.append(Mosquitto(own, settings, tls))
        started[-1].start()
        return started[-1]

    try:
        yield start
    finally:
        for broker in started:
            broker.stop()


@pytest.fixture
def start_mosquitto(tmp_path: Path) -> Iterator[Callable[..., Mosquitto]]:
    """start_mosquitto(settings="allow_anonymous true", tls=False): a running one; skips where it is not installed."""
    with mosquittos(tmp_path) as start:
        yield start


@pytest.fixture
def mosquitto(start_mosquitto: Callable[..., Mosquitto]) -> Mosquitto:
    """A running mosquitto that accepts every client."""
    return start_mosquitto()


@pytest.fixture(scope="session")
def wheelhouse(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheelhouse for this machine: a deployment with it needs no internet."""
    machine = this_machine()
    folder = tmp_path_factory.mktemp("wheelhouse") / "wheels"
    target = Target(machine.python or "", machine.architecture or "", machine.glibc or "")
    try:
        collect(folder, "this machine", [target], ["fast"])
    except EdgeLstmError as error:
        pytest.skip(f"no index to collect wheels from: {error.message}")
    return folder
