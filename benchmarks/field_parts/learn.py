"""Prints what the corrections that a device learns do to the forecasts of the development recordings.

    python benchmarks/field_parts/learn.py --data DIR [--folder DIR] [--only NAME,NAME]

A bundle is trained once for each series, with its recipe and fewer updates, and kept in --folder. Its readings go
through the service's predictor twice, without and with `[learn]`:

- as they are: the error over the whole run may be at most 1 % above the bundle's own;
- with an offset or a gain on the target's sensor, from a random step on: in the third and fourth season after it, at
  least 30 % of what the fault costs is won back, over all faults that cost a tenth of the error or more;
- and 1,000 streams of hostile values, none of which may diverge: an output that is not finite, or an error over the
  whole run that is larger than the bundle's own by a fifth.

A fault with a gain is compared with a bundle whose error has the same gain. The learner's constants were chosen on the
series that are marked, before it ran on the others.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import platform
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np

from edge_lstm.bundle.archive import Bundle
from edge_lstm.decisions.rules import DecisionRules
from edge_lstm.foundation.arrays import Doubles, Floats
from edge_lstm.recordings.recording import Recording
from edge_lstm.streaming.predictor import Predictor
from edge_lstm.streaming.reading import Reading
from edge_lstm_export.assemble import export_bundle
from edge_lstm_train.data.dataset import read_dataset
from edge_lstm_train.evaluation.baselines import fit_baselines
from edge_lstm_train.evaluation.trained_contract import trained_contract
from edge_lstm_train.model.checkpoint import Checkpoint
from edge_lstm_train.recipe.recipe import Recipe, read_recipe
from edge_lstm_train.run import choose, held_out_steps

FOLDER = Path("runs/field_learn")
PACKAGES = ("numpy", "torch", "onnxruntime", "ai-edge-litert")
BROUGHT = ("solar", "weather")  # recipes with their recording
UPDATES = 200
LEARN, OWN = DecisionRules(learn=True), DecisionRules()
LEAST_COST = 0.1  # of the healthy error: a fault that costs less has nothing to win back
HOSTILE_STREAMS, HOSTILE_STEPS = 1000, 600
STREAMS, STEPS, UNTIMED = 256, 60, 20  # of the measurement of the cost


@dataclass(frozen=True)
class Series:
    """A recording, and the stream that gets the faults."""

    name: str
    recipe: str
    season: int  # steps
    stream: str | None = None  # None: the only one
    chosen_on: bool = False  # whether the learner's constants were chosen on it
    feature: str | None = None  # instead of the recipe's only one


SERIES = (
    Series("solar", "solar", 96, chosen_on=True),
    Series("weather", "weather", 30, chosen_on=True),
    Series("transformer", "transformer", 24, chosen_on=True),
    Series("beijing", "beijing", 24, "Changping"),
    Series("livingroom", "livingroom", 144),
    Series("load", "transformer", 24, feature="HUFL"),
)


@dataclass(frozen=True)
class Fault:
    """What a sensor reports that went wrong: gain * value + offset * deviations."""

    offset: float = 0.0
    gain: float = 1.0


FAULTS = (*(Fault(offset) for offset in (-3.0, -2.0, -1.0, 1.0, 2.0, 3.0)), Fault(gain=0.7), Fault(gain=1.3))


@dataclass(frozen=True)
class Result:
    """One output of a series."""

    series: Series
    output: str
    worse: float  # share by which the corrected error is above the bundle's own, the worst of the healthy streams
    won: float | None  # share of the cost of all faults that is won back; None: they cost nothing
    won_later: float | None  # in the fifth to the twelfth season
    faults: int  # that cost something in the third and fourth


def bundle_of(series: Series, data: Path, folder: Path) -> tuple[Bundle, Recording]:
    """The series' bundle, trained if the folder has none, and its recording."""
    recipe = _recipe(series, data)
    dataset = read_dataset(recipe)
    path = folder / f"{series.name}.elstm"
    if not path.exists():
        baselines = fit_baselines(dataset, recipe.fit.refit, recipe.model.most_parameters)
        fitted = choose(recipe, dataset, baselines).chosen.fitted
        contract, _ = trained_contract(recipe, dataset, fitted)
        checkpoint = Checkpoint(fitted.model, contract, dataset.features[held_out_steps(dataset)], {})
        export_bundle(checkpoint, path, schemes=["float32"])
    return Bundle.open(path), dataset.recording


def _recipe(series: Series, data: Path) -> Recipe:
    recipe = read_recipe(series.recipe, None if series.recipe in BROUGHT else data)
    if series.feature is not None:
        (section,) = recipe.features.values()
        forecast = dataclasses.replace(recipe.forecast, targets=[series.feature])
        recipe = dataclasses.replace(recipe, features={series.feature: section}, forecast=forecast)
    model = dataclasses.replace(recipe.model, candidates=["network"])
    return dataclasses.replace(recipe, model=model, fit=dataclasses.replace(recipe.fit, updates=UPDATES))


