"""The verb `doctor`."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import click

from edge_lstm.foundation.errors import EdgeLstmError

_COLOURS = {"green": "green", "amber": "yellow", "red": "red", "unknown": "bright_black"}
_INDENT = " " * 32
_LEAST_ROOM = 30


@click.command()
@click.argument("config", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="All of it, for programs.")
@click.option("--root", type=click.Path(path_type=Path), default="/", hidden=True, help="Holds proc/, run/ and sys/.")
def doctor(config: Path, as_json: bool, root: Path) -> None:
    """Look at all that the service of a config needs here, with a remedy for what is not well."""
    import logging

    from edge_lstm.diagnostics.doctor import examine, facts, summary

    if not logging.getLogger("edge_lstm").isEnabledFor(logging.DEBUG):
        logging.getLogger("edge_lstm").setLevel(logging.CRITICAL)  # what the door would log is said in a line
    findings = []
    for finding in examine(config, root):
        findings.append(finding)
        if not as_json:
            light = click.style(f"{finding.light:<9}", fg=_COLOURS[finding.light])
            click.echo(f"{light}{finding.check:<23}{_indented(finding.found)}")
            if finding.remedy and finding.light != "green":
                click.echo(f"{_INDENT}-> {_indented(finding.remedy)}")
    click.echo(json.dumps(facts(findings), indent=2) if as_json else f"\n{summary(findings)}")
    red = [finding.check for finding in findings if finding.light == "red"]
    if red:
        raise EdgeLstmError(f"{config}: expected no red line, found {len(red)}: {', '.join(red)}", "do what they say")


def _indented(text: str) -> str:
    """Beside the lights; on a terminal no wider than it is."""
    lines = text.splitlines()
    if sys.stdout.isatty():
        import shutil

        room = max(_LEAST_ROOM, shutil.get_terminal_size().columns - len(_INDENT) - len("-> "))
        lines = [part for line in lines for part in _wrapped(line, room)]
    return f"\n{_INDENT}".join(lines)


def _wrapped(line: str, room: int) -> list[str]:
    import textwrap

    # paths and commands are copied, so no word is broken
    return textwrap.wrap(line, room, break_long_words=False, break_on_hyphens=False) or [""]
