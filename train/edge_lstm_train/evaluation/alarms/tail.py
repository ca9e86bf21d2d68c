"""How often a score of normal operation exceeds a level that the data hardly reach: peaks over a threshold.

Peaks over a high threshold follow about a generalized Pareto distribution (Balkema & de Haan 1974, Pickands 1975). Its
shape is hard to know from few peaks, so it has a prior around 0, an exponential tail (as Coles & Dixon 1999 penalize
it). Scores above the threshold that lie close together are one event, which counts once, with its peak.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from edge_lstm.foundation.arrays import Doubles

ENOUGH_EVENTS = 10  # expected in the data: then the data themselves show the level, and no tail is fitted
_THRESHOLD = 0.9  # quantile of the scores over which peaks count
_PRIOR = 0.15  # standard deviation of the shape
_SHAPES = np.linspace(-0.5, 0.6, 45)
_SCALES = np.exp(np.linspace(-2.0, 2.0, 61))  # times the mean excess
_RESAMPLES = 100
_FEWEST_PEAKS = 5
_MOST_FITTED = 400  # peaks: more cost time, and lie where no tail is


@dataclass(frozen=True, eq=False)
class Tail:
    """The peaks of events in `steps` steps of normal operation, and the distribution fitted to them."""

    steps: int
    peaks: Doubles  # (events,): of all events, ascending
    threshold: float  # of the peaks that the distribution is fitted to
    shape: float
    scale: float

    def level(self, steps: float) -> float:
        """The score that one event in so many steps exceeds; the peaks themselves show it where there are enough."""
        events = self.steps / steps
        if events >= ENOUGH_EVENTS:
            return float(self.peaks[-1 - int(events)]) if events < len(self.peaks) else float(self.peaks[0])
        rate = max(len(self._fitted_peaks) / self.steps * steps, 1e-9)  # events over the threshold in that time
        if abs(self.shape) < 1e-9:
            return self.threshold + self.scale * float(np.log(rate))
        return self.threshold + self.scale / self.shape * float(rate**self.shape - 1)

    def events_in(self, steps: float, level: float) -> tuple[float, float, float]:
        """Events above the level that are expected in so many steps, and the ends of a 90 % interval.

        The interval is that of peaks drawn again from the peaks (the bootstrap, Efron 1979), and as many as a Poisson
        process has.
        """
        chance = np.random.default_rng(1)
        excesses = self._fitted_peaks - self.threshold
        beyond = int((self.peaks > level).sum())
        times = steps / self.steps
        if beyond >= ENOUGH_EVENTS:  # the data show it
            counts = chance.poisson(beyond, _RESAMPLES) * times
            return beyond * times, float(np.quantile(counts, 0.05)), float(np.quantile(counts, 0.95))
        away, rates = level - self.threshold, []
        for count in chance.poisson(len(excesses), _RESAMPLES).tolist():
            fitted = _fitted(chance.choice(excesses, count), 2) if count else (0.0, 1.0)
            rates.append(count * times * _beyond(away, *fitted))
        low, high = np.quantile(rates, [0.05, 0.95])
        return len(excesses) * times * _beyond(away, self.shape, self.scale), float(low), float(high)

    @property
    def _fitted_peaks(self) -> Doubles:
        return self.peaks[self.peaks > self.threshold]


def fit_tail(scores: Sequence[Doubles], gap: int) -> Tail | None:
    """The tail of scores (steps,) of several stretches; None for fewer than five events.

    gap: scores above the threshold that are at most so many steps apart are one event.
    """
    together = np.concatenate(scores) if scores else np.zeros(0)
    if not together.size:
        return None
    threshold = float(np.quantile(together, _THRESHOLD))
    peaks = np.sort([peak for one in scores for peak in _peaks(one, threshold, gap)])
    if len(peaks) < _FEWEST_PEAKS:
        return None
    if len(peaks) > _MOST_FITTED:
        threshold = float(peaks[-1 - _MOST_FITTED])
    return Tail(len(together), peaks, threshold, *_fitted(peaks[peaks > threshold] - threshold))


def _peaks(scores: Doubles, threshold: float, gap: int) -> list[float]:
    above = np.flatnonzero(scores > threshold)
    if not above.size:
        return []
    begins = np.flatnonzero(np.diff(above, prepend=above[0] - gap - 1) > gap)
    found: list[float] = np.maximum.reduceat(scores[above], begins).tolist()
    return found


def _fitted(excesses: Doubles, every: int = 1) -> tuple[float, float]:
    """Shape and scale with the largest penalized likelihood; excesses (events,) above 0; every: how coarse the grid."""
    shapes, scales = _SHAPES[::every], np.maximum(excesses.mean(), 1e-12) * _SCALES[::every]
    shape, scale = shapes[:, None, None], scales[None, :, None]
    inside = 1 + shape * excesses / scale  # (shapes, scales, events)
    allowed = (inside > 0).all(axis=2)
    with np.errstate(divide="ignore", invalid="ignore"):
        logs = np.log(np.where(inside > 0, inside, 1.0))
        flat = np.abs(shape[..., 0]) < 1e-9
        each = np.where(
            flat, (excesses / scale).sum(axis=2), (1 + 1 / np.where(flat, 1.0, shape[..., 0])) * logs.sum(2)
        )
    likelihood = -len(excesses) * np.log(scales)[None] - each - 0.5 * (shape[..., 0] / _PRIOR) ** 2
    best = np.unravel_index(np.argmax(np.where(allowed, likelihood, -np.inf)), likelihood.shape)
    return float(shapes[best[0]]), float(scales[best[1]])


def _beyond(excess: float, shape: float, scale: float) -> float:
    """The share of peaks that exceed the threshold by more than `excess`."""
    if excess <= 0:
        return 1.0
    if abs(shape) < 1e-9:
        return float(np.exp(-excess / scale))
    return float(max(0.0, 1 + shape * excess / scale) ** (-1 / shape))
