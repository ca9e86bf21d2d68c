"""Groups of the training part left out in turn: a choice is judged on people or machines that it never saw."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np

from edge_lstm.bundle.contract import Contract
from edge_lstm.foundation.arrays import Flags, Integers
from edge_lstm_train.data.dataset import Dataset
from edge_lstm_train.data.split import NO_PART, PARTS, groups_of
from edge_lstm_train.recipe.recipe import Recipe

_LEAST_GROUPS = 3  # with two, each choice would rest on a single group
_MOST_FOLDS = 6  # each fold is a training of its own

_TRAIN, _VALIDATION, _TEST = (PARTS.index(part) for part in PARTS)


@dataclass(frozen=True, eq=False)
class GroupFold:
    """A dataset whose validation part is some groups, and whose training part is the others. It has no test part."""

    groups: list[str]  # left out of the training
    dataset: Dataset


def group_folds(recipe: Recipe, dataset: Dataset) -> list[GroupFold]:
    """The groups of training and validation part, left out in turn; at most six folds of about as many steps each.

    Empty where the choice is not to be made by groups: there are fewer than three, or the test part holds later steps
    of the same groups, so that the device will meet the groups it was trained on.
    """
    names = np.array(groups_of(recipe.recording, dataset.recording))
    group_of = names[dataset.stream_of]  # (steps,)
    learned = (dataset.part_of == _TRAIN) | (dataset.part_of == _VALIDATION)
    groups = list(dict.fromkeys(group_of[learned].tolist()))
    if len(groups) < _LEAST_GROUPS or np.isin(group_of[dataset.part_of == _TEST], groups).any():
        return []
    folds = []
    for left_out in _dealt(groups, [int((group_of[learned] == group).sum()) for group in groups]):
        outside = np.isin(group_of, left_out)
        part_of = np.where(learned, np.where(outside, _VALIDATION, _TRAIN), NO_PART)
        folds.append(GroupFold(left_out, _with_parts(dataset, part_of)))
    return folds


def _dealt(groups: list[str], steps: list[int]) -> list[list[str]]:
    """The groups in at most six lists: the largest group first, each into the list with the fewest steps so far."""
    count = min(len(groups), _MOST_FOLDS)
    lists: list[list[str]] = [[] for _ in range(count)]
    total = [0] * count
    for place in np.argsort(-np.array(steps), kind="stable"):
        fewest = int(np.argmin(total))
        lists[fewest].append(groups[place])
        total[fewest] += steps[place]
    return sorted(lists, key=lambda names: groups.index(names[0]))


def _with_parts(dataset: Dataset, part_of: Integers) -> Dataset:
    """The dataset with other parts, and with the statistics of its new training part."""
    split = dataclasses.replace(dataset, part_of=part_of)
    return dataclasses.replace(split, contract=_contract(split, part_of == _TRAIN))


def _contract(dataset: Dataset, train: Flags) -> Contract:
    features = []
    for column, feature in enumerate(dataset.contract.features):
        values = dataset.values[train, column]
        if not feature.categories and feature.period is None and values.std() > 0:
            feature = dataclasses.replace(feature, mean=float(values.mean()), scale=float(values.std()))
        features.append(feature)
    return dataclasses.replace(dataset.contract, features=features)
