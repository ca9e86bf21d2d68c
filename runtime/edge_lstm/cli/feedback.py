"""The commands of `edge-lstm feedback`: what an operator says about alarms, to a running service over its broker."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from edge_lstm.cli.options import config_argument, exported_file_option, state_option, write_exported
from edge_lstm.foundation.errors import EdgeLstmError
from edge_lstm.foundation.text import escaped


@click.group()
@config_argument
@click.option("--id", "number", metavar="ID", help="Id of the command, to send one again (default: a new one).")
@click.option(
    "--timeout",
    type=click.FloatRange(min=0.1),
    default=10.0,
    show_default=True,
    metavar="SECONDS",
    help="How long to wait for the answer.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the answer as JSON.")
@click.pass_context
def feedback(context: click.Context, /, **asked: Any) -> None:
    """Say what alarms were, to a running service; export that.

    CONFIG is the config of the service (service.toml), with enabled = true under [feedback].
    """
    context.obj = asked


@feedback.command("false-alarm")
@click.argument("event")
@click.option("--residuals", is_flag=True, help="Take the residuals of the event as usual from now on.")
@click.pass_obj
def false_alarm(asked: dict[str, Any], event: str, residuals: bool) -> None:
    """Say that an alarm was nothing.

    It raises the threshold of the stream.

    EVENT is the event's id, STREAM@TIME with the time of its first step.
    """
    _send(asked, "false_alarm", event=event, **({"residuals": True} if residuals else {}))


@feedback.command()
@click.argument("stream")
@click.argument("begin", metavar="FROM")
@click.argument("end", metavar="TO")
@click.pass_obj
def missed(asked: dict[str, Any], stream: str, begin: str, end: str) -> None:
    """Say that there was a fault without an alarm."""
    _send(asked, "missed", stream=stream, **{"from": begin, "to": end})


@feedback.command()
@click.argument("stream")
@click.argument("until", metavar="UNTIL")
@click.pass_obj
def maintenance(asked: dict[str, Any], stream: str, until: str) -> None:
    """Announce maintenance: no alarms until its end."""
    _send(asked, "maintenance", stream=stream, until=until)


@feedback.command()
@click.argument("stream")
@click.option("--from", "begin", metavar="TIME", help="Step the kept readings from this time on (default: none).")
@click.pass_obj
def recalibrate(asked: dict[str, Any], stream: str, begin: str | None) -> None:
    """Let a stream begin as a new device."""
    _send(asked, "recalibrate", stream=stream, **({} if begin is None else {"from": begin}))


@feedback.command("sensor-replaced")
@click.argument("stream")
@click.argument("sensor")
@click.pass_obj
def sensor_replaced(asked: dict[str, Any], stream: str, sensor: str) -> None:
    """Say that a sensor was replaced."""
    _send(asked, "sensor_replaced", stream=stream, sensor=sensor)


@feedback.command()
@click.argument("command", metavar="ID")
@click.pass_obj
def revert(asked: dict[str, Any], command: str) -> None:
    """Take back what an earlier command moved."""
    _send(asked, "revert", of=command)


@feedback.command()
@state_option
@exported_file_option
@click.pass_obj
def export(asked: dict[str, Any], state: Path | None, output: Path | None) -> None:
    """Write what was said as labels, for a recipe.

    The service must not run: its database has one owner.
    """
    from edge_lstm.cli.streams import database_of
    from edge_lstm.service.feedback.labels import export_labels

    write_exported(export_labels(database_of(asked["config"], state)), output)


def _send(asked: dict[str, Any], kind: str, **values: Any) -> None:
    import uuid

    from edge_lstm.service.config import read_service_config
    from edge_lstm.service.feedback.client import ask

    path: Path = asked["config"]
    command = {"id": asked["number"] or str(uuid.uuid4()), "command": kind, **values}
    answer = ask(read_service_config(path), path.parent, command, asked["timeout"])
    if asked["as_json"]:
        click.echo(json.dumps(answer))
    elif answer.get("ok"):
        click.echo(escaped(f"{answer.get('text')}\nid: {answer.get('id')}"))
    if not answer.get("ok"):
        raise EdgeLstmError(str(answer.get("error")), str(answer.get("hint", "")))
