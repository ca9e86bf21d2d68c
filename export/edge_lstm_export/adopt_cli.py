"""The command `adopt`, which imports onnx only when it runs."""

from __future__ import annotations

from pathlib import Path

import click

from edge_lstm.foundation.extras import require
from edge_lstm.foundation.text import escaped


def _pairs(option: str, texts: tuple[str, ...]) -> dict[str, str]:
    pairs = {}
    for text in texts:
        left, equals, right = text.partition("=")
        if not (left and equals and right):
            raise click.UsageError(f"{option}: expected NAME=VALUE, found {text!r}")
        pairs[left] = right
    return pairs


@click.command()
@click.argument("model", type=click.Path(path_type=Path))
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), metavar="FILE", help="Bundle to write (default: NAME.elstm)."
)
@click.option("--name", metavar="NAME", help="Name of the model (default: name of the file).")
@click.option(
    "--state",
    "states",
    multiple=True,
    metavar="IN=OUT",
    help="Input and output tensor of a state; repeatable (default: found by shape and name).",
)
@click.option(
    "--constant", "constants", multiple=True, metavar="NAME=NUMBER", help="Input with a constant value; repeatable."
)
@click.option(
    "--width", type=click.IntRange(1), metavar="N", help="Values per step, for a model that does not fix this number."
)
@click.option(
    "--context",
    type=click.IntRange(0),
    metavar="N",
    default=0,
    show_default=True,
    help="Number of values of earlier steps that the model takes before those of the step.",
)
@click.option(
    "--every",
    "interval_s",
    type=float,
    metavar="SECONDS",
    help="Time between two steps, in seconds (default: not stated).",
)
def adopt(
    model: Path,
    output: Path | None,
    name: str | None,
    states: tuple[str, ...],
    constants: tuple[str, ...],
    width: int | None,
    context: int,
    interval_s: float | None,
) -> None:
    """Make a bundle from a recurrent ONNX model of another project.

    MODEL is an ONNX file.
    """
    require("export,onnx", "onnx", "onnxruntime")
    from edge_lstm_export.adoption.adopt import LEFT_OUT
    from edge_lstm_export.adoption.adopt import adopt as adopt_model
    from edge_lstm_export.adoption.foreign_graph import AdoptOptions

    try:
        numbers = {name: float(value) for name, value in _pairs("--constant", constants).items()}
    except ValueError:
        raise click.UsageError("--constant: expected NAME=NUMBER") from None
    options = AdoptOptions(name or model.stem, _pairs("--state", states), numbers, width, context, interval_s)
    bundle, verdicts = adopt_model(model, output or Path(f"{options.name}.elstm"), options)
    click.echo(f"{bundle.source}  id {bundle.id}")
    for verdict in verdicts:
        click.echo(escaped(f"{verdict.backend:<15}{verdict.scheme:<9}{verdict.finding}"))
    if LEFT_OUT in bundle.manifest.provenance:
        left_out = bundle.manifest.provenance[LEFT_OUT]
        click.echo(escaped(f"note: {LEFT_OUT}: {left_out}; a bundle has only the first one"), err=True)
