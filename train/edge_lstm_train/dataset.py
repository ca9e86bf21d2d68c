"""The dataset: a recording as the steps that a device would take, with what each should have predicted.

It refuses to invent steps: samples come from the runtime's own `Sampler` and feature vectors from its `features`, and a
target that is missing, past a gap or in another part of the split is unknown (NaN).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edge_lstm.contract import Contract, Feature, StateTensor
from edge_lstm.errors import EdgeLstmError
from edge_lstm.features import feature_vectors
from edge_lstm.recording import Recording, read_recording
from edge_lstm.sampling import Sampler
from edge_lstm.streams import StreamTable
from edge_lstm_train.leaks import refuse_leaks
from edge_lstm_train.recipe import Recipe
from edge_lstm_train.split import PARTS, Part, parts


@dataclass(frozen=True, eq=False)
class Dataset:
    """Every step of every stream, stream after stream, each in the order of time."""

    recording: Recording
    contract: Contract
    season: int | None  # steps
    dropped: dict[str, int]  # readings that were no step, and values held: duplicate, late, gaps, missing
    stream_of: NDArray[np.int64]  # (steps,): index into recording.streams
    times: NDArray[np.float64]  # (steps,): seconds since 1970
    values: NDArray[np.float64]  # (steps, features): missing ones held, as on a device
    restart: NDArray[np.bool_]  # (steps,): the state starts anew before this step
    features: NDArray[np.float32]  # (steps, inputs): what the network sees, raw units
    targets: NDArray[np.float64]  # (steps, outputs): NaN where unknown
    part_of: NDArray[np.int64]  # (steps,): index into PARTS; -1: of no part
    starts: dict[Part, float]  # the time of each part's first step, seconds since 1970

    def __len__(self) -> int:
        return len(self.times)

    def steps(self, part: Part) -> NDArray[np.int64]:
        """The indices of the part's steps, in order."""
        return np.flatnonzero(self.part_of == PARTS.index(part))

    def until(self, part: Part) -> NDArray[np.bool_]:
        """(steps,): whether a step is needed to come to the part's last step of its stream."""
        last = np.full(len(self.recording.streams), -1)
        chosen = self.steps(part)
        np.maximum.at(last, self.stream_of[chosen], chosen)
        needed: NDArray[np.bool_] = np.arange(len(self)) <= last[self.stream_of]
        return needed

    @property
    def run_start(self) -> NDArray[np.int64]:
        """(steps,): the index of the first step since the last restart."""
        begins = np.where(self.restart, np.arange(len(self)), 0)
        return np.maximum.accumulate(begins)

    @property
    def newest(self) -> NDArray[np.float64]:
        """(steps, outputs): the value that each output's target has at the step itself."""
        return self.values[:, target_columns(self.contract)]


@dataclass(frozen=True, eq=False)
class _Samples:
    """The samples of all streams, stream after stream."""

    stream_of: NDArray[np.int64]  # (steps,): index into the recording's streams, which are in the order of their slots
    times: NDArray[np.float64]  # (steps,)
    values: NDArray[np.float32]  # (steps, features): missing ones held
    missing: NDArray[np.bool_]  # (steps, features)
    restart: NDArray[np.bool_]  # (steps,): the state started anew


@dataclass(frozen=True, eq=False)
class Batch:
    """Stretches of steps side by side."""

    features: NDArray[np.float32]  # (segments, steps, inputs)
    targets: NDArray[np.float32]  # (segments, steps, outputs): NaN where nothing is asked
    restart: NDArray[np.bool_]  # (segments, steps): the state starts anew before this step


def target_columns(contract: Contract) -> list[int]:
    """For each output, the index of its target among the features."""
    names = [feature.name for feature in contract.features]
    return [names.index(target) for target, _ in contract.outputs]


def read_dataset(recipe: Recipe) -> Dataset:
    """The recipe's recording as a dataset. Raises EdgeLstmError where the file is faulty or too short for the split."""
    return dataset_of(recipe, read_recording(recipe.recording.path, recipe.columns))


