"""The commands on one bundle: `inspect`, `verify`, `keys`, `sign`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from edge_lstm.backends.kinds import NAMES
from edge_lstm.cli.options import (
    bundle_argument,
    new_passphrase,
    new_passphrase_options,
    passphrase_option,
    signing_key,
    trust_option,
)
from edge_lstm.foundation.errors import EdgeLstmError
from edge_lstm.foundation.text import escaped


@click.command()
@bundle_argument
@click.option("--json", "as_json", is_flag=True, help="Print everything as JSON.")
@click.option(
    "--html", type=click.Path(path_type=Path), metavar="FILE", help="Write the model card as a web page to FILE."
)
def inspect(bundle: Path, as_json: bool, html: Path | None) -> None:
    """Show a bundle's inputs, outputs, states and variants."""
    from edge_lstm.bundle.archive import Bundle
    from edge_lstm.bundle.data_sheet import data_sheet, facts

    opened = Bundle.open(bundle)
    if html is not None:
        from edge_lstm.bundle.web_page import model_page
        from edge_lstm.foundation.files import write_file

        write_file(html, model_page(opened))
        click.echo(f"wrote {html}", err=True)
    click.echo(json.dumps(facts(opened), indent=2) if as_json else escaped(data_sheet(opened)))


@click.command()
@bundle_argument
@click.option("--backend", type=click.Choice(NAMES), help="Backend to test (default: all that are installed).")
@click.option("--scheme", metavar="SCHEME", help="Storage of the weights to test (default: all in the bundle).")
@click.option("--json", "as_json", is_flag=True, help="Print the results as JSON.")
@trust_option
def verify(bundle: Path, backend: str | None, scheme: str | None, as_json: bool, trust: tuple[Path, ...]) -> None:
    """Test a bundle on the backends that are installed here.

    Each backend runs the golden vectors, which are test inputs in the bundle. Its outputs and states must match the
    stored ones.
    """
    from edge_lstm.backends.confined import self_test_confined
    from edge_lstm.backends.registry import load, preferred, runnable, why_unavailable
    from edge_lstm.bundle.signing import open_trusted

    opened = open_trusted(bundle, trust)
    if trust:
        click.echo(f"signed by {' or '.join(map(str, trust))}", err=True)
    if backend is not None and (error := why_unavailable(backend)) is not None:
        raise error
    if scheme is not None and scheme not in opened.schemes:
        raise EdgeLstmError(
            f"{bundle}: expected a scheme of {', '.join(opened.schemes)}, found {scheme}", "choose one of them"
        )
    runs = [run for run in runnable(opened) if run[0] == (backend or run[0]) and run[1] == (scheme or run[1])]
    if not runs:
        load(
            opened, *preferred(opened, backend, scheme)
        )  # raises the reason: what is missing, or why the backend is refused
        raise EdgeLstmError(f"{bundle}: expected a variant for {backend}, found none", "export again with --format")
    verdicts = [self_test_confined(opened, *run) for run in runs]
    if as_json:
        click.echo(json.dumps([_verdict_facts(verdict) for verdict in verdicts], indent=2))
    else:
        for verdict in verdicts:
            mark = "ok" if verdict.passed else "FAILED"
            click.echo(escaped(f"{mark:<7}{verdict.backend:<15}{verdict.scheme:<9}{verdict.finding}"))
        for name in NAMES:
            if backend is None and (error := why_unavailable(name)) is not None:
                click.echo(f"not run {name}: {error.message}", err=True)
    failed = [verdict for verdict in verdicts if not verdict.passed]
    if failed:
        names = ", ".join(f"{verdict.backend} {verdict.scheme}" for verdict in failed)
        raise EdgeLstmError(
            f"{bundle}: expected every backend to pass the golden vectors, found failures of {names}",
            "do not run the bundle on these; try another version of the backend",
        )


def _verdict_facts(verdict: Any) -> dict[str, Any]:
    import dataclasses

    return {**dataclasses.asdict(verdict), "passed": verdict.passed, "finding": verdict.finding}


@click.group()
def keys() -> None:
    """Make keys for signing bundles."""


@keys.command("new")
@click.argument("name", type=click.Path(path_type=Path))
@new_passphrase_options
def new_keys_command(name: Path, ask: bool, passphrase_file: Path | None) -> None:
    """Make a pair: NAME.key signs (secret), NAME.pub goes to devices."""
    from edge_lstm.bundle.keys import new_keys

    private, public = new_keys(name, new_passphrase(ask, passphrase_file))
    click.echo(f"wrote {private} (keep it secret) and {public} (put it on devices)")


@keys.command("rotate")
@click.argument("old", type=click.Path(path_type=Path), metavar="OLD.key")
@click.argument("name", type=click.Path(path_type=Path))
@click.option(
    "--old-passphrase-file",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Read the passphrase of OLD.key from this file (default: ask on the terminal).",
)
@new_passphrase_options
def rotate(old: Path, name: Path, old_passphrase_file: Path | None, ask: bool, passphrase_file: Path | None) -> None:
    """Make a pair that replaces OLD.key.

    OLD.key signs the new public key. Devices that trust OLD.pub then accept bundles that NAME.key signs. NAME.rotation
    proves it; keep it beside NAME.key.
    """
    from edge_lstm.bundle.keys import rotated_keys

    former = signing_key(old, old_passphrase_file)
    private, public = rotated_keys(former, name, new_passphrase(ask, passphrase_file))
    click.echo(f"wrote {private} (keep it secret), {private.with_suffix('.rotation')} and {public} (put it on devices)")


@click.command()
@bundle_argument
@click.option(
    "--key",
    type=click.Path(path_type=Path),
    required=True,
    metavar="PRIVATE_KEY",
    help="Private key, made by the command keys new.",
)
@passphrase_option
def sign(bundle: Path, key: Path, passphrase_file: Path | None) -> None:
    """Sign a bundle in the same file; its id does not change."""
    from edge_lstm.bundle.archive import Bundle
    from edge_lstm.bundle.signing import signature
    from edge_lstm.foundation.files import write_file

    opened = Bundle.open(bundle)
    write_file(bundle, opened.signed(signature(opened, signing_key(key, passphrase_file))))
    click.echo(f"signed {bundle}  id {opened.id}")
