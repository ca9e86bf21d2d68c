"""The verb `train`; torch and matplotlib are imported only when it runs."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import click

from edge_lstm.extras import require


@click.command()
@click.argument("recipe", metavar="RECIPE")
@click.option("-o", "--output", type=click.Path(path_type=Path), metavar="RUN_DIR", help="[default: runs/NAME]")
@click.option("--seed", type=click.IntRange(0, 2**31 - 1), help="Instead of the recipe's seed.")
@click.option("--device", type=click.Choice(["cpu", "cuda"]), default="cpu", show_default=True, help="What trains.")
@click.option("--resume", is_flag=True, help="Go on from where a training into RUN_DIR was stopped.")
def train(recipe: str, output: Path | None, seed: int | None, device: str, resume: bool) -> None:
    """Train a model from a recording.

    RECIPE is a TOML file, or the name of a recipe that comes with edge-lstm (solar, weather). The run folder gets
    checkpoint.pt (for edge-lstm export), report.html, metrics.json and recipe.toml (with every default written out).
    """
    require("train", "torch", "matplotlib")
    from edge_lstm_train.recipe import read_recipe

    chosen = read_recipe(recipe)
    if seed is not None:
        chosen = dataclasses.replace(chosen, fit=dataclasses.replace(chosen.fit, seed=seed))
    from edge_lstm_train.evaluate import as_text
    from edge_lstm_train.run import REPORT
    from edge_lstm_train.run import train as train_recipe

    run_dir = output or Path("runs") / chosen.name
    result = train_recipe(chosen, run_dir, device=device, resume=resume)
    click.echo(as_text(*result.judgement.table))
    click.echo(result.judgement.verdict)
    click.echo(f"wrote {run_dir} (open {run_dir / REPORT})", err=True)
