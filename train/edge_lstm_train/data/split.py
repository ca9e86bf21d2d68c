"""The split of steps into training, validation and test part: by time, streams, groups or the beginnings of streams.

A split that leaves a part empty is refused. Streams of one group never come on both sides of `leave_out`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import Literal

import numpy as np

from edge_lstm.foundation.arrays import Doubles, Flags, Integers
from edge_lstm.foundation.config import suggestion
from edge_lstm.foundation.errors import EdgeLstmError
from edge_lstm.foundation.times.text import format_time, parse_time
from edge_lstm.recordings.recording import Recording
from edge_lstm_train.recipe.recording_sections import RecordingSection
from edge_lstm_train.recipe.training_sections import SplitSection

Part = Literal["train", "validation", "test"]
PARTS: tuple[Part, ...] = ("train", "validation", "test")
NO_PART = -1

_CHANGE = "change [split] in the recipe"


def parts(
    split: SplitSection,
    section: RecordingSection,
    recording: Recording,
    stream_of: Integers,
    times: Doubles,
) -> Integers:
    """(steps,): the index into PARTS of each step, given its stream and time, or NO_PART.

    Raises EdgeLstmError if a part would be empty, or if a name is neither a group nor, without groups, a stream.
    """
    if recording.sets:
        part_of = _by_set(split, recording, stream_of, times)
        _refuse_empty(split, recording, part_of, times)
        return part_of
    groups = groups_of(section, recording)
    left_out = _matching("leave_out", split.leave_out, recording, groups)
    if split.by == "time":
        part_of = _by_time(split, section, recording, left_out[stream_of], times)
    elif split.by == "beginning":
        part_of = _by_beginning(split, left_out, stream_of)
    else:
        part_of = _by_name(split, recording, groups, left_out)[stream_of]
    _refuse_empty(split, recording, part_of, times)
    return part_of


def _by_set(split: SplitSection, recording: Recording, stream_of: Integers, times: Doubles) -> Integers:
    """The parts by the data sets of the streams. Without a set for validation, it is the end of the training set.

    There, validation has the share of the two shares of [split].
    """
    part_of = np.array([PARTS.index(name) for name in recording.sets])[stream_of]
    if "validation" not in recording.sets:
        train = part_of == PARTS.index("train")
        ordered = np.sort(times[train])
        first = round(len(ordered) * split.train / (split.train + split.validation))
        if first < len(ordered):
            part_of[train & (times >= ordered[first])] = PARTS.index("validation")
    return part_of


def groups_of(section: RecordingSection, recording: Recording) -> list[str]:
    """The group of each stream; a stream without a group is a group of its own."""
    if recording.groups:
        return list(recording.groups)
    group_of = {stream: group for group, streams in section.groups.items() for stream in streams}
    for stream in group_of:
        if stream not in recording.streams:
            raise EdgeLstmError(
                f'{recording.source}: expected groups of its streams, found "{stream}"',
                f"correct groups under [recording] in the recipe; {suggestion(stream, recording.streams)}",
            )
    return [group_of.get(stream, stream) for stream in recording.streams]


def _matching(key: str, patterns: Sequence[str], recording: Recording, groups: Sequence[str]) -> Flags:
    """(streams,): whether one of the names or patterns matches the stream's group."""
    chosen = np.zeros(len(groups), bool)
    for pattern in patterns:
        matched = [group == pattern or fnmatchcase(group, pattern) for group in groups]
        if not any(matched):
            known = list(dict.fromkeys(groups))
            hint = suggestion(pattern, known)
            if pattern in recording.streams:
                hint = f'the stream "{pattern}" is in the group "{groups[recording.streams.index(pattern)]}"'
            what = "streams" if known == recording.streams else "groups"
            raise EdgeLstmError(
                f'{recording.source}: expected {what} in {key}, found "{pattern}"', f"{_CHANGE}; {hint}"
            )
        chosen |= matched
    return chosen


