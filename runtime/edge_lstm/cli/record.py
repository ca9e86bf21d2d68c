"""The verb `record`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from edge_lstm.foundation.errors import EdgeLstmError

_SESSION_S = 604_800  # a week, as a service's


@click.command()
@click.option(
    "--from", "url", metavar="mqtt://HOST:PORT", help="Broker (with --config, default: the broker of the config)."
)
@click.option(
    "--topic", "topics", multiple=True, metavar="TOPIC", help="Topic of readings, like sensors/{stream}; repeatable."
)
@click.option("--preset", metavar="NAME", help="Mapping for a known device software, like tasmota.")
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
def record(
    url: str | None,
    topics: tuple[str, ...],
    preset: str | None,
    config: Path | None,
    features: tuple[str, ...],
    client_id: str | None,
    output: Path,
) -> None:
    """Record live MQTT readings into a CSV file, until Ctrl-C.

    Without --feature, the columns are those of the existing file, those of the bundle (with --config), or all numbers
    of the first message. A message without a time gets its time of arrival, unless the config says otherwise.
    """
    from edge_lstm.foundation.config import from_mapping
    from edge_lstm.foundation.signals import ended_by_signals
    from edge_lstm.messages.mapping import InputMapping
    from edge_lstm.mqtt.address import parse_address
    from edge_lstm.mqtt.connection import MqttConnection
    from edge_lstm.recordings.recorder import Recorder
    from edge_lstm.service.config import MqttConfig, read_service_config

    if config is None and url is None:
        raise click.UsageError("expected --from mqtt://HOST:PORT or --config SERVICE.toml, found neither")
    if config is not None and (topics or preset):
        raise click.UsageError("expected either --config or --topic and --preset: a config says where readings are")
    if config is None and not (topics or preset):
        raise click.UsageError("expected --topic, --preset or --config, found none of them")
    paths = dict(text.partition("=")[::2] for text in features)
    if config is not None and any(paths.values()):
        raise click.UsageError("expected --feature NAME beside --config: its [input.values] says where values are")
    if output.suffix.lower() != ".csv":
        raise EdgeLstmError(f"expected a file that ends in .csv, found {output}", "name it so; gzip it when it is done")
    folder = Path()
    known: dict[str, list[str]] = {}
    if config is not None:
        service = read_service_config(config)
        folder, mapping, mqtt = config.parent, service.input, service.mqtt
        known = _bundle_features(folder / service.bundle)
        names = list(paths) or list(known)
    else:
        table: dict[str, Any] = {"preset": preset} if preset else {"time_from": "payload-or-arrival"}
        if topics:
            table["topic"] = list(topics)
        table["values"] = {name: path for name, path in paths.items() if path}
        names = list(paths)
        mapping, mqtt = from_mapping(table, InputMapping, "the command line"), MqttConfig(str(url))
    connection = MqttConnection(
        parse_address(url or mqtt.url),
        client_id or "",
        mapping.topic_filters,
        session_expiry_s=_SESSION_S if client_id else 0,
        protocol=mqtt.protocol,
        tls=mqtt.tls(folder),
        login=mqtt.login(folder),
        receive_maximum=mqtt.receive_maximum,
        keepalive_s=mqtt.keepalive_s,
    )
    recorder = Recorder(connection, mapping, output, names, {name: texts for name, texts in known.items() if texts})
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
    click.echo(f"{said}{f' ({others})' if others else ''}")


def _bundle_features(path: Path) -> dict[str, list[str]]:
    """The features of the config's bundle, with their categories; none where there is no bundle yet."""
    from edge_lstm.bundle.archive import Bundle

    features = Bundle.open(path).contract.features if path.exists() else []
    return {feature.name: feature.categories for feature in features}
