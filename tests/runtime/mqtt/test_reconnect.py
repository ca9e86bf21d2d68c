"""The pauses between attempts to connect, by a clock that the test moves."""

from __future__ import annotations

import pytest

from edge_lstm.mqtt.reconnect import ReconnectTimer


class FakeTime:
    """Stands in for the module `time`."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def monotonic(self) -> float:
        return self.now_s


@pytest.fixture
def time(monkeypatch: pytest.MonkeyPatch) -> FakeTime:
    fake = FakeTime()
    monkeypatch.setattr("edge_lstm.mqtt.reconnect.time", fake)
    monkeypatch.setattr("edge_lstm.mqtt.reconnect.random.uniform", lambda least, most: most)
    return fake


def test_pauses_between_attempts_double_up_to_five_seconds(time: FakeTime) -> None:
    timer = ReconnectTimer()
    assert timer.wait_s <= 0
    pauses = []
    for _ in range(8):
        timer.attempt_begins()
        timer.attempt_failed()
        pauses.append(round(timer.wait_s, 3))
        time.now_s += timer.wait_s
    assert pauses == [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0]


def test_a_pause_is_a_random_half_to_whole_of_its_length(time: FakeTime, monkeypatch: pytest.MonkeyPatch) -> None:
    timer = ReconnectTimer()
    monkeypatch.setattr("edge_lstm.mqtt.reconnect.random.uniform", lambda least, most: least)
    timer.attempt_failed()
    assert timer.wait_s == pytest.approx(0.05)


def test_only_a_short_connection_is_followed_by_a_pause(time: FakeTime) -> None:
    timer = ReconnectTimer()
    timer.attempt_begins()
    time.now_s += 4.9
    timer.connection_ended()
    assert timer.wait_s == pytest.approx(0.1)
    time.now_s += 0.1
    timer.attempt_begins()
    time.now_s += 5.0
    timer.connection_ended()
    assert timer.wait_s <= 0
    timer.attempt_failed()
    assert timer.wait_s == pytest.approx(0.1), "the pauses start from the first again"


def test_the_third_short_connection_in_a_row_is_reported(time: FakeTime) -> None:
    timer = ReconnectTimer()
    reported = []
    for lasted_s in (1.0, 1.0, 10.0, 9.9, 9.9, 9.9, 9.9):
        timer.attempt_begins()
        time.now_s += lasted_s
        reported.append(timer.lost_again())
    assert reported == [False, False, False, False, False, True, True]


def test_losses_for_a_known_reason_are_not_reported(time: FakeTime) -> None:
    timer = ReconnectTimer()
    reported = []
    for reason_is_known in (False, False, True, False, False, False):
        timer.attempt_begins()
        time.now_s += 1.0
        if reason_is_known:
            timer.lost_for_a_reason()
        else:
            reported.append(timer.lost_again())
    assert reported == [False, False, False, False, True]
