"""The command `doctor`."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import click

from edge_lstm.foundation.errors import EdgeLstmError
from edge_lstm.foundation.text import escaped

_COLOURS = {"green": "green", "amber": "yellow", "red": "red", "unknown": "bright_black"}
_INDENT = " " * 32
_MIN_WIDTH = 30


@click.command()
@click.argument("config", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print everything as JSON.")
@click.option(
    "--root",
    type=click.Path(path_type=Path),
    default="/",
    hidden=True,
    help="Root of the file tree that holds proc/, run/ and sys/.",
)
def doctor(config: Path, as_json: bool, root: Path) -> None:
    """Check what a service needs on this machine, and suggest fixes.

    CONFIG is a service config (service.toml). The command prints one line per check: green (good), amber (works, with
    a risk), red (the service would fail) or unknown. The exit code is 1 if a line is red.
    """
    import logging

    from edge_lstm.diagnostics.doctor import examine, facts, summary

    if not logging.getLogger("edge_lstm").isEnabledFor(logging.DEBUG):
        logging.getLogger("edge_lstm").setLevel(logging.CRITICAL)  # the findings say what the MQTT connection would log
    findings = []
    for finding in examine(config, root):
        findings.append(finding)
        if not as_json:
            light = click.style(f"{finding.light:<9}", fg=_COLOURS[finding.light])
            click.echo(f"{light}{finding.check:<23}{escaped(_indented(finding.found))}")
            if finding.remedy and finding.light != "green":
                click.echo(f"{_INDENT}-> {escaped(_indented(finding.remedy))}")
    click.echo(json.dumps(facts(findings), indent=2) if as_json else f"\n{summary(findings)}")
    red = [finding.check for finding in findings if finding.light == "red"]
    if red:
        raise EdgeLstmError(
            f"{config}: expected no red line, found {len(red)}: {', '.join(red)}", "follow their remedies"
        )


def _indented(text: str) -> str:
    """The lines of `text`, indented behind the light, and wrapped to the width of a terminal."""
    lines = text.splitlines()
    if sys.stdout.isatty():
        import shutil

        width = max(_MIN_WIDTH, shutil.get_terminal_size().columns - len(_INDENT) - len("-> "))
        lines = [part for line in lines for part in _wrapped(line, width)]
    return f"\n{_INDENT}".join(lines)


def _wrapped(line: str, width: int) -> list[str]:
    import textwrap

    # words are not broken, so that paths and commands can be copied
    return textwrap.wrap(line, width, break_long_words=False, break_on_hyphens=False) or [""]
