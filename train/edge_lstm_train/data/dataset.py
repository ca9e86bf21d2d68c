"""The dataset: a recording as the steps that a device would take, each with its targets.

Samples come from the runtime's own `Sampler`, and feature vectors from its `Features`. A target is unknown (NaN) if it
is missing, past a gap or in another part of the split. An estimated target is also unknown at a step without any value.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from edge_lstm.bundle.contract import Contract
from edge_lstm.decisions.angles import PublishedOutputs, difference, position, sine_and_cosine
from edge_lstm.foundation.arrays import Doubles, Flags, Floats, Integers, narrow
from edge_lstm.foundation.errors import EdgeLstmError
from edge_lstm.foundation.progress import work
from edge_lstm.recordings.recording import Recording
from edge_lstm.recordings.same_times import with_same_times
from edge_lstm.streaming.features import Features, cosine_columns
from edge_lstm_train.data.ahead_values import read_inputs
from edge_lstm_train.data.feature_vectors import Samples, feature_vectors
from edge_lstm_train.data.leaks import refuse_leaks
from edge_lstm_train.data.outliers import refuse_impossible
from edge_lstm_train.data.samples import StreamSamples, samples_of
from edge_lstm_train.data.split import PARTS, Part, parts
from edge_lstm_train.recipe.recipe import Recipe


@dataclass(frozen=True, eq=False)
class Dataset:
    """Every step of every stream: stream after stream, each in the order of time."""

    recording: Recording
    contract: Contract
    season: int | None  # steps
    dropped: dict[str, int]  # by reason: readings without a step, values held, values left out
    stream_of: Integers  # (steps,): index into recording.streams
    times: Doubles  # (steps,): seconds since 1970
    values: Floats  # (steps, features): missing ones held, as on a device
    restart: Flags  # (steps,): the state is reset before this step
    features: Floats  # (steps, inputs): the network's inputs in raw units
    targets: Doubles  # (steps, network outputs): NaN where unknown; for classes one-hot
    labels: dict[str, Doubles]  # (steps,) each: the recording's labels, NaN where unknown
    part_of: Integers  # (steps,): index into PARTS; -1: no part
    starts: dict[Part, float]  # the time of each part's first step, seconds since 1970
    samples: Samples  # what `values` and `features` are made of
    left_out: Flags | None = None  # (steps,): steps that count for no statistics and are no targets; None: none

    def __len__(self) -> int:
        return len(self.times)

    def steps(self, part: Part) -> Integers:
        """The indices of the part's steps, in order."""
        return np.flatnonzero(self.part_of == PARTS.index(part))

    def needed_for(self, part: Part) -> Flags:
        """(steps,): whether a step comes before, or is, the last step of the part in its stream."""
        last = np.full(len(self.recording.streams), -1)
        chosen = self.steps(part)
        np.maximum.at(last, self.stream_of[chosen], chosen)
        needed: Flags = np.arange(len(self)) <= last[self.stream_of]
        return needed

    def with_validation_in_training(self) -> Dataset:
        """The same dataset with the validation part moved into the training part."""
        validated = self.part_of == PARTS.index("validation")
        return dataclasses.replace(self, part_of=np.where(validated, PARTS.index("train"), self.part_of))

    @cached_property
    def run_start(self) -> Integers:
        """(steps,): the index of the first step since the last restart."""
        begins = np.where(self.restart, np.arange(len(self), dtype=np.int32), 0)
        return np.maximum.accumulate(begins)

    def by_stream(self, steps: Integers) -> dict[str, Integers]:
        """The steps by the name of their stream, without streams that have none."""
        begins = np.searchsorted(self.stream_of[steps], np.arange(1, len(self.recording.streams)))
        own = zip(self.recording.streams, np.split(steps, begins), strict=True)
        return {name: found for name, found in own if found.size}

    @property
    def truth(self) -> Doubles:
        """(steps, outputs): the targets as they are published: on a circle one position, not sine and cosine."""
        truth: Doubles = PublishedOutputs(self.contract)(self.targets)
        return truth

    @property
    def newest_known(self) -> Integers:
        """(steps,): `newest_known_at` every step."""
        return self.newest_known_at(np.arange(len(self)))

    def newest_known_at(self, steps: Integers) -> Integers:
        """The newest steps whose values a baseline may use at `steps`: the steps themselves.

        For a reconstruction it is the step before, since the step itself is the target; a run's first step uses itself.
        """
        reconstructs = self.contract.task == "anomaly" and self.contract.horizons == [0]
        return np.maximum(steps - 1, self.run_start[steps]) if reconstructs else steps

    @property
    def naive_predictions(self) -> Doubles:
        """(steps, network outputs): `naive_predictions_at` every step."""
        return self.naive_predictions_at(np.arange(len(self)))

    def naive_predictions_at(self, steps: Integers) -> Doubles:
        """(steps, network outputs): the newest value of each target, or its mean if the target is not a feature."""
        if self.contract.task in ("forecast", "anomaly"):
            columns = target_columns(self.contract)
            return self.features[self.newest_known_at(steps)[:, None], columns].astype(np.float64)
        return np.repeat(self._mean_targets[None], len(steps), axis=0)

    @cached_property
    def _mean_targets(self) -> Doubles:
        means: Doubles = np.nanmean(self.targets[self.steps("train")], axis=0)
        return means


