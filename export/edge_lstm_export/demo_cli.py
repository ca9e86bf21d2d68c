"""The verb `demo`, which imports all heavy packages only when it runs."""

from __future__ import annotations

from pathlib import Path

import click

from edge_lstm.foundation.extras import require


@click.command()
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    default=Path("demo"),
    show_default=True,
    help="Where the run, the bundle, the service's files and report.html go.",
)
def demo(output: Path) -> None:
    """Train, export, verify, serve and compare, on a bundled recording of a solar plant."""
    require("train,export,broker", "torch", "onnx", "tflite", "flatbuffers", "iotcore", "matplotlib")
    from edge_lstm_export.demo import run_demo

    run_demo(output)
