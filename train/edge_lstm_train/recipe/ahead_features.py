"""The features of a quantity that is known ahead: one for each step, with the keys of the quantity's own section."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from edge_lstm.bundle.known_ahead import KnownAhead, feature_name
from edge_lstm.recordings.ahead_columns import AheadColumn
from edge_lstm.recordings.columns import ValueColumn
from edge_lstm_train.recipe.recording_sections import FeatureSection

_AHEAD = "known_ahead"
_STEPS = "known_ahead_steps"
_SHARED = (  # keys of the quantity that each of its features has too
    "unit",
    "mask",
    "level",
    "categories",
    "sentinels",
    "least",
    "most",
    "circular",
    "period",
    _AHEAD,
    "known_ahead_between",
    "known_ahead_noise",
)


def with_ahead_features(recipe: Mapping[str, Any]) -> Mapping[str, Any]:
    """The table of a recipe with a feature like `outdoor+6` for each step of a quantity that is known ahead.

    Keys that the table has for such a feature stay. With step 0, the quantity itself is no feature: no reading has it.
    """
    features = recipe.get("features")
    if not isinstance(features, Mapping):
        return recipe
    forecast = recipe.get("forecast")
    horizons = forecast.get("horizons") if isinstance(forecast, Mapping) else None
    completed: dict[str, Any] = {}
    for name, section in features.items():
        if not _is_quantity(section):
            completed.setdefault(name, section)
            continue
        steps: Any = section.get(_STEPS) or horizons
        if not _are_steps(steps):
            completed[name] = section
            continue
        if 0 not in steps:
            completed[name] = {**section, _STEPS: steps}
        for step in steps:
            own = features.get(feature_name(name, step), {})
            shared = {key: section[key] for key in _SHARED if key in section}
            added = {_STEPS: [step], "quantity": name, "actual": section.get("column", name), "aggregate": "last"}
            completed[feature_name(name, step)] = {**shared, **added, **own} if isinstance(own, Mapping) else own
    return {**recipe, "features": completed}


def _is_quantity(section: Any) -> bool:
    return isinstance(section, Mapping) and _AHEAD in section and "quantity" not in section


def _are_steps(steps: Any) -> bool:
    return isinstance(steps, list) and bool(steps) and all(type(step) is int and step >= 0 for step in steps)


def known_ahead_of(features: Mapping[str, FeatureSection]) -> list[KnownAhead]:
    """The quantities of which these features are later values."""
    steps: dict[str, list[int]] = {}
    sections: dict[str, FeatureSection] = {}
    for section in features.values():
        if section.quantity is not None:
            steps.setdefault(section.quantity, []).extend(section.known_ahead_steps)
            sections[section.quantity] = section
    return [
        KnownAhead(name, section.known_ahead or "", steps[name], section.known_ahead_between)
        for name, section in sections.items()
    ]


def ahead_columns(features: Mapping[str, FeatureSection], values: Mapping[str, ValueColumn]) -> dict[str, AheadColumn]:
    """Where a recording has those features that are later values. `values`: the column of each feature by its keys."""
    found = {}
    for name, section in features.items():
        if section.quantity is None:
            continue
        actual = values.get(section.quantity)
        if actual is None:
            one = values[name]
            column = section.actual or section.quantity
            actual = ValueColumn(column, one.sentinels, one.least, one.most, one.categories, one.text, one.unit)
        found[name] = AheadColumn(
            section.quantity,
            section.known_ahead_steps[0],
            actual,
            section.known_ahead_between,
            section.column,
            section.known_ahead_noise,
            section.circle,
        )
    return found
