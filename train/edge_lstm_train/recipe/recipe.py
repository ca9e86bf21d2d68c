"""The recipe: one TOML file that says what to learn, from which recording and how; it refuses what cannot train."""

from __future__ import annotations

import dataclasses
import difflib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any, Literal, TypeVar

from edge_lstm.bundle.contract import (
    Alarm,
    ClockInput,
    Contract,
    Decision,
    Feature,
    Sampling,
    StateTensor,
    Task,
    derived_parts,
)
from edge_lstm.bundle.network import CARRIED, GATES, state_sizes
from edge_lstm.foundation.config import key, read_toml, suggestion
from edge_lstm.foundation.errors import ConfigError
from edge_lstm.foundation.text import plain, told
from edge_lstm.foundation.times import parse_time
from edge_lstm.recordings.columns import NumberWords, ValueColumn
from edge_lstm.recordings.label_windows import Countdown, LabelWindow, LabelWindows
from edge_lstm.recordings.recording import Columns
from edge_lstm.recordings.tables import Layout
from edge_lstm_train.recipe.sections import (
    AnomalySection,
    AugmentSection,
    ClassifySection,
    FeatureSection,
    FitSection,
    ForecastSection,
    LabelSection,
    ModelSection,
    Range,
    RecordingSection,
    RegressSection,
    SplitSection,
)

_BUNDLED = "edge_lstm_recipes"
T = TypeVar("T")


@dataclass(frozen=True)
class Recipe:
    """All that training needs to know. `recording.path` is absolute once `read_recipe` has read it."""

    name: str = key(doc="the model's name: letters, digits, - and _")
    recording: RecordingSection = key(doc="where the readings are")
    features: dict[str, FeatureSection] = key(doc="measured inputs, in order")
    forecast: ForecastSection | None = key(None, doc="what to predict")
    anomaly: AnomalySection | None = key(None, doc="what is usual")
    classify: ClassifySection | None = key(None, doc="what to tell apart")
    regress: RegressSection | None = key(None, doc="what to estimate")
    labels: dict[str, LabelSection] = key({}, doc="known beside the features, and no input")
    task: Literal["forecast", "anomaly", "classify", "regress"] = key("forecast", doc="what to learn")
    clip: float | None = key(None, doc="standard deviations from the mean at which values are cut off", least=1.0)
    clock: list[ClockInput] = key([], doc="inputs computed from the reading's time (UTC)")
    sampling: Sampling = key(Sampling(), doc="readings to steps")
    split: SplitSection = key(SplitSection(), doc="training, validation and test part")
    model: ModelSection = key(ModelSection(), doc="the network")
    fit: FitSection = key(FitSection(), doc="the search for weights")
    augment: AugmentSection = key(AugmentSection(), doc="what each chunk of training is changed by")
    tune: dict[str, Range] = key({}, doc='key = what edge-lstm tune may give it, e.g. "model.hidden"')

    def faults(self) -> Iterator[tuple[str, str]]:
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]*", self.name):
            yield "name", f'expected letters, digits, - and _, found "{self.name}"'
        if not self.features:
            yield "features", "expected at least one, as [features.NAME]"
        for task in ("forecast", "anomaly", "classify", "regress"):
            if (getattr(self, task) is None) == (task == self.task):
                yield task, f"missing [{task}]" if task == self.task else f'expected none where task = "{self.task}"'
        for where, text in self._shown():
            if not plain(text):
                yield where, f'expected texts without control characters, found "{told(text)}"'
        for where, named in self._features_named():
            for name in named:
                if name not in self.features:
                    yield where, f'expected names of features, found "{name}"; {suggestion(name, self.features)}'
        for name, feature in self.features.items():
            for other in filter(None, (derived_parts(text)[1] for text in feature.derived)):
                if other == name or (other in self.features and self.features[other].categories):
                    yield f"features.{name}.derived", f'expected another feature of numbers, found "{other}"'
        if self.classify is not None and self.fit.refit:
            yield (
                "fit.refit",
                "expected none with [classify]: what it is held against learns from the training part alone",
            )
        if self.forecast is not None or self.anomaly is not None:
            for name in ("scale", "warp", "rotate_degrees"):
                if getattr(self.augment, name):
                    yield (
                        f"augment.{name}",
                        f"expected none with [{self.task}]: it changes what goes in, not what follows",
                    )
        if self.anomaly is not None and self.anomaly.reconstruct and self.model.highway:
            yield "model.highway", "expected none with reconstruct: past the layers every step goes through as it is"
        if self.classify is not None and self.fit.loss != "mse":
            yield "fit.loss", f'expected none with [classify], which learns by cross-entropy, found "{self.fit.loss}"'
        if self.augment.crop and self.fit.method == "windows":
            yield "augment.crop", 'expected none where method = "windows": a window starts at any step already'
        if self.fit.window is not None and self.fit.window <= self.model.highway:
            yield (
                "fit.window",
                f"expected more steps than the highway sees ({self.model.highway}), found {self.fit.window}",
            )
        if self.classify is not None and len(self.classify.classes) < 2:
            yield "classify.classes", f"expected at least two, found {len(self.classify.classes)}"
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

    def _shown(self) -> Iterator[tuple[str, str]]:
        """Every text that the contract will show, and where it stands."""
        for name, feature in self.features.items():
            yield "features", name
            yield from ((f"features.{told(name)}", text) for text in (feature.unit, *feature.categories))
        if self.classify is not None:
            yield from (("classify", text) for text in (self.classify.label, *self.classify.classes))
        if self.regress is not None:
            yield from (("regress", text) for text in (self.regress.target, self.regress.unit))

    def _features_named(self) -> Iterator[tuple[str, list[str]]]:
        """Where the recipe names features, and which."""
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
        """What the recipe says about its task."""
        return self.forecast or self.anomaly or self.classify or self.regress

    @property
    def season(self) -> int | None:
        """Steps a season has."""
        return None if self.forecast is None else self.forecast.season

    @property
    def change(self) -> bool:
        """Whether the network predicts changes from the newest value."""
        section = self.forecast or self.anomaly
        return section is not None and section.change and not (self.anomaly is not None and self.anomaly.reconstruct)

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
            decision=None if self.classify is None else _only(Decision, self.classify),
            alarm=None if self.anomaly is None else _only(Alarm, self.anomaly),
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
        assert self.forecast is not None  # faults() says so
        return self.forecast.targets, self.forecast.horizons, "forecast"

    @property
    def parameters(self) -> int:
        """How many numbers training would set."""
        width, hidden = self._inputs, self.model.hidden
        targets, horizons, _ = self._predicted()
        outputs = len(targets) * len(horizons) * (1 + len(getattr(self.task_section, "quantiles", [])))
        free = 0 if self.model.level_free or not self.model.highway else 1
        total = outputs * (self.model.highway + free) * width
        for _ in range(self.model.layers):
            total += GATES[self.model.cell] * hidden * (width + hidden + 2)
            width = hidden
        if self.model.learned_start:
            total += self.model.layers * hidden * len(CARRIED[self.model.cell])
        return total + (hidden + 1) * outputs

    @property
    def _inputs(self) -> int:
        """The width of the feature vector."""
        own = [1 + one.mask + len(one.derived) + len(one.categories) for one in self.features.values()]
        return sum(own) + sum(1 if name == "elapsed" else 2 for name in self.clock)

    @property
    def unseen(self) -> list[bool]:
        """(features,): the values that the layers do not see: levels that may drift, and the numbers of categories."""
        return [not feature.level or bool(feature.categories) for feature in self.features.values()]

    @property
    def state_names(self) -> list[str]:
        """The carried tensors, layer by layer, as the network names them."""
        return list(self.state_sizes)

    @property
    def state_sizes(self) -> dict[str, int]:
        """The carried tensors by name, with the numbers of each for one stream."""
        model = self.model
        return state_sizes(model.cell, model.layers, model.hidden, model.highway * self._inputs)

    @property
    def columns(self) -> Columns:
        """Where the recording's file holds what."""
        source = self.recording
        return Columns(
            {name: self._quantity(name, feature) for name, feature in self.features.items()},
            source.times,
            source.stream_column,
            source.stream,
            {name: self._label(name, label) for name, label in self.labels.items()},
            source.group_column,
            Layout(source.separator, source.header),
            NumberWords(source.decimal == "comma", source.missing),
        )

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
        return self._quantity(name, label, label.text)

    def _quantity(self, name: str, section: FeatureSection | LabelSection, text: bool = False) -> ValueColumn:
        sentinels = [] if text else self._sentinels(section)
        return ValueColumn(section.column or name, sentinels, section.least, section.most, section.categories, text)

    def _sentinels(self, section: FeatureSection | LabelSection) -> list[float]:
        """The numbers that mean a missing value there; texts have none."""
        return [] if section.categories else [*self.recording.sentinels, *section.sentinels]


