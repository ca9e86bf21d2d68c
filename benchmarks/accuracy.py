"""Prints the accuracy of the recipes: trained with several seeds, exported to int8, streamed one reading at a time.

    python benchmarks/accuracy.py --data DIR [--only NAME,NAME] [--seeds 3] [--folder DIR]

A row is a recipe, a measure and its marks. To add one, append a `Row` to ROWS:

- `recipe`: its name in train/recipes. To leave out several groups in turn, `folds` lists the values of `leave_out`
  under [split]. The recipe trains once per fold, and the measure gets all folds together.
- `measure`: takes the folds' `Streamed` (dataset, baselines, and the int8 bundle's predictions) and returns `Figures`:
  those of the model and of each baseline, as many numbers as the marks.
- `marks`: the figures to reach, `Marks(passed, stretch, more)`. `more`: whether larger is better, for all figures or
  for each.

A figure is rounded as printed before it is compared with its mark. The median of the seeds counts. Results are kept in
--folder, so rows can be measured one by one; the table shows all results in the folder.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np

from edge_lstm.foundation.arrays import Flags
from edge_lstm.recordings.recording import Recording
from edge_lstm.streaming.predictor import Predictor
from edge_lstm.streaming.reading import Prediction
from edge_lstm_export.assemble import export_bundle
from edge_lstm_train.data.dataset import Dataset, read_dataset
from edge_lstm_train.data.split import PARTS
from edge_lstm_train.evaluation.alarms.detection import alarms_by_rule, f1
from edge_lstm_train.evaluation.baselines import PERSISTENCE, RIDGE, Baselines, fit_baselines
from edge_lstm_train.evaluation.classification import (
    LOGISTIC,
    MAJORITY,
    MARKOV,
    UNKNOWN,
    ClassScore,
    class_baselines,
    class_score,
    likeliest,
    log_losses,
    logistic_logits,
    recordings_score,
    single_and_pooled,
)
from edge_lstm_train.evaluation.predictions import aligned, predictions_by_step
from edge_lstm_train.evaluation.regression import MODEL, Score, score
from edge_lstm_train.evaluation.trained_contract import trained_contract
from edge_lstm_train.model.checkpoint import Checkpoint
from edge_lstm_train.recipe.recipe import Recipe, read_recipe
from edge_lstm_train.run import choose, held_out_steps

FOLDER = Path("runs/accuracy")
PACKAGES = ("torch", "numpy", "ai-edge-litert", "onnxruntime")


@dataclass(frozen=True)
class Streamed:
    """A dataset, and an int8 bundle's predictions for its streams with a test part, reading by reading."""

    recipe: Recipe
    dataset: Dataset
    baselines: Baselines | None  # of numeric targets; None for other tasks
    predictions: Sequence[Prediction]

    @property
    def scores(self) -> list[Score]:
        """One score per output on the test part, for a task with numeric targets."""
        assert self.baselines is not None
        return score(self.dataset, self.baselines, self.predictions)


@dataclass(frozen=True)
class Figures:
    """The figures of a row: those of the model, and by name those of the baselines."""

    model: list[float]
    beside: dict[str, list[float]]


@dataclass(frozen=True)
class Marks:
    """The figures to reach, one number per figure; None: no such mark."""

    passed: list[float]
    stretch: list[float] | None
    more: bool | Sequence[bool]  # whether larger is better, for all figures or for each
    decimals: int = 0

    def reached(self, figures: Sequence[float]) -> str:
        """The result in one word, for all figures together."""
        more = [self.more] * len(figures) if isinstance(self.more, bool) else self.more
        for word, marks in (("stretch", self.stretch), ("pass", self.passed)):
            if marks is not None and all(
                round(figure, self.decimals) >= mark if up else round(figure, self.decimals) <= mark
                for figure, mark, up in zip(figures, marks, more, strict=True)
            ):
                return word
        return "missed"


@dataclass(frozen=True)
class Row:
    """A line of the table."""

    name: str
    task: str  # a description with the unit of the figures
    recipe: str
    measure: Callable[[Sequence[Streamed]], Figures]
    marks: Marks
    folds: Sequence[Sequence[str]] = ()  # values of leave_out; empty: that of the recipe, once


