"""Messages to readings: what is read, what is missing, what is refused; predictions to payloads and back."""

from __future__ import annotations

import json
import math
from typing import Any, Literal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_lstm import EdgeLstmError
from edge_lstm.decisions.decisions import Decisions
from edge_lstm.foundation.times.text import format_time, parse_time
from edge_lstm.messages.decoder import Decoder, PayloadError, encode_reading
from edge_lstm.messages.encoder import Encoder, decode_prediction, encode_prediction
from edge_lstm.messages.formats import payloads
from edge_lstm.messages.mapping import InputMapping, OutputMapping, ValueMapping
from edge_lstm.streaming.reading import Prediction, Reading
from edge_lstm.streaming.step_results import Outputs, Steps
from tests.device_messages import DeviceMessage, decoders, device_messages

DECODER = Decoder(InputMapping(), ["level", "flow"])


def reading_in(payload: bytes, decoder: Decoder = DECODER, topic: str = "sensors/a") -> Reading:
    """The one reading in a message that came at 0."""
    (reading,) = decoder.readings(topic, payload, {}, 0.0)
    return reading


def test_a_reading_survives_a_round_trip() -> None:
    reading = Reading("tank-1", 1_700_000_000.25, {"level": 1.5, "flow": -2e-7})
    assert reading_in(encode_reading(reading).encode(), topic="sensors/tank-1") == reading
    assert reading_in(encode_reading(reading).encode(), topic="sensors/tank-1") == reading  # the short way


@pytest.mark.parametrize(
    ("time", "seconds"),
    [
        ("2016-07-01T00:00:00-07:00", 1467356400.0),
        ("2016-07-01 07:00:00Z", 1467356400.0),
        ("2016/07/01", 1467331200.0),
        (1467356400, 1467356400.0),
        ("1467356400.5", 1467356400.5),
        (1467356400123, 1467356400.123),
        (1467356400123456, 1467356400.123456),
        ("1467356400123456789", 1467356400.1234567),
        ("2016-07-01T07:00:00.123456789Z", 1467356400.123456),
        ("2016-07-01 07:00:00,5 UTC", 1467356400.5),
        ("2016-07-01T09:00+02", 1467356400.0),
        ("2016-07-01T09:00:00+0200", 1467356400.0),
    ],
)
def test_times_are_read_in_the_formats_of_devices(time: object, seconds: float) -> None:
    payload = json.dumps({"time": time, "level": 1}).encode()
    assert reading_in(payload).time == seconds


def test_null_nan_and_text_are_missing_and_numeric_text_is_a_number() -> None:
    assert reading_in(b'{"time": 1, "level": "21.5", "flow": NaN}').values == {"level": 21.5}
    assert reading_in(b'{"time": 1, "level": null, "flow": 3}').values == {"flow": 3.0}
    assert reading_in(b'{"time": 1, "level": "Unavailable", "flow": " 3e2 "}').values == {"flow": 300.0}
    assert reading_in(b'{"time": 1, "level": ""}').values == {}


def test_switch_values_are_read_as_1_and_0() -> None:
    for yes, no in (
        ("true", "false"),
        ('"ON"', '"OFF"'),
        ('"open"', '"closed"'),
        ('"True"', '"False"'),
        ('"yes"', '"no"'),
    ):
        assert reading_in(f'{{"time": 1, "level": {yes}, "flow": {no}}}'.encode()).values == {"level": 1.0, "flow": 0.0}