_LEAST_CHANGE = 1e-9  # of the mean: less than the resolution of float32
_MOST_DROPPED = 0.3  # of the rows
_STEPS_AT_ONCE = 65_536  # so that memory holds little more than the result
_SHOWN = 8  # classes in a message
_LEAST_SCALE = 1e-30  # the smallest standard deviation that a contract accepts


def target_columns(contract: Contract) -> list[int]:
    """For each output of the network, the column of its target in the feature vector; a quantile has its target's."""
    inputs, target_of = contract.inputs, _target_of(contract)
    return [inputs.index(target_of.get(name, name)) for name, _ in contract.network_outputs]


def first_with_same_truth(contract: Contract) -> list[int]:
    """The first output of the network with the same target and horizon, for each: a quantile has its target's truth."""
    target_of = _target_of(contract)
    first: dict[tuple[str, int], int] = {}
    return [
        first.setdefault((target_of.get(name, name), horizon), output)
        for output, (name, horizon) in enumerate(contract.network_outputs)
    ]


def _target_of(contract: Contract) -> dict[str, str]:
    """The target of each published output. The parts of a circle have names of their own."""
    return {name: target for target in contract.targets for name in contract.output_names_of(target)}


def read_dataset(recipe: Recipe) -> Dataset:
    """The recipe's recording as a dataset. Raises EdgeLstmError where the file is faulty or too short for the split."""
    return dataset_of(recipe, with_same_times(read_inputs(recipe), recipe.sampling.grid))


def without_steps(recipe: Recipe, dataset: Dataset, left_out: Flags) -> Dataset:
    """The dataset of the same recording, but with statistics and targets from the other steps alone."""
    return dataset_of(recipe, dataset.recording, left_out)


def dataset_of(recipe: Recipe, recording: Recording, left_out: Flags | None = None) -> Dataset:
    """The recording as a dataset; statistics come from its training part alone.

    left_out (steps,): steps that count for no statistics, and whose values are no targets.
    """
    refuse_impossible(recipe, recording)
    # A feature without any value yet takes its mean, which is known only once the samples are split.
    unknown = recipe.contract([math.nan] * len(recipe.features), [1.0] * len(recipe.features))
    with work("taking samples", len(recording), "rows") as advance:
        samples, dropped = samples_of(unknown, recording, advance)
    _refuse_disorder(recording, dropped)
    dropped.update(recording.left_out)
    times, missing, stream_of = samples.times, samples.missing, samples.stream_of
    restart = samples.restart | (np.diff(stream_of, prepend=-1) != 0)
    part_of = narrow(parts(recipe.split, recipe.recording, recording, stream_of, times), np.int8)
    starts: dict[Part, float] = {part: times[part_of == index].min() for index, part in enumerate(PARTS)}
    counted = part_of == PARTS.index("train")
    mean, scale = _statistics(recipe, recording, samples, counted if left_out is None else counted & ~left_out)
    contract = recipe.contract(mean.tolist(), scale.tolist())
    held = samples.values
    for column, level in enumerate(mean.astype(np.float32).tolist()):  # in place: a copy could be the half of memory
        held[np.isnan(held[:, column]), column] = level
    made = Samples(times, samples.since, held, missing, restart)
    with work("computing the inputs", len(times), "steps") as advance:
        values, features = feature_vectors(contract, made, advance)
    labels = {name: _labels_at_steps(recording, samples, known) for name, known in recording.labels.items()}
    run = narrow(np.cumsum(restart, dtype=np.int32), np.int32)
    targets = _targets(recipe, contract, recording, labels, features, missing, run, part_of)
    if left_out is not None:
        targets[left_out] = np.nan
        for output, (_, horizon) in enumerate(contract.network_outputs):
            targets[: len(targets) - horizon][left_out[horizon:], output] = np.nan
    truth = PublishedOutputs(contract)(targets)
    refuse_leaks(recording.source, contract, values, missing, truth, run)
    _refuse_empty_parts(recording, contract, truth, part_of)
    return Dataset(
        recording,
        contract,
        recipe.season,
        dropped,
        stream_of,
        times,
        values,
        restart,
        features,
        targets,
        labels,
        part_of,
        starts,
        made,
        left_out,
    )


