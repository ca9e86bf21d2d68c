"""Logits to one label a step: the likeliest class, or the one that all steps since the start speak for.

A label changes only after another one has won for `hold_steps` steps in a row.
"""

from __future__ import annotations

import numpy as np

from edge_lstm.bundle.contract import Contract
from edge_lstm.foundation.arrays import Doubles, Flags, Floats, Records, Slots

_NO_LABEL = -1
START_VALUES = {"label": float(_NO_LABEL), "rival": float(_NO_LABEL)}


class Classifier:
    """The labels of many streams at once. Each carries its `label`, the `rival` that may follow it, and the votes."""

    def __init__(self, contract: Contract) -> None:
        assert contract.decision is not None  # a classifier's contract has one
        self._hold_steps = contract.decision.hold_steps
        self._pool = contract.decision.pool

    def step(self, current: Records, slots: Slots, logits: Floats) -> tuple[Floats, Slots, Flags]:
        """Probabilities (n, classes), the index of each stream's label (n,), and where that is another one (n,).

        logits (n, classes) are those of the step that `now["warm_steps"]` counts already.
        """
        steps = current["warm_steps"][slots]
        first = steps == 1
        probabilities = softmax(logits)
        if self._pool:
            votes = np.where(first[:, None], 0.0, current["votes"][slots]) + probabilities
            current["votes"][slots] = votes
            probabilities = votes / steps[:, None]
        label = np.where(first, _NO_LABEL, current["label"][slots])
        rival = np.where(first, _NO_LABEL, current["rival"][slots])
        best = probabilities.argmax(axis=1)
        rival_steps = np.where(best == rival, current["rival_steps"][slots] + 1, 1)
        taken = (label == _NO_LABEL) | (rival_steps >= self._hold_steps) | (best == label)
        turned = taken & (best != label)
        label = np.where(taken, best, label)
        current["label"][slots] = label
        current["rival"][slots] = np.where(taken, _NO_LABEL, best)
        current["rival_steps"][slots] = np.where(taken, 0, rival_steps)
        return probabilities.astype(np.float32), label.astype(np.int64), turned


def softmax(logits: Floats) -> Doubles:
    """Logits (n, classes) to probabilities."""
    shifted = logits.astype(np.float64)
    powers = np.exp(shifted - shifted.max(axis=1, keepdims=True))
    probabilities: Doubles = powers / powers.sum(axis=1, keepdims=True)
    return probabilities


def record_fields(contract: Contract) -> list[tuple[str, str, tuple[int, ...]]]:
    """The fields (name, type, shape) that a stream's present needs."""
    votes = len(contract.targets) if contract.decision is not None and contract.decision.pool else 0
    return [("label", "i4", ()), ("rival", "i4", ()), ("rival_steps", "i4", ()), ("votes", "f8", (votes,))]
