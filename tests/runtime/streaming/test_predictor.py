"""Steps: exactly one per reading, in its own stream only, in any batch."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from edge_lstm import Bundle, Prediction, Predictor, Reading
from edge_lstm.backends import reference
from edge_lstm.backends.reference import ReferenceBackend
from edge_lstm.backends.selftest import smallest_isolated_batch
from edge_lstm.bundle.contract import Feature, Sampling
from tests.networks import contract_of, random_network


def predictor(**changes: object) -> Predictor:
    network = random_network(inputs=changes.pop("inputs", 3))  # type: ignore[arg-type]
    return Predictor(contract_of(network, **changes), ReferenceBackend(network))


def level(stream: str, minute: float, value: float) -> Reading:
    return Reading(stream, 1_700_000_000 + 60 * minute, {"level": value})


def interleaved(streams: int, steps: int) -> list[Reading]:
    rng = random.Random(0)
    readings = [level(f"s{stream}", step, rng.gauss(0, 1)) for step in range(steps) for stream in range(streams)]
    return [Reading(r.stream, r.time, {"level": 1e6}) if r.stream == "s1" else r for r in readings]  # one that spikes


def of_stream(predictions: list[Prediction], stream: str) -> list[Prediction]:
    return [prediction for prediction in predictions if prediction.stream == stream]


@pytest.mark.parametrize("batch", [1, 7, 50, 10_000])
def test_a_stream_gets_the_same_bits_alone_and_among_others_in_any_batch(batch: int) -> None:
    readings = interleaved(streams=23, steps=20)
    together = predictor()
    predictions = [
        prediction
        for start in range(0, len(readings), batch)
        for prediction in together.feed(readings[start : start + batch])
    ]
    assert len(predictions) == len(readings)
    for stream in ("s0", "s11", "s22"):
        alone = predictor().feed([reading for reading in readings if reading.stream == stream])
        assert of_stream(predictions, stream) == alone


class _OtherKernelForOneRow:
    """A backend that rounds a lone row another way: its rows agree bit for bit from a batch of 2 on."""

    name, scheme = "lone", "float32"

    def __init__(self, backend: ReferenceBackend) -> None:
        self._backend = backend
        self.batches: list[int] = []

    def step(self, features: np.ndarray, states: list[np.ndarray]) -> tuple[np.ndarray, list[np.ndarray]]:
        self.batches.append(len(features))
        prediction, following = self._backend.step(features, states)
        if len(features) > 1:
            return prediction, following
        return np.nextafter(prediction, np.float32(np.inf)), [np.nextafter(s, np.float32(np.inf)) for s in following]


def test_a_lone_row_is_padded_to_the_smallest_batch_whose_rows_agree() -> None:
    network, contract = random_network(), contract_of(random_network())
    backend = _OtherKernelForOneRow(ReferenceBackend(network))
    tape = np.random.default_rng(0).normal(0, 1, (8, len(contract.inputs))).astype(np.float32)
    smallest = smallest_isolated_batch(backend, contract, tape)
    assert smallest == 2
    alone, together = Predictor(contract, backend, smallest), Predictor(contract, backend, smallest)
    backend.batches.clear()
    said = [alone.feed([level("a", minute, minute % 7)])[0] for minute in range(12)]
    assert backend.batches == [2] * 12
    neighbours = [[level(stream, minute, minute % 7) for stream in "abc"] for minute in range(12)]
    assert said == of_stream([p for readings in neighbours for p in together.feed(readings)], "a")
    assert alone.table.row("a") == together.table.row("a")


def test_a_predictor_pads_to_the_batch_size_of_the_self_test(
    bundle_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend = _OtherKernelForOneRow(ReferenceBackend(random_network()))
    monkeypatch.setattr(reference, "load", lambda variant, content, execution: backend)
    one = Predictor.of(Bundle.open(bundle_path), "numpy")
    backend.batches.clear()
    assert len(one.feed([level("a", 0, 1.0)])) == 1
    assert backend.batches == [2]


def test_predictions_keep_the_order_of_their_readings() -> None:
    predictions = predictor().feed([level("a", 0, 1), level("b", 0, 2), level("a", 1, 3), level("a", 2, 4)])
    assert [(p.stream, p.step, p.warm_steps) for p in predictions] == [
        ("a", 1, 1),
        ("b", 1, 1),
        ("a", 2, 2),
        ("a", 3, 3),
    ]
    later = [level("b", 2, 1), level("b", 3, 1), level("a", 5, 1), level("b", 4, 1), level("c", 0, 1)]
    several = predictor().feed(later)  # b has three, so these are three rounds
    assert [(p.stream, p.time) for p in several] == [(reading.stream, reading.time) for reading in later]
    assert list(predictions[0].values) == ["level"]
    assert list(predictions[0].values["level"]) == [1, 5]


def test_the_state_is_carried_from_reading_to_reading() -> None:
    cold = predictor().feed([level("a", 5, 1.0)])[0]
    warm = predictor().feed([level("a", minute, 1.0) for minute in range(6)])[-1]
    assert warm.values != cold.values


def test_a_gap_longer_than_max_gap_restarts_only_that_stream() -> None:
    one = predictor()
    one.feed([level("a", 0, 1.0), level("b", 0, 1.0)])
    after_gap, steady = one.feed([level("a", 10.5, 2.0), level("b", 9.5, 2.0)])
    assert (after_gap.step, after_gap.warm_steps) == (2, 1)
    assert after_gap.values == predictor().feed([level("a", 10.5, 2.0)])[0].values
    assert (steady.step, steady.warm_steps) == (2, 2)
    assert one.totals["gaps"] == 1


def test_a_gap_of_exactly_max_gap_keeps_the_state() -> None:
    one, start = predictor(sampling=Sampling(60.0, 600.0)), 1_700_000_000.0
    times = [start, start + 600.0, start + 1200.0 + 2.0**-20, start + 1200.0 + 2.0**-20 + 600.0]
    said = [one.feed([Reading("a", time, {"level": 1.0})])[0] for time in times]
    assert [p.warm_steps for p in said] == [1, 2, 1, 2]
    assert one.totals["gaps"] == 1


@pytest.mark.parametrize(
    ("interval", "ended", "warm_steps"),
    [
        (10, list(range(1, 11)), list(range(1, 11))),  # 600 s after the interval before: the nine between are filled
        (11, [1], [1]),  # 660 s: none is filled
    ],
)
def test_a_grid_fills_a_silence_of_exactly_max_gap_and_no_longer_one(
    interval: int, ended: list[int], warm_steps: list[int]
) -> None:
    one = predictor(sampling=Sampling(60.0, 600.0, grid=True))
    start = 60 * 28_333_333  # where an interval begins
    readings = [Reading("a", start + 60.0 * number, {"level": 1.0}) for number in (0, interval)]
    said = one.feed(readings)
    assert [round((p.time - start) / 60) for p in said] == ended
    assert [p.warm_steps for p in said] == warm_steps
    (last,) = one.feed([Reading("a", start + 60.0 * (interval + 1), {"level": 1.0})])
    assert (last.warm_steps, one.totals["gaps"]) == ((11, 0) if interval == 10 else (1, 1))
    assert one.totals["missing"] == len(ended) - 1


def test_a_restart_within_a_batch_keeps_the_earlier_steps() -> None:
    readings = [level("a", minute, minute) for minute in (0, 1, 50, 51)]
    one = predictor()
    stepwise = [prediction for reading in readings for prediction in one.feed([reading])]
    assert predictor().feed(readings) == stepwise


def test_late_and_repeated_readings_change_nothing_and_are_counted() -> None:
    one, other = predictor(), predictor()
    predictions = one.feed([level("a", 1, 1.0), level("a", 1, 9.0), level("a", 0, 9.0), level("a", 2, 2.0)])
    assert predictions == other.feed([level("a", 1, 1.0), level("a", 2, 2.0)])
    assert (one.totals["duplicate"], one.totals["late"], one.totals["samples"]) == (1, 1, 2)


def test_a_missing_value_is_held_and_its_mask_says_so() -> None:
    features = [Feature("level", mean=1.0, mask=True), Feature("flow", mean=5.0)]
    contract = {"features": features, "clock": [], "inputs": 3}
    masked = predictor(**contract)
    time = 1_700_000_000.0
    held = masked.feed([Reading("a", time, {"level": 2.0, "flow": 3.0}), Reading("a", time + 60, {"flow": math.nan})])
    seen: list[np.ndarray] = []
    backend = masked.backend
    spy = Predictor(masked.contract, _Spy(backend, seen))
    again = spy.feed([Reading("a", time, {"level": 2.0, "flow": 3.0}), Reading("a", time + 60, {"flow": math.nan})])
    assert held == again
    assert [row.tolist() for row in np.concatenate(seen)] == [[2.0, 3.0, 0.0], [2.0, 3.0, 1.0]]
    assert masked.totals["missing"] == 2
    assert {type(count) for count in masked.totals.values()} == {int}  # the stats are JSON, which takes none of NumPy's
    first = Predictor(masked.contract, _Spy(backend, seen))
    first.feed([Reading("b", time, {"level": 7.0})])
    assert seen[-1].tolist() == [[7.0, 5.0, 0.0]]  # never seen: the training mean


@pytest.mark.parametrize("how", ["a step", "partial", "grid"])
def test_what_was_missing_in_training_is_missing_on_a_device(how: str) -> None:
    plain = [Feature("level"), Feature("flow", mean=5.0)]
    coded = [Feature("level", sentinels=[-273.2, 85.0], least=-300, most=120), plain[1]]
    sampling = Sampling(interval_s=60.0, max_gap_s=600.0, grid=how == "grid")

    def fed(features: list[Feature], *codes: float) -> tuple[list[Prediction], Predictor]:
        one = predictor(features=features, clock=[], inputs=2, sampling=sampling)
        said = []
        for minute, level in enumerate([20.0, *codes, 21.0, 22.0]):
            parts = [{"level": level, "flow": 3.0}]
            if how == "partial":
                parts = [{"level": level}, {"flow": 3.0}]
            if how == "grid":
                parts.append({"level": math.nan, "flow": 4.0})
            times = [1_700_000_040.0 + 60 * minute + second for second in range(len(parts))]
            readings = [
                Reading("a", time, part, None, how == "partial") for time, part in zip(times, parts, strict=True)
            ]
            said += one.feed(readings)
        return said, one

    nan = math.nan
    found, one = fed(coded, -273.20001220703125, -301.0, 120.5, 85.0, 119.5, 1e300)
    expected, other = fed(plain, nan, nan, nan, nan, 119.5, nan)
    assert found == expected
    assert one.totals == other.totals
    assert one.totals["missing"] == 5
    assert found != fed(plain, -273.2, -301.0, 120.5, 85.0, 119.5, nan)[0]


class _Spy:
    """A backend that notes its inputs."""

    def __init__(self, backend: ReferenceBackend, seen: list[np.ndarray]) -> None:
        self.name, self.scheme, self._backend, self._seen = "spy", "float32", backend, seen

    def step(self, features: np.ndarray, states: list[np.ndarray]) -> tuple[np.ndarray, list[np.ndarray]]:
        self._seen.append(features.copy())
        return self._backend.step(features, states)


def test_rows_survive_a_store_and_a_new_table_to_the_last_bit() -> None:
    readings = interleaved(streams=40, steps=4)
    first, second = predictor(), predictor()
    first.feed(readings[:80])
    for stream in first.table.names:
        second.table.put_row(stream, first.table.row(stream))
    assert second.feed(readings[80:]) == first.feed(readings[80:])
    with pytest.raises(ValueError, match="expected a row of at least 104 bytes, found 3"):
        second.table.put_row("x", b"abc")


def test_without_max_gap_no_gap_restarts_a_stream() -> None:
    one = predictor(sampling=Sampling(60.0, None))
    assert one.feed([level("a", 0, 1.0), level("a", 1e6, 1.0)])[-1].warm_steps == 2


def test_the_example_of_the_readme_runs(tmp_path: Path, make_bundle: Callable[..., Bundle]) -> None:
    make_bundle(tmp_path / "tank.elstm")
    predictor = Predictor.of(Bundle.open(tmp_path / "tank.elstm"), backend="numpy", scheme="float32")
    (prediction,) = predictor.feed([Reading("tank-1", time=1_700_000_000, values={"level": 1.5})])
    assert set(prediction.values["level"]) == {1, 5}
    assert all(value == float(str(np.float32(value))) for value in prediction.values["level"].values())


def latest(predictions: list[Prediction]) -> dict[tuple[str, float], tuple[int, int, object]]:
    """What a subscriber knows that keeps the highest revision of each time."""
    known: dict[tuple[str, float], Prediction] = {}
    for one in predictions:
        former = known.get((one.stream, one.time))
        assert former is None or one.revision > former.revision
        known[one.stream, one.time] = one
    return {place: (one.step, one.warm_steps, one.values) for place, one in known.items()}


@pytest.mark.parametrize("batch", [1, 5, 64])
@pytest.mark.parametrize("seed", range(6))
def test_readings_shuffled_within_max_rewind_end_as_ordered_ones(seed: int, batch: int) -> None:
    rng = random.Random(seed)
    ordered = [reading for reading in interleaved(streams=3, steps=60) if rng.random() > 0.1]
    ordered += [level("s0", minute, rng.gauss(0, 1)) for minute in (100, 101, 111.5, 112)]  # gaps restart
    place = [index + rng.uniform(0, 12) for index in range(len(ordered))]
    shuffled = [ordered[index] for index in sorted(range(len(ordered)), key=place.__getitem__)]
    shuffled += rng.sample(shuffled[-20:], 5)  # and some come again
    network = random_network()
    one = Predictor(contract_of(network), ReferenceBackend(network), max_rewind=16)
    predictions = [
        said for start in range(0, len(shuffled), batch) for said in one.feed(shuffled[start : start + batch])
    ]
    assert one.totals["late"] == 0
    assert one.totals["duplicate"] == 5
    assert one.totals["rewound"] > 10
    assert latest(predictions) == latest(predictor().feed(ordered))


def test_a_reading_older_than_max_rewind_is_dropped() -> None:
    network = random_network()
    one = Predictor(contract_of(network), ReferenceBackend(network), max_rewind=3)
    ordered = [level("a", minute, minute) for minute in range(0, 40, 2)]
    one.feed(ordered)
    assert one.feed([level("a", 31, 5.0)]) == []
    assert one.totals["late"] == 1
    corrected = one.feed([level("a", 33, 5.0)])  # three samples are newer: 34, 36, 38
    assert [(p.step, p.revision) for p in corrected] == [(18, 0), (19, 1), (20, 1), (21, 1)]
    expected = predictor().feed(sorted([*ordered, level("a", 33, 5.0)], key=lambda reading: reading.time))
    assert [p.values for p in corrected] == [p.values for p in expected[-4:]]


def test_a_sequence_number_identifies_repeats() -> None:
    network = random_network()
    one = Predictor(contract_of(network), ReferenceBackend(network), max_rewind=4, window=64)
    readings = [Reading("a", 1e9 + index, {"level": float(index)}, sequence=str(index)) for index in range(40)]
    assert len(one.feed(readings)) == 40
    assert one.feed(readings[5:]) == []
    assert one.totals["duplicate"] == 35
    (same_time,) = one.feed([Reading("a", 1e9 + 39, {"level": 1.0}, sequence="new")])
    assert same_time.step == 41


def test_partial_readings_step_once_when_complete() -> None:
    features = [Feature("level"), Feature("flow")]
    parts = predictor(features=features, clock=[], inputs=2)
    whole = predictor(features=features, clock=[], inputs=2)
    time = 1_700_000_000.0
    said = parts.feed(
        [Reading("a", time, {"level": 1.0}, partial=True), Reading("b", time, {"flow": 9.0}, partial=True)]
    )
    assert said == []
    parts.table.put_row("a", parts.table.row("a"))  # what waits survives a restart
    said = parts.feed(
        [Reading("a", time, {"level": 2.0}, partial=True), Reading("a", time + 1, {"flow": 3.0}, partial=True)]
    )
    assert said == whole.feed([Reading("a", time + 1, {"level": 2.0, "flow": 3.0})])


def test_a_diverging_state_restarts_only_that_stream(caplog: pytest.LogCaptureFixture) -> None:
    one, undisturbed = predictor(), predictor()
    before = [level("a", 0, 1.0), level("b", 0, 1.0)]
    one.feed(before)
    undisturbed.feed(before)
    one.table.current["state1"][one.table.slot("a")] = np.nan
    sick, well = one.feed([level("a", 1, 2.0), level("b", 1, 2.0)])
    assert sick.values == predictor().feed([level("a", 1, 2.0)])[0].values
    assert well == undisturbed.feed([level("a", 1, 2.0), level("b", 1, 2.0)])[1]
    assert one.totals["runaway"] == 1
    assert "its state ran away stream=a" in caplog.text


def test_repeated_divergence_is_logged_once_per_hundred_steps(caplog: pytest.LogCaptureFixture) -> None:
    one = predictor()
    for step in range(150):
        one.feed([level("a", step, 1.0)])
        one.table.current["state1"][one.table.slot("a")] = np.nan
    assert one.totals["runaway"] == 149
    assert caplog.text.count("its state ran away stream=a") == 2


@pytest.mark.parametrize(("carried", "restarts"), [(3e4, 0), (9e5, 0), (1e9, 1), (-1e30, 1), (np.inf, 1)])
def test_a_stream_restarts_only_beyond_the_state_bound(carried: float, restarts: int) -> None:
    one = predictor()
    one.feed([level("a", 0, 1.0)])
    one.table.current["state1"][one.table.slot("a")] = carried
    assert [said.warm_steps for said in one.feed([level("a", 1, 2.0)])] == [1 if restarts else 2]
    assert one.totals["runaway"] == restarts


def test_one_batch_and_single_readings_leave_the_same_state() -> None:
    network = random_network()
    together, apart = (Predictor(contract_of(network), ReferenceBackend(network), max_rewind=4) for _ in range(2))
    readings = [level("a", minute, minute % 7) for minute in range(30)]  # the trail fills and makes room thrice
    assert together.feed(readings) == [said for reading in readings for said in apart.feed([reading])]
    assert together.table.row("a") == apart.table.row("a")


def test_an_evicted_stream_comes_back_bit_for_bit() -> None:
    rows: dict[str, bytes] = {}
    network = random_network()
    small = Predictor(contract_of(network), ReferenceBackend(network), max_rewind=4, fetch=rows.get)
    large = Predictor(contract_of(network), ReferenceBackend(network), max_rewind=4)
    for reading in interleaved(streams=30, steps=10):
        assert small.feed([reading]) == large.feed([reading])
        rows[reading.stream] = small.table.row(reading.stream)
        for stream in small.table.least_recently_used(max(0, len(small.table) - 7)):
            small.table.evict(stream)
    assert len(small.table) == 7
    assert len(small.table.current) <= 16


def test_a_row_of_another_depth_keeps_the_state_without_the_trail() -> None:
    network = random_network()
    deep = Predictor(contract_of(network), ReferenceBackend(network), max_rewind=6)
    plain = predictor()
    readings = [level("a", minute, minute) for minute in range(20)]
    deep.feed(readings)
    plain.table.put_row("a", deep.table.row("a"), deep.table.layout)
    assert plain.feed([level("a", 20, 1.0)]) == deep.feed([level("a", 20, 1.0)])
