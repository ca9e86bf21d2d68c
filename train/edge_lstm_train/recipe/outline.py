"""Outlines for a user's own data: a commented recipe that trains at once, and a service config.

They hold only what was found in the recording or is required. `train` writes out every other key with its default.
"""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Iterator, Sequence
from datetime import timezone
from pathlib import Path
from typing import Literal

from edge_lstm.backends.kinds import NAMES
from edge_lstm.foundation.config import suggestion
from edge_lstm.foundation.errors import EdgeLstmError
from edge_lstm.foundation.text import printable
from edge_lstm.foundation.times.text import format_time
from edge_lstm.recordings.ahead_columns import forecasts_among
from edge_lstm.recordings.columns import TimeColumns
from edge_lstm.recordings.tables.name_pattern import STREAM
from edge_lstm_train.recipe.column_kinds import how_often, switch_words
from edge_lstm_train.recipe.survey import Survey
from edge_lstm_train.recipe.task_sections import usual_span
from edge_lstm_train.recipe.toml_text import toml_key, toml_value

Task = Literal["forecast", "anomaly", "classify", "regress"]

_FORECAST_TOPIC = "weather/{stream}/forecast"
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
    "leak",
    "occup",
    "truth",
)
_DAY_S = 86_400.0
_YEAR_FIRST = re.compile(r"%Y\W*%m\W*%d")
_LONGEST_CALIBRATION = 3000  # steps
_LONGEST_SEASON = 2000  # steps
_HORIZONS = (1, 6, 24)
_VALIDATION = 0.2  # share of the rows
_FEWEST_KNOWN = 10  # validation steps with a known target; intervals of 0.9 need nine
_YEARS = 2 * 365.0  # days: in longer recordings levels return, and the day of the year predicts them
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
    """A recipe as TOML. `path`: the recording's path in the recipe. Without `path` and `found`: an example to fill in.

    Raises EdgeLstmError if `target` does not fit the task, if no column does, or if no column is left as a feature.
    """
    survey = found or _EXAMPLE
    chosen = _target_column(task, survey, target)
    if not feature_names(task, survey, target):
        labels = ", ".join(_label_names(task, survey, chosen))
        raise EdgeLstmError(
            f"expected a column besides {labels} as a feature, found none",
            "choose another recording, or --task forecast",
        )
    lines = [
        f"# {_TASKS[task]}",
        "# Check the lines that are marked with <-.",
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
        *_split(task, survey),
        "",
        *_network(task),
    ]
    return "\n".join(lines) + "\n"


_TASKS: dict[Task, str] = {
    "forecast": "The values of your sensors some steps ahead.",
    "anomaly": "An alarm where a series behaves unusually: the error of a forecast, calibrated on each stream.",
    "classify": "The class of each step.",
    "regress": "A value that no sensor on the device measures, estimated from the sensors there are.",
}


def service_outline(name: str, found: Survey | None, features: Sequence[str]) -> str:
    """A service config as TOML, for the bundle of that recipe."""
    texts = {} if found is None else found.texts
    values = {one: texts[one][0] if one in texts else 1.25 for one in features[:3]}
    message = {"time": "2024-03-01T12:00:00Z", **values}
    more = ", and so on" if len(features) > 3 else ""
    return "\n".join(
        [
            f"# Serves {name}.elstm: edge-lstm run service.toml. Paths start at this file's folder.",
            f'bundle = "{name}.elstm"',
            f'# backend = "{NAMES[0]}"        # or {", ".join(NAMES[1:])}; default: the first that is installed',
            "",
            "[mqtt]",
            'url = "mqtt://localhost:1883"                # <- your broker; mqtts:// with TLS',
            f'client_id = "edge-lstm-{name}"               # unique: the broker keeps missed messages under it',
            '# username = "device"',
            '# password_file = "password"',
            "",
            "[input]",
            'topic = "sensors/{stream}"                   # <- the topic of your readings',
            f"# payloads like {json.dumps(message, ensure_ascii=False)}{more}",
            '# time_from = "arrival"      # if messages have no time of their own',
            '# preset = "tasmota"         # or zigbee2mqtt, esphome, shelly, shelly-gen1, homeassistant',
            "",
            "# [input.values]             # if a value's name in the payload differs from the feature's",
            f'# {toml_key(features[0])} = "path.to.value"',
            "",
            *_forecasts(found),
            "[output]",
            'topic = "predictions/{stream}"',
            "",
        ]
    )


