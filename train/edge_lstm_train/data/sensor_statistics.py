"""What the sensors of a recording are like while they work: the statistics by which a device finds a dead one."""

from __future__ import annotations

import numpy as np

from edge_lstm.bundle.contract import Feature
from edge_lstm.bundle.sensor import MOST_LEVELS, Sensor
from edge_lstm.decisions.sensors.stillness import after_values, first_stillness
from edge_lstm.foundation.arrays import Doubles, Flags, Integers
from edge_lstm_train.data.dataset import Dataset

_FEWEST_STEPS = 200  # of the training part
_MOST_STEPS = 50_000  # of a stream that are looked at, the first ones
_CANDIDATES = (0.0, *(2.0 ** (power / 4) / 1024 for power in range(37)))  # of `still`, in deviations; up to 0.5
_LEVELS_AT = 8  # the candidate at which constant stretches are looked for
_LONG = 20  # steps of a constant stretch
_USUAL_STEPS = 10  # that a sensor may be still anywhere
_MOSTLY_REPEATED = 1 / 3  # of the steps, from which on a sensor counts as one that repeats its values
_REPEATED_STEPS = 30
_REPEATED_USUAL = 20  # as _USUAL_STEPS, for these
_EDGE = 0.05  # share of the other values beyond which a level is beyond them
_REACH = 0.02  # of a level, in deviations


def sensor_statistics(dataset: Dataset) -> list[Sensor | None]:
    """Of each feature, by the training part; None for what is no number of a sensor, and with too few values."""
    steps = dataset.steps("train")
    if dataset.left_out is not None:
        steps = steps[~dataset.left_out[steps]]
    streams = [own[:_MOST_STEPS] for own in dataset.by_stream(steps).values()]
    told = {name for one in dataset.contract.known_ahead for name in one.features}
    features = enumerate(dataset.contract.features)
    return [None if one.name in told else _statistics(dataset, column, streams) for column, one in features]


def _statistics(dataset: Dataset, column: int, streams: list[Integers]) -> Sensor | None:
    feature, missing = dataset.contract.features[column], dataset.samples.missing[:, column]
    measured = [own[~missing[own]] for own in streams]
    if feature.categories or sum(map(len, measured)) < _FEWEST_STEPS:
        return None
    values = [dataset.samples.values[own, column].astype(np.float64) for own in measured]
    deviation = _usual_deviation(values, feature)
    candidates = deviation * np.array(_CANDIDATES)
    equal, still = _equal_runs(values), _still_runs(values, candidates, feature)
    reach = _REACH * deviation
    levels = _levels(still[_LEVELS_AT], reach)
    elsewhere = [_longest_elsewhere(found, levels, reach) for found in still]
    steps = _longest_elsewhere(equal, levels, reach)
    repeats = _repeats(np.concatenate(values), levels, reach)
    if repeats:  # what is normal at one value is so at its neighbours
        steps = max(steps, min(_REPEATED_STEPS, int(equal[0].max(initial=0))))
    chosen = max(
        at
        for at, longest in enumerate(elsewhere)
        if longest <= max(_USUAL_STEPS, elsewhere[0], min(steps, _REPEATED_USUAL))
    )
    return Sensor(
        still=float(f"{candidates[chosen]:.6g}"),
        still_steps=max(elsewhere[chosen], steps) if repeats else elsewhere[chosen],
        equal_steps=steps,
        least=min(float(own.min()) for own in values if len(own)),
        most=max(float(own.max()) for own in values if len(own)),
        gap_s=_longest_gap(dataset, missing, streams),
        levels=[float(np.float32(level)) for level in levels],
        level_still_steps=[_longest_at(still[chosen], level, reach) for level in levels],
        level_equal_steps=[_longest_at(equal, level, reach) for level in levels],
        reach=float(f"{reach:.6g}"),
    )


def _usual_deviation(values: list[Doubles], feature: Feature) -> float:
    """The median over the streams of their own standard deviation: levels of streams may lie far apart."""
    if feature.period is not None:
        return feature.scale
    own = [float(one.std()) for one in values if len(one) > 1]
    return float(np.median([one for one in own if one > 0] or [feature.scale]))


