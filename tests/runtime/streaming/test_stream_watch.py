"""Dropped readings and restarts: counted by stream, logged once with the reason, then once an hour."""

from __future__ import annotations

import logging
import tracemalloc
from typing import Any

import pytest

from edge_lstm import Predictor, Reading
from edge_lstm.backends.reference import ReferenceBackend
from edge_lstm.bundle.contract import Sampling
from edge_lstm.streaming.stream_watch import StreamWatch
from tests.networks import contract_of, random_network

START = 1_700_000_000.0
SAMPLING = Sampling(60.0, 600.0)


class Clock:
    """Seconds that a test sets."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture(autouse=True)
def _all_lines(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")


def predictor(**settings: Any) -> Predictor:
    network = random_network()
    return Predictor(contract_of(network), ReferenceBackend(network), **settings)


def level(minute: float, value: float = 1.0, stream: str = "a") -> Reading:
    return Reading(stream, START + 60 * minute, {"level": value})


def test_the_first_late_and_the_first_duplicate_are_logged(caplog: pytest.LogCaptureFixture) -> None:
    one = predictor(max_rewind=2)
    one.feed([level(n) for n in range(20)])
    one.feed([level(3.5), level(4.5), level(19), level(19)])
    assert caplog.messages == [
        "reading dropped fate=late stream=a: it lies 930.0 s before the stream's newest one, "
        "more than max_rewind=2 samples",
        "reading dropped fate=duplicate stream=a: its time 2023-11-14T22:32:20Z was received before",
    ]
    assert {record.levelname for record in caplog.records} == {"WARNING"}
    assert one.watch.worst() == [{"stream": "a", "late": 2, "duplicate": 2}]


def test_every_reading_is_used_duplicate_or_late() -> None:
    one = predictor(max_rewind=2)
    one.feed([level(n) for n in range(20)] + [level(3.5), level(17.5), level(19), level(18)])
    totals = one.totals
    assert (totals["used"], totals["duplicate"], totals["late"]) == (21, 2, 1)


def test_counts_are_logged_once_an_hour(caplog: pytest.LogCaptureFixture) -> None:
    clock = Clock()
    watch = StreamWatch(SAMPLING, clock)
    for step in range(10):
        watch.dropped("a", "late", "why", step)
    watch.log_counts()
    assert len(caplog.messages) == 1
    clock.now = 3601.0
    watch.log_counts()
    watch.log_counts()
    assert caplog.messages[1:] == ["readings dropped in the last hour late=10; since the start most of a"]


@pytest.mark.parametrize("fate", ["duplicate", "late"])
def test_readings_that_the_broker_sent_again_are_no_warning(fate: str, caplog: pytest.LogCaptureFixture) -> None:
    watch = StreamWatch(SAMPLING, Clock())
    watch.redelivered = {"a"}
    for _ in range(300):
        watch.dropped("a", fate, "its time was received before", 7)
    assert [record.levelno for record in caplog.records] == [logging.INFO]
    assert caplog.messages[0].startswith(f"reading dropped that the broker sent again fate={fate}")


def test_a_stream_whose_readings_are_all_dropped_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    one = predictor(max_rewind=2)
    one.feed([level(0)] * 30)
    assert caplog.messages[1] == (
        "stream stands still stream=a: its last 20 readings were dropped, the last one as duplicate: "
        "its time 2023-11-14T22:13:20Z was received before"
    )
    assert len(caplog.messages) == 2


def test_a_service_that_uses_no_reading_says_so(caplog: pytest.LogCaptureFixture) -> None:
    one = predictor()
    streams = [f"s{number}" for number in range(50)]
    one.feed([level(0, stream=stream) for stream in streams])
    for _ in range(5):
        one.feed([level(0, stream=stream) for stream in streams])
    found = [line for line in caplog.messages if line.startswith("no reading is used")]
    assert found == ["no reading is used, the last 200 were dropped duplicate=200"]


def test_strangers_cause_few_lines_and_little_memory(caplog: pytest.LogCaptureFixture) -> None:
    watch = StreamWatch(SAMPLING, Clock())
    for _ in range(5):
        watch.dropped("pump", "late", "why", 1)
    for number in range(20_000):
        watch.dropped(f"stranger-{number}", "duplicate", "why", 1)
    assert len(watch._streams) <= 4096
    assert watch.worst(1) == [{"stream": "pump", "late": 5}]
    assert len(caplog.messages) <= 21


@pytest.mark.parametrize(
    ("apart_s", "begin", "cause"),
    [
        (3600.0, START, "interval_s=60.0 and max_gap_s=600.0 of the bundle do not fit readings so far apart"),
        (60_000.0, START, "its gaps are about 1000 intervals: its times may be milliseconds"),
        (60_000.0, 120_000.0, "its times lie before 2000: they count from the start of the device"),
    ],
)
def test_a_stream_that_restarts_at_most_readings_is_one_warning(
    apart_s: float, begin: float, cause: str, caplog: pytest.LogCaptureFixture
) -> None:
    one = predictor()
    one.feed([Reading("a", begin + apart_s * number, {"level": 1.0}) for number in range(50)])
    warnings = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert len(warnings) == 1
    assert warnings[0].startswith(f"stream restarts at most of its readings stream=a restarts=3 gap_s={apart_s:.1f}: ")
    assert cause in warnings[0]
    assert len(caplog.messages) == 2  # and one line of its first restart
    assert one.watch.worst() == [{"stream": "a", "restarts": 49}]


def test_samples_that_are_stepped_again_are_no_new_restarts() -> None:
    one = predictor(max_rewind=8)
    one.feed([level(0), level(1), level(30), level(31), level(32)])
    one.feed([level(30.5), level(31.5), level(31.7)])
    assert one.totals["gaps"] == 1
    assert one.watch.worst() == [{"stream": "a", "restarts": 1}]


def test_a_stream_whose_times_begin_again_often_is_one_warning(caplog: pytest.LogCaptureFixture) -> None:
    one = predictor()
    one.feed([level(-100 * number)._replace(restart=True) for number in range(50)])
    warnings = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert warnings == [
        "stream restarts at most of its readings stream=a restarts=3: "
        "its times jump: two devices have one name, or a time zone is wrong (timezone)"
    ]


def test_refused_topics_take_a_few_mebibytes_however_long_they_are() -> None:
    one = predictor()
    tracemalloc.start()
    try:
        for number in range(6000):
            one.watch.refused(f"{number}/{'x' * 60_000}")
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert held < 6 << 20, "bytes"
    (worst, *_) = one.watch.worst(1)
    assert len(worst["stream"]) == 200