def skill(folds: Sequence[Streamed]) -> Figures:
    """Skill in percent: 1 - RMSE / RMSE of the better naive baseline, one figure per output; the mean of the folds."""
    scores = [one.scores for one in folds]
    model, ridge = (
        [100 * statistics.fmean(each.skill(name) for each in output) for output in zip(*scores, strict=True)]
        for name in (MODEL, RIDGE)
    )
    return Figures(model, {RIDGE: ridge})


def rmse(folds: Sequence[Streamed]) -> Figures:
    """Root mean square error in the target's unit, one figure per output."""
    (one,) = folds
    names = [name for name in (PERSISTENCE, RIDGE) if name in one.scores[0].rmse]
    return Figures(
        [each.rmse[MODEL] for each in one.scores], {name: [each.rmse[name] for each in one.scores] for name in names}
    )


def r2(folds: Sequence[Streamed]) -> Figures:
    """Explained share of the target's variance, one figure per output."""
    (one,) = folds
    return Figures([each.r2[MODEL] for each in one.scores], {RIDGE: [each.r2[RIDGE] for each in one.scores]})


def last_flight(folds: Sequence[Streamed]) -> Figures:
    """RMSE of the remaining life at the last flight of engines cut at random, against the true life without cap.

    As in the set's official test, 7 to 145 flights are left and 31 or more have passed. Every such cut is used, and
    every engine has the same weight: the average over random cuts.
    """
    squares: dict[str, list[float]] = {MODEL: [], RIDGE: []}  # one mean per engine
    for one in folds:
        assert one.baselines is not None
        dataset, truth = one.dataset, one.dataset.labels["rul"]
        flights = np.arange(len(dataset)) - dataset.run_start + 1
        predicted = {MODEL: aligned(dataset, one.predictions), RIDGE: one.baselines.predictions[RIDGE]}
        for stream in np.unique(dataset.stream_of[dataset.steps("test")]):
            cuts = (dataset.stream_of == stream) & (truth >= 7) & (truth <= 145) & (flights >= 31)
            for name, table in predicted.items():
                squares[name].append(float(np.mean((table[cuts, 0] - truth[cuts]) ** 2)))
    figures = {name: [float(np.mean(means)) ** 0.5] for name, means in squares.items()}
    return Figures(figures.pop(MODEL), figures)


def behind_ridge(folds: Sequence[Streamed]) -> Figures:
    """Skill of ridge minus skill of the model, in percentage points; below 0 the model is better."""
    figures = skill(folds)
    return Figures(
        [ridge - model for model, ridge in zip(figures.model, figures.beside[RIDGE], strict=True)],
        {**figures.beside, "model": figures.model},
    )


def raised(one: Streamed) -> tuple[dict[str, Flags], Flags, Flags]:
    """(steps,) each: alarms of the model and of ridge by the same rule, evaluated steps, and anomalous steps."""
    assert one.recipe.anomaly is not None  # true for the recipes of these rows
    assert one.recipe.anomaly.truth is not None
    assert one.baselines is not None
    dataset = one.dataset
    alarms, scored = np.zeros(len(dataset), bool), np.zeros(len(dataset), bool)
    for row, prediction in predictions_by_step(dataset, one.predictions):
        alarms[row], scored[row] = bool(prediction.alarm), math.isfinite(prediction.score or 0.0)
    evaluated = scored & (dataset.part_of == PARTS.index("test"))
    ridge = alarms_by_rule(dataset, one.baselines.predictions[RIDGE])
    return {MODEL: alarms, RIDGE: ridge}, evaluated, dataset.labels[one.recipe.anomaly.truth] > 0


def f1_and_false_alarms(folds: Sequence[Streamed]) -> Figures:
    """Percent: F1 over all scored steps of the test part, and the share of normal steps in alarm."""
    (one,) = folds
    alarms, evaluated, truth = raised(one)
    found = {
        name: [100 * f1(truth[evaluated], flags[evaluated]), 100 * float(flags[evaluated & ~truth].mean())]
        for name, flags in alarms.items()
    }
    return Figures(found.pop(MODEL), found)