def dataset_of(recipe: Recipe, recording: Recording) -> Dataset:
    """The recording as a dataset; statistics come from its training part alone."""
    # A value held from before anything was seen is the feature's mean, which is known only once the samples are split.
    unknown = _contract(recipe, [math.nan] * len(recipe.features), [1.0] * len(recipe.features))
    samples, dropped = _samples(unknown, recording)
    times, missing, stream_of = samples.times, samples.missing, samples.stream_of
    values = samples.values.astype(np.float64)
    restart = samples.restart | (np.diff(stream_of, prepend=-1) != 0)
    part_of = parts(recipe.split, recipe.recording, recording, stream_of, times)
    starts: dict[Part, float] = {part: times[part_of == index].min() for index, part in enumerate(PARTS)}
    mean, scale = _statistics(recording, values, missing, part_of == PARTS.index("train"))
    contract = _contract(recipe, mean.tolist(), scale.tolist())
    values = np.where(np.isnan(values), mean, values)
    features = feature_vectors(contract, times, values.astype(np.float32), missing)
    targets = _targets(contract, values, missing, np.cumsum(restart), part_of)
    refuse_leaks(recording.source, contract, values, missing, targets)
    _refuse_empty_parts(recording, contract, targets, part_of)
    season = recipe.forecast.season
    return Dataset(
        recording, contract, season, dropped, stream_of, times, values, restart, features, targets, part_of, starts
    )


def _contract(recipe: Recipe, mean: list[float], scale: list[float]) -> Contract:
    return Contract(
        name=recipe.name,
        task=recipe.task,
        features=[
            Feature(name, section.unit, mean[index], scale[index], section.mask)
            for index, (name, section) in enumerate(recipe.features.items())
        ],
        targets=recipe.forecast.targets,
        horizons=recipe.forecast.horizons,
        states=[StateTensor(name, [size]) for name, size in recipe.state_sizes.items()],
        clock=recipe.clock,
        sampling=recipe.sampling,
    )


def _samples(contract: Contract, recording: Recording) -> tuple[_Samples, dict[str, int]]:
    """The device's own samples, stream after stream, and what became of the other readings."""
    table = StreamTable(contract)
    sampler = Sampler(contract, table)
    duplicate = late = 0
    kept = []
    for one in sampler.rounds(recording.readings()):
        behind = sampler.behind(one)
        if behind.any():
            repeated = one.times[behind] == table.now["time"][one.slots[behind]]
            duplicate, late = duplicate + int(repeated.sum()), late + int((~repeated).sum())
            one = one.part(~behind)
        samples = sampler.complete(one)
        kept.append((one.slots, one.times, samples.values, samples.missing, samples.restart))
    columns = [np.concatenate(column) for column in zip(*kept, strict=True)]
    order = np.argsort(columns[0], kind="stable")  # each stream keeps its order of time
    counts = {"duplicate": duplicate, "late": late, "gaps": sampler.gaps, "missing": sampler.missing}
    return _Samples(*(column[order] for column in columns)), counts