@pytest.mark.parametrize(
    ("payload", "found"),
    [
        (b"21.5", "expected an object with keys, found 21.5"),
        (b"\xff\xfe\x00", "expected JSON, found"),
        (b"[" * 100_000, "expected JSON, found"),
        (b"", None),
        (b'{"time": 1, "temperature": 4}', None),
        (b'{"time": 1, "level": "warm"}', 'expected a number under "level", found "warm"'),
        (b'{"time": 1, "level": "1_000"}', 'expected a number under "level", found "1_000"'),
        (b'{"time": 1, "level": "' + b"1" * 70 + b'"}', 'expected a number under "level", found "1111'),
        (b'{"time": 1, "level": "a\\nb"}', r'expected a number under "level", found "a\\nb"'),
        (b'{"time": 1, "level": [1]}', r'expected a number under "level", found \[1\]'),
        (b'{"level": 1}', 'expected the time under "time", found none'),
        (b'{"level": 1, "time": "noon"}', "\"time\": 'noon' is not a time"),
        (b'{"level": 1, "time": Infinity}', '"time": inf is not a time'),
        (b'{"level": 1, "time": 1e300}', '"time": 1e\\+300 is not a time'),
        (b'{"level": 1, "time": "0001-01-01T00:00:00+23:00"}', "is not a time of the years 1 to 9999"),
        (b'{"level": 1, "time": {"a": 1}}', "an object is not a time"),
        (b'{"time": 1, "level": 1e39}', 'expected a number under "level" that float32 holds, found 1e\\+39'),
        (b'{"time": 1, "level": 1e400}', "that float32 holds, found inf"),
        (b'{"time": 1, "level": 1' + b"0" * 400 + b"}", "that float32 holds, found 10000"),
    ],
)
def test_an_unreadable_payload_is_refused_or_ignored(payload: bytes, found: str | None) -> None:
    for _ in range(2):  # the second time the topic is known
        if found is None:
            assert DECODER.readings("sensors/b", payload, {}, 0.0) == []
        else:
            with pytest.raises(PayloadError, match=found):
                DECODER.readings("sensors/b", payload, {}, 0.0)


def test_keys_stream_and_time_can_be_mapped() -> None:
    mapping = InputMapping("plant/+/all", stream="device", time_from="arrival", values={"level": "lvl"})
    decoder = Decoder(mapping, ["level"])
    found = decoder.readings("plant/x/all", b'{"device": 7, "lvl": 2}', {}, 99.0)
    assert found == [Reading("7", 99.0, {"level": 2.0}, arrived=True)]
    with pytest.raises(PayloadError, match="expected a stream's name without"):
        decoder.readings("plant/x/all", b'{"device": "a/b", "lvl": 2}', {}, 99.0)
    assert mapping.topic_filters == ["plant/+/all"]


def test_a_time_without_a_zone_uses_the_zone_of_the_mapping() -> None:
    decoder = Decoder(InputMapping(timezone="Europe/Berlin"), ["level"])
    times = ("2024-07-01T14:00:00", "2024-07-01T14:00:00Z", "2024-01-01 13:00", "2024-10-27T02:30:00")
    found = [reading_in(f'{{"level": 1, "time": "{time}"}}'.encode(), decoder).time for time in times]
    assert [format_time(time) for time in found] == [
        "2024-07-01T12:00:00Z",
        "2024-07-01T14:00:00Z",
        "2024-01-01T12:00:00Z",
        "2024-10-27T00:30:00Z",
    ]


def test_values_are_converted_and_implausible_ones_are_missing() -> None:
    kelvin = ValueMapping("k", offset=-273.15, least=-40, most=60, ignore=[0])
    decoder = Decoder(
        InputMapping(values={"level": kelvin, "flow": ValueMapping(scale=0.001)}, ignore=[999]), ["level", "flow"]
    )
    assert reading_in(b'{"time": 1, "k": 293.15, "flow": 1500}', decoder).values == {"level": 20.0, "flow": 1.5}
    for code in (0, 999, 100, 400):
        payload = f'{{"time": 1, "k": {code}, "flow": 1500}}'.encode()
        assert reading_in(payload, decoder).values == {"flow": 1.5}, code
    assert reading_in(b'{"time": 1, "k": "0.0", "flow": 999.0}', decoder).values == {}


def test_one_bad_reading_does_not_spoil_its_message() -> None:
    decoder = Decoder(InputMapping(), ["level"])
    payload = (
        b'[{"time": 1, "level": 1}, {"time": 2, "level": "much"}, 3, {"time": 4, "uptime": 1}, {"time": 5, "level": 5}]'
    )
    with pytest.raises(PayloadError, match=r'2 of 5 readings do not fit, the first: .* found "much"') as caught:
        decoder.readings("sensors/a", payload, {}, 0.0)
    assert caught.value.readings == [Reading("a", 1.0, {"level": 1.0}), Reading("a", 5.0, {"level": 5.0})]


