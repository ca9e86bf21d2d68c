"""Outlines: a commented recipe and service config for a user's own data, to be trained at once and then thought over.

They say only what was found in the recording or has to be said; every other key has a default that `train` writes out.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

from edge_lstm.backends.kinds import NAMES
from edge_lstm.foundation.config import suggestion
from edge_lstm.foundation.errors import EdgeLstmError
from edge_lstm.recordings.columns import TimeColumns
from edge_lstm_train.recipe.survey import Survey
from edge_lstm_train.recipe.toml_text import toml_key, toml_value

Task = Literal["forecast", "anomaly", "classify", "regress"]

_LABELS = (
    "label",
    "class",
    "activity",
    "state",
    "target",
    "anomaly",
    "fault",
    "failure",
    "alarm",
    "broken",
    "defect",
    "occup",
    "truth",
)
_DAY_S = 86_400.0
_LONGEST_SEASON = 2000  # steps
_YEARS = 2 * 365.0  # days: from then on levels come again, and the day of the year says which
_EXAMPLE = Survey(
    10_000,
    TimeColumns(["time"]),
    None,
    1,
    ["temperature", "pressure"],
    [],
    {},
    {"label": ["0", "1"]},
    interval_s=60.0,
    days=7.0,
)


def recipe_outline(task: Task, name: str, path: str | None, found: Survey | None, target: str | None) -> str:
    """A recipe as TOML. `path` is the recording's, as the recipe shall write it; None of both: an example to fill in.

    Raises EdgeLstmError where `target` is no column that fits the task, or none does.
    """
    survey = found or _EXAMPLE
    chosen = _target(task, survey, target)
    lines = [
        f"# {_TASKS[task]}",
        "# Lines that you should look at are marked with <-.",
        f"name = {json.dumps(name)}",
        *([] if task == "forecast" else [f'task = "{task}"']),
        *_clock(survey),
        "",
        *_recording(survey, path or "recording.csv"),
        *_features(task, survey, chosen),
        *_labels(task, survey, chosen),
        "",
        *_sampling(survey),
        "",
        *_task(task, survey, chosen),
        "",
        *_split(survey),
        "",
        "[model]",
        "hidden = 32        # units; 16 cost little, 64 seldom help",
        "# highway = 4      # a linear path over the last samples beside the network, where yesterday says much",
        "",
        "[fit]",
        "updates = 600      # gradient steps; the best of eight validations is kept",
    ]
    return "\n".join(lines) + "\n"


_TASKS: dict[Task, str] = {
    "forecast": "What your sensors will say some steps ahead.",
    "anomaly": "When a series leaves its usual ways: how far a forecast was off, calibrated on each stream.",
    "classify": "Which of some classes each step belongs to.",
    "regress": "A value that no sensor on the device measures, estimated from those that do.",
}


def service_outline(name: str, found: Survey | None, features: Sequence[str]) -> str:
    """A service config as TOML, for a bundle of that recipe."""
    texts = {} if found is None else found.texts
    values = {one: texts[one][0] if one in texts else 1.25 for one in features[:3]}
    message = {"time": "2024-03-01T12:00:00Z", **values}
    more = ", and so on" if len(features) > 3 else ""
    return "\n".join(
        [
            f"# Serves {name}.elstm: edge-lstm run service.toml. Paths start at this file's folder.",
            f'bundle = "{name}.elstm"',
            f'# backend = "{NAMES[0]}"        # or {", ".join(NAMES[1:])}; default: the fastest installed',
            "",
            "[mqtt]",
            'url = "mqtt://localhost:1883"                # <- your broker; mqtts:// with TLS',
            f'client_id = "edge-lstm-{name}"               # one per service: the broker keeps what it missed under it',
            '# username = "device"',
            '# password_file = "password"',
            "",
            "[input]",
            'topic = "sensors/{stream}"                   # <- where readings come from',
            f"# payloads like {json.dumps(message, ensure_ascii=False)}{more}",
            '# time_from = "arrival"      # where messages have no time of their own',
            '# preset = "tasmota"         # or zigbee2mqtt, esphome, shelly, shelly-gen1, homeassistant',
            "",
            "# [input.values]             # where a value has another name or place than the feature",
            f'# {toml_key(features[0])} = "path.to.value"',
            "",
            "[output]",
            'topic = "predictions/{stream}"',
            "",
        ]
    )


def feature_names(task: Task, survey: Survey | None, target: str | None) -> list[str]:
    """The features of the recipe that `recipe_outline` gives."""
    survey = survey or _EXAMPLE
    chosen = _target(task, survey, target)
    labels = _labels_of(task, survey, chosen)
    return [name for name in survey.numbers if name not in labels] + [
        name for name in survey.texts if name not in labels
    ]


def relative(path: Path, folder: Path) -> str:
    """A recording's path as a recipe in `folder` names it."""
    return Path(os.path.relpath(path.absolute(), folder.absolute())).as_posix()


