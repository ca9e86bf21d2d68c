"""The status and stats of a running service, read from its retained messages at the broker."""

from __future__ import annotations

import json
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from edge_lstm.foundation.errors import EdgeLstmError
from edge_lstm.mqtt.address import parse_address
from edge_lstm.mqtt.connection import MqttConnection
from edge_lstm.service.config import MqttConfig

_LINES = (  # for a person
    ("readings", "{readings:,} readings, {predictions:,} predictions in {uptime_s:,.0f} s"),
    ("streams", "{streams:,} streams, {streams_in_memory:,} in memory"),
    ("names", "{names_refused:,} readings of new names refused, {names_forgotten:,} names forgotten"),
    ("order", "{used:,} used, {rewound:,} rewound, {late:,} late, {duplicate:,} duplicate, {repeated:,} repeated"),
    ("refused", "{refused:,} refused, {ignored:,} ignored, {retained:,} retained"),
    (
        "states",
        "{gaps:,} restarted after gaps, {restarted:,} in another time, {runaway:,} ran away, {missing:,} values held",
    ),
    ("broker", "{sessions_lost:,} sessions lost, {malformed:,} malformed, {unwanted:,} unwanted, {shed:,} shed"),
    ("damage", "{damaged:,} rows and batches of the state database, {rolled_back:,} batches rolled back"),
    ("limits", "{too_large:,} too large for the broker, {dropped:,} of refused topics dropped"),
    ("costs", "{costly:,} readings would cause too many steps, {set_aside:,} messages set aside"),
    ("commands", "{commands_taken:,} taken, {commands_refused:,} refused, {commands_repeated:,} repeated"),
    ("queue", "{queue:,} readings waiting, {unconfirmed:,} predictions unconfirmed, {waiting:,} of refused topics"),
    ("lag", "{lag_s:,.1f} s now, p50 {lag_s_p50:,.1f} s, p99 {lag_s_p99:,.1f} s"),
    ("batches", "p50 {batch_ms_p50:.1f} ms, p99 {batch_ms_p99:.1f} ms"),
    ("memory", "{rss_mb:.0f} MB"),
    ("bundle", "{bundle} on {backend} {scheme}"),
)


def read_status(mqtt: MqttConfig, folder: Path, timeout_s: float = 3.0) -> dict[str, Any]:
    """`status` ("online" or "offline"), with the stats and the refusal that the service has published, if any.

    It logs in as the service does, in another session. Raises EdgeLstmError if the broker is unreachable, refuses, or
    has no such service within `timeout_s`.
    """
    prefix = f"edge-lstm/{mqtt.client_id}"
    connection = MqttConnection(
        parse_address(mqtt.url),
        topics=[f"{prefix}/{name}" for name in ("status", "stats", "refusal")],
        options=mqtt.options(folder),
    )
    connection.open()
    facts: dict[str, Any] = {}
    deadline = time.monotonic() + timeout_s
    quiet = False
    try:
        while time.monotonic() < deadline and not (quiet and "status" in facts):
            messages = connection.poll(0.2)
            quiet = not messages
            for message in messages:
                if message.topic.endswith("/status"):
                    facts["status"] = message.payload.decode("utf-8", "replace")
                elif message.topic.endswith("/refusal"):
                    facts["refusal"] = json.loads(message.payload or b"null")
                else:
                    facts.update(json.loads(message.payload))
            connection.acknowledge(messages)
    except ValueError as error:
        raise EdgeLstmError(f"expected a service's stats on {prefix}/stats, found: {error}") from None
    finally:
        connection.close()
    if "refusal" in facts and "status" not in facts:
        facts["status"] = "never online"
    if "status" not in facts:
        raise EdgeLstmError(
            f"expected a service {mqtt.client_id} at {mqtt.url}, found no message on {prefix}/status",
            "start it (edge-lstm run), or correct client_id",
        )
    return facts


def status_text(facts: dict[str, Any]) -> str:
    """The status for a person."""
    lines = [f"{'status':<10}{facts['status']}"]
    if facts.get("refusal"):
        lines.append(f"{'refusal':<10}{facts['refusal']['error']}")
    counted = defaultdict(int, facts)  # a service of another version may have fewer of them
    if "uptime_s" in facts:
        counted.update({f"commands_{fate}": count for fate, count in facts.get("commands", {}).items()})
        shown = [line for line in _LINES if line[0] != "commands" or "commands" in facts]
        lines += [f"{name:<10}{pattern.format_map(counted)}" for name, pattern in shown]
    if "model_health" in facts:
        lines += _health_lines(facts["model_health"])
    if facts.get("corrected"):
        share = f"their error is {facts['corrected_error']:.0%} of the bundle's"
        lines.append(f"{'learned':<10}{facts['corrected']:,} outputs are corrected, {share}")
    for one in facts.get("operator", ()):
        factor = f"threshold {one['threshold']:g} times the calibrated one" if "threshold" in one else ""
        until = f"maintenance until {one['maintenance_until']}" if "maintenance_until" in one else ""
        lines.append(f"{'operator':<10}{one['stream']}: {', '.join(filter(None, (factor, until)))}")
    for one in facts.get("dropped_by_stream", ()):
        fates = ", ".join(f"{count:,} {fate}" for fate, count in one.items() if fate != "stream")
        lines.append(f"{'stream':<10}{one['stream']}: {fates}")
    for stream, faults in facts.get("degraded", {}).items():
        lines.append(f"{'sensors':<10}{stream}: {', '.join(f'{name} {fault}' for name, fault in faults.items())}")
    return "\n".join(lines)


def _health_lines(health: dict[str, Any]) -> Iterator[str]:
    counts = "good for {good:,} streams, to watch for {watch:,}, poor for {poor:,}".format_map(health)
    yield f"{'model':<10}{counts}"
    for one in health["worst"]:
        yield f"{one['health']:<10}{one['stream']}: {one['reason']}, since {one['since']}"
