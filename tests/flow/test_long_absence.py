"""A broker outage of an hour, on a fast clock: how often the service retries, and that nothing is lost."""

from __future__ import annotations

import itertools
import threading
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edge_lstm.messages.decoder import encode_reading
from edge_lstm.mqtt.connection import MqttConnection
from edge_lstm.service.config import read_service_config
from edge_lstm.service.service import Service
from tests.deadline import wait_until
from tests.flow.proxy import Proxy
from tests.flow.test_service import by_stream_without_repeats, readings_of, undisturbed

Make = Callable[..., Any]

HOUR_S = 3600.0


class FastClock:
    """The connection's clock: its sleeps pass at once."""

    def __init__(self) -> None:
        self.ahead_s = 0.0

    def monotonic(self) -> float:
        return time.monotonic() + self.ahead_s

    def sleep(self, seconds: float) -> None:
        self.ahead_s += seconds
        time.sleep(0)


def test_a_broker_outage_of_an_hour_loses_nothing(
    bundle_path: Path,
    mosquitto: Any,
    subscribe: Make,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    clock = FastClock()
    for module in ("mqtt.connection", "mqtt.reconnect", "foundation.rate_limited_log"):
        monkeypatch.setattr(f"edge_lstm.{module}.time", clock)
    attempts: list[float] = []
    connect = MqttConnection._connect
    monkeypatch.setattr(
        MqttConnection, "_connect", lambda connection: (attempts.append(clock.monotonic()), connect(connection))[1]
    )
    readings = readings_of(streams=2, steps=30)
    subscriber = subscribe(mosquitto.address, "predictions/+")
    services: list[Service] = []

    def serve(address: Any) -> None:
        config = bundle_path.parent / "service.toml"
        config.write_text(f'bundle = "{bundle_path.name}"\nbackend = "numpy"\n[mqtt]\nurl = "{address}"\n')
        services.append(Service(read_service_config(config), config.parent))  # its database belongs to its thread
        services[0].run()

    with Proxy(mosquitto.address) as proxy:
        thread = threading.Thread(target=serve, args=(proxy.address,), daemon=True)
        thread.start()
        wait_until(lambda: bool(services), "the service is made")
        wait_until(lambda: services[0]._mqtt.connected, "the service is connected")
        proxy.stall()  # so that predictions are committed, and at no broker; what it is just taking still passes
        for count, reading in enumerate(readings[:20], 1):
            subscriber.publish(f"sensors/{reading.stream}", encode_reading(reading))
            wait_until(lambda count=count: services[0]._delivery.predictions == count, "it is predicted")
    assert len(subscriber.messages) <= 2
    tracemalloc.start()
    try:
        del attempts[:]
        gone_at = clock.monotonic()
        wait_until(lambda: clock.monotonic() > gone_at + HOUR_S / 6, "ten minutes pass")
        for reading in readings[20:]:
            subscriber.publish(f"sensors/{reading.stream}", encode_reading(reading))
        early, _ = tracemalloc.get_traced_memory()
        wait_until(lambda: clock.monotonic() > gone_at + HOUR_S, "an hour passes")
        late, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    pauses = [after - before for before, after in itertools.pairwise(attempts)]
    assert max(pauses) < 5.5, "never longer than five seconds, and a poll"
    assert HOUR_S / 5.5 < len(attempts) < HOUR_S / 2.5 + 20
    assert caplog.text.count("broker unreachable") <= 62
    assert late - early < 100_000, "bytes in fifty minutes, log lines included"
    with Proxy(mosquitto.address, proxy.address.port):
        expected = undisturbed(bundle_path, readings)
        wait_until(lambda: by_stream_without_repeats(subscriber.messages) == expected, "every step is as undisturbed")
        services[0].stop()
        thread.join(10)
    assert not thread.is_alive()
