"""The verb `export`; it imports torch and the writers' packages when it runs, and names the one that is missing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, get_args

import click

from edge_lstm.backends import format_of
from edge_lstm.bundle import Format
from edge_lstm.extras import require
from edge_lstm.schemes import Scheme

if TYPE_CHECKING:
    from edge_lstm_export.assemble import Exported


_SCHEMES, _FORMATS = get_args(Scheme), get_args(Format)


def _names_of(known: tuple[str, ...]) -> Callable[[click.Context, click.Parameter, str], list[str]]:
    """Reads a comma list of known names, each once."""

    def read(context: click.Context, parameter: click.Parameter, text: str) -> list[str]:
        names = [name.strip() for name in text.split(",")]
        for name in names:
            if name not in known:
                raise click.BadParameter(f"expected names of {', '.join(known)}, found {name!r}")
        return list(dict.fromkeys(names))

    return read


@click.command()
@click.argument("run_dir", type=click.Path(path_type=Path))
@click.option("-o", "--output", type=click.Path(path_type=Path), help="The bundle's file. Default: NAME.elstm.")
@click.option(
    "--scheme",
    "schemes",
    metavar="NAME,NAME",
    callback=_names_of(_SCHEMES),
    default="float32,int8",
    show_default=True,
    help=f"How weights are stored: {', '.join(_SCHEMES)}; int8 is a third of the size.",
)
@click.option(
    "--format",
    "formats",
    metavar="NAME,NAME",
    callback=_names_of(_FORMATS),
    default=",".join(_FORMATS),
    show_default=True,
    help="For which backends.",
)
def export(run_dir: Path, output: Path | None, schemes: list[Scheme], formats: list[Format]) -> None:
    """Make a bundle of a training run, proven on every backend that is installed here."""
    require("train,export", "torch")
    require("export", "onnx", "tflite", "flatbuffers")
    from edge_lstm_export.assemble import export_bundle
    from edge_lstm_train.checkpoint import load_checkpoint

    checkpoint = load_checkpoint(run_dir)
    path = output or Path(f"{checkpoint.contract.name}.elstm")
    click.echo(f"writing {', '.join(schemes)} as {', '.join(formats)}, and proving each on its backends", err=True)
    exported = export_bundle(checkpoint, path, schemes, formats)
    click.echo(_table(exported, path))
    for variant in exported.unproven:
        click.echo(f"note: no backend for {variant.format} is installed here; {variant.file} is unproven", err=True)


def _table(exported: Exported, path: Path) -> str:
    bundle = exported.bundle
    lines = [
        f"{path}  id {bundle.id}  {path.stat().st_size:,} bytes",
        f"{'variant':<16}{'bytes':>9}  {'backend':<15}{'parity':>8}{'drift':>9}",
    ]
    for variant in bundle.manifest.variants:
        begin = f"{variant.format + ' ' + variant.scheme:<16}{len(bundle.content[variant.file]):>9,}  "
        verdicts = [
            verdict
            for verdict in exported.verdicts
            if (format_of(verdict.backend), verdict.scheme) == (variant.format, variant.scheme)
        ]
        if not verdicts:
            lines.append(f"{begin}none here")
        for verdict in verdicts:
            lines.append(f"{begin}{verdict.backend:<15}{verdict.error:>8.1e}{verdict.drift:>9.4f}")
            begin = " " * len(begin)
    return "\n".join(lines)
