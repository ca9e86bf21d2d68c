"""`bench` measures each variant in its own process and recommends none that crashes, fails or is over budget."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result

from edge_lstm.backends.reference import ReferenceBackend
from edge_lstm.backends.registry import runnable
from edge_lstm.bundle.archive import GOLDEN, Bundle, write_bundle
from edge_lstm.bundle.golden import read_golden_vectors
from edge_lstm.bundle.golden import to_npz as golden_npz
from edge_lstm.cli.main import main
from edge_lstm.diagnostics import measurement
from edge_lstm.diagnostics.bench import Report, bench, table
from edge_lstm.diagnostics.measurement import BATCHES, Measurement, StepTiming
from edge_lstm.foundation.child_process import ChildError, ask
from edge_lstm.hardware.boards import Budget, read_board
from edge_lstm.hardware.machine import this_machine
from edge_lstm.hardware.power import Rail, power_w, rails
from edge_lstm.streaming.predictor import Predictor
from tests.networks import contract_of, random_network
from tests.paths import PUMP

BRIEF = {"seconds": 0.01, "root": "/none"}
QUICK = ("--seconds", "0.02")


def run_bench(*arguments: object, code: int = 0) -> Result:
    result = CliRunner().invoke(main, ["bench", *map(str, arguments)])
    assert result.exit_code == code, result.output
    return result


def measured(backend: str, scheme: str, p50_us: float, drift: float = 0.0, rss_mb: float = 50.0) -> Measurement:
    paces = [StepTiming(batch, p50_us * batch, 2 * p50_us * batch, 1e6 / p50_us) for batch in BATCHES]
    return Measurement(backend, scheme, True, "parity 0.0e+00", drift, 12.0, rss_mb, paces, None)


@pytest.fixture(autouse=True)
def no_board(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever this machine is: a busy one may not keep its budget."""
    monkeypatch.setattr("edge_lstm.hardware.boards.detected", lambda machine: None)


@pytest.fixture
def benched(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Report]:
    """benched(measurements, budget=None): the report that these measurements of the pump bundle give."""

    def make(found: Sequence[Measurement], budget: Budget | None = None) -> Report:
        answers = {(one.backend, one.scheme): dataclasses.asdict(one) for one in found}
        monkeypatch.setattr("edge_lstm.diagnostics.bench.runnable", lambda bundle: list(answers))
        monkeypatch.setattr(
            "edge_lstm.diagnostics.bench.ask", lambda module, asked, _: answers[asked["backend"], asked["scheme"]]
        )
        return bench(Bundle.open(PUMP), PUMP, "a-board", budget)

    return make


def broken_package(folder: Path, name: str, monkeypatch: pytest.MonkeyPatch, code: str) -> None:
    """A package that takes the place of the real one in every child."""
    (folder / name).mkdir(parents=True)
    (folder / name / "__init__.py").write_text(code)
    monkeypatch.setenv("PYTHONPATH", str(folder), prepend=os.pathsep)
    monkeypatch.syspath_prepend(str(folder))


def test_every_runnable_variant_is_measured_and_one_recommended() -> None:
    facts = json.loads(run_bench(PUMP, "--json", *QUICK).stdout)
    found = facts["variants"]
    assert [(one["backend"], one["scheme"]) for one in found] == runnable(Bundle.open(PUMP))
    for one in found:
        assert one["runs"], one
        figures = one["measured"]
        assert [pace["batch"] for pace in figures["paces"]] == [1, 8, 64, 256]
        for pace in figures["paces"]:
            assert 0 < pace["p50_us"] <= pace["p99_us"]
            assert pace["steps_per_s"] == pytest.approx(pace["batch"] * 1e6 / pace["p50_us"])
        assert 20 < figures["rss_mb"] < 300
        assert 0 < figures["load_ms"] < 60_000
    assert facts["recommended"] in [{"backend": one["backend"], "scheme": one["scheme"]} for one in found]


def test_memory_is_measured_in_the_child_process(bundle_path: Path) -> None:
    ballast = np.ones(400 * 2**20, np.uint8)  # which getrusage would give to a child that began as a copy of us
    asked = {"bundle": str(bundle_path), "backend": "numpy", "scheme": "float32", "threads": 1, "cores": None, **BRIEF}
    facts = ask("edge_lstm.diagnostics.measurement", asked, 60)
    assert ballast.nbytes > 400e6
    assert 20 < facts["rss_mb"] < 200


