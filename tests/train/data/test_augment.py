"""Augmentation: what it changes, for how long, and what it leaves unchanged."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
import pytest

from edge_lstm.recordings.recording import Recording
from edge_lstm_train.data.augment import Noise, RunAugmentation
from edge_lstm_train.data.batches import Batch, carried_chunks, cropped_runs
from edge_lstm_train.data.dataset import Dataset, dataset_of
from edge_lstm_train.recipe.recipe import Recipe
from edge_lstm_train.recipe.recording_sections import FeatureSection
from edge_lstm_train.recipe.training_sections import AugmentSection

Make = Callable[..., Recipe]


def test_crops_begin_in_the_first_half_of_a_run(recipe_of: Make, waves: Recording) -> None:
    dataset = dataset_of(recipe_of(), waves)
    batches = cropped_runs(dataset, 2, 50, np.random.default_rng(0))
    firsts = set()
    for _ in range(200):
        batch = next(batches)
        if batch.restart[:, 0].all():
            firsts |= {round(float(row[0, 0]), 4) for row in batch.features}
        assert np.isnan(batch.targets).all(axis=2)[batch.features[..., 0] == 0].all()
    assert len(firsts) > 20


def test_noise_changes_only_measured_inputs(recipe_of: Make, recording_of: Make) -> None:
    rows = [("s", 60.0 * index, [3.0 + index / 1e4, index / 1e4, 4.0 - index / 1e4]) for index in range(200)]
    dataset = dataset_of(recipe_of(features={"x": False, "y": False, "z": True}), recording_of(rows, ("x", "y", "z")))
    batch = next(carried_chunks(dataset, 4, 20, np.random.default_rng(0)))

    def noisy(*seen: float) -> np.ndarray:
        scale = np.array([1.0, 2.0, 3.0, 1.0], np.float32)
        noise = Noise.of(AugmentSection(noise=0.5), dataset.contract, scale, np.array(seen, np.float32))
        found = noise(batch, np.random.default_rng(1))
        np.testing.assert_array_equal(found.targets, batch.targets)
        return found.features - batch.features

    assert noisy(1, 1, 1, 1)[..., 1].std() == pytest.approx(1.0, rel=0.3)
    assert not noisy(1, 1, 1, 1)[..., 3].any()  # a mask stays a mask
    assert not noisy(0, 1, 1, 1)[..., 0].any()  # what goes past the layers gets none


AXES = ["x", "y", "z"]


def moved(recipe_of: Make, recording_of: Make) -> Dataset:
    """Three axes of a sensor in two recordings of 60 steps, with what is derived of them, and a class for each."""
    random = np.random.default_rng(3)
    values = {stream: random.normal(size=(60, 3)).cumsum(axis=0) for stream in "ab"}
    rows = [(stream, 60.0 * step, list(values[stream][step])) for step in range(60) for stream in "ab"]
    recipe = recipe_of(features=dict.fromkeys(AXES, False))
    derived = {
        name: ["difference", "mean 5", "deviation 5", f"covariance {others} 5"]
        for name, others in zip(AXES, "yzx", strict=True)
    }
    sections = {name: dataclasses.replace(one, derived=derived[name]) for name, one in recipe.features.items()}
    return dataset_of(dataclasses.replace(recipe, features=sections), recording_of(rows, AXES))


def whole_runs(dataset: Dataset) -> Batch:
    """The two recordings side by side."""
    at = np.arange(120).reshape(2, 60)
    return Batch(dataset.features[at], dataset.targets[at].astype(np.float32), dataset.restart[at])


def test_a_rotated_sensor_stays_rotated_and_derived_inputs_follow(recipe_of: Make, recording_of: Make) -> None:
    dataset = moved(recipe_of, recording_of)
    batch = whole_runs(dataset)
    worn = RunAugmentation(AugmentSection(rotate_degrees=60.0, scale=0.3, axes=[AXES]), dataset.contract)
    found = worn(batch, np.random.default_rng(1))
    np.testing.assert_array_equal(found.targets, batch.targets)
    turned = []
    for before, after in zip(batch.features[..., :3], found.features[..., :3], strict=True):
        turn = np.linalg.lstsq(before, after, rcond=None)[0]
        np.testing.assert_allclose(before @ turn, after, atol=1e-4)  # one turn and one size from first step to last
        size = np.cbrt(np.linalg.det(turn))
        np.testing.assert_allclose(turn @ turn.T, size**2 * np.eye(3), atol=1e-5)
        turned.append(turn)
    assert np.abs(turned[0] - turned[1]).max() > 0.05  # and another one for another run
    rows = [(str(run), 60.0 * step, row) for run in range(2) for step, row in enumerate(found.features[run, :, :3])]
    recorded = dataset_of(dataclasses.replace(recipe_of(), features=features_of(dataset)), recording_of(rows, AXES))
    np.testing.assert_allclose(found.features, recorded.features.reshape(2, 60, -1), atol=1e-5)


def features_of(dataset: Dataset) -> dict[str, FeatureSection]:
    return {feature.name: FeatureSection(derived=feature.derived) for feature in dataset.contract.features}


def test_a_changed_pace_holds_for_a_run_and_stays_within_it(recipe_of: Make, recording_of: Make) -> None:
    dataset = moved(recipe_of, recording_of)
    batch = whole_runs(dataset)
    batch.features[..., 0] = batch.targets[..., 0] = np.arange(60)  # each step says which it is
    worn = RunAugmentation(AugmentSection(warp=0.4), dataset.contract)
    paces = []
    for seed in range(40):
        found = worn(batch, np.random.default_rng(seed))
        for at, asked in zip(found.features[..., 0], found.targets[..., 0], strict=True):
            known = np.isfinite(asked)
            np.testing.assert_array_equal(asked[known], at[known])  # targets go with their steps
            assert known[: int(known.sum())].all()  # unknown alone behind the end
            assert at[0] == 0
            paces.append(at[known][-1] / (known.sum() - 1))
    assert min(paces) < 0.75
    assert max(paces) > 1.25
