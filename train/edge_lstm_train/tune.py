"""The search for better recipe keys: trials compared by their streamed validation error, never by the test part.

The trials are in one Optuna storage, so several processes or machines can share a search, and a stopped search can
continue. A trial over the budget of parameters or time is refused before it trains.
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
from edge_lstm_train.data.sensor_dropout import with_failures
from edge_lstm_train.evaluation.baselines import fit_baselines, linear_starts
from edge_lstm_train.evaluation.formatting import TextTable
from edge_lstm_train.evaluation.report import Paragraph, Section, Table
from edge_lstm_train.model.candidates import candidate_recipes, start_of
from edge_lstm_train.model.fit import fit
from edge_lstm_train.model.initial_model import initial_model
from edge_lstm_train.model.linear_start import LinearFits
from edge_lstm_train.recipe.recipe import Recipe
from edge_lstm_train.recipe.toml_text import recipe_toml
from edge_lstm_train.recipe.training_sections import AugmentSection, FitSection, ModelSection, Range

_SECTIONS = {"model": ModelSection, "fit": FitSection, "augment": AugmentSection}
_HINTS = {name: get_type_hints(section) for name, section in _SECTIONS.items()}
_TIMED_STEPS = 200
REFUSAL = "over the budget"  # a trial's attribute with the reason why it was not trained
_RECIPE_DIGEST = "recipe"
_ATTEMPTS, _WAIT_S = 20, 0.25

# The search space of a recipe without [tune].
DEFAULT_SPACE = {
    "model.hidden": Range(choices=[8, 16, 24, 32, 48]),
    "model.layers": Range(choices=[1, 2]),
    "model.recurrent_dropout": Range(least=0.0, most=0.3),
    "fit.learning_rate": Range(least=1e-3, most=1e-2, log=True),
    "fit.chunk": Range(choices=[48, 96, 192]),
    "augment.noise": Range(choices=[0.0, 0.1, 0.2]),
}


@dataclass(frozen=True)
class Budget:
    """The limits that a device sets."""

    parameters: int | None = None
    step_us: float | None = None  # of the numpy backend on this machine


@dataclass(frozen=True, eq=False)
class TuneResult:
    """The result of a search so far."""

    recipe: Recipe  # with the best keys found
    error: float  # its streamed validation error
    table: TextTable  # the best trials first
    refused: list[str]  # the reason of each trial that was not trained


def tune(recipe: Recipe, trials: int, storage: str, study_name: str, budget: Budget) -> TuneResult:
    """Search until the study has so many finished trials, including those of other processes.

    storage: an Optuna storage, such as sqlite:///trials.db. Raises EdgeLstmError if the recipe names a key that cannot
    be tuned, or if no trial fits the budget.
    """
    space = _search_space(recipe)
    dataset = read_dataset(recipe)  # for all trials: none of the keys changes inputs or targets
    judged = with_failures(dataset, recipe.augment.sensor_dropout)  # alike for all trials
    error_scale, linear = np.ones(dataset.targets.shape[1]), None
    if recipe.classify is None:
        baselines = fit_baselines(dataset, most_weights=recipe.model.most_parameters)
        error_scale, linear = baselines.residual, linear_starts(judged, baselines)

    def trial_error(trial: optuna.Trial) -> float:
        # The trial's number is unique over all processes. With one seed for all, each process would try the same keys.
        study.sampler = _sampler(recipe.fit.seed + trial.number)
        try:
            changed = changed_recipe(recipe, {key: _suggest(trial, key, one) for key, one in space.items()})
        except EdgeLstmError as error:  # values that contradict each other
            trial.set_user_attr(REFUSAL, error.message)
            raise optuna.TrialPruned from None
        # the candidate with the most to learn, with the linear path that `train` gives it
        *_, (name, richest) = candidate_recipes(changed, linear).items()
        start = start_of(name, richest, changed, linear)
        over = _over_budget(richest, dataset, start, budget, trial)
        if over is not None:
            trial.set_user_attr(REFUSAL, over)
            raise optuna.TrialPruned
        search_alone = dataclasses.replace(richest, fit=dataclasses.replace(richest.fit, refit=False))
        try:
            fitted = fit(search_alone, judged, error_scale, linear=start)
        except EdgeLstmError as error:  # windows longer than any run
            trial.set_user_attr(REFUSAL, error.message)
            raise optuna.TrialPruned from None
        if fitted.interrupted_at is not None:
            raise KeyboardInterrupt  # an interrupted trial does not count
        return min(point.validation_error for point in fitted.curve)

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = _open_study(storage, study_name)
    _refuse_another(study, recipe, space)
    states = (optuna.trial.TrialState.COMPLETE, optuna.trial.TrialState.PRUNED)  # killed trials do not count
    until = optuna.study.MaxTrialsCallback(trials, states=states)
    if len(study.get_trials(deepcopy=False, states=states)) < trials:
        study.optimize(trial_error, callbacks=[until])
    return _result(recipe, study)


def _open_study(storage: str, study_name: str) -> optuna.Study:
    """The study in its storage, created if it is missing.

    If two processes create the tables at once, one fails, and finds them on its next attempt.
    """
    for left in range(_ATTEMPTS, 0, -1):
        try:
            kept = storage if "://" in storage else JournalStorage(JournalFileBackend(storage))
            return optuna.create_study(study_name=study_name, storage=kept, load_if_exists=True)
        except (SQLAlchemyError, OSError, ImportError, ValueError) as error:
            if left == 1 or not isinstance(error, DatabaseError):
                result = str(getattr(error, "orig", error)).splitlines()[0]
                raise EdgeLstmError(
                    f"expected a storage of trials at {storage}, found: {result}",
                    "write it like sqlite:///trials.db, mysql+pymysql://user@host/trials, or trials.log for a journal",
                ) from None
            time.sleep(_WAIT_S)
    raise AssertionError  # the last attempt has returned or raised


def _sampler(seed: int) -> optuna.samplers.TPESampler:
    return optuna.samplers.TPESampler(seed=seed, constant_liar=True)


def _refuse_another(study: optuna.Study, recipe: Recipe, space: dict[str, Range]) -> None:
    """Refuse a study of another recipe or other ranges: its trials are not comparable."""
    recording = dataclasses.replace(recipe.recording, path=recipe.recording.name)  # paths differ between machines
    text = recipe_toml(dataclasses.replace(recipe, recording=recording, tune=space))
    digest = hashlib.sha256(text.encode()).hexdigest()
    known = study.user_attrs.get(_RECIPE_DIGEST)
    if known is None:
        study.set_user_attr(_RECIPE_DIGEST, digest)
    elif known != digest:
        raise EdgeLstmError(
            f'expected the search of this recipe in the study "{study.study_name}", found that of another one',
            "continue with the unchanged recipe, or start another study with --study NAME",
        )


def _result(recipe: Recipe, study: optuna.Study) -> TuneResult:
    done = study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.COMPLETE,))
    if not done:
        over = _refused(study)
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
    return TuneResult(best, float(done[0].value or 0.0), (header, rows), _refused(study))


def _refused(study: optuna.Study) -> list[str]:
    pruned = study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.PRUNED,))
    return [str(trial.user_attrs.get(REFUSAL, "")) for trial in pruned]


def trials_section(result: TuneResult) -> Section:
    """The report's section on the trials."""
    note = [Paragraph(refused_text(result.refused), "note")] if result.refused else []
    return Section("Trials, the best first", [Table(*result.table), *note])


