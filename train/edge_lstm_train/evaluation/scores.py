"""The score: predictions as the runtime makes them, beside every baseline on exactly the same steps.

It refuses to flatter: where a baseline is as good, `verdict` says so in words.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from edge_lstm.backends.reference import ReferenceBackend
from edge_lstm.bundle.contract import Contract
from edge_lstm.bundle.network import Network
from edge_lstm.foundation.arrays import Doubles, Integers
from edge_lstm.recordings.recording import Recording
from edge_lstm.recordings.replay import replay
from edge_lstm.streaming.predictor import Predictor
from edge_lstm.streaming.reading import Prediction
from edge_lstm_train.data.dataset import Dataset
from edge_lstm_train.data.split import Part
from edge_lstm_train.evaluation.baselines import NAIVE, Baselines

MODEL = "model"
_NOTHING = 0.01  # a margin that another seed or another month would turn round is no gain


@dataclass(frozen=True)
class Score:
    """How the model and each baseline did for one target at one horizon, over the same steps."""

    target: str
    unit: str
    horizon: int  # steps
    pairs: int  # predictions compared with what was measured
    rmse: dict[str, float]  # by name ("model", "persistence", ...), in `unit`
    mae: dict[str, float]
    r2: dict[str, float]  # 1 - MSE / variance of the target over the same steps

    def skill(self, name: str = MODEL) -> float:
        """1 - RMSE / RMSE of the better naive baseline: 0 is no better than that, 1 is perfect."""
        naive = min(self.rmse[baseline] for baseline in NAIVE if baseline in self.rmse)
        return 1 - self.rmse[name] / naive if naive > 0 else math.nan

    @property
    def best_baseline(self) -> str:
        return min((name for name in self.rmse if name != MODEL), key=lambda name: self.rmse[name])

    @property
    def margin(self) -> float:
        """1 - RMSE / RMSE of the best baseline; above 0 the model is worth its while."""
        best = self.rmse[self.best_baseline]
        return 1 - self.rmse[MODEL] / best if best > 0 else -math.inf


def predict(contract: Contract, network: Network, recording: Recording) -> list[Prediction]:
    """What a device would publish for the recording: the runtime's predictor, reading after reading, state carried."""
    predictor = Predictor(contract, ReferenceBackend(network))
    return list(replay(predictor, recording.side_by_side().readings()))


def aligned(dataset: Dataset, predictions: Iterable[Prediction]) -> Doubles:
    """(steps, outputs): the predictions at the dataset's steps, NaN where there is none."""
    table = np.full(dataset.targets.shape, np.nan)
    for row, prediction in rows_of(dataset, predictions):
        table[row] = [prediction.values[target][horizon] for target, horizon in dataset.contract.outputs]
    return table


def rows_of(dataset: Dataset, predictions: Iterable[Prediction]) -> Iterator[tuple[int, Prediction]]:
    """Each prediction with the dataset's step that it was made at, by stream and time.

    To the millisecond where it was told over MQTT, whose times have no more; steps may lie closer than that.
    """
    names = [dataset.recording.streams[stream] for stream in dataset.stream_of.tolist()]
    row_of = {at: row for row, at in enumerate(zip(names, dataset.times.tolist(), strict=True))}
    told = {(name, round(time * 1000)): row for (name, time), row in row_of.items()}
    for prediction in predictions:
        row = row_of.get((prediction.stream, prediction.time))
        row = told.get((prediction.stream, round(prediction.time * 1000))) if row is None else row
        if row is not None:
            yield row, prediction


def score(
    dataset: Dataset, baselines: Baselines, predictions: Iterable[Prediction], part: Part = "test"
) -> list[Score]:
    """A score for each output but quantiles, over the part's steps that have a prediction and a measured target."""
    said = {MODEL: aligned(dataset, predictions), **baselines.predictions}
    return _scores(dataset, said, dataset.steps(part))


def scores_by_stream(
    dataset: Dataset, baselines: Baselines, predictions: Iterable[Prediction], part: Part = "test"
) -> dict[str, list[Score]]:
    """`score` for each stream that has steps to compare, by its name."""
    said = {MODEL: aligned(dataset, predictions), **baselines.predictions}
    found = {name: _scores(dataset, said, steps) for name, steps in dataset.by_stream(dataset.steps(part)).items()}
    return {name: scores for name, scores in found.items() if any(one.pairs for one in scores)}


def _scores(dataset: Dataset, said: dict[str, Doubles], asked: Integers) -> list[Score]:
    """Of everyone's predictions (steps, outputs) at the steps `asked`."""
    units = dataset.contract.target_units
    scores = []
    for output, (target, horizon) in enumerate(dataset.contract.outputs):
        if target not in dataset.contract.targets:
            continue
        known = asked[np.isfinite(dataset.targets[asked, output]) & np.isfinite(said[MODEL][asked, output])]
        truth = dataset.targets[known, output]
        errors = {name: table[known, output] - truth for name, table in said.items()}
        rmse = {name: _mean(error**2) ** 0.5 for name, error in errors.items()}
        mae = {name: _mean(np.abs(error)) for name, error in errors.items()}
        variance = float(truth.var()) if truth.size else math.nan
        r2 = {name: 1 - _mean(error**2) / variance if variance > 0 else math.nan for name, error in errors.items()}
        scores.append(Score(target, units[target], horizon, len(known), rmse, mae, r2))
    return scores


