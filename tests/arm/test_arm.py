"""On ARM: the wheel installs, the bundle verifies, and predictions equal those of this machine.

Not part of `make test`: `make test-arm64` runs it, as root, and takes about 20 minutes per board. The speed of an
emulated processor says little about a real one, so the tests report instructions, never time.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge_lstm import Bundle, Predictor
from edge_lstm.backends.registry import format_of
from edge_lstm.backends.selftest import relative_error
from edge_lstm.messages.decoder import encode_reading
from edge_lstm.messages.encoder import encode_prediction
from edge_lstm.recordings.recording import Columns, read_recording
from tests.arm.conftest import HOME, Board, make_board
from tests.arm.userland import ARM64, ARMHF
from tests.deadline import wait_until

pytestmark = pytest.mark.timeout(1800)  # a first run makes the roots
_OF_PLAN = 200.0  # MB that an install may take on a board
# By machine, the backends that are there, the preferred one first: each gives the bundle's golden vectors.
_MACHINES = {"aarch64": ["litert", "onnx", "numpy"], "armv7l": ["tflite-runtime", "numpy"]}
# LiteRT's rows differ by their place, at least in the kernels that it takes where there is no /sys (docs/testing.md).
_ONE_BY_ONE = {"litert"}
# One stream over the golden vectors' features, again and again: its predictions (steps, outputs) into a file.
_LONG = """
import sys

import numpy as np

from edge_lstm.bundle.archive import Bundle
from edge_lstm.bundle.golden import read_golden_vectors
from edge_lstm.backends.selftest import load_verified, replay_tape

bundle = Bundle.open(sys.argv[1])
backend, smallest_batch = load_verified(bundle, sys.argv[2], "float32")
tape = read_golden_vectors(bundle).features
tape = np.resize(tape, (20_000, tape.shape[1]))
np.save(sys.argv[3], replay_tape(backend, bundle.contract, tape, np.array([len(tape)]), smallest_batch)[0])
"""


@pytest.fixture(scope="module")
def aarch64(tmp_path_factory: pytest.TempPathFactory, solar: Path) -> Board:
    """Raspberry Pi OS Bookworm (64 bit), as far as a userland is concerned: Debian's Python 3.11."""
    house = ["generic-arm64", "--python", "3.11", "--extra", "onnx"]
    shared = tmp_path_factory.mktemp("aarch64")
    return make_board(ARM64, "bookworm", [], shared, solar, wheelhouse=house, extras=["tflite", "onnx"])


@pytest.fixture(scope="module")
def armv7l(tmp_path_factory: pytest.TempPathFactory, solar: Path) -> Board:
    """Raspberry Pi OS Bookworm (32 bit): numpy comes from the distribution."""
    house = ["generic-armv7", "--python", "3.11"]
    shared = tmp_path_factory.mktemp("armv7l")
    return make_board(ARMHF, "bookworm", ["python3-numpy"], shared, solar, wheelhouse=house, extras=["tflite-runtime"])


@pytest.fixture(params=list(_MACHINES))
def board(request: pytest.FixtureRequest) -> Board:
    """Each of the two."""
    made: Board = request.getfixturevalue(request.param)
    return made


def backends(board: Board) -> list[str]:
    return _MACHINES[name_of(board)]


def name_of(board: Board) -> str:
    return "aarch64" if board.userland.machine is ARM64 else "armv7l"


def here(solar: Path, backend: str, recording: Path) -> list[dict[str, Any]]:
    """The predictions of `replay` on this machine, by the backend of the same format."""
    bundle = Bundle.open(solar)
    readings = read_recording(recording, Columns({"ac_power": "ac_power"})).readings()
    predictor = Predictor.of(bundle, "litert" if format_of(backend) == "tflite" else backend)
    return [json.loads(encode_prediction(one, bundle.id)) for one in predictor.feed(list(readings))]


def difference(found: list[dict[str, Any]], expected: list[dict[str, Any]]) -> float:
    """The largest over the largest magnitude, of the worst output, as the self-test counts; the rest must be equal."""
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        assert {**one, "predictions": None} == {**other, "predictions": None}
    numbers = [
        np.array([list(one["predictions"]["ac_power"].values()) for one in predictions])
        for predictions in (found, expected)
    ]
    worst: float = (np.abs(numbers[0] - numbers[1]).max(axis=0) / np.abs(numbers[1]).max(axis=0)).max()
    return worst


def parity(solar: Path, backend: str) -> float:
    """What the bundle allows its variants, of the largest magnitude."""
    return Bundle.open(solar).variant(format_of(backend), "int8").parity


@pytest.fixture
def report(capsys: pytest.CaptureFixture[str]) -> Callable[[str], None]:
    """Prints a measurement, whether or not pytest shows output."""

    def line(text: str) -> None:
        with capsys.disabled():
            print(f"\n    {text}", end="", flush=True)

    return line


def test_an_install_brings_no_torch_and_stays_under_200_mb(board: Board, report: Callable[[str], None]) -> None:
    packages = {path.name.split("-")[0].lower() for path in (board.shared / "edge-lstm").rglob("*.dist-info")}
    assert not packages & {"torch", "onnx", "tensorflow", "tflite"}
    assert {"edge_lstm", "click", "paho_mqtt"} <= packages
    report(f"{board.name}: " + ", ".join(f"{size:.0f} MB with {extra}" for extra, size in board.installed_mb.items()))
    assert next(iter(board.installed_mb.values())) < _OF_PLAN