def f1_and_delay(folds: Sequence[Streamed]) -> Figures:
    """F1 in percent, and the longest delay in seconds from an event's first step to its alarm, over the streams."""
    (one,) = folds
    alarms, evaluated, truth = raised(one)
    dataset = one.dataset
    found = {name: [100 * f1(truth[evaluated], flags[evaluated]), 0.0] for name, flags in alarms.items()}
    for name, flags in alarms.items():
        for stream in np.unique(dataset.stream_of[truth & evaluated]):
            begin = np.flatnonzero(truth & evaluated & (dataset.stream_of == stream))[0]
            later = (dataset.stream_of == stream) & (np.arange(len(dataset)) >= begin)
            raised_at = np.flatnonzero(flags & evaluated & later)
            delay = dataset.times[raised_at[0]] - dataset.times[begin] if raised_at.size else math.inf
            found[name][1] = max(found[name][1], float(delay))
    return Figures(found.pop(MODEL), found)


def windows_and_false_episodes(folds: Sequence[Streamed]) -> Figures:
    """The number of true windows with an alarm, and the number of alarm episodes outside of all windows."""
    (one,) = folds
    alarms, evaluated, truth = raised(one)
    windows = _intervals(truth & evaluated)
    found = {}
    for name, flags in alarms.items():
        episodes = _intervals(flags & evaluated)
        hit = sum(bool(flags[first:last].any()) for first, last in windows)
        found[name] = [float(hit), float(sum(not truth[first:last].any() for first, last in episodes))]
    return Figures(found.pop(MODEL), found)


def _intervals(flags: Flags) -> list[tuple[int, int]]:
    """(first, last + 1) of each run of true flags."""
    edges = np.flatnonzero(np.diff(flags.astype(np.int64), prepend=0, append=0))
    return list(zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True))


def accuracy(folds: Sequence[Streamed]) -> Figures:
    """Percent of the test steps with the right label; the mean of the folds."""
    scores = [_labels(one) for one in folds]
    found = {name: [100 * statistics.mean(one.accuracy[name] for one in scores)] for name in scores[0].accuracy}
    return Figures(found.pop(MODEL), found)


def carried_over(folds: Sequence[Streamed]) -> Figures:
    """Steps right in percent, mean and worst fold; recordings right in percent; log loss in hundredths."""
    rows: dict[str, list[list[float]]] = {MODEL: [], LOGISTIC: []}
    for one in folds:
        logits = logistic_logits(one.recipe, one.dataset)
        probabilities = aligned(one.dataset, one.predictions)
        losses = log_losses(one.dataset, probabilities, logits)
        _, pooled = single_and_pooled(one.dataset, probabilities, pool=False)
        baselines = class_baselines(one.dataset, logits)
        steps = class_score(one.dataset, baselines, likeliest(probabilities), "").accuracy
        recordings = recordings_score(one.dataset, baselines, likeliest(pooled), "").accuracy
        for name, row in rows.items():
            row.append([100 * steps[name], 100 * recordings[name], 100 * losses[name]])
    found = {}
    for name, row in rows.items():
        steps_right, recordings_right, loss = (list(column) for column in zip(*row, strict=True))
        found[name] = [
            statistics.mean(steps_right),
            min(steps_right),
            statistics.mean(recordings_right),
            statistics.mean(loss),
        ]
    return Figures(found.pop(MODEL), found)


def macro_f1(folds: Sequence[Streamed]) -> Figures:
    """Mean F1 of the classes in percent; the mean of the folds."""
    scores = [_labels(one) for one in folds]
    found = {name: [100 * statistics.mean(one.f1[name] for one in scores)] for name in scores[0].f1}
    return Figures(found.pop(MODEL), found)


def accuracy_and_margin(folds: Sequence[Streamed]) -> Figures:
    """Accuracy in percent, and its margin in points over the better of majority and Markov chain."""
    found = accuracy(folds)
    best = max(found.beside[name][0] for name in (MAJORITY, MARKOV))
    beside = {name: [figure, figure - best] for name, (figure,) in found.beside.items()}
    return Figures([found.model[0], found.model[0] - best], beside)


def _labels(one: Streamed) -> ClassScore:
    predicted = np.full(len(one.dataset), UNKNOWN)
    index_of = {name: index for index, name in enumerate(one.dataset.contract.targets)}
    for row, prediction in predictions_by_step(one.dataset, one.predictions):
        if prediction.label is not None:
            predicted[row] = index_of[prediction.label]
    return class_score(
        one.dataset, class_baselines(one.dataset, logistic_logits(one.recipe, one.dataset)), predicted, ""
    )


