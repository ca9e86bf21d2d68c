"""Training: reproducible, independent of the test part, and never worse than its start."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch.optim.optimizer import register_optimizer_step_pre_hook

from edge_lstm.recordings.recording import Recording
from edge_lstm_train.data.batches import Batch
from edge_lstm_train.data.dataset import Dataset, dataset_of
from edge_lstm_train.evaluation.baselines import fit_baselines
from edge_lstm_train.evaluation.predictions import aligned, predict
from edge_lstm_train.model import fit as fitting
from edge_lstm_train.model.carried_state import predict_streamed
from edge_lstm_train.model.fit import Fitted, fit
from edge_lstm_train.model.initial_model import initial_model
from edge_lstm_train.recipe.recipe import Recipe
from edge_lstm_train.recipe.task_sections import RegressSection
from edge_lstm_train.recipe.training_sections import FitSection, ModelSection
from tests.train.conftest import of_task, with_label

Make = Callable[..., Any]


def fitted_on(recipe: Recipe, recording: Recording) -> tuple[Dataset, Fitted]:
    dataset = dataset_of(recipe, recording)
    return dataset, fit(recipe, dataset, fit_baselines(dataset).residual)


def weights_of(fitted: Fitted) -> dict[str, Any]:
    return {name: value.numpy() for name, value in fitted.model.state_dict().items()}


def same(one: Fitted, other: Fitted) -> bool:
    mine, theirs = weights_of(one), weights_of(other)
    return all(np.array_equal(mine[name], theirs[name]) for name in mine)


def test_the_same_seed_gives_the_same_weights_and_another_seed_others(recipe_of: Make, waves: Recording) -> None:
    model = ModelSection(hidden=8, dropout=0.1, recurrent_dropout=0.1)
    recipe = recipe_of(model=model, max_gap_s=600)
    _, one = fitted_on(recipe, waves)
    torch.manual_seed(99)  # whatever the caller did to torch
    _, two = fitted_on(recipe, waves)
    _, three = fitted_on(dataclasses.replace(recipe, fit=dataclasses.replace(recipe.fit, seed=2)), waves)
    assert same(one, two)
    assert not same(one, three)


def test_the_test_part_reaches_neither_weights_nor_statistics(recipe_of: Make, waves: Recording) -> None:
    recipe = recipe_of(max_gap_s=600)
    dataset, one = fitted_on(recipe, waves)
    spoilt = waves.values.copy()
    spoilt[waves.times >= dataset.starts["test"]] = 1e3
    other, two = fitted_on(recipe, dataclasses.replace(waves, values=spoilt))
    assert dataset.contract == other.contract
    assert same(one, two)


@pytest.mark.parametrize("cell", ["lstm", "gru"])
@pytest.mark.parametrize("method", ["carried", "windows"])
def test_either_cell_learns_a_wave_by_either_method(recipe_of: Make, waves: Recording, cell: Any, method: Any) -> None:
    section = FitSection(
        updates=80, learning_rate=0.02, segments=16, chunk=15, method=method, window=12 if method == "windows" else None
    )
    recipe = recipe_of(model=ModelSection(cell=cell, hidden=8), fit=section, max_gap_s=600)
    _, fitted = fitted_on(recipe, waves)
    start = fitted.curve[0].validation_error
    assert min(point.validation_error for point in fitted.curve) < 0.75 * start


def test_the_runtime_matches_torch_on_whole_sequences(recipe_of: Make, waves: Recording) -> None:
    for cell in ("lstm", "gru"):
        recipe = recipe_of(horizons=[1, 4], model=ModelSection(cell=cell, hidden=8, layers=2), max_gap_s=600)
        dataset, fitted = fitted_on(recipe, waves)
        runtime = aligned(dataset, predict(dataset.contract, fitted.model.network(), waves))
        np.testing.assert_allclose(predict_streamed(fitted.model, dataset), runtime, rtol=1e-5)


def test_an_untrained_network_is_persistence_or_the_mean(recipe_of: Make, waves: Recording) -> None:
    recipe = recipe_of(horizons=[1, 4])
    dataset = dataset_of(recipe, waves)
    predicted = predict_streamed(initial_model(recipe, dataset, np.ones(2)), dataset)
    np.testing.assert_allclose(predicted, dataset.naive_predictions, rtol=1e-6)
    absolute = dataclasses.replace(recipe, forecast=dataclasses.replace(recipe.forecast, change=False))
    predicted = predict_streamed(initial_model(absolute, dataset, np.ones(2)), dataset)
    usual = np.nanmean(dataset.targets[dataset.steps("train")], axis=0)
    np.testing.assert_allclose(predicted, np.broadcast_to(usual, predicted.shape), rtol=1e-6)


def test_a_state_does_not_cross_a_restart(recipe_of: Make, waves: Recording) -> None:
    dataset, fitted = fitted_on(recipe_of(max_gap_s=600), waves)
    gap = int(np.flatnonzero(dataset.restart)[-1])
    alone = dataclasses.replace(dataset, features=dataset.features.copy())
    alone.features[gap - 50 : gap] = 0
    before, after = predict_streamed(fitted.model, dataset), predict_streamed(fitted.model, alone)
    np.testing.assert_array_equal(before[gap:], after[gap:])
    assert not np.array_equal(before[gap - 50 : gap], after[gap - 50 : gap])


def spoil_from(update: int, monkeypatch: pytest.MonkeyPatch, how: Callable[[Batch], Batch]) -> None:
    """From this update on, every batch is what `how` makes of it."""
    batches = fitting.carried_chunks

    def spoilt(*arguments: Any) -> Iterator[Batch]:
        for index, batch in enumerate(batches(*arguments), 1):
            yield how(batch) if index >= update else batch

    monkeypatch.setattr(fitting, "carried_chunks", spoilt)


QUICK = FitSection(updates=80, learning_rate=0.02, segments=16, chunk=15)


def best_of(fitted: Fitted) -> int:
    return min(fitted.curve, key=lambda point: point.validation_error).update


def test_a_non_finite_loss_ends_training_and_keeps_the_best(
    recipe_of: Make, waves: Recording, monkeypatch: pytest.MonkeyPatch
) -> None:
    spoil_from(60, monkeypatch, lambda batch: dataclasses.replace(batch, features=batch.features * np.float32(np.nan)))
    _, fitted = fitted_on(recipe_of(fit=QUICK, max_gap_s=600), waves)
    assert fitted.diverged_at == 60
    assert fitted.best == best_of(fitted) >= 10
    assert all(np.isfinite(value).all() for value in weights_of(fitted).values())


def test_ctrl_c_keeps_the_best_weights_so_far(
    recipe_of: Make, waves: Recording, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(batch: Batch) -> Batch:
        raise KeyboardInterrupt

    spoil_from(60, monkeypatch, interrupt)
    _, fitted = fitted_on(recipe_of(fit=QUICK, max_gap_s=600), waves)
    assert fitted.interrupted_at == 59  # the last update that was made
    assert fitted.best == best_of(fitted) >= 10


def test_a_highway_carries_its_samples_across_chunks(recipe_of: Callable[..., Recipe], waves: Recording) -> None:
    recipe = recipe_of(model=ModelSection(hidden=4, highway=6))
    dataset = dataset_of(recipe, waves)
    assert [state.shape for state in dataset.contract.states[-2:]] == [[6], [1]]
    model = fit(recipe, dataset, fit_baselines(dataset).residual).model
    assert sum(parameter.numel() for parameter in model.parameters()) == recipe.parameters
    features = torch.from_numpy(dataset.features[None, :50])
    with torch.no_grad():
        whole, _ = model(features, model.initial_state(1))
        state, pieces = model.initial_state(1), []
        for begin, end in ((0, 1), (1, 4), (4, 30), (30, 50)):
            piece, state = model(features[:, begin:end], state)
            pieces.append(piece)
    assert torch.allclose(torch.cat(pieces, dim=1), whole, atol=1e-5)
    assert model.highway.weight.abs().max() > 0


def test_a_refit_uses_the_validation_part_as_does_its_ridge(
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
        predicted = predict_streamed(fitted.model, dataset)[:, 0], baselines.predictions["ridge"][:, 0]
        return [float(np.polyfit(values, one, 1)[0]) for one in predicted]

    assert slopes(False) == pytest.approx([1.0, 1.0], abs=0.05)
    assert slopes(True) == pytest.approx([1.25, 1.25], abs=0.05)  # three rows of 1 to one of 2, and none of 9
    assert learned_from == [1200, 1200, 1600]


def learning_rates(recipe: Recipe, recording: Recording) -> list[float]:
    rates: list[float] = []
    hook = register_optimizer_step_pre_hook(lambda optimizer, *_: rates.append(optimizer.param_groups[0]["lr"]))
    try:
        fitted_on(recipe, recording)
    finally:
        hook.remove()
    return rates


def test_a_cosine_falls_throughout_and_one_cycle_rises_first(recipe_of: Make, waves: Recording) -> None:
    section = FitSection(updates=40, learning_rate=0.01)
    cosine, cycle = (
        learning_rates(recipe_of(fit=dataclasses.replace(section, schedule=name), max_gap_s=600), waves)
        for name in ("cosine", "one-cycle")
    )
    np.testing.assert_allclose(cosine, [0.005 * (1 + np.cos(np.pi * update / 40)) for update in range(40)])
    assert cycle[0] == pytest.approx(0.01 / 25)
    assert int(np.argmax(cycle)) == 3
    assert max(cycle) == pytest.approx(0.01)
