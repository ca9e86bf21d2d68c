"""The device corrects a forecast by its own past errors, only while that helps, and never by more than a bound."""

from __future__ import annotations

import numpy as np
import pytest

from edge_lstm.bundle.alarm import Alarm
from edge_lstm.bundle.contract import Contract, Decision, Feature
from edge_lstm.decisions.forecasts import learner
from edge_lstm.decisions.forecasts.learner import Learner
from edge_lstm.decisions.rules import DecisionRules
from edge_lstm.decisions.step import Step
from tests.networks import contract_of, random_network

RULES = DecisionRules(learn=True, learn_memory_steps=100)
HORIZONS = [1, 6, 24]
WRONG_FROM = 500


def contract(**facts: object) -> Contract:
    return contract_of(random_network(outputs=3), clock=[], **{"horizons": HORIZONS, **facts})


def wave(steps: int, streams: int = 1, seed: int = 0) -> np.ndarray:
    """(steps, streams): values about the mean 1 of `level`, each near the last one."""
    rng = np.random.default_rng(seed)
    values = np.zeros((steps, streams))
    for step in range(1, steps):
        values[step] = 0.95 * values[step - 1] + rng.normal(0, 0.3, streams)
    return 1 + 2 * values


def forecasts(values: np.ndarray, wrong_by: float = 0.0) -> np.ndarray:
    """(steps, streams, outputs): the best forecasts, `wrong_by` too high from step WRONG_FROM on."""
    wrong = np.where(np.arange(len(values)) >= WRONG_FROM, wrong_by, 0.0)[:, None]
    return np.stack([1 + 0.95**horizon * (values - 1) + wrong for horizon in HORIZONS], axis=2)


class Played:
    """A learner that was given the steps of some streams."""

    def __init__(
        self,
        values: np.ndarray,
        outputs: np.ndarray,
        made: Contract | None = None,
        rules: DecisionRules = RULES,
        learns: np.ndarray | None = None,
        missing: np.ndarray | None = None,
    ) -> None:
        """values, learns, missing (steps, streams); outputs (steps, streams, outputs)."""
        made = made or contract()
        learn, (steps, streams) = Learner(made, rules), values.shape
        fields = [("step", "i8"), ("warm_steps", "i8"), *learner.record_fields(made)]
        self.record = np.zeros(streams, fields)
        for name, start in learner.START_VALUES.items():
            self.record[name] = start
        self.outputs = outputs.astype(np.float32)
        self.corrected = np.empty_like(self.outputs)
        self.rows: list[bytes] = []
        nothing, no = np.zeros((streams, 0, 0), np.float32), np.zeros((streams, 1), bool)
        for step in range(steps):
            self.record["step"] += 1
            self.record["warm_steps"] += 1
            gone = no if missing is None else missing[step, :, None]
            willing = ~no[:, 0] if learns is None else learns[step]
            sample = values[step, :, None].astype(np.float32), gone, self.outputs[step], willing
            self.corrected[step] = learn(Step(self.record, nothing, np.arange(streams), *sample))
            self.rows.append(self.record.tobytes())

    def errors(self, values: np.ndarray, place: int, first: int, last: int) -> tuple[float, float]:
        """Root mean square error of the bundle and of what is published, for predictions of these steps."""
        truth = values[first + HORIZONS[place] : last + HORIZONS[place]]
        own, corrected = (each[first:last, :, place] - truth for each in (self.outputs, self.corrected))
        return float(np.sqrt((own**2).mean())), float(np.sqrt((corrected**2).mean()))


def test_an_error_of_the_bundle_is_learned_away_at_every_horizon() -> None:
    values = wave(1824, 4)
    played = Played(values, forecasts(values, wrong_by=1.5))
    best = Played(values, forecasts(values))
    for place, least in enumerate((0.9, 0.6, 0.3)):
        own, corrected = played.errors(values, place, 900, 1800)
        (right, _) = best.errors(values, place, 900, 1800)
        assert (own - corrected) / (own - right) > least, HORIZONS[place]


def test_where_the_bundle_is_best_its_own_values_stay_to_the_bit_nearly_always() -> None:
    values = wave(1824, 4)
    played = Played(values, forecasts(values))
    for place in range(3):
        own, corrected = played.errors(values, place, 0, 1800)
        assert corrected < 1.01 * own
    assert (played.corrected[:, :, 0] == played.outputs[:, :, 0]).mean() > 0.97


