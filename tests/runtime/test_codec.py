"""Messages to readings: what fits, what is missing, what is refused and how; predictions to payloads and back."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_lstm.codec import (
    Decoder,
    InputMapping,
    PayloadError,
    decode_prediction,
    encode_prediction,
    encode_reading,
    topic_faults,
)
from edge_lstm.reading import Prediction, Reading
from edge_lstm.times import format_time, parse_time

DECODER = Decoder(InputMapping(), ["level", "flow"])


def test_a_reading_survives_the_way_there_and_back() -> None:
    reading = Reading("tank-1", 1_700_000_000.25, {"level": 1.5, "flow": -2e-7})
    assert DECODER.reading("sensors/tank-1", encode_reading(reading).encode(), 0.0) == reading


@pytest.mark.parametrize(
    ("time", "seconds"),
    [
        ("2016-07-01T00:00:00-07:00", 1467356400.0),
        ("2016-07-01 07:00:00Z", 1467356400.0),
        ("2016/07/01", 1467331200.0),
        (1467356400, 1467356400.0),
        ("1467356400.5", 1467356400.5),
        (1467356400123, 1467356400.123),
    ],
)
def test_times_as_devices_write_them(time: object, seconds: float) -> None:
    payload = json.dumps({"time": time, "level": 1}).encode()
    assert DECODER.reading("sensors/a", payload, 0.0).time == seconds


def test_null_nan_and_absent_values_are_missing_and_numeric_text_is_a_number() -> None:
    payload = b'{"time": 1, "level": "21.5", "flow": NaN}'
    assert DECODER.reading("sensors/a", payload, 0.0).values == {"level": 21.5}
    assert DECODER.reading("sensors/a", b'{"time": 1, "level": null, "flow": 3}', 0.0).values == {"flow": 3.0}


@pytest.mark.parametrize(
    ("payload", "found"),
    [
        (b"21.5", "expected a JSON object, found '21.5'"),
        (b"\xff\xfe\x00", "expected a JSON object"),
        (b"[" * 100_000, "expected a JSON object"),
        (b'{"time": 1, "level": "warm"}', 'expected a number under "level", found "warm"'),
        (b'{"time": 1, "level": true}', 'expected a number under "level", found True'),
        (b'{"time": 1, "level": [1]}', r'expected a number under "level", found \[1\]'),
        (b'{"time": 1, "temperature": 4}', 'expected a number under one of the keys "level", "flow"'),
        (b'{"level": 1}', 'expected the time under "time", found none'),
        (b'{"level": 1, "time": "noon"}', "\"time\": 'noon' is not a time"),
        (b'{"level": 1, "time": Infinity}', '"time": inf is not a time'),
        (b'{"time": 1, "level": 1' + b"0" * 400 + b"}", "found one of 401 digits"),
    ],
)
def test_a_payload_that_does_not_fit_is_refused_with_what_was_found(payload: bytes, found: str) -> None:
    with pytest.raises(PayloadError, match=found):
        DECODER.reading("sensors/a", payload, 0.0)


def test_keys_stream_and_clock_can_be_mapped() -> None:
    mapping = InputMapping("plant/+/all", stream="device", time_from="arrival", values={"level": "lvl"})
    decoder = Decoder(mapping, ["level"])
    assert decoder.reading("plant/x/all", b'{"device": 7, "lvl": 2}', 99.0) == Reading("7", 99.0, {"level": 2.0})
    with pytest.raises(PayloadError, match="expected a stream's name without"):
        decoder.reading("plant/x/all", b'{"device": "a/b", "lvl": 2}', 99.0)
    assert mapping.topic_filter == "plant/+/all"


def test_a_topic_pattern_that_mixes_streams_is_refused() -> None:
    assert [fault for _, fault in InputMapping("sensors/all").faults()] == [
        'expected {stream} once in the topic, or none and stream = "key", found "sensors/all"'
    ]
    assert list(topic_faults("a/{stream}/b", wildcards=False)) == []
    assert len(list(topic_faults("a/x{stream}/#/{b}", wildcards=True))) == 3


@given(st.binary(max_size=200))
def test_no_payload_does_more_than_be_refused(payload: bytes) -> None:
    try:
        reading = DECODER.reading("sensors/a", payload, 0.0)
    except PayloadError:
        return
    assert set(reading.values) <= {"level", "flow"}


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["time", "level", "x"]), inner),
        max_leaves=8,
    )
)
def test_no_json_does_more_than_be_refused(facts: object) -> None:
    try:
        reading = DECODER.reading("sensors/a", json.dumps(facts).encode(), 0.0)
    except PayloadError:
        return
    assert reading.stream == "a"


def test_a_prediction_is_json_with_stream_time_step_and_bundle_and_reads_back() -> None:
    prediction = Prediction("tank-1", 1_700_000_000.0, 12, 3, {"level": {1: 1.25, 5: -0.5}})
    payload = encode_prediction(prediction, "0123456789ab")
    assert json.loads(payload) == {
        "stream": "tank-1",
        "time": "2023-11-14T22:13:20Z",
        "step": 12,
        "warm_steps": 3,
        "revision": 0,
        "bundle": "0123456789ab",
        "predictions": {"level": {"1": 1.25, "5": -0.5}},
    }
    assert decode_prediction(payload) == prediction


@given(st.integers(-(10**12), 10**13))
def test_times_keep_their_milliseconds(milliseconds: int) -> None:
    assert abs(parse_time(format_time(milliseconds / 1000)) - milliseconds / 1000) < 5e-4
