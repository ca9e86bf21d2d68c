"""Leaks: the refusal of features that determine a target exactly, which no device could measure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from edge_lstm.bundle.contract import Contract
from edge_lstm.foundation.arrays import Doubles, Flags, Floats, Integers
from edge_lstm.foundation.errors import EdgeLstmError

_EXACT = 1 - 1e-6  # correlation: a copy rounded to two decimals exceeds it, a second sensor does not
_FEWEST = 30  # steps; fewer may agree by chance
_FARTHEST = 100  # steps ahead; larger shifts are not searched
_BLOCK = 1_000_000  # steps at a time, so that memory does not grow with the recording
_MOST_COMPARED = 20_000  # steps of the recording that are searched for shifts


def refuse_leaks(
    source: str,
    contract: Contract,
    values: Floats,
    missing: Flags,
    targets: Doubles,
    run: Integers,
) -> None:
    """Raise EdgeLstmError if a feature determines a target, at the same step or at one of the next steps.

    A number is determined by a linear function, a class by one value per class. The target's own past is no leak. If
    that past determines the target already, as with a counter or a clock, no feature is a leak.

    values, missing (steps, features); targets (steps, outputs): NaN where unknown; run (steps,): one number per run
    between two restarts.
    """
    names = [feature.name for feature in contract.features]
    measured = _Columns(values, missing)
    if contract.task == "classify":
        _refuse_classes(source, contract, measured, targets, run)
        return
    for output, (target, horizon) in enumerate(contract.outputs):
        own = names.index(target) if target in names else None
        if own is not None and _is_linear_in(measured.at(own), targets[:, output]):
            continue
        for column, name in enumerate(names):
            if column != own and _is_linear_in(measured.at(column), targets[:, output]):
                raise _leak_error(source, name, target, horizon)
    for target in dict.fromkeys(contract.targets):
        if target in names and contract.horizons != [0]:
            some = _Columns(values[:_MOST_COMPARED], missing[:_MOST_COMPARED])
            _refuse_shifted(source, names, target, some, run[:_MOST_COMPARED])


@dataclass(frozen=True, eq=False)
class _Columns:
    """Measured values, one column at a time: as float64, all of them would take much of the memory."""

    values: Floats  # (steps, features)
    missing: Flags  # (steps, features)

    def at(self, column: int) -> Doubles:
        """(steps,): NaN where the value is missing."""
        return np.where(self.missing[:, column], np.nan, self.values[:, column].astype(np.float64))


def _refuse_classes(source: str, contract: Contract, measured: _Columns, targets: Doubles, run: Integers) -> None:
    """Refuse a feature with one value per class; the label itself is allowed if a later label is predicted."""
    assert contract.decision is not None  # every contract of a classifier has one
    label, horizon = contract.decision.label, contract.horizons[0]
    known = np.isfinite(targets).all(axis=1)
    classes = np.where(known, np.argmax(np.nan_to_num(targets), axis=1), np.nan)
    columns = {feature.name: measured.at(column) for column, feature in enumerate(contract.features)}
    own = columns.pop(label, None) if horizon else None
    if own is not None and _maps_one_to_one(own, classes):
        return
    texts = {feature.name for feature in contract.features if feature.categories}
    for name, values in columns.items():
        if _maps_one_to_one(values, classes):
            raise _leak_error(source, name, label, horizon)
        if name in texts and _names_stretches(values, classes, run):
            raise EdgeLstmError(
                f'{source}: expected "{name}" to hold what a device can measure, found names of stretches of the '
                f'recording, each with one value of "{label}"',
                "remove the feature: a device meets new stretches; if each is a stream of its own, make it the "
                "stream_column",
            )


def _refuse_shifted(source: str, names: list[str], target: str, measured: _Columns, run: Integers) -> None:
    """Refuse a feature that is the target of some steps later, whatever the horizons are."""
    columns = [measured.at(column) for column in range(len(names))]
    own = columns[names.index(target)]
    for ahead in range(1, min(_FARTHEST, len(own) - 1) + 1):
        later = np.where(run[ahead:] == run[:-ahead], own[ahead:], np.nan)
        for column, name in enumerate(names):
            if name == target or not _is_linear_in(columns[column][:-ahead], later):
                continue
            if not _is_linear_in(own[:-ahead], later):
                raise _leak_error(source, name, target, ahead)


def _leak_error(source: str, name: str, target: str, horizon: int) -> EdgeLstmError:
    when = f" {horizon} step{'s' if horizon > 1 else ''} ahead" if horizon else ""
    return EdgeLstmError(
        f'{source}: expected "{name}" to hold what a device can measure, found that it determines "{target}"{when}',
        "remove the feature: it was computed from the target",
    )


def _is_linear_in(values: Doubles, target: Doubles) -> bool:
    """Whether one is an exact linear function of the other, where both are known."""
    sums = np.zeros(3)  # number of pairs, sums of both
    for x, y in _pairs(values, target):
        sums += (len(x), x.sum(), y.sum())
    if sums[0] < _FEWEST:
        return False
    mean_x, mean_y = sums[1:] / sums[0]
    squares = np.zeros(3)
    for x, y in _pairs(values, target):
        x, y = x - mean_x, y - mean_y
        squares += (x @ x, y @ y, x @ y)
    size = float(np.sqrt(squares[0] * squares[1]))
    return size > 0 and abs(float(squares[2])) > _EXACT * size


def _pairs(values: Doubles, target: Doubles) -> Iterator[tuple[Doubles, Doubles]]:
    """The values that both have, block by block."""
    for begin in range(0, len(values), _BLOCK):
        x, y = values[begin : begin + _BLOCK], target[begin : begin + _BLOCK]
        known = np.isfinite(x) & np.isfinite(y)
        yield x[known], y[known]


def _maps_one_to_one(values: Doubles, classes: Doubles) -> bool:
    """Whether each of several classes has one value of its own, where both are known."""
    known = np.isfinite(values) & np.isfinite(classes)
    if np.count_nonzero(known) < _FEWEST:
        return False
    different = np.unique(values[known])
    pairs = np.unique(np.stack([values[known], classes[known]]), axis=1)
    return bool(1 < len(different) == pairs.shape[1] == len(np.unique(pairs[1])))


def _names_stretches(values: Doubles, classes: Doubles, run: Integers) -> bool:
    """Whether each of several values per class occurs in one stretch of a run, all of one class."""
    known = np.isfinite(values) & np.isfinite(classes)
    if np.count_nonzero(known) < _FEWEST:
        return False
    values, classes, run = values[known], classes[known], run[known]
    different = np.unique(values)
    pairs = np.unique(np.stack([values, classes]), axis=1)
    stretches = 1 + np.count_nonzero((np.diff(values) != 0) | (np.diff(run) != 0))
    several = len(different) > len(np.unique(classes)) > 1
    return bool(several and stretches == len(different) == pairs.shape[1])
