"""Bands that a device goes on calibrating: by which rule, what stops it, and the same bits however they are stepped."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from edge_lstm.backends.reference import ReferenceBackend
from edge_lstm.bundle.archive import Bundle
from edge_lstm.bundle.contract import Contract, Feature
from edge_lstm.bundle.data_sheet import sheet_rows
from edge_lstm.bundle.intervals import HOURS, SHARES, Intervals
from edge_lstm.decisions.forecasts.adaptation import RATE, SCALE_RATE, AdaptiveBands, record_fields
from edge_lstm.decisions.forecasts.bands import Bands
from edge_lstm.decisions.sensors.sensed import Sensed
from edge_lstm.decisions.step import Step
from edge_lstm.messages.encoder import encode_prediction
from edge_lstm.streaming.columns import first_record
from edge_lstm.streaming.predictor import Predictor
from edge_lstm.streaming.reading import Prediction, Reading
from tests.networks import contract_of, random_network

START = 1_700_000_000.0
LEVEL = 0.9
# Quantiles of |z| of a standard normal distribution at SHARES; at 1, that of a few thousand steps.
ABSOLUTE = [
    *(0.0627, 0.1257, 0.1891, 0.2533, 0.3186, 0.3853, 0.4538, 0.5244, 0.5978, 0.6745, 0.7554, 0.8416, 0.9346, 1.0364),
    *(1.1503, 1.2816, 1.4395, 1.6449, 1.9600, 2.0537, 2.1701, 2.3263, 2.5758, 2.8070, 3.5),
]


class Says(ReferenceBackend):
    """A backend that says the same row at each step; its states are the reference's."""

    def __init__(self, row: Sequence[float], inputs: int = 1) -> None:
        super().__init__(random_network(inputs=inputs, outputs=len(row)))
        self.row = list(row)

    def step(self, features: np.ndarray, states: list[np.ndarray]) -> tuple[np.ndarray, list[np.ndarray]]:
        _, following = super().step(features, states)
        return np.array([self.row] * len(features), np.float32), following


def contract(horizons: Sequence[int] = (1, 3), by_hour: Sequence[float] = (), **facts: object) -> Contract:
    outputs = len(horizons) * (1 + len(facts.get("quantiles", [])))  # type: ignore[arg-type]
    network = random_network(inputs=1, outputs=outputs)
    scores = [score * (1 + place) for place in range(len(horizons)) for score in ABSOLUTE]
    widths = [ABSOLUTE[SHARES.index(LEVEL)] * (1 + place) for place in range(len(horizons))]
    made = Intervals(LEVEL, widths, scores, list(by_hour) * len(horizons))
    return contract_of(
        network, **{"clock": [], "targets": ["level"], "horizons": list(horizons), "intervals": made, **facts}
    )


def predictor_of(made: Contract, row: Sequence[float] = (0.0, 0.0), **options: object) -> Predictor:
    return Predictor(made, Says(row), **options)  # type: ignore[arg-type]


def noise(count: int, seed: int = 1) -> list[float]:
    return np.random.default_rng(seed).normal(0, 1, count).astype(np.float32).tolist()


def readings_of(values: Sequence[float | None], stream: str = "s", interval_s: float = 60.0) -> list[Reading]:
    return [Reading(stream, START + interval_s * at, {"level": value}) for at, value in enumerate(values)]


def bits(predictions: Sequence[Prediction]) -> list[str]:
    return [repr(one.bands) for one in predictions]  # a NaN equals itself here, and repr gives every digit


def bounds_of(predictions: Sequence[Prediction]) -> np.ndarray:
    """(n, horizons, 2)"""
    assert all(one.bands for one in predictions)
    return np.array([list(one.bands["level"].values()) for one in predictions])  # type: ignore[index]


def lived(made: Contract, values: Sequence[float], row: Sequence[float] = (0.0,)) -> tuple[np.ndarray, np.ndarray]:
    """(n, horizons, 2): the bands of a stream of these values and always the same forecast; and its record."""
    bands, current, outputs = AdaptiveBands(made), first_record(made), np.array([row], np.float32)
    found = [bands(step_of(made, current, value), outputs)[0] for value in values]
    return np.array(found), current[0]


def held(found: np.ndarray, values: Sequence[float]) -> np.ndarray:
    """(n - 1,): whether each band one step ahead held."""
    inside: np.ndarray = (found[:-1, 0, 0] <= values[1:]) & (np.array(values[1:]) <= found[:-1, 0, 1])
    return inside


def step_of(made: Contract, current: np.ndarray, value: float, learns: bool = True) -> Step:
    current["step"] += 1
    current["warm_steps"] += 1
    current["time"] = START + 60.0 * current["step"]
    nothing = np.zeros((1, 0, 0), np.float32)
    values, slots, missing = np.array([[value]], np.float32), np.array([0]), np.array([[False]])
    return Step(current, nothing, slots, values, missing, values, np.array([learns]))


