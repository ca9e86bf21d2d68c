"""The recipe: one TOML file that says what to learn, from which recording and how; it refuses what cannot train."""

from __future__ import annotations

import dataclasses
import difflib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any, Literal

from edge_lstm.config import key, read_toml
from edge_lstm.contract import ClockInput, Sampling
from edge_lstm.errors import EdgeLstmError
from edge_lstm.network import GATES, Cell, state_sizes
from edge_lstm.recording import Columns

_BUNDLED = "edge_lstm_recipes"


@dataclass(frozen=True)
class RecordingSection:
    """Where the readings are, and how to read them."""

    path: str = key(doc="CSV file, relative to the recipe")
    time: str | None = key(None, doc="column of times; none: the first that holds times")
    stream: str | None = key(None, doc="name of the one stream; none: the file's name")
    stream_column: str | None = key(None, doc="column of stream names, where the file holds several")

    def faults(self) -> Iterator[tuple[str, str]]:
        if self.stream is not None and self.stream_column is not None:
            yield "stream_column", "expected either stream or stream_column, found both"


@dataclass(frozen=True)
class FeatureSection:
    """One measured input."""

    column: str | None = key(None, doc="column of the recording; none: the feature's name")
    unit: str = key("", doc="physical unit, for people")
    mask: bool = key(False, doc="whether a second input says 1 where the value is missing")


@dataclass(frozen=True)
class ForecastSection:
    """What to predict."""

    targets: list[str] = key(doc="features to predict")
    horizons: list[int] = key(doc="how many steps ahead", least=1)
    change: bool = key(True, doc="predict the change from the newest value, or else the value itself")
    season: int | None = key(None, doc="steps a season has, for the seasonal-naive baseline", least=2)

    def faults(self) -> Iterator[tuple[str, str]]:
        for name, listed in (("targets", self.targets), ("horizons", self.horizons)):
            if not listed:
                yield name, "expected at least one"
            elif len(set(listed)) < len(listed):
                yield name, f"expected each once, found {', '.join(map(str, listed))}"


@dataclass(frozen=True)
class SplitSection:
    """The recording by time, oldest first: shares for training and validation; the rest is the test part."""

    train: float = key(0.6, doc="share that weights and statistics come from", least=0.01, most=0.98)
    validation: float = key(0.2, doc="share that picks the best weights and ridge", least=0.01, most=0.98)

    def faults(self) -> Iterator[tuple[str, str]]:
        both = self.train + self.validation
        if both > 0.99:
            yield "validation", f"expected train + validation <= 0.99, found {both:g}: nothing is left to test on"


@dataclass(frozen=True)
class ModelSection:
    """The network."""

    cell: Cell = key("lstm", doc="lstm or gru")
    hidden: int = key(32, doc="units a layer", least=1, most=1024)
    layers: int = key(1, doc="recurrent layers", least=1, most=3)
    dropout: float = key(0.0, doc="share of a layer's outputs dropped in training", least=0, most=0.95)
    recurrent_dropout: float = key(0.0, doc="share of hidden-to-hidden weights dropped in training", least=0, most=0.95)
    highway: int = key(0, doc="earlier samples that a linear path past the layers sees; 0: none", least=0, most=1024)
    level_free: bool = key(True, doc="whether that path sees them relative to the newest sample")
    most_parameters: int = key(20_000, doc="a larger network is refused", least=1)


@dataclass(frozen=True)
class FitSection:
    """The search for weights."""

    updates: int = key(600, doc="gradient steps", least=1)
    learning_rate: float = key(3e-3, doc="highest of the one-cycle schedule", least=1e-7, most=1)
    weight_decay: float = key(1e-4, doc="AdamW's", least=0, most=1)
    method: Literal["carried", "windows"] = key("carried", doc="train on a carried state, or on windows")
    segments: int = key(16, doc="stretches (or windows) side by side in one update", least=1, most=4096)
    chunk: int = key(96, doc="steps that a gradient reaches back (carried)", least=1)
    window: int | None = key(None, doc="steps in a window (windows)", least=1)
    clip: float = key(1.0, doc="largest norm of the gradient", least=1e-6)
    loss: Literal["mse", "huber"] = key("mse", doc="huber cares less about outliers")
    seed: int = key(1, doc="the same seed gives the same weights", least=0, most=2**31 - 1)

    def faults(self) -> Iterator[tuple[str, str]]:
        if self.method == "windows" and self.window is None:
            yield "window", 'missing (steps in a window, where method = "windows")'
        if self.method == "carried" and self.window is not None:
            yield "window", 'expected none where method = "carried": a carried state has no window'


