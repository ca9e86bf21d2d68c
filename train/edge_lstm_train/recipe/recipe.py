"""The recipe: one TOML file with the task, the recording, the network and the training; contradictions are refused."""

from __future__ import annotations

import dataclasses
import difflib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args

from edge_lstm.bundle.contract import (
    ClockInput,
    Contract,
    Decision,
    Feature,
    Sampling,
    StateTensor,
    Task,
)
from edge_lstm.bundle.feature import derived_parts
from edge_lstm.bundle.known_ahead import feature_name
from edge_lstm.bundle.network import CARRIED, GATES, state_sizes
from edge_lstm.foundation.arguments import path_argument
from edge_lstm.foundation.config import key, read_toml, suggestion
from edge_lstm.foundation.errors import ConfigError
from edge_lstm.foundation.text import is_printable, printable
from edge_lstm.foundation.times.text import parse_time
from edge_lstm.recordings.ahead_columns import AheadColumn
from edge_lstm.recordings.columns import NumberWords, ValueColumn
from edge_lstm.recordings.label_windows import Countdown, LabelWindow, LabelWindows, read_windows
from edge_lstm.recordings.recording import Columns
from edge_lstm_train.recipe.ahead_features import ahead_columns, known_ahead_of, with_ahead_features
from edge_lstm_train.recipe.recording_sections import FeatureSection, LabelSection, RecordingSection
from edge_lstm_train.recipe.task_sections import AnomalySection, ClassifySection, ForecastSection, RegressSection
from edge_lstm_train.recipe.training_sections import (
    AugmentSection,
    CandidateName,
    FitSection,
    ModelSection,
    Range,
    ReportSection,
    SplitSection,
)

_BUNDLED = "edge_lstm_recipes"
T = TypeVar("T")


