"""The command `demo`, which imports all heavy packages only when it runs."""

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
    metavar="DIR",
    help="Folder for the run, the bundle, the files of the service and report.html.",
)
def demo(output: Path) -> None:
    """Show all steps from training to serving on a sample recording.

    The demo trains on a recording of a solar plant, exports and verifies the bundle, serves it over MQTT, and compares
    its predictions with those of replay.
    """
    require("train,export,broker", "torch", "onnx", "tflite", "flatbuffers", "iotcore", "matplotlib")
    from edge_lstm_export.demo import run_demo

    run_demo(output)