@dataclass(frozen=True)
class Recipe:
    """All that training needs to know. `recording.path` is absolute once `read_recipe` has read it."""

    name: str = key(doc="the model's name: letters, digits, - and _")
    recording: RecordingSection = key(doc="where the readings are")
    features: dict[str, FeatureSection] = key(doc="measured inputs, in order")
    forecast: ForecastSection = key(doc="what to predict")
    task: Literal["forecast"] = key("forecast", doc="what to learn")
    clock: list[ClockInput] = key([], doc="inputs computed from the reading's time (UTC)")
    sampling: Sampling = key(Sampling(), doc="readings to steps")
    split: SplitSection = key(SplitSection(), doc="training, validation and test part")
    model: ModelSection = key(ModelSection(), doc="the network")
    fit: FitSection = key(FitSection(), doc="the search for weights")

    def faults(self) -> Iterator[tuple[str, str]]:
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]*", self.name):
            yield "name", f'expected letters, digits, - and _, found "{self.name}"'
        if not self.features:
            yield "features", "expected at least one, as [features.NAME]"
        for target in self.forecast.targets:
            if target not in self.features:
                near = difflib.get_close_matches(target, self.features, 1, 0.6)
                known = f'did you mean "{near[0]}"?' if near else f"features here: {', '.join(self.features)}"
                yield "forecast.targets", f'expected names of features, found "{target}"; {known}'
        if len(set(self.clock)) < len(self.clock):
            yield "clock", f"expected each once, found {', '.join(self.clock)}"
        interval_s, max_gap_s = self.sampling.interval_s, self.sampling.max_gap_s
        if interval_s and max_gap_s and max_gap_s < interval_s:
            yield "sampling.max_gap_s", f"expected at least interval_s ({interval_s:g}), found {max_gap_s:g}"
        if self.features and self.parameters > self.model.most_parameters:
            yield (
                "model.hidden",
                f"expected at most {self.model.most_parameters:,} parameters, found {self.parameters:,}; "
                "a smaller hidden or fewer layers, or else a larger most_parameters",
            )

    @property
    def parameters(self) -> int:
        """How many numbers training would set."""
        width, hidden = self._inputs, self.model.hidden
        outputs = len(self.forecast.targets) * len(self.forecast.horizons)
        total = outputs * self.model.highway * width
        for _ in range(self.model.layers):
            total += GATES[self.model.cell] * hidden * (width + hidden + 2)
            width = hidden
        return total + (hidden + 1) * outputs

    @property
    def _inputs(self) -> int:
        """The width of the feature vector."""
        return len(self.features) + sum(feature.mask for feature in self.features.values()) + 2 * len(self.clock)

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
        values = {name: feature.column or name for name, feature in self.features.items()}
        return Columns(values, source.time, source.stream_column, source.stream)


def read_recipe(path_or_name: str | Path) -> Recipe:
    """The recipe in a TOML file, or the bundled one of that name. Raises EdgeLstmError with every fault at once."""
    path = _recipe_path(path_or_name)
    recipe = read_toml(path, Recipe)
    recording = (path.parent / recipe.recording.path).resolve()
    return dataclasses.replace(recipe, recording=dataclasses.replace(recipe.recording, path=str(recording)))


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
    raise EdgeLstmError(
        f"expected a recipe file or one of {', '.join(bundled)}, found {name!r}",
        f"did you mean {near[0]}?" if near else "name a bundled recipe, or a file that ends in .toml",
    )


def recipe_toml(recipe: Recipe) -> str:
    """The recipe as TOML with every default written out and every key explained; `read_recipe` takes it back."""
    return "\n".join(_toml_lines(recipe, "")) + "\n"


def _toml_lines(section: Any, prefix: str) -> Iterator[str]:
    tables: list[tuple[str, Any, str]] = []
    for field in dataclasses.fields(section):
        value = getattr(section, field.name)
        doc = field.metadata.get("doc", "")
        if dataclasses.is_dataclass(value):
            tables.append((f"{prefix}{field.name}", value, doc))
        elif isinstance(value, Mapping):
            tables += [(f"{prefix}{field.name}.{_toml_key(name)}", item, doc) for name, item in value.items()]
        elif value is not None:
            yield f"{field.name} = {_toml_value(value)}" + (f"  # {doc}" if doc else "")
    for header, value, doc in tables:
        yield ""
        yield f"[{header}]" + (f"  # {doc}" if doc else "")
        yield from _toml_lines(value, f"{header}.")


def _toml_key(name: str) -> str:
    return name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else json.dumps(name, ensure_ascii=False)


def _toml_value(value: Any) -> str:
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(_toml_value(item) for item in value)}]"
    if isinstance(value, float):
        return repr(value)
    return json.dumps(value, ensure_ascii=False)  # JSON's texts, whole numbers and booleans are TOML's as well
