"""Values that say their own name: lists of them, SenML, keys as names, line protocol; hostile ones stay cheap."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

from edge_lstm import Reading
from edge_lstm.foundation.times.text import format_time
from edge_lstm.messages.decoder import Decoder, PayloadError
from edge_lstm.messages.discovery.found_keys import found_keys
from edge_lstm.messages.formats.named_values import is_good
from tests.device_messages import decoder

NOW = 1_720_000_000.0
LISTED = {"topic": "a/{stream}", "readings": "values", "value_name": "n", "time": "t"}
SENML = {"topic": "a/{stream}", "format": "senml"}
INFLUX = {"topic": "a/{stream}", "format": "influx", "time_from": "payload-or-arrival"}


def decoded(table: dict[str, Any], message: object, units: dict[str, str] | None = None) -> list[Reading]:
    one = decoder(table, ["level", "flow"])
    if units is not None:
        one = Decoder(one._mapping, ["level", "flow"], None, units)
    payload = message.encode() if isinstance(message, str) else json.dumps(message).encode()
    return one.readings("a/s", payload, {}, NOW)


def test_values_of_one_time_become_one_reading_and_others_parts() -> None:
    entries = [("flow", 3, 20), ("level", 1, 10), ("flow", 2, 10), ("pump", 9, 10)]
    values = [{"n": name, "value": value, "t": 1_709_251_200 + second} for name, value, second in entries]
    assert decoded(LISTED, {"values": values}) == [
        Reading("s", 1_709_251_210.0, {"level": 1.0, "flow": 2.0}),
        Reading("s", 1_709_251_220.0, {"flow": 3.0}, None, True),
    ]


def test_a_value_that_comes_twice_in_a_message_is_the_last_one() -> None:
    values = [{"n": "level", "value": value} for value in (1, 2)]
    assert decoded(LISTED, {"t": NOW, "values": values})[0].values == {"level": 2.0}


def test_a_list_of_objects_that_hold_lists_is_read_with_each_ones_time() -> None:
    batches = [{"t": NOW + second, "values": [{"n": "level", "value": second}]} for second in (-20, -10)]
    found = [(reading.time, reading.values["level"]) for reading in decoded(LISTED, [*batches, {"other": 1}])]
    assert found == [(NOW - 20, -20.0), (NOW - 10, -10.0)]


def test_one_entry_without_a_list_is_read_too() -> None:
    table = {"topic": "a/{stream}", "value_name": "sensor", "value": "data.value"}
    message = {"time": NOW, "sensor": "level", "data": {"value": "1.5"}}
    assert decoded(table, message) == [Reading("s", NOW, {"level": 1.5}, None, True)]


@pytest.mark.parametrize(
    ("quality", "good"),
    [
        *((quality, True) for quality in (True, None, "Good", "GoodClamped", 192, 216, 1)),
        *((quality, False) for quality in (False, "Bad", "Uncertain", 0, 64, [], 2**31)),
    ],
)
def test_a_value_of_another_quality_than_good_is_missing(quality: object, good: bool) -> None:
    assert is_good(quality) is good
    (reading,) = decoded({**LISTED, "quality": "q"}, {"t": NOW, "values": [{"n": "level", "value": 1, "q": quality}]})
    assert (reading.values["level"] == 1.0) is good


def test_keys_as_names_give_a_reading_for_each_stream() -> None:
    table = {"topic": "plant", "name_pattern": ["{stream}.{value}.PV", "{stream}/{value}"], "readings": "tags"}
    one = decoder({**table, "values": {"level": "LT1"}, "value": "v", "time": "at"}, ["level", "flow"])
    tags = {"P1.LT1.PV": {"v": 4, "at": NOW - 5}, "P1.flow.PV": {"v": 2}, "P2/LT1": {"v": 3}, "P1.LT1.SP": {"v": 8}}
    found = one.readings("plant", json.dumps({"at": NOW - 5, "tags": tags}).encode(), {}, NOW)
    assert found == [
        Reading("P1", NOW - 5, {"level": 4.0, "flow": 2.0}),
        Reading("P2", NOW - 5, {"level": 3.0}, None, True),
    ]


def test_parts_of_topic_name_and_payload_make_one_stream_name() -> None:
    table = {**LISTED, "topic": "a/{line}", "name_pattern": "{unit}-{value}", "stream": "{line}.{unit}.{meta.id?}"}
    message = {"t": NOW, "meta": {"id": 7}, "values": [{"n": "U3-level", "value": 1}]}
    assert decoded(table, message)[0].stream == "s.U3.7"
    assert decoded(table, {**message, "meta": {}})[0].stream == "s.U3"


def test_senml_times_are_relative_to_the_arrival_or_absolute() -> None:
    pack = [{"bn": "urn:", "n": "level", "v": 1, "t": -10}, {"n": "flow", "v": 2}, {"n": "level", "v": 3, "t": 1.7e9}]
    assert decoded(SENML, pack) == [
        Reading("s", 1.7e9, {"level": 3.0}, None, True),
        Reading("s", NOW - 10, {"level": 1.0}, None, True),
        Reading("s", NOW, {"flow": 2.0}, None, True),
    ]


def test_senml_names_match_as_a_whole_or_without_their_base() -> None:
    pack = [{"bn": "urn:x:", "bt": 1.7e9, "n": "level", "v": 1}, {"n": "flow", "v": 2}]
    assert decoded(SENML, pack)[0].values == {"level": 1.0, "flow": 2.0}
    whole = {**SENML, "values": {"level": "urn:x:level", "flow": "urn:y:flow"}}
    assert decoded(whole, pack)[0].values == {"level": 1.0}


@pytest.mark.parametrize(("unit", "fits"), [("bar", True), ("Pa", False)])
def test_a_senml_value_in_another_unit_than_the_bundle_is_refused(unit: str, fits: bool) -> None:
    pack = [{"bt": 1.7e9, "bu": unit, "n": "level", "v": 1}]
    if fits:
        assert decoded(SENML, pack, {"level": "bar"})[0].values == {"level": 1.0}
    else:
        with pytest.raises(PayloadError, match=r'expected "level" in bar, found it in "Pa": convert it with scale'):
            decoded(SENML, pack, {"level": "bar"})
    converted = {**SENML, "values": {"level": {"scale": 1e-5}}}
    assert decoded(converted, pack, {"level": "bar"})[0].values["level"] == 1e-5


def test_a_bad_record_or_line_costs_only_itself() -> None:
    csv = {"topic": "a/{stream}", "format": "csv", "columns": ["time", "level", "flow"]}
    with pytest.raises(PayloadError, match=r"1 of 2 readings do not fit, the first: expected 3 columns") as caught:
        decoded(csv, "1700000000,1\n1700000000,1,2\n")
    assert caught.value.readings == [Reading("s", 1.7e9, {"level": 1.0, "flow": 2.0})]
    with pytest.raises(PayloadError, match=r"1 of 3 values do not fit, the first: expected a SenML record") as caught:
        decoded(SENML, [{"bt": 1.7e9, "n": "level", "v": 1}, 7, {"n": "flow", "v": 2}])
    assert caught.value.readings == [Reading("s", 1.7e9, {"level": 1.0, "flow": 2.0})]
    with pytest.raises(PayloadError, match=r"1 of 2 readings do not fit, the first: expected line protocol") as caught:
        decoded(INFLUX, "m level=x 1700000000\nm level=1,flow=2 1700000000")
    assert caught.value.readings == [Reading("s", 1.7e9, {"level": 1.0, "flow": 2.0})]


@pytest.mark.parametrize(
    ("line", "values"),
    [
        ("m level=1,flow=-2.5e3", {"level": 1.0, "flow": -2500.0}),
        ("m level=3i,flow=4u", {"level": 3.0, "flow": 4.0}),
        ("m level=T,flow=false", {"level": 1.0, "flow": 0.0}),
        (r'm\ x\,y,a\=b=c\ d level=1,note="a, \"b\" = \\",flow=2', {"level": 1.0, "flow": 2.0}),
        ('m note="two\nlines",level=1,flow=2', {"level": 1.0, "flow": 2.0}),
        ('m level="1.5",flow="OVER"', {"level": 1.5}),
        ("m,level=7 flow=2", {"level": 7.0, "flow": 2.0}),
        ("  m level=1,flow=2  \r\n# m level=5\n\n", {"level": 1.0, "flow": 2.0}),
    ],
)
def test_line_protocol_is_read_with_its_types_and_escapes(line: str, values: dict[str, float]) -> None:
    (reading,) = decoded(INFLUX, line)
    assert (reading.values, reading.time) == (values, NOW)


def test_a_text_field_of_line_protocol_can_name_the_stream() -> None:
    one = decoder({"topic": "all", "format": "influx", "stream": "{host}", "time_from": "arrival"}, ["level"])
    found = one.readings("all", rb'm,x=1 host="a \"b\" \\ c\d",level=1', {}, NOW)
    assert [reading.stream for reading in found] == ['a "b" \\ c\\d']


@pytest.mark.parametrize(
    ("unit", "time"), [(None, 1709251200), (None, 1709251200250000000), ("ms", 1709251200250), ("us", 1709251200250000)]
)
def test_line_protocol_has_times_of_any_precision(unit: str | None, time: int) -> None:
    table = {**INFLUX, **({"time_unit": unit} if unit else {})}
    (reading,) = decoded(table, f"m level=1 {time}")
    assert format_time(reading.time) == ("2024-03-01T00:00:00Z" if time < 1e10 else "2024-03-01T00:00:00.250Z")


@pytest.mark.parametrize(
    "line", ["m", "m ", "m,a level=1", "m level", "m level=", "m level=1 noon", "m level=1_0", ",a=b c=1"]
)
def test_a_line_that_is_no_line_protocol_is_refused(line: str) -> None:
    with pytest.raises(PayloadError, match="expected line protocol"):
        decoded(INFLUX, line)


def test_named_values_are_found_in_a_message() -> None:
    mapping = decoder(SENML, [])._mapping
    assert list(found_keys(mapping, "a/b", b'[{"bn":"urn:","n":"t","v":1},{"n":"p","v":2}]')) == ["urn:t", "urn:p"]
    keys = decoder({"topic": "x", "name_pattern": "{stream}.{value}"}, [])._mapping
    assert list(found_keys(keys, "x", b'{"time":5,"P1.level":4}')) == ["level"]
    assert found_keys(keys, "x", b'{"time":5}') == {}


@pytest.mark.parametrize(
    ("table", "payload"),
    [
        (INFLUX, b"x\n" * 131_000),
        (INFLUX, b"a" + b",b=c" * 65_000),
        (INFLUX, b'a b="' + b'\\"' * 130_000),
        (INFLUX, b"\\" * 262_144),
        (SENML, b"[" + b"1," * 131_000 + b"1]"),
        ({"topic": "a/{stream}"}, b'{"level":1,"time":"' + b"1[" * 130_000 + b'"}'),
    ],
)
def test_no_payload_takes_long(table: dict[str, Any], payload: bytes) -> None:
    one = decoder(table, ["level", "flow"])
    begun = time.thread_time()
    for _ in range(2):  # the second goes the short way
        with pytest.raises(PayloadError):
            one.readings("a/s", payload, {}, NOW)
    assert time.thread_time() - begun < 2.0


def test_the_memory_for_names_of_values_is_bounded() -> None:
    one = decoder({"topic": "a/{stream}", "name_pattern": "{unit}.{value}"}, ["level"])
    for number in range(10):
        names = {f"U{number}-{place}.level": 1 for place in range(1000)}
        one.readings("a/s", json.dumps({"time": NOW, **names}).encode(), {}, NOW)
    assert one._names is not None
    assert len(one._names._meanings) <= 4096
