"""The search for a recipe: trials over its own keys, judged by the streamed validation, never by the test part.

The trials live in one Optuna storage, so that several processes or machines share a search and a stopped one goes on.
A trial over the budget of parameters or time is refused before it trains.
"""

from __future__ import annotations

import dataclasses
import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import optuna

from edge_lstm.backends.reference import ReferenceBackend
from edge_lstm.config import from_mapping
from edge_lstm.errors import EdgeLstmError
from edge_lstm.selftest import initial_states
from edge_lstm_train.baselines import fit_baselines
from edge_lstm_train.dataset import Dataset, read_dataset
from edge_lstm_train.fit import fit, untrained
from edge_lstm_train.recipe import Recipe
from edge_lstm_train.sections import Range

_SECTIONS = ("model", "fit", "augment")
_TIMED_STEPS = 200
OVER = "over the budget"

# What is searched where the recipe has no [tune].
DEFAULT = {
    "model.hidden": Range(choices=[8, 16, 24, 32, 48]),
    "model.layers": Range(choices=[1, 2]),
    "model.recurrent_dropout": Range(least=0.0, most=0.3),
    "fit.learning_rate": Range(least=1e-3, most=1e-2, log=True),
    "fit.chunk": Range(choices=[48, 96, 192]),
    "augment.noise": Range(choices=[0.0, 0.1, 0.2]),
}


@dataclass(frozen=True)
class Budget:
    """What a device grants a model."""

    parameters: int | None = None
    step_us: float | None = None  # of the numpy backend, here


@dataclass(frozen=True, eq=False)
class Tuned:
    """What a search has come to so far."""

    recipe: Recipe  # with the best keys found
    error: float  # its streamed validation error
    table: tuple[list[str], list[list[str]]]  # header and rows, the best trials first


def tune(recipe: Recipe, trials: int, storage: str, study: str, budget: Budget) -> Tuned:
    """Search until the study has so many finished trials, those of other processes included.

    storage: what Optuna takes, e.g. sqlite:///trials.db. Raises EdgeLstmError where the recipe names a key that cannot
    be tuned, or nothing fits the budget.
    """
    space = _space(recipe)
    dataset = read_dataset(recipe)  # serves all trials: none of the keys changes what goes in or is asked
    spread = (
        np.ones(dataset.targets.shape[1])
        if recipe.classify is not None
        else fit_baselines(dataset, recipe.fit.refit).residual
    )

    def trial_error(trial: optuna.Trial) -> float:
        try:
            changed = changed_recipe(recipe, {key: _suggested(trial, key, one) for key, one in space.items()})
        except EdgeLstmError as error:  # keys that do not go together
            trial.set_user_attr(OVER, error.message)
            raise optuna.TrialPruned from None
        over = _over(changed, dataset, budget, trial)
        if over is not None:
            trial.set_user_attr(OVER, over)
            raise optuna.TrialPruned
        search_alone = dataclasses.replace(changed, fit=dataclasses.replace(changed.fit, refit=False))
        fitted = fit(search_alone, dataset, spread)
        return min(point.validation_error for point in fitted.curve)

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    search = optuna.create_study(
        study_name=study,
        storage=storage,
        load_if_exists=True,
        sampler=optuna.samplers.TPESampler(seed=recipe.fit.seed, constant_liar=True),
    )
    states = (optuna.trial.TrialState.COMPLETE, optuna.trial.TrialState.PRUNED)
    until = optuna.study.MaxTrialsCallback(trials, states=states)
    if len(search.get_trials(deepcopy=False, states=states)) < trials:
        search.optimize(trial_error, callbacks=[until])
    return _tuned(recipe, search)


