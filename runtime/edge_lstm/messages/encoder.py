"""Encodes predictions to messages, and decodes them for subscribers in Python; see docs/predictions.md."""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Iterable, Mapping
from itertools import chain
from typing import Any

from edge_lstm.decisions.alarms.events import MOST_DRIVERS
from edge_lstm.foundation.arrays import Floats
from edge_lstm.foundation.extras import require
from edge_lstm.foundation.numbers import shortest_texts
from edge_lstm.foundation.times.text import format_time, parse_time
from edge_lstm.messages.endings import (
    decoded_drivers,
    decoded_event,
    ending_of,
    endings,
    have_endings,
)
from edge_lstm.messages.json_texts import number_of, quoted, score_text
from edge_lstm.messages.mapping import OutputMapping
from edge_lstm.messages.topics import STREAM
from edge_lstm.streaming.reading import Prediction
from edge_lstm.streaming.step_results import Steps

_BOOLEANS = ("false", "true")
_ENDS = ("low", "high")  # of a band, in flat payloads

_Outputs = tuple[tuple[str, tuple[int, ...]], ...]  # names, each with its horizons


class Encoder:
    """Encodes the predictions of one bundle by one mapping."""

    def __init__(self, mapping: OutputMapping, bundle_id: str) -> None:
        """Raises EdgeLstmError if the format needs a package that is not installed."""
        self._topic, self._bundle_id, self._format = mapping.topic, bundle_id, mapping.format
        if mapping.format == "msgpack":
            require("msgpack", "msgpack")

    def topic(self, stream: str) -> str:
        """The topic of a stream's predictions."""
        return self._topic.replace(STREAM, stream)

    def payload(self, prediction: Prediction) -> bytes:
        """The payload of a prediction."""
        if self._format == "msgpack":
            return encode_msgpack(_shortened(prediction), self._bundle_id)
        return _text(_shortened(prediction), self._bundle_id, flat=self._format == "flat").encode()

    def messages(self, steps: Steps) -> list[tuple[str, bytes]]:
        """`topic` and `payload` of each step; what all predictions of a bundle share is written once."""
        if not len(steps.order):
            return []
        if self._format == "msgpack":
            payloads = [self.payload(prediction) for prediction in steps.predictions()]
        else:
            decided = steps.decisions
            labelled, scored = decided.labels[0] is not None, decided.scores is not None
            outputs = tuple([(name, tuple(horizons)) for name, horizons in steps.outputs])
            banded = tuple([(name, tuple(horizons)) for name, horizons in steps.banded])
            ends = have_endings(steps)
            pattern = _pattern(outputs, self._bundle_id, self._format == "flat", labelled, scored, banded, ends)
            columns = _columns(steps)
            if ends:
                columns.append(endings(steps, self._format == "flat"))
            payloads = [(pattern % row).encode() for row in zip(*columns, strict=True)]
        return list(zip(map(self.topic, steps.streams), payloads, strict=True))


def _shortened(prediction: Prediction) -> Prediction:
    """The prediction as it is published: with the first drivers only."""
    drivers = prediction.drivers
    return prediction if drivers is None else prediction._replace(drivers=drivers[:MOST_DRIVERS])


def encode_prediction(prediction: Prediction, bundle_id: str) -> str:
    """A prediction as JSON, its numbers by target and horizon, with all its drivers; NaN and infinity are null."""
    return _text(prediction, bundle_id, flat=False)


def encode_msgpack(prediction: Prediction, bundle_id: str) -> bytes:
    """A prediction as MessagePack, with the keys and values of `encode_prediction`."""
    import msgpack

    packed: bytes = msgpack.packb(json.loads(encode_prediction(prediction, bundle_id)))
    return packed


def decode_prediction(payload: str) -> Prediction:
    """The inverse of `encode_prediction`, for subscribers in Python. Raises ValueError for any other payload."""
    try:
        facts = json.loads(payload)
        values = {
            target: {int(horizon): number_of(value) for horizon, value in by_horizon.items()}
            for target, by_horizon in facts["predictions"].items()
        }
        return Prediction(
            facts["stream"],
            parse_time(facts["time"]),
            int(facts["step"]),
            int(facts["warm_steps"]),
            values,
            int(facts["revision"]),
            facts.get("label"),
            None if "score" not in facts else math.nan if facts["score"] is None else float(facts["score"]),
            alarm=facts.get("alarm"),
            bands=_bands(facts["bands"]) if "bands" in facts else None,
            drivers=decoded_drivers(facts["drivers"]) if "drivers" in facts else None,
            event=decoded_event(facts["event"]) if "event" in facts else None,
            degraded=tuple(facts.get("degraded", ())),
            confidence=facts.get("confidence"),
        )
    except (AttributeError, KeyError, TypeError) as error:
        raise ValueError(f"expected a prediction, found {payload[:60]!r} ({error})") from None