def test_a_sequence_is_a_number_or_a_short_text() -> None:
    decoder = Decoder(InputMapping(sequence="n"), ["level"])
    found = [
        reading_in(f'{{"time": 1, "level": 1, "n": {n}}}'.encode(), decoder).sequence for n in ("7", '"x"', "null")
    ]
    assert found == ["7", "x", None]
    for wrong in ("1.5", "true", '""', '"\\ud800"', "[]"):
        with pytest.raises(PayloadError, match='expected a number or a short text under "n"'):
            decoder.readings("sensors/a", f'{{"time": 1, "level": 1, "n": {wrong}}}'.encode(), {}, 0.0)


@pytest.mark.parametrize(
    "name", ["a\n", "\x7f", "\ud800", "\ufdd0", "\uffff", "\U0001fffe", "$SYS", "a+", "", "x" * 201]
)
def test_a_stream_name_that_mqtt_forbids_is_refused(name: str) -> None:
    decoder = Decoder(InputMapping("all", stream="device"), ["level"])
    with pytest.raises(PayloadError, match="expected a stream's name"):
        decoder.readings("all", json.dumps({"device": name, "level": 1, "time": 1}).encode(), {}, 0.0)
    assert (
        reading_in(b'{"device": "\xc3\xa4 \xf0\x9f\x98\x80", "level": 1, "time": 1}', decoder, "all").stream == "ä 😀"
    )


def test_an_unfit_mapping_is_refused_with_all_faults() -> None:
    mapping = InputMapping(format="text", time_from="arrival", values={"levle": "a", "x": "b"})
    with pytest.raises(EdgeLstmError) as caught:
        Decoder(mapping, ["level", "flow"])
    assert caught.value.message.splitlines()[1:] == [
        '  input.values.levle: no feature of the bundle; did you mean "level"?',
        "  input.values.x: no feature of the bundle; known here: level, flow",
        "  input.topic: expected {value} in it, since a text is one value and the bundle takes 2 (level, flow), "
        'found "sensors/{stream}"',
    ]


def test_the_memory_for_topics_is_bounded() -> None:
    decoder = Decoder(InputMapping(), ["level"])
    for number in range(10_000):
        decoder.readings(f"sensors/{number}", b'{"time": 1, "level": 1}', {}, 0.0)
    assert len(decoder._meanings) < 5000


SET = 1_720_000_000.0  # an arrival by a clock that is set


def refusal(table: dict[str, Any], time: object) -> str:
    decoder = Decoder(InputMapping(**table), ["level"])
    with pytest.raises(PayloadError) as caught:
        decoder.readings("sensors/a", json.dumps({"time": time, "level": 1}).encode(), {}, SET)
    return str(caught.value)


@pytest.mark.parametrize("time", [120_000, 946_684_799, 4_102_444_800, "1970-01-01T00:00:09Z", "2106-02-07T06:28:15Z"])
def test_a_time_that_no_set_clock_shows_is_refused_while_ours_is_set(time: object) -> None:
    payload = json.dumps({"time": time, "level": 1}).encode()
    decoder = Decoder(InputMapping(), ["level"])
    for _ in range(2):  # the second goes the short way
        with pytest.raises(PayloadError, match='"time": expected a time from 2000 to 2100, found'):
            decoder.readings("sensors/a", payload, {}, SET)
        assert reading_in(payload, decoder).values == {"level": 1.0}  # our clock is not set either
    either = Decoder(InputMapping(time_from="payload-or-arrival"), ["level"])
    assert either.readings("sensors/a", payload, {}, SET)[0].time == SET


