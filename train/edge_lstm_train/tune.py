"""The search for a recipe: trials over its own keys, judged by the streamed validation, never by the test part.

The trials live in one Optuna storage, so that several processes or machines share a search and a stopped one goes on.
A trial over the budget of parameters or time is refused before it trains.
"""

from __future__ import annotations

import dataclasses
import hashlib
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, get_args, get_type_hints

import numpy as np
import optuna
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from sqlalchemy.exc import DatabaseError, SQLAlchemyError

from edge_lstm.backends.reference import ReferenceBackend
from edge_lstm.backends.selftest import initial_states
from edge_lstm.foundation.config import from_mapping
from edge_lstm.foundation.errors import ConfigError, EdgeLstmError
from edge_lstm_train.data.dataset import Dataset, read_dataset
from edge_lstm_train.evaluation.baselines import fit_baselines
from edge_lstm_train.evaluation.report import Paragraph, Section, Table
from edge_lstm_train.model.fit import fit, untrained
from edge_lstm_train.recipe.recipe import Recipe
from edge_lstm_train.recipe.sections import AugmentSection, FitSection, ModelSection, Range
from edge_lstm_train.recipe.toml_text import recipe_toml

_SECTIONS = {"model": ModelSection, "fit": FitSection, "augment": AugmentSection}
_HINTS = {name: get_type_hints(section) for name, section in _SECTIONS.items()}
_TIMED_STEPS = 200
OVER = "over the budget"
_RECIPE = "recipe"
_ATTEMPTS, _WAIT_S = 20, 0.25

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
    refused: list[str]  # why, of each trial that was not trained


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
        # The number is of this trial alone, in whichever process; one seed for all would try the same in each of them.
        search.sampler = _sampler(recipe.fit.seed + trial.number)
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
        try:
            fitted = fit(search_alone, dataset, spread)
        except EdgeLstmError as error:  # windows that no run is long enough for
            trial.set_user_attr(OVER, error.message)
            raise optuna.TrialPruned from None
        if fitted.interrupted_at is not None:
            raise KeyboardInterrupt  # half a trial is none
        return min(point.validation_error for point in fitted.curve)

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    search = _opened(storage, study)
    _refuse_another(search, recipe, space)
    states = (optuna.trial.TrialState.COMPLETE, optuna.trial.TrialState.PRUNED)  # what was killed counts for none
    until = optuna.study.MaxTrialsCallback(trials, states=states)
    if len(search.get_trials(deepcopy=False, states=states)) < trials:
        search.optimize(trial_error, callbacks=[until])
    return _tuned(recipe, search)


def _opened(storage: str, study: str) -> optuna.Study:
    """The study in its storage, made where there is none.

    Of two processes that make the tables at once one fails, and finds them made when it tries again.
    """
    for left in range(_ATTEMPTS, 0, -1):
        try:
            kept = storage if "://" in storage else JournalStorage(JournalFileBackend(storage))
            return optuna.create_study(study_name=study, storage=kept, load_if_exists=True)
        except (SQLAlchemyError, OSError, ImportError, ValueError) as error:
            if left == 1 or not isinstance(error, DatabaseError):
                found = str(getattr(error, "orig", error)).splitlines()[0]
                raise EdgeLstmError(
                    f"expected a storage of trials at {storage}, found: {found}",
                    "write it like sqlite:///trials.db, mysql+pymysql://user@host/trials, or trials.log for a journal",
                ) from None
            time.sleep(_WAIT_S)
    raise AssertionError  # the last attempt has returned or raised


def _sampler(seed: int) -> optuna.samplers.TPESampler:
    return optuna.samplers.TPESampler(seed=seed, constant_liar=True)


def _refuse_another(search: optuna.Study, recipe: Recipe, space: dict[str, Range]) -> None:
    """Trials of another recipe or other ranges in the study would be compared with what they cannot be."""
    recording = dataclasses.replace(recipe.recording, path=recipe.recording.name)  # which lies elsewhere elsewhere
    text = recipe_toml(dataclasses.replace(recipe, recording=recording, tune=space))
    digest = hashlib.sha256(text.encode()).hexdigest()
    known = search.user_attrs.get(_RECIPE)
    if known is None:
        search.set_user_attr(_RECIPE, digest)
    elif known != digest:
        raise EdgeLstmError(
            f'expected the search of this recipe in the study "{search.study_name}", found that of another one',
            "go on with the recipe as it was, or begin anew with --study NAME",
        )


def _tuned(recipe: Recipe, search: optuna.Study) -> Tuned:
    done = search.get_trials(deepcopy=False, states=(optuna.trial.TrialState.COMPLETE,))
    if not done:
        over = _refused(search)
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
    best = changed_recipe(recipe, done[0].params)
    return Tuned(best, float(done[0].value or 0.0), (header, rows), _refused(search))


def _refused(search: optuna.Study) -> list[str]:
    pruned = search.get_trials(deepcopy=False, states=(optuna.trial.TrialState.PRUNED,))
    return [str(trial.user_attrs.get(OVER, "")) for trial in pruned]


def trials_section(found: Tuned) -> Section:
    """The trials, for the report."""
    note = [Paragraph(refused_text(found.refused), "note")] if found.refused else []
    return Section("Trials, the best first", [Table(*found.table), *note])


def refused_text(refused: Sequence[str]) -> str:
    """How many trials were not trained, and why the last one was not."""
    trials = f"{len(refused)} trial{'s were' if len(refused) > 1 else ' was'}"
    return f"{trials} not trained; the last: {refused[-1]}"


def _shown(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _space(recipe: Recipe) -> dict[str, Range]:
    space = recipe.tune or DEFAULT
    for name in space:
        section, _, field = name.partition(".")
        known = section in _SECTIONS and field in _HINTS[section]
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
    if _is_whole(key):
        return trial.suggest_int(key, math.ceil(one.least), math.floor(one.most), log=one.log)
    return trial.suggest_float(key, one.least, one.most, log=one.log)


def _is_whole(key: str) -> bool:
    section, _, field = key.partition(".")
    return {int, bool} & {*get_args(_HINTS[section][field]), _HINTS[section][field]} != set()


def changed_recipe(recipe: Recipe, values: dict[str, Any]) -> Recipe:
    """The recipe with other values for some keys. Raises ConfigError where they do not go together."""
    tables = {name: dataclasses.asdict(getattr(recipe, name)) for name in _SECTIONS}
    for name, value in values.items():
        section, _, field = name.partition(".")
        if _is_whole(name) and float(value).is_integer():
            value = bool(value) if _HINTS[section][field] is bool and value in (0, 1) else int(value)
        tables[section][field] = value
    sections: dict[str, Any] = {name: from_mapping(tables[name], kind, f"[{name}]") for name, kind in _SECTIONS.items()}
    changed = dataclasses.replace(recipe, **sections)
    faults = [f"{name}: {found}" for name, found in changed.faults()]
    if faults:
        raise ConfigError("; ".join(faults), "narrow [tune] in the recipe")
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