def _refuse_disorder(recording: Recording, dropped: dict[str, int]) -> None:
    """Refuse rows out of order, most of which a device would drop.

    Causes: newest rows first, several streams in one, or times read in a wrong format.
    """
    late, repeated, rows = dropped["late"], dropped["duplicate"], len(recording)
    if late + repeated <= _MOST_DROPPED * rows:
        return
    raise EdgeLstmError(
        f"{recording.source}: expected each stream's rows in the order of time, found {late:,} of {rows:,} older than "
        f"one before them and {repeated:,} of the same time",
        "sort the file by time where the newest is first; name the streams (stream_column) where it holds several; "
        "aggregate several readings of one time (grid = true and interval_s under [sampling]); "
        "else check time and time_format in the recipe",
    )


def _labels_at_steps(recording: Recording, samples: StreamSamples, known: Doubles) -> Doubles:
    """(steps,): the label (rows,) of the newest reading of the step's stream at that time."""
    found = np.full(len(samples.times), np.nan)
    by_stream = np.argsort(recording.stream_of, kind="stable")
    begins = np.searchsorted(recording.stream_of[by_stream], np.arange(1, len(recording.streams)))
    ends = np.searchsorted(samples.stream_of, np.arange(len(recording.streams) + 1))
    for stream, rows in enumerate(np.split(by_stream, begins)):
        steps = slice(ends[stream], ends[stream + 1])
        rows = rows[np.argsort(recording.times[rows], kind="stable")]
        newest = np.searchsorted(recording.times[rows], samples.times[steps], side="right") - 1
        found[steps] = np.where(newest >= 0, known[rows[newest]], np.nan)
    return found


def _statistics(recipe: Recipe, recording: Recording, samples: StreamSamples, chosen: Flags) -> tuple[Doubles, Doubles]:
    """Mean and standard deviation (features,) of the measured values in the training part.

    Features that never change there are refused. Categories have -1 and 1: as a held value, -1 is no category.
    """
    values = Features(recipe.contract([0.0] * len(recipe.features), [math.inf] * len(recipe.features)))
    measured = values.conditioned(samples.values)
    constant = []
    mean, scale = np.zeros(measured.shape[1]), np.ones(measured.shape[1])
    for column, (name, section) in enumerate(recipe.features.items()):
        seen = measured[chosen & ~samples.missing[:, column], column].astype(np.float64)
        if not seen.size:
            of = f" (of {', '.join(section.categories)})" if section.categories else ""
            raise EdgeLstmError(
                f'{recording.source}: expected values of "{name}"{of} in the training part, found none',
                f"{'write its categories as the file does, ' if of else ''}remove the feature, or change [split]",
            )
        if section.categories:
            mean[column] = -1.0
            if (seen == seen[0]).all():
                constant.append(f"{name} ({section.categories[int(seen[0])]})")
            continue
        mean[column], spread = _level_and_spread(seen, section.circle)
        scale[column] = spread
        if spread <= max(_LEAST_CHANGE * abs(mean[column]), _LEAST_SCALE):
            constant.append(f"{name} ({seen[0]:g})")
    if constant:
        raise EdgeLstmError(
            f"{recording.source}: expected features that change in the training part, found constant ones: "
            f"{', '.join(constant)}",
            "remove them: the network learns nothing from them, and its output is arbitrary once they change",
        )
    return mean, scale


def _level_and_spread(values: Doubles, period: float | None) -> tuple[float, float]:
    """Mean and standard deviation, on a circle along it: the mean direction, and the RMS distance from it."""
    if period is None:
        return float(values.mean()), float(values.std())
    sine, cosine = sine_and_cosine(values, period)
    mean = float(position(sine.mean(), cosine.mean(), period))
    return mean, float(np.sqrt((difference(values, mean, period) ** 2).mean()))