def test_a_refused_time_is_shown_in_every_scale_that_fits_it() -> None:
    start = 'set time_from = "arrival" and sequence = "time"'
    assert refusal({}, 120_000) == (
        '"time": expected a time from 2000 to 2100, found 120000: as read now it is 1970-01-02T09:20:00Z; '
        f"if it counts from the device's start (2 minutes as milliseconds), {start}"
    )
    assert 'as days of a spreadsheet 2024-03-01T12:00:00Z (time_unit = "days")' in refusal({}, 45_352.5)
    assert 'as minutes 2024-03-01T00:10:00Z (time_unit = "min")' in refusal({}, 28_487_530)
    assert "as read now it is 1970-01-01T00:02:00Z; if it counts" in refusal({"time_unit": "ms"}, 120_000)
    assert 'time_from = "arrival" or "payload-or-arrival" takes' in refusal({}, "1970-01-01T00:00:09Z")
    assert 'as seconds 2024-03-01T00:00:00Z (time_unit = "s")' in refusal({"time_unit": "ms"}, 1_709_251_200)


def test_a_mapping_that_says_how_times_are_written_may_mean_the_last_century() -> None:
    for table, time in (({"time_unit": "s"}, 820_454_400), ({"time_format": "%d.%m.%Y"}, "01.01.1996")):
        decoder = Decoder(InputMapping(**table), ["level"])
        payload = json.dumps({"time": time, "level": 1}).encode()
        assert decoder.readings("sensors/a", payload, {}, SET)[0].time == 820_454_400.0
    assert "expected a time from 1981 to 2100" in refusal({"time_format": "%d.%m.%Y"}, "06.01.1980")


def test_a_text_in_another_form_than_iso_names_the_key_that_reads_it() -> None:
    for time in ("29.11.2026 19:19:46", "11/29/2026 07:19:46 PM", "Nov 29 2026"):
        assert "time_format" in refusal({}, time)
    forms = {"time_format": ["%d.%m.%Y", "%b %d %Y"]}
    assert refusal(forms, "2026") == '"time": "2026" is not a time: expected one like "%d.%m.%Y" or "%b %d %Y"'


def test_offsets_from_the_start_of_a_device_are_sequences_of_arrivals() -> None:
    decoder = Decoder(InputMapping(time_from="arrival", sequence="time"), ["level"])
    (reading,) = decoder.readings("sensors/a", b'{"time": 120000, "level": 1}', {}, SET)
    assert (reading.time, reading.sequence) == (SET, "120000")


@pytest.mark.parametrize(
    ("facts", "name"),
    [
        ({"model": "Nexus", "id": 5, "at": {"channel": "A"}}, "hall: Nexus-5-A"),
        ({"model": "Nexus", "id": 5}, "hall: Nexus-5"),
        ({"model": "Nexus", "id": 5, "at": {"channel": None}}, "hall: Nexus-5"),
        ({"id": 5}, 'expected the stream\'s name under "model", found none'),
        ({"model": "Nexus", "id": 5.5}, 'expected the stream\'s name under "id", found 5.5'),
        ({"model": "a/b", "id": 5}, '"{site}: {model}-{id}-{at.channel?}": expected a stream\'s name without / + #'),
    ],
)
def test_a_stream_is_named_by_several_fields_and_parts_of_the_topic(facts: dict[str, Any], name: str) -> None:
    template = "{site}: {model}-{id}-{at.channel?}"
    decoder = Decoder(InputMapping("{site}/events", stream=template, time_from="arrival"), ["level"])
    payload = json.dumps({**facts, "level": 1, "site": "not this"}).encode()
    if name.startswith("hall"):
        assert reading_in(payload, decoder, "hall/events").stream == name
    else:
        with pytest.raises(PayloadError) as caught:
            reading_in(payload, decoder, "hall/events")
        assert str(caught.value).startswith(name)


def test_a_template_of_topic_parts_names_a_stream_of_texts() -> None:
    mapping = InputMapping("{line}/{unit}", stream="{line}-{unit}", format="text", time_from="arrival")
    assert reading_in(b"2.5", Decoder(mapping, ["level"]), "a/b") == Reading("a-b", 0.0, {"level": 2.5}, arrived=True)


