"""Prints how often bands hold on recordings and on series that drift, and what they cost.

    python benchmarks/field_parts/bands.py --data DIR [--only NAME,NAME] [--folder DIR] [--figures DIR]

The recipes train with 150 updates and `intervals = 0.9`, once; their checkpoints stay in --folder. Each recording, and
each series, is streamed through the predictor, and the bands of the test part are judged:

- coverage: how often the truth lies inside;
- windows: the share of disjoint windows of 500 steps whose coverage is within .05 of .9, and the window furthest away;
- width: the mean, over that of the best static band of the same coverage: the bundle's form, with the width that gives
  that coverage on the test part itself.

Static bands, as training calibrated them, are shown beside. The step sizes were chosen on the rows marked "chosen on":
the living room, the parts of ETTh1 and solar before their test parts, and series of other seeds.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib.metadata
import io
import math
import os
import platform
import re
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edge_lstm.backends.reference import ReferenceBackend
from edge_lstm.bundle.contract import Contract, Feature, Sampling, StateTensor
from edge_lstm.bundle.intervals import SHARES, Intervals
from edge_lstm.bundle.network import Network
from edge_lstm.decisions.forecasts.bands import Bands
from edge_lstm.foundation.arrays import Doubles, Flags
from edge_lstm.recordings.recording import Recording
from edge_lstm.streaming.predictor import Predictor
from edge_lstm.streaming.reading import Reading
from edge_lstm_train.data.dataset import read_dataset
from edge_lstm_train.data.split import PARTS
from edge_lstm_train.evaluation.baselines import fit_baselines
from edge_lstm_train.evaluation.intervals import conformal_quantile
from edge_lstm_train.evaluation.predictions import Predictions, predict, steps_of
from edge_lstm_train.evaluation.trained_contract import trained_contract
from edge_lstm_train.model.checkpoint import FILE, Checkpoint, load_checkpoint, save_checkpoint
from edge_lstm_train.recipe.recipe import Recipe, read_recipe
from edge_lstm_train.run import choose

FOLDER = Path("runs/field_bands")
LEVEL, WINDOW, WITHIN = 0.9, 500, 0.05
SOON = 6  # steps: the marks of later horizons are wider
MARKS = "marks: up to 6 steps ahead coverage .90 +- .01 and 95 % of windows within .05; later .90 +- .02; width <= 1.05"
UPDATES = 150
HORIZONS = [1, 6, 24]
CALIBRATED, LIVED = 4_000, 12_000  # steps of a series that drifts
PERSISTENCE = 0.9  # of these series from step to step
PACKAGES = ("numpy", "torch")


@dataclass(frozen=True, eq=False)
class Streamed:
    """The bands of one stream at the steps to judge, (steps, outputs) each; NaN: unknown."""

    name: str
    times: Doubles
    truth: Doubles
    adaptive: tuple[Doubles, Doubles]
    static: tuple[Doubles, Doubles]
    inner: tuple[Doubles, Doubles]  # the predictions, or the outer quantiles
    factors: Doubles  # of the hour


@dataclass(frozen=True)
class Row:
    """A line of the table: a recipe, or a series that drifts."""

    name: str
    make: Callable[[argparse.Namespace], tuple[Contract, list[Streamed]]]


def recipe_row(name: str, recipe: str, quantiles: Sequence[float] = (), chosen_on: bool = False) -> Row:
    """A recipe with bands, trained anew where --folder has no checkpoint."""

    def make(options: argparse.Namespace) -> tuple[Contract, list[Streamed]]:
        found = _with_bands(read_recipe(recipe, None if recipe == "solar" else options.data), quantiles)
        dataset = read_dataset(found)
        run = options.folder / name
        if not (run / FILE).exists():
            baselines = fit_baselines(dataset, found.fit.refit, found.model.most_parameters)
            fitted = choose(found, dataset, baselines).chosen.fitted
            contract, _ = trained_contract(found, dataset, fitted)
            run.mkdir(parents=True, exist_ok=True)
            save_checkpoint(run, Checkpoint(fitted.model, contract, dataset.features[:1], {}))
        checkpoint = load_checkpoint(run)
        contract = checkpoint.contract
        tested = dataset.part_of == PARTS.index("test")
        streams = np.unique(dataset.stream_of[tested])
        recording = dataset.recording.rows(np.isin(dataset.recording.stream_of, streams))
        predictions = predict(contract, checkpoint.model.network(), recording)
        steps = steps_of(dataset, predictions)
        published = len(contract.output_names) // len(contract.targets)
        by_name = dataset.truth.reshape(len(dataset), len(contract.targets), published, -1)
        truth = by_name[:, :, 0].reshape(len(dataset), -1)  # without the quantiles
        judged = []
        for stream, places in _by_stream(predictions):
            of_test = places[tested[steps[places]]]
            judged.append(_streamed(contract, predictions, stream, of_test, truth[steps[of_test]]))
        return contract, judged

    return Row(name + (" (chosen on)" if chosen_on else ""), make)


def _with_bands(recipe: Recipe, quantiles: Sequence[float]) -> Recipe:
    assert recipe.forecast is not None  # true for the recipes of these rows
    forecast = dataclasses.replace(recipe.forecast, intervals=LEVEL, quantiles=list(quantiles))
    fit = dataclasses.replace(recipe.fit, updates=min(UPDATES, recipe.fit.updates))
    return dataclasses.replace(recipe, forecast=forecast, fit=fit)


def series_row(name: str, spread: Callable[[np.random.Generator], Doubles], seed: int) -> Row:
    """A first-order autoregression with the best forecast of its calibration, whose noise drifts after that.

    `spread` (steps,): the standard deviation of the noise at each step, 1 in the calibration.
    """

    def make(options: argparse.Namespace) -> tuple[Contract, list[Streamed]]:
        random = np.random.default_rng(seed)
        contract, found = _lived({name: _autoregression(random, spread(random))})
        return contract, found

    return Row(name, make)


def _autoregression(random: np.random.Generator, spread: Doubles) -> Doubles:
    noise, values = random.normal(0, spread), np.zeros(len(spread))
    for step in range(1, len(values)):
        values[step] = PERSISTENCE * values[step - 1] + noise[step]
    return values


def swelling(random: np.random.Generator) -> Doubles:
    """Noise that slowly grows to three times, and back."""
    return np.concatenate([np.ones(CALIBRATED), 1 + 2 * np.sin(np.pi * np.arange(LIVED) / LIVED) ** 2])


def jumping(random: np.random.Generator) -> Doubles:
    """Noise of another strength every 1,500 steps: e to a normal number of deviation .6."""
    levels = np.exp(random.normal(0, 0.6, LIVED // 1500))
    return np.concatenate([np.ones(CALIBRATED), np.repeat(levels, 1500)])


def _lived(series: dict[str, Doubles]) -> tuple[Contract, list[Streamed]]:
    """Calibrate the contract on the beginnings of all series, and stream the rest of each."""
    errors = [_errors(values[:CALIBRATED]) for values in series.values()]
    pooled = [np.abs(np.concatenate(one)) for one in zip(*errors, strict=True)]
    scores = [conformal_quantile(one, share) for one in pooled for share in SHARES]
    made = Intervals(LEVEL, [conformal_quantile(one, LEVEL) for one in pooled], scores)
    network = _network()
    contract = _contract(network, made)
    names = list(series)
    count = CALIBRATED + LIVED
    values = np.stack([series[name] for name in names], axis=1)[CALIBRATED:]
    times = 1.7e9 + 900.0 * np.arange(count - CALIBRATED)
    recording = Recording(
        "memory", ["x"], names, np.tile(np.arange(len(names)), len(times)), np.repeat(times, len(names)),
        values.reshape(-1, 1),
    )  # fmt: skip
    predictions = predict(contract, network, recording)
    found = []
    for name, places in _by_stream(predictions):
        own = values[:, names.index(name)]
        truth = np.stack([np.append(own[horizon:], np.full(horizon, np.nan)) for horizon in HORIZONS], axis=1)
        found.append(_streamed(contract, predictions, name, places, truth))
    return contract, found


def _contract(network: Network, intervals: Intervals | None) -> Contract:
    states = [StateTensor(name, [size]) for name, size in network.state_sizes.items()]
    sampling = Sampling(interval_s=900.0)
    return Contract(
        "series", "forecast", [Feature("x")], ["x"], HORIZONS, states, sampling=sampling, intervals=intervals
    )


def _network() -> Network:
    """The best forecast of the series: PERSISTENCE to the power of the horizon, times the newest value."""
    empty, outputs = np.zeros(0, np.float32), len(HORIZONS)
    taps = np.array([[PERSISTENCE**horizon, 0] for horizon in HORIZONS], np.float32)
    head = np.zeros((outputs, 0), np.float32)
    one = np.ones(1, np.float32)
    bias = np.zeros(outputs, np.float32)
    return Network("none", 0 * one, one, (), head, bias, empty.astype(np.int32), taps)


def _errors(values: Doubles) -> list[Doubles]:
    return [values[horizon:] - PERSISTENCE**horizon * values[:-horizon] for horizon in HORIZONS]


def _by_stream(predictions: Predictions) -> Iterator[tuple[str, np.ndarray]]:
    """The name of each stream and the places of its predictions."""
    for index, name in enumerate(predictions.streams):
        places = np.flatnonzero(predictions.stream_of == index)
        if places.size:
            yield name, places


def _streamed(contract: Contract, predictions: Predictions, name: str, places: np.ndarray, truth: Doubles) -> Streamed:
    assert predictions.bands is not None  # all these contracts have intervals
    form, times = Bands(contract), predictions.times[places]
    values, adaptive = predictions.values[places], predictions.bands[places].astype(np.float64)
    static = form(values, times).astype(np.float64)
    ends = [(one[:, :, 0], one[:, :, 1]) for one in (adaptive, static)]
    return Streamed(name, times, truth, *ends, form.inner(values), form.factors(times))


def judged(streams: Sequence[Streamed], output: int) -> str:
    """Coverage, windows and width of the adaptive bands and of the static ones, as cells of a table."""
    cells = []
    for kind in ("static", "adaptive"):
        insides, windows, widths = [], [], []
        for one in streams:
            low, high = (end[:, output] for end in getattr(one, kind))
            known = np.isfinite(one.truth[:, output]) & np.isfinite(low)
            inside = _inside(one, kind, output)[known]
            insides.append(inside)
            windows.append(inside[: len(inside) // WINDOW * WINDOW].reshape(-1, WINDOW).mean(axis=1))
            widths.append((high - low)[known])
        coverage, by_window = float(np.concatenate(insides).mean()), np.concatenate(windows)
        width = float(np.concatenate(widths).mean()) / best_static_width(streams, output, coverage)
        away = np.abs(by_window - LEVEL)
        within = float((away <= WITHIN + 1e-9).mean())
        cells += [f"{coverage:.3f}", f"{100 * within:.0f} %", f"{by_window[np.argmax(away)]:.2f}"]
        cells += [f"{width:.3f}"] * (kind == "adaptive") + [str(len(by_window))] * (kind == "adaptive")
    return " | ".join(cells)


def best_static_width(streams: Sequence[Streamed], output: int, coverage: float) -> float:
    """The mean width of the narrowest band of the bundle's form with that coverage on these very steps."""
    scores, factors, inner = [], [], []
    for one in streams:
        low, high = (end[:, output] for end in one.inner)
        truth, factor = one.truth[:, output], one.factors[:, output]
        known = np.isfinite(truth)
        scores.append((np.maximum(low - truth, truth - high) / factor)[known])
        factors.append(factor[known])
        inner.append((high - low)[known])
    width = float(np.quantile(np.concatenate(scores), coverage, method="higher"))
    return float(np.maximum(np.concatenate(inner) + 2 * width * np.concatenate(factors), 0).mean())


