"""When a service reconnects because it could not keep all messages, and what it says."""

from __future__ import annotations

import logging
from collections.abc import Mapping

import pytest

from edge_lstm.mqtt.client.received import Message
from edge_lstm.service.intake.inbox import Inbox
from edge_lstm.service.intake.overload import Overload


def message(qos: int = 1) -> Message:
    return Message("t", b"", 1, 1, qos, False, False)


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def full_inbox() -> Inbox:
    inbox = Inbox()
    inbox.add([message()] * 10_000)
    return inbox


def test_it_reconnects_once_all_that_was_kept_is_processed_and_confirmed(caplog: pytest.LogCaptureFixture) -> None:
    inbox = full_inbox()
    overload = Overload(inbox, lambda facts: None, Clock())
    assert not overload.reconnect_due(10_000, 5000, busy=False)
    inbox.add([message()])
    assert not overload.reconnect_due(1, 5000, busy=False), "the kept ones first"
    while inbox.batch():
        assert not overload.reconnect_due(0, 0, busy=True), "some of them cause no prediction"
    assert not overload.reconnect_due(1, 7, busy=False), "published again, these would come twice"
    assert overload.reconnect_due(1, 0, busy=False)
    inbox.keep_only(2)
    assert not overload.reconnect_due(0, 0, busy=False)
    assert overload.reconnects == 1
    assert caplog.text.count("more messages come than can be kept") == 1


def test_it_reconnects_where_a_broker_sends_nothing_more_and_confirms_nothing() -> None:
    inbox, clock = full_inbox(), Clock()
    inbox.add([message()])
    overload = Overload(inbox, lambda facts: None, clock)
    for seconds, received, due in ((0.0, 1, False), (0.9, 0, False), (1.0, 1, False), (1.9, 0, False), (2.1, 0, True)):
        clock.now = 100 + seconds
        assert overload.reconnect_due(received, 5000, busy=False) == due
    assert not overload.reconnect_due(0, 5000, busy=False), "a new connection gets a second as well"


def test_lost_messages_are_told_once_a_minute(caplog: pytest.LogCaptureFixture) -> None:
    inbox, clock = full_inbox(), Clock()
    reported: list[Mapping[str, object]] = []
    overload = Overload(inbox, reported.append, clock)
    for second in range(100):
        clock.now = 100.0 + second
        inbox.add([message(qos=0)])
        assert not overload.reconnect_due(1, 5000, busy=False)
    assert [facts["lost"] for facts in reported] == [1, 61]
    assert [record.levelno for record in caplog.records] == [logging.ERROR] * 2