def test_nothing_is_published_corrected_unless_the_rolling_error_is_lower_by_the_margin() -> None:
    values = wave(924)
    outputs = forecasts(values, wrong_by=0.8)
    strict = Played(values, outputs, rules=RULES._replace(learn_margin=0.9))
    np.testing.assert_array_equal(strict.corrected, strict.outputs)
    assert strict.rows[-1] == Played(values, outputs).rows[-1]  # both errors are computed anyway


def test_a_step_that_must_not_learn_moves_no_number_and_what_it_said_is_not_learned_from_later() -> None:
    values, steps = wave(1124, 2), np.arange(1124)
    asleep = (steps >= 700) & (steps < 760)
    spoiled = np.where(asleep[:, None], values + 20, values)
    learns = np.repeat(~asleep[:, None], 2, axis=1)
    outputs = forecasts(values, wrong_by=1.5)
    outputs[asleep] += 40
    paused = Played(spoiled, outputs, learns=learns)
    learned = [np.frombuffer(row, paused.record.dtype)["learned"] for row in paused.rows]
    for step in range(701, 760):
        np.testing.assert_array_equal(learned[step], learned[699])
    for step in range(760, 766):  # what arrives 6 steps ahead was said before 760
        np.testing.assert_array_equal(learned[step][:, :, 1], learned[699][:, :, 1])
    assert (learned[766][:, :, 1] != learned[699][:, :, 1]).any()
    own, corrected = paused.errors(values, 0, 761, 1100)
    assert corrected < 0.6 * own


def test_an_adopted_model_without_statistics_learns_too() -> None:
    values = 1000 + wave(1824)
    played = Played(values, 999 + forecasts(values - 999, wrong_by=1.5), contract(features=[Feature("level", "m")]))
    own, corrected = played.errors(values, 0, 900, 1800)
    assert corrected < 0.6 * own
    assert np.isfinite(played.corrected).all()


def test_missing_truth_and_values_that_do_not_change_teach_nothing() -> None:
    values = wave(900)
    values[800:] = values[799]
    gone = (np.arange(900) % 3 == 0)[:, None]
    outputs = forecasts(values, wrong_by=1.5)
    played = Played(values, outputs, missing=gone)
    learned = [np.frombuffer(row, played.record.dtype)["learned"] for row in played.rows]
    for step in (600, 603, 702, *range(825, 900)):
        np.testing.assert_array_equal(learned[step], learned[step - 1])
    assert (learned[601] != learned[600]).any()


def test_each_stream_has_the_same_bits_alone_and_in_any_batch() -> None:
    values = wave(800, 33)
    values[600:, 5] = 1e30
    values[:, 9] = np.nan
    values[::7, 11] += 25
    outputs = forecasts(values, wrong_by=1.5)
    together = Played(values, outputs)
    for stream in (0, 5, 9, 11, 32):
        chosen = slice(stream, stream + 1)
        alone = Played(values[:, chosen], outputs[:, chosen])
        np.testing.assert_array_equal(alone.corrected[:, 0], together.corrected[:, stream])
        assert alone.record.tobytes() == together.record[chosen].tobytes()


def test_a_correction_that_does_harm_while_a_sensor_is_stuck_ends() -> None:
    values = np.random.default_rng(1).normal(1, 2, (1000, 24))
    values[100:] = values[99]
    outputs = np.repeat(values[:, :, None], 3, axis=2)  # the bundle says that nothing changes: in noise it is wrong
    played = Played(values, outputs)
    for stream in range(24):
        errors = [each[:900, stream, 0] - values[1:901, stream] for each in (played.outputs, played.corrected)]
        own, corrected = (float((each**2).sum()) for each in errors)
        assert corrected < 1.15 * own


