"""Prints how good the recipes are: trained with several seeds, exported to int8, streamed one reading at a time.

    python benchmarks/accuracy.py --data DIR [--only NAME,NAME] [--seeds 3] [--folder DIR]

A row is a recipe, a measure and its marks. To add one, append a `Row` to ROWS:

- `recipe`: its name in train/recipes. Where each of several groups is left out in turn, `folds` lists what `leave_out`
  under [split] says in each; the recipe trains once a fold, and the measure sees all of them together.
- `measure`: takes the folds' `Streamed` (dataset, baselines, and what the int8 bundle said to each reading) and gives
  `Figures`: the model's, and those of what it is held against, each a list of as many numbers as the marks.
- `marks`: what to reach, `Marks(passed, stretch, more)`, `more` where a larger figure is the better one, for all
  figures or for each.

A figure is rounded as it is printed before it is held against its mark, and the median of the seeds is what counts.
Results are kept in --folder, so that rows may be measured one by one; the table shows all that lies there.
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
from edge_lstm_train.evaluation.baselines import PERSISTENCE, RIDGE, Baselines, fit_baselines
from edge_lstm_train.evaluation.classification import (
    MAJORITY,
    MARKOV,
    UNKNOWN,
    ClassScore,
    class_baselines,
    class_score,
)
from edge_lstm_train.evaluation.detection import f1, judged_alike
from edge_lstm_train.evaluation.scores import MODEL, Score, aligned, rows_of, score
from edge_lstm_train.model.checkpoint import Checkpoint
from edge_lstm_train.model.fit import fit
from edge_lstm_train.recipe.recipe import Recipe, read_recipe
from edge_lstm_train.run import started, unseen_steps

FOLDER = Path("runs/accuracy")
PACKAGES = ("torch", "numpy", "ai-edge-litert", "onnxruntime")


@dataclass(frozen=True)
class Streamed:
    """A dataset, and what an int8 bundle said to its streams that have a test part, reading by reading."""

    recipe: Recipe
    dataset: Dataset
    baselines: Baselines | None  # of numbers; none where the task is another
    predictions: Sequence[Prediction]

    @property
    def scores(self) -> list[Score]:
        """Of a task whose targets are numbers: one an output, on the test part."""
        assert self.baselines is not None
        return score(self.dataset, self.baselines, self.predictions)


@dataclass(frozen=True)
class Figures:
    """What a row comes to: the model's figures, and by name those of what it is held against."""

    model: list[float]
    beside: dict[str, list[float]]


@dataclass(frozen=True)
class Marks:
    """What to reach, a number a figure; None: no such mark."""

    passed: list[float]
    stretch: list[float] | None
    more: bool | Sequence[bool]  # whether more is better, of all figures or of each
    decimals: int = 0

    def reached(self, figures: Sequence[float]) -> str:
        """In a word, for all figures together."""
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
    task: str  # for people, with the unit of its figures
    recipe: str
    measure: Callable[[Sequence[Streamed]], Figures]
    marks: Marks
    folds: Sequence[Sequence[str]] = ()  # what is left out in turn; none: as the recipe says, once


def skill(folds: Sequence[Streamed]) -> Figures:
    """Percent that the RMSE lies below that of the better naive baseline, a figure an output; the mean of the folds."""
    scores = [one.scores for one in folds]
    model, ridge = (
        [100 * statistics.fmean(each.skill(name) for each in output) for output in zip(*scores, strict=True)]
        for name in (MODEL, RIDGE)
    )
    return Figures(model, {RIDGE: ridge})


def rmse(folds: Sequence[Streamed]) -> Figures:
    """Root mean square error in the target's unit, a figure an output."""
    (one,) = folds
    names = [name for name in (PERSISTENCE, RIDGE) if name in one.scores[0].rmse]
    return Figures(
        [each.rmse[MODEL] for each in one.scores], {name: [each.rmse[name] for each in one.scores] for name in names}
    )


def r2(folds: Sequence[Streamed]) -> Figures:
    """Share of the target's variance that is explained, a figure an output."""
    (one,) = folds
    return Figures([each.r2[MODEL] for each in one.scores], {RIDGE: [each.r2[RIDGE] for each in one.scores]})


