"""The newest forecasts while a recording is made: each row gets what they say about the steps after it."""

from __future__ import annotations

from edge_lstm.bundle.contract import Contract
from edge_lstm.messages.forecasts.forecast_decoder import ForecastDecoder
from edge_lstm.streaming.forecasts import Forecast, ForecastFeatures
from edge_lstm.streaming.reading import Reading

_MOST_STREAMS = 10_000  # with a forecast of their own; strangers can make up any number of names


class RecordedForecasts:
    """Fills the columns of a bundle's features that are known ahead."""

    def __init__(self, contract: Contract, decoder: ForecastDecoder) -> None:
        self.names = [contract.features[column].name for column in contract.ahead_columns]
        self.topic_filters = decoder.topic_filters
        self._decoder, self._features = decoder, ForecastFeatures(contract)
        self._quantities = [one.name for one in contract.known_ahead]
        self._newest: dict[tuple[str, str | None], Forecast] = {}

    def is_for(self, topic: str) -> bool:
        """Whether messages of the topic hold forecasts."""
        return self._decoder.is_for(topic)

    def take(self, topic: str, payload: bytes, arrival: float) -> None:
        """Keep the forecasts of a message that came at `arrival`. Raises PayloadError if it cannot be read."""
        for quantity, stream, forecast in self._decoder.forecasts(topic, payload, arrival):
            self._newest.pop((quantity, stream), None)
            self._newest[quantity, stream] = forecast
        while len(self._newest) > _MOST_STREAMS:
            del self._newest[next(iter(self._newest))]

    def filled(self, reading: Reading) -> Reading:
        """The reading with the values that are known ahead at its time."""
        found = {}
        for name in self._quantities:
            own = self._newest.get((name, reading.stream)) or self._newest.get((name, None))
            found[name] = [] if own is None else [own]
        return self._features.filled(reading, found)
