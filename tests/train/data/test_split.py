"""The split: each step's part, by time, stream and group, and what is refused."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from edge_lstm.foundation.errors import EdgeLstmError
from edge_lstm.recordings.recording import Recording
from edge_lstm_train.data.split import NO_PART, PARTS, parts
from edge_lstm_train.recipe.recording_sections import RecordingSection
from edge_lstm_train.recipe.training_sections import SplitSection

SECTION = RecordingSection("nowhere.csv")


def recording(streams: Sequence[str], groups: Sequence[str] = (), rows: int = 10) -> Recording:
    """`rows` steps of each stream, at the times 0, 1, 2, ..."""
    count = len(streams)
    stream_of, times = np.repeat(np.arange(count), rows), np.tile(np.arange(float(rows)), count)
    return Recording("memory", ["x"], list(streams), stream_of, times, np.ones((rows * count, 1)), groups=groups)


def table(one: Recording, split: SplitSection, section: RecordingSection = SECTION) -> dict[str, str]:
    """The part of each step, a letter a step, by stream."""
    part_of = parts(split, section, one, one.stream_of, one.times)
    letters = {NO_PART: "-", **{index: part[0] for index, part in enumerate(PARTS)}, 2: "T"}
    return {
        name: "".join(letters[part] for part in part_of[one.stream_of == index].tolist())
        for index, name in enumerate(one.streams)
    }


def test_a_split_by_time_cuts_every_stream_at_the_same_time() -> None:
    assert table(recording("ab"), SplitSection()) == {"a": "ttttttvvTT", "b": "ttttttvvTT"}


def test_only_a_held_out_stream_is_tested_on_the_last_part() -> None:
    split = SplitSection(leave_out=["b"])
    assert table(recording("abc"), split) == {"a": "ttttttvv--", "b": "--------TT", "c": "ttttttvv--"}


def test_a_held_out_stream_can_be_tested_on_all_of_its_time() -> None:
    split = SplitSection(0.8, 0.2, leave_out=["b"], leave_out_time="all")
    assert table(recording("ab"), split) == {"a": "ttttttttvv", "b": "TTTTTTTTTT"}


def test_parts_begin_at_the_given_times() -> None:
    split = SplitSection(validation_from="1970-01-01T00:00:03Z", test_from="1970-01-01T00:00:04Z", leave_out=["b"])
    assert table(recording("ab"), split) == {"a": "tttv------", "b": "----TTTTTT"}
    zoned = RecordingSection("nowhere.csv", timezone="Etc/GMT-1")
    split = SplitSection(validation_from="1970-01-01T01:00:03", test_from="1970-01-01T01:00:04")
    assert table(recording("a"), split, zoned) == {"a": "tttvTTTTTT"}


def test_the_first_steps_of_each_stream_train_and_validate() -> None:
    one = recording("abc")
    one.times[one.stream_of == 1] += 1e6
    split = SplitSection(0.6, 0.2, "beginning", beginning_steps=4, leave_out=["c"])
    assert table(one, split) == {"a": "tttvTTTTTT", "b": "tttvTTTTTT", "c": "TTTTTTTTTT"}


def test_a_group_is_held_out_completely() -> None:
    expected = {"a": "--------TT", "b": "ttttttvv--", "c": "--------TT"}
    keyed = RecordingSection("nowhere.csv", groups={"north": ["a", "c"]})
    assert table(recording("abc"), SplitSection(leave_out=["north"]), keyed) == expected
    assert table(recording("abc", ["n", "s", "n"]), SplitSection(leave_out=["n"])) == expected
    with pytest.raises(EdgeLstmError) as caught:
        table(recording("abc"), SplitSection(leave_out=["a"]), keyed)
    assert 'expected groups in leave_out, found "a"' in caught.value.message
    assert 'the stream "a" is in the group "north"' in caught.value.hint


def test_streams_are_drawn_for_parts_by_share_and_seed() -> None:
    one = recording([f"s{index}" for index in range(20)])
    said = table(one, SplitSection(by="stream"))
    letters = [part[0] for part in said.values()]
    assert all(len(set(part)) == 1 for part in said.values())
    assert [letters.count(letter) for letter in "tvT"] == [12, 4, 4]
    assert table(one, SplitSection(by="stream")) == said
    assert table(one, SplitSection(by="stream", seed=2)) != said


def test_groups_are_drawn_as_a_whole_beside_the_named_ones() -> None:
    one = recording("abcdefgh", ["1", "1", "2", "2", "3", "3", "4", "4"], rows=1)
    said = table(one, SplitSection(by="group", leave_out=["3"], validate_on=["4"]))
    assert said == {**dict.fromkeys("abcd", "t"), **dict.fromkeys("ef", "T"), **dict.fromkeys("gh", "v")}
    drawn = table(one, SplitSection(by="group", leave_out=["[34]"]))
    assert [drawn[name] for name in "efgh"] == ["T"] * 4
    assert {drawn["a"] + drawn["b"], drawn["c"] + drawn["d"]} == {"tt", "vv"}


@pytest.mark.parametrize(
    ("streams", "split", "found"),
    [
        ("ab", SplitSection(leave_out=["c"]), 'expected streams in leave_out, found "c"'),
        ("ab", SplitSection(by="stream"), "expected a stream for each of training, validation and test"),
        ("abc", SplitSection(by="stream", leave_out=["a"], validate_on=["a"]), 'expected "a" in leave_out or in'),
        ("ab", SplitSection(leave_out=["a", "b"]), "expected readings for training, validation and test, found 0"),
        (
            "ab",
            SplitSection(validation_from="1980-01-01", test_from="1981-01-01"),
            "expected readings in the validation part, found none of 20 (1970-01-01T00:00:00Z to 1970-01-01T00:00:09Z)",
        ),
        (
            "ab",
            SplitSection(validation_from="1960-01-01", test_from="1970-01-01T00:00:05Z"),
            "expected readings in the train part, found none of 20",
        ),
    ],
)
def test_a_split_that_leaves_a_part_empty_or_names_no_stream_is_refused(streams: str, split: Any, found: str) -> None:
    with pytest.raises(EdgeLstmError) as caught:
        table(recording(streams), split)
    assert found in caught.value.message
    assert "[split]" in caught.value.hint
