"""The commands `train` and `tune`; torch and matplotlib are imported only when they run."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from edge_lstm.foundation.errors import EdgeLstmError
from edge_lstm.foundation.extras import require
from edge_lstm.foundation.text import escaped

if TYPE_CHECKING:
    import logging  # loaded by commands that need it alone

_DATA = click.option(
    "--data",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    metavar="DIR",
    help="Folder that holds the recording (default: the folder of the recipe).",
)


@click.command()
@click.argument("recipe", metavar="RECIPE")
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), metavar="RUN_DIR", help="Run folder (default: runs/NAME)."
)
@_DATA
@click.option(
    "--seed", type=click.IntRange(0, 2**31 - 1), metavar="N", help="Random seed (default: the seed of the recipe)."
)
@click.option(
    "--device",
    type=click.Choice(["cpu", "cuda"]),
    default="cpu",
    show_default=True,
    help="Device that torch trains on.",
)
@click.option("--resume", is_flag=True, help="Continue an interrupted training in RUN_DIR.")
def train(
    recipe: str,
    output: Path | None,
    data: Path | None,
    seed: int | None,
    device: Literal["cpu", "cuda"],
    resume: bool,
) -> None:
    """Train a model from a recording.

    RECIPE is a TOML file, or the name of a recipe that comes with edge-lstm. The recipes skies, solar and weather
    include their recordings; the others need --data (docs/accuracy.md). After training, the run folder holds
    checkpoint.pt (the input of export), report.html, metrics.json and recipe.toml (with every default written out).
    """
    require("train", "torch", "matplotlib")
    from edge_lstm_train import train as train_recipe

    with _counted_alone():
        result = train_recipe(recipe, output, data=data, seed=seed, device=device, resume=resume)
    from edge_lstm_train.evaluation.formatting import as_text
    from edge_lstm_train.run import REPORT

    run_dir = result.run_dir
    click.echo(escaped(as_text(*result.evaluation.table)))
    click.echo(escaped(result.evaluation.verdict))
    click.echo(f"wrote {run_dir} (open {run_dir / REPORT})", err=True)


@contextmanager
def _counted_alone() -> Iterator[None]:
    """Without the log lines about gaps and dropped readings: training says how many there are before it begins."""
    import logging

    from edge_lstm.streaming import stream_watch

    log = logging.getLogger(stream_watch.__name__)
    log.addFilter(_is_news)
    try:
        yield
    finally:
        log.removeFilter(_is_news)


def _is_news(record: logging.LogRecord) -> bool:
    return not str(record.msg).startswith(("reading dropped", "stream restarts stream="))


@click.command()
@click.argument("recipe", metavar="RECIPE")
@click.option(
    "--trials",
    type=click.IntRange(1),
    default=30,
    show_default=True,
    metavar="N",
    help="Number of trials, over all processes.",
)
@click.option("--storage", metavar="URL", help="Database of the trials, for optuna (default: SQLite in RUN_DIR).")
@click.option("--study", metavar="NAME", help="Name of the search in the database (default: name of the recipe).")
@click.option(
    "--max-parameters",
    type=click.IntRange(1),
    metavar="N",
    help="Largest number of parameters of a network (default: no limit).",
)
@click.option(
    "--max-step-us",
    type=click.FloatRange(0.1),
    metavar="MICROSECONDS",
    help="Longest time of a step with numpy on this machine, in microseconds (default: no limit).",
)
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), metavar="RUN_DIR", help="Run folder (default: runs/NAME-tuned)."
)
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
    """Search for better settings of a recipe, and train with the best.

    [tune] in RECIPE names the keys to search; without it, common keys are searched. Only the validation part of the
    recording scores a trial. Repeat the command to continue, or run it on other machines with the same --storage to
    share the work.
    """
    require("tune", "torch", "matplotlib", "optuna")
    from edge_lstm_train.evaluation.formatting import as_text
    from edge_lstm_train.recipe.recipe import read_recipe
    from edge_lstm_train.run import REPORT, make_run_folder
    from edge_lstm_train.run import train as train_recipe
    from edge_lstm_train.tune import Budget, refused_text, trials_section
    from edge_lstm_train.tune import tune as tune_recipe

    chosen = read_recipe(recipe, data)
    run_dir = output or Path("runs") / f"{chosen.name}-tuned"
    make_run_folder(run_dir)
    url = storage or f"sqlite:///{(run_dir / 'trials.db').resolve()}"
    with _counted_alone():
        try:
            found = tune_recipe(chosen, trials, url, study or chosen.name, Budget(max_parameters, max_step_us))
        except KeyboardInterrupt:
            raise EdgeLstmError("interrupted; finished trials are kept", "continue with the same command") from None
        result = train_recipe(found.recipe, run_dir, trials=trials_section(found))
    click.echo(escaped(as_text(*found.table)))
    if found.refused:
        click.echo(escaped(refused_text(found.refused)), err=True)
    click.echo(escaped(as_text(*result.evaluation.table)))
    click.echo(escaped(result.evaluation.verdict))
    click.echo(f"wrote {run_dir} (open {run_dir / REPORT})", err=True)