def _repeats(values: Doubles, levels: list[float], reach: float) -> bool:
    """Whether a sensor repeats most values, and not only at a level beyond all others, such as 0 at night."""
    if float((np.diff(values) == 0).mean()) <= _MOSTLY_REPEATED:
        return False
    if not levels:
        return True
    elsewhere = values[np.abs(values[:, None] - np.array(levels)).min(axis=1) > reach]
    low, high = np.quantile(elsewhere, [_EDGE, 1 - _EDGE]) if len(elsewhere) else (np.inf, -np.inf)
    return any(low < level < high for level in levels)


def _equal_runs(values: list[Doubles]) -> tuple[Doubles, Doubles]:
    """Lengths and values (runs,) of the stretches of equal values."""
    lengths, centers = [], []
    for own in values:
        begins = np.flatnonzero(np.diff(own, prepend=np.nan) != 0)
        lengths.append(np.diff(begins, append=len(own)).astype(np.float64))
        centers.append(own[begins])
    return np.concatenate(lengths), np.concatenate(centers)


def _still_runs(values: list[Doubles], candidates: Doubles, feature: Feature) -> list[tuple[Doubles, Doubles]]:
    """For each candidate: lengths and values (runs,) of the stretches in which a sensor was still."""
    counts = np.array([len(own) for own in values])
    order = np.argsort(-counts, kind="stable")
    counts, ordered = counts[order], [values[place] for place in order.tolist()]
    padded = np.zeros((len(ordered), int(counts[0])))
    for place, own in enumerate(ordered):
        padded[place, : len(own)] = own
    shape = (len(ordered), len(candidates))
    state, period = first_stillness(shape), np.array(np.nan if feature.period is None else feature.period)
    ended: list[list[tuple[Doubles, Doubles]]] = [[] for _ in candidates]
    for step in range(padded.shape[1] + 1):
        alive = (counts > step)[:, None]
        at = min(step, padded.shape[1] - 1)
        following = after_values(state, padded[:, at][:, None], candidates, period, np.broadcast_to(alive, shape))
        over = ((following.run <= 1) & alive | (counts == step)[:, None]) & (state.run > 1)
        if over.any():
            for candidate in np.flatnonzero(over.any(axis=0)).tolist():
                places = over[:, candidate]
                ended[candidate].append((state.run[places, candidate], state.mean[places, candidate]))
        state = following
    return [
        (np.concatenate([one[0] for one in found]), np.concatenate([one[1] for one in found]))
        if found
        else (np.zeros(0), np.zeros(0))
        for found in ended
    ]


def _levels(runs: tuple[Doubles, Doubles], reach: float) -> list[float]:
    """The values at which a sensor was still for long, the longest first, `MOST_LEVELS` at most."""
    lengths, centers = runs
    found: list[float] = []
    for place in np.argsort(-lengths, kind="stable").tolist():
        if lengths[place] < _LONG or len(found) == MOST_LEVELS:
            break
        if all(abs(centers[place] - level) > reach for level in found):
            found.append(float(centers[place]))
    return found


def _longest_elsewhere(runs: tuple[Doubles, Doubles], levels: list[float], reach: float) -> int:
    lengths, centers = runs
    at_level = np.zeros(len(lengths), np.bool_)
    for level in levels:
        at_level |= np.abs(centers - level) <= reach
    return int(lengths[~at_level].max(initial=0))


def _longest_at(runs: tuple[Doubles, Doubles], level: float, reach: float) -> int:
    lengths, centers = runs
    return int(lengths[np.abs(centers - level) <= reach].max(initial=0))


def _longest_gap(dataset: Dataset, missing: Flags, streams: list[Integers]) -> float:
    """Seconds without a value while the stream went on."""
    longest = 0.0
    for own in streams:
        times = np.where(missing[own] & ~dataset.restart[own], np.nan, dataset.times[own])
        last = np.maximum.accumulate(np.nan_to_num(times, nan=-np.inf))
        since = np.where(missing[own], dataset.times[own] - last, 0.0)
        longest = max(longest, float(since[np.isfinite(since)].max(initial=0.0)))
    return longest
