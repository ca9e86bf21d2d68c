"""Training on a GPU, as far as a test without one can check it."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from edge_lstm.foundation.errors import EdgeLstmError
from edge_lstm.recordings.recording import Recording
from edge_lstm_train.data.batches import carried_chunks
from edge_lstm_train.data.dataset import dataset_of
from edge_lstm_train.model.carried_state import forward_batch
from edge_lstm_train.model.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from edge_lstm_train.model.fit import fit
from edge_lstm_train.model.initial_model import initial_model
from edge_lstm_train.model.losses import loss_functions
from edge_lstm_train.recipe.recipe import Recipe
from edge_lstm_train.recipe.task_sections import RegressSection
from edge_lstm_train.recipe.training_sections import ModelSection
from tests.train.conftest import of_task, with_label

Make = Callable[..., Recipe]


def test_cuda_is_refused_where_there_is_none(recipe_of: Make, waves: Recording) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a CUDA device here")
    recipe = recipe_of()
    with pytest.raises(EdgeLstmError, match="expected a CUDA device"):
        fit(recipe, dataset_of(recipe, waves), np.ones(1), device="cuda")


@pytest.mark.parametrize("task", ["forecast", "quantiles", "regress"])
def test_all_tensors_of_an_update_are_on_the_device_of_the_network(
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
    network, losses = initial_model(recipe, dataset, spread).to("meta").train(), loss_functions(recipe, dataset, spread)
    optimizer = torch.optim.AdamW(network.parameters())
    state = None
    for batch in itertools.islice(carried_chunks(dataset, 2, 6, np.random.default_rng(1)), 2):
        batch.restart[0, 3] = True  # so that the batch goes in two pieces
        predictions, state = forward_batch(network, batch, state)
        loss = losses.loss(predictions, torch.from_numpy(batch.targets).to("meta"))
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        assert {one.device.type for one in (predictions, loss, *state)} == {"meta"}
    assert {parameter.grad.device.type for parameter in network.parameters() if parameter.grad is not None} == {"meta"}
    with pytest.raises(RuntimeError, match="is not on the expected device"):  # what such a mistake looks like
        network(torch.from_numpy(batch.features), state)


def test_a_gpu_checkpoint_loads_on_a_cpu(
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
