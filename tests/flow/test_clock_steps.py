"""Clocks that are set while a service runs, or between two of its processes: nothing is lost, late or stepped twice.

libfaketime gives the service another time of day. The time since the start of the machine stays as it is.
"""

from __future__ import annotations

import json
import re
import signal
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edge_lstm import Bundle, Prediction, Predictor, Reading
from edge_lstm.messages.decoder import encode_reading
from edge_lstm.messages.encoder import decode_prediction
from edge_lstm.service.database.history_reader import read_history
from tests.deadline import wait_until
from tests.flow.killed_service import BEFORE_ACKNOWLEDGE, BEFORE_COMMIT, BEFORE_PUBLISH
from tests.flow.test_exactly_once import ANY_TIME, CONNECTED, READINGS, Rig, readings_of

Make = Callable[..., Any]

LIBRARIES = ("/usr/lib/*/faketime/libfaketime.so.1", "/usr/local/lib/faketime/libfaketime.so.1")
HOUR, DAY = 3600, 86_400
BY_ARRIVAL = 'input.time_from = "arrival"\nhistory = 1000000\nmax_streams = 7\n'  # fewer than there are


class FakeClock:
    """The time of day of the services that have its `environment`, as an offset in seconds to the right one."""

    def __init__(self, library: Path, folder: Path) -> None:
        self._file = folder / "offset"
        self.set(0)
        self.environment = {
            "LD_PRELOAD": str(library),
            "FAKETIME_TIMESTAMP_FILE": str(self._file),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        }

    def set(self, offset_s: int) -> None:
        new = self._file.with_suffix(".new")
        new.write_text(f"{offset_s:+d}")
        new.replace(self._file)  # in one piece: it is read at every look at the clock


@pytest.fixture
def fake_clock(tmp_path: Path) -> FakeClock:
    found = [path for pattern in LIBRARIES for path in Path("/").glob(pattern.lstrip("/"))]
    if not found:
        pytest.skip("libfaketime is not installed here (apt-get install libfaketime)")
    return FakeClock(found[0], tmp_path)


def decoded(subscriber: Any) -> list[Prediction]:
    return [decode_prediction(message.payload.decode()) for message in list(subscriber.messages)]


def facts(predictions: list[Prediction]) -> dict[tuple[str, int, int], tuple[Any, ...]]:
    """By stream, step and revision, all else; a prediction that was published twice must be the same."""
    known: dict[tuple[str, int, int], tuple[Any, ...]] = {}
    for one in predictions:
        said = pytest.approx(one.time, abs=1e-3), one.warm_steps, one.values  # a payload has milliseconds
        assert known.setdefault((one.stream, one.step, one.revision), said)[1:] == said[1:]
    return known


def replayed(bundle: Path) -> tuple[list[Reading], list[Prediction]]:
    """The history of the stopped service, and what a replay of it predicts. It reads no clock."""
    opened = Bundle.open(bundle)
    readings, rules = read_history(bundle.parent / "state.db", opened.id)
    assert rules is not None
    one = Predictor.from_bundle(opened, "numpy", max_rewind=rules.max_rewind, window=rules.window)
    return readings, [said for reading in readings for said in one.feed([reading])]


def published(subscriber: Any, count: int) -> list[Prediction]:
    wait_until(lambda: len(facts(decoded(subscriber))) >= count, f"{count} predictions are published")
    return decoded(subscriber)


