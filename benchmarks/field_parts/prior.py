"""Prints how well a new device is judged in its first steps: F1 and false alarms on the valves recordings (SKAB).

    python benchmarks/field_parts/prior.py --data DIR [--seeds 3]

The recipe `valves` is trained as `edge-lstm train` does it. Then each recording is a new device: the bundle's residuals
are those of the other 19. The calibration stops at 50, 100 or 200 own steps after the settling, as in maintenance, and
the test part is judged. Beside it: the same number of own steps without the other devices, and the whole calibration. A
mark is reached by the median of the seeds.
"""

from __future__ import annotations

import argparse
import dataclasses
import math
import platform
import statistics
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np

from edge_lstm.bundle.alarm import Alarm, Residuals
from edge_lstm.bundle.contract import Contract
from edge_lstm.decisions.angles import PublishedOutputs
from edge_lstm.decisions.decider import calibration_shape, decider, record_fields, start_values
from edge_lstm.decisions.step import Step
from edge_lstm.foundation.arrays import Doubles, Flags, Floats, Integers
from edge_lstm_train.data.dataset import Dataset, read_dataset
from edge_lstm_train.data.split import PARTS
from edge_lstm_train.evaluation.alarms.alarm_rule import (
    averaged,
    normal_steps,
    residual_statistics,
    residuals_of,
    truth_of,
)
from edge_lstm_train.evaluation.alarms.detection import f1
from edge_lstm_train.evaluation.baselines import fit_baselines
from edge_lstm_train.evaluation.trained_contract import trained_contract
from edge_lstm_train.model.carried_state import predict_streamed
from edge_lstm_train.recipe.recipe import Recipe, read_recipe
from edge_lstm_train.run import choose

# own steps: F1 and share of false alarms to reach, and a harder mark
MARKS = {50: ((0.80, 0.05), (0.82, 0.04)), 100: ((0.82, 0.06), (0.84, 0.05)), 200: ((0.82, 0.04), (0.83, 0.03))}
_WITHOUT_END = 10**9

Figures = tuple[float, float]  # F1, share of the normal steps in alarm


@dataclass(frozen=True, eq=False)
class Trained:
    """A trained detector: its contract, and its forecasts for all steps of the recordings."""

    name: str  # of the chosen network
    recipe: Recipe
    dataset: Dataset
    alarm: Alarm
    outputs: Floats  # (steps, outputs)

    def prior_without(self) -> Iterator[tuple[Integers, Residuals | None]]:
        """The steps of each recording, and what the residuals of the others are like."""
        learned = self.dataset.with_validation_in_training()
        residuals = residuals_of(learned, self.outputs.astype(np.float64))
        smoothed, known = averaged(learned, residuals, self.alarm)
        normal = np.flatnonzero(normal_steps(self.recipe, learned, residuals, known, self.alarm))
        by_stream = learned.by_stream(normal)
        for name, own in learned.by_stream(np.arange(len(learned))).items():
            others = [steps for other, steps in by_stream.items() if other != name]
            yield own, residual_statistics(residuals, smoothed, others, self.alarm)


def trained(recipe: Recipe, dataset: Dataset) -> Trained:
    """The recipe's detector."""
    chosen = choose(recipe, dataset, fit_baselines(dataset, recipe.fit.refit, recipe.model.most_parameters)).chosen
    contract, _ = trained_contract(recipe, dataset, chosen.fitted)
    assert contract.alarm is not None  # of an anomaly task
    outputs = PublishedOutputs(contract)(predict_streamed(chosen.fitted.model, dataset))
    return Trained(chosen.name, recipe, dataset, contract.alarm, np.nan_to_num(outputs).astype(np.float32))


