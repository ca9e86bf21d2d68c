"""A stream's state as a value: it holds all that the stream carries, and a state that does not fit is refused."""

from __future__ import annotations

import copy
import dataclasses
import pickle
import random
from typing import Any

import numpy as np
import pytest

from edge_lstm import Bundle, EdgeLstmError, Prediction, Predictor, Reading, ReadingError, StreamState
from tests.paths import FIXTURES, PUMP

WRITTEN = FIXTURES / "written_by_0_1_0/bundles"
TASKS = ("forecast", "estimate", "classify", "anomaly")
START = 1_767_225_600.0


def readings_of(bundle: Bundle, stream: str, count: int) -> list[Reading]:
    """Readings around the model's means, with missing values, an incomplete sample, a gap and a late reading."""
    rng = random.Random(stream)
    interval = (bundle.contract.sampling.interval_s or 60.0) * 0.7  # on a grid some intervals hold two readings
    features = bundle.contract.features
    readings = []
    time = START
    for step in range(count):
        time += interval if step % 50 != 37 else 2 * (bundle.contract.sampling.max_gap_s or 600.0)
        values: dict[str, float | None] = {}
        for feature in features:
            value: float | None = rng.gauss(feature.mean, 3 * feature.scale if step > 70 else feature.scale)
            if feature.categories:
                value = float(rng.randrange(len(feature.categories)))
            values[feature.name] = None if rng.random() < 0.1 else value
        if step % 10 == 4:  # one sample in two readings
            (first, *others) = features
            readings.append(Reading(stream, time, {first.name: values[first.name]}, partial=True))
            values = {feature.name: values[feature.name] for feature in others}
            readings.append(Reading(stream, time + 1, values, partial=True))
        else:
            readings.append(Reading(stream, time, values))
        if step % 10 == 8:
            readings.append(Reading(stream, time - 1.5 * interval, {features[0].name: features[0].mean}))
    return readings


def opened(bundle: Bundle, **options: Any) -> Predictor:
    return Predictor.from_bundle(bundle, "numpy", "float32", **options)


def bits(predictions: list[Prediction]) -> str:
    return repr(predictions)  # a NaN equals itself here, and repr gives every digit


def renamed(prediction: Prediction, stream: str) -> Prediction:
    """The prediction as one of another stream; the id of an event has the name of its stream."""
    event = prediction.event
    if event is not None:
        event = event._replace(id=event.id.replace(prediction.stream, stream))
    return prediction._replace(stream=stream, event=event)


@pytest.mark.parametrize("cut", [1, 5, 33, 60, 105])
@pytest.mark.parametrize("task", TASKS)
def test_a_loaded_state_continues_bit_for_bit(task: str, cut: int) -> None:
    bundle = Bundle.open(WRITTEN / f"{task}.elstm")
    readings = readings_of(bundle, "mill-1", 110)
    one = opened(bundle, max_rewind=4)
    one.feed(readings[:cut])
    other = opened(bundle, max_rewind=4)
    other.feed(readings_of(bundle, "mill-2", 20))  # a neighbour, which makes the slots differ
    other.load_state("mill-7", pickle.loads(pickle.dumps(one.state("mill-1"))))
    expected = one.feed(readings[cut:])
    found = other.feed([reading._replace(stream="mill-7") for reading in readings[cut:]])
    assert len(found) > (110 - cut) / 3
    assert bits([renamed(prediction, "mill-1") for prediction in found]) == bits(expected)
    assert other.table.row("mill-7") == one.table.row("mill-1")


@pytest.mark.parametrize("task", TASKS)
def test_a_state_of_a_predictor_of_another_max_rewind_continues_bit_for_bit(task: str) -> None:
    bundle = Bundle.open(WRITTEN / f"{task}.elstm")
    readings = sorted(readings_of(bundle, "mill-1", 110), key=lambda reading: reading.time)
    one, other = opened(bundle, max_rewind=4), opened(bundle)
    one.feed(readings[:60])
    other.feed(readings[90:])  # what the stream carried before leaves no trace
    other.load_state("mill-1", one.state("mill-1"))
    assert bits(other.feed(readings[60:])) == bits(one.feed(readings[60:]))


def test_a_state_names_the_tensors_of_the_contract_and_the_counts() -> None:
    bundle = Bundle.open(PUMP)
    predictor = opened(bundle)
    predictor.feed([Reading("pump-7", START + 60 * step, {"pressure": 4.0, "flow": 12.0}) for step in range(3)])
    state = predictor.state("pump-7")
    assert (state.time, state.step, state.warm_steps, state.bundle) == (START + 120, 3, 3, bundle.id)
    assert {name: (array.shape, array.dtype) for name, array in state.states.items()} == {
        tensor.name: (tuple(tensor.shape), np.dtype(np.float32)) for tensor in bundle.contract.states
    }
    assert "row" not in repr(state)