def hostile(kind: int, steps: int, rng: np.random.Generator) -> np.ndarray:
    """(steps,): values that no sensor should give."""
    time = np.arange(steps)
    noise = rng.normal(0, 1, steps)
    return [
        lambda: np.where(time < steps // 2, noise, 1e6 + noise),
        lambda: np.where(time < steps // 2, noise, 20.0),
        lambda: np.where(time % 2, 5.0, -5.0) * rng.choice([1.0, 10.0]),
        lambda: np.where(rng.random(steps) < 0.3, np.nan, noise),
        lambda: np.where(rng.random(steps) < 0.02, 1e6 * noise, noise),
        lambda: np.where(rng.random(steps) < 0.02, 25 * np.sign(noise), noise),
        lambda: noise * 10.0 ** rng.integers(-30, 31),
        lambda: time * 10.0 ** rng.integers(-4, 3),
        lambda: np.cumsum(noise),
        lambda: noise * np.exp(0.02 * time),
    ][kind % 10]()


def test_no_hostile_stream_makes_an_output_leave_its_bounds() -> None:
    steps, streams = 400, 40
    rng = np.random.default_rng(5)
    values = np.stack([hostile(kind, steps, rng) for kind in range(streams)], axis=1)
    with np.errstate(over="ignore", invalid="ignore"):
        outputs = np.nan_to_num(np.stack([hostile(kind + kind // 10, steps, rng) for kind in range(streams)], axis=1))
        outputs = np.clip(outputs, -1e30, 1e30)[:, :, None] * np.ones(3)
        played = Played(np.clip(values, -3e38, 3e38), outputs)
    assert np.isfinite(played.corrected).all()
    assert np.isfinite(played.record["learned"]).all()
    moved = np.abs(played.corrected.astype(np.float64) - played.outputs)
    assert moved.max() <= learner.MOST_CORRECTION * 2 * learner.FARTHEST * 2.0 * 1.001  # deviations of 2


def test_quantiles_move_with_their_target() -> None:
    made = contract(quantiles=[0.1, 0.9], horizons=[1])
    values = wave(900)
    target = forecasts(values, wrong_by=1.5)[:, :, :1]
    played = Played(values, np.concatenate([target, target - 1, target + 1], axis=2), made)
    shift = played.corrected - played.outputs
    assert (shift[800:, 0, 0] < -1).all()
    np.testing.assert_allclose(shift[:, :, 1:], shift[:, :, :1].repeat(2, axis=2), atol=1e-5)


def test_a_circle_is_left_alone_beside_a_target_that_learns() -> None:
    features = [Feature("wind", "°", 180.0, 100.0, period=360.0), Feature("level", "m", 1.0, 2.0)]
    made = contract(features=features, targets=["wind", "level"], horizons=[1])
    learn, values = Learner(made, RULES), wave(900)
    record = np.zeros(1, [("step", "i8"), ("warm_steps", "i8"), *learner.record_fields(made)])
    assert record["learned"].shape[2] == 1
    for step in range(900):
        record["step"] += 1
        record["warm_steps"] += 1
        sample = np.array([[350.0, values[step, 0]]], np.float32)
        outputs = np.array([[10.0, 1 + 0.95 * (values[step, 0] - 1) + 1.5]], np.float32)
        facts = np.zeros((1, 2), bool), outputs, np.ones(1, bool)
        corrected = learn(Step(record, np.zeros((1, 0, 0), np.float32), np.arange(1), sample, *facts))
        assert corrected[0, 0] == 10.0
    assert corrected[0, 1] < outputs[0, 1] - 1
    alone = contract(features=features[:1], targets=["wind"], horizons=[1])
    assert learner.why_not(alone) == "none of its targets is measured later, on a line"


@pytest.mark.parametrize(
    ("facts", "reason"),
    [
        ({"task": "classify", "targets": ["on", "off"], "horizons": [0], "decision": Decision()}, "a classifier"),
        ({"task": "anomaly", "horizons": [1], "alarm": Alarm()}, "an anomaly detector"),
        ({"task": "estimate", "targets": ["load"], "horizons": [0]}, "none of its targets is measured later"),
    ],
)
def test_what_has_no_truth_or_is_about_anomalies_learns_nothing(facts: dict[str, object], reason: str) -> None:
    assert reason in learner.why_not(contract(**facts))
    assert not learner.learns(contract(**facts), RULES)


def test_an_output_takes_at_most_200_bytes_of_a_row_whatever_its_horizon() -> None:
    for horizons in ([1], [1, 6, 24], [1000]):
        record = np.zeros(1, learner.record_fields(contract(horizons=horizons)))
        assert record.dtype.itemsize <= 200 * len(horizons)
