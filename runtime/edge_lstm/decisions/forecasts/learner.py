"""Corrections of a forecast that the device learns from the errors of earlier predictions, as their truth arrives.

For each stream, target and horizon, the error of the bundle's prediction is explained by four regressors: the change
that was predicted, the value then, its last difference, and one. Recursive least squares with exponential forgetting
finds their weights. The correction is published only while its rolling error is below the bundle's own by a margin.
Both are computed at each step, also while the bundle's own prediction is published.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from edge_lstm.bundle.contract import Contract
from edge_lstm.decisions.forecasts.least_squares import STEPS, SUMS, products, weights
from edge_lstm.decisions.pending import Pending, Truth
from edge_lstm.decisions.rules import DecisionRules
from edge_lstm.decisions.step import Step
from edge_lstm.foundation.arrays import Doubles, Flags, Floats

MOST_CORRECTION = 3.0  # in the bundle's usual errors
FARTHEST = 30.0  # deviations from the mean: what is further is no measurement
_FARTHEST_UNKNOWN = 1e6  # where the contract of an adopted model has no mean and deviation

# mean squared errors of the bundle's predictions and of the corrected ones, and the mean square of their difference
_OWN, _CORRECTED, _SPREAD = SUMS, SUMS + 1, SUMS + 2
_NUMBERS = SUMS + 3
_PULL = 0.05  # of the weights to zero, in steps without an error for each step
_LEAST = 1e-3  # sum of squares, in squared deviations of the feature, below which a regressor has no weight
_MOST_ERROR = 4.0  # in the bundle's usual errors: a larger error counts as one of this size
_SURPRISE, _SURPRISED = 3.0, 0.8  # an error of so many usual ones, and what it leaves of all that was learned before
_JUDGED = 0.25  # of the memory, for the mean errors: a correction that begins to do harm ends soon
_CERTAIN = 1.0  # standard errors by which a correction must be better
_LEAST_STEPS = 10.0  # before the first correction
_QUIET = 1e-3  # deviations: where the value moved less, there is nothing to learn
_MOST_WAITING = 7  # predictions of an output, so that a row stays small

START_VALUES = {"learned_value": float("nan"), "learned_waiting": float("nan")}


class Standing(NamedTuple):
    """What the learner does at the moment."""

    corrected: int  # outputs that are published with a correction
    error_share: float | None  # of these, their usual error by that of the bundle, the median; None: there is none


class Learner:
    """Corrects the outputs of many streams at once.

    The record of a stream has `learned` (of each output the sums of the least squares, and mean squared errors),
    `learned_value` (the last value), and `learned_waiting` (predictions without their truth yet). All are in standard
    deviations of the feature.
    """

    def __init__(self, contract: Contract, rules: DecisionRules) -> None:
        names = [feature.name for feature in contract.features]
        horizons, quantiles = len(contract.horizons), len(contract.quantiles)
        learning = _learning(contract)
        features = [contract.features[names.index(contract.targets[target])] for target, _ in learning]
        self._columns = [names.index(feature.name) for feature in features]
        self._mean = np.array([feature.mean for feature in features])
        self._scale = np.array([feature.scale for feature in features])
        is_known = np.array([(feature.mean, feature.scale) != (0.0, 1.0) for feature in features])
        self._farthest = np.where(is_known, FARTHEST, _FARTHEST_UNKNOWN)
        self._places = _slice([target * horizons + place for target, place in learning])  # among targets * horizons
        firsts = [target * (1 + quantiles) * horizons + place for target, place in learning]
        # of the target, then of each of its quantiles
        self._outputs = [_slice([first + horizons * number for first in firsts]) for number in range(1 + quantiles)]
        self._all = len(contract.targets) * horizons
        self._truth, self._pending = Truth(contract), _pending(contract)
        self._keep, self._margin = 1 - 1 / rules.learn_memory_steps, rules.learn_margin
        self._judged_steps = _JUDGED * rules.learn_memory_steps
        self._certain = _CERTAIN * self._pending.at_once[self._places] ** 0.25  # errors of the same time are alike

    def __call__(self, step: Step) -> Floats:
        """The outputs (n, outputs), corrected where that has helped. Learns from the truth that the step brings."""
        rows = step.current["learned"][step.slots]
        learned = self._learned(step, np.moveaxis(rows, 1, 0).astype(np.float64, order="C"))
        step.current["learned"][step.slots] = np.moveaxis(learned, 0, 1)
        return self._corrected(step, learned)

    def standing(self, rows: Floats) -> Standing:
        """What is corrected in the streams whose records have these numbers in `learned`, (n, _NUMBERS, outputs)."""
        learned = np.moveaxis(rows, 1, 0).astype(np.float64)
        helps = self._helps(learned)
        shares = np.sqrt(learned[_CORRECTED][helps] / learned[_OWN][helps])
        return Standing(int(helps.sum()), round(float(np.median(shares)), 3) if shares.size else None)

    def _learned(self, step: Step, former: Doubles) -> Doubles:
        """The numbers (_NUMBERS, n, outputs) with the truth of this step, from those before it."""
        waited = np.moveaxis(self._pending.arrived(step)[:, self._places], 2, 0).astype(np.float64, order="C")
        truth = (self._truth(step)[:, self._places] - self._mean) / self._scale
        own, _, value, difference = waited
        known = (np.abs(truth) < self._farthest) & ~np.isnan(own) & step.learns[:, None]
        if not known.any():
            return former
        waited[:, ~known] = truth[~known] = 0.0
        moved = np.maximum(np.abs(difference), np.abs(truth - value)) > _QUIET
        usual = np.maximum(np.sqrt(former[_OWN]), _QUIET)
        most = np.where(former[STEPS] < _LEAST_STEPS, np.inf, _MOST_ERROR * usual)
        errors = truth - waited[:2]
        surprised = np.abs(errors[0]) > _SURPRISE * usual
        errors = np.clip(errors, -most, most)
        following = former * np.where(surprised, _SURPRISED * self._keep, self._keep)
        following[:SUMS] += products(_regressors(own, value, difference), errors[0])
        squares = errors**2
        worse = squares[1] - squares[0]
        means, rate = former[_OWN:], 1 / np.clip(following[STEPS], 1.0, self._judged_steps)
        following[_OWN:] = means + rate * (np.stack([*squares, worse**2]) - means)
        learned = np.where(known & moved, following, former)
        learned[_CORRECTED] += np.where(moved, 0.0, rate * np.maximum(worse, 0.0))  # nothing to learn, but harm counts
        return learned

    def _corrected(self, step: Step, learned: Doubles) -> Floats:
        """The outputs (n, outputs) by what is learned. What is said of each waits for its truth."""
        outputs = step.outputs
        own, value, difference, measured = self._measured(step)
        correction = (weights(learned[:SUMS], _PULL, _LEAST) * _regressors(own, value, difference)).sum(axis=0)
        most = MOST_CORRECTION * np.sqrt(learned[_OWN])
        correction = np.clip(correction, -most, most)
        waits = np.full((len(outputs), self._all, 4), np.nan, np.float32)
        waits[:, self._places] = np.stack([own, own + correction, value, difference], axis=2)
        waits[~step.learns] = np.nan
        self._pending.wait(step, waits)
        helps = self._helps(learned) & measured
        if not helps.any():
            return outputs
        corrected: Floats = outputs.copy()
        for chosen in self._outputs:
            corrected[:, chosen] = np.where(helps, outputs[:, chosen] + correction * self._scale, outputs[:, chosen])
        return corrected

    def _measured(self, step: Step) -> tuple[Doubles, Doubles, Doubles, Flags]:
        """The bundle's outputs, the values, and their differences, in deviations; whether the first two are possible.

        (n, outputs) each; NaN where they are not. Keeps the values for the next differences.
        """
        own = (step.outputs[:, self._outputs[0]] - self._mean) / self._scale
        value = (step.values[:, self._columns] - self._mean) / self._scale
        measured = np.maximum(np.abs(own), np.abs(value)) < self._farthest
        own[~measured] = value[~measured] = np.nan
        difference = value - step.current["learned_value"][step.slots]
        difference[np.isnan(difference) & measured] = 0.0
        step.current["learned_value"][step.slots] = value
        return own, value, difference, measured

    def _helps(self, learned: Doubles) -> Flags:
        """(n, outputs): whether the corrections are published."""
        own, corrected, spread = learned[_OWN:]
        gain, judged = own - corrected, np.clip(learned[STEPS], 1.0, self._judged_steps)
        helps: Flags = (gain > self._margin * own) & (gain > self._certain * np.sqrt(spread / judged))
        helps &= learned[STEPS] >= _LEAST_STEPS
        return helps


def learns(contract: Contract, rules: DecisionRules) -> bool:
    """Whether there is a learner for the contract."""
    return rules.learn and not why_not(contract)


def why_not(contract: Contract) -> str:
    """Why no output of the contract can be corrected, in words; empty: some can."""
    if contract.task == "classify":
        return "a classifier gets no truth"
    if contract.task == "anomaly":
        return "an anomaly detector would learn the anomalies"
    return "" if _learning(contract) else "none of its targets is measured later, on a line"


def record_fields(contract: Contract) -> list[tuple[str, str, tuple[int, ...]]]:
    """The fields (name, type, shape) of a stream's record for the learner."""
    outputs = len(_learning(contract))
    return [("learned", "f4", (_NUMBERS, outputs)), ("learned_value", "f4", (outputs,)), _pending(contract).field]


def _regressors(own: Doubles, value: Doubles, difference: Doubles) -> Doubles:
    """(4, n, outputs): the predicted change, the value, its last difference, and one, in deviations."""
    return np.stack([own - value, value, difference, np.ones_like(own)])


def _learning(contract: Contract) -> list[tuple[int, int]]:
    """The outputs that learn, as indexes of their target and horizon: those whose truth is measured later.

    A circle has no level and no slope to correct, so it is left alone.
    """
    lines = {feature.name for feature in contract.features if feature.period is None and not feature.categories}
    targets = [place for place, name in enumerate(contract.targets) if name in lines]
    return [(target, place) for target in targets for place, horizon in enumerate(contract.horizons) if horizon > 0]


def _slice(indexes: list[int]) -> slice | list[int]:
    """The indexes as a slice, which NumPy reads faster, where they follow one another."""
    begin, end = indexes[0], indexes[-1] + 1
    return slice(begin, end) if indexes == list(range(begin, end)) else indexes


def _pending(contract: Contract) -> Pending:
    return Pending(contract, "learned_waiting", 4, _MOST_WAITING)
