"""Prints the cost of a training epoch relative to torch's own LSTM over the same chunks, forward and backward.

    python benchmarks/training.py [--recipe solar] [--epochs 9]

Both get the same chunks in the same order on one thread, in alternating epochs. The ratio of their medians counts. The
bare network has as many inputs and units, a dense layer, a squared error and carried state. It has no optimizer step,
schedule, clipping or restarts. Validations are not timed.
"""

from __future__ import annotations

import argparse
import dataclasses
import platform
import statistics
import time
from collections.abc import Iterator

import numpy as np
import torch
from torch import nn

from edge_lstm_train.data.batches import Batch, carried_chunks
from edge_lstm_train.data.dataset import Dataset, read_dataset
from edge_lstm_train.evaluation.baselines import fit_baselines
from edge_lstm_train.model.carried_state import forward_batch
from edge_lstm_train.model.forecaster import State
from edge_lstm_train.model.initial_model import initial_model
from edge_lstm_train.model.losses import loss_functions
from edge_lstm_train.recipe.recipe import Recipe, read_recipe


def chunks(dataset: Dataset, recipe: Recipe) -> list[Batch]:
    """The chunks of one epoch."""
    steps = len(dataset.steps("train"))
    batches: Iterator[Batch] = carried_chunks(dataset, recipe.fit.segments, recipe.fit.chunk, np.random.default_rng(1))
    epoch, count = [], 0
    while count < steps - recipe.fit.segments:
        epoch.append(next(batches))
        count += epoch[-1].restart.size
    return epoch


class Ours:
    """An epoch as in `fit`: restarts, loss in units of the ridge's error, optimizer, clipping."""

    def __init__(self, recipe: Recipe, dataset: Dataset) -> None:
        spread = fit_baselines(dataset).residual
        self.model = initial_model(recipe, dataset, spread)
        self.losses = loss_functions(recipe, dataset, spread)
        self.optimizer = torch.optim.AdamW(self.model.parameters(), recipe.fit.learning_rate, fused=True)
        self.state: State | None = None

    def epoch(self, epoch: list[Batch]) -> None:
        self.model.train()
        for batch in epoch:
            predictions, self.state = forward_batch(self.model, batch, self.state)
            loss = self.losses.loss(predictions, torch.from_numpy(batch.targets))
            self.optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
            self.optimizer.step()


class Bare:
    """torch.nn.LSTM and a dense layer, forward and backward."""

    def __init__(self, recipe: Recipe, dataset: Dataset) -> None:
        section = recipe.model
        self.rnn = nn.LSTM(dataset.features.shape[1], section.hidden, section.layers, batch_first=True)
        self.head = nn.Linear(section.hidden, dataset.targets.shape[1])

    def epoch(self, epoch: list[Batch]) -> None:
        state = None
        for batch in epoch:
            hidden, following = self.rnn(torch.from_numpy(batch.features), state)
            state = tuple(tensor.detach() for tensor in following)
            loss = ((self.head(hidden) - torch.from_numpy(batch.targets).nan_to_num()) ** 2).mean()
            self.rnn.zero_grad(set_to_none=True)
            self.head.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--recipe", default="solar")
    parser.add_argument("--epochs", type=int, default=9)
    arguments = parser.parse_args()
    recipe = read_recipe(arguments.recipe)
    dataset = read_dataset(recipe)
    torch.set_num_threads(1)
    print(f"{platform.machine()}, Python {platform.python_version()}, torch {torch.__version__}, one thread")
    print(
        f"{recipe.name}: {len(dataset.steps('train')):,} steps an epoch, {recipe.fit.segments} x {recipe.fit.chunk}\n"
    )
    print(f"{'units':>6}{'highway':>9}{'ours ms':>10}{'bare ms':>10}{'ratio':>8}")
    for hidden in (32, 64):
        for highway in (0, 8):
            model = dataclasses.replace(recipe.model, hidden=hidden, highway=highway, most_parameters=10**6)
            shaped = dataclasses.replace(recipe, model=model)
            rivals = Ours(shaped, dataset), Bare(shaped, dataset)
            epoch = chunks(dataset, shaped)
            times: tuple[list[float], list[float]] = ([], [])
            for _ in range(arguments.epochs + 1):
                for rival, taken in zip(rivals, times, strict=True):
                    begun = time.process_time()  # of this process: others on the machine do not count
                    rival.epoch(epoch)
                    taken.append(1000 * (time.process_time() - begun))
            ours, bare = (statistics.median(taken[1:]) for taken in times)
            print(f"{hidden:>6}{highway:>9}{ours:>10.1f}{bare:>10.1f}{ours / bare:>8.2f}")


if __name__ == "__main__":
    main()
