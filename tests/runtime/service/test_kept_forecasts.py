"""The forecasts that a service keeps: which of them a reading gets, and which are in the database after a crash."""

from __future__ import annotations

import contextlib
import json
import math
import sqlite3
from collections.abc import Mapping
from pathlib import Path

from edge_lstm.bundle.contract import KnownAhead
from edge_lstm.messages.arrivals import ArrivalClock
from edge_lstm.messages.decoder import Decoder, InputMapping
from edge_lstm.messages.forecasts.forecast_decoder import ForecastDecoder
from edge_lstm.messages.forecasts.forecast_mapping import ForecastMapping
from edge_lstm.mqtt.client.received import Message
from edge_lstm.service.database.store import Store
from edge_lstm.service.database.stored_forecasts import ForecastKey
from edge_lstm.service.intake.kept_forecasts import KeptForecasts
from edge_lstm.service.intake.message_reader import MessageReader
from edge_lstm.service.intake.time_judge import TimeJudge
from edge_lstm.streaming.reading import Reading
from edge_lstm.streaming.stream_watch import StreamWatch
from tests.networks import forecast_contract

NOW = 1_700_000_000.0
OUTDOOR = KnownAhead("outdoor", "weather/{stream}", [1])
_, CONTRACT = forecast_contract(OUTDOOR)


def message(value: float, packet_id: int, stream: str = "a", repeated: bool = False, retained: bool = False) -> Message:
    payload = json.dumps([{"time": NOW, "value": value}, {"time": NOW + 3600, "value": value}]).encode()
    return Message(f"weather/{stream}", payload, packet_id, 1, 1, repeated, retained)


def kept_of(
    stored: list[tuple[ForecastKey, str]] | None = None, most: int = 10, has_session: bool = True
) -> KeptForecasts:
    return KeptForecasts(CONTRACT, ForecastDecoder(CONTRACT, {}), stored or [], most, lambda: has_session)


def value_of(kept: KeptForecasts, stream: str = "a") -> float | None:
    """What a reading gets."""
    return kept.filled(Reading(stream, NOW, {"level": 1.0})).values.get("outdoor+1")


def test_a_reading_gets_the_newest_forecast_of_its_own_stream() -> None:
    kept = kept_of()
    assert value_of(kept) is None
    for number, value in enumerate((1.0, 2.0)):
        kept.take(message(value, number), NOW)
    assert value_of(kept) == 2.0
    assert value_of(kept, "b") is None
    assert kept.counts["forecasts"] == 2


def test_a_message_that_comes_again_changes_nothing() -> None:
    kept = kept_of()
    for number, value in enumerate((1.0, 2.0)):
        kept.take(message(value, number), NOW)
    kept.take(message(1.0, 0, repeated=True), NOW)
    assert value_of(kept) == 2.0
    kept.take(message(1.0, 7), NOW)  # the same forecast, published once more: a tariff that changed back
    assert value_of(kept) == 1.0


def test_a_retained_forecast_is_used_where_none_is_known_or_the_session_is_lost() -> None:
    kept = kept_of()
    kept.take(message(1.0, 1, retained=True), NOW)
    assert value_of(kept) == 1.0
    kept.take(message(2.0, 2, retained=True), NOW)  # the broker has it in the queue as well, in its order
    assert value_of(kept) == 1.0
    lost = kept_of(has_session=False)
    for number, value in enumerate((1.0, 2.0)):
        lost.take(message(value, number, retained=True), NOW)
    assert value_of(lost) == 2.0


def test_a_late_reading_gets_the_forecast_of_its_time_if_messages_say_when_they_were_made() -> None:
    decoder = ForecastDecoder(CONTRACT, {"outdoor": ForecastMapping(issued="made")})
    kept = KeptForecasts(CONTRACT, decoder, [], 10, lambda: True)
    for number, made in enumerate((0, 120, 60)):  # the last one comes late
        payload = {"made": NOW + made, "time": [NOW, NOW + 3600], "value": [made, made]}
        kept.take(message(0.0, number)._replace(payload=json.dumps(payload).encode()), NOW)
    found = [kept.filled(Reading("a", NOW + at, {})).values["outdoor+1"] for at in (0, 59, 60, 119, 120, 500)]
    assert found == [0.0, 0.0, 60.0, 60.0, 120.0, 120.0]