def _targets(
    recipe: Recipe,
    contract: Contract,
    recording: Recording,
    labels: dict[str, Doubles],
    features: Floats,
    missing: Flags,
    run: Integers,
    part_of: Integers,
) -> Doubles:
    """(steps, network outputs): the true outputs; NaN unless the target step is in the same run and the same part."""
    if recipe.classify is not None:
        label, classes = _classes(recipe, recording, labels, features, missing)
        there = _shifted(label[:, None], contract.horizons[0], run, part_of)
        truth: Doubles = (there == np.arange(len(classes))).astype(np.float64)
        truth[np.isnan(there[:, 0])] = np.nan
        return truth
    if recipe.regress is not None:
        known = _label(recording, labels, recipe.regress.target)
        known = known if recipe.regress.cap is None else np.minimum(known, recipe.regress.cap)
        known = np.where(missing.all(axis=1), np.nan, known)  # no value to estimate it from
        return np.repeat(known[:, None], len(contract.outputs), axis=1)
    source = {column: column for column in range(len(contract.features))}
    source.update({cosine: column for column, cosine in cosine_columns(contract).items()})
    targets = np.empty((len(features), len(contract.network_outputs)))
    for output, (column, (_, horizon)) in enumerate(
        zip(target_columns(contract), contract.network_outputs, strict=True)
    ):
        measured = np.where(missing[:, source[column]], np.nan, features[:, column].astype(np.float64))
        targets[:, output] = _shifted(measured, horizon, run, part_of)
    return targets


def _shifted(values: Doubles, horizon: int, run: Integers, part_of: Integers) -> Doubles:
    """The values (steps, ...) from `horizon` steps later, NaN where that step is in another run or part."""
    found = np.full(values.shape, np.nan)
    here, there = slice(0, max(0, len(values) - horizon)), slice(horizon, None)
    known = (run[here] == run[there]) & (part_of[here] == part_of[there])
    found[here][known] = values[there][known]
    return found


def _classes(
    recipe: Recipe,
    recording: Recording,
    labels: dict[str, Doubles],
    features: Floats,
    missing: Flags,
) -> tuple[Doubles, list[str]]:
    """(steps,) the index of each step's class, NaN where it is unknown; and the classes."""
    assert recipe.classify is not None  # the caller checks it
    name, classes = recipe.classify.label, recipe.classify.classes
    names = list(recipe.features)
    if name in names and recipe.features[name].categories:
        column = names.index(name)
        found = np.where(missing[:, column], np.nan, features[:, column].astype(np.float64))
        texts = recipe.features[name].categories
    else:
        found = _label(recording, labels, name)
        texts = list(recording.categories.get(name, ()))
    numbers, counts = np.unique(found[np.isfinite(found)], return_counts=True)
    found_names = [texts[int(number)] if texts else f"{number:g}" for number in numbers]
    _refuse_other_classes(recording.source, name, classes, dict(zip(found_names, counts.tolist(), strict=True)))
    index_of = {number: float(classes.index(text)) for number, text in zip(numbers.tolist(), found_names, strict=True)}
    return np.array([index_of.get(value, math.nan) for value in found.tolist()]), classes


def _refuse_other_classes(source: str, label: str, classes: list[str], counts: dict[str, int]) -> None:
    """Refuse a recipe whose classes are not those of the recording; counts: steps of each class there."""
    others = [f'"{text}" ({count} steps)' for text, count in counts.items() if text not in classes]
    never = [f'"{text}" (no step)' for text in classes if text not in counts]
    if others or never:
        wrong = [*never, *others]
        more = f" and {len(wrong) - _SHOWN} more" if len(wrong) > _SHOWN else ""
        raise EdgeLstmError(
            f'{source}: expected the classes of "{label}" to be {", ".join(classes)}, found '
            f"{', '.join(wrong[:_SHOWN])}{more}",
            "write the classes as the recording does; to leave classes out, list the others as categories under "
            f"[labels.{label}], or their numbers as sentinels",
        )


def _label(recording: Recording, labels: dict[str, Doubles], name: str) -> Doubles:
    if name not in labels:
        raise EdgeLstmError(
            f'{recording.source}: expected a label "{name}", found {", ".join(labels) or "none"}',
            f"add [labels.{name}] to the recipe",
        )
    return labels[name]


def _refuse_empty_parts(recording: Recording, contract: Contract, truth: Doubles, part_of: Integers) -> None:
    for index, part in enumerate(PARTS):
        known = np.isfinite(truth[part_of == index])
        for output, (target, horizon) in enumerate(contract.outputs):
            if not known[:, output].any():
                raise EdgeLstmError(
                    f'{recording.source}: expected "{target}" to be known at horizon {horizon} in the {part} part, '
                    f"found it unknown at each of its steps ({len(known)})",
                    "record more, lower the horizon, or change [split] or max_gap_s in the recipe",
                )