def _tuned(recipe: Recipe, search: optuna.Study) -> Tuned:
    done = search.get_trials(deepcopy=False, states=(optuna.trial.TrialState.COMPLETE,))
    if not done:
        over = [trial.user_attrs.get(OVER, "") for trial in search.get_trials(deepcopy=False)]
        raise EdgeLstmError(
            f"expected a trial within the budget, found none in {len(over)}: {over[0] if over else 'no trials'}",
            "raise the budget, or give [tune] in the recipe smaller values",
        )
    done = sorted(done, key=lambda trial: float(trial.value or 0.0))
    keys = sorted({key for trial in done for key in trial.params})
    header = ["trial", "validation error", "parameters", "step (µs)", *keys]
    rows = [
        [
            str(trial.number),
            f"{trial.value:.4f}",
            f"{trial.user_attrs['parameters']:,}",
            f"{trial.user_attrs['step_us']:.1f}",
            *(_shown(trial.params.get(key)) for key in keys),
        ]
        for trial in done
    ]
    return Tuned(changed_recipe(recipe, done[0].params), float(done[0].value or 0.0), (header, rows))


def _shown(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _space(recipe: Recipe) -> dict[str, Range]:
    space = recipe.tune or DEFAULT
    for name in space:
        section, _, field = name.partition(".")
        known = section in _SECTIONS and field in {one.name for one in dataclasses.fields(getattr(recipe, section))}
        if not known:
            raise EdgeLstmError(
                f'expected keys of {", ".join(f"[{one}]" for one in _SECTIONS)} under [tune], found "{name}"',
                'write them like "model.hidden" = {choices = [16, 32]}',
            )
    return space


def _suggested(trial: optuna.Trial, key: str, one: Range) -> Any:
    if one.texts or one.choices:
        return trial.suggest_categorical(key, one.texts or one.choices)
    assert one.least is not None  # its faults() say so
    assert one.most is not None
    return trial.suggest_float(key, one.least, one.most, log=one.log)


def changed_recipe(recipe: Recipe, values: dict[str, Any]) -> Recipe:
    """The recipe with other values for some keys. Raises EdgeLstmError where they do not go together."""
    tables = {name: dataclasses.asdict(getattr(recipe, name)) for name in _SECTIONS}
    for name, value in values.items():
        section, _, field = name.partition(".")
        whole = isinstance(tables[section][field], int) and isinstance(value, float) and value.is_integer()
        tables[section][field] = type(tables[section][field])(value) if whole else value
    sections = {name: from_mapping(tables[name], type(getattr(recipe, name)), f"[{name}]") for name in _SECTIONS}
    changed = dataclasses.replace(recipe, **sections)
    faults = [f"{name}: {found}" for name, found in changed.faults()]
    if faults:
        raise EdgeLstmError("; ".join(faults), "narrow [tune] in the recipe")
    return changed


def _over(recipe: Recipe, dataset: Dataset, budget: Budget, trial: optuna.Trial) -> str | None:
    """What of the budget the recipe would break, before it is trained."""
    trial.set_user_attr("parameters", recipe.parameters)
    if budget.parameters is not None and recipe.parameters > budget.parameters:
        return f"{recipe.parameters:,} parameters, over {budget.parameters:,}"
    step_us = _step_us(recipe, dataset)
    trial.set_user_attr("step_us", step_us)
    if budget.step_us is not None and step_us > budget.step_us:
        return f"{step_us:.1f} µs a step, over {budget.step_us:g}"
    return None


def _step_us(recipe: Recipe, dataset: Dataset) -> float:
    """The median time of a step of one stream on the numpy backend, microseconds."""
    backend = ReferenceBackend(untrained(recipe, dataset, np.ones(dataset.targets.shape[1])).network())
    states = initial_states(recipe.contract(*_unit(recipe)), 1)
    times = []
    for row in np.resize(dataset.features, (_TIMED_STEPS, dataset.features.shape[1])):
        begun = time.perf_counter()
        _, states = backend.step(row[None], states)
        times.append(time.perf_counter() - begun)
    return float(np.median(times) * 1e6)


def _unit(recipe: Recipe) -> tuple[list[float], list[float]]:
    return [0.0] * len(recipe.features), [1.0] * len(recipe.features)