ROWS = [
    recipe_row("solar", "solar"),
    recipe_row("solar, quantiles", "solar", (0.05, 0.5, 0.95)),
    recipe_row("beijing", "beijing"),
    recipe_row("ETTh1", "transformer"),
    recipe_row("ETTh1, quantiles", "transformer", (0.05, 0.5, 0.95)),
    series_row("swelling noise", swelling, 101),
    series_row("jumping noise", jumping, 101),
    recipe_row("living room", "livingroom", chosen_on=True),
]


def print_pooled() -> None:
    """Streams of very different level that were calibrated together: how soon the bands of each hold."""
    random = np.random.default_rng(7)
    spreads = {"small": 0.1, "middle": 1.0, "large": 10.0}
    steps = CALIBRATED + LIVED
    _, found = _lived({name: _autoregression(random, np.full(steps, by)) for name, by in spreads.items()})
    print("\nStreams of unlike noise, calibrated together, 1 step ahead")
    print("| stream | static coverage | coverage of the first 500 steps | of later ones", end=" ")
    print("| width over that of its own best static band: steps 100 to 200 | 400 to 600 | after 2,000 |")
    for one in found:
        static, inside = _inside(one, "static", 0)[:-1], _inside(one, "adaptive", 0)[:-1]
        widths = (one.adaptive[1] - one.adaptive[0])[:, 0] / best_static_width([one], 0, LEVEL)
        parts = [widths[100:200], widths[400:600], widths[2000:]]
        cells = [f"{flags.mean():.3f}" for flags in (static, inside[:WINDOW], inside[WINDOW:])]
        print(f"| {one.name} | {' | '.join([*cells, *(f'{part.mean():.2f}' for part in parts)])} |")


