"""Bands that each stream goes on calibrating by its own truth, whenever the truth of a prediction arrives.

Two numbers of a stream move, for each target and horizon:

- the share: which quantile of the bundle's scores is the width (adaptive conformal inference, Gibbs & Candes 2021).
  After each miss it grows by rate * level, after each hit it falls by rate * (1 - level). In the long run, as many
  predictions miss as shall. It ends at the largest score of the calibration, so no band is infinite.
- the scale: the average score of the stream over that of the calibration, within bounds. It leads the share back where
  errors are far larger or smaller than in the calibration.

A score says how far the truth lies from the prediction, or outside of its quantiles (bundle/intervals.py).
"""

from __future__ import annotations

import numpy as np

from edge_lstm.bundle.contract import Contract
from edge_lstm.bundle.intervals import NUMBERS_WAITING, SHARES
from edge_lstm.decisions.forecasts.bands import Bands
from edge_lstm.decisions.pending import Pending, Truth
from edge_lstm.decisions.step import Step
from edge_lstm.foundation.arrays import Doubles, Floats
from edge_lstm.foundation.numbers import FLOAT32_MAX

RATE = 0.005  # of the share, a step
_SOON = 6  # steps; the errors of later horizons overlap more and say less, so that the share moves slower
SCALE_RATE = 0.01  # of the scale, a step, one step ahead
_OF_QUANTILES = 0.25  # of that rate: quantiles follow much of what changes by themselves
_LEAST_SHARE = 0.5
_SCALES = (1e-3, 1e3)
_MOST_SCORE = 5.0  # of one step, in average scores: a single wild value must not make wide bands
_CELLS = 200  # of the table from share 0 to 1; every entry of SHARES is the edge of a cell
_TINY = float(np.finfo(np.float32).tiny)
_SHARE, _SCALE, _WAITING = "band_share", "band_scale", "band_waiting"