def test_a_state_is_a_copy() -> None:
    predictor = opened(Bundle.open(PUMP))
    predictor.feed([Reading("pump-7", START, {"pressure": 4.0})])
    state = predictor.state("pump-7")
    kept = {name: array.copy() for name, array in state.states.items()}
    predictor.feed([Reading("pump-7", START + 60, {"pressure": 5.0})])
    assert all((state.states[name] == kept[name]).all() for name in kept)
    before = predictor.table.row("pump-7")
    state.states["hidden_state_0"][:] = 9.0
    assert predictor.table.row("pump-7") == before


def test_changed_numbers_of_a_state_are_taken() -> None:
    predictor = opened(Bundle.open(PUMP))
    predictor.feed([Reading("pump-7", START, {"pressure": 4.0})])
    state = predictor.state("pump-7")
    state.states["hidden_state_0"][:] = 0.25
    predictor.load_state("pump-8", dataclasses.replace(state, time=START - 60, step=9, warm_steps=5))
    assert (predictor.state("pump-8").states["hidden_state_0"] == 0.25).all()
    (prediction,) = predictor.predict(Reading("pump-8", START - 30, {"pressure": 4.0}))
    assert (prediction.step, prediction.warm_steps) == (10, 6)


def of_pump(**changes: Any) -> StreamState:
    predictor = opened(Bundle.open(PUMP))
    predictor.feed([Reading("pump-7", START, {"pressure": 4.0})])
    state = predictor.state("pump-7")
    if "states" in changes:
        states = {**state.states, **changes["states"]}
        changes["states"] = {name: array for name, array in states.items() if array is not None}
    return dataclasses.replace(state, **changes)


WRONG: list[tuple[dict[str, Any], str]] = [
    (
        {"states": {"cell_state_8": np.zeros(8, np.float32)}},
        r'found "cell_state_8"\nhint: did you mean "cell_state_[01]"',
    ),
    ({"states": {"cell_state_0": None}}, 'found no "cell_state_0"'),
    ({"states": {"cell_state_0": np.zeros(3, np.float32)}}, r"cell_state_0 as an array .* found shape \(3,\)"),
    ({"states": {"cell_state_0": [0.0]}}, "cell_state_0 as an array .* found an object of type list"),
    (
        {"time": float("nan")},
        "expected time in seconds since 1970, of the years 1 to 9999, or None, found the float nan",
    ),
    ({"step": 1, "warm_steps": 2}, "found warm_steps 2 and step 1"),
    ({"step": 1.5}, "expected step as an int, found the float 1.5"),
    ({"row": b"123"}, "found another row"),
    ({"row": None}, "expected row as bytes, found None"),
    ({"row": 5}, "expected row as bytes, found the int 5"),
    ({"bundle": 5}, "expected bundle as a str, found the int 5"),
    ({"time": 1e300}, "of the years 1 to 9999, or None, found the float 1e\\+300"),
    ({"time": 10**400}, "of the years 1 to 9999, or None, found int"),
    ({"time": True}, "of the years 1 to 9999, or None, found the bool True"),
    ({"step": 2**63}, "warm_steps <= step <= 1000000000000000, found warm_steps 1 and step a larger number"),
    ({"step": True, "warm_steps": True}, "expected step as an int, found the bool True"),
    ({"bundle": "0123456789ab"}, "found one of 0123456789ab"),
]


@pytest.mark.parametrize(("changes", "said"), WRONG)
@pytest.mark.parametrize("known", [True, False])
def test_a_state_that_does_not_fit_is_refused_and_changes_nothing(
    changes: dict[str, Any], said: str, known: bool
) -> None:
    predictor = opened(Bundle.open(PUMP))
    predictor.feed([Reading("pump-1", START, {"pressure": 4.0})])
    before = predictor.table.row("pump-1")
    with pytest.raises(ReadingError, match=said):
        predictor.load_state("pump-1" if known else "pump-2", of_pump(**changes))
    assert predictor.table.row("pump-1") == before
    assert list(predictor.table.names) == ["pump-1"]


def test_a_state_of_another_type_or_of_numbers_that_are_none_is_refused() -> None:
    predictor = opened(Bundle.open(PUMP))
    shape = of_pump().states["cell_state_0"].shape
    wide: dict[str, Any] = {"cell_state_0": np.zeros(shape)}
    with pytest.raises(ReadingError, match=r"cell_state_0 .* in float32, found shape .* in float64"):
        predictor.load_state("a", of_pump(states=wide))
    with pytest.raises(ReadingError, match="expected finite numbers in cell_state_0, found NaN or infinity"):
        predictor.load_state("a", of_pump(states={"cell_state_0": np.full(shape, np.nan, np.float32)}))
    with pytest.raises(ReadingError, match="expected a StreamState, found an object of type dict"):
        predictor.load_state("a", {})  # type: ignore[arg-type]
    sound = of_pump()
    for states in (None, [sound.states["cell_state_0"]]):
        with pytest.raises(ReadingError, match="expected states as a mapping of names to arrays, found"):
            predictor.load_state("a", dataclasses.replace(sound, states=states))  # type: ignore[arg-type]
    assert list(predictor.table.names) == []