def measured(series: Series, bundle: Bundle, recording: Recording) -> Iterator[Result]:
    """The results of a series, one for each target and horizon. Faults are on the sensor of the first target."""
    contract, rng = bundle.contract, np.random.default_rng(1)
    names = [feature.name for feature in contract.features]
    columns = [recording.features.index(name) for name in names]
    stream = 0 if series.stream is None else recording.streams.index(series.stream)
    chosen = recording.stream_of == stream
    times, values = recording.times[chosen], recording.values[chosen][:, columns]
    target = names.index(contract.targets[0])
    onsets = [int(rng.uniform(0.3, 0.85) * len(times)) for _ in FAULTS]
    streams = [values]
    for fault, onset in zip(FAULTS, onsets, strict=True):
        faulty = values.copy()
        faulty[onset:, target] *= fault.gain
        faulty[onset:, target] += fault.offset * contract.features[target].scale
        streams.append(faulty)
    others = [index for index in range(len(recording.streams)) if index != stream]
    streams += [recording.values[recording.stream_of == other][:, columns] for other in others]
    together = np.stack([each for each in streams if len(each) == len(times)], axis=1)  # (steps, streams, features)
    own, learned = (streamed(bundle, rules, times, together) for rules in (OWN, LEARN))
    for place, (name, horizon) in enumerate(contract.outputs):
        at = names.index(name)
        truth = np.full(together.shape[:2], np.nan)
        truth[:-horizon] = together[horizon:, :, at]
        errors = [each[:, :, place] - truth for each in (own, learned)]
        healthy = [0, *range(1 + len(FAULTS), together.shape[1])]
        worse = max(rms(errors[1][:, one]) / rms(errors[0][:, one]) - 1 for one in healthy)
        (won, faults), (later, _) = (
            won_back(errors, onsets, series.season, *seasons) if at == target else (None, 0)
            for seasons in ((2, 4), (4, 12))
        )
        yield Result(series, f"{name}+{horizon}", worse, won, later, faults)


def won_back(
    errors: Sequence[Doubles], onsets: Sequence[int], season: int, first: int, last: int
) -> tuple[float | None, int]:
    """The share of the cost of all faults that is won back from season `first` to `last` after each, and their number.

    errors: the bundle's own and the corrected ones, (steps, streams); stream 0 is healthy, and the faults follow.
    """
    cost = won = 0.0
    count = 0
    for place, (fault, onset) in enumerate(zip(FAULTS, onsets, strict=True)):
        at = slice(onset + first * season, onset + last * season)
        usual = fault.gain * rms(errors[0][at, 0])
        own, corrected = (rms(each[at, 1 + place]) for each in errors)
        if own > (1 + LEAST_COST) * usual:
            cost, won, count = cost + (own - usual) / usual, won + (own - corrected) / usual, count + 1
    return (won / cost, count) if count else (None, 0)


def rms(errors: Doubles) -> float:
    """The root mean square of the errors that are known."""
    return float(np.sqrt(np.nanmean(errors**2)))


def streamed(bundle: Bundle, rules: DecisionRules, times: Doubles, values: Doubles) -> Floats:
    """(steps, streams, outputs): what a device publishes; values (steps, streams, features)."""
    steps, count, _ = values.shape
    rows = np.tile(np.arange(count), steps), np.repeat(times, count), values.reshape(steps * count, -1)
    names = [feature.name for feature in bundle.contract.features]
    recording = Recording(bundle.source, names, [str(stream) for stream in range(count)], *rows)
    predictor = Predictor.from_bundle(bundle, scheme="float32", decision_rules=rules)
    found = np.full((steps * count, len(bundle.contract.outputs)), np.nan, np.float32)
    readings, begin = recording.readings(), 0
    while batch := list(itertools.islice(readings, 200 * count)):
        made = predictor.feed_columns(batch)
        if made is not None:
            found[begin + np.array(made.order)] = made.values
        begin += len(batch)
    return found.reshape(steps, count, -1)


