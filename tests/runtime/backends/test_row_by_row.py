"""A backend whose rows influence one another is stepped row by row, and this is reported."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from edge_lstm import Bundle, Predictor, Reading
from edge_lstm.backends.calibrated import CalibratedBackend
from edge_lstm.backends.protocol import ONE_THREAD
from edge_lstm.backends.reference import ReferenceBackend
from edge_lstm.backends.row_by_row import RowByRow
from edge_lstm.backends.selftest import (
    SelfTestError,
    isolate_rows,
    load_verified,
    run_self_test,
    smallest_isolated_batch,
)
from edge_lstm.bundle.golden import read_golden_vectors
from edge_lstm.cli.main import main
from edge_lstm.diagnostics.measurement import measure
from edge_lstm.diagnostics.trial import self_test_facts
from tests.networks import contract_of, random_network

Floats = Any
MILLIONTH = np.float32(1e-6)


def by_neighbours(features: Floats) -> Floats:
    """Every row hears of the largest number among all: a scale of activations that spans the batch."""
    return np.float32(1e-7) * (np.abs(features).max() - np.abs(features).max(axis=1))[:, None]


def by_place(features: Floats) -> Floats:
    """The second half of each eight rows has other last bits, and nobody has neighbours."""
    return MILLIONTH * (np.arange(len(features)) % 8 >= 4).astype(np.float32)[:, None]


def by_one_place(features: Floats) -> Floats:
    """One row of sixteen has, as where a kernel ends with what is left over."""
    return MILLIONTH * (np.arange(len(features)) % 16 == 5).astype(np.float32)[:, None]


def by_size(features: Floats) -> Floats:
    """Every batch size has bits of its own."""
    return np.full((len(features), 1), MILLIONTH * np.float32(len(features) - 1), np.float32)


@pytest.fixture
def coupled(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """numpy's backend, with a fault (the parameter, or `by_place`) that changes last bits of predictions and states."""
    fault: Callable[[Floats], Floats] = getattr(request, "param", by_place)
    honest = ReferenceBackend.step

    def step(self: Any, features: Floats, states: Sequence[Floats]) -> tuple[Floats, list[Floats]]:
        prediction, following = honest(self, features, states)
        wrong = fault(features)
        return prediction + wrong, [state + wrong for state in following]

    monkeypatch.setattr(ReferenceBackend, "step", step)


@pytest.mark.parametrize("coupled", [by_neighbours, by_place], indirect=True)
@pytest.mark.usefixtures("coupled")
def test_a_backend_that_couples_streams_runs_row_by_row(make_bundle: Callable[..., Bundle], tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "tank.elstm")
    rng = np.random.default_rng(0)
    readings = [
        Reading(f"s{stream}", 1e9 + 60 * step, {"level": 1e4 if stream == 3 else rng.normal()})
        for step in range(10)
        for stream in range(19)
    ]
    stepped = load_verified(bundle, "numpy", "float32")
    together = Predictor(bundle.contract, *stepped).feed(readings)
    for stream in ("s0", "s5", "s12", "s18"):
        alone = Predictor(bundle.contract, *stepped).feed([one for one in readings if one.stream == stream])
        assert [one for one in together if one.stream == stream] == alone


@pytest.mark.parametrize("coupled", [by_neighbours, by_place, by_one_place, by_size], indirect=True)
@pytest.mark.usefixtures("coupled")
def test_no_batch_size_of_a_coupling_backend_counts_as_isolated() -> None:
    network = random_network()
    backend, tape = ReferenceBackend(network), np.random.default_rng(1).normal(0, 1, (40, 3)).astype(np.float32)
    assert smallest_isolated_batch(backend, contract_of(network), tape) is None
    found, smallest = isolate_rows(backend, contract_of(network), tape)
    assert isinstance(found, RowByRow)
    assert smallest == 1


@pytest.mark.usefixtures("coupled")
def test_verify_bench_and_doctor_report_row_by_row(
    make_bundle: Callable[..., Bundle], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edge_lstm.diagnostics.measurement.BATCHES", (1, 3))
    path = tmp_path / "tank.elstm"
    bundle = make_bundle(path)
    said = CliRunner().invoke(main, ["verify", str(path), "--backend", "numpy"]).stdout
    assert said.startswith("ok     numpy          float32  parity ")
    assert said.endswith(", rows one at a time\n")
    (facts,) = json.loads(CliRunner().invoke(main, ["verify", str(path), "--backend", "numpy", "--json"]).stdout)
    assert (facts["passed"], facts["one_by_one"], facts["smallest_batch"]) == (True, True, 1)
    assert self_test_facts(str(path), "numpy", "float32", 1, list(ONE_THREAD.providers), None)["finding"].endswith(
        "rows one at a time"
    )
    assert measure(bundle, "numpy", "float32", ONE_THREAD, 0.01, tmp_path).one_by_one


def test_a_backend_that_remembers_earlier_rows_is_refused(
    make_bundle: Callable[..., Bundle], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest, stepped = ReferenceBackend.step, 0

    def step(self: Any, features: Floats, states: Sequence[Floats]) -> tuple[Floats, list[Floats]]:
        nonlocal stepped
        stepped += 1
        prediction, following = honest(self, features, states)
        return prediction + np.float32(1e-9 * stepped), following

    monkeypatch.setattr(ReferenceBackend, "step", step)
    bundle = make_bundle(tmp_path / "tank.elstm")
    with pytest.raises(SelfTestError, match="depend on what was stepped before it, even with rows one at a time"):
        load_verified(bundle, "numpy", "float32")


def test_a_backend_that_isolates_streams_is_not_wrapped(make_bundle: Callable[..., Bundle], tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "tank.elstm")
    backend, smallest = load_verified(bundle, "numpy", "float32")
    assert isinstance(backend, ReferenceBackend)
    assert smallest == 1


@pytest.mark.usefixtures("coupled")
def test_a_calibrated_backend_runs_row_by_row_and_still_warns(
    make_bundle: Callable[..., Bundle], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    network = random_network()
    bundle = make_bundle(tmp_path / "tank.elstm", network)
    names = bundle.contract.inputs
    watch = CalibratedBackend(ReferenceBackend(network), names, [-1] * len(names), [1] * len(names))
    backend, verdict = run_self_test(
        watch, bundle.contract, read_golden_vectors(bundle), bundle.variant("numpy", "float32")
    )
    assert verdict.one_by_one
    assert caplog.messages == []
    rows = np.array([[0, 0, 0], [0, 9, 0]], np.float32)
    backend.step(rows, [np.zeros((2, network.hidden), np.float32) for _ in bundle.contract.states])
    assert len(caplog.messages) == 1
    assert f"feature={names[1]} value=9" in caplog.messages[0]
