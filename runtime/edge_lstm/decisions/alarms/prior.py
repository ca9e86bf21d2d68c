"""What a new stream is judged by: the residuals of other devices, which give way to its own as its steps come.

The prior of a stream's covariance is inverse-Wishart, the conjugate one of normal residuals: the mean of the posterior
is the average of the devices' covariance and the stream's own, weighted by steps (Gelman et al., Bayesian Data
Analysis, 3.6). So deviations and correlations shrink together, and the result is always a covariance. The logarithm of
the usual distance, which the threshold is a multiple of, has the same weights. The center has a normal prior around 0.
All have a closed form, so a fit costs no more than one without a prior.
"""

from __future__ import annotations

import numpy as np

from edge_lstm.bundle.alarm import Alarm, Residuals
from edge_lstm.foundation.arrays import Doubles, Flags, Integers

_GROWTH = 1.25  # of the own steps from one fit to the next
_LEAST = 1e-9  # of an eigenvalue, relative to the largest: a bundle's covariance may be singular


def prior_of(alarm: Alarm) -> Prior | None:
    """The prior that a bundle has; None without one, or with one of too few devices."""
    return None if alarm.prior is None else Prior(alarm, alarm.prior)


class Prior:
    """Judges streams that have fewer than `calibrate_steps` steps of their own."""

    def __init__(self, alarm: Alarm, residuals: Residuals) -> None:
        self._size, self._span = alarm.calibrate_steps, alarm.span_steps
        self._worth = alarm.prior_steps
        self._covariance = _definite(residuals.covariance("averaged"))
        self._usual = max(1.0, residuals.usual)
        noise = np.diag(self._covariance) * self._span * residuals.streams / residuals.steps
        self._shift = np.maximum(np.square(residuals.shift) - noise, 0.0)  # variance of the centers between devices
        counts = [1]
        while counts[-1] < self._size:
            counts.append(max(counts[-1] + 1, int(counts[-1] * _GROWTH)))
        self._counts = np.array(counts)  # of own steps, ascending: a stream is fitted at each
        fitted = self._counts[np.searchsorted(self._counts, np.arange(1, self._size), side="right") - 1]
        self._shares = np.full(self._size + 1, np.nan)  # by own steps
        self._shares[1:-1] = np.round(fitted / (fitted + self._worth), 3)

    def due(self, calibrated: Integers) -> Flags:
        """(n,): whether streams with so many steps of their own (n,) are fitted."""
        found: Flags = np.isin(calibrated, self._counts)
        return found

    def confidence(self, calibrated: Integers) -> Doubles:
        """(n,): the weight of the own steps at the last fit, for streams with so many (n,).

        NaN before the first fit, and after the calibration, when they alone count.
        """
        found: Doubles = self._shares[calibrated]
        return found

    def posterior(self, mean: Doubles, covariance: Doubles, steps: int) -> tuple[Doubles, Doubles]:
        """Center (targets,) and covariance (targets, targets) from those of `steps` own averages.

        The covariance is that of a further average: it includes how uncertain the center is.
        """
        independent = 1 + (steps - 1) / self._span  # averages within a span are alike
        share = self._shift / np.maximum(self._shift + np.diag(self._covariance) / independent, 1e-300)
        center = share * mean
        weight = steps / (steps + self._worth)
        own = covariance + np.outer(mean - center, mean - center)
        return center, weight * own + (1 - weight) * self._covariance + np.diag(self._shift * (1 - share))

    def usual(self, own: float, steps: int) -> float:
        """The usual distance, from that of `steps` own averages, both at least 1."""
        weight = steps / (steps + self._worth)
        return float(np.exp(weight * np.log(own) + (1 - weight) * np.log(self._usual)))


def _definite(covariance: Doubles) -> Doubles:
    """The covariance (targets, targets) with eigenvalues that a Cholesky factorization can use."""
    values, vectors = np.linalg.eigh(covariance)
    found: Doubles = (vectors * np.maximum(values, _LEAST * values[-1])) @ vectors.T
    return found