def hostile(kind: int, rng: np.random.Generator) -> Doubles:
    """(HOSTILE_STEPS,): values that no sensor should give, in standard deviations."""
    steps = HOSTILE_STEPS
    number, noise = np.arange(steps), rng.normal(0, 1, steps)
    spikes = rng.random(steps) < 0.02
    made = (
        lambda: np.where(number < steps // 2, noise, 1e6 + noise),
        lambda: np.where(number < steps // 2, noise, rng.uniform(-20, 20)),
        lambda: np.where(number % 2, 5.0, -5.0) * rng.choice([1.0, 5.0]),
        lambda: np.where(rng.random(steps) < 0.3, np.nan, noise),
        lambda: np.where(number // 50 % 2, np.nan, noise),
        lambda: np.where(spikes, 1e6 * noise, noise),
        lambda: np.where(spikes, 25 * np.sign(noise), noise),
        lambda: noise * 10.0 ** float(rng.integers(-30, 31)),
        lambda: number * 10.0 ** float(rng.integers(-4, 3)),
        lambda: np.cumsum(noise),
        lambda: noise * np.exp(0.02 * number),
        lambda: noise,
    )
    found: Doubles = made[kind % len(made)]()
    return found


def divergences(bundle: Bundle) -> tuple[int, float]:
    """How many hostile streams made the error larger by a fifth, or an output infinite; the largest ratio of errors."""
    (feature,) = bundle.contract.features
    rng = np.random.default_rng(2)
    values = np.stack([hostile(kind, rng) for kind in range(HOSTILE_STREAMS)], axis=1)
    values = np.clip(feature.mean + feature.scale * values, -1e30, 1e30)[:, :, None]
    times = 1.7e9 + (bundle.contract.sampling.interval_s or 1.0) * np.arange(HOSTILE_STEPS)
    own, learned = (streamed(bundle, rules, times, values).astype(np.float64) for rules in (OWN, LEARN))
    diverged = (np.isfinite(own) & ~np.isfinite(learned)).any(axis=(0, 2))
    largest = 0.0
    for place, horizon in enumerate(bundle.contract.horizons):
        truth = np.full(values.shape[:2], np.nan)
        truth[:-horizon] = values[horizon:, :, 0]
        truth[np.abs(truth - feature.mean) > 30 * feature.scale] = np.nan  # of these, nothing is learned
        for stream in np.flatnonzero(np.isfinite(truth + own[:, :, place]).any(axis=0)).tolist():
            before, after = (rms(each[:, stream, place] - truth[:, stream]) for each in (own, learned))
            largest = max(largest, after / max(before, 1e-30))
            diverged[stream] |= not after <= 1.2 * before
    return int(diverged.sum()), largest


def cost(bundle: Bundle, rules: DecisionRules) -> float:
    """Microseconds of CPU for each reading where many streams step at once; the best of three runs."""
    (feature,) = bundle.contract.features
    values = np.random.default_rng(3).normal(feature.mean, feature.scale, (STEPS, STREAMS))
    batches = [
        [Reading(str(stream), 1.7e9 + 60.0 * step, {feature.name: value}) for stream, value in enumerate(row)]
        for step, row in enumerate(values.tolist())
    ]
    found = []
    for _ in range(3):
        predictor = Predictor.from_bundle(bundle, scheme="float32", decision_rules=rules)
        for number, batch in enumerate(batches):
            if number == UNTIMED:
                begun = time.process_time()
            predictor.feed_columns(batch)
        found.append((time.process_time() - begun) / ((STEPS - UNTIMED) * STREAMS))
    return 1e6 * min(found)


def table(results: Sequence[Result]) -> str:
    """The results as a Markdown table."""
    heads = ("series", "constants chosen on it", "output", "worse (mark: 1 %)", "won back (mark: 30 %)")
    lines = [f"| {' | '.join([*heads, 'in seasons 5 to 12', 'faults that cost'])} |", "|---" * 7 + "|"]
    for one in results:
        won, later = ("no cost" if share is None else f"{share:.0%}" for share in (one.won, one.won_later))
        cells = [one.series.name, "yes" if one.series.chosen_on else "no", one.output, f"{one.worse:+.2%}", won, later]
        lines.append(f"| {' | '.join([*cells, str(one.faults)])} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", type=Path, required=True, help="folder of the recordings (docs/accuracy.md)")
    parser.add_argument("--folder", type=Path, default=FOLDER, help="where bundles are kept")
    parser.add_argument("--only", help=f"series to measure, of {', '.join(one.name for one in SERIES)}")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    only = options.only.split(",") if options.only else [one.name for one in SERIES]
    packages = ", ".join(f"{package} {version(package)}" for package in PACKAGES)
    print(f"{platform.machine()}, Python {platform.python_version()}, {packages}\n", flush=True)
    results: list[Result] = []
    for series in SERIES:
        if series.name in only:
            results += measured(series, *bundle_of(series, options.data, options.folder))
            print(f"{series.name} measured", file=sys.stderr, flush=True)
    print(table(results), flush=True)
    bundle, _ = bundle_of(SERIES[0], options.data, options.folder)
    count, largest = divergences(bundle)
    print(f"\n{count} divergences in {HOSTILE_STREAMS:,} hostile streams (mark: 0), largest error x {largest:.3f}")
    without, learning = cost(bundle, OWN), cost(bundle, LEARN)
    print(f"CPU for each reading, {STREAMS} streams, 3 outputs: {without:.2f} us, with [learn] {learning:.2f} us")


if __name__ == "__main__":
    main()
