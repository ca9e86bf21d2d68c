"""What a caller of the Python API may give as readings, and the sentence for what it may not."""

from __future__ import annotations

import math
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from decimal import Decimal
from typing import Any

import numpy as np
import pytest

from edge_lstm import Bundle, BundleError, Predictor, Reading, ReadingError
from edge_lstm.recordings.replay import replay
from tests.paths import FIXTURES, PUMP

FORECAST = FIXTURES / "written_by_0_1_0/bundles/forecast.elstm"
TIME = 1_767_225_600.0
SOUND = {"pressure": 4.0, "flow": 12.0}


def pump() -> Predictor:
    return Predictor.from_bundle(PUMP, "numpy")


def test_a_path_an_open_bundle_and_the_older_name_give_the_same_predictor() -> None:
    bundle = Bundle.open(PUMP)
    made = [
        Predictor.from_bundle(PUMP),
        Predictor.from_bundle(str(PUMP)),
        Predictor.from_bundle(bundle),
        Predictor.of(bundle),
    ]
    found = [one.predict(Reading("a", TIME, SOUND)) for one in made]
    assert found == [found[0]] * 4
    assert {(one.backend.name, one.backend.scheme) for one in made} == {(made[0].backend.name, "int8")}
    with pytest.raises(BundleError, match=r"expected a bundle at nowhere\.elstm"):
        Predictor.from_bundle("nowhere.elstm")


def test_predict_takes_one_reading_or_many_and_feed_takes_many() -> None:
    readings = [Reading(stream, TIME + 60 * step, SOUND) for step in range(3) for stream in ("a", "b")]
    expected = pump().feed(readings)
    assert [(one.stream, one.step) for one in expected] == [("a", 1), ("b", 1), ("a", 2), ("b", 2), ("a", 3), ("b", 3)]
    one = pump()
    assert [found for reading in readings for found in one.predict(reading)] == expected
    assert pump().predict(readings) == pump().predict(iter(readings)) == pump().feed(tuple(readings)) == expected
    assert one.predict([]) == []
    with pytest.raises(ReadingError, match=r"expected an iterable of readings, found one Reading\nhint: call predict"):
        one.feed(readings[0])


def test_a_datetime_with_a_time_zone_is_the_same_moment_as_its_seconds() -> None:
    moment = datetime(2026, 1, 1, 1, tzinfo=timezone(timedelta(hours=1)))
    expected = pump().predict(Reading("a", TIME, SOUND))
    assert pump().predict(Reading("a", moment, SOUND)) == expected
    assert pump().predict(Reading("a", int(TIME), SOUND)) == expected
    assert pump().predict(Reading("a", np.float64(TIME), SOUND)) == expected
    assert type(expected[0].time) is float
    with pytest.raises(ReadingError, match="expected a time with a time zone, found 2026-01-01T00:00:00 without one"):
        pump().predict(Reading("a", datetime(2026, 1, 1), SOUND))


@pytest.mark.parametrize("missing", [None, math.nan, np.float32(math.nan), Decimal("NaN")])
def test_a_missing_value_is_held(missing: Any) -> None:
    one, other = pump(), pump()
    for predictor in (one, other):
        predictor.predict(Reading("a", TIME, SOUND))
    (found,) = one.predict(Reading("a", TIME + 60, {"pressure": missing, "flow": 13.0}))
    (expected,) = other.predict(Reading("a", TIME + 60, {"flow": 13.0}))
    assert found == expected
    assert one.totals["missing"] == other.totals["missing"] == 1


@pytest.mark.parametrize("kind", [int, np.int64, np.float32, Decimal, np.array, bool])
def test_every_kind_of_number_is_taken(kind: Any) -> None:
    expected = pump().predict(Reading("a", TIME, {"pressure": 1.0, "flow": 12.0}))
    assert pump().predict(Reading("a", TIME, {"pressure": kind(1), "flow": 12.0})) == expected


