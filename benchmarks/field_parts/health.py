"""Prints what the verdicts on a model do on test parts: healthy ones, and ones where a sensor changes.

    python benchmarks/field_parts/health.py [--data DIR] [--only solar,weather] [--updates 600]

The limits come from training and validation parts alone, at .1 false alarms a month of each stream. Each recipe is
trained, and its test part is streamed through the runtime's predictor: as it is, and with a change from a third of it
on. EDGE_LSTM_DATA may name the folder of the recordings that are not bundled.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import platform
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import numpy as np

from edge_lstm.backends.reference import ReferenceBackend
from edge_lstm.bundle.contract import Contract
from edge_lstm.decisions.health import GOOD, POOR, VERDICTS, cause_names
from edge_lstm.recordings.replay import replayed_steps
from edge_lstm.streaming.predictor import Predictor
from edge_lstm.streaming.reading import Reading
from edge_lstm_train.data.dataset import Dataset, read_dataset
from edge_lstm_train.evaluation.baselines import fit_baselines
from edge_lstm_train.evaluation.trained_contract import trained_contract
from edge_lstm_train.model.forecaster import Forecaster
from edge_lstm_train.recipe.recipe import read_recipe
from edge_lstm_train.run import choose

RECIPES = "solar,weather,transformer"
BUNDLED = ("solar", "weather")  # with their recording
_DAY_S, _MONTH_S = 86_400.0, 30 * 86_400.0

Change = Callable[[float], float]  # of a value, in standard deviations from the mean


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=os.environ.get("EDGE_LSTM_DATA"), help="folder of the recordings")
    parser.add_argument("--only", default=RECIPES, help="recipes, with commas between")
    parser.add_argument("--updates", type=int, help="of each training (default: those of the recipe)")
    options = parser.parse_args()
    print(
        f"{platform.platform()}, Python {platform.python_version()}, numpy {version('numpy')}, torch {version('torch')}"
    )
    print(
        "verdicts of all streams with a test part: how many turned to watch, and to poor; cause and delay of the first"
    )
    for name in options.only.split(","):
        dataset, contract, model = _trained(name, options.data, options.updates)
        health = contract.health
        assert health is not None
        months = sum(np.ptp(dataset.times[own]) for own in dataset.by_stream(dataset.steps("test")).values()) / _MONTH_S
        print(f"\n{name}: {len(dataset.recording.streams)} streams, {months:.1f} stream-months of test part")
        changes: dict[str, Change | None] = {
            "as it is": None,
            "target's sensor: gain .7": lambda value: 0.7 * value,
            "target's sensor: offset 1": lambda value: value + 1.0,
            "target's sensor: offset 3": lambda value: value + 3.0,
            "target's sensor: noise 1": _noisy,
            "target's sensor: stuck at 0": lambda value: 0.0,
        }
        for title, change in changes.items():
            print(f"  {title:<28} {_judged(dataset, contract, model, change)}")


_noise = np.random.default_rng(0)


def _noisy(value: float) -> float:
    return value + _noise.normal()


def _trained(name: str, data: Path | None, updates: int | None) -> tuple[Dataset, Contract, Forecaster]:
    recipe = read_recipe(name, None if name in BUNDLED else data)
    if updates is not None:
        recipe = dataclasses.replace(recipe, fit=dataclasses.replace(recipe.fit, updates=updates))
    dataset = read_dataset(recipe)
    baselines = fit_baselines(dataset, recipe.fit.refit, recipe.model.most_parameters)
    fitted = choose(recipe, dataset, baselines).chosen.fitted
    return dataset, trained_contract(recipe, dataset, fitted)[0], fitted.model


def _judged(dataset: Dataset, contract: Contract, model: Forecaster, change: Change | None) -> str:
    predictor = Predictor(contract, ReferenceBackend(model.network()))
    test = {name: dataset.times[own] for name, own in dataset.by_stream(dataset.steps("test")).items()}
    begins = {name: times[len(times) // 3 if change else 0] for name, times in test.items()}
    target = next(one for one in contract.features if one.name == contract.targets[0])

    def altered(reading: Reading) -> Reading:
        value = reading.values.get(target.name)
        if change is None or value is None or reading.time < begins.get(reading.stream, np.inf):
            return reading
        found = target.mean + target.scale * change((value - target.mean) / target.scale)
        return reading._replace(values={**reading.values, target.name: found})

    turned = np.zeros(len(VERDICTS), int)
    first: dict[str, tuple[float, str]] = {}
    names = cause_names(contract)
    readings = map(altered, dataset.recording.readings_side_by_side())
    for _, steps in replayed_steps(predictor, readings):
        if steps is None or steps.decisions.health is None:
            continue
        verdicts = steps.decisions.health
        for place in np.flatnonzero(verdicts.turned).tolist():
            stream, time = steps.streams[place], float(steps.times[place])
            if stream not in begins or time < begins[stream] or time > test[stream][-1]:
                continue
            level = int(verdicts.levels[place])
            turned[level] += 1
            if level != GOOD:
                first.setdefault(stream, (time - begins[stream], names[verdicts.causes[place]]))
    found = f"{len(first)} of {len(begins)} streams, watch {turned[1]}, poor {turned[POOR]}"
    if first:
        delays = [delay / _DAY_S for delay, _ in first.values()]
        causes = sorted({cause for _, cause in first.values()})
        found += f"; first after {np.median(delays):.1f} days ({', '.join(causes)})"
    return found


if __name__ == "__main__":
    main()
