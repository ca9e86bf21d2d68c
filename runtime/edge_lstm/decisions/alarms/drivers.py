"""Which sensors drove an anomaly score: the share of each in it, and the order in which they are named."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from edge_lstm.foundation.arrays import Doubles, Flags, Floats, Slots

NAMED_FROM = 0.5  # the least score whose sensors are named: below, they are those of noise


class Drivers(NamedTuple):
    """The sensors of n steps, the one that drove the score most first; shares are NaN where no sensors are named.

    The share of a sensor is how much of the squared distance would be gone without it. Sensors that are off together
    explain the same part, so the shares of a step need not add up to 1.
    """

    sensors: Slots  # (n, targets): indexes of targets
    share: Floats  # (n, targets), in that order as all of these
    measured: Floats  # (n, targets): in the target's unit, NaN where it is missing
    expected: Floats  # (n, targets): what the network said about this step


def drivers(named: Flags, away: Doubles, whitening: Doubles, measured: Floats, expected: Floats) -> Drivers:
    """The drivers of n steps, of which k are `named` (n,).

    away (k, targets): the averaged residuals minus their center; whitening (k, targets, targets): the inverse Cholesky
    factor of their covariance; measured and expected (n, targets): in the target's unit.

    With the precision P and r = `away`, leaving out sensor i takes (P r)_i^2 / P_ii of the squared distance r' P r
    (Alcala and Qin 2009, reconstruction-based contribution). The order is that of the terms r_i (P r)_i, which add up
    to the squared distance (the same, complete decomposition): it names the right sensor first a little more often.
    """
    sensors = np.broadcast_to(np.arange(measured.shape[1]), measured.shape)
    share = np.full(measured.shape, np.nan, np.float32)
    if away.size:
        columns = np.ascontiguousarray(np.swapaxes(whitening, 1, 2))  # sums over the last axis: same bits in any batch
        white = (whitening * away[:, None, :]).sum(axis=2)
        pulls = (columns * white[:, None, :]).sum(axis=2)  # P r
        squared = (white**2).sum(axis=1, keepdims=True)
        found = pulls**2 / (columns**2).sum(axis=2) / np.where(squared > 0, squared, 1.0)
        order = np.argsort(-away * pulls, axis=1, kind="stable")
        sensors = sensors.copy()
        sensors[named] = order
        share[named] = np.take_along_axis(found, order, axis=1)
        measured, expected = measured.copy(), expected.copy()
        for values in (measured, expected):
            values[named] = np.take_along_axis(values[named], order, axis=1)
    return Drivers(sensors, share, measured, expected)