@dataclass(frozen=True)
class Recipe:
    """All settings of a training. `read_recipe` makes `recording.path` absolute."""

    name: str = key(doc="name of the model: letters, digits, - and _")
    recording: RecordingSection = key(doc="where the readings are")
    features: dict[str, FeatureSection] = key(doc="measured inputs, in order")
    forecast: ForecastSection | None = key(None, doc='what to predict, with task = "forecast"')
    anomaly: AnomalySection | None = key(None, doc='how anomalies are scored, with task = "anomaly"')
    classify: ClassifySection | None = key(None, doc='which classes to distinguish, with task = "classify"')
    regress: RegressSection | None = key(None, doc='what to estimate, with task = "regress"')
    labels: dict[str, LabelSection] = key({}, doc="known values of each row that are not inputs")
    task: Literal["forecast", "anomaly", "classify", "regress"] = key(
        "forecast", doc="what to learn; the section of the same name is required"
    )
    clip: float | None = key(
        None, doc="values further from the mean than this many standard deviations are clipped", least=1.0
    )
    clock: list[ClockInput] = key([], doc="inputs computed from the reading's time (UTC)")
    sampling: Sampling = key(Sampling(), doc="how readings become steps")
    split: SplitSection = key(SplitSection(), doc="training, validation and test part")
    model: ModelSection = key(ModelSection(), doc="the network")
    fit: FitSection = key(FitSection(), doc="how the weights are trained")
    augment: AugmentSection = key(AugmentSection(), doc="random changes to the training data")
    report: ReportSection = key(ReportSection(), doc="what the report shows beside the model")
    tune: dict[str, Range] = key({}, doc='key = the values that edge-lstm tune may try, e.g. "model.hidden"')

    @staticmethod
    def completed(data: Mapping[str, Any]) -> Mapping[str, Any]:
        """The table, with a feature for each later value that is known ahead."""
        return with_ahead_features(data)

    def faults(self) -> Iterator[tuple[str, str]]:
        """Faults within the recipe, each with the key that it is in."""
        yield from self._presence_faults()
        yield from self._text_faults()
        yield from self._task_faults()
        yield from self._circle_faults()
        yield from self._fit_faults()
        yield from self._column_faults()
        yield from self._ahead_faults()
        if isinstance(self.recording.path, dict):
            for name in ("by", "beginning_steps", "validation_from", "test_from", "leave_out", "validate_on"):
                if getattr(self.split, name) != getattr(SplitSection(), name):
                    yield f"split.{name}", "expected none, since path under [recording] names the parts' data sets"
        if self.split.by == "stream" and (self.recording.groups or self.recording.group_column):
            yield "split.by", 'expected "group", since streams of one group must not be on both sides, found "stream"'
        if len(set(self.clock)) < len(self.clock):
            yield "clock", f"expected each once, found {', '.join(self.clock)}"
        interval_s, max_gap_s = self.sampling.interval_s, self.sampling.max_gap_s
        if interval_s and max_gap_s and max_gap_s < interval_s:
            yield "sampling.max_gap_s", f"expected at least interval_s ({interval_s:g}), found {max_gap_s:g}"
        if self.features and self.task_section is not None and self.parameters > self.model.most_parameters:
            yield (
                "model.hidden",
                f"expected at most {self.model.most_parameters:,} parameters, found {self.parameters:,}; "
                "a smaller hidden or fewer layers, or else a larger most_parameters",
            )

    def _presence_faults(self) -> Iterator[tuple[str, str]]:
        """A name, at least one feature, and the section of the task alone."""
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]*", self.name):
            yield "name", f'expected letters, digits, - and _, found "{self.name}"'
        if not self.features:
            yield "features", "expected at least one, as [features.NAME]"
        for task in ("forecast", "anomaly", "classify", "regress"):
            if (getattr(self, task) is None) == (task == self.task):
                yield task, f"missing [{task}]" if task == self.task else f'expected none where task = "{self.task}"'

    def _text_faults(self) -> Iterator[tuple[str, str]]:
        """Texts without control characters, and names of features that exist."""
        for where, text in self._contract_texts():
            if not is_printable(text):
                yield where, f'expected texts without control characters, found "{printable(text)}"'
        for where, named in self._features_named():
            for name in named:
                if name not in self.features:
                    yield where, f'expected names of features, found "{name}"; {suggestion(name, self.features)}'
        for name, feature in self.features.items():
            for other in filter(None, (derived_parts(text)[1] for text in feature.derived)):
                if other == name or (other in self.features and self._is_no_number(other)):
                    yield f"features.{name}.derived", f'expected another feature of numbers, found "{other}"'

    def _is_no_number(self, feature: str) -> bool:
        return bool(self.features[feature].categories) or self.features[feature].circular

    def _circle_faults(self) -> Iterator[tuple[str, str]]:
        """What has no meaning on a circle: quantiles, and a rotation or scale of its axis."""
        circles = [name for name, feature in self.features.items() if feature.circular]
        for name in circles:
            for part in (f"{name} sin", f"{name} cos"):
                if part in self.features:
                    yield "features", f'expected another name than "{part}", which is an input of the circle "{name}"'
        section = self.forecast or self.anomaly
        targets = [] if section is None else [name for name in section.targets if name in circles]
        if targets and getattr(section, "quantiles", []):
            why = "on a circle no value is below another"
            yield f"{self.task}.quantiles", f"expected none for {', '.join(targets)}: {why}"
        for group in self.augment.axes:
            for name in group:
                if name in circles:
                    yield "augment.axes", f'expected the axes of a sensor, found the angle "{name}"'

    def _task_faults(self) -> Iterator[tuple[str, str]]:
        """Keys of other sections that contradict the task."""
        if self.classify is not None and self.fit.refit:
            yield "fit.refit", "expected none with [classify]: its baselines learn from the training part alone"
        if self.forecast is not None or self.anomaly is not None:
            for name in ("scale", "warp", "rotate_degrees"):
                if getattr(self.augment, name):
                    yield f"augment.{name}", f"expected none with [{self.task}]: it changes the inputs, not the targets"
        if self.anomaly is not None and self.anomaly.reconstruct and self.model.has_highway:
            yield "model.highway", "expected none with reconstruct: a highway would copy each step to the output"
        if self.classify is not None and self.fit.loss != "mse":
            yield "fit.loss", f'expected none with [classify], which learns by cross-entropy, found "{self.fit.loss}"'
        if self.classify is not None and self.classify.rare_chunks and self.fit.method == "windows":
            yield "classify.rare_chunks", 'expected none where method = "windows", found a share of chunks'
        if self.classify is not None and len(self.classify.classes) < 2:
            yield "classify.classes", f"expected at least two, found {len(self.classify.classes)}"

    def _ahead_faults(self) -> Iterator[tuple[str, str]]:
        """Later values that are known ahead, but not by steps of an interval, or not of one quantity."""
        ahead = {name: section for name, section in self.features.items() if section.quantity is not None}
        if ahead and self.sampling.interval_s is None:
            yield "sampling.interval_s", "missing (seconds between steps, where values are known ahead)"
        if ahead and len(ahead) == len(self.features):
            yield "features", "expected one that a device measures beside those that are known ahead, found none"
        for name, section in ahead.items():
            expected = [feature_name(str(section.quantity), step) for step in section.known_ahead_steps]
            if [name] != expected:
                yield f"features.{name}.known_ahead_steps", f"expected one step, that of the name, found {expected}"
            if name in self._predicted()[0]:
                yield f"features.{name}", "expected no target, since it is known ahead"

    def _column_faults(self) -> Iterator[tuple[str, str]]:
        """Two features that are the same: one column, read alike."""
        seen: list[tuple[FeatureSection, str]] = []
        for name, feature in self.features.items():
            values = FeatureSection(
                column=feature.column or name,
                aggregate=feature.aggregate,
                categories=feature.categories,
                sentinels=feature.sentinels,
                least=feature.least,
                most=feature.most,
            )
            other = next((known for section, known in seen if section == values), None)
            if other is not None:
                yield f"features.{name}", f'expected other values than those of "{other}", found the same column'
            seen.append((values, name))

    def _fit_faults(self) -> Iterator[tuple[str, str]]:
        """Windows that contradict the augmentation or the highway."""
        if self.augment.crop and self.fit.method == "windows":
            yield "augment.crop", 'expected none where method = "windows": a window starts at any step already'
        if self.augment.sensor_dropout:
            if not any(feature.mask for name, feature in self.features.items() if name not in self._predicted()[0]):
                yield "augment.sensor_dropout", "expected mask = true in a feature that is no target, found none"
            if self.sampling.interval_s is None:
                yield "sampling.interval_s", "missing (seconds between steps, where sensor_dropout is above 0)"
        if self.fit.window is not None and self.fit.window <= (self.model.highway or 0):
            yield (
                "fit.window",
                f"expected more steps than the highway sees ({self.model.highway}), found {self.fit.window}",
            )

    def _contract_texts(self) -> Iterator[tuple[str, str]]:
        """Every text that goes into the contract, each after its place in the recipe."""
        for name, feature in self.features.items():
            yield "features", name
            yield from ((f"features.{printable(name)}", text) for text in (feature.unit, *feature.categories))
        if self.classify is not None:
            yield from (("classify", text) for text in (self.classify.label, *self.classify.classes))
        if self.regress is not None:
            yield from (("regress", text) for text in (self.regress.target, self.regress.unit))

    def _features_named(self) -> Iterator[tuple[str, list[str]]]:
        """The names of features in the recipe, each list after its place."""
        if self.forecast is not None:
            yield "forecast.targets", self.forecast.targets
        if self.anomaly is not None:
            yield "anomaly.targets", self.anomaly.targets
        for group in self.augment.axes:
            yield "augment.axes", group
        for name, feature in self.features.items():
            if feature.mirrored_by is not None:
                yield f"features.{name}.mirrored_by", [feature.mirrored_by]
            if others := [other for other in (derived_parts(text)[1] for text in feature.derived) if other]:
                yield f"features.{name}.derived", others

    @property
    def task_section(self) -> ForecastSection | AnomalySection | ClassifySection | RegressSection | None:
        """The section of the recipe's task."""
        return self.forecast or self.anomaly or self.classify or self.regress

    @property
    def season(self) -> int | None:
        """Steps per season."""
        return None if self.forecast is None else self.forecast.season

    @property
    def interval_s(self) -> float | None:
        """The usual time between steps, if the recipe says it."""
        return self.sampling.interval_s or self.recording.row_s

    @property
    def change(self) -> bool:
        """Whether the network predicts changes from the newest value."""
        section = self.forecast or self.anomaly
        return section is not None and section.change and not (self.anomaly is not None and self.anomaly.reconstruct)

    @property
    def candidates(self) -> list[CandidateName]:
        """The networks that the validation part chooses from, the simplest first."""
        model = self.model
        if model.candidates:
            return [name for name in get_args(CandidateName) if name in model.candidates]
        if model.cell == "none":
            return ["linear"]
        if self.anomaly is not None and self.anomaly.reconstruct:
            return ["network"]  # what is linear would copy each step to the output
        if model.has_highway:
            return ["linear", "both"]
        return ["linear", "network"] if model.highway == 0 else ["linear", "network", "both"]

    def contract(self, mean: Sequence[float], scale: Sequence[float]) -> Contract:
        """The contract of such a model, with the statistics (features,) of the training part."""
        features = [
            Feature(
                name,
                section.unit,
                mean[index],
                scale[index],
                section.mask,
                section.derived,
                section.categories,
                section.mirrored_by,
                section.aggregate,
                self._sentinels(section),
                section.least,
                section.most,
                section.circle,
                section.counter,
                section.modulus,
                section.age,
            )
            for index, (name, section) in enumerate(self.features.items())
        ]
        targets, horizons, task = self._predicted()
        return Contract(
            name=self.name,
            task=task,
            features=features,
            targets=targets,
            horizons=horizons,
            states=[StateTensor(name, [size]) for name, size in self.state_sizes.items()],
            clock=self.clock,
            sampling=self.sampling,
            clip=self.clip,
            quantiles=getattr(self.task_section, "quantiles", []),
            units={} if self.regress is None else {self.regress.target: self.regress.unit},
            decision=None if self.classify is None else _contract_part(Decision, self.classify),
            alarm=None if self.anomaly is None else self.anomaly.alarm(self.interval_s),
            known_ahead=known_ahead_of(self.features),
        )

    def _predicted(self) -> tuple[list[str], list[int], Task]:
        """Targets, horizons and task of the contract."""
        if self.anomaly is not None:
            numbers = [name for name, feature in self.features.items() if not feature.categories]
            return self.anomaly.targets or numbers, [0 if self.anomaly.reconstruct else 1], "anomaly"
        if self.classify is not None:
            return self.classify.classes, [self.classify.ahead], "classify"
        if self.regress is not None:
            return [self.regress.target], [0], "estimate"
        assert self.forecast is not None  # faults() requires it
        return self.forecast.targets, self.forecast.horizons, "forecast"

    @property
    def parameters(self) -> int:
        """The number of trained parameters."""
        width, hidden = self._input_width, self.model.units
        targets, horizons, task = self._predicted()
        if task in ("forecast", "anomaly"):  # a circle has two outputs
            targets = [*targets, *(name for name in targets if name in self.features and self.features[name].circular)]
        outputs = len(targets) * len(horizons) * (1 + len(getattr(self.task_section, "quantiles", [])))
        total = outputs * self.model.taps * width
        for _ in range(self.model.depth):
            total += GATES[self.model.cell] * hidden * (width + hidden + 2)
            width = hidden
        if self.model.learned_start:
            total += self.model.depth * hidden * len(CARRIED[self.model.cell])
        return total + (hidden + 1) * outputs

    @property
    def _input_width(self) -> int:
        """The width of the feature vector."""
        own = [
            1 + one.mask + one.age + one.circular + len(one.derived) + len(one.categories)
            for one in self.features.values()
        ]
        return sum(own) + sum(1 if name == "elapsed" else 2 for name in self.clock)

    @property
    def bypasses_layers(self) -> list[bool]:
        """(features,): whether a value bypasses the layers: a level that may drift, or the number of a category."""
        return [not feature.level or bool(feature.categories) for feature in self.features.values()]

    @property
    def state_names(self) -> list[str]:
        """The names of the carried tensors, layer by layer."""
        return list(self.state_sizes)

    @property
    def state_sizes(self) -> dict[str, int]:
        """The carried tensors by name, with the size of each for one stream."""
        model = self.model
        return state_sizes(model.cell, model.depth, model.units, model.earlier * self._input_width, model.earlier > 0)

    @property
    def columns(self) -> Columns:
        """The columns of the recording's files."""
        source = self.recording
        return Columns(
            {name: self._column_of(name, feature) for name, feature in self.features.items()},
            source.times,
            source.streams_in,
            source.stream,
            {name: self._label(name, label) for name, label in self.labels.items()},
            source.group_column,
            source.layout,
            NumberWords(source.decimal == "comma", source.missing, source.thousands),
            join_within_s=source.join_within_s,
        )

    @property
    def ahead_columns(self) -> dict[str, AheadColumn]:
        """Where the recording has the features that are known ahead."""
        values = {name: self._column_of(name, section) for name, section in self.features.items()}
        return ahead_columns(self.features, values)

    def _label(self, name: str, label: LabelSection) -> ValueColumn | LabelWindows | Countdown:
        if label.countdown:
            return Countdown()
        if label.windows:
            zone = self.recording.zone()
            return LabelWindows(
                [
                    LabelWindow(parse_time(window[0], zone), parse_time(window[1], zone), *window[2:])
                    for window in label.windows
                ]
            )
        if label.windows_file is not None:
            return LabelWindows(read_windows(Path(label.windows_file), label.windows_kind, self.recording.zone()))
        return self._column_of(name, label, label.text)

    def _column_of(self, name: str, section: FeatureSection | LabelSection, text: bool = False) -> ValueColumn:
        sentinels = [] if text else self._sentinels(section)
        column = section.column or name
        return ValueColumn(column, sentinels, section.least, section.most, section.categories, text, section.unit)

    def _sentinels(self, section: FeatureSection | LabelSection) -> list[float]:
        """The numbers that mean a missing value; none for categories."""
        return [] if section.categories else [*self.recording.sentinels, *section.sentinels]


