"""Small messages that cause much work, and a service that gets them without a broker, watched while it works.

`make attack` runs them at full size: `attacked` takes any messages.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple
from unittest import mock

from edge_lstm.foundation.arrays import Floats
from edge_lstm.messages.encoder import decode_prediction
from edge_lstm.mqtt.address import Address
from edge_lstm.mqtt.client.received import Message
from edge_lstm.service.config import read_service_config
from edge_lstm.service.service import Service
from edge_lstm.service.systemd import SystemdNotifier
from edge_lstm.streaming.reading import Prediction
from tests.fuzz.memory import rss_mib

Step = Callable[[Floats, Sequence[Floats]], tuple[Floats, list[Floats]]]

START = 1_700_000_000
INTERVAL_S = 60


class Outcome(NamedTuple):
    """How a service did."""

    silent_steps: int  # the most steps of the network of which systemd heard nothing
    growth_mib: float  # of the resident memory
    predictions: list[Prediction]  # as they were published
    acknowledged: list[int]  # packet ids, in their order
    reports: list[dict[str, object]]  # on the errors topic
    totals: dict[str, int]


class Watch(SystemdNotifier):
    """In place of systemd. A silence is counted in steps: a busy machine changes its seconds."""

    def __init__(self) -> None:
        super().__init__({})
        self.silent_steps = self._steps = 0

    def alive(self) -> None:
        self._steps = 0

    def watched(self, step: Step) -> Step:
        """`step` of a backend; each is counted."""

        def counted(features: Floats, states: Sequence[Floats]) -> tuple[Floats, list[Floats]]:
            self._steps += 1
            self.silent_steps = max(self.silent_steps, self._steps)
            return step(features, states)

        return counted


class Link:
    """In place of the connection: it delivers messages, and confirms what is published at the next poll."""

    def __init__(self, messages: Iterable[Message], keep: bool = True) -> None:
        """`keep`: whether predictions are kept, or only counted."""
        self.address, self.connected, self.connection_count = Address("attack", 1883), True, 1
        self.granted, self.waiting, self.counts = None, 0, Counter[str]()
        self.unconfirmed: set[int] = set()
        self.published: list[bytes] = []
        self.acknowledged: list[int] = []
        self.reports: list[dict[str, object]] = []
        self.service: Service | None = None
        self._left, self._number, self._keep = list(messages), 0, keep
        self._unacknowledged = {one.packet_id for one in self._left if one.qos}

    def poll(self, timeout_s: float, *, read: bool = True) -> list[Message]:
        self.unconfirmed.clear()
        messages, self._left = (self._left[:200], self._left[200:]) if read else ([], self._left)
        if self.service is not None and not messages and not self._left and not self._unacknowledged:
            self.service.stop()
        return messages

    def publish_many(self, items: Sequence[tuple[str, bytes]], **how: object) -> list[int]:
        if self._keep:
            self.published += [payload for topic, payload in items if topic.startswith("predictions/")]
        numbers = list(range(self._number, self._number + len(items)))
        self._number += len(items)
        self.unconfirmed.update(numbers)
        return numbers

    def publish(self, topic: str, payload: str | bytes, **how: object) -> int:
        if topic.endswith("/errors"):
            self.reports.append(json.loads(payload))
        return 0

    def acknowledge(self, messages: Iterable[Message]) -> None:
        for message in messages:
            self.acknowledged.append(message.packet_id)
            self._unacknowledged.discard(message.packet_id)

    def fits(self, topic: str, payload: bytes) -> bool:
        return True

    def take_faults(self) -> list[dict[str, object]]:
        return []

    def abort_connect(self) -> None:
        """There is no attempt to abort."""

    def close(self, timeout_s: float = 1.0) -> None:
        self.connected = False


def opened(config: Path, link: Link, manager: SystemdNotifier | None = None) -> Service:
    """A service of this config that takes its messages from `link`."""
    with mock.patch("edge_lstm.service.service.MqttConnection", return_value=link):
        service = Service(read_service_config(config), config.parent, manager=manager)
    link.service = service
    return service


def attacked(config: Path, messages: Sequence[Message], keep: bool = True) -> Outcome:
    """A service of this config that gets these messages, until all are acknowledged."""
    watch, link = Watch(), Link(messages, keep)
    service = opened(config, link, watch)
    before = rss_mib()
    backend = service._predictor.backend
    with mock.patch.object(backend, "step", watch.watched(backend.step)):
        service.run()
    found = [decode_prediction(payload.decode()) for payload in link.published]
    growth = rss_mib() - before
    return Outcome(watch.silent_steps, growth, found, link.acknowledged, link.reports, service.figures.totals())


def message(number: int, topic: str, payload: object, repeated: bool = False) -> Message:
    """A message of QoS 1 with this packet id."""
    return Message(topic, json.dumps(payload, separators=(",", ":")).encode(), number, 1, 1, repeated, False)


def reading(seconds: float, value: float = 1.0) -> dict[str, float]:
    """The payload of a reading of a bundle with the one feature `level`."""
    return {"time": START + seconds, "level": value}


def late_list(size: int, max_rewind: int) -> list[dict[str, float]]:
    """A list of about `size` bytes: fresh readings, then late ones, each of which rewinds over as much as it may."""
    fresh = [reading(INTERVAL_S * number) for number in range(3 * max_rewind + 2)]
    after = fresh[-max_rewind - 1]["time"] - START
    late: list[dict[str, float]] = []
    count = max(size // 36 - len(fresh), 1)
    for number in range(count):
        late.append(reading(round(after + (number + 1) * (INTERVAL_S / 2) / count, 3), number % 7))
    return [*fresh, *late]


def filling_list(readings: int, apart_s: int) -> list[dict[str, float]]:
    """A list of readings so far apart that a grid has to fill the time between."""
    return [reading(apart_s * number) for number in range(readings)]
