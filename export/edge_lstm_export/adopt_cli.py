"""The verb `adopt`; it imports onnx when it runs."""

from __future__ import annotations

from pathlib import Path

import click

from edge_lstm.foundation.extras import require


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
@click.option("-o", "--output", type=click.Path(path_type=Path), help="The bundle's file. Default: NAME.elstm.")
@click.option("--name", help="The model's name. Default: the file's.")
@click.option("--state", "states", multiple=True, metavar="IN=OUT", help="A state's input and output. Default: found.")
@click.option("--constant", "constants", multiple=True, metavar="NAME=NUMBER", help="An input that never changes.")
@click.option("--width", type=click.IntRange(1), help="Values a step, where the model takes any number.")
@click.option("--context", type=click.IntRange(0), default=0, help="Earlier values that it wants before these.")
@click.option("--every", "interval_s", type=float, metavar="SECONDS", help="The time between steps.")
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
    """Make a bundle of a recurrent ONNX model that others made."""
    require("export,onnx", "onnx", "onnxruntime")
    from edge_lstm_export.adoption import LEFT_OUT, AdoptOptions
    from edge_lstm_export.adoption import adopt as adopt_model

    try:
        numbers = {name: float(value) for name, value in _pairs("--constant", constants).items()}
    except ValueError:
        raise click.UsageError("--constant: expected NAME=NUMBER") from None
    told = AdoptOptions(name or model.stem, _pairs("--state", states), numbers, width, context, interval_s)
    bundle, verdicts = adopt_model(model, output or Path(f"{told.name}.elstm"), told)
    click.echo(f"{bundle.source}  id {bundle.id}")
    for verdict in verdicts:
        click.echo(f"{verdict.backend:<15}{verdict.scheme:<9}{verdict.finding}")
    if LEFT_OUT in bundle.manifest.provenance:
        click.echo(f"note: {LEFT_OUT}: {bundle.manifest.provenance[LEFT_OUT]}; a bundle gives the first one", err=True)