ROWS = [
    Row(
        "solar",
        "forecast photovoltaic power, skill % at 1 / 6 / 24 steps",
        "solar",
        skill,
        Marks([14, 37, 20], [17, 40, 24], more=True),
    ),
    Row(
        "weather",
        "forecast tomorrow's high / low, RMSE °C",
        "weather",
        rmse,
        Marks([2.85, 1.65], [2.75, 1.60], more=False, decimals=2),
    ),
    Row(
        "beijing",
        "forecast temperature at stations left out, skill % at 1 / 6 / 24 hours",
        "beijing",
        skill,
        Marks([33, 30, 9], [35, 34, 15], more=True),
        folds=(["city"], ["north"], ["Shunyi"]),
    ),
    Row(
        "turbofan",
        "remaining useful life of engines left out, RMSE at the last flight",
        "turbofan",
        last_flight,
        Marks([14.5], [13.0], more=False, decimals=1),
        [[str(unit) for unit in range(first, 101, 5)] for first in range(1, 6)],
    ),
    Row("roadside", "virtual sensor of carbon monoxide, R²", "roadside", r2, Marks([0.80], [0.86], True, 2)),
    Row("turbine", "virtual sensor of another turbine's power, R²", "turbine", r2, Marks([0.95], [0.98], True, 2)),
    Row(
        "transformer",
        "honesty: oil temperature at 1 / 6 / 24 hours, points of skill behind ridge",
        "transformer",
        behind_ridge,
        Marks([1, 1, 1], None, more=False, decimals=1),
    ),
    Row(
        "livingroom",
        "honesty: indoor temperature at 1 / 6 / 24 steps, points of skill behind ridge",
        "livingroom",
        behind_ridge,
        Marks([1, 1, 1], None, more=False, decimals=1),
    ),
    Row(
        "valves",
        "anomaly on SKAB valve1 + valve2, F1 % / false alarms %",
        "valves",
        f1_and_false_alarms,
        Marks([88, 5], [90, 4], more=(True, False), decimals=1),
    ),
    Row(
        "machine",
        "anomaly on NAB machine_temperature, windows hit of 4 / false episodes",
        "machine",
        windows_and_false_episodes,
        Marks([3, 2], [4, 5], more=(True, False)),
    ),
    Row(
        "motes",
        "anomaly on WSN multi-hop motes, F1 % / seconds to an alarm",
        "motes",
        f1_and_delay,
        Marks([88, 15], None, more=(True, False), decimals=1),
    ),
    Row(
        "exercises",
        "classify watch exercises, each person left out, % of steps / worst person / recordings / log loss x 100",
        "exercises",
        carried_over,
        Marks([88, 70, 92, 35], [90, 74, 94, 30], more=(True, True, True, False), decimals=1),
        folds=[[str(person)] for person in range(1, 8)],
    ),
    Row(
        "occupancy",
        "classify occupancy, mean F1 of both classes in %",
        "occupancy",
        macro_f1,
        Marks([98], None, more=True, decimals=1),
    ),
    Row(
        "skies",
        "next symbol, the weather's word: accuracy % / points above majority and Markov chain",
        "skies",
        accuracy_and_margin,
        Marks([0, 0.1], [0, 3], more=True, decimals=1),
    ),
]


def main() -> None:
    options = _options()
    options.folder.mkdir(parents=True, exist_ok=True)
    only = options.only.split(",") if options.only else [row.name for row in ROWS]
    if unknown := set(only) - {row.name for row in ROWS}:
        sys.exit(f"expected rows among {', '.join(row.name for row in ROWS)}, found {', '.join(sorted(unknown))}")
    for row in ROWS:
        if row.name in only:
            _save(options.folder, row, _measured(row, options.data, range(1, options.seeds + 1)))
    print(_table(options.folder))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", type=Path, required=True, help="folder of the recordings (docs/accuracy.md)")
    parser.add_argument("--only", help=f"rows to measure, of {', '.join(row.name for row in ROWS)}")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--folder", type=Path, default=FOLDER, help="where results are kept")
    return parser.parse_args()


