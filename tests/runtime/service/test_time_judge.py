"""What the judge says about a reading's time, with a clock that is known to be right, or not known to be."""

from __future__ import annotations

import math

import pytest

from edge_lstm import Predictor
from edge_lstm.backends.reference import ReferenceBackend
from edge_lstm.bundle.contract import Sampling
from edge_lstm.service.intake.time_judge import TimeJudge
from edge_lstm.streaming.reading import Reading, Refusal
from tests.networks import contract_of, random_network

NOW = 1_800_000_000.0
MINUTE, HOUR, DAY, YEAR = 60.0, 3600.0, 86_400.0, 31_536_000.0
STEP, RESTART, REFUSE = "step", "restart", "refuse"


def judge_of(
    last: dict[str, float], right: bool = False, max_ahead_s: float = 300.0, newest: float = math.inf
) -> TimeJudge:
    judge = TimeJudge(max_ahead_s, 600.0, lambda: right, lambda stream: last.get(stream, math.nan), newest)
    judge.begin_batch(NOW)
    return judge


def verdict(judged: Reading | Refusal) -> str:
    return REFUSE if isinstance(judged, Refusal) else RESTART if judged.restart else STEP


def reading(ahead_s: float, stream: str = "pump") -> Reading:
    return Reading(stream, NOW + ahead_s, {"flow": 1.0})


# The last time of the stream and the time of the reading, both as seconds ahead of the clock, and the verdict by a
# clock that is known to be right, and by one that is not.
SITUATIONS = {
    "new stream, right": (None, -2, STEP, STEP),
    "new stream, a little ahead": (None, 200, STEP, STEP),
    "new stream, an hour ahead": (None, HOUR, REFUSE, STEP),
    "in order": (-62, -2, STEP, STEP),
    "the device goes ahead": (-62, HOUR, REFUSE, STEP),
    "the device stays ahead": (HOUR, HOUR + 60, REFUSE, STEP),
    "put right after an hour ahead": (HOUR, -2, RESTART, RESTART),
    "put right after a day ahead": (DAY, 5, RESTART, RESTART),
    "put right after a year ahead": (YEAR, -2, RESTART, RESTART),
    "put right, ten minutes old": (HOUR, -600, RESTART, RESTART),
    "put right, ten hours old": (DAY, -10 * HOUR, RESTART, RESTART),
    "put right, a backlog of two days": (DAY, -2 * DAY, RESTART, STEP),
    "put back, but still ahead": (DAY, HOUR, REFUSE, RESTART),
    "put back by less than max_ahead_s": (400, 150, STEP, STEP),
    "put back by less than max_gap_s": (500, -20, RESTART, STEP),
    "ahead by less than max_ahead_s, then right": (290, -20, STEP, STEP),
    "late": (-2, -600, STEP, STEP),
    "late by a day": (-2, -DAY, STEP, STEP),
    "our clock three days behind, in order": (3 * DAY - 60, 3 * DAY, REFUSE, STEP),
    "our clock three days behind, late": (3 * DAY, 3 * DAY - 600, REFUSE, STEP),
    "our clock three days behind, after the outage": (-60, 3 * DAY, REFUSE, STEP),
    "our clock a year ahead, in order": (-YEAR - 60, -YEAR, STEP, STEP),
    "our clock ten minutes behind, late by two": (600, 480, REFUSE, STEP),
}


@pytest.mark.parametrize("right", [True, False], ids=["known to be right", "not known"])
@pytest.mark.parametrize("situation", SITUATIONS)
def test_a_reading_is_judged_by_its_clock_ours_and_its_stream(situation: str, right: bool) -> None:
    last, ahead_s, by_right, by_unknown = SITUATIONS[situation]
    judge = judge_of({} if last is None else {"pump": NOW + last}, right)
    assert verdict(judge.own_timed(reading(ahead_s), NOW)) == (by_right if right else by_unknown)
    assert judge.restarts == ((by_right if right else by_unknown) == RESTART)


def test_a_clock_that_was_never_set_refuses_nothing_even_if_it_is_trusted() -> None:
    judge = judge_of({}, right=True)
    assert verdict(judge.own_timed(Reading("pump", NOW, {}), 1000.0)) == STEP