def _target(task: Task, survey: Survey, target: str | None) -> str | None:
    """The column that the task is about; None where an anomaly has no known truth."""
    classes = {**survey.texts, **survey.whole}
    fitting = {
        "forecast": [name for name in survey.numbers if name not in survey.whole] or survey.numbers,
        "anomaly": list(survey.whole),
        "classify": list(classes),
        "regress": survey.numbers,
    }[task]
    if target is not None:
        if target not in (survey.numbers if task in ("forecast", "regress") else fitting):
            what = "a column of numbers that change" if task in ("forecast", "regress") else "a column of few values"
            raise EdgeLstmError(
                f'expected {what} as the target, found "{target}"', f"name another; {suggestion(target, fitting)}"
            )
        return target
    named = [name for name in fitting if any(word in name.lower() for word in _LABELS)]
    if task == "anomaly":
        return next((name for name in named if survey.whole[name] == ["0", "1"]), None)
    if task == "forecast":
        return next((name for name in fitting if name not in named), None) or _none(task)
    if task == "classify":
        return next(iter([*named, *survey.texts, *survey.whole]), None) or _none(task)
    return next(iter([*named, *reversed(fitting)]), None) or _none(task)


def _none(task: Task) -> str:
    what = "few different values" if task == "classify" else "numbers that change"
    raise EdgeLstmError(
        f"expected a column of {what} for the task {task}, found none",
        "name another recording; with --decimal comma where its numbers are like 4,310, which may be thousands",
    )


def _labels_of(task: Task, survey: Survey, target: str | None) -> list[str]:
    """Columns that are no inputs: the target, and whatever is named like an answer."""
    if task == "forecast":
        return []
    named = [name for name in survey.whole if any(word in name.lower() for word in _LABELS)]
    return list(dict.fromkeys([*([target] if target else []), *named]))


def _clock(survey: Survey) -> list[str]:
    inputs = []
    if survey.interval_s is not None and survey.interval_s <= _DAY_S / 4 and survey.days >= 3:
        inputs.append("time_of_day")
    if survey.days >= _YEARS:
        inputs.append("day_of_year")
    note = "  # what the clock says about your sensors; day_of_week, day_of_year from two years on"
    return [f"clock = {json.dumps(inputs)}{note}"]


def _recording(survey: Survey, path: str) -> Iterator[str]:
    yield "[recording]"
    yield f"path = {json.dumps(path)}"
    if survey.header:
        yield f"header = {toml_value(survey.header)}"
    if survey.times is not None:
        yield f"time = {toml_value(_one_or_all(survey.times.columns))}"
        if survey.times.format is not None:
            day_or_month = "" if survey.times.format.startswith("%Y") else "  # <- is the day where %d is?"
            yield f"time_format = {toml_value(survey.times.format)}{day_or_month}"
        yield '# timezone = "Europe/Berlin"  # where its times name no zone'
    else:
        yield "# No column of times was found. Name it, with how it is written, or say how far apart rows are."
        yield '# time = ["date", "hour"]'
        yield '# time_format = "%d.%m.%Y %H:%M"'
        yield "interval_s = 60     # <- seconds between rows"
    if survey.stream_column is not None:
        yield f"stream_column = {json.dumps(survey.stream_column)}  # {survey.streams} streams, a state for each"
    else:
        yield '# stream_column = "device"  # where a file holds several streams'
    if survey.words.decimal_comma:
        yield 'decimal = "comma"'
    yield "# sentinels = [-999]  # numbers that mean a missing value"


