"""Leaks: inputs that tell a target exactly, as no device could know it; refused by name."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edge_lstm.contract import Contract
from edge_lstm.errors import EdgeLstmError

_EXACT = 1 - 1e-9  # of a correlation: rounding to float32 leaves more than that, no measurement does
_FEWEST = 30  # steps; fewer may agree by chance


def refuse_leaks(
    source: str,
    contract: Contract,
    values: NDArray[np.float64],
    missing: NDArray[np.bool_],
    targets: NDArray[np.float64],
) -> None:
    """Raise EdgeLstmError where a feature is a linear function of what it should help to predict.

    values and missing (steps, features), targets (steps, outputs): NaN where unknown. The target's own past is no
    leak, and neither is anything where that past already tells the target: a counter, a clock.
    """
    names = [feature.name for feature in contract.features]
    for output, (target, horizon) in enumerate(contract.outputs):
        known = np.isfinite(targets[:, output])
        own = names.index(target) if target in names else None
        if own is not None and _tells(values[:, own], targets[:, output], known & ~missing[:, own]):
            continue
        for column, name in enumerate(names):
            if column != own and _tells(values[:, column], targets[:, output], known & ~missing[:, column]):
                when = f" {horizon} step{'s' if horizon > 1 else ''} ahead" if horizon else ""
                raise EdgeLstmError(
                    f'{source}: expected "{name}" to say no more than a device knows, found that it tells '
                    f'"{target}"{when} exactly',
                    "remove the feature: it was computed from the target",
                )


def _tells(values: NDArray[np.float64], target: NDArray[np.float64], known: NDArray[np.bool_]) -> bool:
    """Whether one is a linear function of the other."""
    if np.count_nonzero(known) < _FEWEST:
        return False
    x, y = values[known] - values[known].mean(), target[known] - target[known].mean()
    size = float(np.sqrt((x @ x) * (y @ y)))
    return size > 0 and abs(float(x @ y)) > _EXACT * size
