"""More messages than the service can keep: memory is bounded, the sequence of predictions stays, SIGTERM is heard."""

from __future__ import annotations

import contextlib
import itertools
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from edge_lstm.mqtt.address import Address
from edge_lstm.mqtt.embedded_broker import EmbeddedBroker
from edge_lstm.service.config import read_service_config
from edge_lstm.service.service import Service
from tests.deadline import DEADLINE_S, wait_until
from tests.flow import floods
from tests.flow.scripted_broker import CONNACK_5, PUBLISH, SUBACK_5, ScriptedBroker
from tests.flow.test_service import by_stream_without_repeats, undisturbed

Make = Callable[..., Any]

MOST_ABOVE_IDLE_MIB = 40.0


@contextlib.contextmanager
def serving(bundle: Path, address: Address, protocol: str = "5", mqtt: str = "") -> Iterator[Service]:
    """A service in a thread of its own, connected."""
    config = bundle.parent / "service.toml"
    config.write_text(
        f'bundle = "{bundle.name}"\nbackend = "numpy"\n[mqtt]\nurl = "{address}"\nprotocol = "{protocol}"\n{mqtt}\n'
    )
    services: list[Service] = []

    def serve() -> None:
        services.append(Service(read_service_config(config), config.parent))  # its database belongs to its thread
        services[0].run()

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    wait_until(lambda: bool(services) and services[0]._mqtt.connected, "the service is connected")
    yield services[0]
    services[0].stop()
    thread.join(DEADLINE_S)
    assert not thread.is_alive()


@pytest.fixture
def publish_to() -> Iterator[Make]:
    """publish_to(address, version_5=True): a connected publisher, closed after the test."""
    with contextlib.ExitStack() as stack:
        yield lambda *where: stack.enter_context(contextlib.closing(floods.Publisher(*where)))


@contextlib.contextmanager
def sending(broker: ScriptedBroker, packets: Callable[[int], bytes]) -> Iterator[None]:
    """The broker sends `packets(0)`, `packets(1)`, … as fast as they are taken, until the block ends."""
    ended = threading.Event()

    def send() -> None:
        with contextlib.suppress(OSError):
            for number in itertools.count():
                if ended.is_set():
                    return
                broker.send(packets(number))

    thread = threading.Thread(target=send, daemon=True)
    thread.start()
    yield
    ended.set()
    broker.cut()
    thread.join(DEADLINE_S)
    assert not thread.is_alive()


def overload(monkeypatch: pytest.MonkeyPatch, most: int) -> None:
    """Have services keep that few messages and unconfirmed predictions."""
    for name in ("service._MOST_UNCONFIRMED", "intake.inbox._MOST_WAITING", "intake.inbox._MOST_KEPT"):
        monkeypatch.setattr(f"edge_lstm.service.{name}", most)


@pytest.mark.parametrize("protocol", ["5", "3.1.1"])
def test_what_cannot_be_kept_comes_again_and_changes_no_prediction(
    bundle_path: Path, mosquitto: Any, publish_to: Make, subscribe: Make, monkeypatch: pytest.MonkeyPatch, protocol: str
) -> None:
    count = 3000
    overload(monkeypatch, 30)
    expected = undisturbed(bundle_path, [floods.reading(number) for number in range(count)])
    subscriber, publisher = subscribe(mosquitto.address, "predictions/+"), publish_to(mosquitto.address)
    with serving(bundle_path, mosquitto.address, protocol=protocol) as service:
        publisher.send(floods.reading_packets(count))
        wait_until(lambda: service._delivery.predictions >= count, f"{count} readings are stepped", 60)
        wait_until(lambda: len(subscriber.messages) >= count, f"{count} predictions arrive")
    assert by_stream_without_repeats(subscriber.messages) == expected
    assert len(subscriber.messages) == count, "none twice"
    assert service._overload.reconnects > 0
    assert service._inbox.lost == 0


def test_the_embedded_broker_too_sends_in_order_what_was_left_to_it(
    bundle_path: Path, publish_to: Make, subscribe: Make
) -> None:
    count = 3000
    expected = undisturbed(bundle_path, [floods.reading(number) for number in range(count)])
    with EmbeddedBroker() as broker:
        subscriber, publisher = subscribe(broker.address_311, "predictions/+"), publish_to(broker.address)
        with serving(bundle_path, broker.address) as service:
            publisher.send(floods.reading_packets(count))
            for part in range(500, count, 500):  # it keeps to 100 messages in transit, so that no inbox is full
                wait_until(lambda part=part: service._delivery.predictions >= part, f"{part} readings are stepped")
                service._inbox.closed = True
            wait_until(lambda: service._delivery.predictions >= count, f"{count} readings are stepped")
            wait_until(lambda: len(subscriber.messages) >= count, f"{count} predictions arrive")
        subscriber.close()
    assert by_stream_without_repeats(subscriber.messages) == expected
    assert len(subscriber.messages) == count, "none twice"
    assert service._overload.reconnects >= 3