def last_flight(folds: Sequence[Streamed]) -> Figures:
    """RMSE of the remaining life at the last flight of engines that are cut at random, a true life beyond the cap too.

    As in the set's official test, 7 to 145 flights are left and 31 or more were seen. Every cut that this allows is
    taken, and every engine weighs the same: what random cuts come to on average.
    """
    squares: dict[str, list[float]] = {MODEL: [], RIDGE: []}  # a mean an engine
    for one in folds:
        assert one.baselines is not None
        dataset, truth = one.dataset, one.dataset.labels["rul"]
        flights = np.arange(len(dataset)) - dataset.run_start + 1
        said = {MODEL: aligned(dataset, one.predictions), RIDGE: one.baselines.predictions[RIDGE]}
        for stream in np.unique(dataset.stream_of[dataset.steps("test")]):
            cuts = (dataset.stream_of == stream) & (truth >= 7) & (truth <= 145) & (flights >= 31)
            for name, table in said.items():
                squares[name].append(float(np.mean((table[cuts, 0] - truth[cuts]) ** 2)))
    figures = {name: [float(np.mean(means)) ** 0.5] for name, means in squares.items()}
    return Figures(figures.pop(MODEL), figures)


def behind_ridge(folds: Sequence[Streamed]) -> Figures:
    """Points of skill that the model lies behind ridge; below 0 it is ahead."""
    figures = skill(folds)
    return Figures(
        [ridge - model for model, ridge in zip(figures.model, figures.beside[RIDGE], strict=True)],
        {**figures.beside, "model": figures.model},
    )


def raised(one: Streamed) -> tuple[dict[str, Flags], Flags, Flags]:
    """Alarms (steps,) by name, the model's and those of ridge by the same rule; where the truth is known; the truth."""
    assert one.recipe.anomaly is not None  # the row's recipe says so, and the truth
    assert one.recipe.anomaly.truth is not None
    assert one.baselines is not None
    dataset = one.dataset
    alarms, judged = np.zeros(len(dataset), bool), np.zeros(len(dataset), bool)
    for row, prediction in rows_of(dataset, one.predictions):
        alarms[row], judged[row] = bool(prediction.alarm), math.isfinite(prediction.score or 0.0)
    asked = judged & (dataset.part_of == PARTS.index("test"))
    ridge = judged_alike(dataset, one.baselines.predictions[RIDGE])
    return {MODEL: alarms, RIDGE: ridge}, asked, dataset.labels[one.recipe.anomaly.truth] > 0


def f1_and_false_alarms(folds: Sequence[Streamed]) -> Figures:
    """Percent: F1 over all judged steps of the test part, and the share of the normal ones that were alarms."""
    (one,) = folds
    alarms, asked, truth = raised(one)
    found = {
        name: [100 * f1(truth[asked], flags[asked]), 100 * float(flags[asked & ~truth].mean())]
        for name, flags in alarms.items()
    }
    return Figures(found.pop(MODEL), found)


def f1_and_delay(folds: Sequence[Streamed]) -> Figures:
    """F1 in percent, and the longest time in seconds from an event's first step to an alarm, over the streams."""
    (one,) = folds
    alarms, asked, truth = raised(one)
    dataset = one.dataset
    found = {name: [100 * f1(truth[asked], flags[asked]), 0.0] for name, flags in alarms.items()}
    for name, flags in alarms.items():
        for stream in np.unique(dataset.stream_of[truth & asked]):
            begin = np.flatnonzero(truth & asked & (dataset.stream_of == stream))[0]
            told = np.flatnonzero(flags & asked & (dataset.stream_of == stream) & (np.arange(len(dataset)) >= begin))
            delay = dataset.times[told[0]] - dataset.times[begin] if told.size else math.inf
            found[name][1] = max(found[name][1], float(delay))
    return Figures(found.pop(MODEL), found)


