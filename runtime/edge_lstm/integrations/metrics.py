"""Metrics of a service for Prometheus: an HTTP endpoint whose figures are taken when it is read.

There is no label for streams, since each of its values would stay in the monitoring system without end; with
`worst_streams` the streams with most dropped readings have one.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from edge_lstm.foundation.errors import EdgeLstmError
from edge_lstm.foundation.extras import require
from edge_lstm.service.config import MetricsConfig
from edge_lstm.service.reports.stats_requests import Snapshot, StatsRequests

if TYPE_CHECKING:
    from prometheus_client.core import Metric

_ANSWER_WITHIN_S = 2.0
_COUNTERS = {  # by the name in the stats
    "readings": ("edge_lstm_readings", "Readings that were processed."),
    "samples": ("edge_lstm_steps", "Steps of all streams."),
    "predictions": ("edge_lstm_predictions", "Predictions that were published."),
    "rewound": ("edge_lstm_readings_rewound", "Late readings that were inserted at their time."),
    "gaps": ("edge_lstm_states_reset", "States that were reset after a gap."),
    "sessions_lost": ("edge_lstm_sessions_lost", "Sessions that the broker lost."),
    "set_aside": ("edge_lstm_messages_set_aside", "Messages that ended the process or raised an error, each alone."),
    "damaged": ("edge_lstm_state_damaged", "Damaged rows and batches of the state database."),
    "overloads": ("edge_lstm_overloads", "Reconnects because more messages came than could be kept."),
}
_DROPPED = ("late", "duplicate", "costly")
_REFUSED = ("refused", "ignored", "retained", "repeated", "malformed", "names_refused")
_GAUGES = {
    "streams": ("edge_lstm_streams", "Streams in the state database."),
    "streams_in_memory": ("edge_lstm_streams_in_memory", "Streams in memory."),
    "queue": ("edge_lstm_queue_messages", "Received messages that are not processed yet."),
    "unconfirmed": ("edge_lstm_predictions_unconfirmed", "Predictions that the broker has not confirmed."),
    "lag_s": ("edge_lstm_lag_seconds", "Age of the last reading when its prediction was published."),
    "in_alarm": ("edge_lstm_streams_in_alarm", "Streams in memory that are in an alarm."),
}


class ServiceCollector:
    """Asks the service for its figures at each scrape."""

    def __init__(self, requests: StatsRequests, worst_streams: int = 0) -> None:
        """`worst_streams`: of how many streams dropped readings are shown by name, at most ten."""
        self._requests, self._worst_streams = requests, worst_streams

    def collect(self) -> Iterator[Metric]:
        """The metrics; `edge_lstm_responsive` alone, as 0, if the service does not answer within two seconds."""
        from prometheus_client.core import GaugeMetricFamily

        found = self._requests.ask(_ANSWER_WITHIN_S)
        yield GaugeMetricFamily("edge_lstm_responsive", "Whether the service's loop answers.", found is not None)
        if found is not None:
            yield from self._metrics(found)

    def describe(self) -> Iterable[Metric]:
        """None: the registry would ask the service for them before it runs."""
        return []

    def _metrics(self, found: Snapshot) -> Iterator[Metric]:
        from prometheus_client.core import (
            CounterMetricFamily,
            GaugeMetricFamily,
            HistogramMetricFamily,
            InfoMetricFamily,
            SummaryMetricFamily,
        )

        stats, durations = found.stats, found.durations
        for key, (name, text) in _COUNTERS.items():
            yield CounterMetricFamily(name, text, stats.get(key, 0))
        yield _by_reason("edge_lstm_readings_dropped", "Readings that were dropped.", stats, _DROPPED)
        yield _by_reason("edge_lstm_messages_unused", "Messages that were not used.", stats, _REFUSED)
        for key, (name, text) in _GAUGES.items():
            if key in stats:
                yield GaugeMetricFamily(name, text, stats[key])
        yield GaugeMetricFamily("edge_lstm_connected", "Whether the broker is connected.", found.connected)
        batches = HistogramMetricFamily("edge_lstm_batch_seconds", "Time for a batch, from decoding to publishing.")
        batches.add_metric([], durations.cumulative(), durations.total_s)
        yield batches
        steps = SummaryMetricFamily("edge_lstm_step_seconds", "Time for a batch, shared among its steps.")
        steps.add_metric([], stats.get("samples", 0), durations.total_s)
        yield steps
        labels = {name: str(stats[name]) for name in ("bundle", "backend", "scheme")}
        yield InfoMetricFamily("edge_lstm_model", "The bundle that runs.", labels)
        if (health := stats.get("model_health")) is not None:
            models = GaugeMetricFamily("edge_lstm_model_health_streams", "Streams by verdict.", labels=["health"])
            for verdict in ("good", "watch", "poor"):
                models.add_metric([verdict], health[verdict])
            yield models
        if self._worst_streams:
            worst = CounterMetricFamily(
                "edge_lstm_stream_readings_dropped", "Of the worst streams.", labels=["stream", "reason"]
            )
            for one in stats["dropped_by_stream"][: self._worst_streams]:
                for reason in _DROPPED:
                    worst.add_metric([one["stream"], reason], one.get(reason, 0))
            yield worst


def _by_reason(name: str, text: str, stats: Mapping[str, Any], reasons: Iterable[str]) -> Metric:
    from prometheus_client.core import CounterMetricFamily

    found = CounterMetricFamily(name, text, labels=["reason"])
    for reason in reasons:
        found.add_metric([reason], stats.get(reason, 0))
    return found


@contextlib.contextmanager
def metrics_endpoint(config: MetricsConfig, requests: StatsRequests) -> Iterator[int]:
    """Serve the metrics at http://HOST:PORT/metrics; gives the port. Raises EdgeLstmError if the port is not free."""
    require("metrics", "prometheus_client")
    from prometheus_client import CollectorRegistry, ProcessCollector, start_http_server

    registry = CollectorRegistry(auto_describe=False)
    registry.register(ServiceCollector(requests, config.worst_streams))
    ProcessCollector(registry=registry)
    assert config.port is not None  # the caller checks it
    try:
        server, thread = start_http_server(config.port, config.host, registry)
    except OSError as error:
        raise EdgeLstmError(
            f"expected to listen at {config.host}:{config.port} for metrics, found: {error.strerror or error}",
            "set another port or host under [metrics]",
        ) from None
    try:
        yield server.server_port
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
