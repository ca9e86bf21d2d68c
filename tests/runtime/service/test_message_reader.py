"""What becomes of messages: readings, or counts, log lines and reports."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Mapping

import pytest

from edge_lstm.bundle.contract import Sampling
from edge_lstm.messages.arrivals import ArrivalClock
from edge_lstm.messages.decoder import Decoder, InputMapping
from edge_lstm.mqtt.client.received import Message
from edge_lstm.service.intake.message_reader import MessageReader, message_identity
from edge_lstm.service.intake.time_judge import TimeJudge
from edge_lstm.streaming.stream_watch import StreamWatch

DAY_S = 86_400.0


class Reports:
    """Collects what goes to the errors topic."""

    def __init__(self) -> None:
        self.facts: list[Mapping[str, object]] = []


def message(payload: str, *, packet_id: int = 1, repeated: bool = False, retained: bool = False) -> Message:
    return Message("sensors/tank-0", payload.encode(), packet_id, 1, 1, repeated, retained)


def reader_of(
    processed: set[str] | None = None,
    reports: Reports | None = None,
    mapping: InputMapping | None = None,
    last: Mapping[str, float] | None = None,
    watch: StreamWatch | None = None,
) -> MessageReader:
    """`last`: the last times of streams."""
    return MessageReader(
        Decoder(mapping or InputMapping(), ["level"]),
        ArrivalClock(),
        TimeJudge(DAY_S, 600.0, lambda: True, lambda stream: (last or {}).get(stream, math.nan)),
        (processed or set()).__contains__,
        (reports or Reports()).facts.append,
        watch or StreamWatch(Sampling()),
    )


def test_good_readings_come_in_order_and_nothing_is_counted() -> None:
    reader = reader_of()
    readings = reader.readings([message(f'{{"time": {1_700_000_000 + n}, "level": {n}}}') for n in range(3)])
    assert [reading.values["level"] for reading in readings] == [0.0, 1.0, 2.0]
    assert not any(reader.counts.values())


def test_a_refused_message_is_counted_and_reported_once_a_minute(caplog: pytest.LogCaptureFixture) -> None:
    reports = Reports()
    reader = reader_of(reports=reports)
    assert reader.readings([message("21.5"), message("[")]) == []
    assert reader.counts["refused"] == 2
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    assert caplog.records[0].getMessage().startswith("payload refused topic=sensors/tank-0 refused=1: expected ")
    assert len(reports.facts) == 1
    assert (reports.facts[0]["topic"], reports.facts[0]["refused"]) == ("sensors/tank-0", 1)


def test_the_first_refused_message_of_each_stream_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    watch = StreamWatch(Sampling())
    reader = reader_of(watch=watch)
    for number in range(3):
        topics = [f"sensors/tank-{number}", "sensors/tank-0"]
        reader.readings([Message(topic, b"[", 1, 1, 1, False, False) for topic in topics])
    assert [line.split()[2] for line in caplog.messages] == [f"topic=sensors/tank-{number}" for number in range(3)]
    assert watch.worst(2) == [{"stream": "tank-0", "refused": 4}, {"stream": "tank-1", "refused": 1}]


def test_streams_of_messages_that_the_broker_sends_again_are_known() -> None:
    reader = reader_of()
    again, fresh = (message('{"time": 1700000000, "level": 4}', repeated=repeated) for repeated in (True, False))
    reader.readings([again])
    assert reader.redelivered == {"tank-0"}
    reader.readings([fresh])
    assert reader.redelivered == set()


def test_the_good_readings_of_a_partly_refused_message_are_kept() -> None:
    reader = reader_of()
    (reading,) = reader.readings([message('[{"time": 1700000000, "level": 4}, {"time": 1700000060, "level": "x"}]')])
    assert reading.values == {"level": 4.0}
    assert reader.counts["refused"] == 1


def test_a_message_without_a_mapped_key_is_ignored_and_not_reported(caplog: pytest.LogCaptureFixture) -> None:
    reports = Reports()
    reader = reader_of(reports=reports)
    assert reader.readings([message('{"time": 1700000000}'), message("")]) == []
    assert (reader.counts["ignored"], reader.counts["refused"], reports.facts) == (2, 0, [])
    assert caplog.text.count("message ignored") == 1


def test_a_retained_message_is_never_a_fresh_reading() -> None:
    reader = reader_of()
    assert reader.readings([message('{"time": 1700000000, "level": 4}', retained=True)]) == []
    assert (reader.counts["retained"], reader.counts["ignored"]) == (1, 0)


def test_a_repeated_message_counts_only_if_it_was_processed_before() -> None:
    known, unknown = (
        message('{"time": 1700000000, "level": 4}', packet_id=packet_id, repeated=True) for packet_id in (7, 8)
    )
    reader = reader_of(processed={message_identity(known)})
    assert len(reader.readings([known, unknown])) == 1
    assert reader.counts["repeated"] == 1


def test_a_processed_message_without_the_repeat_flag_is_another_message() -> None:
    one = message('{"time": 1700000000, "level": 4}')
    assert len(reader_of(processed={message_identity(one)}).readings([one])) == 1


@pytest.mark.parametrize(("ahead_s", "refused"), [(DAY_S - 600, 0), (DAY_S + 600, 1)])
def test_a_reading_further_ahead_than_the_bound_is_refused(ahead_s: float, refused: int) -> None:
    reader = reader_of()
    readings = reader.readings([message(f'{{"time": {time.time() + ahead_s}, "level": 4}}')])
    assert (len(readings), reader.counts["refused"], len(reader.refusals)) == (1 - refused, refused, refused)
    reader.readings([])
    assert reader.refusals == []


def test_a_stream_far_ahead_restarts_at_its_first_reading_with_a_right_time() -> None:
    reader = reader_of(last={"tank-0": time.time() + 2 * DAY_S})
    messages = [message(f'{{"time": {time.time() - 10 + n}, "level": {n}}}') for n in range(3)]
    assert [reading.restart for reading in reader.readings(messages)] == [True, False, False]


def test_arrival_times_restart_a_stream_that_is_ahead_of_them() -> None:
    reader = reader_of(mapping=InputMapping(time_from="arrival"), last={"tank-0": time.time() + 3600})
    readings = reader.readings([message('[{"level": 1}, {"level": 2}]'), message('{"level": 3}')])
    assert [reading.restart for reading in readings] == [True, False, False]


def test_readings_without_times_get_arrival_times_that_rise() -> None:
    reader = reader_of(mapping=InputMapping(time_from="arrival"))
    readings = reader.readings([message('[{"level": 1}, {"level": 2}]'), message('{"level": 3}')])
    times = [reading.time for reading in readings]
    assert len(times) == 3
    assert times == sorted(set(times))


def test_identities_differ_by_packet_id_topic_and_payload() -> None:
    one = message("a")
    others = [one._replace(packet_id=2), one._replace(topic="sensors/tank-1"), one._replace(payload=b"b")]
    assert len({message_identity(other) for other in [one, *others]}) == 4
    assert message_identity(one) == message_identity(one._replace(repeated=True, connection=2))
