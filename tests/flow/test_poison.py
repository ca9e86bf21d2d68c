"""A message that ends the process is set aside, alone. Kills between the slices of a message change no bit."""

from __future__ import annotations

import json
import signal
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edge_lstm import Bundle, Predictor, Reading
from edge_lstm.bundle.contract import Sampling
from edge_lstm.messages.encoder import decode_prediction
from edge_lstm.service.database.packed_messages import unpack
from tests.deadline import wait_until
from tests.flow.killed_service import AT_A_VALUE, BEFORE_ACKNOWLEDGE, BETWEEN_SLICES, POISON
from tests.flow.test_exactly_once import by_step, untimed_bundle
from tests.networks import contract_of, random_network

Make = Callable[..., Any]

START = 1_700_000_000.0
MOST_DEATHS = 4  # without a record, in its batch, and twice alone


@pytest.mark.timeout(300)
def test_a_message_that_ends_the_process_is_set_aside_and_the_others_are_predicted(
    bundle_path: Path, mosquitto: Any, start_service: Make, subscribe: Make
) -> None:
    subscriber = subscribe(mosquitto.address, "predictions/+")
    errors = subscribe(mosquitto.address, "edge-lstm/edge-lstm-test/errors")
    first = start_service(bundle_path, mosquitto.address)
    first.wait_connected()
    assert first.stop() == 0
    readings = [Reading(f"tank-{n % 4}", START + 60 * (n // 4), {"level": float(n % 5)}) for n in range(40)]
    for number, one in enumerate(readings):  # to the session of the service
        subscriber.publish(f"sensors/{one.stream}", json.dumps({"time": one.time, **one.values}))
        if number == 20:
            subscriber.publish("sensors/tank-9", json.dumps({"time": START, "level": POISON}))
    deaths = 0
    while True:
        service = start_service(bundle_path, mosquitto.address, killed_at=(AT_A_VALUE, 1))
        expected = {(one.stream, one.time) for one in readings}

        def done(service: Any = service, expected: set[tuple[str, float]] = expected) -> bool:
            if service.process.poll() is not None:
                return True
            found = [decode_prediction(message.payload.decode()) for message in list(subscriber.messages)]
            return {(one.stream, one.time) for one in found} == expected and bool(errors.messages)

        wait_until(done, "the service has died, or predicted all", 60)
        if service.process.poll() is None:
            break
        assert service.process.returncode == -signal.SIGKILL
        deaths += 1
        assert deaths <= MOST_DEATHS
    assert deaths == MOST_DEATHS
    (report,) = errors.payloads()
    assert (report["topic"], report["set_aside"]) == ("sensors/tank-9", 1)
    assert report["error"].startswith("message set aside: the service ended 2 times while it processed this message")
    assert service.stop() == 0
    assert "set_aside=1" in service.log.read_text()
    with sqlite3.connect(bundle_path.parent / "state.db") as database:
        ((content, reason, _),) = database.execute("select * from poison").fetchall()
        assert database.execute("select count(*) from streams").fetchone() == (4,)
    database.close()
    assert (next(unpack(content))[0], reason) == ("sensors/tank-9", report["error"].partition(": ")[2])
    last = start_service(bundle_path, mosquitto.address, killed_at=(AT_A_VALUE, 1))
    last.wait_connected()
    subscriber.publish("sensors/tank-9", json.dumps({"time": START, "level": POISON}))  # as a device that repeats it
    wait_until(lambda: len(errors.messages) == 2, "the same message is refused at once", 60)
    assert "the same message was set aside" in errors.payloads()[1]["error"]
    assert last.stop() == 0


@pytest.mark.timeout(300)
def test_kills_between_the_slices_of_a_message_step_every_reading_once(
    tmp_path: Path, make_bundle: Make, mosquitto: Any, start_service: Make, subscribe: Make
) -> None:
    """The lists have no times: only the identity of a message and its next item tell where it goes on."""
    bundle = untimed_bundle(tmp_path, make_bundle)
    extra = 'input.time_from = "arrival"\ninput.topic = "sensors/all"\ninput.stream = "device"'
    subscriber = subscribe(mosquitto.address, "predictions/+")
    first = start_service(bundle, mosquitto.address, extra)
    first.wait_connected()
    assert first.stop() == 0
    readings: list[Reading] = []
    for number in range(12):  # to the session of the service
        count = 4500 if number % 2 == 0 else 3
        items = [(f"tank-{n % 60}", round((number + n) % 13 / 7, 4)) for n in range(count)]
        readings += [Reading(stream, START + n, {"level": one}) for n, (stream, one) in enumerate(items, len(readings))]
        subscriber.publish("sensors/all", json.dumps([{"device": stream, "level": one} for stream, one in items]))
    for killed_at in [(BETWEEN_SLICES, 1), (BETWEEN_SLICES, 2), (BEFORE_ACKNOWLEDGE, 2), (BETWEEN_SLICES, 3)]:
        service = start_service(bundle, mosquitto.address, extra, killed_at=killed_at)
        wait_until(lambda service=service: service.process.poll() is not None, f"it is killed {killed_at}", 60)
        assert service.killed_point == killed_at[0]
    start_service(bundle, mosquitto.address, extra)
    expected = by_step(Predictor.of(Bundle.open(bundle), "numpy").feed(readings))

    def all_predicted() -> bool:
        if len(subscriber.messages) < len(expected):
            return False
        found = [decode_prediction(message.payload.decode()) for message in list(subscriber.messages)]
        return by_step(found) == expected

    wait_until(all_predicted, "every step equals that of an undisturbed run", 120)


def test_a_stop_does_not_wait_for_the_steps_of_a_message(
    tmp_path: Path, make_bundle: Make, mosquitto: Any, start_service: Make, subscribe: Make
) -> None:
    """One list makes a hundred thousand steps; what is not committed comes again."""
    sampling = Sampling(interval_s=1.0, max_gap_s=10_000.0, grid=True)
    bundle = tmp_path / "tank.elstm"
    network = random_network()
    make_bundle(bundle, network, contract_of(network, sampling=sampling))
    subscriber = subscribe(mosquitto.address, "predictions/+")
    service = start_service(bundle, mosquitto.address)
    service.wait_connected()
    payload = [{"time": START + 10_000 * number, "level": 1.0} for number in range(11)]
    subscriber.publish("sensors/tank", json.dumps([{"time": START - 100, "level": 1.0}, *payload]))
    wait_until(lambda: len(subscriber.messages) > 50, "the first slice is published", 60)
    assert service.stop() == 0
    assert len(subscriber.messages) < 50_000