def test_two_features_of_one_value_are_refused() -> None:
    found = []
    for values in (
        {"level": "v", "flow": "v"},
        {"flow": "level"},
        {"level": ValueMapping("v"), "flow": ValueMapping("v", scale=2.0)},
        {"level": ValueMapping(topic="t"), "flow": ValueMapping(topic="t")},
    ):
        with pytest.raises(EdgeLstmError) as caught:
            Decoder(InputMapping(name="x", values=values), ["level", "flow"])
        found.append(caught.value.message.splitlines()[1])
    expected = "  input.values.flow: expected a value of its own, found"
    assert found == [
        f'{expected} "v", which level takes',
        f'{expected} "level", which level takes',
        f'{expected} "v", which level takes',
        f'{expected} the topic "t", which level takes',
    ]
    ways = {"level": ValueMapping("d", words={"N": 1, "S": -1}), "flow": ValueMapping("d", words={"E": 1, "W": -1})}
    Decoder(InputMapping(values=ways), ["level", "flow"])
    apart = {"level": ValueMapping("v", topic="a"), "flow": ValueMapping("v", topic="b")}
    Decoder(InputMapping(name="x", values=apart), ["level", "flow"])


def test_a_number_may_have_the_unit_of_the_bundle_or_of_the_mapping() -> None:
    scaled = ValueMapping(scale=0.1, unit="kPa")
    decoder = Decoder(InputMapping(values={"flow": scaled}), ["level", "flow"], None, {"level": "°C", "flow": "bar"})
    payload = '{"time": 1, "level": "\u221220.6 \u2103", "flow": "1\u202f200 kPa"}'
    assert reading_in(payload.encode(), decoder).values == {"level": -20.6, "flow": 120.0}
    for facts, hint in (
        ('"level": "20.6 K"', "expected it in °C, or with the key unit in"),
        ('"level": "20.6 V 3 A"', 'found "20.6 V 3 A"'),
        ('"flow": "4.1 bar"', "expected it in kPa, or with the key unit in"),  # scale would make it 0.41
    ):
        with pytest.raises(PayloadError, match=hint):
            reading_in(f'{{"time": 1, {facts}}}'.encode(), decoder)
    unscaled = Decoder(InputMapping(values={"flow": ValueMapping(scale=0.1)}), ["flow"], None, {"flow": "bar"})
    with pytest.raises(PayloadError, match="expected it with the key unit"):
        reading_in(b'{"time": 1, "flow": "4.1 bar"}', unscaled)


@pytest.mark.parametrize("text", ["OVER", "Bad", "---", "#N/A", "No Data", "OL"])
def test_words_of_loggers_are_missing_values_and_still_categories(text: str) -> None:
    payload = json.dumps({"time": 1, "level": text, "flow": 2}).encode()
    assert reading_in(payload).values == {"flow": 2.0}
    state = Decoder(InputMapping(), ["level", "flow"], {"level": ["good", text]})
    assert reading_in(payload, state).values == {"level": 1.0, "flow": 2.0}


ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.just("2024-03-01T00:00:00"),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["time", "level", "flow", "x"]), inner),
    max_leaves=8,
)
SHAPED = st.fixed_dictionaries(
    {"time": st.floats(0, 1e10) | ANY_JSON, "level": st.floats() | ANY_JSON, "flow": ANY_JSON}
)


def outcome(decoder: Decoder, payload: bytes) -> str:
    decoder.readings("sensors/a", b"", {}, 0.0)  # from here on the topic is known, which the short way needs
    try:
        return repr(decoder.readings("sensors/a", payload, {}, 0.0))
    except PayloadError as error:
        return f"refused, but for {error.readings}"


def the_long_way() -> Decoder:
    decoder = Decoder(InputMapping(), ["level", "flow"])
    decoder._flat = None
    return decoder


