"""The codecs of a service: its decoder, encoder and deadband, and the MQTT properties of its predictions."""

from __future__ import annotations

from collections.abc import Callable

from edge_lstm.bundle.archive import Bundle
from edge_lstm.bundle.contract import Contract
from edge_lstm.foundation.errors import ConfigError, EdgeLstmError
from edge_lstm.messages.deadband import Deadband
from edge_lstm.messages.decoder import Decoder
from edge_lstm.messages.encoder import Encoder
from edge_lstm.messages.events.alarm_events import AlarmEvents, encode_event
from edge_lstm.messages.events.health_events import HealthEvents
from edge_lstm.messages.events.sensor_events import SensorEvents
from edge_lstm.messages.forecasts.forecast_decoder import ForecastDecoder
from edge_lstm.messages.mapping import OutputMapping
from edge_lstm.messages.topics import matches_filter
from edge_lstm.mqtt.send_window import PublishProperties
from edge_lstm.service.config import ServiceConfig
from edge_lstm.service.processing.outbox import Outgoing
from edge_lstm.service.processing.publication import errors_topic, events_topic
from edge_lstm.streaming.step_results import Steps
from edge_lstm.streaming.stream_table import StreamTable


def message_codecs(config: ServiceConfig, bundle: Bundle) -> tuple[Decoder, Encoder, Deadband | None]:
    """Messages to readings, predictions to messages, and which predictions to publish (None: all).

    Raises EdgeLstmError if [input] or [output] does not fit the bundle.
    """
    contract, output = bundle.contract, config.output
    categories = {feature.name: feature.categories for feature in contract.features if feature.categories}
    units = {feature.name: feature.unit for feature in contract.measured}
    decoder = Decoder(config.input, list(units), categories, units)
    if output.publish_when == "alarm" and contract.task not in ("classify", "anomaly"):
        raise EdgeLstmError(
            f'expected a bundle with labels or alarms for publish_when = "alarm", found the task {contract.task}',
            'set publish_when = "change" and a deadband under [output] in the service config, or remove the key',
        )
    deadband = Deadband(contract, output.deadband) if output.publish_when == "change" else None
    return decoder, Encoder(output, bundle.id), deadband


def forecast_decoder(config: ServiceConfig, contract: Contract) -> ForecastDecoder | None:
    """Messages to forecasts; None for a bundle that takes none.

    Raises ConfigError if [forecasts] does not fit the bundle, or if a prediction would be taken for a forecast.
    """
    if not contract.known_ahead and not config.forecasts:
        return None
    decoder = ForecastDecoder(contract, config.forecasts)
    for topic_filter in decoder.topic_filters:
        if matches_filter(config.published_topic, topic_filter):
            raise ConfigError(
                f'expected an output.topic outside of "{topic_filter}", the forecasts\' own, found '
                f'"{config.output.topic}"',
                "change output.topic, or the topic under [forecasts]",
            )
    return decoder


def publish_properties(output: OutputMapping) -> PublishProperties | None:
    """The MQTT 5 properties of every prediction; None if the config sets none."""
    if not output.needs_mqtt_5:
        return None
    return PublishProperties(output.expiry_s, output.content_type or "", tuple(output.user_properties.items()))


def outgoing(
    config: ServiceConfig,
    table: StreamTable,
    encoder: Encoder,
    deadband: Deadband | None,
    events: AlarmEvents,
    health: HealthEvents,
    sensors: SensorEvents,
) -> Callable[[Steps], list[Outgoing]]:
    """A function that returns the messages of steps: of those whose predictions are published, then about events
    and sensors.

    Corrections are always published.
    """
    about_events, about_errors = events_topic(config.mqtt.client_id), errors_topic(config.mqtt.client_id)

    def messages(steps: Steps) -> list[Outgoing]:
        told = [*map(encode_event, events.messages(steps)), *health.messages(steps)]
        about = [(about_events, text.encode()) for text in told]
        about += [(about_errors, one.encode()) for one in sensors.messages(steps)]
        if deadband is not None:
            steps = steps.at(deadband.moved(steps, table))
        elif config.output.publish_when == "alarm":
            steps = steps.at((steps.decisions.turned | (steps.revisions > 0)).nonzero()[0].tolist())
        return encoder.messages(steps) + about

    return messages