def windows_and_false_episodes(folds: Sequence[Streamed]) -> Figures:
    """How many windows of the truth hold an alarm, and how many stretches of alarms touch none."""
    (one,) = folds
    alarms, asked, truth = raised(one)
    windows = _stretches(truth & asked)
    found = {}
    for name, flags in alarms.items():
        episodes = _stretches(flags & asked)
        hit = sum(bool(flags[first:last].any()) for first, last in windows)
        found[name] = [float(hit), float(sum(not truth[first:last].any() for first, last in episodes))]
    return Figures(found.pop(MODEL), found)


def _stretches(flags: Flags) -> list[tuple[int, int]]:
    """(first, behind the last) of each run of true ones."""
    edges = np.flatnonzero(np.diff(flags.astype(np.int64), prepend=0, append=0))
    return list(zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True))


def accuracy(folds: Sequence[Streamed]) -> Figures:
    """Percent of the test steps whose label was right, the mean of the folds."""
    scores = [_labels(one) for one in folds]
    found = {name: [100 * statistics.mean(one.accuracy[name] for one in scores)] for name in scores[0].accuracy}
    return Figures(found.pop(MODEL), found)


def accuracy_and_margin(folds: Sequence[Streamed]) -> Figures:
    """Accuracy in percent, and how many points it lies above the better of the majority and the Markov chain."""
    found = accuracy(folds)
    best = max(found.beside[name][0] for name in (MAJORITY, MARKOV))
    beside = {name: [figure, figure - best] for name, (figure,) in found.beside.items()}
    return Figures([found.model[0], found.model[0] - best], beside)


