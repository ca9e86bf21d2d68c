"""Arguments and options that several commands share."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from edge_lstm.backends.kinds import NAMES
from edge_lstm.foundation.times.units import TIME_UNITS

if TYPE_CHECKING:
    from edge_lstm.bundle.keys import SigningKey
    from edge_lstm.recordings.columns import TimeColumns
    from edge_lstm.recordings.tables.table import Layout

Command = TypeVar("Command", bound=Callable[..., Any])

bundle_argument = click.argument("bundle", type=click.Path(path_type=Path))
config_argument = click.argument("config", type=click.Path(path_type=Path))
state_option = click.option(
    "--state",
    type=click.Path(path_type=Path),
    metavar="STATE.db",
    help="State database (default: that of the config).",
)
exported_file_option = click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    metavar="FILE.csv",
    help="File to write (default: stdout).",
)
recording_argument = click.argument("recording", type=click.Path(path_type=Path))
backend_option = click.option(
    "--backend", type=click.Choice(NAMES), help="Inference backend (default: fastest installed)."
)
scheme_option = click.option(
    "--scheme",
    metavar="SCHEME",
    help="Storage of the weights: float32, int8, ... (default: int8 where the bundle has it).",
)
trust_option = click.option(
    "--trust",
    type=click.Path(path_type=Path),
    multiple=True,
    metavar="PUBLIC_KEY",
    help="Require a signature by this key; repeatable, for one of several (default: none required).",
)
passphrase_option = click.option(
    "--passphrase-file",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Read the passphrase of the private key from this file (default: ask on the terminal).",
)
stream_column_option = click.option(
    "--stream-column", metavar="COLUMN", help="Column that names the stream (default: one stream per file)."
)
stream_option = click.option("--stream", metavar="NAME", help="Name of the only stream (default: name of the file).")


_TIMES_OPTIONS = (
    click.option(
        "--time",
        "time_columns",
        multiple=True,
        metavar="COLUMN",
        help="Column of times; repeat it for date and time of day (default: detected from the data).",
    ),
    click.option(
        "--time-format",
        metavar="FORMAT",
        help="Format of the times, like %d.%m.%Y %H:%M (default: detected from the data).",
    ),
    click.option(
        "--time-unit",
        type=click.Choice(TIME_UNITS),
        help="Unit of times that are numbers (default: detected from the data).",
    ),
    click.option(
        "--time-start",
        metavar="TIME",
        help="Time of the number 0, with --time-unit (default: 1970, or that of the days).",
    ),
    click.option("--timezone", "zone", metavar="ZONE", help="Time zone of times without one (default: UTC)."),
)


_LAYOUT_OPTIONS = (
    click.option(
        "--encoding",
        metavar="NAME",
        help="Encoding of a text file, like cp1252 (default: from its byte order mark, else UTF-8).",
    ),
    click.option(
        "--skip-lines",
        type=click.IntRange(0),
        metavar="N",
        help="Lines before the header, like titles (default: detected from the data).",
    ),
    click.option(
        "--comment",
        metavar="TEXT",
        help="A line that begins with this text is skipped (default: detected in the first lines).",
    ),
    click.option(
        "--missing",
        multiple=True,
        metavar="TEXT",
        help="A text that means a missing value; repeatable (default: NA, null, unavailable and similar ones).",
    ),
    click.option(
        "--name-column",
        metavar="COLUMN",
        help="In a file of one row a value: column that says what the value is (default: detected from the data).",
    ),
    click.option(
        "--value-column",
        metavar="COLUMN",
        help="Beside --name-column: column of the values (default: detected from the data).",
    ),
    click.option(
        "--name-pattern",
        metavar="PATTERN",
        help="Takes names apart into stream and feature, like {stream}.{feature}.PV (default: a name is a feature).",
    ),
)


def layout_options(command: Command) -> Command:
    """The options that say how a recording's files are laid out; `asked_layout` takes their values."""
    for option in reversed(_LAYOUT_OPTIONS):
        command = option(command)
    return command


