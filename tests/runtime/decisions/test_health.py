"""The verdict on a stream's model: good, watch or poor, with its cause."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import pytest

from edge_lstm.bundle.contract import Contract, Feature
from edge_lstm.bundle.health import BINS, ErrorLimits, Health, InputLimits, Reference
from edge_lstm.bundle.intervals import SHARES, Intervals
from edge_lstm.decisions.decider import record_fields, start_values
from edge_lstm.decisions.health import EVERY, POOR, WATCH, ModelHealth, cause_names, stability_index
from edge_lstm.decisions.step import Step
from edge_lstm.foundation.arrays import Doubles, Records
from tests.networks import contract_of, random_network

ERRORS = ErrorLimits(50, [2.0], 1.5, 1.2, 20.0, 0.1)
DECILES = [float(edge) for edge in range(10, 100, 10)]
INPUTS = InputLimits(100, DECILES, [0.1] * BINS, [0.5])


def contract(errors: ErrorLimits | None = ERRORS, inputs: InputLimits | None = None, **facts: object) -> Contract:
    network = random_network(inputs=1, outputs=1)
    facts = {"features": [Feature("level", "m", 0.0, 2.0)], "clock": [], "horizons": [1], **facts}
    return contract_of(network, health=Health(0.1, 1.0, errors, inputs), **facts)


def new_records(made: Contract, streams: int = 1) -> Records:
    fields = [("time", "f8"), ("step", "i8"), ("warm_steps", "i8"), *record_fields(made)]
    current = np.zeros(streams, fields)
    for name, start in start_values(made).items():
        current[name] = start
    return current


class Streams:
    """The judge of a contract, and the records of its streams."""

    def __init__(self, made: Contract, streams: int = 1) -> None:
        self.judge, self.current, self.causes = ModelHealth(made), new_records(made, streams), cause_names(made)

    def step(
        self,
        values: Sequence[float],
        published: Sequence[float],
        slots: Sequence[int] = (0,),
        learns: bool = True,
        bands: Doubles | None = None,
        alarm: bool | None = None,
    ) -> list[bool]:
        """One step of these streams; whether their verdicts turned."""
        chosen, count = np.array(slots), len(slots)
        for name in ("step", "warm_steps", "time"):
            self.current[name][chosen] += 1
        sample = np.array(values, np.float32)[:, None]
        step = Step(
            self.current,
            np.zeros((len(self.current), 0, 0), np.float32),
            chosen,
            np.nan_to_num(sample),
            np.isnan(sample),
            np.zeros((count, 1), np.float32),
            np.full(count, learns),
        )
        alarms = None if alarm is None else np.full(count, alarm)
        predictions = np.array(published, np.float64)[:, None]
        return self.judge(step, predictions, bands, alarms).turned.tolist()

    def verdict(self, slot: int = 0) -> tuple[int, str]:
        return int(self.current["verdict"][slot]), self.causes[int(self.current["cause"][slot])]


def noisy(streams: Streams, steps: int, error: float, **facts: object) -> None:
    """Predictions that are off by `error`, up and down in turn; persistence is off by 4."""
    begun = int(streams.current["step"][0])
    for number in range(begun, begun + steps):
        truth_to_come = 4.0 * ((number + 1) % 2)
        streams.step([4.0 * (number % 2)], [truth_to_come + error], **facts)  # type: ignore[arg-type]


def test_errors_are_averaged_in_their_scale_beside_those_of_persistence() -> None:
    streams = Streams(contract())
    noisy(streams, 300, 2.0)
    assert streams.current["model_error"][0] == pytest.approx(1.0)
    assert streams.current["persistence_error"][0] == pytest.approx(4.0)
    assert streams.current["judged_steps"][0] == 75
    assert streams.verdict() == (0, "")


def test_a_larger_error_is_watched_then_poor_and_gets_better_only_well_below_the_limit() -> None:
    streams = Streams(contract())
    noisy(streams, 200, 2.0)
    noisy(streams, 400, 3.2)  # 1.6 times the validation error, limit 1.5
    assert streams.verdict() == (WATCH, "rise")  # found first: its sum grows by .6 a step
    assert streams.current["verdict_since"][0] == 256
    noisy(streams, 400, 5.0)
    assert streams.verdict()[0] == POOR
    noisy(streams, 1000, 2.8)  # 1.4: below the limit, but not well below
    assert streams.verdict()[0] == WATCH
    noisy(streams, 1000, 2.0)
    assert streams.verdict() == (0, "")


def test_a_model_that_persistence_beats_is_poor() -> None:
    made = contract(dataclasses.replace(ERRORS, worse=100.0, rise=1e9))
    streams = Streams(made)
    noisy(streams, 300, 5.0)
    assert streams.verdict() == (POOR, "persistence")


def test_few_steps_are_not_judged() -> None:
    streams = Streams(contract())
    noisy(streams, 24, 50.0)
    assert streams.verdict() == (0, "")
    noisy(streams, 24, 50.0)
    assert streams.verdict()[0] == POOR


@pytest.mark.parametrize("facts", [{"learns": False}, {"alarm": True}])
def test_maintenance_and_alarms_say_nothing_about_the_model(facts: dict[str, bool]) -> None:
    streams = Streams(contract(inputs=INPUTS))
    noisy(streams, 200, 2.0)
    before = streams.current.copy()
    noisy(streams, 400, 50.0, **facts)
    for name in ("model_error", "error_rise", "judged_steps", "input_shares", "verdict"):
        np.testing.assert_array_equal(streams.current[name], before[name])


def test_without_the_truth_nothing_is_averaged() -> None:
    streams = Streams(contract())
    noisy(streams, 100, 2.0)
    for _ in range(51):
        streams.step([np.nan], [1e6])
    assert streams.current["judged_steps"][0] == 25
    noisy(streams, 1, 2.0)  # there was no measured sample before it, which persistence would have taken
    assert streams.current["judged_steps"][0] == 25
    noisy(streams, 4, 2.0)
    assert streams.current["judged_steps"][0] == 26


def test_intervals_that_seldom_hold_are_watched() -> None:
    limits = dataclasses.replace(ERRORS, worse=100.0, rise=1e9, against_persistence=100.0, coverage=[0.8, 1.0])
    made = contract(limits, intervals=Intervals(0.9, [1.0], [0.0] * len(SHARES)))
    streams = Streams(made)
    for _ in range(200):
        streams.step([0.0], [0.0], bands=np.array([[[-1.0, 1.0]]]))
    assert streams.verdict() == (0, "")
    assert streams.current["coverage"][0] == 1.0
    for _ in range(400):
        streams.step([0.0], [0.0], bands=np.array([[[1.0, 2.0]]]))
    assert streams.verdict() == (WATCH, "coverage")


def test_an_input_that_moved_is_named() -> None:
    streams = Streams(contract(None, INPUTS))
    rng = np.random.default_rng(0)
    for value in rng.uniform(0, 100, 150 * EVERY):
        streams.step([value], [0.0])
    assert streams.verdict() == (0, "")
    for value in rng.uniform(60, 160, 150 * EVERY):
        streams.step([value], [0.0])
    assert streams.verdict() == (WATCH, "level")


def test_the_stability_index_is_the_sum_over_the_bins() -> None:
    index = stability_index(np.array([0.2, 0.3, 0.5]), np.array([0.5, 0.3, 0.2]))
    assert index == pytest.approx(2 * 0.3 * np.log(2.5))


def test_the_reference_is_the_ridge_regression_of_the_last_samples() -> None:
    rng = np.random.default_rng(0)
    weights = rng.normal(0, 1, 4)  # three lags and a constant
    made = contract(dataclasses.replace(ERRORS, scales=[1.0], reference=Reference(3, weights.tolist())))
    streams, values = Streams(made), rng.normal(0, 2, 80).astype(np.float32)
    for value in values:
        streams.step([value], [0.0])
    squares = []
    for at in range(2, 80, 4):  # what was predicted for every fourth sample
        lags = [values[max(at - lag, 0)] / 2.0 for lag in range(3)]
        squares.append(min((values[at + 1] - (values[at] + np.dot(weights, [*lags, 1.0]))) ** 2, 100.0))
    mean = squares[0]
    for number, square in enumerate(squares[1:], start=2):
        mean += max(2 / 13.5, 1 / number) * (square - mean)
    assert streams.current["reference_error"][0] == pytest.approx(mean, rel=1e-4)


def test_a_stream_has_the_same_bits_alone_and_among_others() -> None:
    made = contract(dataclasses.replace(ERRORS, reference=Reference(2, [0.3, -0.2, 0.1])), INPUTS, horizons=[1])
    together, alone = Streams(made, 5), Streams(made, 5)
    rng = np.random.default_rng(1)
    for _ in range(200):
        slots = rng.permutation(5)[: rng.integers(1, 6)]
        values, published = rng.normal(50, 30, len(slots)), rng.normal(50, 30, len(slots))
        together.step(values.tolist(), published.tolist(), slots.tolist())
        for slot, value, said in zip(slots.tolist(), values.tolist(), published.tolist(), strict=True):
            alone.step([value], [said], [slot])
    assert together.current.tobytes() == alone.current.tobytes()


def test_limits_of_another_contract_are_refused() -> None:
    faults = dict(contract(dataclasses.replace(ERRORS, scales=[1.0, 2.0]), INPUTS).faults())
    assert faults == {"health.errors.scales": "expected 1 numbers, found 2"}
