"""Training for each task: what a recipe says becomes targets, a loss, baselines and a verdict."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from edge_lstm.errors import EdgeLstmError
from edge_lstm.recording import Recording
from edge_lstm_train import fit as fitting
from edge_lstm_train.augment import Noise, Worn
from edge_lstm_train.baselines import fit_baselines
from edge_lstm_train.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from edge_lstm_train.classification import MARKOV, ClassScore, class_baselines, reliability, true_classes
from edge_lstm_train.classification import verdict as classification_verdict
from edge_lstm_train.dataset import Batch, Dataset, carried_chunks, cropped_runs, dataset_of
from edge_lstm_train.evaluate import aligned, coverage, predict
from edge_lstm_train.fit import carried, fit, streamed, untrained
from edge_lstm_train.judgement import judge
from edge_lstm_train.losses import objective
from edge_lstm_train.recipe import Recipe
from edge_lstm_train.run import unseen_steps
from edge_lstm_train.sections import (
    AnomalySection,
    AugmentSection,
    ClassifySection,
    FeatureSection,
    FitSection,
    ModelSection,
    RecordingSection,
    RegressSection,
)

Make = Callable[..., Recipe]


def of_task(recipe: Recipe, **sections: object) -> Recipe:
    (task,) = sections
    return dataclasses.replace(recipe, task=task, forecast=None, **sections)


def with_label(recording: Recording, name: str, values: np.ndarray, categories: tuple[str, ...] = ()) -> Recording:
    found = {name: categories} if categories else {}
    return dataclasses.replace(recording, labels={name: values}, categories=found)


def test_a_network_that_remembers_tells_classes_apart_that_no_single_step_can(
    recipe_of: Make, recording_of: Make
) -> None:
    random = np.random.default_rng(0)
    signs = np.repeat(random.choice([-1.0, 1.0], 150), 20)  # blocks of 20 steps, their sign only in the first
    values = np.where(np.arange(3000) % 20 == 0, signs, 0.0) + random.normal(0, 0.05, 3000)
    recording = recording_of([("s", 60.0 * index, [value]) for index, value in enumerate(values)])
    labelled = with_label(recording, "sign", (signs > 0).astype(float), ("minus", "plus"))
    section = ClassifySection("sign", classes=["minus", "plus"])
    recipe = of_task(
        recipe_of(fit=FitSection(updates=250, segments=16, chunk=60, learning_rate=0.01)), classify=section
    )
    dataset = dataset_of(recipe, labelled)
    fitted = fit(recipe, dataset, np.ones(2))
    predictions = predict(dataset.contract, fitted.model.network(), dataset.recording)
    judged = judge(recipe, dataset, None, predictions)
    (figures,) = judged.figures["test"]
    assert figures["accuracy"]["model"] > 0.95
    assert figures["accuracy"]["logistic"] < 0.7
    assert judged.verdict.startswith("The model beats every baseline")


def test_the_next_symbol_has_a_markov_chain_beside_it(recipe_of: Make, recording_of: Make) -> None:
    pattern = [0.0, 1.0, 2.0, 1.0]  # after 1 comes 0 or 2: a chain cannot know which
    recording = recording_of([("s", 60.0 * index, [pattern[index % 4]]) for index in range(600)])
    recording = dataclasses.replace(recording, categories={"x": ("a", "b", "c")})
    section = ClassifySection("x", classes=["a", "b", "c"], ahead=1)
    recipe = of_task(recipe_of(), classify=section)
    recipe = dataclasses.replace(recipe, features={"x": FeatureSection(categories=["a", "b", "c"])})
    dataset = dataset_of(recipe, recording)
    truth, test = true_classes(dataset), dataset.steps("test")[:-1]
    assert truth[:4].tolist() == [1, 2, 1, 0]
    assert (class_baselines(dataset)[MARKOV][test] == truth[test]).mean() == pytest.approx(0.75, abs=0.02)
    assert untrained(recipe, dataset, np.ones(3)).seen.tolist() == [0, 1, 1, 1]  # the number of a class means nothing


def test_a_label_is_estimated_and_capped(recipe_of: Make, recording_of: Make) -> None:
    values = np.random.default_rng(0).normal(0, 1, 600)
    recording = recording_of([("s", 60.0 * index, [value]) for index, value in enumerate(values)])
    recipe = of_task(recipe_of(), regress=RegressSection("power", "W", cap=3.0))
    power = 2 * values + 1 + np.random.default_rng(1).normal(0, 0.1, 600)
    dataset = dataset_of(recipe, with_label(recording, "power", power))
    assert np.nanmax(dataset.targets) == 3.0
    baselines = fit_baselines(dataset)
    fitted = fit(recipe, dataset, baselines.residual)
    judged = judge(recipe, dataset, baselines, predict(dataset.contract, fitted.model.network(), dataset.recording))
    assert set(judged.scores[0].rmse) == {"model", "mean", "ridge"}
    assert judged.scores[0].r2["ridge"] > 0.8
    assert judged.scores[0].unit == "W"


def test_a_virtual_sensor_is_not_asked_where_none_of_its_sensors_spoke(recipe_of: Make, recording_of: Make) -> None:
    values = np.random.default_rng(0).normal(0, 1, (300, 2))
    power = values.sum(axis=1)
    values[5:8] = np.nan  # an outage
    values[9, 0] = np.nan  # one sensor alone
    recording = recording_of([("s", 60.0 * index, row) for index, row in enumerate(values)], ("x", "y"))
    recipe = of_task(recipe_of(features={"x": False, "y": False}), regress=RegressSection("power", "W"))
    dataset = dataset_of(recipe, with_label(recording, "power", power))
    assert len(dataset) == 300  # the state steps through the outage all the same
    assert np.flatnonzero(np.isnan(dataset.targets[:, 0])).tolist() == [5, 6, 7]


def test_a_head_that_says_all_of_its_target_works_in_the_targets_own_unit(recipe_of: Make, recording_of: Make) -> None:
    values = np.random.default_rng(0).normal(0, 1, 400)
    recording = recording_of([("s", 60.0 * index, [value]) for index, value in enumerate(values)])
    alone = of_task(recipe_of(), regress=RegressSection("power"))
    beside = dataclasses.replace(alone, model=ModelSection(hidden=2, highway=1))
    power = 30 * values + np.random.default_rng(1).normal(0, 3, 400)
    dataset = dataset_of(alone, with_label(recording, "power", power))
    ridge = np.array([0.5])
    usual = np.nanstd(dataset.targets[dataset.steps("train")])
    assert untrained(alone, dataset, ridge).output_scale.tolist() == pytest.approx([usual])
    assert untrained(beside, dataset, ridge).output_scale.tolist() == [0.5]  # the highway says the most of it
    ahead = dataset_of(recipe_of(), recording)
    assert untrained(recipe_of(), ahead, ridge).output_scale.tolist() == [0.5]  # a change from the newest value


def test_a_refit_learns_from_the_validation_part_and_so_does_the_ridge_beside_it(
    recipe_of: Make, recording_of: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = np.random.default_rng(0).normal(0, 1, 2000)
    power = values * np.repeat([1.0, 2.0, 9.0], [1200, 400, 400])  # another one in each part
    recording = recording_of([("s", 60.0 * index, [value]) for index, value in enumerate(values)])

    learned_from: list[int] = []
    chunks = fitting.carried_chunks

    def noted(dataset: Dataset, *arguments: Any) -> Iterator[Batch]:
        learned_from.append(len(dataset.steps("train")))
        return chunks(dataset, *arguments)

    monkeypatch.setattr(fitting, "carried_chunks", noted)

    def slopes(refit: bool) -> list[float]:
        section = FitSection(updates=8, segments=4, chunk=20, learning_rate=1e-5, refit=refit)
        recipe = recipe_of(model=ModelSection(hidden=2, highway=1, level_free=False), fit=section)
        recipe = of_task(recipe, regress=RegressSection("power"))
        dataset = dataset_of(recipe, with_label(recording, "power", power))
        baselines = fit_baselines(dataset, refit)
        fitted = fit(recipe, dataset, baselines.residual)
        assert fitted.refitted == refit
        said = streamed(fitted.model, dataset)[:, 0], baselines.predictions["ridge"][:, 0]
        return [float(np.polyfit(values, one, 1)[0]) for one in said]

    assert slopes(False) == pytest.approx([1.0, 1.0], abs=0.05)
    assert slopes(True) == pytest.approx([1.25, 1.25], abs=0.05)  # three rows of 1 to one of 2, and none of 9
    assert learned_from == [1200, 1200, 1600]


def test_a_refit_that_was_stopped_is_gone_through_again_to_the_same_weights(
    recipe_of: Make, waves: Recording, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    section = FitSection(updates=16, segments=4, chunk=20, refit=True)
    recipe = recipe_of(model=ModelSection(hidden=4, dropout=0.3), fit=section)
    dataset = dataset_of(recipe, waves)
    whole = fit(recipe, dataset, np.ones(1))
    assert whole.best > 2
    left = {"updates": 16 + 2}
    real = torch.nn.utils.clip_grad_norm_

    def clipped(*arguments: object) -> object:
        left["updates"] -= 1
        if left["updates"] < 0:
            raise KeyboardInterrupt
        return real(*arguments)

    with monkeypatch.context() as patched:
        patched.setattr("torch.nn.utils.clip_grad_norm_", clipped)
        stopped = fit(recipe, dataset, np.ones(1), run_dir=tmp_path)
    assert (stopped.interrupted_at, stopped.refitted, stopped.best) == (16, False, whole.best)
    resumed = fit(recipe, dataset, np.ones(1), run_dir=tmp_path, resume=True)
    assert resumed.refitted
    for name, value in whole.model.state_dict().items():
        np.testing.assert_array_equal(resumed.model.state_dict()[name], value, err_msg=name)


def test_quantiles_lie_where_they_should(recipe_of: Make, recording_of: Make) -> None:
    values = np.random.default_rng(0).normal(0, 1, 2000)
    recording = recording_of([("s", 60.0 * index, [value]) for index, value in enumerate(values)])
    recipe = recipe_of(fit=FitSection(updates=150, segments=8, chunk=50, learning_rate=0.01))
    recipe = dataclasses.replace(
        recipe, forecast=dataclasses.replace(recipe.forecast, quantiles=[0.1, 0.9], change=False)
    )
    dataset = dataset_of(recipe, recording)
    assert [name for name, _ in dataset.contract.outputs] == ["x", "x p10", "x p90"]
    fitted = fit(recipe, dataset, fit_baselines(dataset).residual)
    found = coverage(dataset, predict(dataset.contract, fitted.model.network(), recording))
    assert [one.level for one in found] == [0.1, 0.9]
    assert [one.below for one in found] == pytest.approx([0.1, 0.9], abs=0.06)


def test_an_anomaly_is_scored_against_its_truth(recipe_of: Make, recording_of: Make) -> None:
    random = np.random.default_rng(0)
    values = np.sin(np.arange(1500) / 5) + random.normal(0, 0.05, 1500)
    values[1350:1420] += np.linspace(0, 3, 70) * random.choice([-1, 1], 70)
    truth = np.zeros(1500)
    truth[1350:1420] = 1
    recording = with_label(
        recording_of([("s", 60.0 * index, [value]) for index, value in enumerate(values)]), "bad", truth
    )
    section = AnomalySection(span_steps=10, calibrate_steps=300, truth="bad")
    recipe = of_task(recipe_of(model=ModelSection(hidden=8, highway=6)), anomaly=section)
    dataset = dataset_of(recipe, recording)
    baselines = fit_baselines(dataset)
    fitted = fit(recipe, dataset, baselines.residual)
    judged = judge(recipe, dataset, baselines, predict(dataset.contract, fitted.model.network(), dataset.recording))
    (figures,) = judged.figures["test"]
    assert figures["f1"]["model"] > 0.7
    assert figures["false_alarms"]["model"] < 0.1
    assert figures["false_alarms"]["always"] == 1.0


def test_an_untrained_highway_is_the_ridge_over_its_taps(recipe_of: Make, waves: Recording) -> None:
    recipe = recipe_of(model=ModelSection(hidden=4, highway=11, level_free=False))
    dataset = dataset_of(recipe, waves)
    baselines = fit_baselines(dataset)
    said = streamed(untrained(recipe, dataset, baselines.residual), dataset)
    test = dataset.steps("test")[12:]
    own, ridge = (
        float(np.nanstd(one[test, 0] - dataset.targets[test, 0])) for one in (said, baselines.predictions["ridge"])
    )
    assert own == pytest.approx(ridge, rel=0.01)


def test_layers_do_not_see_a_level_that_the_recipe_keeps_from_them(recipe_of: Make, waves: Recording) -> None:
    recipe = recipe_of(fit=FitSection(updates=20, segments=4, chunk=20))
    hidden = dataclasses.replace(recipe, features={"x": FeatureSection(level=False, derived=["difference"])})
    dataset = dataset_of(hidden, waves)
    network = fit(hidden, dataset, np.ones(1)).model.network()
    assert not network.layers[0].w_ih[:, 0].any()
    assert network.layers[0].w_ih[:, 1].any()
    shifted = dataclasses.replace(waves, values=waves.values + 1000.0)
    said = aligned(dataset, predict(dataset.contract, network, waves))
    other = aligned(dataset, predict(dataset.contract, network, shifted))
    np.testing.assert_allclose(other - 1000.0, said, atol=2e-3)


def test_a_learned_start_is_where_every_stream_starts_on_a_device(recipe_of: Make, waves: Recording) -> None:
    recipe = recipe_of(
        model=ModelSection(hidden=4, learned_start=True), fit=FitSection(updates=30, segments=4, chunk=20)
    )
    dataset = dataset_of(recipe, waves)
    model = fit(recipe, dataset, np.ones(1)).model
    starts = model.started()
    assert [len(start) for start in starts] == [4, 4]
    assert any(abs(number) > 1e-4 for start in starts for number in start)
    states = [dataclasses.replace(one, start=start) for one, start in zip(dataset.contract.states, starts, strict=True)]
    contract = dataclasses.replace(dataset.contract, states=states)
    runtime = aligned(dataset, predict(contract, model.network(), waves))
    np.testing.assert_allclose(streamed(model, dataset), runtime, rtol=1e-5)


@pytest.mark.parametrize("part", ["recordings", "one at a time"])
def test_a_messy_recording_makes_the_same_inputs_in_training_and_on_the_device(
    part: str, recipe_of: Make, recording_of: Make
) -> None:
    random = np.random.default_rng(7)
    rows = []
    for stream in ("a", "b", "c"):
        time = 1_700_000_000.0
        for _ in range(300):
            time += float(random.choice([5, 20, 61, 130, 2000], p=[0.4, 0.3, 0.2, 0.09, 0.01]))
            values = [float(random.normal(20, 3)), float(random.integers(0, 2)), float(random.normal())]
            rows.append((stream, time, [math.nan if random.random() < 0.2 else value for value in values]))
    rows += rows[40:60]  # repeated and late
    recipe = recipe_of(clock=["time_of_day", "elapsed"], fit=FitSection(updates=4, segments=4, chunk=20))
    recipe = dataclasses.replace(
        recipe,
        features={
            "x": FeatureSection(mask=True, derived=["difference", "mean 10", "deviation 5", "slope 3 9"]),
            "side": FeatureSection(categories=["left", "right"]),
            "y": FeatureSection(mirrored_by="side", aggregate="most"),
        },
        clip=2.0,
        sampling=dataclasses.replace(recipe.sampling, interval_s=60.0, max_gap_s=600.0, grid=part == "recordings"),
    )
    recording = recording_of(rows, ("x", "side", "y"))
    dataset = dataset_of(recipe, recording)
    model = fit(recipe, dataset, np.ones(1)).model
    runtime = aligned(dataset, predict(dataset.contract, model.network(), recording))
    assert np.isfinite(runtime).all()
    np.testing.assert_allclose(runtime, streamed(model, dataset), rtol=1e-4, atol=1e-4)


def test_a_search_that_was_stopped_goes_on_to_the_same_weights(
    recipe_of: Make,
    waves: Recording,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    recipe = recipe_of(model=ModelSection(hidden=4, layers=2, dropout=0.3, recurrent_dropout=0.2))
    recipe = dataclasses.replace(recipe, augment=AugmentSection(noise=0.1))
    dataset = dataset_of(recipe, waves)
    whole = fit(recipe, dataset, np.ones(1))
    stopped = {"update": 9}

    real = torch.nn.utils.clip_grad_norm_

    def loss(*arguments: object) -> object:
        stopped["update"] -= 1
        if stopped["update"] == 0:
            raise KeyboardInterrupt
        return real(*arguments)

    with monkeypatch.context() as patched:
        patched.setattr("torch.nn.utils.clip_grad_norm_", loss)
        assert fit(recipe, dataset, np.ones(1), run_dir=tmp_path).interrupted_at == 9
    capsys.readouterr()
    resumed = fit(recipe, dataset, np.ones(1), run_dir=tmp_path, resume=True)
    said = capsys.readouterr().err.splitlines()
    assert (said[0][:13], said[-1][:14]) == ("training 9/16", "training 16/16")  # and not from 1 to 8
    assert resumed.best == whole.best
    for name, value in whole.model.state_dict().items():
        np.testing.assert_array_equal(resumed.model.state_dict()[name], value, err_msg=name)
    assert [point.update for point in resumed.curve] == [point.update for point in whole.curve]


def test_crops_begin_anywhere_in_the_first_half_of_a_run(recipe_of: Make, waves: Recording) -> None:
    dataset = dataset_of(recipe_of(), waves)
    batches = cropped_runs(dataset, 2, 50, np.random.default_rng(0))
    firsts = set()
    for _ in range(200):
        batch = next(batches)
        if batch.restart[:, 0].all():
            firsts |= {round(float(row[0, 0]), 4) for row in batch.features}
        assert np.isnan(batch.targets).all(axis=2)[batch.features[..., 0] == 0].all()
    assert len(firsts) > 20


def test_noise_changes_what_is_measured_and_seen_and_nothing_else(recipe_of: Make, recording_of: Make) -> None:
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
    derived = ["difference", "mean 5", "deviation 5"]
    sections = {name: dataclasses.replace(section, derived=derived) for name, section in recipe.features.items()}
    return dataset_of(dataclasses.replace(recipe, features=sections), recording_of(rows, AXES))


def whole_runs(dataset: Dataset) -> Batch:
    """The two recordings side by side."""
    at = np.arange(120).reshape(2, 60)
    return Batch(dataset.features[at], dataset.targets[at].astype(np.float32), dataset.restart[at])


def test_a_turned_sensor_is_turned_for_a_whole_run_and_what_is_derived_follows(
    recipe_of: Make, recording_of: Make
) -> None:
    dataset = moved(recipe_of, recording_of)
    batch = whole_runs(dataset)
    worn = Worn(AugmentSection(rotate_degrees=60.0, scale=0.3, axes=[AXES]), dataset.contract)
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


def test_another_pace_holds_for_a_whole_run_and_asks_nothing_behind_its_end(
    recipe_of: Make, recording_of: Make
) -> None:
    dataset = moved(recipe_of, recording_of)
    batch = whole_runs(dataset)
    batch.features[..., 0] = batch.targets[..., 0] = np.arange(60)  # each step says which it is
    worn = Worn(AugmentSection(warp=0.4), dataset.contract)
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


def test_a_refit_whose_last_update_spoils_the_weights_leaves_those_that_were_validated(
    recipe_of: Make, waves: Recording, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = recipe_of(fit=FitSection(updates=16, segments=4, chunk=20, refit=True))
    dataset = dataset_of(recipe, waves)
    found = fit(recipe, dataset, np.ones(1))
    assert found.refitted
    clips = [0]
    real = torch.nn.utils.clip_grad_norm_

    def spoilt(parameters: Any, largest: float) -> object:
        clips[0] += 1
        listed = list(parameters)
        if clips[0] == 16 + found.best:
            listed[0].grad.fill_(float("inf"))
        return real(listed, largest)

    monkeypatch.setattr("torch.nn.utils.clip_grad_norm_", spoilt)
    kept = fit(recipe, dataset, np.ones(1))
    assert (kept.refitted, kept.diverged_at, kept.best) == (False, found.best, found.best)
    assert all(torch.isfinite(weights).all() for weights in kept.model.state_dict().values())


def test_progress_of_another_recipe_or_kind_is_refused(recipe_of: Make, waves: Recording, tmp_path: Path) -> None:
    recipe = recipe_of()
    dataset = dataset_of(recipe, waves)
    fit(recipe, dataset, np.ones(1), run_dir=tmp_path)
    other = recipe_of(fit=FitSection(updates=24, segments=4, chunk=20))
    with pytest.raises(EdgeLstmError, match="expected the progress of this recipe, found that of another one"):
        fit(other, dataset, np.ones(1), run_dir=tmp_path, resume=True)
    shorter = dataset_of(recipe, waves.rows(slice(len(waves) - 1)))
    with pytest.raises(EdgeLstmError, match="expected the progress of this recording, found that of another one"):
        fit(recipe, shorter, np.ones(1), run_dir=tmp_path, resume=True)
    (tmp_path / "progress.pt").write_bytes(b"no such thing")
    with pytest.raises(EdgeLstmError, match="found another kind of file"):
        fit(recipe, dataset, np.ones(1), run_dir=tmp_path, resume=True)


def test_a_full_disk_leaves_the_progress_before(
    recipe_of: Make, waves: Recording, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = recipe_of()
    dataset = dataset_of(recipe, waves)
    whole = fit(recipe, dataset, np.ones(1), run_dir=tmp_path)
    kept = (tmp_path / "progress.pt").read_bytes()

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr("os.fsync", full)
        with pytest.raises(EdgeLstmError, match="No space left"):
            fit(recipe, dataset, np.ones(1), run_dir=tmp_path)
    assert (tmp_path / "progress.pt").read_bytes() == kept
    assert [file.name for file in tmp_path.iterdir()] == ["progress.pt"]
    assert fit(recipe, dataset, np.ones(1), run_dir=tmp_path, resume=True).best == whole.best


def test_cuda_is_refused_where_there_is_none(recipe_of: Make, waves: Recording) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a CUDA device here")
    recipe = recipe_of()
    with pytest.raises(EdgeLstmError, match="expected a CUDA device"):
        fit(recipe, dataset_of(recipe, waves), np.ones(1), device="cuda")


def test_the_verdict_says_where_a_model_is_right_more_often_but_not_class_by_class() -> None:
    shares = {"model": 0.7, "majority": 0.55, "the same again": 0.66}
    score = ClassScore(
        "sky",
        ["a", "b"],
        200,
        shares,
        {"model": 0.35, "majority": 0.2, "the same again": 0.38},
        np.zeros((2, 2), np.int64),
    )
    assert classification_verdict(score) == (
        "The model is right in 70.0 % of 200 steps, the same again in 66.0 %: more often than every baseline, but not "
        "class by class, since the same again has a mean F1 of 0.380 and the model 0.350."
    )
    better = dataclasses.replace(score, f1={**score.f1, "model": 0.4})
    assert classification_verdict(better).startswith("The model beats every baseline: it is right in 70.0 %")


def test_reliability_is_the_share_that_was_right_over_the_probability_said(recipe_of: Make, recording_of: Make) -> None:
    recording = recording_of([("s", 60.0 * index, [float(index % 7)]) for index in range(1000)])
    labelled = with_label(recording, "odd", np.arange(1000) % 2.0, ("no", "yes"))
    dataset = dataset_of(of_task(recipe_of(), classify=ClassifySection("odd", classes=["no", "yes"])), labelled)
    said = np.full((1000, 2), np.nan)
    said[800:900] = [0.4, 0.6]  # of the 200 steps of the test part; every other one is right
    said[900:] = [0.05, 0.95]
    shares, right = reliability(dataset, said)
    np.testing.assert_allclose(shares, [0.6] * 5 + [0.95] * 5)
    np.testing.assert_allclose(right, [0.5] * 10)
    assert reliability(dataset, np.full((1000, 2), np.nan)) == ([], [])


def test_a_recording_without_times_is_drawn_over_its_rows(recipe_of: Make, waves: Recording) -> None:
    recipe = of_task(recipe_of(), regress=RegressSection("y", unit="mm"))
    numbered = dataclasses.replace(recipe, recording=RecordingSection("nowhere.csv", interval_s=60.0))
    clocked = dataclasses.replace(
        recipe, recording=RecordingSection("nowhere.csv", interval_s=60.0, start="2024-01-01")
    )
    assert (recipe.recording.row_s, numbered.recording.row_s, clocked.recording.row_s) == (None, 60.0, None)
    dataset = dataset_of(numbered, with_label(waves, "y", np.arange(len(waves)) % 7.0))
    baselines = fit_baselines(dataset)
    model = untrained(numbered, dataset, baselines.residual)
    judged = judge(numbered, dataset, baselines, predict(dataset.contract, model.network(), dataset.recording))
    titles = [section.title for section in judged.sections]
    assert titles == ["Error on the test part", "The end of the test part", "Residuals", "By stream, the worst first"]
    table, note = judged.sections[0].blocks
    assert table.header == ["estimated", "model", "mean", "ridge", "skill", "R²"]
    assert note.text.endswith("Skill is how far the model's RMSE lies below that of the mean.")
    (residuals,) = judged.sections[2].blocks
    assert residuals.caption == "y: how far off, and how often"


@pytest.mark.parametrize("task", ["forecast", "quantiles", "regress"])
def test_all_that_an_update_computes_with_lies_where_the_network_lies(
    recipe_of: Make, waves: Recording, task: str
) -> None:
    model = ModelSection(hidden=8, layers=2, dropout=0.2, recurrent_dropout=0.2, highway=3, learned_start=True)
    recipe = recipe_of(horizons=[1, 4], model=model, clock=["time_of_day"])
    if task == "quantiles":
        recipe = dataclasses.replace(recipe, forecast=dataclasses.replace(recipe.forecast, quantiles=[0.1, 0.9]))
    elif task == "regress":
        recipe, waves = (
            of_task(recipe, regress=RegressSection("y")),
            with_label(waves, "y", np.arange(len(waves)) % 7.0),
        )
    dataset = dataset_of(recipe, waves)
    spread = np.ones(dataset.targets.shape[1])
    # torch's "meta" device computes shapes alone, and refuses a tensor of another device as a GPU does
    network, aim = untrained(recipe, dataset, spread).to("meta").train(), objective(recipe, dataset, spread)
    optimizer = torch.optim.AdamW(network.parameters())
    state = None
    for batch in itertools.islice(carried_chunks(dataset, 2, 6, np.random.default_rng(1)), 2):
        batch.restart[0, 3] = True  # so that the batch goes in two pieces
        predictions, state = carried(network, batch, state)
        loss = aim.loss(predictions, torch.from_numpy(batch.targets).to("meta"))
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        assert {one.device.type for one in (predictions, loss, *state)} == {"meta"}
    assert {parameter.grad.device.type for parameter in network.parameters() if parameter.grad is not None} == {"meta"}
    with pytest.raises(RuntimeError, match="is not on the expected device"):  # what such a mistake looks like
        network(torch.from_numpy(batch.features), state)


def test_what_a_gpu_wrote_is_read_where_there_is_none(
    recipe_of: Make, waves: Recording, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = recipe_of()
    dataset = dataset_of(recipe, waves)
    with monkeypatch.context() as patched:
        patched.setattr("torch.serialization.location_tag", lambda storage: "cuda:0")  # as of tensors on a GPU
        trained = fit(recipe, dataset, np.ones(1), run_dir=tmp_path)
        features = dataset.features[:50]
        save_checkpoint(tmp_path, Checkpoint(trained.model, dataset.contract, features, {}))
    if not torch.cuda.is_available():
        with pytest.raises(RuntimeError, match="CUDA device"):
            torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    again = fit(recipe, dataset, np.ones(1), run_dir=tmp_path, resume=True)
    for read in (load_checkpoint(tmp_path).model, again.model):
        for name, value in trained.model.state_dict().items():
            assert torch.equal(read.state_dict()[name], value), name


def test_the_tape_of_short_streams_holds_several_of_them(recipe_of: Make, recording_of: Make) -> None:
    random = np.random.default_rng(2)
    rows = [(name, 60.0 * at, [float(random.normal())]) for name in "abc" for at in range(100 if name == "b" else 80)]
    dataset = dataset_of(recipe_of(), recording_of(rows, ("x",)))
    chosen = unseen_steps(dataset)
    assert dataset.recording.streams[dataset.stream_of[chosen[0]]] == "b"  # the one with most of them comes first
    assert sorted(chosen.tolist()) == np.flatnonzero(dataset.part_of > 0).tolist()
