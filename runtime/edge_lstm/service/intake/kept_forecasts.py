"""The newest forecasts of each quantity and stream: kept in memory and in the state database, and filled into readings.

A reading gets its values when it is decoded, in the order of the messages. The database has the forecasts of those
messages that are acknowledged. So after a crash the messages that come again give the same readings.
"""

from __future__ import annotations

import itertools
import json
import math
from array import array
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import NamedTuple

from edge_lstm.bundle.contract import Contract
from edge_lstm.messages.forecasts.forecast_decoder import ForecastDecoder
from edge_lstm.messages.formats.payloads import dump_json
from edge_lstm.mqtt.client.received import Message
from edge_lstm.service.database.stored_forecasts import ForecastKey
from edge_lstm.service.intake.message_reader import message_identity
from edge_lstm.streaming.forecasts import Forecast, ForecastFeatures
from edge_lstm.streaming.reading import Reading

_KEPT = 4  # forecasts of a stream: late readings take the one of their time
_MOST_POINTS = 1_000_000  # in all: 16 bytes each

_Kept = tuple[Forecast, ...]  # the newest one last


class _Change(NamedTuple):
    """What a message changed."""

    message: Message
    key: ForecastKey
    kept: _Kept


class KeptForecasts:
    """Takes messages with forecasts, and fills readings."""

    def __init__(
        self,
        contract: Contract,
        decoder: ForecastDecoder,
        stored: Iterable[tuple[ForecastKey, str]],
        most: int,
        has_session: Callable[[], bool],
    ) -> None:
        """`stored`: what the database has, in the order of its last changes. `most`: streams with forecasts.

        `has_session`: whether the broker kept the session of the service, with every forecast that was published.
        """
        self.counts: Counter[str] = Counter(forecasts=0)
        self.topic_filters, self.max_bytes = decoder.topic_filters, decoder.max_bytes
        self._decoder, self._features = decoder, ForecastFeatures(contract)
        self._names = [one.name for one in contract.known_ahead]
        self._most, self._has_session = most * len(self._names), has_session
        self._kept: dict[ForecastKey, _Kept] = {}
        self._points = 0
        self._changes: list[_Change] = []  # that are not in the database, in order
        self._before: dict[ForecastKey, _Kept] = {}  # what the last messages changed
        self._changes_before = 0
        for key, text in stored:
            if key.quantity in self._names:
                self._put(key, _forecasts(text))

    def is_for(self, topic: str) -> bool:
        """Whether messages of the topic hold forecasts."""
        return self._decoder.is_for(topic)

    def begin_batch(self) -> None:
        """Messages are read whose readings may have to be read again, see `undo`."""
        self._before.clear()
        self._changes_before = len(self._changes)

    def undo(self) -> None:
        """Forget the forecasts since `begin_batch`: their messages are read again."""
        for key, kept in self._before.items():
            self._put(key, kept)
        self._before.clear()
        del self._changes[self._changes_before :]

    def take(self, message: Message, arrival: float) -> None:
        """Keep the forecasts of a message that came at `arrival`, in seconds since 1970.

        A message that came again changes nothing. A retained one is used where no forecast is known, or where the
        broker has no session that holds the forecasts since. Raises PayloadError if it cannot be read.
        """
        found = self._decoder.forecasts(message.topic, message.payload, arrival)
        identity = message_identity(message) if message.qos else ""
        for one in found:
            key = ForecastKey(one.quantity, one.stream)
            kept = self._kept.get(key, ())
            if message.repeated and any(identity == other.identity for other in kept):
                continue
            if message.retained and not message.repeated and kept and self._has_session():
                continue
            self._change(message, key, _with(kept, _packed(one.forecast, identity)))
        self.counts["forecasts"] += bool(found)

    def filled(self, reading: Reading) -> Reading:
        """The reading with the values that are known ahead at its time."""
        kept, stream = self._kept, reading.stream
        forecasts: dict[str, Sequence[Forecast]] = {}
        for name in self._names:
            own = kept.get(ForecastKey(name, stream))
            forecasts[name] = kept.get(ForecastKey(name, None), ()) if own is None else own
        return self._features.filled(reading, forecasts)

    def settled(self, waiting: Collection[int]) -> dict[ForecastKey, str | None]:
        """What the next commit stores: changes by messages that it allows to acknowledge; None: the key is deleted.

        `waiting`: `id` of the messages that are not acknowledged then. Changes from the first of these on stay.
        """
        settled = list(itertools.takewhile(lambda change: id(change.message) not in waiting, self._changes))
        del self._changes[: len(settled)]
        newest = {key: kept for _, key, kept in settled}
        return {key: _text(kept) if kept else None for key, kept in newest.items()}

    def _change(self, message: Message, key: ForecastKey, kept: _Kept) -> None:
        self._note(message, key, kept)
        while len(self._kept) > 1 and (len(self._kept) > self._most or self._points > _MOST_POINTS):
            self._note(message, next(iter(self._kept)), ())

    def _note(self, message: Message, key: ForecastKey, kept: _Kept) -> None:
        self._before.setdefault(key, self._kept.get(key, ()))
        self._put(key, kept)
        self._changes.append(_Change(message, key, kept))

    def _put(self, key: ForecastKey, kept: _Kept) -> None:
        """Put it at the end of the order of changes; without a forecast the key is removed."""
        self._points += _points(kept) - _points(self._kept.pop(key, ()))
        if kept:
            self._kept[key] = kept


def _packed(forecast: Forecast, identity: str) -> Forecast:
    """The forecast in a quarter of the memory."""
    return Forecast(array("d", forecast.times), array("d", forecast.values), forecast.issued, identity)


def _with(kept: _Kept, forecast: Forecast) -> _Kept:
    """The forecasts with a new one: at its place by the time when they were made, or else as the newest.

    Of those that do not say when they were made, only the newest one is ever used.
    """
    if forecast.issued is None:
        former = [one if one.issued is not None else one._replace(times=(), values=()) for one in kept]
        return (*former, forecast)[-_KEPT:]
    place = len(kept)
    while place and (issued := kept[place - 1].issued) is not None and issued > forecast.issued:
        place -= 1
    return (*kept[:place], forecast, *kept[place:])[-_KEPT:]


def _points(kept: _Kept) -> int:
    return sum(len(forecast.times) for forecast in kept)


def _text(kept: _Kept) -> str:
    """The forecasts as JSON."""
    return dump_json([[*one.times, *_without_nan(one.values), one.issued, one.identity] for one in kept])


def _without_nan(values: Sequence[float]) -> list[float | None]:
    return [None if math.isnan(value) else value for value in values]


def _forecasts(text: str) -> _Kept:
    """The forecasts in the text that `_text` gave."""
    found = []
    for *numbers, issued, identity in json.loads(text):
        half = len(numbers) // 2
        values = [math.nan if value is None else float(value) for value in numbers[half:]]
        found.append(_packed(Forecast([*map(float, numbers[:half])], values, issued), identity))
    return tuple(found)
