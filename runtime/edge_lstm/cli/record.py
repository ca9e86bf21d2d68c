"""The command `record`."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edge_lstm.foundation.errors import EdgeLstmError
from edge_lstm.foundation.text import escaped

if TYPE_CHECKING:
    from edge_lstm.messages.mapping import InputMapping
    from edge_lstm.mqtt.connection import MqttConnection
    from edge_lstm.recordings.live.recorded_forecasts import RecordedForecasts
    from edge_lstm.service.config import MqttConfig

_SESSION_S = 604_800  # a week, the default of a service


@click.command()
@click.option(
    "--from", "url", metavar="mqtt://HOST:PORT", help="Broker to read from (default: the broker of --config)."
)
@click.option(
    "--topic", "topics", multiple=True, metavar="TOPIC", help="Topic of readings, like sensors/{stream}; repeatable."
)
@click.option("--preset", metavar="NAME", help="Preset for the messages of a device software, like tasmota.")
@click.option(
    "--config",
    type=click.Path(path_type=Path),
    metavar="SERVICE.toml",
    help="Take topics, mapping and broker from this service config.",
)
@click.option(
    "--feature",
    "features",
    multiple=True,
    metavar="NAME[=PATH]",
    help="Feature to record, and its JSON path in a message; repeatable (default: see above).",
)
@click.option(
    "--client-id",
    metavar="NAME",
    help="MQTT client id. The broker then keeps readings between two runs for up to a week (default: no session).",
)
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    required=True,
    metavar="FILE.csv",
    help="File to write; an existing one is continued.",
)
@click.option(
    "--settle",
    "settle_s",
    type=click.FloatRange(0, 86_400),
    default=10.0,
    show_default=True,
    metavar="SECONDS",
    help="How long to collect messages before the columns are chosen from them.",
)
def record(
    url: str | None,
    topics: tuple[str, ...],
    preset: str | None,
    config: Path | None,
    features: tuple[str, ...],
    client_id: str | None,
    output: Path,
    settle_s: float,
) -> None:
    """Record live MQTT readings into a CSV file, until Ctrl-C.

    Without --feature, the columns come from the existing file, from the bundle (with --config), or from all values that
    come in the first seconds. A message without a time gets its time of arrival, unless the config says otherwise.
    """
    from edge_lstm.foundation.signals import ended_by_signals
    from edge_lstm.recordings.live.recorder import Recorder

    paths = dict(text.partition("=")[::2] for text in features)
    if config is not None and (topics or preset):
        raise click.UsageError("expected either --config or --topic and --preset: a config has its own topics")
    if output.suffix.lower() != ".csv":
        raise EdgeLstmError(
            f"expected a file that ends in .csv, found {output}", "use such a name; the file can be gzipped afterwards"
        )
    source = _from_options(url, topics, preset, paths) if config is None else _from_config(config, url, paths)
    connection = source.connection(client_id)
    recorder = Recorder(
        connection, source.mapping, output, source.features, source.categories, settle_s, source.forecasts
    )
    connection.open()
    try:
        with ended_by_signals(recorder.stop):
            click.echo(f"recording from {connection.address} into {output}; end with Ctrl-C", err=True)
            recorder.run()
    finally:
        connection.close()
    counts = recorder.counts
    others = ", ".join(f"{counts[name]} {name}" for name in ("refused", "ignored", "retained") if counts[name])
    streams = len(recorder.streams)
    said = f"{counts['readings']} readings of {streams} stream{'' if streams == 1 else 's'} in {output}"
    click.echo(escaped(f"{said}{f' ({others})' if others else ''}"))
    if unrecorded := recorder.unrecorded.summary():
        click.echo(escaped(f"not recorded: {unrecorded}"))


@dataclass(frozen=True)
class _Source:
    """Where the readings come from and how to decode them."""

    url: str
    mqtt: MqttConfig  # login, TLS and protocol
    folder: Path  # holds the files that `mqtt` names
    mapping: InputMapping
    features: list[str]  # empty: the recorder finds them
    categories: dict[str, list[str]]  # of features whose values are texts
    forecasts: RecordedForecasts | None = None  # of a bundle that takes some

    def connection(self, client_id: str | None) -> MqttConnection:
        """A connection to the broker, not yet open. With a `client_id` the broker keeps a session."""
        from edge_lstm.messages.topics import filters_of
        from edge_lstm.mqtt.address import parse_address
        from edge_lstm.mqtt.connection import MqttConnection
        from edge_lstm.mqtt.options import Wanted

        mqtt = self.mqtt
        return MqttConnection(
            parse_address(self.url),
            client_id or "",
            filters_of(
                [*self.mapping.topic_filters, *([] if self.forecasts is None else self.forecasts.topic_filters)]
            ),
            session_expiry_s=_SESSION_S if client_id else 0,
            options=replace(
                mqtt.options(self.folder),
                receive_maximum=mqtt.receive_maximum,
                keepalive_s=mqtt.keepalive_s,
                wanted=Wanted(user_properties=self.mapping.properties_read),
            ),
        )


def _from_config(config: Path, url: str | None, paths: dict[str, str]) -> _Source:
    """The source that a service config describes; `url` replaces its broker, the names in `paths` its features."""
    from edge_lstm.bundle.archive import Bundle
    from edge_lstm.recordings.live.recorded_forecasts import RecordedForecasts
    from edge_lstm.service.codecs import forecast_decoder
    from edge_lstm.service.config import read_service_config

    if any(paths.values()):
        raise click.UsageError("expected --feature NAME beside --config: the paths are in its [input.values]")
    service = read_service_config(config)
    bundle = config.parent / service.bundle  # before the first training there is none
    contract = Bundle.open(bundle).contract if bundle.exists() else None
    features = [] if contract is None else contract.measured
    names = list(paths) or [feature.name for feature in features]
    categories = {feature.name: feature.categories for feature in features if feature.categories}
    decoder = None if contract is None or paths else forecast_decoder(service, contract)
    forecasts = None if contract is None or decoder is None else RecordedForecasts(contract, decoder)
    if forecasts is not None and contract is not None:
        ahead = [contract.features[column] for column in contract.ahead_columns]
        categories.update((feature.name, feature.categories) for feature in ahead if feature.categories)
    mqtt = service.mqtt
    return _Source(url or mqtt.url, mqtt, config.parent, service.input, names, categories, forecasts)


def _from_options(url: str | None, topics: tuple[str, ...], preset: str | None, paths: dict[str, str]) -> _Source:
    """The source that the command line describes; `paths`: the path of each feature in a message, or empty."""
    from edge_lstm.foundation.config import from_mapping
    from edge_lstm.messages.mapping import InputMapping
    from edge_lstm.service.config import MqttConfig

    if url is None:
        raise click.UsageError("expected --from mqtt://HOST:PORT or --config SERVICE.toml, found neither")
    if not (topics or preset):
        raise click.UsageError("expected --topic, --preset or --config, found none of them")
    table: dict[str, Any] = {"preset": preset} if preset else {"time_from": "payload-or-arrival"}
    if topics:
        table["topic"] = list(topics)
    table["values"] = {name: path for name, path in paths.items() if path}
    mapping = from_mapping(table, InputMapping, "the command line")
    return _Source(url, MqttConfig(url), Path(), mapping, list(paths), {})