def _features(task: Task, survey: Survey, target: str | None) -> Iterator[str]:
    labels = _labels_of(task, survey, target)
    for name in survey.numbers:
        if name not in labels:
            yield ""
            if name in survey.whole:
                few = ", ".join(survey.whole[name][:3])
                yield f"# <- it is only ever {few}{', ...' if len(survey.whole[name]) > 3 else ''}: is it measured?"
            yield f"[features.{toml_key(name)}]"
            yield '# unit = "°C"'
            if name in survey.drifting and task in ("forecast", "anomaly") and survey.days < _YEARS:
                first, last = survey.drifting[name]
                yield f"level = false  # <- it drifts, from {first:.4g} to {last:.4g}: the layers see these instead"
                yield f'derived = ["difference", "from_mean {_slow(survey)}"]  # its change, and how far off its mean'
    for name, texts in survey.texts.items():
        if name not in labels:
            yield ""
            yield f"[features.{toml_key(name)}]"
            yield f"categories = {toml_value(texts)}"
    constants = [name for name in survey.constants if name not in labels]
    if constants:
        yield ""
        yield f"# left out, since they never change in the training part: {', '.join(constants)}"
    if survey.others:
        yield ""
        yield f"# left out, neither numbers nor a few texts that return: {', '.join(survey.others)}"


def _labels(task: Task, survey: Survey, target: str | None) -> Iterator[str]:
    for name in _labels_of(task, survey, target):
        yield ""
        yield f"[labels.{toml_key(name)}]  # known, and no input"
        if name in survey.texts:
            yield f"categories = {toml_value(survey.texts[name])}"


def _sampling(survey: Survey) -> Iterator[str]:
    interval_s = survey.interval_s
    yield "[sampling]"
    yield f"interval_s = {60 if interval_s is None else _short(interval_s)}  # the usual time between steps"
    yield f"max_gap_s = {_short(10 * (interval_s or 60))}  # <- after a longer silence the state begins anew"


def _task(task: Task, survey: Survey, target: str | None) -> Iterator[str]:
    yield f"[{task}]"
    if task == "forecast":
        yield f"targets = {json.dumps([target], ensure_ascii=False)}  # <- features to predict"
        yield "horizons = [1, 6, 24]  # <- steps ahead"
        if (season := _season(survey)) is not None:
            yield f'season = {season}  # a day, for the baseline "like yesterday"'
        else:
            yield '# season = 24  # steps of a day, for the baseline "like yesterday"'
        yield "# quantiles = [0.1, 0.9]  # a range beside each prediction"
    elif task == "anomaly":
        if target is not None:
            yield f"truth = {json.dumps(target, ensure_ascii=False)}  # to score against; it teaches nothing"
        else:
            yield '# truth = "broken"  # a label that is 1 where something was wrong, to score against'
        yield "calibrate_steps = 400  # <- a stream's first steps, which have to be as usual"
        yield "factor = 3.0  # how far beyond what was usual an alarm begins: more is quieter"
    elif task == "classify":
        assert target is not None  # _target refuses
        classes = {**survey.texts, **survey.whole}[target]
        yield f"label = {json.dumps(target, ensure_ascii=False)}"
        yield f"classes = {toml_value(classes)}"
        yield "# ahead = 1  # the next symbol of a series of events, and not the present one"
        yield "# hold_steps = 5  # a class is taken once it has won so many steps"
    else:
        yield f"target = {json.dumps(target, ensure_ascii=False)}  # <- what the device shall estimate"
        yield '# unit = "kW"'
        yield "# cap = 125  # a larger target is this much: for a remaining life, with countdown = true in its label"


def _split(survey: Survey) -> Iterator[str]:
    yield "[split]"
    yield "train = 0.6         # the oldest; the newest are for testing"
    yield "validation = 0.2"
    if survey.streams > 1:
        yield '# by = "stream"      # whole streams for testing, where new ones will come'
        yield '# leave_out = ["one", "other-*"]  # these'


def _season(survey: Survey) -> int | None:
    """The steps of a day, where there are several and they are a whole number."""
    steps = _DAY_S / survey.interval_s if survey.interval_s else 0
    return int(steps) if 2 <= steps <= _LONGEST_SEASON and steps % 1 == 0 and survey.days >= 3 else None


def _slow(survey: Survey) -> int:
    """The span of a slow average: two seasons."""
    return 2 * (_season(survey) or 50)


def _one_or_all(columns: Sequence[str]) -> str | list[str]:
    return columns[0] if len(columns) == 1 else list(columns)


def _short(number: float) -> str:
    return f"{number:g}" if number < 1e6 else f"{number:.0f}"
