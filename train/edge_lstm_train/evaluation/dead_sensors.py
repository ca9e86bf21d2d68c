"""How good the predictions are while one sensor is dead, beside a ridge that was fitted without that sensor."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from edge_lstm.bundle.feature import derived_parts
from edge_lstm.decisions.angles import PublishedOutputs
from edge_lstm.foundation.arrays import Doubles
from edge_lstm_train.data.dataset import Dataset, dataset_of
from edge_lstm_train.data.feature_vectors import Samples, feature_vectors
from edge_lstm_train.data.sensor_dropout import mortal, without_sensor
from edge_lstm_train.evaluation.baselines import RIDGE, fit_baselines
from edge_lstm_train.evaluation.formatting import output_label, rounded, with_unit
from edge_lstm_train.evaluation.regression import errors_of
from edge_lstm_train.evaluation.report import Paragraph, Section, Table
from edge_lstm_train.model.carried_state import predict_streamed
from edge_lstm_train.model.forecaster import Forecaster
from edge_lstm_train.recipe.recipe import Recipe


@dataclass(frozen=True)
class DeadSensor:
    """RMSE of one output on the test part, in its unit, if a sensor is dead from the part's first step on."""

    sensor: str
    target: str
    horizon: int
    unit: str
    healthy: float  # the model, with the sensor alive
    dead: float  # the model, with the sensor dead
    without: float  # a ridge that never had the sensor

    @property
    def ratio(self) -> float:
        """Of the model with the dead sensor to the ridge without it."""
        return self.dead / self.without if self.without > 0 else math.inf


def dead_sensors(recipe: Recipe, dataset: Dataset, model: Forecaster) -> list[DeadSensor]:
    """One for each sensor that can be missing (a feature with a mask, no target) and each output of numbers."""
    contract = dataset.contract
    if contract.task not in ("forecast", "estimate"):
        return []
    outputs = [one for one in contract.outputs if one[0] in contract.targets]
    healthy = _rmse(dataset, predict_streamed(model, dataset))
    found = []
    for sensor, columns in mortal(contract).items() if len(contract.features) > 1 else ():
        names = [contract.features[column].name for column in columns]
        _, vectors = feature_vectors(contract, with_dead(dataset, columns))
        dead = _rmse(dataset, predict_streamed(model, dataclasses.replace(dataset, features=vectors)))
        fewer = dataset_of(without(recipe, names), dataset.recording, dataset.left_out)
        ridge = fit_baselines(fewer, recipe.fit.refit, recipe.model.most_parameters).predictions[RIDGE]
        never = _rmse(dataset, ridge, is_published=True)
        for place, (target, horizon) in enumerate(outputs):
            at = contract.outputs.index((target, horizon))
            unit = contract.target_units[target]
            figures = (float(healthy[at]), float(dead[at]), float(never[at]))
            found.append(DeadSensor(sensor, target, outputs[place][1], unit, *figures))
    return found


def with_dead(dataset: Dataset, columns: Sequence[int]) -> Samples:
    """The samples with these features missing from the first step of the test part on, in each stream."""
    return without_sensor(dataset, dataset.samples, columns, dataset.steps("test"))


def without(recipe: Recipe, names: Sequence[str]) -> Recipe:
    """The recipe without these features and what is derived from them."""
    features = {
        other: dataclasses.replace(
            section,
            derived=[text for text in section.derived if derived_parts(text)[1] not in names],
            mirrored_by=None if section.mirrored_by in names else section.mirrored_by,
        )
        for other, section in recipe.features.items()
        if other not in names
    }
    return dataclasses.replace(recipe, features=features)


def _rmse(dataset: Dataset, predicted: Doubles, *, is_published: bool = False) -> Doubles:
    """(outputs,): the RMSE on the test part, NaN where nothing is known."""
    contract, truth, test = dataset.contract, dataset.truth, dataset.steps("test")
    published = predicted if is_published else PublishedOutputs(contract)(predicted)
    found = np.full(len(contract.outputs), np.nan)
    for at, (name, _) in enumerate(contract.outputs):
        errors = errors_of(published[test, at], truth[test, at], contract.circles.get(name))
        known = np.isfinite(errors)
        found[at] = np.sqrt((errors[known] ** 2).mean()) if known.any() else np.nan
    return found


def section(found: Sequence[DeadSensor]) -> Iterator[Section]:
    """The report section; none without sensors that can be missing."""
    if not found:
        return
    rows = []
    for one in found:
        numbers = rounded([one.healthy, one.dead, one.without])
        output = with_unit(output_label(one.target, one.horizon), one.unit)
        rows.append([one.sensor, output, *numbers, f"{one.ratio:.2f}"])
    header = ["dead sensor", "RMSE of", "alive", "dead", "ridge without it", "dead / ridge"]
    note = Paragraph(
        "The sensor is dead from the first step of the test part on. The ridge was fitted without it. With a ratio "
        "near 1, the model can go on when the sensor fails; [augment] sensor_dropout trains for it.",
        "note",
    )
    yield Section("A sensor fails", [Table(header, rows), note])


def figures(found: Sequence[DeadSensor]) -> list[dict[str, Any]]:
    """As JSON values."""
    return [{**dataclasses.asdict(one), "ratio": one.ratio} for one in found if math.isfinite(one.ratio)]