def test_nine_readings_a_day_ahead_do_not_silence_a_stream() -> None:
    for right in (True, False):
        judge = judge_of({"pump": NOW - 60}, right)
        times = [DAY + 60 * n for n in range(9)] + [60 * n for n in range(5)]
        found = [verdict(judge.own_timed(reading(time), NOW)) for time in times]
        assert found[:9] == [REFUSE if right else STEP] * 9
        assert found[9:] == [STEP if right else RESTART, *[STEP] * 4]


def test_a_batch_knows_the_restarts_of_its_own_readings() -> None:
    judge = judge_of({"pump": NOW + HOUR})
    times = (HOUR + 60, -60, 0, HOUR, 30, 60)
    assert [verdict(judge.own_timed(reading(time), NOW)) for time in times] == [
        STEP, RESTART, STEP, STEP, RESTART, STEP,
    ]  # fmt: skip
    assert verdict(judge.own_timed(reading(0, "other"), NOW)) == STEP


def test_a_stream_restarts_once_and_others_do_not() -> None:
    last = {"a": NOW + HOUR, "b": NOW - 60}
    judge = judge_of(last)
    assert [verdict(judge.own_timed(reading(n, s), NOW)) for n in range(3) for s in "ab"] == [RESTART, *[STEP] * 5]
    last.update(a=NOW + 2, b=NOW + 2)
    judge.begin_batch(NOW + 3)
    assert [verdict(judge.own_timed(reading(n, s), NOW + 3)) for n in (3, 4) for s in "ab"] == [STEP] * 4


@pytest.mark.parametrize(
    ("last", "ahead_s", "expected"),
    [(None, 0, STEP), (-60, 0, STEP), (700, 0, RESTART), (14 * DAY, 0, RESTART), (YEAR, 0, RESTART)],
)
def test_an_arrival_time_restarts_a_stream_that_is_ahead(last: float | None, ahead_s: float, expected: str) -> None:
    judge = judge_of({} if last is None else {"pump": NOW + last})
    judged = judge.arrival_timed(reading(ahead_s))
    assert (verdict(judged), judged.time) == (expected, NOW + ahead_s)


@pytest.mark.parametrize("ahead_s", [0.0, 0.25, 599.0])
def test_an_arrival_time_is_never_late(ahead_s: float) -> None:
    judge = judge_of({"pump": NOW + ahead_s})
    first, second = (judge.arrival_timed(reading(n)) for n in (0, 1e-5))
    assert (verdict(first), verdict(second)) == (STEP, STEP)
    assert NOW + ahead_s < first.time < second.time < NOW + ahead_s + 1e-4


def test_a_device_that_is_a_little_ahead_does_not_make_arrival_times_late() -> None:
    judge = judge_of({"pump": NOW - 60})
    own = judge.own_timed(reading(5), NOW)
    timed = judge.arrival_timed(reading(0))
    assert (verdict(own), verdict(timed)) == (STEP, STEP)
    assert own.time < timed.time < own.time + 1e-4


def test_streams_are_looked_up_only_while_one_may_be_ahead() -> None:
    looked_up: list[str] = []

    def last_time(stream: str) -> float:
        looked_up.append(stream)
        return math.nan

    judge = TimeJudge(300.0, 600.0, lambda: False, last_time, NOW - 60)
    assert judge.begin_batch(NOW) == NOW
    judge.arrival_timed(reading(1e-5))
    judge.own_timed(reading(200), NOW)
    assert looked_up == []
    judge.own_timed(reading(400), NOW)
    assert judge.begin_batch(NOW + 10) == -math.inf
    judge.own_timed(reading(10), NOW + 10)
    assert looked_up == ["pump"]
    assert judge.begin_batch(NOW + 101) == NOW + 101


def test_a_bound_that_is_too_high_is_looked_up_again() -> None:
    judge = TimeJudge(300.0, 600.0, lambda: False, lambda stream: math.nan, math.inf, lambda: math.inf)
    assert judge.begin_batch(NOW) == -math.inf
    judge = TimeJudge(300.0, 600.0, lambda: False, lambda stream: math.nan, math.inf, lambda: NOW - 5)
    assert judge.begin_batch(NOW) == NOW