def _labels(one: Streamed) -> ClassScore:
    said = np.full(len(one.dataset), UNKNOWN)
    place = {name: index for index, name in enumerate(one.dataset.contract.targets)}
    for row, prediction in rows_of(one.dataset, one.predictions):
        if prediction.label is not None:
            said[row] = place[prediction.label]
    return class_score(one.dataset, class_baselines(one.dataset), said, "")


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
        Marks([82, 12], [86, 10], more=(True, False), decimals=1),
    ),
    Row(
        "machine",
        "anomaly on NAB machine_temperature, windows hit of 4 / false episodes",
        "machine",
        windows_and_false_episodes,
        Marks([3, 5], [4, 5], more=(True, False)),
    ),
    Row(
        "motes",
        "anomaly on WSN multi-hop motes, F1 % / seconds to an alarm",
        "motes",
        f1_and_delay,
        Marks([75, 60], [85, 60], more=(True, False), decimals=1),
    ),
    Row(
        "exercises",
        "classify watch exercises, two subjects left out, accuracy %",
        "exercises",
        accuracy,
        Marks([85], [89], more=True, decimals=1),
        # each person twice, with both neighbours in the circle of numbers; all 21 pairs would take three times as long
        folds=(["1", "2"], ["2", "3"], ["3", "4"], ["4", "5"], ["5", "6"], ["6", "7"], ["7", "1"]),
    ),
    Row(
        "occupancy",
        "classify occupancy, accuracy %",
        "occupancy",
        accuracy,
        Marks([97], [98], more=True, decimals=1),
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
            _keep(options.folder, row, _measured(row, options.data, range(1, options.seeds + 1)))
    print(_table(options.folder))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", type=Path, required=True, help="folder of the recordings (docs/accuracy.md)")
    parser.add_argument("--only", help=f"rows to measure, of {', '.join(row.name for row in ROWS)}")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--folder", type=Path, default=FOLDER, help="where results are kept")
    return parser.parse_args()


def _measured(row: Row, data: Path, seeds: Sequence[int]) -> list[Figures]:
    """By seed. What is the same for all seeds, the dataset and the baselines of each fold, is made once."""
    found: dict[int, list[Streamed]] = {seed: [] for seed in seeds}
    for fold in row.folds or [None]:
        recipe = _recipe(row, data, fold)
        dataset = read_dataset(recipe)
        baselines = None if recipe.classify is not None else fit_baselines(dataset, recipe.fit.refit)
        for seed, folds in found.items():
            seeded = dataclasses.replace(recipe, fit=dataclasses.replace(recipe.fit, seed=seed))
            folds.append(_streamed(seeded, dataset, baselines))
            if len(folds) == max(1, len(row.folds)):
                print(f"{row.name} seed {seed}: {_said(row.measure(folds).model, row.marks)}", file=sys.stderr)
    return [row.measure(folds) for folds in found.values()]


def _recipe(row: Row, data: Path, fold: Sequence[str] | None) -> Recipe:
    brought = row.recipe in ("skies", "solar", "weather")
    recipe = read_recipe(row.recipe, None if brought else data)
    return (
        recipe
        if fold is None
        else dataclasses.replace(recipe, split=dataclasses.replace(recipe.split, leave_out=list(fold)))
    )


def _streamed(recipe: Recipe, dataset: Dataset, baselines: Baselines | None) -> Streamed:
    """Trained and exported as the verbs do it, then fed as the service does it."""
    spread = np.ones(dataset.targets.shape[1]) if baselines is None else baselines.residual
    model = fit(recipe, dataset, spread).model
    checkpoint = Checkpoint(model, started(dataset.contract, model), dataset.features[unseen_steps(dataset)], {})
    with tempfile.TemporaryDirectory() as folder:
        bundle = export_bundle(checkpoint, Path(folder) / "model.elstm", schemes=["int8"]).bundle
        predictor = Predictor.of(bundle, scheme="int8")
    steps = [predictor.feed_columns([reading]) for reading in _tested(dataset).readings()]
    predictions = [one for found in steps if found is not None for one in found.predictions()]
    return Streamed(recipe, dataset, baselines, predictions)


def _tested(dataset: Dataset) -> Recording:
    """The recording without the streams that have no step in the test part: a stream never feels its neighbours."""
    tested = np.unique(dataset.stream_of[dataset.steps("test")])
    return dataset.recording.rows(np.isin(dataset.recording.stream_of, tested))


def _keep(folder: Path, row: Row, figures: Sequence[Figures]) -> None:
    kept = {
        "seeds": [dataclasses.asdict(one) for one in figures],
        "date": time.strftime("%Y-%m-%d"),
        "machine": f"{platform.machine()}, Python {platform.python_version()}",
        "versions": {package: version(package) for package in PACKAGES},
    }
    (folder / f"{row.name}.json").write_text(json.dumps(kept, indent=2) + "\n")


def _table(folder: Path) -> str:
    """All that was measured, as Markdown."""
    lines = [
        "| task | held against | pass | stretch | int8, median | seeds | reached |",
        "|---|---|---|---|---|---|---|",
    ]
    stamps = []
    for row in ROWS:
        path = folder / f"{row.name}.json"
        if not path.exists():
            continue
        kept = json.loads(path.read_text())
        seeds = [one["model"] for one in kept["seeds"]]
        median = _median(seeds)
        beside = "; ".join(
            f"{name} {_said(_median([one['beside'][name] for one in kept['seeds']]), row.marks)}"
            for name in kept["seeds"][0]["beside"]
        )
        lowest, highest = (_said([one(each) for each in zip(*seeds, strict=True)], row.marks) for one in (min, max))
        stretch = "" if row.marks.stretch is None else _said(row.marks.stretch, row.marks)
        cells = [row.task, beside, _said(row.marks.passed, row.marks), stretch, _said(median, row.marks)]
        lines.append(f"| {' | '.join([*cells, f'{lowest} to {highest}', row.marks.reached(median)])} |")
        packages = ", ".join(f"{name} {number}" for name, number in kept["versions"].items())
        stamps.append(f"{kept['date']}, {kept['machine']}, {packages}")
    return "\n".join([*lines, "", *(f"Measured {stamp}." for stamp in dict.fromkeys(stamps))])


def _median(seeds: Sequence[Sequence[float]]) -> list[float]:
    return [statistics.median(each) for each in zip(*seeds, strict=True)]


def _said(figures: Sequence[float], marks: Marks) -> str:
    return " / ".join(f"{figure:.{marks.decimals}f}" for figure in figures)


if __name__ == "__main__":
    main()
