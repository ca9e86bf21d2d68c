"""What a step went without: the quantities whose value at a later time was not known, although the model takes it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from edge_lstm.bundle.contract import Contract
from edge_lstm.foundation.arrays import Flags


class Degraded:
    """Names what the steps of a contract went without."""

    def __init__(self, contract: Contract) -> None:
        places = {feature.name: column for column, feature in enumerate(contract.features)}
        self._columns = [(one.name, [places[name] for name in one.features]) for one in contract.known_ahead]

    def __bool__(self) -> bool:
        """Whether a step can go without anything that has a name here."""
        return bool(self._columns)

    def __call__(self, missing: Flags, named: Sequence[tuple[str, ...]] | None = None) -> list[tuple[str, ...]]:
        """Of each step the names, after those that are `named` already; missing (n, features)."""
        found: list[tuple[str, ...]] = [()] * len(missing) if named is None else list(named)
        for name, columns in self._columns:
            for step in np.flatnonzero(missing[:, columns].any(axis=1)).tolist():
                found[step] = (*found[step], name)
        return found
