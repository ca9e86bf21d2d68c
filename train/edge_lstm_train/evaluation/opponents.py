"""Opponents: what well-kept libraries for workstations reach on the same recording, shown beside the model.

They are no baselines: no device runs them, they are no candidates, and no promise compares with them. They show what is
left to win. They learn from the training part; the validation part stops the trees.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from edge_lstm.decisions.angles import PublishedOutputs
from edge_lstm.foundation.arrays import Doubles, Integers
from edge_lstm.foundation.extras import require
from edge_lstm.foundation.progress import progress
from edge_lstm.streaming.reading import Prediction
from edge_lstm_train.data.dataset import Dataset, first_with_same_truth
from edge_lstm_train.evaluation import classification, regression
from edge_lstm_train.evaluation.baselines import Baselines
from edge_lstm_train.evaluation.formatting import rounded, with_unit
from edge_lstm_train.evaluation.predictions import aligned, predictions_by_step
from edge_lstm_train.evaluation.report import Paragraph, Section, Table
from edge_lstm_train.model.ridge import design_matrix

TREES, SMOOTHING = "gradient-boosted trees", "exponential smoothing"
_ROUNDS, _LEARNING_RATE = 300, 0.05
_MOST_LAG_COLUMNS = 300  # trees of more columns take minutes
_SHORT_LAGS = 12
_MOST_FITTED = 3_000  # newest training steps of the stream that exponential smoothing is fitted on


@dataclass(frozen=True, eq=False)
class Opponents:
    """The opponents' errors on the test part, beside the model's."""

    rows: list[tuple[str, dict[str, float]]]  # of each output: its label, and RMSE or accuracy by name
    measure: str

    def section(self) -> Section:
        """The report's section."""
        names = list(self.rows[0][1])
        cells = [[label, *_shown(self.measure, [found[name] for name in names])] for label, found in self.rows]
        note = "No device runs these, and they are no candidates for the model. They show what is left to win."
        return Section("Opponents", [Table([self.measure, *names], cells), Paragraph(note, "note")])

    def figures(self) -> dict[str, Any]:
        """The errors as JSON values."""
        return {"measure": self.measure, "outputs": [{"output": label, **found} for label, found in self.rows]}


def _shown(measure: str, values: Sequence[float]) -> list[str]:
    return [f"{100 * one:.1f} %" for one in values] if measure == "accuracy" else rounded(values)


def require_opponents() -> None:
    """Raise EdgeLstmError if a library of theirs is not installed."""
    require("opponents", "sklearn", "statsmodels")


def opponents(dataset: Dataset, baselines: Baselines | None, predictions: Sequence[Prediction]) -> Opponents:
    """Train the opponents and compare them on the test part; predictions: the model's, as a device publishes them."""
    require_opponents()
    if baselines is None:
        return _of_classes(dataset, predictions)
    predicted = {TREES: _trees(dataset, baselines)}
    if dataset.contract.task == "forecast" and not dataset.contract.circles:
        predicted[SMOOTHING] = _smoothing(dataset)
    published = PublishedOutputs(dataset.contract)
    tables = {"model": aligned(dataset, predictions), **{name: published(one) for name, one in predicted.items()}}
    contract, steps, rows = dataset.contract, dataset.steps("test"), []
    for output, (target, horizon) in enumerate(contract.outputs):
        if target not in contract.targets:
            continue  # a quantile
        truth = dataset.truth[steps, output]
        errors = {
            name: regression.errors_of(one[steps, output], truth, contract.circles.get(target))
            for name, one in tables.items()
        }
        known = np.isfinite(np.stack(list(errors.values()))).all(axis=0)
        rmse = {name: float(np.sqrt((one[known] ** 2).mean())) for name, one in errors.items()}
        label = with_unit(target, contract.target_units[target])
        rows.append((f"{label}, {horizon} steps ahead" if horizon else label, rmse))
    return Opponents(rows, "RMSE")


def _of_classes(dataset: Dataset, predictions: Sequence[Prediction]) -> Opponents:
    from sklearn.ensemble import HistGradientBoostingClassifier

    truth, predicted = classification.true_classes(dataset), np.full(len(dataset), classification.UNKNOWN)
    for step, prediction in predictions_by_step(dataset, predictions):
        if prediction.label is not None:
            predicted[step] = dataset.contract.targets.index(prediction.label)
    train, validation, test = (
        steps[truth[steps] != classification.UNKNOWN]
        for steps in (dataset.steps("train"), dataset.steps("validation"), dataset.steps("test"))
    )
    trees = HistGradientBoostingClassifier(
        max_iter=_ROUNDS, learning_rate=_LEARNING_RATE, early_stopping=False, random_state=0
    )
    trees.fit(dataset.features[train], truth[train])
    right = [(staged == truth[validation]).mean() for staged in trees.staged_predict(dataset.features[validation])]
    test = test[predicted[test] != classification.UNKNOWN]
    *_, found = _first(trees.staged_predict(dataset.features[test]), int(np.argmax(right)) + 1)
    accuracy = {
        "model": float((predicted[test] == truth[test]).mean()),
        TREES: float((found == truth[test]).mean()),
    }
    return Opponents([("steps", accuracy)], "accuracy")