class AdaptiveBands:
    """The intervals of many streams, each calibrated further by its own truth.

    The record of a stream has `band_share` and `band_scale`, one for each target and horizon, and in `band_waiting`
    what the truth of its predictions is to be compared with: of errors the prediction, its width and the factor of the
    hour; of quantiles the outer ones and the width beyond them.
    """

    def __init__(self, contract: Contract) -> None:
        intervals = contract.intervals
        assert intervals is not None  # the caller checks it
        self._bands, self._truth = Bands(contract), Truth(contract)
        self._pending = _pending(contract)
        self._level, self._has_quantiles = intervals.level, bool(contract.quantiles)
        horizons = np.maximum([horizon for _ in contract.targets for horizon in contract.horizons], 1)
        self._rate = RATE * np.minimum(_SOON / horizons, 1)
        self._scale_rate = SCALE_RATE / np.sqrt(horizons) * (_OF_QUANTILES if self._has_quantiles else 1)
        scores = np.array(intervals.scores).reshape(-1, len(SHARES))
        # Errors are at least 0. Of quantiles, no score is the least; those around the median are the usual ones.
        self._origin = scores[:, SHARES.index(0.5)] * self._has_quantiles
        widest = FLOAT32_MAX / 4 / _SCALES[1] / max((1.0, *intervals.by_hour))  # so that no bound is infinite
        table = np.array(
            [
                np.minimum(_table(row - origin, self._level, width - origin, self._has_quantiles), widest)
                for row, width, origin in zip(scores, intervals.widths, self._origin, strict=True)
            ]
        )  # (outputs, cells + 1)
        # (outputs * (cells + 1), 2): the score at the beginning of each cell, and its change in the cell; none at 1
        self._cells = np.stack([table, np.diff(table, append=table[:, -1:])], axis=2).reshape(-1, 2)
        self._first_cell = np.arange(len(table)) * (_CELLS + 1)
        self._usual = np.maximum(np.abs(table).mean(axis=1), _TINY)

    def __call__(self, step: Step, outputs: Floats) -> Floats:
        """(n, targets * horizons, 2): the bounds for published outputs (n, outputs), their quantiles in order.

        NaN for a target whose sensor is dead.
        """
        share, scale = self._learned(step)
        low, high = self._bands.inner(outputs)
        factors = self._bands.factors(step.current["time"][step.slots])
        widths = self._bands.without_dead((self._origin + scale * self._scores(share)) * factors, step.dead)
        waiting = np.empty((*widths.shape, NUMBERS_WAITING), np.float32)
        waiting[:, :, 0] = low
        if self._has_quantiles:
            waiting[:, :, 1], waiting[:, :, 2] = high, widths
        else:
            waiting[:, :, 1], waiting[:, :, 2] = widths, np.maximum(factors, _TINY)
        waiting[~step.learns] = np.nan  # neither the truth of such a step counts, nor what was said at it
        self._pending.wait(step, waiting)
        return self._bands.widened(low, high, widths)

    def _learned(self, step: Step) -> tuple[Doubles, Doubles]:
        """Share and scale, (n, targets * horizons) each, moved where the truth of an earlier prediction has arrived."""
        current, slots = step.current, step.slots
        said = self._pending.arrived(step).astype(np.float64)
        truth = self._truth(step)
        if self._has_quantiles:
            score = np.maximum(said[:, :, 0] - truth, truth - said[:, :, 1])
            missed = score > said[:, :, 2]
        else:
            error = np.abs(self._truth.minus(truth, said[:, :, 0]))
            score = error / said[:, :, 2]
            missed = error > said[:, :, 1]
        known = np.isfinite(score) & step.learns[:, None]
        share, scale = current[_SHARE][slots], current[_SCALE][slots]
        share = np.where(known, share + self._rate * (missed - (1 - self._level)), share)
        share = np.minimum(np.maximum(share, _LEAST_SHARE), 1.0)
        relative = np.minimum(np.abs(score - self._origin) / self._usual, _MOST_SCORE * scale)
        scale = np.where(known, scale + self._scale_rate * (relative - scale), scale)
        scale = np.minimum(np.maximum(scale, _SCALES[0]), _SCALES[1])
        current[_SHARE][slots], current[_SCALE][slots] = share, scale
        return share, scale

    def _scores(self, share: Doubles) -> Doubles:
        """(n, targets * horizons): the scores at these shares, above the origin."""
        at = share * _CELLS
        cell = at.astype(np.intp)
        found = self._cells[self._first_cell + cell]
        scores: Doubles = found[:, :, 0] + (at - cell) * found[:, :, 1]
        return scores


def _table(scores: Doubles, level: float, width: float, has_quantiles: bool) -> Doubles:
    """(cells + 1,): the scores at shares from 0 to 1, between the bundle's (shares,) and `width` at its level."""
    known = {0.0: float(scores[0]) if has_quantiles else 0.0, **dict(zip(SHARES, scores.tolist(), strict=True))}
    known[level] = width
    shares = sorted(known)
    found: Doubles = np.interp(np.linspace(0, 1, _CELLS + 1), shares, [known[share] for share in shares])
    return found


def _pending(contract: Contract) -> Pending:
    return Pending(contract, _WAITING, NUMBERS_WAITING)


def record_fields(contract: Contract) -> list[tuple[str, str, tuple[int, ...]]]:
    """The fields (name, type, shape) of a stream's record for its bands; none where they cannot adapt."""
    if not contract.intervals_adapt:
        return []
    outputs = len(contract.targets) * len(contract.horizons)
    return [(_SHARE, "f8", (outputs,)), (_SCALE, "f8", (outputs,)), _pending(contract).field]


def start_values(contract: Contract) -> dict[str, float]:
    """Start values of these fields other than 0: the bundle's calibration, and nothing that waits."""
    if contract.intervals is None or not contract.intervals_adapt:
        return {}
    return {_SHARE: contract.intervals.level, _SCALE: 1.0, _WAITING: float("nan")}