def test_a_reading_ahead_of_an_unknown_clock_is_reported_once_an_hour(caplog: pytest.LogCaptureFixture) -> None:
    judge = judge_of({})
    for n in range(50):
        judge.own_timed(reading(3 * DAY + n), NOW)
    assert [record.getMessage() for record in caplog.records] == [
        "reading far ahead of the clock, which is not known to be right, so it is used stream=pump ahead_s=259200"
    ]


def test_a_clock_that_is_set_back_may_put_any_stream_ahead() -> None:
    judge = judge_of({"pump": NOW - HOUR}, newest=-math.inf)
    assert judge.begin_batch(NOW) == NOW
    assert judge.begin_batch(NOW - 2 * HOUR) == -math.inf
    assert verdict(judge.own_timed(reading(-2 * HOUR - 5), NOW - 2 * HOUR)) == RESTART


def test_each_restart_is_a_warning_and_many_are_limited(caplog: pytest.LogCaptureFixture) -> None:
    judge = judge_of({f"s{n}": NOW + HOUR for n in range(100)})
    for n in range(100):
        judge.own_timed(reading(0, f"s{n}"), NOW)
    lines = [record.getMessage() for record in caplog.records]
    assert {record.levelname for record in caplog.records} == {"WARNING"}
    assert lines[0] == (
        "stream restarts, its last time was ahead of the clock "
        "stream=s0 ahead_s=3600 last=2027-01-15T09:00:00Z time=2027-01-15T08:00:00Z"
    )
    assert len(lines) == 21
    assert lines[20] == "more streams restart, the statistics count them as restarted"
    assert judge.restarts == 100


def test_a_refusal_says_that_our_clock_may_be_wrong() -> None:
    judged = judge_of({}, right=True).own_timed(reading(DAY), NOW)
    assert judged == Refusal(
        "pump",
        NOW + DAY,
        "expected a time at most 300 s ahead of this machine's clock (max_ahead_s), found one 86400 s ahead; "
        "the device's clock may be ahead, or this machine's behind",
    )


GRID = Sampling(interval_s=60.0, max_gap_s=600.0, grid=True)


@pytest.mark.parametrize("right", [True, False], ids=["known to be right", "not known"])
@pytest.mark.parametrize("max_rewind", [0, 8])
@pytest.mark.parametrize("batch", [1, 7, 100])
@pytest.mark.parametrize("sampling", [Sampling(max_gap_s=600.0), GRID], ids=["plain", "grid"])
def test_streams_that_are_put_right_go_on_and_a_replay_does_the_same(
    sampling: Sampling, batch: int, max_rewind: int, right: bool
) -> None:
    network = random_network()
    contract = contract_of(network, sampling=sampling)
    live, replay = (Predictor(contract, ReferenceBackend(network), max_rewind=max_rewind) for _ in range(2))
    trusted = False  # the clock becomes known to be right after the devices were ahead
    judge = TimeJudge(300.0, 600.0, lambda: trusted, live.table.last_time)
    devices = [(number, stream) for number in range(40) for stream in "abc"]
    taken: list[Reading] = []
    published = []
    for start in range(0, len(devices), batch):
        judge.begin_batch(NOW + 60 * devices[start][0])
        judged = []
        for number, stream in devices[start : start + batch]:
            trusted = right and number >= 12
            ahead_s = HOUR if number < 12 and stream != "c" else 0
            one = Reading(stream, NOW + 60 * number + ahead_s, {"level": float(number)})
            judged.append(judge.own_timed(one, NOW + 60 * number))
        taken += [one for one in judged if isinstance(one, Reading)]
        published += live.feed([one for one in judged if isinstance(one, Reading)])
    assert len(taken) == len(devices)
    assert [one.stream for one in taken if one.restart] == ["a", "b"]
    assert live.totals["late"] == 0
    assert live.feed([]) == []
    assert [one for reading in taken for one in replay.feed([reading])] == published
    assert all(live.table.row(stream) == replay.table.row(stream) for stream in "abc")
