"""`edge-lstm run` that kills itself at an exact point of a batch: `python killed_service.py CONFIG POINT COUNT`.

A batch is committed, its predictions are published, its readings are acknowledged. A kill from outside hits the short
time between two of these steps only by luck. Here SIGKILL comes exactly there, in the COUNT-th batch that has
predictions and finds the broker connected, or in the COUNT-th that cuts a message. The product has no hook for it: its
methods are replaced in this process.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

BEFORE_COMMIT = "before-commit"  # the states have stepped in memory only
BEFORE_PUBLISH = "before-publish"  # committed, and nothing of it sent
BEFORE_ACKNOWLEDGE = "before-acknowledge"  # predictions are sent, and the broker will send the readings again
BETWEEN_SLICES = "between-slices"  # a slice is committed that cuts a message, and nothing of it is sent
POINTS = (BEFORE_COMMIT, BEFORE_PUBLISH, BEFORE_ACKNOWLEDGE, BETWEEN_SLICES)
AT_A_VALUE = "at-a-value"  # whenever a reading has the value POISON: as a backend that crashes at some inputs
POISON = 666.0


def kill_itself(point: str) -> None:
    """Log the point on stderr, then SIGKILL: no handler, no `finally`, no flush runs."""
    os.write(2, f"killed {point}\n".encode())
    os.kill(os.getpid(), signal.SIGKILL)


def arm(point: str, count: int) -> None:
    """Replace the methods of the store and the connection through which the `count`-th batch goes."""
    from edge_lstm.mqtt.connection import MqttConnection
    from edge_lstm.service.database.store import Store

    connected = False
    batches = 0  # those that count, of which the commit has begun
    published = 0  # the number of the batch whose predictions were sent last

    @_around(MqttConnection, "poll")
    def poll(original: Callable[..., Any], connection: Any, *arguments: Any, **options: Any) -> Any:
        nonlocal connected
        messages = original(connection, *arguments, **options)
        connected = connection.connected  # readings of a kept session come before it: the predictions then wait
        return messages

    @_around(Store, "commit")
    def commit(
        original: Callable[..., None], store: Any, batch: int, rows: Any, outbox: Any, *rest: Any, **options: Any
    ) -> None:
        nonlocal batches
        counts = bool(outbox) and connected
        if point == BETWEEN_SLICES:
            values = rest[4]
            counts = '": ' in values.get("progress", "")
        batches += counts
        due = counts and batches == count
        if due and point == BEFORE_COMMIT:
            kill_itself(point)
        original(store, batch, rows, outbox, *rest, **options)
        if due and point in (BEFORE_PUBLISH, BETWEEN_SLICES):
            kill_itself(point)

    @_around(MqttConnection, "publish_many")
    def publish_many(original: Callable[..., Any], connection: Any, items: Any, **options: Any) -> Any:
        nonlocal published
        numbers = original(connection, items, **options)
        if any(topic.startswith("predictions/") or topic.endswith("/feedback/answers") for topic, _ in items):
            published = batches
        return numbers

    @_around(MqttConnection, "acknowledge")
    def acknowledge(original: Callable[..., None], connection: Any, messages: Any) -> None:
        if messages and published == count and point == BEFORE_ACKNOWLEDGE:
            kill_itself(point)
        original(connection, messages)


def arm_value() -> None:
    """Kill this process at each step of a reading with the value POISON."""
    from edge_lstm.streaming.predictor import Predictor

    @_around(Predictor, "feed_slice")
    def feed_slice(original: Callable[..., Any], predictor: Any, readings: Any, *rest: Any) -> Any:
        if any(POISON in reading.values.values() for reading in readings):
            kill_itself(AT_A_VALUE)
        return original(predictor, readings, *rest)


def _around(owner: type, name: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Replace `owner.name` by the decorated function, which gets the original first."""
    original = getattr(owner, name)

    def replace(function: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(original)
        def replaced(*arguments: Any, **options: Any) -> Any:
            return function(original, *arguments, **options)

        setattr(owner, name, replaced)
        return replaced

    return replace


def main(config: str, point: str, count: str) -> None:
    from edge_lstm.cli.main import main as edge_lstm

    if point == AT_A_VALUE:
        arm_value()
    elif point in POINTS:
        arm(point, int(count))
    else:
        raise SystemExit(f"expected {AT_A_VALUE} or one of {', '.join(POINTS)}, found {point!r}")
    edge_lstm(["run", str(Path(config))])


if __name__ == "__main__":
    main(*sys.argv[1:])