def _forecasts(found: Survey | None) -> Iterator[str]:
    """Lines on the forecasts that the bundle takes."""
    for name in {} if found is None else _forecast_columns(found):
        yield f"# forecasts of {printable(name)} come on {_FORECAST_TOPIC}, as the bundle says; elsewhere:"
        yield f"# [forecasts.{toml_key(name)}]"
        yield '# topic = "weather"             # without {stream}: for all streams'
        yield '# points = "hourly"             # where the list of points is; or lists of times and values'
        yield ""


def feature_names(task: Task, survey: Survey | None, target: str | None) -> list[str]:
    """The features of the recipe that `recipe_outline` writes."""
    survey = survey or _EXAMPLE
    chosen = _target_column(task, survey, target)
    labels = _label_names(task, survey, chosen)
    ahead = _ahead_columns(survey)
    return [name for name in survey.numbers if name not in labels and name not in ahead] + [
        name for name in survey.texts if name not in labels and name not in survey.takes
    ]


def relative(path: Path, folder: Path) -> str:
    """A recording's path, relative to the folder of its recipe."""
    return Path(os.path.relpath(path.absolute(), folder.absolute())).as_posix()


def _target_column(task: Task, survey: Survey, target: str | None) -> str | None:
    """The column of the task's target; None for an anomaly without known truth."""
    classes = {**survey.texts, **survey.whole}
    present = [name for name in survey.numbers if name not in _ahead_columns(survey)]
    numbers = [name for name in present if name not in survey.kinds.counters] or present
    fitting = {
        "forecast": [name for name in numbers if name not in survey.whole] or numbers,
        "anomaly": list(survey.whole),
        "classify": list(classes),
        "regress": numbers,
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
        return next((name for name in fitting if name not in named), None) or _refuse_no_target(task, survey)
    if task == "classify":
        return next(iter([*named, *survey.texts, *survey.whole]), None) or _refuse_no_target(task, survey)
    return next(iter([*named, *reversed(fitting)]), None) or _refuse_no_target(task, survey)


def _refuse_no_target(task: Task, survey: Survey) -> str:
    what = "few different values" if task == "classify" else "numbers that change"
    raise EdgeLstmError(
        f"expected a column of {what} for the task {task}, found none",
        "; ".join(survey.doubtful)
        or (f"these columns hold other texts than numbers: {', '.join(survey.others[:10])}; " if survey.others else "")
        + "choose another recording; if 4,310 in it is 4.31 and not 4310, add --decimal comma; if lines are above its "
        "header, --skip-lines N; if texts in it mean a missing value, --missing TEXT",
    )


def _label_names(task: Task, survey: Survey, target: str | None) -> list[str]:
    """Columns that are not inputs: the target, and columns named like labels."""
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
    note = "  # inputs from the clock; also day_of_week, and day_of_year for recordings of two years or more"
    return [f"clock = {json.dumps(inputs)}{note}"]


def _recording(survey: Survey, path: str) -> Iterator[str]:
    yield "[recording]"
    yield f"path = {json.dumps(path)}"
    yield from _layout(survey)
    yield from (f"# <- {printable(note)}" for note in survey.notes)
    if survey.times is not None and survey.times.interval_s is not None:
        yield f"interval_s = {_number_text(survey.times.interval_s)}     # seconds between rows"
    elif survey.times is not None:
        yield from _times(survey.times)
    else:
        yield "# No column of times was found. Name it with its format, or give the time between rows."
        yield '# time = ["date", "hour"]'
        yield '# time_format = "%d.%m.%Y %H:%M"'
        yield "interval_s = 60     # <- seconds between rows"
    if survey.layout.name_pattern is not None and survey.stream_column == STREAM:
        yield f"# its name_pattern finds {survey.streams} streams, a state for each"
    elif survey.stream_column is not None:
        yield f"stream_column = {json.dumps(survey.stream_column)}  # {survey.streams} streams, a state for each"
    else:
        yield '# stream_column = "device"  # if a file holds several streams'
    if survey.words.decimal_comma:
        yield 'decimal = "comma"'
    if survey.words.thousands:
        yield f"thousands = {toml_value(survey.words.thousands)}"
    if survey.words.missing:
        yield f"missing = {toml_value(survey.words.missing)}"
    yield "# sentinels = [-999]  # numbers that mean a missing value"


def _layout(survey: Survey) -> Iterator[str]:
    """The keys of the files' layout that were found or given."""
    found = survey.layout
    if survey.header:
        yield f"header = {toml_value(survey.header)}"
    for name in ("encoding", "separator", "skip_lines", "comment", "units_row", "name_column", "value_column"):
        if getattr(found, name) is not None:
            yield f"{name} = {toml_value(getattr(found, name))}"
    if found.name_pattern is not None:
        yield f"name_pattern = {toml_value(found.name_pattern)}"
    if survey.joining.within_s:
        yield f"join_within_s = {_number_text(survey.joining.within_s)}  # the values of a row come within this time"


def _times(times: TimeColumns) -> Iterator[str]:
    yield f"time = {toml_value(_text_or_list(times.columns))}"
    if times.format is not None:
        sure = "%m" not in times.format or _YEAR_FIRST.search(times.format)
        day_or_month = "" if sure else "  # <- is the day where %d is?"
        yield f"time_format = {toml_value(times.format)}{day_or_month}"
    if times.unit is not None:
        yield f"time_unit = {toml_value(times.unit)}"
    if times.start is not None:
        yield f"start = {toml_value(format_time(times.start))}  # time of the number 0"
    if times.zone is timezone.utc:
        yield '# timezone = "Europe/Berlin"  # if its times name no zone'
    else:
        yield f"timezone = {toml_value(str(times.zone))}"


def _features(task: Task, survey: Survey, target: str | None) -> Iterator[str]:
    labels = _label_names(task, survey, target)
    kinds, ahead = survey.kinds, _ahead_columns(survey)
    for name in survey.numbers:
        if name not in labels and name not in ahead:
            yield ""
            if name in kinds.circles or name in kinds.counters:
                yield from _kind(survey, name)
                continue
            if name in survey.whole:
                few = ", ".join(survey.whole[name][:3])
                yield f"# <- its values are {few}{', ...' if len(survey.whole[name]) > 3 else ''}: is it measured?"
            yield f"[features.{toml_key(name)}]"
            yield _unit_line(survey.units.get(name))
            yield from _known_ahead(survey, name)
            if name in survey.drifting and task in ("forecast", "anomaly") and survey.days < _YEARS:
                first, last = survey.drifting[name]
                yield f"level = false  # <- it drifts from {first:.4g} to {last:.4g}: the layers see these instead"
                yield f'derived = ["difference", "from_mean {_slow_span(survey)}"]  # change, distance from mean'
    for name, texts in survey.texts.items():
        if name not in labels and name not in survey.takes:
            yield ""
            yield f"[features.{toml_key(name)}]"
            if words := switch_words(texts):
                yield f"# a switch: {', '.join(f'{text} is {value:g}' for text, value in words.items())}"
            else:
                yield f"categories = {toml_value(texts)}"
    if kinds.row_numbers:
        yield ""
        yield f"# left out, they rise in equal steps, as row numbers do: {', '.join(kinds.row_numbers)}"
    constants = [name for name in survey.constants if name not in labels]
    if constants:
        yield ""
        yield f"# left out, constant in the training part: {', '.join(constants)}"
    takes = [name for name in survey.takes if name not in labels]
    if takes:
        yield ""
        yield f"# left out, each text is one stretch of rows, which no device measures: {', '.join(takes)}"
    if survey.others:
        yield ""
        yield f"# left out, neither numbers nor a few repeated texts: {', '.join(survey.others)}"


def _ahead_columns(survey: Survey) -> set[str]:
    """The columns that hold forecasts of others."""
    return {column for columns in _forecast_columns(survey).values() for column in columns}


def _forecast_columns(survey: Survey) -> dict[str, dict[str, float]]:
    """By column of actual values, the columns of its forecasts with the number of steps of each; none of a counter."""
    found = forecasts_among(survey.numbers, survey.interval_s or 1.0)
    return {name: columns for name, columns in found.items() if name not in survey.kinds.counters}


def _known_ahead(survey: Survey, name: str) -> Iterator[str]:
    """The keys of a column of which the recording has forecasts."""
    columns = _forecast_columns(survey).get(name, {})
    steps = sorted(int(step) for step in columns.values() if step >= 1 and step.is_integer())
    if steps:
        yield f"# its forecasts are in {', '.join(columns)}"
        yield f"known_ahead = {toml_value(_FORECAST_TOPIC)}  # <- the topic where a device gets them"
        yield f"known_ahead_steps = {steps}"


def _kind(survey: Survey, name: str) -> Iterator[str]:
    """The section of an angle or of a counter."""
    circles, counters = survey.kinds.circles, survey.kinds.counters
    if name in counters:
        falls = counters[name]
        times = f"and fell back to 0 {how_often(falls)}" if falls else "and never falls"
        yield f"# <- it only grows {times}: a counter; the model sees and forecasts its increase since the last row"
        yield f"[features.{toml_key(name)}]"
        yield _unit_line(survey.units.get(name))
        yield "counter = true"
        return
    period = circles[name]
    yield f"[features.{toml_key(name)}]"
    unit = {360.0: "degree", 2 * math.pi: "radian", 400.0: "gon"}.get(period)
    yield _unit_line(unit)
    yield "circular = true  # <- a circle: its end and its begin are neighbours, and sine and cosine are the inputs"
    if unit is None:
        yield f"period = {period:g}"
    yield from _known_ahead(survey, name)


def _unit_line(unit: str | None) -> str:
    return '# unit = "..."  # for reports and messages' if unit is None else f"unit = {toml_value(unit)}"


def _labels(task: Task, survey: Survey, target: str | None) -> Iterator[str]:
    for name in _label_names(task, survey, target):
        yield ""
        yield f"[labels.{toml_key(name)}]  # known, but not an input"
        if name in survey.texts:
            yield f"categories = {toml_value(survey.texts[name])}"


def _sampling(survey: Survey) -> Iterator[str]:
    interval_s = survey.interval_s
    yield "[sampling]"
    yield f"interval_s = {60 if interval_s is None else _number_text(interval_s)}  # the usual time between steps"
    if survey.joining.grid_s is not None:
        yield "grid = true  # the values come at times of their own: a step at each interval"
    yield f"max_gap_s = {_number_text(10 * (interval_s or 60))}  # <- a longer gap resets the state"


def _task(task: Task, survey: Survey, target: str | None) -> Iterator[str]:
    yield f"[{task}]"
    if task == "forecast":
        yield f"targets = {json.dumps([target], ensure_ascii=False)}  # <- features to predict"
        horizons = _horizons(survey)
        yield f"horizons = {horizons}  # <- steps ahead"
        if (season := _season(survey)) is not None:
            yield f'season = {season}  # a day, for the baseline "like yesterday"'
        else:
            yield '# season = 24  # steps of a day, for the baseline "like yesterday"'
        known = survey.streams * (_validation_steps(survey) - horizons[-1])
        off = "" if known >= _FEWEST_KNOWN else "# "
        yield f"{off}intervals = 0.9  # an interval about each prediction that holds the truth in nine of ten cases"
    elif task == "anomaly":
        if target is not None:
            yield f"truth = {json.dumps(target, ensure_ascii=False)}  # for scores alone, not for training"
        else:
            yield '# truth = "broken"  # a label that is 1 during an anomaly, for scores'
        yield from _alarm_rule(survey)
    elif task == "classify":
        assert target is not None  # _target refuses
        classes = {**survey.texts, **survey.whole}[target]
        yield f"label = {json.dumps(target, ensure_ascii=False)}"
        yield f"classes = {toml_value(classes)}"
        yield "balance = true      # rare classes weigh as much as frequent ones"
        yield "smoothing = 0.05    # labels are seldom certain"
        yield "# rare_chunks = 0.5  # if a class is a few percent of the rows, on one day: half of the chunks show it"
        yield "# ahead = 1  # predict the next symbol of a series of events, not the present one"
        yield "# hold_steps = 5  # a new class is reported once it has won this many steps"
    else:
        yield f"target = {json.dumps(target, ensure_ascii=False)}  # <- the value to estimate"
        yield '# unit = "kW"'
        yield "# cap = 125  # the largest target: for a remaining life, with countdown = true in its label"


def _horizons(survey: Survey) -> list[int]:
    """Those of the usual horizons that a stream's validation part has enough steps for."""
    return [ahead for ahead in _HORIZONS if _validation_steps(survey) - ahead >= _FEWEST_KNOWN] or [1]


def _validation_steps(survey: Survey) -> int:
    """Of a stream, by the split that the outline writes."""
    return int(_VALIDATION * survey.rows / max(1, survey.streams))


def _alarm_rule(survey: Survey) -> Iterator[str]:
    """The keys of an alarm rule for this time between steps."""
    span = usual_span(survey.interval_s)
    wanted = max(400, 10 * span)  # averages within a span are alike: ten spans are about five different ones
    if survey.interval_s is not None and wanted < _DAY_S / survey.interval_s <= _LONGEST_CALIBRATION:
        wanted = round(_DAY_S / survey.interval_s)  # a day has mornings and evenings
    yield 'false_alarms_per = "month"  # <- a false alarm of a stream: one an hour, day, week, month, year'
    yield f"span_steps = {span}  # errors are averaged over so many steps{_in_words(span, survey.interval_s)}"
    yield f"hold_steps = {span // 2}  # an alarm ends after so many quiet steps: one event, one alarm"
    yield f"calibrate_steps = {wanted}  # <- a stream's first steps, in normal operation"
    yield "# factor = 3.0  # threshold of an alarm; without it, training finds it for false_alarms_per"


def _in_words(steps: int, interval_s: float | None) -> str:
    if interval_s is None:
        return ""
    seconds = steps * interval_s
    size, unit = next((size, unit) for size, unit in ((3600, "h"), (60, "min"), (0, "s")) if seconds >= size)
    return f", {seconds / (size or 1):.3g} {unit}"


def _split(task: Task, survey: Survey) -> Iterator[str]:
    yield "[split]"
    yield "train = 0.6         # the oldest; the newest are for testing"
    yield f"validation = {_VALIDATION}"
    if survey.streams > 1:
        yield '# by = "stream"      # test on whole streams, if the device will meet new ones'
        yield '# leave_out = ["one", "other-*"]  # the streams to test on'
        if task == "classify":
            yield "# so the network is chosen by leaving out each stream (or group_column) of the others in turn"


def _network(task: Task) -> Iterator[str]:
    """The network and its training. A classifier that was kept from its training data carries over to new devices."""
    yield "[model]"
    if task != "classify":
        yield "hidden = 32        # units; 16 cost little, 64 seldom help"
        yield "# highway = 4      # a linear path over the last samples beside the network, for slow signals"
        yield ""
        yield "[fit]"
        yield "updates = 600      # gradient steps; the best of eight validations is kept"
        return
    yield "hidden = 24        # units; 16 cost little, 64 seldom help"
    yield "linear = true      # logistic regression beside the layers; alone, if they do not improve on it"
    yield "dropout = 0.5"
    yield ""
    yield "[augment]"
    yield "noise = 0.3        # of each input's standard deviation"
    yield "# rotate_degrees = 15                # other positions of a sensor with three axes"
    yield '# axes = [["ax", "ay", "az"]]'
    yield "# scale = 0.1                        # other strengths and paces of a movement"
    yield "# warp = 0.4"
    yield ""
    yield "[fit]"
    yield "updates = 500      # gradient steps; more if a class is rare"
    yield "learning_rate = 4e-3"
    yield "weight_decay = 0.3"
    yield "segments = 32"


def _season(survey: Survey) -> int | None:
    """The steps per day, if they are a whole number of two or more, else None."""
    steps = _DAY_S / survey.interval_s if survey.interval_s else 0
    return int(steps) if 2 <= steps <= _LONGEST_SEASON and steps % 1 == 0 and survey.days >= 3 else None


def _slow_span(survey: Survey) -> int:
    """The steps of a slow average: two seasons."""
    return 2 * (_season(survey) or 50)


def _text_or_list(columns: Sequence[str]) -> str | list[str]:
    return columns[0] if len(columns) == 1 else list(columns)


def _number_text(number: float) -> str:
    return f"{number:g}" if number < 1e6 else f"{number:.0f}"