@dataclass(frozen=True)
class Coverage:
    """How often the truth lay below a quantile, beside how often it should have."""

    target: str
    horizon: int
    level: float
    below: float  # share of the pairs
    pairs: int


def coverage(dataset: Dataset, predictions: Iterable[Prediction], part: Part = "test") -> list[Coverage]:
    """The calibration of each quantile output, over the part's steps."""
    contract = dataset.contract
    level_of = {
        said: (target, level)
        for target in contract.targets
        for said, level in zip(contract.output_names_of(target)[1:], contract.quantiles, strict=True)
    }
    said = aligned(dataset, predictions)
    asked = dataset.steps(part)
    found = []
    for output, (name, horizon) in enumerate(contract.outputs):
        if name in level_of:
            target, level = level_of[name]
            known = asked[np.isfinite(dataset.targets[asked, output]) & np.isfinite(said[asked, output])]
            below = dataset.targets[known, output] < said[known, output]
            found.append(Coverage(target, horizon, level, float(below.mean()) if known.size else math.nan, len(known)))
    return found


def _mean(values: Doubles) -> float:
    return float(values.mean()) if values.size else math.nan


def verdict(scores: Sequence[Score]) -> str:
    """In words, whether the model is worth having: against the best baseline of each output."""
    if not all(one.pairs for one in scores):
        return "There were no predictions to judge for some outputs."
    beaten = [one for one in scores if one.margin > _NOTHING]
    level = [one for one in scores if abs(one.margin) <= _NOTHING]
    lost = [one for one in scores if not one.margin >= -_NOTHING]
    nothing = f"adds nothing {'; '.join(_draw(one) for one in level)}"
    worse = "; ".join(_defeat(one) for one in lost)
    if not beaten:
        said = [f"The model {nothing}."] if level else []
        said += [f"The model does not beat the baselines: {worse}."] if lost else []
        return " ".join([*said, "Use the baseline, which needs no network."])
    low, high = (round(100 * choose(one.margin for one in beaten)) for choose in (min, max))
    span = f"{high} %" if low == high else f"{low} to {high} %"
    if len(beaten) == len(scores):
        return f"The model beats every baseline on every output: its RMSE is {span} below the best of them."
    part = f"on {len(beaten)} of {len(scores)} outputs (RMSE {span} below the best of them)"
    said = [f"The model beats every baseline {part}{f', but not on the rest: {worse}' if lost else ''}."]
    return " ".join([*said, *([f"It {nothing}."] if level else [])])


def _draw(one: Score) -> str:
    name = one.best_baseline
    model, best = rounded([one.rmse[MODEL], one.rmse[name]])
    at = where(one.target, one.horizon)
    return f"to {name} for {at} (RMSE {model} and {best} {one.unit}".strip() + ")"


def _defeat(one: Score) -> str:
    name = one.best_baseline
    model, best = rounded([one.rmse[MODEL], one.rmse[name]])
    at = where(one.target, one.horizon)
    return f"{at}, {name} has an RMSE of {best} and the model {model} {one.unit}".strip()


def steps(horizon: int) -> str:
    return f"{horizon} step{'s' if horizon > 1 else ''}"


def steps_ahead(horizon: int) -> str:
    return f"{steps(horizon)} ahead" if horizon else ""


def where(target: str, horizon: int) -> str:
    """An output, in words."""
    return f"{target} {steps_ahead(horizon)}".strip()


def labelled(target: str, unit: str) -> str:
    return f"{target} ({unit})" if unit else target


def percent(share: float) -> str:
    return f"{100 * share:.1f} %" if math.isfinite(share) else "none"


def r2_text(one: Score) -> str:
    return f"{one.r2[MODEL]:.3f}" if math.isfinite(one.r2[MODEL]) else "none"


def rounded(values: Sequence[float]) -> list[str]:
    """The values with as many decimals as give the largest of them three digits."""
    largest = max((abs(value) for value in values if math.isfinite(value)), default=1.0)
    decimals = max(0, 2 - math.floor(math.log10(largest))) if largest > 0 else 0
    return [f"{value:.{decimals}f}" for value in values]


def table(scores: Sequence[Score]) -> tuple[list[str], list[list[str]]]:
    """Header and rows, as texts: RMSE of the model and of each baseline, and the model's skill."""
    names = list(scores[0].rmse)
    estimates = not any(one.horizon for one in scores)
    header = ["target", "steps ahead", *names, "skill", *(["R²"] if estimates else []), "pairs"]
    return header, list(_rows(scores, names, estimates))


def _rows(scores: Sequence[Score], names: Sequence[str], estimates: bool) -> Iterator[list[str]]:
    for one in scores:
        rmse = rounded([one.rmse[name] for name in names])
        label = labelled(one.target, one.unit)
        r2 = [r2_text(one)] if estimates else []
        yield [label, str(one.horizon), *rmse, percent(one.skill()), *r2, str(one.pairs)]


def table_text(scores: Sequence[Score]) -> str:
    """`table` for a terminal."""
    return as_text(*table(scores))


def as_text(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table for a terminal: names to the left, numbers to the right."""
    widths = [max(len(line[column]) for line in [header, *rows]) for column in range(len(header))]
    lines = []
    for first, *numbers in [header, *rows]:
        cells = [number.rjust(width) for number, width in zip(numbers, widths[1:], strict=True)]
        lines.append("  ".join([first.ljust(widths[0]), *cells]))
    return "\n".join(lines)