def _contract_part(kind: type[T], section: Any) -> T:
    """The part of a recipe's section that belongs to the contract."""
    return kind(**{field.name: getattr(section, field.name) for field in dataclasses.fields(kind)})  # type: ignore[arg-type]


def read_recipe(path_or_name: str | Path, data: str | Path | None = None) -> Recipe:
    """The recipe in a TOML file, or the bundled recipe of that name.

    The paths of the recording and of labels are relative to `data`, by default the recipe's folder. Raises ConfigError
    with all faults.
    """
    hint = 'write read_recipe("pumps.toml")'
    path = _recipe_path(path_argument(path_or_name, "the path or name of a recipe", ConfigError, hint))
    folder = None if data is None else path_argument(data, "data as the path of a folder", ConfigError)
    recipe = read_toml(path, Recipe)
    written = recipe.recording.path
    if folder is None and path in bundled_recipes().values():
        _refuse_without_data(recipe.name, path.parent, recipe.recording.paths)

    def resolved(named: str) -> str:
        return str(((folder or path.parent) / named).resolve())

    def absolute(named: str | list[str]) -> str | list[str]:
        return resolved(named) if isinstance(named, str) else [resolved(one) for one in named]

    found = {name: absolute(one) for name, one in written.items()} if isinstance(written, dict) else absolute(written)
    labels = {
        name: dataclasses.replace(one, windows_file=None if one.windows_file is None else resolved(one.windows_file))
        for name, one in recipe.labels.items()
    }
    return dataclasses.replace(recipe, recording=dataclasses.replace(recipe.recording, path=found), labels=labels)


def _refuse_without_data(name: str, folder: Path, files: Sequence[str]) -> None:
    """Refuse a bundled recipe whose recording is not bundled."""
    for one in files:
        if not (folder / Path(one).parts[0]).exists():
            raise ConfigError(
                f'expected --data DIR beside the recipe "{name}": the folder that holds {one}, found none',
                "this recording does not come with edge-lstm; docs/accuracy.md has its source",
            )


def bundled_recipes() -> dict[str, Path]:
    """The recipes that come with the package, by name."""
    folder = Path(str(resources.files(_BUNDLED)))
    return {path.stem: path for path in sorted(folder.glob("*.toml"))}


def _recipe_path(path: Path) -> Path:
    """The argument if it is a path or a file, else the path of the bundled recipe of that name."""
    bundled = bundled_recipes()
    if path.suffix == ".toml" or len(path.parts) > 1 or path.is_file():
        return path
    name = str(path)
    if name in bundled:
        return bundled[name]
    near = difflib.get_close_matches(name, bundled, 1, 0.5)
    raise ConfigError(
        f"expected a recipe file or one of {', '.join(bundled)}, found {name!r}",
        f"did you mean {near[0]}?" if near else "name a bundled recipe, or a file that ends in .toml",
    )