def test_every_backend_reproduces_the_golden_vectors(board: Board, report: Callable[[str], None]) -> None:
    done = board.run("verify", "/mnt/solar.elstm", "--json")
    verdicts = {(one["backend"], one["scheme"]): one for one in json.loads(done.stdout)}
    for (backend, scheme), one in verdicts.items():
        report(f"{board.name}, {backend} {scheme}: {'ok' if one['passed'] else 'REFUSED'}, {one['finding']}")
    assert done.returncode == 0, done.stderr
    assert {key: (one["passed"], one["one_by_one"]) for key, one in verdicts.items()} == {
        (backend, scheme): (True, backend in _ONE_BY_ONE)
        for backend in backends(board)
        for scheme in ("float32", "int8")
    }


def test_replay_gives_the_predictions_of_this_machine(board: Board, solar: Path, report: Callable[[str], None]) -> None:
    for backend in backends(board):
        expected = here(solar, backend, board.shared / "700.csv")
        worst = difference(board.predictions(backend, "700.csv"), expected)
        report(
            f"{board.name}, {backend} int8: {len(expected)} predictions differ by at most {worst:.1e} of the largest"
        )
        assert worst <= parity(solar, backend)


def test_twenty_thousand_steps_drift_less_than_1e_4_from_this_machine(
    board: Board, solar: Path, report: Callable[[str], None]
) -> None:
    backend = backends(board)[0]
    (board.shared / "long.py").write_text(_LONG)
    arguments = ["/mnt/long.py", "/mnt/solar.elstm", backend, "/mnt/long.npy"]
    board.userland.run([f"{HOME}/bin/python", *arguments], shared=board.shared, check=True)
    expected = board.shared / "expected.npy"
    on_this_machine = "litert" if format_of(backend) == "tflite" else backend
    subprocess.run(
        [sys.executable, str(board.shared / "long.py"), str(solar), on_this_machine, str(expected)], check=True
    )
    found, wanted = np.load(board.shared / "long.npy"), np.load(expected)
    tenth = len(found) // 10
    first, last = relative_error(found[:tenth], wanted[:tenth]), relative_error(found[-tenth:], wanted[-tenth:])
    report(
        f"{board.name}, {backend} float32, {len(found):,} steps: {first:.1e} in the first tenth, {last:.1e} in the last"
    )
    assert max(first, last) <= 1e-4


def test_the_service_publishes_the_predictions_of_this_machine(
    board: Board, solar: Path, mosquitto: Any, subscribe: Callable[..., Any], report: Callable[[str], None]
) -> None:
    backend = backends(board)[0]
    (board.shared / "service.toml").write_text(
        f'bundle = "solar.elstm"\nbackend = "{backend}"\n[mqtt]\nurl = "{mosquitto.address}"\nclient_id = "arm"\n'
    )
    subscriber = subscribe(mosquitto.address, "predictions/+")
    readings = list(read_recording(board.shared / "200.csv", Columns({"ac_power": "ac_power"})).readings())
    command = ["/mnt/edge-lstm/bin/edge-lstm", "run", "/mnt/service.toml"]
    with (board.shared / "service.log").open("w") as log:
        service = board.userland.start(command, shared=board.shared, env=board.environment, stderr=log.fileno())
        try:
            wait_until(lambda: "connected" in (board.shared / "service.log").read_text(), "it is connected", 120)
            for reading in readings:
                subscriber.publish(f"sensors/{reading.stream}", encode_reading(reading))
            wait_until(lambda: len(subscriber.messages) >= len(readings), "all predictions arrive", 120)
        finally:
            board.userland.stop(service)
    assert service.returncode == 0, (board.shared / "service.log").read_text()
    worst = difference(subscriber.payloads(), here(solar, backend, board.shared / "200.csv"))
    report(f"{board.name}, {backend} int8, over the broker: at most {worst:.1e} of the largest")
    assert worst <= parity(solar, backend)


def test_the_instruction_count_of_a_reading_is_reproducible(board: Board, report: Callable[[str], None]) -> None:
    for backend in backends(board):
        short, long = (board.instructions(backend, f"{readings}.csv") for readings in (200, 700))
        again = board.instructions(backend, "700.csv")
        spread = abs(again - long)
        report(
            f"{board.name}, {backend} int8: {(long - short) / 500:,.0f} ± {spread / 500:,.0f} instructions a reading"
        )
        assert spread / long < (5e-3 if backend == "onnx" else 1e-3)  # onnxruntime's differ by two thousandths
        assert short < long


def test_a_userland_reports_its_own_architecture(board: Board) -> None:
    program = ["python3", "-c", "import platform, struct; print(platform.machine(), struct.calcsize('P'))"]
    said = board.userland.run(program, stdout=subprocess.PIPE).stdout
    assert said.split() == (["aarch64", "8"] if board.userland.machine is ARM64 else ["armv7l", "4"])