def test_an_unknown_name_is_refused_with_a_suggestion() -> None:
    predictor = pump()
    with pytest.raises(ReadingError) as caught:
        predictor.predict(Reading("a", TIME, {"presure": 4.0}))
    assert caught.value.message == 'reading 0 of stream "a": expected values of pressure, flow, found "presure"'
    assert caught.value.hint == 'did you mean "pressure"?'
    with pytest.raises(ReadingError, match=r'found "presure"'):
        predictor.predict(Reading("a", TIME, {"presure": 4.0}), ignore_unknown=True)  # none is known
    both = Reading("a", TIME, {"presure": 4.0, "flow": 12.0})
    with pytest.raises(ReadingError, match=r'did you mean "pressure"\?; or pass ignore_unknown=True'):
        predictor.feed([both])
    assert predictor.feed([both], ignore_unknown=True) == pump().predict(Reading("a", TIME, {"flow": 12.0}))


def test_a_reading_without_a_value_is_refused() -> None:
    with pytest.raises(ReadingError, match=r'found none\nhint: give {"pressure": None} where a value is missing'):
        pump().predict(Reading("a", TIME, {}))
    assert len(pump().predict(Reading("a", TIME, {"pressure": None}))) == 1


def faulty(**changes: Any) -> Reading:
    facts: dict[str, Any] = {"stream": "a", "time": TIME, "values": SOUND}
    return Reading(**{**facts, **changes})


class NotATime(datetime):
    """As pandas.NaT: a datetime whose offset and seconds are no numbers."""

    def utcoffset(self) -> Any:
        return math.nan

    def timestamp(self) -> float:
        return math.nan


WRONG: list[tuple[Any, str]] = [
    ({"stream": "a"}, r"reading 1: expected a Reading, found an object of type dict\nhint: write Reading\("),
    (("a", TIME, SOUND), "reading 1: expected a Reading, found an object of type tuple"),
    (None, "reading 1: expected a Reading, found None"),
    (faulty(stream=7), "reading 1: expected the stream's name as a str, found the int 7"),
    (faulty(time="2026-01-01T00:00:00Z"), "as a datetime with a time zone, found the str '2026-01-01T00:00:00Z'"),
    (faulty(time=None), "as a datetime with a time zone, found None"),
    (faulty(time=True), "as a datetime with a time zone, found the bool True"),
    (faulty(time=np.datetime64("2026-01-01")), "as a datetime with a time zone, found an object of type datetime64"),
    (faulty(time=math.nan), "expected time in seconds since 1970, of the years 1 to 9999, found nan"),
    (faulty(time=math.inf), "of the years 1 to 9999, found inf"),
    (faulty(time=TIME * 1000), r"found 1.76723e\+12\nhint: convert milliseconds to seconds"),
    (faulty(values=[4.0, 12.0]), "expected values as a mapping of names to numbers, found an object of type list"),
    (faulty(values={"pressure": "4.0"}), "expected a number for pressure, found the str '4.0'"),
    (faulty(values={"pressure": [4.0]}), "expected a number for pressure, found an object of type list"),
    (faulty(values={"pressure": np.zeros(2)}), "expected a number for pressure, found an object of type ndarray"),
    (faulty(values={"pressure": 10**5000}), "expected a number for pressure, found int"),
    (faulty(values={"pressure": 4.0, 5: 1.0}), "expected values of pressure, flow, found the int 5"),
    (faulty(time=np.bool_(True)), "as a datetime with a time zone, found an object of type bool"),
    (faulty(time=np.complex128(TIME)), "as a datetime with a time zone, found an object of type complex128"),
    (faulty(time=np.array([TIME])), "as a datetime with a time zone, found an object of type ndarray"),
    (faulty(time=NotATime(2026, 1, 1)), "expected time in seconds since 1970, of the years 1 to 9999, found nan"),
    (faulty(time=datetime.min.replace(tzinfo=timezone(timedelta(hours=5)))), "of the years 1 to 9999, found -6.2"),
    (faulty(values={"pressure": np.array([4.0])}), "expected a number for pressure, found an object of type ndarray"),
    (faulty(values={"pressure": np.complex64(4.0)}), "a number for pressure, found an object of type complex64"),
    (faulty(values={"pressure": np.str_("4.0")}), "expected a number for pressure, found the str_ "),
    (faulty(partial="no"), "expected partial as True or False, found the str 'no'"),
    (faulty(restart=1), "expected restart as True or False, found the int 1"),
    (faulty(partial=np.zeros(2)), "expected partial as True or False, found an object of type ndarray"),
    (faulty(sequence=12), "expected sequence as a str or None, found the int 12"),
]


