"""For how many steps in a row a sensor has repeated a value, or hardly moved; training measures what is normal."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from edge_lstm.decisions.angles import difference
from edge_lstm.foundation.arrays import Doubles, Flags

SPAN = 12  # steps of the average whose variance says whether a sensor is still
_BAND = 4.0  # a value that is further from the mean than so many `still` begins a new average


class Stillness(NamedTuple):
    """The carried numbers of many sensors, arrays of one shape."""

    mean: Doubles
    square: Doubles  # variance about the mean
    values: Doubles  # values in the average, SPAN at most
    run: Doubles  # steps in a row that the sensor was still
    last: Doubles  # value
    equal: Doubles  # steps in a row with that value


def first_stillness(shape: tuple[int, ...]) -> Stillness:
    """Before the first value."""
    return Stillness(*(np.zeros(shape) for _ in Stillness._fields))


def after_values(former: Stillness, values: Doubles, still: Doubles, periods: Doubles, measured: Flags) -> Stillness:
    """The numbers after one more value of each sensor; those that were not measured keep theirs.

    still: the standard deviation up to which a sensor is still; periods: NaN where the values are on no circle. The
    exponential variance follows Finch (2009), "Incremental calculation of weighted mean and variance". A jump begins a
    new average, so that it is not carried along in the variance for long.
    """
    away = values - former.mean
    if not np.isnan(periods).all():
        away = np.where(np.isnan(periods), away, difference(values, former.mean, np.nan_to_num(periods, nan=1.0)))
    begins = (np.abs(away) > _BAND * still) | (former.values == 0)
    count = np.where(begins, 1.0, np.minimum(former.values + 1.0, SPAN))
    rate = 1.0 / count
    mean = np.where(begins, values, former.mean + rate * away)
    square = np.where(begins, 0.0, (1.0 - rate) * (former.square + rate * away**2))
    run = np.where(begins, 1.0, np.where(square <= still**2, former.run + 1.0, 0.0))
    equal = np.where((values == former.last) & (former.values > 0), former.equal + 1.0, 1.0)
    found = (mean, square, count, run, np.broadcast_to(values, mean.shape), equal)
    return Stillness(*(np.where(measured, new, old) for new, old in zip(found, former, strict=True)))
