"""Payload bytes to readings by a typed mapping, predictions to bytes; the only place that knows JSON and topics."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from edge_lstm.config import key
from edge_lstm.reading import Prediction, Reading
from edge_lstm.times import format_time, parse_time

STREAM = "{stream}"
_UNFIT = re.compile(r"[/+#\x00]")  # what an MQTT topic level cannot hold


class PayloadError(ValueError):
    """A message that the mapping does not fit: counted and reported, never fatal."""


@dataclass(frozen=True)
class InputMapping:
    """Where a reading stands in a message: JSON objects, one a message."""

    topic: str = key("sensors/{stream}", doc="topic pattern; {stream} is the stream's name, + any one level")
    stream: str | None = key(None, doc="key that names the stream, where the topic does not")
    time_from: Literal["payload", "arrival"] = key("payload", doc="whose clock says when")
    time: str = key("time", doc="key of the time: ISO 8601, or seconds or milliseconds since 1970")
    values: dict[str, str] = key({}, doc="feature = key; features not named here have a key of their own name")

    def faults(self) -> Iterator[tuple[str, str]]:
        yield from topic_faults(self.topic, wildcards=True)
        named = self.topic.count(STREAM)
        if named > 1 or (named == 0) != (self.stream is not None):
            yield "topic", f'expected {STREAM} once in the topic, or none and stream = "key", found "{self.topic}"'

    @property
    def topic_filter(self) -> str:
        """The MQTT topic filter that subscribes to it."""
        return self.topic.replace(STREAM, "+")


@dataclass(frozen=True)
class OutputMapping:
    """Where predictions go."""

    topic: str = key("predictions/{stream}", doc="topic pattern; {stream} is the stream's name")
    publish_when: Literal["every", "change"] = key("every", doc="change: only where a value moved over its deadband")
    deadband: dict[str, float] = key({}, doc="target = how far a value may move unsaid, in its unit", least=0)

    def faults(self) -> Iterator[tuple[str, str]]:
        yield from topic_faults(self.topic, wildcards=False)
        if self.topic.count(STREAM) != 1:
            yield "topic", f'expected {STREAM} once, so that streams do not mix, found "{self.topic}"'


def topic_faults(topic: str, *, wildcards: bool) -> Iterator[tuple[str, str]]:
    """What is wrong with a topic pattern, as (key, message)."""
    for level in topic.split("/"):
        plain = level.replace(STREAM, "")
        wild = any(sign in plain for sign in "+#")
        if (plain != level and plain) or (wild and not (wildcards and level == "+")) or set(plain) & set("{}\x00"):
            yield "topic", f'expected levels of plain text, {STREAM}{" or +" if wildcards else ""}, found "{level}"'


class Decoder:
    """Messages to readings, by one mapping, for the given features."""

    def __init__(self, mapping: InputMapping, features: Sequence[str]) -> None:
        self._mapping = mapping
        self._keys = [(feature, mapping.values.get(feature, feature)) for feature in features]
        levels = (re.escape(level).replace(r"\+", "[^/]+") for level in mapping.topic.split("/"))
        pattern = "/".join(level.replace(re.escape(STREAM), "(?P<stream>[^/]+)") for level in levels)
        self._topic = re.compile(pattern)

    def reading(self, topic: str, payload: bytes, arrival: float) -> Reading:
        """The reading in a message that came at `arrival` (seconds since 1970).

        A value that is null, NaN or absent is missing. Raises PayloadError where the message is not a JSON object,
        has no stream or time, a value that is no number, or none of the features.
        """
        try:
            facts = json.loads(payload)
        except (ValueError, RecursionError) as error:
            raise PayloadError(f"expected a JSON object, found {_shown(payload)} ({error})") from None
        if not isinstance(facts, dict):
            raise PayloadError(f"expected a JSON object, found {_shown(payload)}")
        values = {}
        for feature, name in self._keys:
            if (value := _number(facts.get(name), name)) is not None:
                values[feature] = value
        if not values:
            expected = ", ".join(f'"{name}"' for _, name in self._keys)
            raise PayloadError(f"expected a number under one of the keys {expected}, found none in {_shown(payload)}")
        return Reading(self._stream(topic, facts), self._time(facts, arrival), values)

    def _stream(self, topic: str, facts: dict[str, Any]) -> str:
        if self._mapping.stream is None:
            match = self._topic.fullmatch(topic)
            if match is None:
                raise PayloadError(f"expected a topic like {self._mapping.topic}, found {topic}")
            return match["stream"]
        stream = facts.get(self._mapping.stream)
        if not isinstance(stream, (str, int)) or isinstance(stream, bool):
            raise PayloadError(f'expected the stream\'s name under "{self._mapping.stream}", found {stream!r}')
        if not str(stream) or _UNFIT.search(str(stream)):
            raise PayloadError(f"expected a stream's name without / + #, found {stream!r}")
        return str(stream)

    def _time(self, facts: dict[str, Any], arrival: float) -> float:
        if self._mapping.time_from == "arrival":
            return arrival
        if self._mapping.time not in facts:
            raise PayloadError(f'expected the time under "{self._mapping.time}", found none')
        try:
            return parse_time(facts[self._mapping.time])
        except ValueError as error:
            raise PayloadError(f'"{self._mapping.time}": {error}') from None


def encode_reading(reading: Reading) -> str:
    """A reading as `InputMapping()` takes it: {"time": "2016-07-01T07:00:00Z", "ac_power": -2.86}."""
    return json.dumps({"time": format_time(reading.time), **reading.values}, separators=(",", ":"))


def encode_prediction(prediction: Prediction, bundle_id: str) -> str:
    """A prediction as JSON; docs/predictions.md is its contract with subscribers."""
    facts = {
        "stream": prediction.stream,
        "time": format_time(prediction.time),
        "step": prediction.step,
        "warm_steps": prediction.warm_steps,
        "revision": prediction.revision,
        "bundle": bundle_id,
        "predictions": prediction.values,
    }
    return json.dumps(facts, separators=(",", ":"))


def decode_prediction(payload: str) -> Prediction:
    """The prediction in what `encode_prediction` gave, for subscribers in Python. Raises ValueError otherwise."""
    try:
        facts = json.loads(payload)
        values = {
            target: {int(horizon): float(value) for horizon, value in by_horizon.items()}
            for target, by_horizon in facts["predictions"].items()
        }
        return Prediction(
            facts["stream"],
            parse_time(facts["time"]),
            int(facts["step"]),
            int(facts["warm_steps"]),
            values,
            int(facts["revision"]),
        )
    except (AttributeError, KeyError, TypeError) as error:
        raise ValueError(f"expected a prediction, found {payload[:60]!r} ({error})") from None


def _number(value: Any, name: str) -> float | None:
    """The value as a float, or None where it is missing."""
    if isinstance(value, str):
        try:
            value = float(value)
        except ValueError:
            raise PayloadError(f'expected a number under "{name}", found "{value}"') from None
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise PayloadError(f'expected a number under "{name}", found {value!r}')
    try:
        number = float(value)
    except OverflowError:
        raise PayloadError(f'expected a number under "{name}", found one of {len(str(value))} digits') from None
    return number if math.isfinite(number) else None


def _shown(payload: bytes) -> str:
    text = payload[:60].decode("utf-8", "replace")
    return f"{text!r}{'…' if len(payload) > 60 else ''}"