def test_a_stream_s_name_of_another_type_is_refused() -> None:
    predictor = opened(Bundle.open(PUMP))
    predictor.feed([Reading("pump-7", START, {"pressure": 4.0})])
    state = predictor.state("pump-7")
    wrong: list[tuple[Any, str]] = [(None, "None"), (5, "the int 5"), ([], "an object of type list")]
    for stream, found in wrong:
        for call in (predictor.state, predictor.reset):
            with pytest.raises(ReadingError, match=f"expected a stream that was fed, found {found}"):
                call(stream)
        with pytest.raises(ReadingError, match=f"expected the stream's name as a str, found {found}"):
            predictor.load_state(stream, state)
    assert list(predictor.table.names) == ["pump-7"]
    with pytest.raises(ReadingError, match=r'found "x{60}…"'):
        predictor.state("x" * 10_000)


@pytest.mark.parametrize("task", ["classify", "anomaly"])
def test_a_row_with_an_impossible_count_is_refused_and_changes_nothing(task: str) -> None:
    bundle = Bundle.open(WRITTEN / f"{task}.elstm")
    one = opened(bundle, max_rewind=4)
    one.feed(readings_of(bundle, "mill-1", 30))
    state, before = one.state("mill-1"), one.table.row("mill-1")
    record = one.table.current.dtype
    for name, value in {"classify": [("label", 99), ("rival", -2)], "anomaly": [("calibrated", -1)]}[task]:
        assert record.fields is not None
        kind, offset = record.fields[name][:2]
        row = bytearray(state.row)
        row[offset : offset + kind.itemsize] = np.array(value, kind).tobytes()
        for stream in ("mill-1", "mill-2"):
            with pytest.raises(ReadingError, match=rf"found another row \(expected {name} of .* found {value}\)"):
                one.load_state(stream, dataclasses.replace(state, row=bytes(row)))
    assert one.table.row("mill-1") == before
    assert list(one.table.names) == ["mill-1"]


def test_a_predictor_is_neither_copied_nor_pickled() -> None:
    predictor = opened(Bundle.open(PUMP))
    for attempt in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(EdgeLstmError, match="attempt to copy or pickle a Predictor\nhint: copy or pickle what"):
            attempt(predictor)


def test_two_predictors_of_one_bundle_share_nothing() -> None:
    bundle = Bundle.open(PUMP)
    one, other = opened(bundle), opened(bundle)
    readings = [Reading("pump-7", START + 60 * step, {"pressure": 4.0 + step}) for step in range(5)]
    first = one.feed(readings)
    assert len(other.table) == 0
    assert other.feed(readings) == first


def test_a_store_that_fails_leaves_every_stream_as_it_was() -> None:
    bundle = Bundle.open(WRITTEN / "estimate.elstm")  # on a grid

    def fetch(stream: str) -> bytes | None:
        if stream == "broken":
            raise OSError("no disk")
        return None

    predictor = opened(bundle, fetch=fetch)
    values = {feature.name: 1.0 for feature in bundle.contract.features}
    predictor.feed([Reading("sound", START, values)])
    before = predictor.table.row("sound")
    with pytest.raises(OSError, match="no disk"):
        predictor.feed([Reading("sound", START + 1, values), Reading("broken", START, values)])
    assert predictor.table.row("sound") == before
    assert list(predictor.table.names) == ["sound"]
    odd: Any = lambda stream: "no row"  # noqa: E731
    with pytest.raises(ReadingError, match="expected fetch to return bytes or None, found the str 'no row'"):
        opened(bundle, fetch=odd).state("a")


def test_a_reset_stream_gets_the_predictions_of_a_new_predictor_and_others_keep_their_state() -> None:
    for task in TASKS:
        bundle = Bundle.open(WRITTEN / f"{task}.elstm")
        readings = readings_of(bundle, "mill-1", 80)
        one = opened(bundle, max_rewind=4)
        first = one.feed(readings)
        one.feed(readings_of(bundle, "mill-2", 10))
        neighbour = one.table.row("mill-2")
        one.reset("mill-1")
        assert (one.state("mill-1").step, one.state("mill-1").time) == (0, None)
        assert bits(one.feed(readings)) == bits(first)
        assert one.table.row("mill-2") == neighbour


def test_reset_and_state_of_an_unknown_stream_suggest_a_known_one() -> None:
    predictor = opened(Bundle.open(PUMP))
    with pytest.raises(ReadingError, match=r'found "pump-7"\nhint: feed it a reading first'):
        predictor.reset("pump-7")
    predictor.feed([Reading("pump-7", START, {"pressure": 4.0})])
    for call in (predictor.reset, predictor.state):
        with pytest.raises(ReadingError, match=r'expected a stream that was fed, found "pmp-7"\nhint: did you mean'):
            call("pmp-7")
    assert list(predictor.table.names) == ["pump-7"]


def test_a_stream_that_only_the_store_has_is_known() -> None:
    bundle = Bundle.open(PUMP)
    one = opened(bundle)
    one.feed([Reading("pump-7", START, {"pressure": 4.0})])
    rows = {"pump-7": one.table.row("pump-7")}
    assert opened(bundle, fetch=rows.get).state("pump-7").step == 1
    other = opened(bundle, fetch=rows.get)
    other.reset("pump-7")
    assert other.state("pump-7").step == 0
