"""Logits to one label per step: the most probable class, of this step or (pooled) of all steps since the restart.

A label changes only after another class was the most probable one for `hold_steps` steps in a row.
"""

from __future__ import annotations

import numpy as np

from edge_lstm.bundle.contract import Contract
from edge_lstm.foundation.arrays import Doubles, Flags, Floats, Records, Slots

_NO_LABEL = -1
START_VALUES = {"label": float(_NO_LABEL), "rival": float(_NO_LABEL)}


class Classifier:
    """The labels of many streams at once. A stream carries its `label`, its `rival` (the candidate) and its votes."""

    def __init__(self, contract: Contract) -> None:
        assert contract.decision is not None  # checked by Contract.faults
        self._hold_steps = contract.decision.hold_steps
        self._pool = contract.decision.pool

    def step(self, current: Records, slots: Slots, logits: Floats) -> tuple[Floats, Slots, Flags]:
        """Probabilities (n, classes), the index of each label (n,), and whether it changed (n,).

        logits (n, classes): of this step, which `current["warm_steps"]` includes.
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


def index_bounds(contract: Contract) -> dict[str, tuple[int, int]]:
    """The least and the most of the fields that are indexes of classes."""
    last = len(contract.targets) - 1
    return {"label": (_NO_LABEL, last), "rival": (_NO_LABEL, last)}


def record_fields(contract: Contract) -> list[tuple[str, str, tuple[int, ...]]]:
    """The fields (name, type, shape) of a stream's record for the classifier."""
    votes = len(contract.targets) if contract.decision is not None and contract.decision.pool else 0
    return [("label", "i4", ()), ("rival", "i4", ()), ("rival_steps", "i4", ()), ("votes", "f8", (votes,))]
