"""The inbox: batches in order, bounded by count and by bytes."""

from __future__ import annotations

from edge_lstm.mqtt.client.received import Message
from edge_lstm.service.intake.inbox import Inbox


def messages(count: int, size: int = 10, connection: int = 1, qos: int = 1) -> list[Message]:
    return [Message("t", bytes(size), number + 1, connection, qos, False, False) for number in range(count)]


def test_batches_come_out_in_order_and_none_is_too_large() -> None:
    intake = Inbox()
    waiting = messages(1050)
    intake.add(waiting)
    batches = [intake.batch() for _ in range(4)]
    assert [len(batch) for batch in batches] == [500, 500, 50, 0]
    assert [message for batch in batches for message in batch] == waiting
    intake.add(messages(4, size=200_000))
    assert [len(intake.batch()) for _ in range(3)] == [2, 2, 0]


def test_the_inbox_is_full_by_count_or_by_bytes() -> None:
    for count, size in ((1000, 10), (5, 1_000_000)):
        intake = Inbox()
        intake.add(messages(count - 1, size))
        assert not intake.full
        intake.add(messages(1, size))
        assert intake.full
        while intake.batch():
            pass
        assert not intake.full
        assert len(intake) == 0


def test_only_qos_0_messages_of_an_earlier_connection_are_kept() -> None:
    intake = Inbox()
    intake.add(messages(5, size=1_000_000))
    lost_otherwise = messages(1, qos=0)
    of_now = messages(3, connection=2)
    intake.add(lost_otherwise + of_now)
    intake.keep_only(connection=2)
    assert not intake.full
    assert intake.batch() == lost_otherwise + of_now


def test_topics_and_properties_count_as_well_as_payloads() -> None:
    intake = Inbox()
    one = Message("t" * 60_000, b"", 1, 1, 1, False, False, {"wanted": "v" * 30_000})
    for count in range(1, 100):
        intake.add([one])
        assert intake.full == (90_000 * count >= 1 << 22)


def test_beyond_the_bound_nothing_more_of_the_connection_is_kept() -> None:
    for count, size in ((10_000, 10), (90, 100_000)):
        intake = Inbox()
        intake.add(messages(count, size))
        assert not intake.closed
        assert list(intake.add(messages(5))) == []
        assert intake.closed
        while intake.batch():
            pass
        assert list(intake.add(messages(5))) == []
        assert len(intake) == 0, "after a gap nothing is kept, though there is room"
        intake.keep_only(connection=2)
        intake.add(messages(5, connection=2))
        assert (len(intake), intake.lost) == (5, 0)


def test_what_does_not_come_again_is_lost_and_counted() -> None:
    intake = Inbox()
    intake.add(messages(10_000))
    of_qos_0 = messages(3, qos=0)
    assert list(intake.add([*of_qos_0, of_qos_0[0]._replace(retained=True)])) == [
        *of_qos_0,
        of_qos_0[0]._replace(retained=True),
    ]
    assert (intake.closed, intake.lost) == (False, 3), "what is retained is no reading"
    without_session = Inbox(sends_again=False)
    without_session.add(messages(10_000))
    unkept = messages(3)
    assert list(without_session.add(unkept)) == unkept, "unacknowledged ones would fill the broker's window"
    assert (without_session.closed, without_session.lost) == (False, 3)


def test_messages_of_a_topic_that_is_apart_are_batches_of_their_own() -> None:
    inbox = Inbox(apart="commands")
    found = [Message(topic, b"x", number, 0, 1, False, False) for number, topic in enumerate("aab")]
    command = Message("commands", b"y", 9, 0, 1, False, False)
    inbox.add([found[0], found[1], command, command, found[2]])
    assert not inbox.next_is_apart
    assert inbox.batch() == found[:2]
    assert inbox.next_is_apart
    assert [inbox.batch(), inbox.batch(), inbox.batch()] == [[command], [command], [found[2]]]
    assert not inbox
