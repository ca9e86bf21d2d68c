"""Drivers and events in payloads, and the messages about events."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest

from edge_lstm.messages.encoder import Encoder, decode_prediction, encode_prediction
from edge_lstm.messages.events.alarm_events import AlarmEvents, EventMessage, decode_event, encode_event
from edge_lstm.messages.mapping import OutputMapping
from edge_lstm.recordings.replay import predictions_csv
from edge_lstm.streaming.predictor import Predictor
from edge_lstm.streaming.reading import Driver, Event, Prediction, Reading
from tests.networks import random_network
from tests.runtime.decisions.test_drivers import Persists, detector, predictor, readings, values_of
from tests.runtime.decisions.test_events import with_offset

DRIVERS = [Driver("flow", 0.97654321, 16.25, 10.0), Driver("pressure", 0.25, math.nan, 20.0), Driver("level", 0, 1, 2)]
EVENT = Event("pump@2023-11-14T22:13:20Z", 1_700_000_000.0, 1.7345678, 1_700_000_060.0)


def a_prediction(**changes: Any) -> Prediction:
    said = Prediction("pump", 1_700_000_060.0, 12, 3, {"flow": {1: 1.5}}, 0, None, 0.5, alarm=False)
    return said._replace(drivers=DRIVERS, event=EVENT, **changes)


def test_drivers_and_event_follow_the_other_keys_of_a_payload() -> None:
    facts = json.loads(encode_prediction(a_prediction(), "b"))
    assert list(facts)[-3:] == ["predictions", "drivers", "event"]
    assert facts["drivers"][:2] == [
        {"sensor": "flow", "share": 0.97654321, "is": 16.25, "expected": 10.0},
        {"sensor": "pressure", "share": 0.25, "is": None, "expected": 20.0},
    ]
    assert facts["event"] == {
        "id": "pump@2023-11-14T22:13:20Z",
        "since": "2023-11-14T22:13:20Z",
        "peak": 1.73457,
        "until": "2023-11-14T22:14:20Z",
    }
    back = decode_prediction(encode_prediction(a_prediction(), "b"))
    assert back.event == EVENT._replace(peak=1.73457)
    assert back.drivers is not None
    assert repr(back.drivers) == repr([*DRIVERS[:2], Driver("level", 0.0, 1.0, 2.0)])


def test_a_flat_payload_has_drivers_and_event_at_its_top_level() -> None:
    facts = json.loads(Encoder(OutputMapping(format="flat"), "b").payload(a_prediction()))
    assert [facts[f"driver_1{part}"] for part in ("", "_share", "_is", "_expected")] == [
        "flow",
        0.97654321,
        16.25,
        10.0,
    ]
    assert facts["driver_2_is"] is None
    assert (facts["event_id"], facts["event_peak"]) == (EVENT.id, 1.73457)
    assert facts["event_until"] == "2023-11-14T22:14:20Z"


def test_a_payload_without_them_has_no_new_key() -> None:
    plain = a_prediction()._replace(drivers=None, event=None)
    assert set(json.loads(encode_prediction(plain, "b"))) == {
        *("stream", "time", "step", "warm_steps", "revision", "bundle", "score", "alarm", "predictions")
    }


def test_a_service_publishes_three_drivers_and_replay_prints_all() -> None:
    four = [*DRIVERS, Driver("speed", 0.0, 1.0, 1.0)]
    said = a_prediction()._replace(drivers=four)
    assert len(json.loads(encode_prediction(said, "b"))["drivers"]) == 4
    assert len(json.loads(Encoder(OutputMapping(), "b").payload(said))["drivers"]) == 3


@pytest.mark.parametrize("form", ["nested", "flat", "msgpack"])
def test_steps_with_drivers_and_events_are_encoded_like_single_predictions(form: Any) -> None:
    if form == "msgpack":
        pytest.importorskip("msgpack")
    steps = predictor().feed_columns(readings(with_offset(100, 120)))
    assert steps is not None
    encoder = Encoder(OutputMapping(format=form), "b")
    found = [payload for _, payload in encoder.messages(steps)]
    assert found == [encoder.payload(one) for one in steps.predictions()]
    assert sum(b"driver" in payload for payload in found) > 20


def test_a_csv_has_columns_of_drivers_and_event() -> None:
    header, row = predictions_csv([a_prediction(values={name: {1: 1.0} for name in NAMES})], detector()).splitlines()
    told = dict(zip(header.split(","), row.split(","), strict=True))
    assert (told["driver_1"], told["driver_1_share"], told["driver_2_is"]) == ("flow", "0.97654321", "nan")
    assert (told["event_id"], told["event_until"]) == (EVENT.id, "2023-11-14T22:14:20Z")
    bare = a_prediction(values={name: {1: 1.0} for name in NAMES})._replace(drivers=None, event=None)
    assert predictions_csv([bare], detector()).splitlines()[1].endswith("1.0" + "," * 16)


NAMES = ("flow", "pressure", "level")
OFFSET = 1.3  # of one value: an alarm, and none after an offset to the other side


def told(one: Predictor, batches: list[list[Reading]]) -> list[EventMessage]:
    """The messages about events of readings that are fed batch by batch."""
    events = AlarmEvents("b", one.table)
    fed = (one.feed_columns(batch) for batch in batches)
    return [message for steps in fed if steps is not None for message in events.messages(steps)]


def changes(messages: list[EventMessage]) -> list[tuple[str, float]]:
    return [(one.head.change, one.event.since) for one in messages]


def test_an_event_is_told_at_its_begin_each_power_of_two_and_its_end() -> None:
    values = with_offset(100, 120, 0.0)
    values[100:120, 0] += np.linspace(1, 20, 20)
    said = told(predictor(), [[one] for one in readings(values)])
    assert [one.head.change for one in said] == ["begin", *["peak"] * (len(said) - 2), "end"]
    assert len({one.event.id for one in said}) == 1
    scores = [one.event.peak for one in said[:-1]]
    bands = [math.floor(math.log2(score)) for score in scores]
    assert bands == list(range(bands[0], bands[0] + len(bands)))
    assert len(bands) > 3
    end = said[-1]
    assert end.event.until == end.head.time
    assert end.event.peak >= scores[-1]
    assert {moment: told[0].sensor for moment, told in end.drivers.items()} == {"begin": "flow", "peak": "flow"}
    assert end.drivers["begin"] == said[0].drivers["begin"]
    assert end.drivers["peak"][0].measured > end.drivers["begin"][0].measured


def test_a_message_about_an_event_survives_json() -> None:
    for message in told(predictor(), [readings(with_offset(100, 120))]):
        text = encode_event(message)
        peak = float(f"{message.event.peak:.6g}")
        back = decode_event(text)
        assert (back.head, back.event) == (message.head, message.event._replace(peak=peak))
        for moment, drivers in message.drivers.items():
            assert [one.sensor for one in back.drivers[moment]] == [one.sensor for one in drivers]
        assert set(message.drivers) == ({"begin"} if message.head.change == "begin" else {"begin", "peak"})
    with pytest.raises(ValueError, match="expected a message about an alarm, found"):
        decode_event('{"kind": "alarm"}')


def late_predictor() -> Predictor:
    return Predictor(detector(), Persists(random_network(inputs=3, outputs=3)), max_rewind=20)


def test_a_late_reading_that_moves_an_event_withdraws_it_and_tells_the_other_one() -> None:
    fed = readings(with_offset(100, 120))
    said = told(late_predictor(), [fed[:100], fed[103:110], fed[100:103], fed[110:]])
    assert [one for one in changes(said) if one[0] != "peak"] == [
        ("begin", 6180.0),
        ("withdrawn", 6180.0),
        ("begin", 6000.0),
        ("end", 6000.0),
    ]


def test_a_late_reading_that_removes_an_event_withdraws_it() -> None:
    values = values_of(102)
    values[100:] = [10.0, 20.0, 30.0]
    values[101, 0] += OFFSET
    late = Reading("pump", 6030.0, {"flow": 10.0 - 0.6 * OFFSET, "pressure": 20.0, "level": 30.0})
    one = late_predictor()
    said = told(one, [readings(values), [late]])
    assert changes(said) == [("begin", 6060.0), ("withdrawn", 6060.0)]
    assert said[1].head.revision == 1
    assert one.table.announced[one.table.slot("pump")].item() == (0.0, 0)


def test_what_was_told_is_in_the_row() -> None:
    fed = readings(with_offset(100, 120))
    whole = told(predictor(), [[one] for one in fed])
    for cut in (101, 105, 119):
        first = predictor()
        before = told(first, [[one] for one in fed[:cut]])
        second = predictor()
        second.table.put_row("pump", first.table.row("pump"), first.table.layout)
        assert list(map(encode_event, before + told(second, [[one] for one in fed[cut:]]))) == list(
            map(encode_event, whole)
        )
