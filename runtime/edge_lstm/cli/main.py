"""The program `edge-lstm`: its commands by name, each imported when it is used.

Results go to stdout, everything else to stderr. Exit codes: 0 success, 1 refused or failed, 2 wrong usage, 65 a bundle
that fails its self-test on this machine.
"""

from __future__ import annotations

import importlib
from typing import Any

import click

from edge_lstm import __version__
from edge_lstm.foundation.errors import EdgeLstmError
from edge_lstm.foundation.progress import interrupted_text, work
from edge_lstm.foundation.text import escaped

# In the order of use. Modules are named, not imported: a device has neither torch nor onnx.
_COMMANDS = {
    "demo": "edge_lstm_export.demo_cli",
    "init": "edge_lstm_train.init_cli",
    "discover": "edge_lstm.cli.discover",
    "record": "edge_lstm.cli.record",
    "train": "edge_lstm_train.cli",
    "tune": "edge_lstm_train.cli",
    "export": "edge_lstm_export.cli",
    "adopt": "edge_lstm_export.adopt_cli",
    "keys": "edge_lstm.cli.inspect",
    "sign": "edge_lstm.cli.inspect",
    "inspect": "edge_lstm.cli.inspect",
    "verify": "edge_lstm.cli.inspect",
    "bench": "edge_lstm.cli.bench",
    "replay": "edge_lstm.cli.recordings",
    "simulate": "edge_lstm.cli.recordings",
    "doctor": "edge_lstm.cli.doctor",
    "run": "edge_lstm.cli.service",
    "status": "edge_lstm.cli.service",
    "feedback": "edge_lstm.cli.feedback",
    "streams": "edge_lstm.cli.streams",
    "history": "edge_lstm.cli.history",
    "device": "edge_lstm.cli.device",
    "broker": "edge_lstm.cli.service",
}
# Show that they work from the first second on, while packages like torch are loaded. The others answer at once.
_LONG = ("demo", "init", "discover", "train", "tune", "export", "adopt", "verify", "bench", "replay")


class _Commands(click.Group):
    """The commands of `_COMMANDS` in that order; the module of a command is imported when the command is requested."""

    def list_commands(self, context: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, context: click.Context, name: str) -> click.Command | None:
        if name not in _COMMANDS:
            return None
        command: click.Command = getattr(importlib.import_module(_COMMANDS[name]), name)
        return command

    def resolve_command(
        self, context: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args[0] in _LONG:
            context.with_resource(work(f"edge-lstm {args[0]}"))
        return super().resolve_command(context, args)

    def invoke(self, context: click.Context) -> Any:
        try:
            return super().invoke(context)
        except EdgeLstmError as error:
            click.echo(escaped(f"error: {error}"), err=True)
            context.exit(error.exit_code)
        except KeyboardInterrupt as error:
            click.echo(escaped(interrupted_text(error)), err=True)
            context.exit(1)


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="edge-lstm")
@click.option("-v", "--verbose", is_flag=True, help="Log debug messages too.")
def main(verbose: bool) -> None:
    """Train a small LSTM from a recording of sensors, and run it on a Raspberry Pi or Jetson.

    The LSTM keeps its state across MQTT readings, restarts and updates.
    """
    import logging

    from edge_lstm.foundation.log_format import EscapingFormatter

    handler = logging.StreamHandler()
    handler.setFormatter(EscapingFormatter("%(asctime)s %(levelname)s %(message)s"))
    logging.basicConfig(level=logging.DEBUG if verbose else logging.WARNING, handlers=[handler])
    logging.getLogger("edge_lstm").setLevel(logging.DEBUG if verbose else logging.INFO)