@pytest.mark.timeout(300)
def test_arrival_times_step_exactly_once_over_kills_and_clock_steps(
    bundle_path: Path, mosquitto: Any, start_service: Make, subscribe: Make, fake_clock: FakeClock
) -> None:
    readings = readings_of(READINGS // 10, streams := 10)
    kills = {ANY_TIME: 1, CONNECTED: 1, BEFORE_COMMIT: 2, BEFORE_PUBLISH: 1, BEFORE_ACKNOWLEDGE: 2}
    rig = Rig(bundle_path, mosquitto, start_service, subscribe, kills, BY_ARRIVAL, environment=fake_clock.environment)
    # a year back, a little back, a day forward, an hour back, two hours back
    offsets = [-365 * DAY, -365 * DAY - 100, -364 * DAY, -364 * DAY - HOUR, -364 * DAY - 3 * HOUR]
    steps: dict[int, Callable[[], None]] = {
        (number + 1) * len(readings) // 6: lambda offset=offset: fake_clock.set(offset)  # type: ignore[misc]
        for number, offset in enumerate(offsets)
    }
    rig.publish([(f"sensors/{one.stream}", json.dumps(dict(one.values))) for one in readings], 0, steps)
    predictions = published(rig.subscriber, len(readings))
    log = rig.close()
    history, again = replayed(bundle_path)
    assert len(history) == len(again) == len(readings)
    assert facts(predictions) == facts(again)
    given, taken = defaultdict(list), defaultdict(list)
    for one in readings:
        given[one.stream].append(one.values)
    for one in history:
        taken[one.stream].append(one.values)
    assert taken == given  # each once, in order
    restarts = [one.time for one in history if one.restart]
    assert 2 * streams <= len(restarts) <= 4 * streams  # a year, an hour and two hours back, for each stream
    assert "late=0" in log
    assert "duplicate=0" in log
    assert rig.hits == kills


@pytest.mark.timeout(300)
def test_devices_that_are_put_right_step_exactly_once_over_kills(
    bundle_path: Path, mosquitto: Any, start_service: Make, subscribe: Make
) -> None:
    now, count = int(time.time()), READINGS // 10
    readings = readings_of(count, streams := 10)
    readings = [one._replace(time=now - 900 + 900 * index // count) for index, one in enumerate(readings)]
    readings = [  # each stream is twice an hour or more ahead, at other times than its neighbours
        one._replace(time=one.time + HOUR * (2 + index % streams)) if _is_ahead(index, count, streams) else one
        for index, one in enumerate(readings)
    ]
    readings = [one._replace(time=one.time + index / 1e4) for index, one in enumerate(readings)]  # distinct
    kills = {ANY_TIME: 1, CONNECTED: 1, BEFORE_COMMIT: 1, BEFORE_PUBLISH: 2, BEFORE_ACKNOWLEDGE: 3}
    extra = 'clock.trust = "never"\nhistory = 1000000\nmax_streams = 7\n'
    rig = Rig(bundle_path, mosquitto, start_service, subscribe, kills, extra)
    messages = [(f"sensors/{one.stream}", encode_reading(one)) for one in readings]
    rig.publish(messages, 0)
    predictions = published(rig.subscriber, count)
    log = rig.close()
    history, again = replayed(bundle_path)
    assert facts(predictions) == facts(again)
    assert len(facts(predictions)) == count
    assert {one.step for one in predictions if one.stream == "tank-3"} == set(range(1, count // streams + 1))
    assert sum(one.restart for one in history) == 2 * streams
    assert "late=0" in log
    assert rig.hits == kills


def _is_ahead(index: int, count: int, streams: int) -> bool:
    """Whether the device that sends this reading has a wrong clock then."""
    number, of_stream = index // streams + 5 * (index % streams), count // streams
    return any(begin < number / of_stream < begin + 0.15 for begin in (0.2, 0.6))


@pytest.mark.parametrize("reload", [False, True], ids=["restart", "reload"])
def test_a_clock_an_hour_back_after_a_restart_or_reload_drops_nothing(
    bundle_path: Path, mosquitto: Any, start_service: Make, subscribe: Make, fake_clock: FakeClock, reload: bool
) -> None:
    subscriber = subscribe(mosquitto.address, "predictions/+")
    service = start_service(bundle_path, mosquitto.address, BY_ARRIVAL, fake_clock.environment)
    service.wait_connected()
    for number in range(10):
        subscriber.publish("sensors/tank-0", json.dumps({"level": number}))
    published(subscriber, 10)
    fake_clock.set(-HOUR)
    if reload:
        before = service.log.read_text().count("connected address")
        service.process.send_signal(signal.SIGHUP)
        wait_until(lambda: service.log.read_text().count("connected address") > before, "the service is back")
    else:
        assert service.stop() == 0
        service = start_service(bundle_path, mosquitto.address, BY_ARRIVAL, fake_clock.environment)
        service.wait_connected()
    for number in range(30):
        subscriber.publish("sensors/tank-0", json.dumps({"level": number}))
    predictions = published(subscriber, 40)
    assert [one.warm_steps for one in predictions] == [*range(1, 11), *range(1, 31)]
    assert service.stop() == 0
    log = service.log.read_text()
    assert re.search(r"clock was set back by_s=3[56]\d\d\.\d, arrival times begin again", log)
    assert log.count("WARNING stream restarts, its last time was ahead of the clock stream=tank-0") == 1
    assert "late=0" in log
    assert facts(replayed(bundle_path)[1]) == facts(predictions)


def test_a_board_days_behind_steps_all_readings_of_devices_that_are_right(
    bundle_path: Path, mosquitto: Any, start_service: Make, subscribe: Make, fake_clock: FakeClock
) -> None:
    fake_clock.set(-3 * DAY)  # as it was when the board was switched off; no time server is reached
    now = int(time.time())
    readings = [Reading("tank-0", now + 60 * (n - 600), {"level": n % 5}) for n in range(600)]
    subscriber = subscribe(mosquitto.address, "predictions/+")
    service = start_service(bundle_path, mosquitto.address, 'clock.trust = "never"\n', fake_clock.environment)
    service.wait_connected()
    for number, one in enumerate(readings):
        if number == 500:
            fake_clock.set(0)
        subscriber.client.publish(f"sensors/{one.stream}", encode_reading(one), qos=1)
    predictions = published(subscriber, len(readings))
    assert [one.warm_steps for one in predictions] == [*range(1, 601)]
    assert service.stop() == 0
    for count in ("refused=0", "restarted=0", "late=0", "gaps=0"):
        assert count in service.log.read_text()


@pytest.mark.parametrize("trust", ["always", "never"])
def test_a_device_an_hour_ahead_that_is_put_right_goes_on(
    bundle_path: Path, mosquitto: Any, start_service: Make, subscribe: Make, trust: str
) -> None:
    now = int(time.time())
    ahead = [Reading("tank-0", now + HOUR + 60 * n, {"level": n}) for n in range(12)]
    right = [Reading("tank-0", now - 60 + 5 * n, {"level": n}) for n in range(12)]
    subscriber = subscribe(mosquitto.address, "predictions/+")
    service = start_service(bundle_path, mosquitto.address, f'clock.trust = "{trust}"\n')
    service.wait_connected()
    for one in [*ahead, *right]:
        subscriber.publish(f"sensors/{one.stream}", encode_reading(one))
    predictions = published(subscriber, 24 if trust == "never" else 12)
    assert service.stop() == 0
    log = service.log.read_text()
    if trust == "never":
        assert [one.warm_steps for one in predictions] == [*range(1, 13), *range(1, 13)]
        assert "WARNING stream restarts, its last time was ahead of the clock stream=tank-0 ahead_s=42" in log
    else:
        assert "or this machine's behind" in log
        assert "refused=12" in log
    history, again = replayed(bundle_path)
    assert [one.restart for one in history].count(True) == (trust == "never")
    assert facts(again) == facts(predictions)


def test_a_repeated_batch_with_a_restart_is_stepped_once(
    bundle_path: Path, mosquitto: Any, start_service: Make, subscribe: Make
) -> None:
    now = int(time.time())
    ahead = [Reading("tank-0", now + HOUR + 60 * n, {"level": n}) for n in range(12)]
    right = [Reading("tank-0", now - 60 + 5 * n, {"level": n}) for n in range(12)]
    extra = 'clock.trust = "never"\ncommit_interval_s = 2\n'  # all that follow the first are one batch
    subscriber = subscribe(mosquitto.address, "predictions/+")
    killed = start_service(bundle_path, mosquitto.address, extra, killed_at=(BEFORE_ACKNOWLEDGE, 2))
    killed.wait_connected()
    subscriber.publish("sensors/tank-0", encode_reading(ahead[0]))
    published(subscriber, 1)
    for one in [*ahead[1:], *right]:
        subscriber.client.publish("sensors/tank-0", encode_reading(one), qos=1)
    wait_until(lambda: killed.process.poll() is not None, "it has killed itself")
    service = start_service(bundle_path, mosquitto.address, extra)
    service.wait_connected()
    subscriber.publish("sensors/tank-0", encode_reading(Reading("tank-0", now + 10, {"level": 1})))
    predictions = published(subscriber, 25)
    assert service.stop() == 0
    history, again = replayed(bundle_path)
    assert len(history) == 25
    assert facts(again) == facts(predictions)
    assert max(one.step for one in predictions) == 25