def test_share_and_scale_follow_a_hand_written_adaptation() -> None:
    by_hour = [1.0, 2.0, 0.5, *[1.0] * (HOURS - 3)]
    made, values = contract(horizons=[1, 24], by_hour=by_hour), [3 * value for value in noise(400)]
    predictor = predictor_of(made, (0.25, -0.5))
    found = predictor.feed(readings_of(values, interval_s=550.0))
    usual = np.interp(np.linspace(0, 1, 201), (0, *SHARES), (0, *ABSOLUTE)).mean()
    for place, (horizon, center) in enumerate(zip(made.horizons, (0.25, -0.5), strict=True)):
        share, scale, unit = LEVEL, 1.0, 1.0 + place
        rate, scale_rate = RATE * min(6 / horizon, 1), SCALE_RATE / horizon**0.5
        said: list[tuple[float, float]] = []
        for at, value in enumerate(values):
            if at >= horizon:
                width, factor = said[at - horizon]
                missed = abs(value - center) > np.float32(width)
                share = min(max(share + rate * (missed - (1 - LEVEL)), 0.5), 1.0)
                score = min(abs(value - center) / factor / unit / usual, 5 * scale)
                scale += scale_rate * (score - scale)
            factor = by_hour[int((START + 550 * at) // 3600) % HOURS]
            width = np.interp(share, (0, *SHARES), (0, *ABSOLUTE)) * unit * scale * factor
            said.append((width, factor))
            low, high = found[at].bands["level"][horizon]  # type: ignore[index]
            assert (low, high) == pytest.approx((center - width, center + width), rel=1e-5, abs=1e-6)
        record = predictor.table.current[predictor.table.slot("s")]
        assert record["band_share"][place] == pytest.approx(share, rel=1e-12)
        assert record["band_scale"][place] == pytest.approx(scale, rel=1e-6)
        assert scale > 1.2


def test_a_cold_stream_has_the_bands_of_the_bundle_until_a_truth_arrives() -> None:
    made = contract(horizons=[2, 5], by_hour=[1.0, 3.0] * 12)
    predictor = predictor_of(made)
    readings = readings_of([9.0] * 3, interval_s=550.0)
    static = Bands(made)(np.zeros((3, 2), np.float32), np.array([reading.time for reading in readings]))
    found = bounds_of(predictor.feed(readings)).astype(np.float32)
    np.testing.assert_array_equal(found[:2], static[:2])
    assert (found[2, 0] != static[2, 0]).all()  # the truth of the first step has arrived 2 steps ahead, not yet 5
    np.testing.assert_array_equal(found[2, 1], static[2, 1])


def test_bands_hold_as_often_as_they_say_although_the_noise_has_tripled() -> None:
    made = contract(horizons=[1])
    values = [*noise(1000), *(3 * value for value in noise(1000, 2)), *noise(1000, 3)]
    inside = held(lived(made, values)[0], values)
    static = np.abs(values[1:]) <= ABSOLUTE[SHARES.index(LEVEL)]
    assert inside.mean() == pytest.approx(LEVEL, abs=0.01)
    windows = inside[: len(inside) // 500 * 500].reshape(-1, 500).mean(axis=1)
    assert np.abs(windows - LEVEL).max() <= 0.05
    assert [round(float(static[begin : begin + 1000].mean()), 1) for begin in (0, 1000, 2000)] == [0.9, 0.4, 0.9]


def test_no_truth_makes_a_band_infinite_or_turns_it_around() -> None:
    made = contract(horizons=[1, 3])
    rng = np.random.default_rng(3)
    values = [*(rng.normal(0, 1, 600) * 10.0 ** rng.integers(-30, 38, 600)), *[0.0] * 400, 3e38, -3e38, 3e38]
    found, record = lived(made, values, [0.0, 0.0])
    assert np.isfinite(found).all()
    assert (found[:, :, 0] <= found[:, :, 1]).all()
    assert ((record["band_share"] >= 0.5) & (record["band_share"] <= 1)).all()
    assert ((record["band_scale"] >= 1e-3) & (record["band_scale"] <= 1e3)).all()


@pytest.mark.parametrize(("scale", "value"), [(1e3, 1e9), (1e-3, 0.0)])
def test_the_scale_of_a_stream_stays_within_its_bounds(scale: float, value: float) -> None:
    made = contract(horizons=[1])
    bands, current = AdaptiveBands(made), first_record(made)
    current["band_scale"] = scale
    for _ in range(5):
        bands(step_of(made, current, value), np.zeros((1, 1), np.float32))
        assert current["band_scale"].item() == scale


def test_scores_of_any_size_in_a_bundle_make_no_infinite_band() -> None:
    made = contract(horizons=[1], by_hour=[1e6] * HOURS)
    assert made.intervals is not None
    huge = dataclasses.replace(made.intervals, scores=[3e38] * len(SHARES), widths=[3e38])
    values = [3e38 * (-1) ** at for at in range(50)]
    found, _ = lived(dataclasses.replace(made, intervals=huge), values)
    assert np.isfinite(found).all()


def test_the_bits_of_a_stream_do_not_depend_on_its_batch() -> None:
    made = contract(by_hour=[1.5, 0.7] * 12)
    series = {f"s{number}": noise(60, number) for number in range(33)}
    beside, alone = predictor_of(made), predictor_of(made)
    together = []
    for at in range(60):
        rows = [Reading(name, START + 60 * at, {"level": values[at]}) for name, values in series.items()]
        together += beside.feed(rows[: 1 + at % 33] + rows[1 + at % 33 :])
    for name, values in series.items():
        found = alone.feed(readings_of(values, name))
        assert bits(found) == bits([one for one in together if one.stream == name])
        assert alone.table.row(name) == beside.table.row(name)


@pytest.mark.parametrize("late_by", [1, 4])
def test_a_late_reading_leaves_the_bands_of_the_right_order(late_by: int) -> None:
    made, readings = contract(), readings_of([4 * value for value in noise(80)])
    ordered = predictor_of(made, max_rewind=8)
    expected = ordered.feed(readings)
    shuffled = readings[:40] + readings[41 : 41 + late_by] + [readings[40]] + readings[41 + late_by :]
    rewound = predictor_of(made, max_rewind=8)
    last = {one.time: one for one in rewound.feed(shuffled)}
    assert bits([last[one.time] for one in expected]) == bits(expected)
    for name in ("band_share", "band_scale", "band_waiting"):
        np.testing.assert_array_equal(rewound.table.current[name][0], ordered.table.current[name][0])


def test_a_gap_keeps_what_was_learned_and_compares_nothing_across_it() -> None:
    made = contract(horizons=[1, 3])
    predictor = predictor_of(made)
    predictor.feed(readings_of([5.0] * 20))
    record = predictor.table.current[predictor.table.slot("s")]
    before = record["band_share"].copy(), record["band_scale"].copy()
    assert before[0][0] > 0.95
    (one,) = predictor.feed([Reading("s", START + 1e6, {"level": 5.0})])  # the state restarts
    assert one.warm_steps == 1
    np.testing.assert_array_equal(record["band_share"], before[0])
    np.testing.assert_array_equal(record["band_scale"], before[1])
    predictor.feed([Reading("s", START + 1e6 + 60, {"level": 5.0})])
    assert record["band_scale"][0] > before[1][0]  # one step ahead was said after the gap
    assert record["band_scale"][1] == before[1][1]  # three steps ahead before it


def test_a_stored_row_continues_bit_for_bit() -> None:
    made, readings = contract(), readings_of([3 * value for value in noise(90)])
    whole = predictor_of(made, max_rewind=4)
    expected = whole.feed(readings)
    first = predictor_of(made, max_rewind=4)
    first.feed(readings[:50])
    second = predictor_of(made, max_rewind=4)
    second.load_state("s", first.state("s"))
    assert bits(second.feed(readings[50:])) == bits(expected[50:])
    assert second.table.row("s") == whole.table.row("s")


def test_a_row_without_bands_begins_with_the_calibration_of_the_bundle() -> None:
    made, plain = contract(), contract(intervals=None)
    before = predictor_of(plain)
    before.feed(readings_of([5.0] * 20))
    after = predictor_of(made)
    after.load_state("s", before.state("s"))
    (one,) = after.feed([Reading("s", START + 1200, {"level": 5.0})])
    assert one.step == 21
    np.testing.assert_allclose(bounds_of([one])[0], [[-1.6449, 1.6449], [-3.2898, 3.2898]])
    assert after.table.current["band_share"][0].tolist() == [LEVEL, LEVEL]


def test_missing_truth_leaves_the_band_where_it_is() -> None:
    made = contract(horizons=[1])
    predictor = predictor_of(made, [0.0])
    predictor.feed(readings_of([5.0] * 10))
    record = predictor.table.current[predictor.table.slot("s")]
    before = record["band_share"].copy(), record["band_scale"].copy()
    later = [Reading("s", START + 60 * at, {"level": None}) for at in range(10, 20)]
    found = bounds_of(predictor.feed(later))
    assert (record["band_share"], record["band_scale"]) == before
    assert (found == found[0]).all()


def test_a_step_that_teaches_nothing_leaves_no_trace_in_the_band() -> None:
    made = contract(horizons=[2])
    bands, current = AdaptiveBands(made), first_record(made)
    shares = []
    for at in range(12):
        bands(step_of(made, current, 9.0, learns=at not in (5, 6)), np.zeros((1, 1), np.float32))
        shares.append(float(current["band_share"][0, 0]))
    moved = np.flatnonzero(np.diff([LEVEL, *shares])).tolist()
    # said at 0 to 2 and true at 2 to 4; nothing at 5 and 6; what was said there would be true at 7 and 8
    assert moved == [2, 3, 4, 9, 10, 11]


def test_a_dead_target_has_no_band_and_null_in_the_payload() -> None:
    two = [Feature("level", "m", 1.0, 2.0), Feature("flow")]
    for made in (contract(horizons=[1]), contract(horizons=[1], features=two)):
        dead = np.zeros((1, len(made.features)), bool)
        dead[0, -1] = True  # level itself, or another sensor
        step = step_of(made, first_record(made), 1.0)
        sensed = Sensed(
            np.ones((1, len(made.features)), np.float32), dead, dead[:, 0], dead[:, 0], dead.astype(np.uint8)
        )
        step = step._replace(sensed=sensed, values=sensed.values, missing=~dead & False)
        found = AdaptiveBands(made)(step, np.zeros((1, 1), np.float32))
        static = Bands(made)(np.zeros((1, 1), np.float32), np.array([START]), dead)
        assert np.isnan(found).all() == np.isnan(static).all() == (len(made.features) == 1)
    one = Prediction("s", START, 1, 1, {"level": {1: 0.0}}, bands={"level": {1: (math.nan, math.nan)}})
    assert json.loads(encode_prediction(one, "b"))["bands"] == {"level": {"1": [None, None]}}


def test_quantiles_are_widened_by_what_their_own_scores_say() -> None:
    """Their scores may be negative; a stream four times as noisy as the calibration gets bands that hold."""
    scores = [score - 1.6449 for score in ABSOLUTE]
    made = contract(horizons=[1], quantiles=[0.05, 0.95])
    assert made.intervals is not None
    made = dataclasses.replace(made, intervals=Intervals(LEVEL, [0.0], scores))
    values = [4 * value for value in noise(4000)]
    found, _ = lived(made, values, [0.0, -1.6449, 1.6449])
    assert found[0, 0].tolist() == pytest.approx([-1.6449, 1.6449])
    assert held(found, values)[2000:].mean() == pytest.approx(LEVEL, abs=0.01)
    assert np.diff(found[2000:, 0]).mean() == pytest.approx(2 * 4 * 1.6449, rel=0.1)


def test_a_position_on_a_circle_is_judged_the_shorter_way() -> None:
    wind = [Feature("wind", scale=1.0, period=360.0)]
    made = contract_of(
        random_network(inputs=2, outputs=2), features=wind, targets=["wind"], clock=[], horizons=[1],
        intervals=Intervals(LEVEL, [10.0], [10.0 * score / 1.6449 for score in ABSOLUTE]),
    )  # fmt: skip
    predictor = Predictor(made, Says([0.0, 1.0], inputs=2))  # sine and cosine of 0
    predictor.feed([Reading("s", START + 60 * at, {"wind": 355.0 if at % 2 else 5.0}) for at in range(30)])
    record = predictor.table.current[predictor.table.slot("s")]
    assert record["band_share"][0] == pytest.approx(LEVEL - 29 * RATE * (1 - LEVEL))  # 5 degrees away: always inside


def test_inspect_says_whether_a_device_adapts_the_intervals(tmp_path: Path, make_bundle: Callable[..., Bundle]) -> None:
    def shown(**facts: object) -> str:
        made = contract(**facts)  # type: ignore[arg-type]
        network = random_network(inputs=1, outputs=len(made.outputs))
        rows = dict(sheet_rows(make_bundle(tmp_path / "tank.elstm", network, made)))
        return rows["intervals"]

    assert shown() == "90 % about each; each device goes on calibrating them"
    beyond = shown(horizons=[1, 1400])
    assert beyond == "90 % about each, as training calibrated them: 1400 steps are too long to wait"
    unmeasured = shown(task="estimate", targets=["load"], horizons=[0])
    assert unmeasured == "90 % about each, as training calibrated them: no device measures the truth"


def test_only_bundles_whose_intervals_can_adapt_carry_more() -> None:
    assert record_fields(contract(intervals=None)) == []
    assert record_fields(contract(horizons=[1, 1400])) == []  # 1401 predictions of 3 numbers are more than a row holds
    assert [name for name, _, _ in record_fields(contract(horizons=[1, 24]))] == [
        "band_share",
        "band_scale",
        "band_waiting",
    ]
    estimate = contract(task="estimate", targets=["load"], horizons=[0])
    assert record_fields(estimate) == []
    static = predictor_of(contract(horizons=[1, 1400])).feed(readings_of([9.0] * 50))
    assert len(set(bits(static))) == 1