def refused_text(refused: Sequence[str]) -> str:
    """The number of trials that were not trained, and the reason of the last one."""
    trials = f"{len(refused)} trial{'s were' if len(refused) > 1 else ' was'}"
    return f"{trials} not trained; the last: {refused[-1]}"


def _shown(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _search_space(recipe: Recipe) -> dict[str, Range]:
    space = recipe.tune or DEFAULT_SPACE
    for name in space:
        section, _, field = name.partition(".")
        known = section in _SECTIONS and field in _HINTS[section]
        if not known:
            raise EdgeLstmError(
                f'expected keys of {", ".join(f"[{one}]" for one in _SECTIONS)} under [tune], found "{name}"',
                'write them like "model.hidden" = {choices = [16, 32]}',
            )
    return space


def _suggest(trial: optuna.Trial, key: str, one: Range) -> Any:
    if one.texts or one.choices:
        return trial.suggest_categorical(key, one.texts or one.choices)
    assert one.least is not None  # its faults() requires both
    assert one.most is not None
    if _is_whole(key):
        return trial.suggest_int(key, math.ceil(one.least), math.floor(one.most), log=one.log)
    return trial.suggest_float(key, one.least, one.most, log=one.log)


def _is_whole(key: str) -> bool:
    section, _, field = key.partition(".")
    return {int, bool} & {*get_args(_HINTS[section][field]), _HINTS[section][field]} != set()


def changed_recipe(recipe: Recipe, values: dict[str, Any]) -> Recipe:
    """The recipe with other values for some keys. Raises ConfigError if they contradict each other."""
    tables = {name: dataclasses.asdict(getattr(recipe, name)) for name in _SECTIONS}
    for name, value in values.items():
        section, _, field = name.partition(".")
        if _is_whole(name) and float(value).is_integer():
            value = bool(value) if _HINTS[section][field] is bool and value in (0, 1) else int(value)
        tables[section][field] = value
    sections: dict[str, Any] = {name: from_mapping(tables[name], kind, f"[{name}]") for name, kind in _SECTIONS.items()}
    changed = dataclasses.replace(recipe, **sections)
    faults = [f"{name}: {result}" for name, result in changed.faults()]
    if faults:
        raise ConfigError("; ".join(faults), "narrow [tune] in the recipe")
    return changed


def _over_budget(
    recipe: Recipe, dataset: Dataset, linear: LinearFits | None, budget: Budget, trial: optuna.Trial
) -> str | None:
    """The limit that the recipe exceeds, in words, or None; known before training."""
    trial.set_user_attr("parameters", recipe.parameters)
    if budget.parameters is not None and recipe.parameters > budget.parameters:
        return f"{recipe.parameters:,} parameters, over {budget.parameters:,}"
    step_us = _step_us(recipe, dataset, linear)
    trial.set_user_attr("step_us", step_us)
    if budget.step_us is not None and step_us > budget.step_us:
        return f"{step_us:.1f} µs a step, over {budget.step_us:g}"
    return None


def _step_us(recipe: Recipe, dataset: Dataset, linear: LinearFits | None) -> float:
    """The median time per step of one stream on the numpy backend, in microseconds."""
    ones = np.ones(dataset.targets.shape[1])
    backend = ReferenceBackend(initial_model(recipe, dataset, ones, linear=linear).network())
    states = initial_states(recipe.contract(*_unit_statistics(recipe)), 1)
    times = []
    for row in np.resize(dataset.features, (_TIMED_STEPS, dataset.features.shape[1])):
        begun = time.perf_counter()
        _, states = backend.step(row[None], states)
        times.append(time.perf_counter() - begun)
    return float(np.median(times) * 1e6)


def _unit_statistics(recipe: Recipe) -> tuple[list[float], list[float]]:
    return [0.0] * len(recipe.features), [1.0] * len(recipe.features)
