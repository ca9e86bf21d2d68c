"""Leaks: inputs that tell a target exactly, as no device could know it; refused by name."""

from __future__ import annotations

import numpy as np

from edge_lstm.bundle.contract import Contract
from edge_lstm.foundation.arrays import Doubles, Flags, Integers
from edge_lstm.foundation.errors import EdgeLstmError

_EXACT = 1 - 1e-6  # of a correlation: what is rounded to two decimals leaves more than that, two sensors do not
_FEWEST = 30  # steps; fewer may agree by chance
_FARTHEST = 100  # steps ahead: what was shifted by more is not looked for
_LOOKED_AT = 20_000  # steps of the recording for that


def refuse_leaks(
    source: str,
    contract: Contract,
    values: Doubles,
    missing: Flags,
    targets: Doubles,
    run: Integers,
) -> None:
    """Raise EdgeLstmError where a feature says what it should help to predict, now or at any of the next steps.

    It says so as a linear function of it, or class for class. values and missing (steps, features), targets (steps,
    outputs): NaN where unknown; run (steps,): the same number between two restarts. The target's own past is no leak,
    and neither is anything where that past already tells the target: a counter, a clock.
    """
    names = [feature.name for feature in contract.features]
    measured = np.where(missing, np.nan, values)
    if contract.task == "classify":
        _refuse_classes(source, contract, measured, targets)
        return
    for output, (target, horizon) in enumerate(contract.outputs):
        own = names.index(target) if target in names else None
        if own is not None and _tells(measured[:, own], targets[:, output]):
            continue
        for column, name in enumerate(names):
            if column != own and _tells(measured[:, column], targets[:, output]):
                raise _leak(source, name, target, horizon)
    for target in dict.fromkeys(contract.targets):
        if target in names and contract.horizons != [0]:
            _refuse_shifted(source, names, target, measured[:_LOOKED_AT], run[:_LOOKED_AT])


def _refuse_classes(source: str, contract: Contract, measured: Doubles, targets: Doubles) -> None:
    """Refuse a feature with a value for each class; not the label itself, where a later one is asked for."""
    assert contract.decision is not None  # the contract says so
    label, horizon = contract.decision.label, contract.horizons[0]
    known = np.isfinite(targets).all(axis=1)
    classes = np.where(known, np.argmax(np.nan_to_num(targets), axis=1), np.nan)
    columns = {feature.name: measured[:, column] for column, feature in enumerate(contract.features)}
    own = columns.pop(label, None) if horizon else None
    if own is not None and _names(own, classes):
        return
    for name, values in columns.items():
        if _names(values, classes):
            raise _leak(source, name, label, horizon)


def _refuse_shifted(source: str, names: list[str], target: str, measured: Doubles, run: Integers) -> None:
    """Refuse a feature that is the target of some steps later, whatever horizons are asked for."""
    own = measured[:, names.index(target)]
    for ahead in range(1, min(_FARTHEST, len(own) - 1) + 1):
        later = np.where(run[ahead:] == run[:-ahead], own[ahead:], np.nan)
        for column, name in enumerate(names):
            if name != target and _tells(measured[:-ahead, column], later) and not _tells(own[:-ahead], later):
                raise _leak(source, name, target, ahead)


def _leak(source: str, name: str, target: str, horizon: int) -> EdgeLstmError:
    when = f" {horizon} step{'s' if horizon > 1 else ''} ahead" if horizon else ""
    return EdgeLstmError(
        f'{source}: expected "{name}" to say no more than a device knows, found that it tells "{target}"{when} exactly',
        "remove the feature: it was computed from the target",
    )


def _tells(values: Doubles, target: Doubles) -> bool:
    """Whether one is a linear function of the other, where both are known."""
    known = np.isfinite(values) & np.isfinite(target)
    if np.count_nonzero(known) < _FEWEST:
        return False
    x, y = values[known] - values[known].mean(), target[known] - target[known].mean()
    size = float(np.sqrt((x @ x) * (y @ y)))
    return size > 0 and abs(float(x @ y)) > _EXACT * size


def _names(values: Doubles, classes: Doubles) -> bool:
    """Whether there is one value for each of several classes, where both are known."""
    known = np.isfinite(values) & np.isfinite(classes)
    if np.count_nonzero(known) < _FEWEST:
        return False
    different = np.unique(values[known])
    pairs = np.unique(np.stack([values[known], classes[known]]), axis=1)
    return bool(1 < len(different) == pairs.shape[1] == len(np.unique(pairs[1])))