@given(st.binary(max_size=200) | st.builds(lambda facts: json.dumps(facts).encode(), ANY_JSON | SHAPED))
def test_any_payload_is_read_or_refused_alike_by_every_json_library(payload: bytes) -> None:
    said = outcome(DECODER, payload)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(payloads, "_fast_loads", None)
        assert outcome(Decoder(InputMapping(), ["level", "flow"]), payload) == said
        assert outcome(the_long_way(), payload) == said
    assert outcome(the_long_way(), payload) == said


FUZZED = decoders()
PIECES = [message.payload[at : at + 24] for message in device_messages() for at in range(0, len(message.payload), 24)]


@given(
    st.sampled_from(device_messages()),
    st.lists(st.sampled_from(PIECES) | st.binary(max_size=12), max_size=6),
    st.integers(0, 400),
    st.text(max_size=6),
)
def test_altered_device_messages_are_at_most_refused(
    message: DeviceMessage, pieces: list[bytes], at: int, level: str
) -> None:
    payload = message.payload[:at] + b"".join(pieces) + message.payload[at:]
    for topic in (message.topic, f"{message.topic}{level}"):
        try:
            readings = FUZZED[message.mapping].readings(topic, payload, message.properties, 1.7e9)
        except PayloadError as error:
            assert len(str(error)) < 1000  # noqa: PT017
            readings = error.readings
        for reading in readings:
            format_time(reading.time)
            (reading.stream + (reading.sequence or "")).encode()


def a_prediction(value: float = 1.25) -> Prediction:
    return Prediction("tank-1", 1_700_000_000.0, 12, 3, {"level": {1: value, 5: -0.5}})


NESTED = {
    "stream": "tank-1",
    "time": "2023-11-14T22:13:20Z",
    "step": 12,
    "warm_steps": 3,
    "revision": 0,
    "bundle": "0123456789ab",
    "predictions": {"level": {"1": 1.25, "5": -0.5}},
}


def test_a_prediction_survives_json() -> None:
    payload = encode_prediction(a_prediction(), "0123456789ab")
    assert payload == json.dumps(NESTED, separators=(",", ":"))
    assert decode_prediction(payload) == a_prediction()
    assert Encoder(OutputMapping(), "0123456789ab").payload(a_prediction()) == payload.encode()


def test_a_flat_prediction_has_its_values_at_the_top_level() -> None:
    payload = Encoder(OutputMapping(format="flat"), "0123456789ab").payload(a_prediction())
    rest = {name: fact for name, fact in NESTED.items() if name != "predictions"}
    assert json.loads(payload) == {**rest, "level+1": 1.25, "level+5": -0.5}


def test_a_prediction_that_went_without_something_names_it() -> None:
    lacking = a_prediction()._replace(degraded=("outdoor", "tariff"))
    payload = encode_prediction(lacking, "0123456789ab")
    assert json.loads(payload) == {**NESTED, "degraded": ["outdoor", "tariff"]}
    assert decode_prediction(payload) == lacking
    flat = json.loads(Encoder(OutputMapping(format="flat"), "0123456789ab").payload(lacking))
    assert (flat["degraded_1"], flat["degraded_2"]) == ("outdoor", "tariff")


def test_messagepack_and_json_predictions_are_equal() -> None:
    msgpack = pytest.importorskip("msgpack")
    encoder = Encoder(OutputMapping("out/{stream}/next", format="msgpack"), "0123456789ab")
    assert msgpack.unpackb(encoder.payload(a_prediction())) == NESTED
    assert encoder.topic("tank-1") == "out/tank-1/next"


@given(st.text(max_size=20), st.floats(), st.integers(-(10**12), 10**12))
def test_any_prediction_is_valid_json_without_nan(name: str, value: float, step: int) -> None:
    prediction = Prediction(name, 1.7e9, step, 1, {name: {1: value}})
    text = encode_prediction(prediction, "b")
    if math.isfinite(value):
        facts = {
            **NESTED,
            "stream": name,
            "step": step,
            "warm_steps": 1,
            "bundle": "b",
            "predictions": {name: {"1": value}},
        }
        assert text == json.dumps(facts, separators=(",", ":"))
    else:
        assert json.loads(text)["predictions"] == {name: {"1": None}}
        assert math.isnan(decode_prediction(text).values[name][1])


