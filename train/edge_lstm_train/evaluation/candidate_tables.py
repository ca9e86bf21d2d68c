"""The candidates of a training as a table, as figures and in words: which network was chosen, and by how much."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from edge_lstm_train.evaluation.baselines import Baselines
from edge_lstm_train.evaluation.report import Paragraph, Section, Table
from edge_lstm_train.model.candidates import TITLES, Candidate, Choice

_TITLE = "Candidates"


def choice_notes(choice: Choice, baselines: Baselines | None) -> Iterator[str]:
    """Lines for a terminal."""
    yield f"candidates: {', '.join(f'{TITLES[one.name]} {_cost(one)}' for one in choice.candidates)}"
    yield choice.sentence()
    yield from _limits(choice, baselines)


def candidates_section(choice: Choice, baselines: Baselines | None) -> Section:
    """The report's section: a row for each candidate, the simplest first."""
    judged = [] if choice.chosen.judged is None else ["faults missed"]
    header = ["candidate", "validation error", *judged, "against the chosen one", "parameters"]
    header.append("numbers of state a stream")
    table = Table(header, [_row(choice, one) for one in choice.candidates])
    notes = [Paragraph(note, "note") for note in (choice.sentence(), *_limits(choice, baselines))]
    return Section(_TITLE, [table, *notes])


def _row(choice: Choice, one: Candidate) -> list[str]:
    network = one.fitted.model.network()
    chosen = choice.chosen
    against = "chosen"
    if one.name != chosen.name:
        change = 100 * (one.cost / chosen.cost - 1) if chosen.cost > 0 else math.nan
        against = f"{change:+.1f} %"
    states = f"{sum(network.state_sizes.values()):,}"
    judged = [] if one.judged is None else [f"{100 * one.cost:.1f} %"]
    return [TITLES[one.name], f"{one.validation:.4f}", *judged, against, f"{network.parameters:,}", states]


def _cost(one: Candidate) -> str:
    return f"{one.validation:.4f}" if one.judged is None else f"misses {100 * one.cost:.1f} % of injected faults"


def _limits(choice: Choice, baselines: Baselines | None) -> Iterator[str]:
    if share := choice.chosen.recipe.augment.sensor_dropout:
        yield f"Sensors fail in the validation part as in the training, for {100 * share:g} % of the time."
    for name, reason in choice.left_out.items():
        yield f"The {TITLES[name]} is no candidate: {reason}."
    if baselines is not None and (left_out := baselines.ridge.left_out):
        lags = " and ".join(map(str, left_out))
        yield f"Ridge with {lags} lags is no candidate: its weights would be more than most_parameters under [model]."


def candidates_figures(choice: Choice) -> dict[str, Any]:
    """The candidates as JSON values."""
    return {
        "chosen": choice.chosen.name,
        "candidates": [
            {
                "name": one.name,
                "validation_error": one.validation if math.isfinite(one.validation) else None,
                **({} if one.judged is None else {"faults_missed": one.cost}),
                "kept_update": one.fitted.best,
                "parameters": one.fitted.model.network().parameters,
                "chosen_is_better_in": choice.ahead.get(one.name),
            }
            for one in choice.candidates
        ],
        "resampled": f"{choice.blocks} {choice.blocks_are}",
    }