def _bands(facts: Mapping[str, Any]) -> dict[str, dict[int, tuple[float, float]]]:
    """The bounds by target and horizon, from JSON values."""
    return {
        target: {int(horizon): (number_of(low), number_of(high)) for horizon, (low, high) in by_horizon.items()}
        for target, by_horizon in facts.items()
    }


def _columns(steps: Steps) -> list[Iterable[object]]:
    """The values for the gaps of the pattern, one column per gap."""
    decided = steps.decisions
    times = steps.times.tolist()
    texts_of_times = {time: format_time(time) for time in set(times)}  # many streams are read at the same moment
    columns: list[Iterable[object]] = [map(quoted, steps.streams), [texts_of_times[time] for time in times]]
    columns += [column.tolist() for column in (steps.steps, steps.warm_steps, steps.revisions)]
    if decided.labels[0] is not None:
        columns.append([quoted(label or "") for label in decided.labels])
    if decided.scores is not None and decided.alarms is not None:
        columns += [map(score_text, decided.scores.tolist()), map(_BOOLEANS.__getitem__, decided.alarms.tolist())]
    columns += _texts_by_column(steps.values)
    if decided.bands is not None:
        columns += _texts_by_column(decided.bands.reshape(len(times), -1))
    return columns


def _texts_by_column(values: Floats) -> list[list[str]]:
    """(n, columns) as texts, column by column."""
    texts, count = shortest_texts(values), values.shape[1]
    return [texts[at::count] for at in range(count)]


def _text(prediction: Prediction, bundle_id: str, flat: bool) -> str:
    """A prediction as JSON; `flat`: one level only, the numbers under `target+horizon`."""
    outputs = tuple([(target, tuple(values)) for target, values in prediction.values.items()])
    head = (prediction.step, prediction.warm_steps, prediction.revision)
    row: list[object] = [quoted(prediction.stream), format_time(prediction.time), *head]
    if prediction.label is not None:
        row.append(quoted(prediction.label))
    if prediction.score is not None:
        row += [score_text(prediction.score), _BOOLEANS[bool(prediction.alarm)]]
    numbers = (number for values in prediction.values.values() for number in values.values())
    bands = prediction.bands or {}
    bounds = (bound for by_horizon in bands.values() for pair in by_horizon.values() for bound in pair)
    row += [number if math.isfinite(number) else "null" for number in chain(numbers, bounds)]
    labelled, scored = prediction.label is not None, prediction.score is not None
    banded = tuple([(target, tuple(by_horizon)) for target, by_horizon in bands.items()])
    ending = ending_of(prediction.drivers, prediction.event, prediction.degraded, prediction.confidence, flat)
    return _pattern(outputs, bundle_id, flat, labelled, scored, banded, True) % (*row, ending)


# Written by hand: json.dumps takes twice as long. orjson writes some floats differently, so the payload would depend on
# what is installed.
@functools.lru_cache(64)  # a bundle's predictions differ in numbers only
def _pattern(
    outputs: _Outputs, bundle_id: str, flat: bool, labelled: bool, scored: bool, banded: _Outputs, ends: bool
) -> str:
    """A prediction as JSON, with %s for everything that differs between predictions; `ends`: also for an ending."""

    def literal(text: str) -> str:
        return text.replace("%", "%%")

    def gaps(names: Iterable[str | int]) -> str:
        return ",".join([f"{literal(_key(name))}%s" for name in names])

    head = '{"stream":%s,"time":"%s","step":%s,"warm_steps":%s,"revision":%s'
    head += f',"bundle":{literal(quoted(bundle_id))}'
    head += ',"label":%s' * labelled + ',"score":%s,"alarm":%s' * scored
    end = "%s}" if ends else "}"
    if flat:
        names = [f"{target}+{horizon}" for target, horizons in outputs for horizon in horizons]
        names += [f"{target}+{horizon}_{end}" for target, horizons in banded for horizon in horizons for end in _ENDS]
        return f"{head},{gaps(names)}{end}"
    targets = [f"{literal(_key(target))}{{{gaps(horizons)}}}" for target, horizons in outputs]
    head += f',"predictions":{{{",".join(targets)}}}'
    pairs = [
        literal(_key(target)) + "{" + ",".join([f"{_key(horizon)}[%s,%s]" for horizon in horizons]) + "}"
        for target, horizons in banded
    ]
    return f'{head},"bands":{{{",".join(pairs)}}}{end}' if banded else f"{head}{end}"


def _key(name: str | int) -> str:
    return f"{json.dumps(str(name))}:"