def judged(
    contract: Contract, dataset: Dataset, outputs: Floats, streams: Sequence[Integers], own_steps: int
) -> Iterator[tuple[Integers, Doubles, Flags]]:
    """Steps, scores and alarms, (n,) each, of streams whose calibration stops at so many steps."""
    decide = decider(contract)
    current = np.zeros(len(streams), [("time", "f8"), ("warm_steps", "i8"), *record_fields(contract)])
    for name, start in start_values(contract).items():
        current[name] = start
    calibration = np.zeros((len(streams), *calibration_shape(contract)), np.float32)
    for step in range(max(map(len, streams))):
        slots = np.array([slot for slot, own in enumerate(streams) if len(own) > step])
        at = np.array([streams[slot][step] for slot in slots.tolist()])
        current["warm_steps"][slots] = np.where(dataset.restart[at], 1, current["warm_steps"][slots] + 1)
        learns, values = current["calibrated"][slots] < own_steps, dataset.values[at].astype(np.float32)
        nothing = np.zeros(values.shape, np.bool_)
        found = decide(Step(current, calibration, slots, values, nothing, outputs[at], learns))
        assert found.scores is not None  # of a detector
        assert found.alarms is not None
        yield at, found.scores, found.alarms


def figures(model: Trained, own_steps: int, with_prior: bool) -> Figures:
    """F1 and false alarms over the test part of all recordings."""
    dataset, alarm = model.dataset, model.alarm
    scores, alarms = np.full(len(dataset), math.nan), np.zeros(len(dataset), np.bool_)
    devices = [([own], residuals) for own, residuals in model.prior_without()]
    if not with_prior:
        alarm = dataclasses.replace(alarm, calibrate_steps=min(own_steps, alarm.calibrate_steps))
        devices = [([own for (own,), _ in devices], None)]
    for streams, residuals in devices:
        contract = dataclasses.replace(dataset.contract, alarm=dataclasses.replace(alarm, residuals=residuals))
        for at, score, raised in judged(contract, dataset, model.outputs, streams, own_steps):
            scores[at], alarms[at] = score, raised
    truth = truth_of(model.recipe, dataset)
    assert truth is not None  # the recipe has labels
    evaluated = np.isfinite(scores) & (dataset.part_of == PARTS.index("test"))
    broken = truth[evaluated] > 0
    return f1(broken, alarms[evaluated]), float(alarms[evaluated][~broken].mean())


def reached(found: Figures, own_steps: int) -> str:
    """The result in one word; figures are rounded as printed."""
    passed, stretch = MARKS[own_steps]
    for word, (least, most) in (("stretch", stretch), ("pass", passed)):
        if round(found[0], 2) >= least and round(found[1], 2) <= most:
            return word
    return "missed"


def text(found: Figures) -> str:
    """Like .82 / .01."""
    return " / ".join(f"{number:.2f}".lstrip("0") for number in found)


def median(found: Sequence[Figures]) -> Figures:
    """Of each figure."""
    return statistics.median(one[0] for one in found), statistics.median(one[1] for one in found)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", type=Path, required=True, help="folder of the recordings (docs/accuracy.md)")
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    recipe = read_recipe("valves", options.data)
    dataset = read_dataset(recipe)
    models = []
    for seed in range(1, options.seeds + 1):
        seeded = dataclasses.replace(recipe, fit=dataclasses.replace(recipe.fit, seed=seed))
        models.append(trained(seeded, dataset))
        print(f"seed {seed}: {models[-1].name}, factor {models[-1].alarm.factor:g}", file=sys.stderr)
    print("| own steps | pass | stretch | with the others, median | seeds | reached | own steps alone |")
    print("|---|---|---|---|---|---|---|")
    for own_steps, (passed, stretch) in MARKS.items():
        found = [figures(model, own_steps, True) for model in models]
        alone = median([figures(model, own_steps, False) for model in models])
        cells = [str(own_steps), text(passed), text(stretch), text(median(found)), ", ".join(map(text, found))]
        print(f"| {' | '.join([*cells, reached(median(found), own_steps), text(alone)])} |", flush=True)
    whole = [figures(model, _WITHOUT_END, False) for model in models]
    size = models[0].alarm.calibrate_steps
    print(f"| {size}, the whole calibration | | | | {', '.join(map(text, whole))} | | {text(median(whole))} |")
    packages = ", ".join(f"{name} {version(name)}" for name in ("torch", "numpy"))
    print(f"\nF1 / share of false alarms. {platform.machine()}, Python {platform.python_version()}, {packages}.")


if __name__ == "__main__":
    main()
