"""The command `discover`."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edge_lstm.foundation.errors import EdgeLstmError

if TYPE_CHECKING:
    from edge_lstm.messages.discovery.groups import Group
    from edge_lstm.messages.discovery.observed_topics import ObservedTopics
    from edge_lstm.service.config import MqttConfig

_SHOWN_STREAMS, _SHOWN_KEYS = 4, 20


@click.command()
@click.argument("url", metavar="mqtt://HOST:PORT", required=False)
@click.option(
    "--for", "seconds", type=click.FloatRange(0.1, 86_400), default=60.0, show_default=True, metavar="SECONDS",
    help="How long to listen.",
)  # fmt: skip
@click.option("--topic", "topics", multiple=True, metavar="FILTER", help="MQTT topic filter; repeatable (default: #).")
@click.option(
    "--config",
    type=click.Path(path_type=Path),
    metavar="SERVICE.toml",
    help="Take broker, login and certificates from this service config (default: none).",
)
@click.option("--username", metavar="NAME", help="MQTT user name (default: anonymous).")
@click.option("--password-file", metavar="FILE", help="File that holds the password (default: no password).")
@click.option(
    "--group", type=click.IntRange(1), default=1, metavar="N", help="Group that -o writes (default: the first)."
)
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), metavar="SERVICE.toml",
    help="Write a service config for this group; record --config and run use it (default: none).",
)  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print the groups as JSON.")
def discover(
    url: str | None,
    seconds: float,
    topics: tuple[str, ...],
    config: Path | None,
    username: str | None,
    password_file: str | None,
    group: int,
    output: Path | None,
    as_json: bool,
) -> None:
    """List the devices of a broker with topics, keys, rates and units.

    Devices whose messages one mapping can read are a group. Each group is printed with its [input] keys; -o writes them
    into a service config. Nothing is published, and no session stays at the broker.
    """
    from edge_lstm.messages.discovery.groups import groups

    if output is not None and output.exists():
        raise EdgeLstmError(f"expected a new file, found {output}", "name another one with -o, or remove it")
    mqtt, folder = _broker(url, config, username, password_file)
    observed = _listen(mqtt, folder, topics or ("#",), seconds)
    found = groups(observed)
    if as_json:
        click.echo(json.dumps([_facts(one) for one in found], ensure_ascii=False, indent=2))
    else:
        click.echo(_report(found, observed, seconds))
    if output is not None:
        if not found:
            raise EdgeLstmError("expected messages with numbers, found none", "listen longer: --for 600")
        if group > len(found):
            raise EdgeLstmError(f"expected a group of 1 to {len(found)}, found {group}", "choose one of those listed")
        output.write_text(_service_text(mqtt, found[group - 1]), encoding="utf-8")
        click.echo(f"wrote {output}; next: edge-lstm record --config {output} -o recording.csv", err=True)


def _broker(
    url: str | None, config: Path | None, username: str | None, password_file: str | None
) -> tuple[MqttConfig, Path]:
    """The broker and its login, and the folder where its files start."""
    from edge_lstm.foundation.config import from_mapping
    from edge_lstm.service.config import MqttConfig, read_service_config

    if config is not None:
        if url or username or password_file:
            raise click.UsageError("expected either --config or the broker's address: a config has both")
        return read_service_config(config).mqtt, config.parent
    if url is None:
        raise click.UsageError("expected the broker's address, like mqtt://localhost:1883, or --config")
    login = {"username": username, "password_file": password_file}
    table = {"url": url, **{name: value for name, value in login.items() if value is not None}}
    return from_mapping(table, MqttConfig, "the command line"), Path()


def _listen(mqtt: MqttConfig, folder: Path, topics: Sequence[str], seconds: float) -> ObservedTopics:
    """All messages within that time, or until Ctrl-C."""
    import dataclasses

    from edge_lstm.foundation.signals import ended_by_signals
    from edge_lstm.messages.discovery.observed_topics import ObservedTopics
    from edge_lstm.mqtt.address import parse_address
    from edge_lstm.mqtt.connection import MqttConnection

    options = dataclasses.replace(mqtt.options(folder), qos=0, keepalive_s=mqtt.keepalive_s)
    connection = MqttConnection(parse_address(mqtt.url), "", topics, options=options)
    observed, ended = ObservedTopics(), []
    connection.open()
    try:
        with ended_by_signals(lambda: ended.append(True)):
            click.echo(f"listening at {connection.address} for {seconds:g} s; end earlier with Ctrl-C", err=True)
            deadline = time.monotonic() + seconds
            while not ended and (left := deadline - time.monotonic()) > 0:
                for message in connection.poll(min(left, 0.2)):
                    observed.add(message.topic, message.payload, message.retained, time.time())
    finally:
        connection.close()
    return observed


def _report(found: Sequence[Group], observed: ObservedTopics, seconds: float) -> str:
    devices = sum(len(group.streams) for group in found)
    lines = [
        f"{_count(devices, 'device')} in {_count(len(found), 'group')}; "
        f"{_count(observed.messages, 'message')} on {_count(len(observed.topics), 'topic')} in {seconds:g} s"
    ]
    if observed.unread:
        lines.append(f"{observed.unread} messages of more topics were not examined: choose with --topic")
    for number, group in enumerate(found, 1):
        shown = ", ".join(group.streams[:_SHOWN_STREAMS]) + (", ..." if len(group.streams) > _SHOWN_STREAMS else "")
        pace = "no live message" if group.interval_s is None else f"a message every {_duration(group.interval_s)}"
        lines += ["", f"group {number}: {_count(len(group.streams), 'device')} ({shown}), {pace}"]
        lines += [f"  {line}" for line in _input_lines(group.mapping)]
        width = max(len(key.name) for key in group.keys[:_SHOWN_KEYS])
        lines += [
            f"    {key.name:<{width}}  {key.example:>10.6g} {key.unit:<5} {_count(key.devices, 'device')}"
            for key in group.keys[:_SHOWN_KEYS]
        ]
        if len(group.keys) > _SHOWN_KEYS:
            lines.append(f"    and {len(group.keys) - _SHOWN_KEYS} more keys")
    return "\n".join(lines)


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _duration(seconds: float) -> str:
    return f"{seconds:.3g} s" if seconds < 120 else f"{seconds / 60:.3g} min"


def _facts(group: Group) -> dict[str, Any]:
    keys = [{"name": key.name, "unit": key.unit, "example": key.example, "devices": key.devices} for key in group.keys]
    return {
        "input": dict(group.mapping),
        "devices": list(group.streams),
        "keys": keys,
        "topics": group.topics,
        "messages": group.messages,
        "interval_s": group.interval_s,
    }


def _input_lines(mapping: dict[str, Any] | Any) -> list[str]:
    return [f"{name} = {json.dumps(value, ensure_ascii=False)}" for name, value in mapping.items()]


def _service_text(mqtt: MqttConfig, group: Group) -> str:
    """A service config; values within objects get short names."""
    paths = _short_names([key.name for key in group.keys])
    units = {key.name: key.unit for key in group.keys}
    login = [
        f"{name} = {json.dumps(getattr(mqtt, name))}" for name in ("username", "password_file") if getattr(mqtt, name)
    ]
    values = [
        f"{json.dumps(name, ensure_ascii=False)} = {json.dumps(path, ensure_ascii=False)}"
        + (f"  # {units[path]}" if units[path] else "")
        for name, path in paths.items()
        if name != path
    ]
    lines = [
        f"# Found at {mqtt.url}. Used by: edge-lstm record --config, and edge-lstm run when there is a bundle.",
        'bundle = "model.elstm"',
        "",
        "[mqtt]",
        f"url = {json.dumps(mqtt.url)}",
        'client_id = "edge-lstm-model"  # unique: the broker keeps missed messages under it',
        *login,
        "",
        "[input]",
        *_input_lines(group.mapping),
        f"# keys: {', '.join(f'{name} ({units[path]})' if units[path] else name for name, path in paths.items())}",
        *(["", "[input.values]", *values] if values else []),
        "",
        "[output]",
        'topic = "predictions/{stream}"',
    ]
    return "\n".join(lines) + "\n"


def _short_names(paths: Sequence[str]) -> dict[str, str]:
    """A name for each path: its last key, if that is unique."""
    short = [path.rpartition(".")[2].strip('"') for path in paths]
    return {
        path if "." not in path else name if short.count(name) == 1 else path.replace(".", "_").replace('"', ""): path
        for path, name in zip(paths, short, strict=True)
    }
