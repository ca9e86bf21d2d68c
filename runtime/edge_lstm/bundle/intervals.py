"""The calibration of prediction intervals, as training measured it: how far the truth lay from the predictions."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from edge_lstm.foundation.config import key
from edge_lstm.foundation.numbers import FLOAT32_MAX

HOURS = 24
MOST_WAITING = 4096  # numbers about predictions in a stream's row: all that waits is written at every commit
NUMBERS_WAITING = 3  # of each prediction with an interval
# At which shares of the calibration the bundle keeps the scores: a device may need another one than `level` later.
SHARES = (*(round(0.05 * share, 2) for share in range(1, 20)), 0.96, 0.97, 0.98, 0.99, 0.995, 1.0)


@dataclass(frozen=True)
class Intervals:
    """An interval about each prediction that holds the truth with a given probability.

    It comes from conformal prediction on steps that training did not learn from (Lei et al. 2018). A score says how far
    the truth lies outside: |truth - prediction|, or with quantiles max(lowest - truth, truth - highest) (Romano et al.
    2019). The lists are output-major: one block for each target and horizon, in the order of the prediction vector.
    """

    level: float = key(doc="probability that the truth lies in the interval", least=0.5, most=0.999)
    widths: list[float] = key(
        doc="score at that probability: added on both sides of the prediction, or of the outer quantiles",
        least=-FLOAT32_MAX,
        most=FLOAT32_MAX,
    )
    scores: list[float] = key(
        doc=f"score at each of {len(SHARES)} shares of the calibration", least=-FLOAT32_MAX, most=FLOAT32_MAX
    )
    by_hour: list[float] = key(
        [], doc="factor of widths and scores for each hour of the step's time (UTC); empty: none", least=0.0, most=1e6
    )

    def faults(self) -> Iterator[tuple[str, str]]:
        outputs = len(self.widths)
        if not outputs:
            yield "widths", "expected one number for each target and horizon, found none"
        elif len(self.scores) != outputs * len(SHARES):
            yield "scores", f"expected {outputs * len(SHARES)} numbers, found {len(self.scores)}"
        elif len(self.by_hour) not in (0, outputs * HOURS):
            yield "by_hour", f"expected {outputs * HOURS} numbers or none, found {len(self.by_hour)}"