def _statistics(
    recording: Recording, values: NDArray[np.float64], missing: NDArray[np.bool_], chosen: NDArray[np.bool_]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean and standard deviation of each feature where it was measured, refusing those that teach nothing."""
    mean, scale = np.zeros(values.shape[1]), np.ones(values.shape[1])
    constant = []
    for column, name in enumerate(recording.features):
        seen = values[chosen & ~missing[:, column], column]
        if not seen.size:
            raise EdgeLstmError(
                f'{recording.source}: expected values of "{name}" in the training part, found none',
                "remove the feature, or change [split] in the recipe",
            )
        mean[column] = seen.mean()
        spread = seen.std()
        scale[column] = spread
        if spread <= 1e-9 * max(1.0, abs(mean[column])):
            constant.append(f"{name} ({seen[0]:g})")
    if constant:
        raise EdgeLstmError(
            f"{recording.source}: expected features that change in the training part, found constant ones: "
            f"{', '.join(constant)}",
            "remove them: a network learns nothing from them, and nobody knows what it does when they change",
        )
    return mean, scale


def _targets(
    contract: Contract,
    values: NDArray[np.float64],
    missing: NDArray[np.bool_],
    run: NDArray[np.int64],
    part_of: NDArray[np.int64],
) -> NDArray[np.float64]:
    """(steps, outputs): the value `horizon` steps on, where it was measured in the same run and the same part."""
    count = len(values)
    targets = np.full((count, len(contract.outputs)), np.nan)
    for output, (column, (_, horizon)) in enumerate(zip(target_columns(contract), contract.outputs, strict=True)):
        here, there = np.arange(max(0, count - horizon)), np.arange(horizon, max(count, horizon))
        known = (run[here] == run[there]) & (part_of[here] == part_of[there]) & ~missing[there, column]
        targets[here[known], output] = values[there[known], column]
    return targets


def _refuse_empty_parts(
    recording: Recording, contract: Contract, targets: NDArray[np.float64], part_of: NDArray[np.int64]
) -> None:
    for index, part in enumerate(PARTS):
        known = np.isfinite(targets[part_of == index])
        for output, (target, horizon) in enumerate(contract.outputs):
            if not known[:, output].any():
                raise EdgeLstmError(
                    f'{recording.source}: expected "{target}" to be known at horizon {horizon} in the {part} part, '
                    f"found it unknown at each of its steps ({len(known)})",
                    "record more, lower the horizon, or change [split] or max_gap_s in the recipe",
                )


def carried_chunks(dataset: Dataset, segments: int, chunk: int, random: np.random.Generator) -> Iterator[Batch]:
    """Without end: chunks of the training part for truncated backpropagation through time.

    The training part is cut into `segments` stretches that go side by side, chunk after chunk of at most `chunk` steps,
    so that the state at a chunk's end is the state at the next one's start. Every epoch cuts at other places: a state
    must not learn where it began.
    """
    steps = dataset.steps("train")
    segments = min(segments, len(steps))
    length = len(steps) // segments
    while True:
        turned = np.roll(steps, -int(random.integers(len(steps))))[: segments * length].reshape(segments, length)
        restart = dataset.restart[turned]
        restart[:, 0] = True
        restart[:, 1:] |= np.diff(turned, axis=1) != 1
        for columns in np.array_split(np.arange(length), math.ceil(length / chunk)):
            chosen = turned[:, columns]  # (segments, steps)
            targets = dataset.targets[chosen].astype(np.float32)
            yield Batch(dataset.features[chosen], targets, restart[:, columns])


def window_ends(dataset: Dataset, window: int, part: Part = "train") -> NDArray[np.int64]:
    """The steps of the part that end a window of `window` steps without a restart inside, all in that part."""
    ends = dataset.steps(part)
    ends = ends[ends - dataset.run_start[ends] >= window - 1]
    inside: NDArray[np.bool_] = dataset.part_of[ends - window + 1] == PARTS.index(part)
    return ends[inside]


def windows(dataset: Dataset, window: int, batch: int, random: np.random.Generator) -> Iterator[Batch]:
    """Without end: shuffled windows of the training part (batch, window, ...), asked for at their last step alone."""
    ends = window_ends(dataset, window)
    if not ends.size:
        raise EdgeLstmError(
            f"{dataset.recording.source}: expected windows of {window} steps in the training part, found none so long",
            "shorten window under [fit] in the recipe, or record more",
        )
    reach = np.arange(1 - window, 1)
    while True:
        shuffled = random.permutation(ends)
        for first in range(0, len(shuffled), batch):
            chosen = shuffled[first : first + batch, None] + reach  # (batch, window)
            targets = np.full((*chosen.shape, dataset.targets.shape[1]), np.nan, np.float32)
            targets[:, -1] = dataset.targets[chosen[:, -1]]
            restart = np.zeros(chosen.shape, bool)
            restart[:, 0] = True
            yield Batch(dataset.features[chosen], targets, restart)