def test_a_crashing_wheel_is_one_line_and_the_others_are_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kill = "import os, signal\nos.kill(os.getpid(), signal.SIGILL)\n"
    broken_package(tmp_path, "onnxruntime", monkeypatch, kill)
    monkeypatch.setattr("edge_lstm.diagnostics.bench.runnable", lambda bundle: [("onnx", "int8"), ("numpy", "int8")])
    head, died, lives, *_ = run_bench(PUMP, *QUICK).stdout.splitlines()
    assert head.split()[:2] == ["p50", "µs"]
    assert died.split()[:2] == ["onnx", "int8"]
    assert died.endswith("does not run: died of SIGILL (an instruction that this processor does not have)")
    assert lives.startswith("numpy int8 ")
    assert lives.endswith("<- recommended")


def test_a_hanging_or_silent_backend_is_one_line(bundle_path: Path) -> None:
    with pytest.raises(ChildError, match="no answer within 0 s"):
        ask("edge_lstm.diagnostics.measurement", {}, 0.01)
    with pytest.raises(ChildError, match="KeyError: 'cores'"):
        ask("edge_lstm.diagnostics.measurement", {}, 60)
    asked = {"bundle": str(bundle_path), "backend": "onnx", "scheme": "float32", "threads": 1, "cores": None, **BRIEF}
    with pytest.raises(ChildError, match=r"expected (a variant onnx float32|the package onnxruntime)"):
        ask("edge_lstm.diagnostics.measurement", asked, 60)