def _only(kind: type[T], section: Any) -> T:
    """The part of a recipe's section that goes into the contract."""
    return kind(**{field.name: getattr(section, field.name) for field in dataclasses.fields(kind)})  # type: ignore[arg-type]


def read_recipe(path_or_name: str | Path, data: Path | None = None) -> Recipe:
    """The recipe in a TOML file, or the bundled one of that name. Raises ConfigError with every fault at once.

    The recording's path is relative to `data`, and where that is None to the recipe.
    """
    path = _recipe_path(path_or_name)
    recipe = read_toml(path, Recipe)
    named = recipe.recording.path
    asked = [named] if isinstance(named, str) else named
    if data is None and path in bundled_recipes().values():
        _refuse_without_data(recipe.name, path.parent, asked)
    paths = [str(((data or path.parent) / one).resolve()) for one in asked]
    recording = dataclasses.replace(recipe.recording, path=paths[0] if isinstance(named, str) else paths)
    return dataclasses.replace(recipe, recording=recording)


def _refuse_without_data(name: str, folder: Path, asked: Sequence[str]) -> None:
    """Recipes come with the package, most of their recordings do not."""
    for one in asked:
        if not (folder / Path(one).parts[0]).exists():
            raise ConfigError(
                f'expected --data DIR beside the recipe "{name}": the folder that holds {one}, found none',
                "that recording does not come with edge-lstm; docs/accuracy.md says where it is from",
            )


def bundled_recipes() -> dict[str, Path]:
    """The recipes that come with the package, by name."""
    folder = Path(str(resources.files(_BUNDLED)))
    return {path.stem: path for path in sorted(folder.glob("*.toml"))}


def _recipe_path(path_or_name: str | Path) -> Path:
    """A path where it looks like one or is a file, else the bundled recipe of that name."""
    path, bundled = Path(path_or_name), bundled_recipes()
    if path.suffix == ".toml" or len(path.parts) > 1 or path.is_file():
        return path
    name = str(path_or_name)
    if name in bundled:
        return bundled[name]
    near = difflib.get_close_matches(name, bundled, 1, 0.5)
    raise ConfigError(
        f"expected a recipe file or one of {', '.join(bundled)}, found {name!r}",
        f"did you mean {near[0]}?" if near else "name a bundled recipe, or a file that ends in .toml",
    )
