"""Topics that a broker refuses: when they pause, for how long, what waits, and when one message tries again."""

from __future__ import annotations

from collections import Counter

import pytest

from edge_lstm.mqtt.paused_topics import PausedTopics
from edge_lstm.mqtt.publisher import Publisher, delivery_of
from edge_lstm.mqtt.reason_codes import PACKET_TOO_LARGE
from edge_lstm.mqtt.send_window import PublishRun

NOT_AUTHORIZED, TAKEN_OVER, UNSPECIFIED = 0x87, 0x8E, 0x80


class Line:
    """A publisher and the broker behind it: which topics it refuses is up to the test."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self.counts: Counter[str] = Counter()
        self.publisher = Publisher(1000, True, self.counts, PausedTopics(lambda: self.now_s))
        self.refused: set[bytes] = set()
        self.delivered: list[bytes] = []  # payloads
        self.attempts: list[bytes] = []  # topics that were refused
        self._packet_id = 0

    def publish(self, topic: str, *payloads: str, family: str | None = "out/{stream}", latest: bool = False) -> None:
        items = [(topic.encode(), payload.encode()) for payload in payloads]
        self.publisher.window.add(items, delivery_of(False, None, family, latest))
        self.work()

    def send(self) -> list[tuple[int, tuple[bytes, bytes]]]:
        """Write what may be written; (packet id, item) of each message."""
        sent = []
        while (run := self.publisher.take()) is not None:
            ids = range(self._packet_id + 1, self._packet_id + 1 + len(run.items))
            self._packet_id += len(run.items)
            self.publisher.window.note_sent(PublishRun(run.numbers, run.items, run.delivery), ids)
            sent += zip(ids, run.items, strict=True)
        return sent

    def work(self) -> None:
        """Send, and let the broker answer everything."""
        while sent := self.send():
            for packet_id, (topic, payload) in sent:
                if topic in self.refused:
                    self.attempts.append(topic)
                    self.publisher.refuse(packet_id, NOT_AUTHORIZED, "Not authorized")
                else:
                    self.delivered.append(payload)
                    self.publisher.confirm([packet_id])

    def wait(self, seconds: float) -> None:
        self.now_s += seconds
        self.work()


@pytest.fixture
def line() -> Line:
    return Line()


def test_a_refused_topic_pauses_and_others_go_on(line: Line) -> None:
    line.refused = {b"out/a"}
    line.publish("out/a", "a1", "a2")
    line.publish("out/b", "b1")
    line.publish("out/a", "a3")
    assert line.delivered == [b"b1"]
    assert line.attempts == [b"out/a", b"out/a"], "both were sent before the first answer"
    assert len(line.publisher.window.unconfirmed) == line.publisher.paused.kept == 3
    assert line.counts["refused"] == 2


def test_pauses_double_from_one_minute_to_sixteen(line: Line) -> None:
    line.refused = {b"out/a"}
    line.publish("out/a", "a1")
    tried_at = []
    for _ in range(3600):
        before = len(line.attempts)
        line.wait(1)
        if len(line.attempts) > before:
            tried_at.append(line.now_s)
    assert tried_at == [60, 180, 420, 900, 1860, 2820]


def test_messages_that_waited_are_sent_in_order_when_allowed(line: Line) -> None:
    line.refused = {b"out/a"}
    line.publish("out/a", "a1", "a2", "a3")
    line.refused = set()
    line.publish("out/a", "a4")
    assert line.delivered == []
    line.wait(60)
    assert line.delivered == [b"a1", b"a2", b"a3", b"a4"]
    line.publish("out/a", "a5")
    assert line.delivered[-1] == b"a5"
    assert not line.publisher.window.unconfirmed
    assert not line.publisher.paused


def test_three_refused_topics_pause_their_whole_family(line: Line) -> None:
    line.refused = {b"out/%d" % number for number in range(100)}
    for number in range(100):
        line.publish(f"out/{number}", f"m{number}")
    assert line.attempts == [b"out/0", b"out/1", b"out/2"]
    line.publish("other", "x", family="other")
    assert line.delivered == [b"x"]
    line.wait(60)
    assert len(line.attempts) == 4, "one message finds out for all"
    line.refused = set()
    line.wait(120)
    assert sorted(line.delivered[1:], key=lambda payload: int(payload[1:])) == line.delivered[1:]
    assert len(line.delivered) == 101


def test_confirmations_in_between_keep_a_family_going(line: Line) -> None:
    line.refused = {b"out/%d" % number for number in range(10)}
    for number in range(20):
        line.publish(f"out/{number % 10 if number % 2 else 10 + number}", f"m{number}")
        line.publish("out/good", f"g{number}")
    assert [payload for payload in line.delivered if payload.startswith(b"g")] == [b"g%d" % at for at in range(20)]


def test_one_attempt_at_a_time_and_a_minute_between_failed_ones(line: Line) -> None:
    line.refused = {b"out/a", b"elsewhere"}
    line.publish("out/a", "a1")
    line.publish("elsewhere", "e1", family="elsewhere")
    line.wait(60)
    assert line.attempts[2:] == [b"out/a"] or line.attempts[2:] == [b"elsewhere"]
    line.wait(59)
    assert len(line.attempts) == 3
    line.wait(1)
    assert set(line.attempts[2:]) == {b"out/a", b"elsewhere"}


def test_the_latest_thousand_wait_and_older_ones_are_counted(line: Line) -> None:
    line.refused = {b"out/a"}
    line.publish("out/a", "first")
    for number in range(1500):
        line.publish("out/a", f"{number}")
    assert line.publisher.paused.kept == len(line.publisher.window.unconfirmed) == 1000
    assert line.counts["dropped"] == 501
    line.refused = set()
    line.wait(60)
    assert line.delivered == [b"%d" % number for number in range(500, 1500)]


def test_a_message_waits_while_five_thousand_newer_ones_are_sent(line: Line) -> None:
    line.refused = {b"out/a"}
    line.publish("out/a", "a1")
    for number in range(50):
        line.publish("out/b", *[f"{number}"] * 100)
    assert line.counts["dropped"] == 0
    line.publish("out/b", "one more", "another")
    line.work()
    assert line.counts["dropped"] == 1
    assert not line.publisher.window.unconfirmed


def test_a_newer_status_replaces_one_that_waits(line: Line) -> None:
    line.refused = {b"stats"}
    for number in range(10):
        line.publish("stats", f"{number}", family="stats", latest=True)
    line.refused = set()
    line.wait(60)
    assert line.delivered == [b"9"]
    assert line.counts["dropped"] == 0
    assert not line.publisher.window.unconfirmed


def test_a_message_without_a_family_is_counted_and_not_kept(line: Line) -> None:
    line.refused = {b"t"}
    line.publish("t", "1", family=None)
    line.publish("t", "2", "3", family=None)
    assert line.counts["refused"] == 3
    assert not line.publisher.window.unconfirmed
    assert line.attempts == [b"t"]


def test_a_message_over_the_limit_is_never_sent_and_the_rest_goes_on(
    line: Line, caplog: pytest.LogCaptureFixture
) -> None:
    line.publisher.connection_made(1000, 100)
    line.publish("out/a", "1", "x" * 200, "2", "y" * 200)
    assert line.delivered == [b"1", b"2"]
    assert line.counts["too_large"] == 2
    assert not line.publisher.window.unconfirmed
    assert caplog.text.count("message of 213 bytes is too large for the broker") == 1
    assert "the broker takes 100 bytes topic=out/a" in caplog.text
    assert [fault["topic"] for fault in line.publisher.faults] == ["out/a"]


def end_connection(line: Line, code: int) -> str | None:
    unanswered = line.publisher.connection_lost(code, "reason")
    line.publisher.window.send_again()
    line.publisher.connection_made(1000, None)
    return unanswered


def test_a_message_that_ends_three_connections_in_a_row_is_set_aside(line: Line) -> None:
    line.publisher.window.add([(b"out/a", b"bad"), (b"out/b", b"good")], delivery_of(False, None, "out/{stream}"))
    answers = []
    for _ in range(3):
        line.send()
        answers.append(end_connection(line, UNSPECIFIED))
    assert answers == ["out/a (3 bytes)", "out/a (3 bytes)", None]
    line.work()
    assert line.delivered == [b"good"]
    assert line.publisher.paused.kept == 1


def test_after_a_loss_one_message_is_sent_until_it_is_answered(line: Line) -> None:
    line.publisher.window.add([(b"out/a", b"%d" % number) for number in range(5)], delivery_of())
    assert len(line.send()) == 5
    end_connection(line, UNSPECIFIED)
    ((packet_id, (_, payload)),) = line.send()
    assert payload == b"0"
    assert line.send() == []
    line.publisher.confirm([packet_id])
    assert [payload for _, (_, payload) in line.send()] == [b"1", b"2", b"3", b"4"]


def test_a_client_id_that_is_taken_over_blames_no_message(line: Line) -> None:
    line.publisher.window.add([(b"out/a", b"1")], delivery_of(False, None, "out/{stream}"))
    for _ in range(5):
        line.send()
        assert end_connection(line, TAKEN_OVER) == "nothing"
    line.work()
    assert line.delivered == [b"1"]


def test_a_disconnect_over_size_gives_up_the_largest_message(line: Line) -> None:
    line.publisher.window.add([(b"out/a", b"1"), (b"out/a", b"x" * 50)], delivery_of(False, None, "out/{stream}"))
    line.send()
    assert end_connection(line, PACKET_TOO_LARGE) is None
    line.work()
    assert line.delivered == [b"1"]
    assert line.counts["too_large"] == 1


def test_an_attempt_whose_connection_ends_counts_as_refused(line: Line) -> None:
    line.refused = {b"out/a"}
    line.publish("out/a", "1")
    line.refused = set()
    line.now_s = 60
    line.send()
    end_connection(line, UNSPECIFIED)
    line.work()
    assert line.delivered == []
    line.wait(119)
    assert line.delivered == []
    line.wait(1)
    assert line.delivered == [b"1"]


def test_a_topic_at_qos_0_pauses_after_a_disconnect_over_it(line: Line) -> None:
    delivery, items = delivery_of(False, None, "out/{stream}"), [(b"out/a", b"1")]
    assert line.publisher.allowed_unkept(items, delivery) == items
    assert line.publisher.connection_lost(NOT_AUTHORIZED, "Not authorized") is None
    assert line.publisher.allowed_unkept(items, delivery) == []
    line.now_s = 60
    assert line.publisher.allowed_unkept(items, delivery) == items
    line.now_s = 75
    line.publisher.connection_lost(UNSPECIFIED, "cable")
    assert line.publisher.allowed_unkept(items, delivery) == items, "the connection lasted: the broker takes it again"


def test_at_most_a_thousand_topics_pause_alone_and_the_oldest_pauses_end_first(line: Line) -> None:
    for number in range(1200):
        line.refused.add(b"out/%d" % number)
        line.publish(f"out/{number}", "x")
        line.publish("out/good", "x")  # so that the family does not pause
    paused = line.publisher.paused
    assert sum(1 for _ in paused) <= 1001
    assert paused.kept <= 1000
    assert line.counts["dropped"] == 1200 - paused.kept
    line.refused.clear()
    line.publish("out/0", "y")
    assert line.delivered[-1] == b"y"
    assert line.publisher.window.unconfirmed == {number for pause in paused for number, *_ in pause.kept}