def test_modules_in_the_working_folder_are_not_imported(tmp_path: Path) -> None:
    if sys.version_info < (3, 11):
        pytest.skip("Python 3.10 cannot be told to leave the working folder alone")
    (tmp_path / "json.py").write_text("raise SystemExit(3)")
    code = "from edge_lstm.foundation.child_process import ask; ask('edge_lstm.diagnostics.measurement', {}, 60)"
    done = subprocess.run([sys.executable, "-P", "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert "ChildError: KeyError: 'cores'" in done.stderr  # so it read the question


def test_a_variant_that_fails_its_golden_vectors_is_never_recommended(bundle_path: Path) -> None:
    bundle = Bundle.open(bundle_path)
    golden = read_golden_vectors(bundle)
    golden.expected["float32"].prediction[100:] += 1
    write_bundle(bundle_path, bundle.manifest, {**bundle.content, GOLDEN: golden_npz(golden)})
    result = run_bench(bundle_path, *QUICK)
    assert "FAILED: relative difference" in result.stdout
    assert "first at step 101" in result.stdout
    assert "recommended: nothing, since none of them passes its golden vectors here" in result.stdout


def test_the_fastest_is_recommended_and_drift_breaks_ties(benched: Callable[..., Report]) -> None:
    fast, exact, slow = (
        measured("litert", "int8", 10, 0.002),
        measured("litert", "float32", 12),
        measured("onnx", "int8", 30),
    )
    alone = benched([slow, fast])
    assert alone.choice is not None
    assert (alone.choice.backend, alone.choice.scheme) == ("litert", "int8")
    assert alone.reason == "its step is the fastest, 10.0 µs; the next one takes 3.0 times as long"
    equals = benched([slow, fast, exact])
    assert equals.choice is not None
    assert equals.choice.scheme == "float32"
    assert equals.reason == "it is as fast as litert int8 (within a quarter of 10.0 µs) and drifts least from float32"
    both = benched([fast, exact, measured("onnx", "float32", 12, rss_mb=49)])
    assert both.reason.endswith("and drifts least from float32 and takes the least memory")
    frugal = benched([measured("onnx", "float32", 10), measured("litert", "float32", 11, rss_mb=40)])
    assert frugal.choice is not None
    assert frugal.choice.backend == "litert"
    assert frugal.reason.endswith("(within a quarter of 10.0 µs) and takes the least memory")


def test_a_variant_over_budget_is_marked_and_not_recommended(benched: Callable[..., Report]) -> None:
    budget = Budget(0.05, 60)
    found = [measured("litert", "int8", 10, rss_mb=61), measured("onnx", "int8", 26), measured("numpy", "int8", 25)]
    report = benched(found, budget)
    assert [one.over for one in report.results] == ["memory 61 MB > 60 MB", "p99 0.052 ms > 0.05 ms", ""]
    assert report.choice is report.results[2]
    text = table(report)
    assert "over: memory 61 MB > 60 MB" in text
    assert "ok <- recommended" in text
    nothing = benched(found[:2], budget)
    assert nothing.choice is None
    assert "recommended: nothing, since none of them meets the budget of a-board" in table(nothing)


def test_another_boards_budget_is_used_and_reported_as_such(bundle_path: Path) -> None:
    name = "raspberry-pi-4" if this_machine().architecture == "x86_64" else "generic-x86_64"
    result = run_bench(bundle_path, *QUICK, "--device", name)
    assert (
        f"this machine is not a {read_board(name).title}, so its figures do not hold for that board: expected"
        in result.stderr
    )
    assert f"budget of {name}: p99 {read_board(name).budget.step_p99_ms:g} ms" in result.stdout
    result = run_bench(bundle_path, *QUICK, "--device", "raspberry-pi4", code=1)
    assert 'did you mean "raspberry-pi-4"?' in result.stderr


def test_bench_uses_the_board_of_the_config_and_writes_no_invalid_one(
    bundle_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    architecture = "generic-x86_64" if this_machine().architecture == "x86_64" else "generic-arm64"
    config = tmp_path / "service.toml"
    text = f'bundle = "tank.elstm"\ndevice = "{architecture}"\nbackend = "onnx"\n'
    text += 'providers = ["CPUExecutionProvider"]\n[mqtt]\nurl = "mqtt://localhost"\n'
    config.write_text(text)
    roomy = dataclasses.replace(read_board(architecture), budget=Budget(1000, 1000))
    monkeypatch.setattr("edge_lstm.hardware.boards.read_board", lambda name: roomy)
    result = run_bench(bundle_path, *QUICK, "--write", config, code=1)
    assert f"budget of {architecture}: p99 1000 ms, 1000 MB" in result.stdout
    assert f'{config}, after the change: providers: expected backend = "onnx" beside it, found numpy' in result.stderr
    assert config.read_text() == text


def test_missing_cores_are_one_line(bundle_path: Path) -> None:
    asked = {"bundle": str(bundle_path), "backend": "numpy", "scheme": "float32", "threads": 1, "cores": [999]}
    with pytest.raises(ChildError, match="expected to run on the cores 999"):
        ask("edge_lstm.diagnostics.measurement", {**asked, **BRIEF}, 60)


def test_bar_lengths_show_the_step_rate(benched: Callable[..., Report]) -> None:
    text = table(
        benched([measured("litert", "int8", 10), measured("onnx", "int8", 20), measured("numpy", "int8", 999)])
    )
    assert [line.count("█") for line in text.splitlines()[1:4]] == [12, 6, 1]
    assert "   100k" in text


def test_on_a_narrow_terminal_bars_go_below_the_figures(benched: Callable[..., Report]) -> None:
    dear = measured("tflite-runtime", "float32", 99_999)
    report = dataclasses.replace(benched([measured("litert", "int8", 10), dear]), reason="so it is " * 20)
    wide = table(report)
    assert len(wide.splitlines()) == 1 + 2 + 2
    assert table(report, width=200).splitlines()[:3] == wide.splitlines()[:3]
    lines = table(report, width=80).splitlines()
    assert max(map(len, lines)) <= 80
    assert [line.split()[0] for line in lines[:4]] == ["p50", "litert", "█" * 12, "tflite-runtime"]
    assert lines[2].endswith("█  <- recommended")
    assert lines[0].endswith("MB load ms")


def ina3221(device: Path, channels: Sequence[tuple[str, int, int]]) -> None:
    """(label, millivolts, milliamperes) of its channels, the first of them number 1."""
    device.mkdir(parents=True)
    (device / "name").write_text("ina3221\n")
    for number, (label, volts, amperes) in enumerate(channels, 1):
        (device / f"in{number}_label").write_text(f"{label}\n")
        (device / f"in{number}_input").write_text(f"{volts}\n")
        (device / f"curr{number}_input").write_text(f"{amperes}\n")


def test_jetson_power_is_its_input_rail_or_the_sum_of_rails(tmp_path: Path) -> None:
    orin, agx, nano = tmp_path / "orin", tmp_path / "agx", tmp_path / "nano"
    channels = [("VDD_IN", 5000, 1200), ("VDD_CPU_GPU_CV", 5000, 300), ("VDD_SOC", 5000, 400)]
    ina3221(orin / "sys/class/hwmon/hwmon3", channels)
    assert [rail.name for rail in rails(orin)] == ["VDD_IN"]
    assert power_w(rails(orin)) == pytest.approx(6.0)
    ina3221(agx / "sys/class/hwmon/hwmon4", [("VDD_GPU_SOC", 20_000, 100), ("VDD_CPU_CV", 20_000, 50), ("NC", 9, 9)])
    (agx / "sys/class/hwmon/hwmon4/curr4_input").write_text("150")  # their sum
    assert power_w(rails(agx)) == pytest.approx(3.0)
    device = nano / "sys/bus/i2c/drivers/ina3221x/6-0040/iio:device0"
    device.mkdir(parents=True)
    for number, name in enumerate(("POM_5V_IN", "POM_5V_GPU")):
        (device / f"rail_name_{number}").write_text(name)
        (device / f"in_power{number}_input").write_text("2500")
    assert power_w(rails(nano)) == pytest.approx(2.5)
    (device / "in_power0_input").write_text("")
    assert power_w(rails(nano)) is None
    assert rails(tmp_path / "none") == []


def test_step_energy_is_measured_above_idle_power(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measurement, "_POWER_FOR_S", 0.3)
    network = random_network()
    steps = 0

    class Counted(ReferenceBackend):
        def step(self, features: Any, states: Any) -> Any:
            nonlocal steps
            steps += 1
            return super().step(features, states)

    predictor = Predictor(contract_of(network), Counted(network))
    slots = np.array([predictor.table.slot("a")])
    tape = np.zeros((5, len(predictor.contract.inputs)), np.float32)
    board = [Rail("VDD_IN", lambda: 5.0 if steps else 2.0)]
    begun = time.perf_counter()
    energy = measurement._energy(predictor, slots, tape, board)
    took = time.perf_counter() - begun - 0.3  # at rest
    assert energy is not None
    assert (energy.rails, energy.idle_w, energy.busy_w) == (["VDD_IN"], 2.0, 5.0)
    assert 3.0 * 0.3 * 0.9 <= energy.step_uj * 1e-6 * steps <= 3.0 * took * 1.1
    assert measurement._energy(predictor, slots, tape, []) is None


def test_a_board_with_rails_shows_its_energy_in_the_table(bundle_path: Path, tmp_path: Path) -> None:
    ina3221(tmp_path / "root/sys/class/hwmon/hwmon0", [("VDD_IN", 5000, 400)])
    lines = run_bench(bundle_path, *QUICK, "--root", tmp_path / "root").stdout.splitlines()
    assert lines[0].endswith("µJ/step")
    assert "   0.0  <- recommended" in lines[1]  # rails that never change


def test_write_sets_the_recommended_keys_and_keeps_the_comments(
    bundle_path: Path, tmp_path: Path, make_bundle: Callable[..., Bundle]
) -> None:
    config = tmp_path / "service.toml"
    text = 'bundle = "tank.elstm"  # ours\nbackend = "onnx"  # to be measured\n[mqtt]\nurl = "mqtt://localhost"\n'
    config.write_text(text)
    run_bench(bundle_path, *QUICK, "--write", config)
    assert config.read_text() == text.replace('"onnx"', '"numpy"').replace("# ours\n", '# ours\nscheme = "float32"\n')
    make_bundle(tmp_path / "other.elstm", random_network(hidden=6))
    result = run_bench(tmp_path / "other.elstm", *QUICK, "--write", config, code=1)
    assert "expected a service of the bundle" in result.stderr
    assert result.stdout == ""