def _inside(one: Streamed, kind: str, output: int) -> Flags:
    """(steps,): whether the truth lies in the band of that kind."""
    low, high = (end[:, output] for end in getattr(one, kind))
    inside: Flags = (low <= one.truth[:, output]) & (one.truth[:, output] <= high)
    return inside


def print_cost() -> None:
    """The processor time of a reading, alone and among 256 streams, and the bytes of a row, without and with bands."""
    print(f"\nCost with one target and the horizons {HORIZONS}: a reading alone, one of 256 streams, a stored row")
    network, rounds = _network(), {1: 2000, 256: 40}
    intervals = Intervals(LEVEL, [1.0] * len(HORIZONS), [*SHARES] * len(HORIZONS))
    for name, found in (("without bands", None), ("with bands", intervals)):
        times = []
        for streams in (1, 256):
            predictor, clock = Predictor(_contract(network, found), ReferenceBackend(network)), 1.7e9
            best = math.inf
            for _ in range(7):
                begun = time.process_time()
                for _ in range(rounds[streams]):
                    clock += 900.0
                    predictor.feed_columns([Reading(f"s{number}", clock, {"x": 1.0}) for number in range(streams)])
                best = min(best, time.process_time() - begun)
            times.append(1e6 * best / rounds[streams] / streams)
        print(f"{name:14} {times[0]:7.1f} us {times[1]:7.2f} us {len(predictor.table.row('s0')):6} bytes")