def test_without_a_session_what_cannot_be_kept_is_lost_and_the_service_goes_on(
    bundle_path: Path, mosquitto: Any, publish_to: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    overload(monkeypatch, 30)
    publisher = publish_to(mosquitto.address)
    with serving(bundle_path, mosquitto.address, mqtt="session_expiry_s = 0") as service:
        publisher.send(floods.reading_packets(3000))
        wait_until(
            lambda: service._delivery.predictions + service._inbox.lost >= 3000, "every reading is stepped or lost"
        )
        before = service._delivery.predictions
        publisher.send(
            floods.publish_of(b"sensors/new", b'{"time": %d, "level": 1}' % (1_700_000_000 + at), at)
            for at in range(1, 20)
        )
        wait_until(lambda: service._delivery.predictions >= before + 19, "new readings are stepped")
        assert service._mqtt.connection_count == 1
    assert service._inbox.lost > 0


def flooded(bundle: Path, start_service: Make, qos: int) -> tuple[float, int, str]:
    """A broker that confirms nothing sends 200,000 readings as fast as it can.

    Returns the memory that this takes (MiB above idle), the number of connections, and the log.
    """
    packets = [b"".join(several) for several in floods.in_chunks(floods.reading_packets(200_000, qos))]
    with ScriptedBroker() as broker:
        service = start_service(bundle, broker.address)
        service.wait_connected()
        memory = floods.Memory(service.process.pid)
        memory.begin()
        with contextlib.suppress(OSError):  # it may reconnect while the last ones are sent
            for several in packets:
                broker.send(several)
        wait_until(lambda: "more messages come than can be kept" in service.log.read_text(), "it says so")
        if qos:
            broker.wait_connection(2)
        above = memory.above_idle
        assert service.stop() == 0
        return above, len(broker.packets), service.log.read_text()


def test_a_broker_that_confirms_nothing_and_sends_on_takes_little_memory(
    bundle_path: Path, start_service: Make
) -> None:
    above, connections, log = flooded(bundle_path, start_service, qos=1)
    assert above < MOST_ABOVE_IDLE_MIB
    assert connections == 2
    assert "the broker sends them again after a reconnect reconnects=1" in log


def test_readings_at_qos_0_that_cannot_be_kept_are_counted_and_told_once(
    bundle_path: Path, start_service: Make
) -> None:
    above, connections, log = flooded(bundle_path, start_service, qos=0)
    assert above < MOST_ABOVE_IDLE_MIB
    assert connections == 1
    assert log.count("those that the broker does not send again are lost") == 1


FLOODS = {
    "answers to pings": floods.PINGRESPS,
    "confirmations": floods.PUBACKS,
    "answers to subscriptions": floods.SUBACKS,
    "answers to connects": floods.SECOND_CONNACKS,
    "releases of messages at QoS 2": floods.PUBRELS,
}


@pytest.mark.parametrize("flood", FLOODS.values(), ids=FLOODS.keys())
def test_a_service_stops_within_a_flood_of_packets_that_are_no_messages(
    bundle_path: Path, start_service: Make, flood: bytes
) -> None:
    with ScriptedBroker(CONNACK_5, SUBACK_5) as broker:
        service = start_service(bundle_path, broker.address)
        service.wait_connected()
        memory = floods.Memory(service.process.pid)
        memory.begin()
        with sending(broker, lambda number: flood):
            begun = time.monotonic()
            while time.monotonic() < begun + 1:
                time.sleep(0.1)
                assert service.process.poll() is None
            above = memory.above_idle
            online = [packet for packet in broker.received(PUBLISH) if packet.endswith(b"online")]
            assert service.stop() == 0
    assert above < MOST_ABOVE_IDLE_MIB
    assert len(online) <= 1


def test_a_large_payload_is_refused_while_it_comes_and_comes_once(
    bundle_path: Path, mosquitto: Any, publish_to: Make, start_service: Make, subscribe: Make
) -> None:
    subscriber = subscribe(mosquitto.address, "predictions/+")
    service = start_service(bundle_path, mosquitto.address, mqtt='protocol = "3.1.1"')
    service.wait_connected()
    memory = floods.Memory(service.process.pid)
    memory.begin()
    publisher = publish_to(mosquitto.address, False)
    publisher.send([*floods.large_payload(30), *floods.reading_packets(5, version_5=False)])
    wait_until(lambda: len(subscriber.messages) == 5, "the readings after it are predicted")
    assert memory.above_idle < 10
    assert service.stop() == 0
    text = service.log.read_text()
    assert text.count("payload refused topic=sensors/large refused=1: expected at most 262144 bytes (max_bytes)") == 1
    assert " refused=1 " in text.splitlines()[-1]
    assert "connection lost" not in text
    again = start_service(bundle_path, mosquitto.address, mqtt='protocol = "3.1.1"')
    again.wait_connected()
    subscriber.publish("sensors/s0", b'{"time": 1700001000, "level": 1}')
    wait_until(lambda: len(subscriber.messages) == 6, "a reading is predicted")
    assert again.stop() == 0
    assert " refused=0 " in again.log.read_text().splitlines()[-1], "the broker does not send it again"


@pytest.mark.parametrize("attack", ["properties", "topics"])
def test_properties_and_topics_take_little_memory(
    bundle_path: Path, mosquitto: Any, publish_to: Make, start_service: Make, subscribe: Make, attack: str
) -> None:
    subscriber = subscribe(mosquitto.address, "predictions/+")
    service = start_service(bundle_path, mosquitto.address)
    service.wait_connected()
    memory = floods.Memory(service.process.pid)
    memory.begin()
    publisher = publish_to(mosquitto.address)
    packets = floods.property_readings(300) if attack == "properties" else floods.long_topics(800)
    sent = publisher.send(packets)
    publisher.send(floods.reading_packets(5))
    publisher.wait_confirmed(sent + 5)
    expected = sent * (attack == "properties") + 5
    wait_until(lambda: len(subscriber.messages) == expected, f"{expected} predictions arrive")
    assert memory.above_idle < 20
    assert service.stop() == 0