@pytest.mark.parametrize(("wrong", "said"), WRONG)
def test_what_is_no_reading_gets_a_sentence_and_nothing_steps(wrong: Any, said: str) -> None:
    predictor = pump()
    sound = Reading("a", TIME, SOUND)
    with pytest.raises(ReadingError, match=said):
        predictor.feed([sound, wrong])
    assert predictor.totals["samples"] == 0
    assert len(predictor.table) == 0
    assert len(predictor.feed([sound])) == 1


def test_what_is_not_iterable_gets_a_sentence_and_a_fault_of_the_caller_s_iterator_stays() -> None:
    def broken() -> Iterator[Reading]:
        yield Reading("a", TIME, SOUND)
        raise TypeError("of the caller")

    with pytest.raises(ReadingError, match="expected readings, found the int 5"):
        pump().feed(5)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="of the caller"):
        pump().feed(broken())


def test_an_argument_of_a_wrong_type_gets_a_sentence() -> None:
    for wrong, said in ((Reading, "found the class Reading"), (np.array(5), "found an object of type ndarray")):
        for call in (pump().predict, pump().feed):
            with pytest.raises(ReadingError, match=f"expected readings, {said}"):
                call(wrong)  # type: ignore[arg-type]
    with pytest.raises(ReadingError, match="expected ignore_unknown as True or False, found the str 'no'"):
        pump().feed([Reading("a", TIME, SOUND)], ignore_unknown="no")  # type: ignore[arg-type]


def test_a_generator_that_raises_has_stepped_nothing() -> None:
    def broken() -> Iterator[Reading]:
        yield Reading("a", TIME, SOUND)
        raise LookupError("of the caller")

    predictor = pump()
    with pytest.raises(LookupError, match="of the caller"):
        predictor.feed(broken())
    assert (predictor.totals["samples"], len(predictor.table)) == (0, 0)


def test_a_sequence_of_half_a_character_is_an_identity_too() -> None:
    predictor = Predictor.from_bundle(PUMP, "numpy", "float32", window=4)
    reading = Reading("a", TIME, SOUND, sequence="\udc80", arrived=True)
    assert len(predictor.feed([reading])) == 1
    assert predictor.feed([reading._replace(time=TIME + 60)]) == []
    assert predictor.totals["duplicate"] == 1


def test_a_category_s_text_is_refused_with_its_index() -> None:
    predictor = Predictor.from_bundle(FORECAST, "numpy")
    with pytest.raises(ReadingError, match=r"""found the str 'high'\nhint: give its index: "high" is 1"""):
        predictor.predict(Reading("mill-1", TIME, {"speed": 14.0, "gear": "high"}))  # type: ignore[dict-item]
    assert len(predictor.predict(Reading("mill-1", TIME, {"speed": 14.0, "gear": 1.0}))) == 1


def test_the_service_and_a_replay_ignore_what_the_api_refuses() -> None:
    readings = [Reading("a", TIME, {"presure": 4.0}), Reading("a", TIME + 60, {}), Reading("a", TIME + 120, SOUND)]
    assert [one.step for one in replay(pump(), readings)] == [1, 2, 3]
    steps = pump().feed_columns(readings)
    assert steps is not None
    assert steps.steps.tolist() == [1, 2, 3]