def write_figures(folder: Path, solar: Sequence[Streamed], drifting: Sequence[Streamed]) -> None:
    """Two pictures for docs/bands.md."""
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context({"svg.hashsalt": "edge-lstm", "svg.fonttype": "none", "font.size": 9}):
        one, days = solar[0], slice(-4 * 96 - 24, -24)
        figure = Figure(figsize=(7.2, 2.6), layout="constrained")
        axes = figure.add_subplot()
        hours = (one.times[days] - one.times[days][0]) / 86_400
        low, high = (end[days, 1] / 1000 for end in one.adaptive)
        axes.fill_between(hours, low, high, linewidth=0, color="#0b7a5b", alpha=0.25, label="adaptive band")
        for end, label in zip(one.static, ("static band", None), strict=True):
            axes.plot(hours, end[days, 1] / 1000, color="#c2571a", linewidth=0.9, linestyle="--", label=label)
        axes.plot(hours, one.truth[days, 1] / 1000, color="#1d2530", linewidth=1.2, label="measured")
        axes.set(xlabel="days", ylabel="power 90 minutes ahead (kW)", ylim=(-1.2, 7.8))
        axes.legend(frameon=False, ncols=3, loc="upper right")
        _save(figure, folder / "bands_of_days.svg")
        one = drifting[0]
        figure = Figure(figsize=(7.2, 2.6), layout="constrained")
        axes = figure.add_subplot()
        for kind, color in (("static", "#c2571a"), ("adaptive", "#0b7a5b")):
            inside = _inside(one, kind, 0)[:-1].astype(float)
            running = np.convolve(inside, np.full(WINDOW, 1 / WINDOW), "valid")[::20]
            axes.plot(WINDOW + 20 * np.arange(len(running)), running, color=color, linewidth=1.3, label=f"{kind} band")
        axes.axhspan(LEVEL - WITHIN, LEVEL + WITHIN, color="#d9dee5", linewidth=0, zorder=0)
        axes.set(xlabel="steps", ylabel=f"coverage of {WINDOW} steps", ylim=(0.35, 1.02))
        axes.legend(frameon=False, ncols=2, loc="lower left")
        _save(figure, folder / "coverage_under_drift.svg")


def _save(figure: Any, path: Path) -> None:
    """As SVG, in tenths of a pixel."""
    content = io.StringIO()
    figure.savefig(content, format="svg", metadata={"Date": None, "Creator": None})
    path.write_text(re.sub(r"(\d+\.\d)\d+", r"\1", content.getvalue()))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", type=Path, default=os.environ.get("EDGE_LSTM_DATA"), help="folder of the recordings")
    parser.add_argument("--only", help=f"rows to measure, of {', '.join(row.name for row in ROWS)}; separated by ;")
    parser.add_argument("--folder", type=Path, default=FOLDER, help="where checkpoints are kept")
    parser.add_argument("--figures", type=Path, help="folder for the pictures of docs/bands.md")
    options = parser.parse_args()
    only = None if options.only is None else options.only.split(";")
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in PACKAGES)
    print(f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, {versions}")
    print(f"{MARKS}\n\n| series | steps ahead | static: coverage | windows | worst", end=" ")
    print("| adaptive: coverage | windows | worst | width | windows counted |")
    drawn: dict[str, list[Streamed]] = {}
    for row in ROWS:
        if only is not None and row.name not in only:
            continue
        contract, streams = row.make(options)
        drawn[row.name] = streams
        for output, horizon in enumerate(contract.horizons * len(contract.targets)):
            print(f"| {row.name} | {horizon} | {judged(streams, output)} |", flush=True)
    print_pooled()
    print_cost()
    if options.figures is not None:
        write_figures(options.figures, drawn["solar"], drawn["jumping noise"])


if __name__ == "__main__":
    main()
