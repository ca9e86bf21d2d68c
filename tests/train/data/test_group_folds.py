"""The groups of the training part, left out in turn, and what is told about classes before training."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np

from edge_lstm.recordings.recording import Recording
from edge_lstm_train.data.augment import augmented_copy
from edge_lstm_train.data.batches import carried_chunks, with_rare_chunks
from edge_lstm_train.data.class_counts import class_notes
from edge_lstm_train.data.dataset import Dataset, dataset_of
from edge_lstm_train.data.group_folds import group_folds
from edge_lstm_train.recipe.recipe import Recipe
from edge_lstm_train.recipe.task_sections import ClassifySection
from edge_lstm_train.recipe.training_sections import AugmentSection, SplitSection
from tests.train.conftest import of_task, with_label

Make = Callable[..., object]


def people(recipe_of: Make, recording_of: Make, count: int, **split: object) -> tuple[Recipe, Dataset]:
    """`count` people with two recordings of 30 steps each and a level of their own; person 0 is for testing."""
    random = np.random.default_rng(2)
    rows = [
        (f"p{person}r{turn}", 1e5 * person + 5e4 * turn + at, [person + random.normal()])
        for person in range(count)
        for turn in range(2)
        for at in range(30)
    ]
    recording = with_label(recording_of(rows), "move", np.arange(len(rows)) % 2.0, ("up", "down"))
    recording = dataclasses.replace(recording, groups=[f"p{stream // 2}" for stream in range(2 * count)])
    recipe = of_task(recipe_of(), classify=ClassifySection("move", classes=["up", "down"]))
    section = SplitSection(0.8, 0.2, leave_out=["p0"], leave_out_time="all", **split)
    recipe = dataclasses.replace(recipe, split=section)
    return recipe, dataset_of(recipe, recording)


def test_each_group_of_the_training_part_is_left_out_once(recipe_of: Make, recording_of: Make) -> None:
    recipe, dataset = people(recipe_of, recording_of, 5)
    folds = group_folds(recipe, dataset)
    assert [fold.groups for fold in folds] == [["p1"], ["p2"], ["p3"], ["p4"]]
    for person, fold in enumerate(folds, start=1):
        of_person = dataset.stream_of // 2
        assert set(of_person[fold.dataset.steps("validation")]) == {person}
        assert set(of_person[fold.dataset.steps("train")]) == {1, 2, 3, 4} - {person}
        assert not fold.dataset.steps("test").size  # so that no choice can look at it


def test_a_fold_has_the_statistics_of_its_own_training_part(recipe_of: Make, recording_of: Make) -> None:
    recipe, dataset = people(recipe_of, recording_of, 5)
    (fold, *_) = group_folds(recipe, dataset)
    own = dataset.values[fold.dataset.steps("train"), 0]
    assert np.isclose(fold.dataset.contract.features[0].mean, own.mean())
    assert not np.isclose(fold.dataset.contract.features[0].mean, dataset.contract.features[0].mean)


def test_many_groups_are_dealt_into_six_folds(recipe_of: Make, recording_of: Make) -> None:
    recipe, dataset = people(recipe_of, recording_of, 15)
    folds = group_folds(recipe, dataset)
    assert sorted(len(fold.groups) for fold in folds) == [2, 2, 2, 2, 3, 3]
    assert sorted(name for fold in folds for name in fold.groups) == sorted(f"p{person}" for person in range(1, 15))


def test_groups_that_the_device_meets_again_are_no_folds(recipe_of: Make, recording_of: Make) -> None:
    recipe, dataset = people(recipe_of, recording_of, 5)
    assert group_folds(recipe, dataset)
    beginnings = dataclasses.replace(recipe, split=SplitSection(0.6, 0.2, by="beginning", beginning_steps=20))
    assert group_folds(beginnings, dataset_of(beginnings, dataset.recording)) == []
    assert group_folds(*people(recipe_of, recording_of, 3)) == []  # two groups are too few


def test_an_augmented_copy_changes_each_run_by_a_factor_of_its_own(recipe_of: Make, recording_of: Make) -> None:
    _, dataset = people(recipe_of, recording_of, 4)
    assert augmented_copy(AugmentSection(noise=0.3), dataset, np.random.default_rng(1)) is None
    found = augmented_copy(AugmentSection(scale=0.5), dataset, np.random.default_rng(1))
    assert found is not None
    factors = (found[0] / dataset.features)[:, 0].reshape(8, 30)
    assert np.ptp(factors, axis=1).max() < 1e-5
    assert len(set(np.round(factors[:, 0], 4))) == 8
    np.testing.assert_array_equal(found[1], dataset.targets)


def rare(recipe_of: Make, recording_of: Make, **keys: object) -> tuple[Recipe, Dataset]:
    """1,000 steps, of which 12 in a row are of the class "broken", and the last 50 of a class of their own."""
    rows = [("s", 60.0 * at, [float(at % 7)]) for at in range(1000)]
    state = np.where((np.arange(1000) >= 300) & (np.arange(1000) < 312), 1.0, 0.0)
    state[950:] = 2.0
    classes = ["fine", "broken", "late"]
    recording: Recording = with_label(recording_of(rows), "state", state, tuple(classes))
    recipe = of_task(recipe_of(), classify=ClassifySection("state", classes=classes, **keys))
    return recipe, dataset_of(recipe, recording)


def test_each_drawn_chunk_holds_the_class_that_it_was_drawn_for(recipe_of: Make, recording_of: Make) -> None:
    _, dataset = rare(recipe_of, recording_of)
    random = np.random.default_rng(1)
    batches = with_rare_chunks(carried_chunks(dataset, 4, 20, random), dataset, 6, random)
    drawn = [next(batches) for _ in range(40)]
    uniform = np.concatenate([(batch.targets[:4, :, 1] == 1).any(axis=1) for batch in drawn])
    wanted = np.concatenate([(batch.targets[4:, :, 1] == 1).any(axis=1) for batch in drawn])
    assert uniform.mean() < 0.1
    assert 0.4 < wanted.mean() < 0.65  # one of two classes that occur, and its neighbours by chance
    assert all(batch.restart[4:, 0].all() and not batch.restart[4:, 1:].any() for batch in drawn)


def test_absent_and_rare_classes_are_told_with_their_place(recipe_of: Make, recording_of: Make) -> None:
    notes = list(class_notes(*rare(recipe_of, recording_of)))
    assert notes[0].startswith('memory: class "late" in no step of the training part: the model will never predict it')
    assert any('class "broken" in no step of the test part' in note for note in notes)
    assert '"broken" is 2 % of the steps of the training part, all within 0.0076 of 0.42 days' in notes[-1]
    assert "rare_chunks = 0.5" in notes[-1]
    told = list(class_notes(*rare(recipe_of, recording_of, balance=True, rare_chunks=0.5)))
    assert len(told) == len(notes) - 1  # what was done is not advised