def asked_layout(options: dict[str, Any]) -> tuple[Layout, list[str]]:
    """The layout and the missing texts of the options, which are taken out. Raises UsageError for a contradiction."""
    from edge_lstm.recordings.tables.name_pattern import pattern_fault
    from edge_lstm.recordings.tables.table import Layout
    from edge_lstm.recordings.tables.text_file import is_text_encoding

    names = ("encoding", "skip_lines", "comment", "name_column", "value_column", "name_pattern")
    layout = Layout(**{name: options.pop(name) for name in names})
    if layout.encoding is not None and not is_text_encoding(layout.encoding):
        raise click.UsageError(f"--encoding: expected a known encoding, like cp1252, found {layout.encoding}")
    if (layout.name_column is None) != (layout.value_column is None):
        raise click.UsageError("expected both --name-column and --value-column, or none of them")
    if layout.name_pattern is not None and (fault := pattern_fault(layout.name_pattern)) is not None:
        raise click.UsageError(f"--name-pattern: {fault}")
    return layout, list(options.pop("missing"))


def signing_key(path: Path, passphrase_file: Path | None) -> SigningKey:
    """The private key in a file; if it has a passphrase, that is read from a file or asked on the terminal."""
    from edge_lstm.bundle.keys import SigningKey, read_passphrase

    def passphrase() -> bytes:
        if passphrase_file is not None:
            return read_passphrase(passphrase_file)
        return str(click.prompt(f"Passphrase of {path}", hide_input=True, err=True)).encode()

    may_ask = passphrase_file is not None or sys.stdin.isatty()
    return SigningKey.read(path, passphrase if may_ask else None)


def new_passphrase_options(command: Command) -> Command:
    """Adds the options of a command that makes a private key."""
    command = click.option(
        "--passphrase-file",
        type=click.Path(path_type=Path),
        metavar="FILE",
        help="Encrypt the private key with the passphrase in this file (default: not encrypted).",
    )(command)
    return click.option(
        "--passphrase", "ask", is_flag=True, help="Encrypt the private key with a passphrase, asked on the terminal."
    )(command)


def new_passphrase(ask: bool, file: Path | None) -> bytes | None:
    """The passphrase of a new private key, as the options say; None: without one."""
    from edge_lstm.bundle.keys import read_passphrase

    if file is not None:
        return read_passphrase(file)
    if not ask:
        return None
    return str(click.prompt("Passphrase", hide_input=True, confirmation_prompt=True, err=True)).encode()


def times_options(command: Command) -> Command:
    """The options that say how a recording writes its times; `asked_times` takes their values."""
    for option in reversed(_TIMES_OPTIONS):
        command = option(command)
    return command


def asked_times(
    time_columns: tuple[str, ...],
    time_format: str | None,
    time_unit: str | None,
    time_start: str | None,
    zone: str | None,
) -> TimeColumns:
    """What the options say about the times of a recording. Raises UsageError if they contradict each other."""
    from edge_lstm.foundation.times.formats import format_fault
    from edge_lstm.foundation.times.text import parse_time
    from edge_lstm.foundation.times.zones import zone_named
    from edge_lstm.recordings.columns import TimeColumns

    if time_format is not None and time_unit is not None:
        raise click.UsageError("expected either --time-format or --time-unit, found both")
    if time_format is not None and (fault := format_fault(time_format)) is not None:
        raise click.UsageError(f"--time-format: {fault}")
    if time_start is not None and time_unit is None:
        raise click.UsageError("expected --time-unit beside --time-start")
    found = TimeColumns(list(time_columns), time_format, time_unit)  # type: ignore[arg-type]
    try:
        found = found if zone is None else replace(found, zone=zone_named(zone))
        return found if time_start is None else replace(found, start=parse_time(time_start, found.zone))
    except ValueError as error:
        raise click.UsageError(f"{'--timezone' if zone is not None else '--time-start'}: {error}") from None


def write_exported(text: str, output: Path | None) -> None:
    """Write the text to the file of `exported_file_option`, or to stdout."""
    from edge_lstm.foundation.files import write_file

    if output is None:
        click.echo(text, nl=False)
    else:
        write_file(output, text)
        click.echo(f"wrote {output}", err=True)