def _trees(dataset: Dataset, baselines: Baselines) -> Doubles:
    """(steps, network outputs): trees on the ridge's lags and the other inputs, for the change from the naive value."""
    from sklearn.ensemble import HistGradientBoostingRegressor

    naive, predictions = dataset.naive_predictions, dataset.naive_predictions.copy()
    lags = max(choice.lags for choice in baselines.ridge.choices)
    if lags * len(dataset.contract.features) > _MOST_LAG_COLUMNS:
        lags = _SHORT_LAGS
    x = design_matrix(dataset, np.arange(len(dataset)), lags, False)[:, :-1].astype(np.float32)
    alike = first_with_same_truth(dataset.contract)
    with progress(len(set(alike)), TREES) as tick:
        for output in sorted(set(alike)):
            wanted = dataset.targets[:, output] - naive[:, output]
            train, validation = (_known(dataset.steps(part), wanted) for part in ("train", "validation"))
            trees = HistGradientBoostingRegressor(
                max_iter=_ROUNDS, learning_rate=_LEARNING_RATE, early_stopping=False, random_state=0
            )
            trees.fit(x[train], wanted[train])
            errors = [((one - wanted[validation]) ** 2).mean() for one in trees.staged_predict(x[validation])]
            *_, found = _first(trees.staged_predict(x), int(np.argmin(errors)) + 1)
            predictions[:, output] += found
            tick("")
    return predictions[:, alike]


def _known(steps: Integers, wanted: Doubles) -> Integers:
    known: Integers = steps[np.isfinite(wanted[steps])]
    return known


def _first(values: Any, count: int) -> list[Any]:
    return [one for one, _ in zip(values, range(count), strict=False)]


def _smoothing(dataset: Dataset) -> Doubles:
    """(steps, outputs): forecasts of damped additive exponential smoothing (Hyndman et al. 2008), stream by stream.

    Its constants are fitted on the training part of each stream. It steps over gaps as if there were none.
    """
    predictions = dataset.naive_predictions.copy()
    contract = dataset.contract
    columns = {name: index for index, name in enumerate(contract.inputs)}
    streams = np.unique(dataset.stream_of)
    with progress(len(streams) * len(contract.targets), SMOOTHING) as tick:
        for stream in streams.tolist():
            steps = np.flatnonzero(dataset.stream_of == stream)
            for target in contract.targets:
                values = dataset.features[steps, columns[target]].astype(np.float64)
                training = np.isin(steps, dataset.steps("train"))
                for horizon, forecasts in _smoothed(values, training, dataset.season, contract.horizons).items():
                    for output, (name, ahead) in enumerate(contract.outputs):
                        if ahead == horizon and name in contract.output_names_of(target):
                            predictions[steps, output] = forecasts
                tick("")
    return predictions


def _smoothed(values: Doubles, training: Any, season: int | None, horizons: Sequence[int]) -> dict[int, Doubles]:
    """(steps,) forecasts by horizon; none where a stream has too few training steps to fit it on."""
    from statsmodels.tsa.exponential_smoothing.ets import ETSModel

    fitted_on = values[training][-_MOST_FITTED:]
    seasonal = season is not None and len(fitted_on) >= 3 * season
    if len(fitted_on) < 20 or fitted_on.std() == 0:
        return {}
    options: dict[str, Any] = {
        "error": "add",
        "trend": "add",
        "damped_trend": True,
        "initialization_method": "heuristic",
    }
    if seasonal:
        options.update(seasonal="add", seasonal_periods=season)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a fit that has not converged is an opponent, if a weaker one
        params = ETSModel(fitted_on, **options).fit(disp=False).params
        states = ETSModel(values, **options).smooth(params)
    damping = states.damping_trend
    forecasts = {}
    for horizon in horizons:
        ahead = states.level + sum(damping**step for step in range(1, horizon + 1)) * states.slope
        if seasonal and season is not None:
            back = season * -(-horizon // season) - horizon  # steps before the newest one
            shifted = np.concatenate([np.zeros(back), states.season[: len(values) - back]])
            ahead = ahead + shifted
        forecasts[horizon] = ahead
    return forecasts
