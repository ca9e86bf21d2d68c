"""A broker in memory, in place of the service's connection: it sends a script, and keeps what is published."""

from __future__ import annotations

import functools
import itertools
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

from edge_lstm.backends.protocol import Backend
from edge_lstm.backends.selftest import load_verified
from edge_lstm.bundle.archive import Bundle
from edge_lstm.messages.arrivals import ArrivalClock
from edge_lstm.mqtt.address import Address
from edge_lstm.mqtt.capabilities import BrokerCapabilities
from edge_lstm.mqtt.client.received import Message
from edge_lstm.service.config import read_service_config
from edge_lstm.service.service import Service
from tests.paths import PUMP

Sent = tuple[str, bytes]  # topic, payload


class MemoryBroker:
    """It sends `script`, a few messages at a poll, and ends the service after the last of them is acknowledged."""

    def __init__(self, script: Sequence[Message], a_poll: int = 7, confirms: bool = True) -> None:
        """`confirms`: whether it confirms what the service publishes."""
        self.address, self.connected, self.connection_count = Address("memory", 1883), True, 1
        self.granted, self.waiting = BrokerCapabilities.of(True, None), 0
        self.counts: Counter[str] = Counter()
        self.unconfirmed: set[int] = set()
        self.published: list[Sent] = []  # predictions, in order
        self.reported: list[Sent] = []  # what else the service said
        self.acknowledged = 0
        self.stop: Callable[[], None] = lambda: None
        self.confirms = confirms
        self.taken = 0  # messages of the script that were sent
        self._script, self._a_poll = list(script), a_poll
        self._number = self._idle = 0

    def poll(self, timeout_s: float, *, read: bool = True) -> list[Message]:
        if self.confirms:
            self.unconfirmed.clear()
        if self.taken == len(self._script) or not read:
            self._idle += 1  # the last batch is processed after the poll that brought it
            if self._idle > 3:
                self.stop()
            return []
        found = self._script[self.taken : self.taken + self._a_poll]
        self.taken += len(found)
        return found

    def publish_many(self, items: Sequence[Sent], **how: Any) -> list[int]:
        self.published += items
        numbers = list(range(self._number, self._number + len(items)))
        self._number += len(items)
        self.unconfirmed.update(numbers)
        return numbers

    def publish(self, topic: str, payload: str | bytes, **how: Any) -> int:
        self.reported.append((topic, payload.encode() if isinstance(payload, str) else payload))
        return 0

    def fits(self, topic: str, payload: bytes) -> bool:
        return True

    def take_faults(self) -> list[dict[str, object]]:
        return []

    def acknowledge(self, messages: Iterable[Message]) -> None:
        self.acknowledged += len(list(messages))

    def abort_connect(self) -> None:
        """There is no connection attempt here."""

    def close(self, timeout_s: float = 1.0) -> None:
        self.connected = False


@functools.cache
def proven_backend(bundle: Path) -> tuple[Backend, int]:
    """The backend of a service with this bundle, tested once: children of this process need no test of their own."""
    return load_verified(Bundle.open(bundle), "numpy", "float32")


def service_on(broker: MemoryBroker, config: Path, since_us: int = 1_700_100_000_000_000) -> Service:
    """A service of this config, connected to the broker in memory. Raises what `Service` raises.

    Its clock begins at `since_us`, and a second passes at each look: arrival times are the same in each run.
    """
    reads = itertools.count(0)

    def now_us() -> int:
        return since_us + 1_000_000 * (next(reads) // 2)  # each time, both clocks are read

    clock = functools.partial(ArrivalClock, time_of_day=now_us, since_boot=now_us)
    proven = proven_backend(config.parent / PUMP.name)
    with (
        mock.patch("edge_lstm.service.service.MqttConnection", return_value=broker),
        mock.patch("edge_lstm.service.service.proven_backend", return_value=proven),
        mock.patch("edge_lstm.service.service.ArrivalClock", clock),
    ):
        service = Service(read_service_config(config), config.parent)
    broker.stop = service.stop
    return service