def test_what_is_undone_is_unchanged_and_is_not_stored() -> None:
    kept = kept_of()
    kept.take(message(1.0, 1), NOW)
    kept.begin_batch()
    kept.take(message(2.0, 2), NOW)
    kept.take(message(3.0, 3, stream="b"), NOW)
    kept.undo()
    assert (value_of(kept), value_of(kept, "b")) == (1.0, None)
    assert list(kept.settled(())) == [ForecastKey("outdoor", "a")]


def test_forecasts_behind_a_message_that_waits_are_not_stored_yet() -> None:
    kept = kept_of()
    messages = [message(1.0, 1), message(2.0, 2), message(3.0, 3, stream="b")]
    for one in messages:
        kept.take(one, NOW)
    first = kept.settled({id(messages[1])})  # a message with readings waits between the first two
    again = kept_of([(key, content) for key, content in first.items() if content is not None])
    assert (value_of(again), value_of(again, "b")) == (1.0, None)
    rest = {**first, **kept.settled(())}
    again = kept_of([(key, content) for key, content in rest.items() if content is not None])
    assert (value_of(again), value_of(again, "b")) == (2.0, 3.0)
    assert kept.settled(()) == {}


def test_streams_beyond_the_limit_push_out_those_whose_forecast_is_oldest() -> None:
    kept = kept_of(most=2)
    for number, stream in enumerate("abac"):
        kept.take(message(float(number), number, stream), NOW)
    assert [value_of(kept, stream) for stream in "abc"] == [2.0, None, 3.0]
    assert kept.settled(())[ForecastKey("outdoor", "b")] is None  # which deletes its row


def test_the_database_gives_back_what_was_committed_and_leaves_damaged_rows_out(tmp_path: Path) -> None:
    kept = kept_of()
    for number, stream in enumerate("ab"):
        kept.take(message(float(number), number, stream), NOW)
    store = Store(tmp_path / "state.db", "bundle-1", "current.time <f8\n")
    store.commit(1, [], [], 0, [], 0, forecasts=kept.settled(()))
    store.close(0)
    store = Store(tmp_path / "state.db", "bundle-1", "current.time <f8\n")
    again = kept_of(store.forecasts())
    assert [value_of(again, stream) for stream in "ab"] == [0.0, 1.0]
    again.take(message(0.0, 0, "a", repeated=True), NOW)  # known in another process too
    assert again.settled(()) == {}
    store.commit(2, [], [], 0, [], 0, forecasts={ForecastKey("outdoor", "a"): None})
    store.close(0)
    with contextlib.closing(sqlite3.connect(tmp_path / "state.db", isolation_level=None)) as database:
        database.execute("update forecasts set content = replace(content, '1.0', '9.0')")
    store = Store(tmp_path / "state.db", "bundle-1", "current.time <f8\n")
    assert store.forecasts() == []
    store.close(0)


def test_readings_get_the_forecasts_before_them_also_where_messages_are_read_again() -> None:
    """A message that raises makes the processor read the others again, one by one."""
    reports: list[Mapping[str, object]] = []
    reader = MessageReader(
        Decoder(InputMapping(), ["level"]),
        ArrivalClock(),
        TimeJudge(1e9, 600.0, lambda: True, lambda stream: math.nan),
        lambda identity: False,
        reports.append,
        StreamWatch(CONTRACT.sampling),
        forecasts=kept_of(),
    )
    reading = Message("sensors/a", json.dumps({"time": NOW, "level": 1.0}).encode(), 9, 1, 1, False, False)
    bad = message(0.0, 5)._replace(payload=b"{}")
    messages = [reading, message(1.0, 1), reading, bad, message(2.0, 2), reading]
    expected = [None, 1.0, 2.0]
    assert [one.values.get("outdoor+1") for one in reader.readings(messages)] == expected
    assert reader.ends == [1, 1, 2, 2, 2, 3]
    reader.undo()
    found = [one.values.get("outdoor+1") for each in messages for one in reader.readings([each])]
    assert found == expected
    assert reader.counts["refused"] == 2
    assert "expected points of a forecast" in str(reports[0]["error"])
