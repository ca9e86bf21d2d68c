"""The contract of a trained model: the dataset's, with its states, sensors, intervals, health limits and alarm rule."""

from __future__ import annotations

import dataclasses

from edge_lstm.bundle.contract import Contract, StateTensor
from edge_lstm_train.data.dataset import Dataset
from edge_lstm_train.data.sensor_statistics import sensor_statistics
from edge_lstm_train.evaluation.alarms.alarm_rule import AlarmRule, calibrated_alarm
from edge_lstm_train.evaluation.intervals import calibrated_intervals
from edge_lstm_train.evaluation.model_health import fitted_health
from edge_lstm_train.model.carried_state import predict_streamed
from edge_lstm_train.model.fit import Fitted
from edge_lstm_train.model.forecaster import Forecaster
from edge_lstm_train.recipe.recipe import Recipe


def trained_contract(recipe: Recipe, dataset: Dataset, fitted: Fitted) -> tuple[Contract, AlarmRule | None]:
    """The contract, and how the alarm rule was found; None for other tasks than anomaly.

    Raises EdgeLstmError if the validation part is too short for the intervals.
    """
    contract = with_sensors(with_states(dataset.contract, fitted.model), dataset)
    level = getattr(recipe.task_section, "intervals", None)
    predicted = predict_streamed(fitted.judged, dataset, "validation")
    if level is not None:
        contract = dataclasses.replace(contract, intervals=calibrated_intervals(dataset, predicted, level))
    contract = dataclasses.replace(contract, health=fitted_health(dataset, contract, predicted))
    if recipe.anomaly is None:
        return contract, None
    return calibrated_alarm(recipe, dataset, contract, fitted.model)


def with_sensors(contract: Contract, dataset: Dataset) -> Contract:
    """The contract with what its sensors are like while they work."""
    found = zip(contract.features, sensor_statistics(dataset), strict=True)
    features = [dataclasses.replace(feature, sensor=one) for feature, one in found]
    return dataclasses.replace(contract, features=features)


def with_states(contract: Contract, model: Forecaster) -> Contract:
    """The contract with the states of that network, and their learned start."""
    sizes, starts = model.shape.state_sizes.items(), model.start_values()
    states = [StateTensor(name, [size], start) for (name, size), start in zip(sizes, starts, strict=True)]
    return dataclasses.replace(contract, states=states)
