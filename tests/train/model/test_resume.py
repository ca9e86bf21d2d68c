"""Interrupted training: it resumes to the same weights, or is refused."""

from __future__ import annotations

import dataclasses
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from edge_lstm.foundation.errors import EdgeLstmError
from edge_lstm.recordings.recording import Recording, recording_csv
from edge_lstm_train.data.dataset import dataset_of, read_dataset
from edge_lstm_train.evaluation.baselines import fit_baselines
from edge_lstm_train.model.fit import fit
from edge_lstm_train.model.training_progress import TrainingProgress
from edge_lstm_train.recipe.recipe import Recipe, read_recipe
from edge_lstm_train.recipe.training_sections import AugmentSection, FitSection, ModelSection
from edge_lstm_train.run import choose, train
from tests.attack.forked import in_child

Make = Callable[..., Recipe]


def test_interrupted_training_resumes_to_the_same_weights(
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


def test_candidates_resume_beside_the_progress_of_an_earlier_training(
    recipe_of: Make, waves: Recording, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = recipe_of(model=ModelSection(hidden=4))
    dataset = dataset_of(recipe, waves)
    baselines = fit_baselines(dataset)
    earlier = dataclasses.replace(recipe, fit=dataclasses.replace(recipe.fit, seed=2))
    choose(earlier, dataset, baselines, run_dir=tmp_path)
    assert (tmp_path / "progress_both.pt").exists()

    with monkeypatch.context() as patched:
        patched.setattr(TrainingProgress, "validate", stop_after(TrainingProgress.validate, 10))
        assert choose(recipe, dataset, baselines, run_dir=tmp_path).interrupted_at == 10
    resumed = choose(recipe, dataset, baselines, run_dir=tmp_path, resume=True)
    whole = choose(recipe, dataset, baselines)
    assert [one.validation for one in resumed.candidates] == [one.validation for one in whole.candidates]


def stop_after(validate: Callable[..., Any], last: int) -> Callable[..., Any]:
    """Ctrl-C at the validation after that update."""

    def validated(progress: Any, update: int, training_loss: float) -> Any:
        if update == last:
            raise KeyboardInterrupt
        return validate(progress, update, training_loss)

    return validated


def train_and_die(recipe: Path, run_dir: Path) -> None:
    """SIGKILL once the progress of update 8 is saved."""
    save = TrainingProgress.save

    def save_then_die(training: TrainingProgress, *arguments: Any) -> None:
        save(training, *arguments)
        if training.update >= 8:
            os.kill(os.getpid(), signal.SIGKILL)

    TrainingProgress.save = save_then_die  # type: ignore[method-assign]
    train(read_recipe(recipe), run_dir)


def test_killed_training_resumes_to_the_same_weights(waves: Recording, tmp_path: Path) -> None:
    (tmp_path / "waves.csv").write_text(recording_csv(waves))
    recipe = tmp_path / "waves.toml"
    recipe.write_text(
        'name = "waves"\n[recording]\npath = "waves.csv"\nstream_column = "stream"\n[features.x]\n'
        '[forecast]\ntargets = ["x"]\nhorizons = [1]\n[model]\nhidden = 4\ndropout = 0.2\nlearned_start = true\n'
        "[augment]\nnoise = 0.1\n[fit]\nupdates = 16\nsegments = 4\nchunk = 20\n"
    )
    assert in_child(lambda: train_and_die(recipe, tmp_path / "killed")).fault == "it died of SIGKILL"
    assert [file.name for file in (tmp_path / "killed").iterdir()] == ["progress.pt"]
    (tmp_path / "whole").mkdir()
    dataset = read_dataset(read_recipe(recipe))
    error_scale = fit_baselines(dataset).residual
    resumed = fit(read_recipe(recipe), dataset, error_scale, run_dir=tmp_path / "killed", resume=True)
    whole = fit(read_recipe(recipe), dataset, error_scale, run_dir=tmp_path / "whole")
    for name, value in whole.model.state_dict().items():
        assert torch.equal(resumed.model.state_dict()[name], value), name
    assert (tmp_path / "killed/progress.pt").read_bytes() == (tmp_path / "whole/progress.pt").read_bytes()


def test_an_interrupted_refit_is_repeated_to_the_same_weights(
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


def test_a_diverging_refit_keeps_the_validated_weights(
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


def test_progress_of_another_recipe_or_recording_is_refused(recipe_of: Make, waves: Recording, tmp_path: Path) -> None:
    recipe = recipe_of()
    dataset = dataset_of(recipe, waves)
    fit(recipe, dataset, np.ones(1), run_dir=tmp_path)
    other = recipe_of(fit=FitSection(updates=24, segments=4, chunk=20))
    with pytest.raises(EdgeLstmError, match="expected the progress of this recipe, found that of another one"):
        fit(other, dataset, np.ones(1), run_dir=tmp_path, resume=True)
    shorter = dataset_of(recipe, waves.rows(slice(len(waves) - 1)))
    with pytest.raises(EdgeLstmError, match="expected the progress of this recording, found that of another one"):
        fit(recipe, shorter, np.ones(1), run_dir=tmp_path, resume=True)
    for content in (b"no such thing", b"junk"):
        (tmp_path / "progress.pt").write_bytes(content)
        with pytest.raises(EdgeLstmError, match="found another kind of file"):
            fit(recipe, dataset, np.ones(1), run_dir=tmp_path, resume=True)


def test_a_full_disk_keeps_the_earlier_progress(
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
