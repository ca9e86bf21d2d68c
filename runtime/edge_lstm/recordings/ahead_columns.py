"""Values in a recording that were known ahead: columns of archived forecasts, or else the actual values of later rows.

A column `temp+6h` holds what was forecast at the time of its row for six hours later, `temp+6` for six steps later.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple
from zlib import crc32

import numpy as np

from edge_lstm.bundle.contract import Contract, Sampling
from edge_lstm.bundle.known_ahead import Between
from edge_lstm.decisions.angles import difference
from edge_lstm.foundation.arrays import Doubles, Integers
from edge_lstm.recordings.columns import ValueColumn
from edge_lstm.recordings.recording import Recording

_LEAD = re.compile(r"(?P<base>.*\S) ?\+ ?(?P<number>\d+(?:\.\d+)?) ?(?P<unit>|s|min|h|d)")
_UNITS_S = {"s": 1.0, "min": 60.0, "h": 3600.0, "d": 86_400.0}
_USUAL_NOISE = 0.5  # of the actual change until then: a forecast that is twice as good as none
_LONGEST_GAP = 1000  # steps of a random walk: a longer one is as good as this
_EARLY = 0.5  # share of a stream's rows from which that change is taken: those of the test part are the last ones


@dataclass(frozen=True)
class AheadColumn:
    """Where a recording has the values of one feature that is known ahead."""

    quantity: str
    step: int  # steps after the sample
    actual: ValueColumn  # the column of actual values
    between: Between = "linear"
    archived: str | None = None  # the column of archived forecasts; None: found by its name
    noise: float | None = None  # standard deviation of the error one step ahead; None: the usual one
    period: float | None = None  # of a quantity on a circle


class Lead(NamedTuple):
    """How far ahead of its row a column of forecasts is."""

    base: str  # the column of actual values
    number: float
    unit: str  # empty: steps

    def steps(self, interval_s: float) -> float:
        """The number of steps."""
        return self.number * _UNITS_S[self.unit] / interval_s if self.unit in _UNITS_S else self.number


def lead_of(column: str) -> Lead | None:
    """What a column like `temp+6h` is a forecast of; None: its name does not say that it is one."""
    found = _LEAD.fullmatch(column)
    return None if found is None else Lead(found["base"], float(found["number"]), found["unit"])


def forecasts_among(columns: Collection[str], interval_s: float) -> dict[str, dict[str, float]]:
    """The columns that hold forecasts of others: by column of actual values, the number of steps of each."""
    found: dict[str, dict[str, float]] = {}
    for column in columns:
        lead = lead_of(column)
        if lead is not None and lead.base in columns:
            found.setdefault(lead.base, {})[column] = lead.steps(interval_s)
    return found


def ahead_of(contract: Contract, names: Mapping[str, str]) -> dict[str, AheadColumn]:
    """Where a recording has the features of a contract that are known ahead.

    `names`: of the columns, by feature and quantity; a feature whose column has another name than itself is read there.
    """
    features = {feature.name: feature for feature in contract.features}
    found = {}
    for known in contract.known_ahead:
        for name, step in known.features.items():
            one, named = features[name], names[name] if names[name] != name else None
            actual = ValueColumn(names[known.name], categories=one.categories, unit=one.unit)
            found[name] = AheadColumn(known.name, step, actual, known.between, named, period=one.period)
    return found


def archived_column(header: Collection[str], wanted: AheadColumn, interval_s: float) -> str | None:
    """The column of archived forecasts that the header has for the feature."""
    if wanted.archived is not None:
        return wanted.archived
    for column in header:
        lead = lead_of(column)
        named = lead is not None and lead.base in (wanted.actual.column, wanted.quantity)
        if named and lead is not None and math.isclose(lead.steps(interval_s), wanted.step, abs_tol=1e-6):
            return column
    return None


def columns_to_read(
    header: Collection[str],
    values: Mapping[str, str | ValueColumn],
    ahead: Mapping[str, AheadColumn],
    interval_s: float,
) -> dict[str, str | ValueColumn]:
    """The columns of a recording for the features `values`, of which those in `ahead` are known ahead.

    A feature without archived forecasts has none here; its quantity has the column of actual values.
    """
    found: dict[str, str | ValueColumn] = {}
    for name, column in values.items():
        if name not in ahead:
            found[name] = column
        elif (archived := archived_column(header, ahead[name], interval_s)) is not None:
            found[name] = dataclasses.replace(ahead[name].actual, column=archived)
    for name, one in ahead.items():
        if name not in found:
            found.setdefault(one.quantity, one.actual)
    return found


def with_actual_values(
    recording: Recording, features: Sequence[str], ahead: Mapping[str, AheadColumn], sampling: Sampling, noisy: bool
) -> Recording:
    """The recording with these features; those that it lacks get the actual values of later rows.

    `noisy`: with an error as a forecast has it. It is the difference of a random walk between the time of the row and
    the later time: it grows with the square root of the steps ahead, and it is alike in forecasts that are made one
    after another, as in real ones. A note says which quantities got actual values.
    """
    lacking = [name for name in features if name not in recording.features]
    if not lacking and recording.features == list(features):
        return recording
    values = np.empty((len(recording), len(features)), order="F")
    for at, name in enumerate(features):
        if name in lacking:
            column = recording.values[:, recording.features.index(ahead[name].quantity)]
            values[:, at] = _later(recording, column, ahead[name], sampling)
        else:
            values[:, at] = recording.values[:, recording.features.index(name)]
    actual: dict[str, float] = {}
    for quantity in dict.fromkeys(ahead[name].quantity for name in lacking):
        own = [name for name in lacking if ahead[name].quantity == quantity]
        places = {features.index(name): ahead[name] for name in own}
        actual[quantity] = _noise(recording, values, places) if noisy else 0.0
        for at, one in places.items():
            values[:, at] = _with_error(recording, values[:, at], one, sampling, actual[quantity])
    categories = dict(recording.categories)
    categories.update(
        (name, categories[ahead[name].quantity]) for name in lacking if ahead[name].quantity in categories
    )
    notes = [*recording.notes, *(_note(quantity, noise, lacking, ahead) for quantity, noise in actual.items())]
    return dataclasses.replace(
        recording,
        features=list(features),
        values=values,
        categories={name: texts for name, texts in categories.items() if name in features or name in recording.labels},
        notes=notes,
        actual_ahead=actual,
    )


def _note(quantity: str, noise: float, lacking: Sequence[str], ahead: Mapping[str, AheadColumn]) -> str:
    names = ", ".join(name for name in lacking if ahead[name].quantity == quantity)
    error = "no error was added"
    if noise:
        error = f"an error was added: {noise:.3g} one step ahead, growing with the square root of the steps"
    return f"{names}: {actual_sentence(quantity)} ({error})"


def actual_sentence(quantity: str) -> str:
    """Why figures are optimistic, in words."""
    return (
        f'the recording has no archived forecasts of {quantity} (in columns like "{quantity}+6h"), so the actual '
        "values of later rows take their place, and every figure is optimistic"
    )


def _noise(recording: Recording, values: Doubles, places: Mapping[int, AheadColumn]) -> float:
    """The standard deviation of the error one step ahead, for the features of one quantity by their column in `values`.

    Without a key that says it, half of the change over a feature's steps, divided by the root of their number; of
    several features the largest. Of a random walk that is half of the change from step to step. A slow signal, which
    goes on as it began, has more.
    """
    first = next(iter(places.values()))
    if first.noise is not None:
        return first.noise
    if first.between == "previous":
        return 0.0
    present = recording.values[:, recording.features.index(first.quantity)]
    early = np.concatenate([rows[: int(_EARLY * len(rows))] for rows in _by_stream(recording)])
    changes = [0.0]
    for at, one in places.items():
        change = values[early, at] - present[early]
        if one.period is not None:
            change = difference(values[early, at], present[early], one.period)
        if one.step and np.isfinite(change).any():
            changes.append(math.sqrt(float(np.nanmean(change**2)) / one.step))
    return _USUAL_NOISE * max(changes)


def _by_stream(recording: Recording) -> list[Integers]:
    """The rows of each stream, in the order of time."""
    order = np.lexsort((recording.times, recording.stream_of))
    begins = np.searchsorted(recording.stream_of[order], np.arange(1, len(recording.streams)))
    return list(np.split(order, begins))


def _later(recording: Recording, column: Doubles, one: AheadColumn, sampling: Sampling) -> Doubles:
    """(rows,): the value of the column some steps after the sample of each row, NaN where it is unknown."""
    assert sampling.interval_s is not None  # where values are known ahead, a recipe and a contract have it
    found = np.full(len(column), np.nan)
    for rows in _by_stream(recording):
        known = rows[np.isfinite(column[rows])]
        known = known[np.diff(recording.times[known], prepend=-np.inf) > 0]
        if not len(known):
            continue
        later = _sample_times(recording.times[rows], sampling) + one.step * sampling.interval_s
        found[rows] = _between(recording.times[known], column[known], later, one, sampling.max_gap_s or np.inf)
    return found if one.period is None else np.mod(found, one.period)


def _with_error(recording: Recording, values: Doubles, one: AheadColumn, sampling: Sampling, noise: float) -> Doubles:
    """(rows,): the values with the error of a forecast; `noise`: its standard deviation one step ahead."""
    if not noise:
        return values
    assert sampling.interval_s is not None  # where values are known ahead, a recipe and a contract have it
    found = values.copy()
    for stream, rows in zip(recording.streams, _by_stream(recording), strict=True):
        if len(rows):
            random = np.random.default_rng(crc32(f"{one.quantity}\n{stream}".encode()))
            begun = _sample_times(recording.times[rows], sampling)
            found[rows] += noise * _walk(begun, one, sampling.interval_s, random)
    return found if one.period is None else np.mod(found, one.period)


def _sample_times(times: Doubles, sampling: Sampling) -> Doubles:
    """The times of the samples that readings of these times go into."""
    if not sampling.grid:
        return times
    assert sampling.interval_s is not None  # checked by Sampling.faults
    ends: Doubles = (np.floor(times / sampling.interval_s) + 1) * sampling.interval_s
    return ends


def _between(times: Doubles, values: Doubles, asked: Doubles, one: AheadColumn, max_gap_s: float) -> Doubles:
    """The values (n,) of a series at the times `asked`, NaN outside of it and within a gap."""
    after = np.searchsorted(times, asked, side="right")
    before = np.maximum(after - 1, 0)
    following = np.minimum(after, len(times) - 1)
    exact = times[before] == asked
    span = times[following] - times[before]
    inside = (asked >= times[0]) & (after < len(times)) & (span <= max_gap_s)
    if one.between == "previous":
        found = values[before]
    else:
        share = (asked - times[before]) / np.where(span > 0, span, 1.0)
        step = values[following] - values[before]
        if one.period is not None:
            step = difference(values[following], values[before], one.period)
        found = values[before] + share * step
    return np.where(exact, values[before], np.where(inside, found, np.nan))


def _walk(begun: Doubles, one: AheadColumn, interval_s: float, random: np.random.Generator) -> Doubles:
    """(n,): by how much a random walk of unit steps moves from each time to the one `step` steps later.

    One quantity has the same walk for all its features.
    """
    steps = np.round(np.diff(begun, prepend=begun[0]) / interval_s)
    here = np.cumsum(np.minimum(steps, _LONGEST_GAP).astype(np.int64))
    walk = np.cumsum(random.normal(size=int(here[-1]) + one.step + 1))
    moved: Doubles = walk[here + one.step] - walk[here]
    return moved