@given(st.integers(-(10**12), 10**13))
def test_times_keep_their_milliseconds(milliseconds: int) -> None:
    assert abs(parse_time(format_time(milliseconds / 1000)) - milliseconds / 1000) < 5e-4


@given(st.integers(-(10**15), 10**16 // 2))
def test_times_keep_their_microseconds(microseconds: int) -> None:
    text = format_time(microseconds / 1e6)
    assert round(parse_time(text) * 1e6) == microseconds
    assert len(text) == (27 if microseconds % 1000 else 24 if microseconds % 1_000_000 else 20)


def test_a_payload_over_max_bytes_is_refused_before_it_is_decoded() -> None:
    decoder = Decoder(InputMapping(max_bytes=100), ["level"])
    good = b'{"time": 1, "level": 2.5}'
    for _ in range(2):  # the second goes the short way
        assert [one.values for one in decoder.readings("sensors/a", good.ljust(100), {}, 0.0)] == [{"level": 2.5}]
    for payload in (good.ljust(101), b"[" * 1_000_000):
        with pytest.raises(PayloadError, match=rf"expected at most 100 bytes \(max_bytes\), found {len(payload)}"):
            decoder.readings("sensors/a", payload, {}, 0.0)


def steps_of(values: list[list[float]], outputs: Outputs, decided: dict[str, Any] | None = None) -> Steps:
    """Steps of as many streams, whose names and times are awkward ones."""
    count = len(values)
    streams = [f'tank "{place}" 100 %s\n{{}}ü' for place in range(count)]
    times = np.array([1e9 + place // 2 + (place % 3) / 1000 for place in range(count)])
    numbers = np.arange(1, count + 1)
    nothing: list[str | None] = [None] * count
    given = {"labels": nothing, "scores": None, "alarms": None, "turned": np.zeros(count, np.bool_)} | (decided or {})
    found = Decisions(np.array(values, np.float32), **given)
    revisions = (numbers % 2).astype(np.uint16)
    return Steps(outputs, range(count), streams, times, numbers, numbers + 5, revisions, found)


@pytest.mark.parametrize("form", ["nested", "flat"])
@pytest.mark.parametrize("target", ["level", 'a "quoted" 100 %s:0.0{}', "Füllstand"])
def test_many_predictions_are_encoded_like_single_ones(target: str, form: Literal["nested", "flat"]) -> None:
    numbers = [0.1, -3.4028235e38, 1e-45, 0.0, -0.0, math.nan, math.inf, 5.0, 9.999e-4, 1e-3, 1e12, -16777216.0]
    labels = {"labels": ['a "%d"' if place % 2 else "b" for place in range(len(numbers))]}
    scores = {"scores": np.array([*numbers[:-1], 1.23456789]), "alarms": np.arange(len(numbers)) % 2 > 0}
    lacking = {"degraded": [() if place % 2 else ('a "%d"', "b") for place in range(len(numbers))]}
    for decided in ({}, labels, scores, lacking, {**scores, **lacking}):
        values = [[number, 2.5, 1e16, -1.0] for number in numbers]
        steps = steps_of(values, [(target, [1, 24]), ("other", [1, 24])], decided)
        encoder = Encoder(OutputMapping("out/{stream}/next", format=form), "58fb %s 74592d47")
        expected = [(encoder.topic(one.stream), encoder.payload(one)) for one in steps.predictions()]
        assert encoder.messages(steps) == expected
        assert all(json.loads(payload)["bundle"] == "58fb %s 74592d47" for _, payload in expected)
        assert encoder.messages(steps.at([3])) == expected[3:4]
        assert encoder.messages(steps.at([])) == []


def test_many_messagepack_predictions_are_encoded_like_single_ones() -> None:
    pytest.importorskip("msgpack")
    encoder = Encoder(OutputMapping(format="msgpack"), "b")
    steps = steps_of([[1.5, math.nan]], [("level", [1, 24])])
    assert [payload for _, payload in encoder.messages(steps)] == [encoder.payload(steps.predictions()[0])]