def _by_time(
    split: SplitSection,
    section: RecordingSection,
    recording: Recording,
    left_out: Flags,
    times: Doubles,
) -> Integers:
    """One cut in time for all streams: no stream's test part lies in the time of another's training part."""
    if split.validation_from is not None:
        validation = parse_time(split.validation_from, section.zone())
        test = math.inf if split.test_from is None else parse_time(split.test_from, section.zone())
    else:
        ordered = np.sort(times[~left_out])
        count = len(ordered)
        first_validation = round(split.train * count)
        first_test = round((split.train + split.validation) * count)
        tested = first_test < count or (split.leave_out and split.leave_out_time == "all")
        if not (0 < first_validation < first_test and tested):
            raise EdgeLstmError(
                f"{recording.source}: expected readings for training, validation and test, found {count} in all",
                f"record more, or {_CHANGE}",
            )
        validation = float(ordered[first_validation])
        test = float(ordered[first_test]) if first_test < count else math.inf
    part_of = (times >= validation).astype(np.int64) + (times >= test)
    if split.leave_out:
        part_of[~left_out & (part_of == PARTS.index("test"))] = NO_PART
        others = left_out & (part_of != PARTS.index("test"))
        part_of[others] = PARTS.index("test") if split.leave_out_time == "all" else NO_PART
    return part_of


def _by_beginning(split: SplitSection, left_out: Flags, stream_of: Integers) -> Integers:
    """Each stream's first steps are for training, the next for validation; `stream_of` goes stream after stream."""
    assert split.beginning_steps is not None  # the recipe's faults() requires it
    begins = np.flatnonzero(np.diff(stream_of, prepend=-1))
    place = np.arange(len(stream_of)) - np.repeat(begins, np.diff(begins, append=len(stream_of)))
    trained = round(split.beginning_steps * split.train / (split.train + split.validation))
    part_of: Integers = (place >= trained).astype(np.int64) + (place >= split.beginning_steps)
    part_of[left_out[stream_of]] = PARTS.index("test")
    return part_of


def _by_name(split: SplitSection, recording: Recording, groups: Sequence[str], left_out: Flags) -> Integers:
    """(streams,): the part of each stream; a group goes into one part as a whole."""
    validated = _matching("validate_on", split.validate_on, recording, groups)
    both = np.flatnonzero(left_out & validated)
    if both.size:
        raise EdgeLstmError(
            f'{recording.source}: expected "{recording.streams[both[0]]}" in leave_out or in validate_on, '
            "found it in both",
            _CHANGE,
        )
    part_of = np.zeros(len(groups), np.int64)
    part_of[left_out] = PARTS.index("test")
    part_of[validated] = PARTS.index("validation")
    whole = np.array(groups)
    units = list(dict.fromkeys(whole[~left_out & ~validated].tolist()))
    drawn = [units[index] for index in np.random.default_rng(split.seed).permutation(len(units))]
    rest = len(drawn)
    tested = 0 if split.leave_out else max(1, round(rest * (1 - split.train - split.validation)))
    share = split.validation / (split.train + split.validation)
    chosen = 0 if split.validate_on else max(1, round((rest - tested) * share))
    if rest - tested - chosen < 1:
        raise EdgeLstmError(
            f"{recording.source}: expected a {split.by} for each of training, validation and test that leave_out and "
            f"validate_on do not fill, found {rest} to choose from",
            f'record more, or {_CHANGE}: by = "time" needs only one stream',
        )
    part_of[np.isin(whole, drawn[:tested])] = PARTS.index("test")
    part_of[np.isin(whole, drawn[tested : tested + chosen])] = PARTS.index("validation")
    return part_of


def _refuse_empty(split: SplitSection, recording: Recording, part_of: Integers, times: Doubles) -> None:
    for index, part in enumerate(PARTS):
        if not (part_of == index).any():
            span = f"{format_time(times.min())} to {format_time(times.max())}"
            raise EdgeLstmError(
                f"{recording.source}: expected readings in the {part} part, found none of {len(times)} ({span})",
                _CHANGE,
            )