def _measured(row: Row, data: Path, seeds: Sequence[int]) -> list[Figures]:
    """The figures by seed. The dataset and the baselines of each fold are the same for all seeds and made once."""
    found: dict[int, list[Streamed]] = {seed: [] for seed in seeds}
    for fold in row.folds or [None]:
        recipe = _recipe(row, data, fold)
        dataset = read_dataset(recipe)
        baselines = (
            None
            if recipe.classify is not None
            else fit_baselines(dataset, recipe.fit.refit, recipe.model.most_parameters)
        )
        for seed, folds in found.items():
            seeded = dataclasses.replace(recipe, fit=dataclasses.replace(recipe.fit, seed=seed))
            folds.append(_stream(seeded, dataset, baselines))
            if len(folds) == max(1, len(row.folds)):
                print(f"{row.name} seed {seed}: {_text(row.measure(folds).model, row.marks)}", file=sys.stderr)
    return [row.measure(folds) for folds in found.values()]


def _recipe(row: Row, data: Path, fold: Sequence[str] | None) -> Recipe:
    brought = row.recipe in ("skies", "solar", "weather")
    recipe = read_recipe(row.recipe, None if brought else data)
    return (
        recipe
        if fold is None
        else dataclasses.replace(recipe, split=dataclasses.replace(recipe.split, leave_out=list(fold)))
    )


def _stream(recipe: Recipe, dataset: Dataset, baselines: Baselines | None) -> Streamed:
    """Train and export as the commands do, then stream as the service does."""
    fitted = choose(recipe, dataset, baselines).chosen.fitted
    contract, _ = trained_contract(recipe, dataset, fitted)
    dataset, model = dataclasses.replace(dataset, contract=contract), fitted.model
    checkpoint = Checkpoint(model, contract, dataset.features[held_out_steps(dataset)], {})
    with tempfile.TemporaryDirectory() as folder:
        bundle = export_bundle(checkpoint, Path(folder) / "model.elstm", schemes=["int8"]).bundle
        predictor = Predictor.of(bundle, scheme="int8")
    steps = [predictor.feed_columns([reading]) for reading in _test_streams(dataset).readings()]
    predictions = [one for found in steps if found is not None for one in found.predictions()]
    return Streamed(recipe, dataset, baselines, predictions)


def _test_streams(dataset: Dataset) -> Recording:
    """The recording without streams that have no step in the test part; streams do not influence one another."""
    tested = np.unique(dataset.stream_of[dataset.steps("test")])
    return dataset.recording.rows(np.isin(dataset.recording.stream_of, tested))


def _save(folder: Path, row: Row, figures: Sequence[Figures]) -> None:
    saved = {
        "seeds": [dataclasses.asdict(one) for one in figures],
        "date": time.strftime("%Y-%m-%d"),
        "machine": f"{platform.machine()}, Python {platform.python_version()}",
        "versions": {package: version(package) for package in PACKAGES},
    }
    (folder / f"{row.name}.json").write_text(json.dumps(saved, indent=2) + "\n")


def _table(folder: Path) -> str:
    """All results as a Markdown table."""
    lines = [
        "| task | held against | pass | stretch | int8, median | seeds | reached |",
        "|---|---|---|---|---|---|---|",
    ]
    stamps = []
    for row in ROWS:
        path = folder / f"{row.name}.json"
        if not path.exists():
            continue
        saved = json.loads(path.read_text())
        seeds = [one["model"] for one in saved["seeds"]]
        median = _median(seeds)
        beside = "; ".join(
            f"{name} {_text(_median([one['beside'][name] for one in saved['seeds']]), row.marks)}"
            for name in saved["seeds"][0]["beside"]
        )
        lowest, highest = (_text([one(each) for each in zip(*seeds, strict=True)], row.marks) for one in (min, max))
        stretch = "" if row.marks.stretch is None else _text(row.marks.stretch, row.marks)
        cells = [row.task, beside, _text(row.marks.passed, row.marks), stretch, _text(median, row.marks)]
        lines.append(f"| {' | '.join([*cells, f'{lowest} to {highest}', row.marks.reached(median)])} |")
        packages = ", ".join(f"{name} {number}" for name, number in saved["versions"].items())
        stamps.append(f"{saved['date']}, {saved['machine']}, {packages}")
    return "\n".join([*lines, "", *(f"Measured {stamp}." for stamp in dict.fromkeys(stamps))])


def _median(seeds: Sequence[Sequence[float]]) -> list[float]:
    return [statistics.median(each) for each in zip(*seeds, strict=True)]


def _text(figures: Sequence[float], marks: Marks) -> str:
    return " / ".join(f"{figure:.{marks.decimals}f}" for figure in figures)


if __name__ == "__main__":
    main()
