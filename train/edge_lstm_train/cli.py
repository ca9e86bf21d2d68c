"""The verb `train`; torch and matplotlib are imported only when it runs."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import click

from edge_lstm.foundation.errors import EdgeLstmError
from edge_lstm.foundation.extras import require

_DATA = click.option(
    "--data",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    metavar="DIR",
    help="Where the recording's path begins, instead of beside the recipe.",
)


@click.command()
@click.argument("recipe", metavar="RECIPE")
@click.option("-o", "--output", type=click.Path(path_type=Path), metavar="RUN_DIR", help="[default: runs/NAME]")
@_DATA
@click.option("--seed", type=click.IntRange(0, 2**31 - 1), help="Instead of the recipe's seed.")
@click.option("--device", type=click.Choice(["cpu", "cuda"]), default="cpu", show_default=True, help="What trains.")
@click.option("--resume", is_flag=True, help="Go on from where a training into RUN_DIR was stopped.")
def train(
    recipe: str,
    output: Path | None,
    data: Path | None,
    seed: int | None,
    device: Literal["cpu", "cuda"],
    resume: bool,
) -> None:
    """Train a model from a recording.

    RECIPE is a TOML file, or the name of a recipe that comes with edge-lstm: skies, solar and weather bring recordings,
    the others take them from --data (docs/accuracy.md). The run folder gets checkpoint.pt (for edge-lstm export),
    report.html, metrics.json and recipe.toml (with every default written out).
    """
    require("train", "torch", "matplotlib")
    import logging

    from edge_lstm_train import train as train_recipe

    logging.getLogger("edge_lstm.streaming.sampling").setLevel(logging.WARNING)  # the gaps of a recording are counted
    result = train_recipe(recipe, output, data=data, seed=seed, device=device, resume=resume)
    from edge_lstm_train.evaluation.scores import as_text
    from edge_lstm_train.run import REPORT

    run_dir = result.run_dir
    click.echo(as_text(*result.evaluation.table))
    click.echo(result.evaluation.verdict)
    click.echo(f"wrote {run_dir} (open {run_dir / REPORT})", err=True)


@click.command()
@click.argument("recipe", metavar="RECIPE")
@click.option("--trials", type=click.IntRange(1), default=30, show_default=True, help="In all processes.")
@click.option("--storage", metavar="URL", help="Where trials are kept and shared.  [default: sqlite, in RUN_DIR]")
@click.option("--study", metavar="NAME", help="The search's name in the storage.  [default: the recipe's name]")
@click.option("--max-parameters", type=click.IntRange(1), help="A larger network is not tried.")
@click.option("--max-step-us", type=click.FloatRange(0.1), help="Nor one whose step takes longer here (numpy).")
@click.option("-o", "--output", type=click.Path(path_type=Path), metavar="RUN_DIR", help="[default: runs/NAME-tuned]")
@_DATA
def tune(
    recipe: str,
    trials: int,
    storage: str | None,
    study: str | None,
    max_parameters: int | None,
    max_step_us: float | None,
    output: Path | None,
    data: Path | None,
) -> None:
    """Search for better keys of a recipe, and train with the best.

    What is tried stands under [tune] in RECIPE; without it, common keys are. Trials are judged by the validation part
    alone. Start it again to go on, or on other machines with the same --storage to share the work.
    """
    require("tune", "torch", "matplotlib", "optuna")
    import logging

    from edge_lstm_train.evaluation.scores import as_text
    from edge_lstm_train.recipe.recipe import read_recipe
    from edge_lstm_train.run import REPORT
    from edge_lstm_train.run import train as train_recipe
    from edge_lstm_train.tune import Budget, refused_text, trials_section
    from edge_lstm_train.tune import tune as tune_recipe

    logging.getLogger("edge_lstm.streaming.sampling").setLevel(logging.WARNING)
    chosen = read_recipe(recipe, data)
    run_dir = output or Path("runs") / f"{chosen.name}-tuned"
    run_dir.mkdir(parents=True, exist_ok=True)
    url = storage or f"sqlite:///{(run_dir / 'trials.db').resolve()}"
    try:
        found = tune_recipe(chosen, trials, url, study or chosen.name, Budget(max_parameters, max_step_us))
    except KeyboardInterrupt:
        raise EdgeLstmError("interrupted; finished trials are kept", "the same command goes on from them") from None
    result = train_recipe(found.recipe, run_dir, trials=trials_section(found))
    click.echo(as_text(*found.table))
    if found.refused:
        click.echo(refused_text(found.refused), err=True)
    click.echo(as_text(*result.evaluation.table))
    click.echo(result.evaluation.verdict)
    click.echo(f"wrote {run_dir} (open {run_dir / REPORT})", err=True)
