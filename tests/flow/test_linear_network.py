"""A network without recurrent layers in the service: its state is carried and survives a kill like any other."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.deadline import wait_until
from tests.flow.test_service import by_stream_without_repeats, encode_reading, readings_of, undisturbed
from tests.networks import linear_network

Make = Callable[..., Any]


@pytest.mark.timeout(180)
def test_a_linear_network_continues_after_a_kill_as_if_undisturbed(
    tmp_path: Path, make_bundle: Make, mosquitto: Any, start_service: Make, subscribe: Make
) -> None:
    path = tmp_path / "line.elstm"
    make_bundle(path, linear_network())
    readings = readings_of(streams=3, steps=40)
    subscriber = subscribe(mosquitto.address, "predictions/+")
    service = start_service(path, mosquitto.address)
    service.wait_connected()
    for index, reading in enumerate(readings):
        subscriber.publish(f"sensors/{reading.stream}", encode_reading(reading))
        if index == 50:
            service.kill()
            service = start_service(path, mosquitto.address)
            service.wait_connected()
    expected = undisturbed(path, readings)
    wait_until(lambda: by_stream_without_repeats(subscriber.messages) == expected, "every step is predicted once")
    assert service.stop() == 0
