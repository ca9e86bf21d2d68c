"""The alarm rule that data give: its factor for an objective like one false alarm a month, and its span by labels.

Only training and validation part are looked at. Each stream is calibrated as a device does it and scored on steps that
the calibration has not seen: those after it, or where there are few, each fifth of the steps by the others. These
scores, in units of the quantile of the calibration, show how often normal operation exceeds a factor.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from edge_lstm.bundle.alarm import MOST_RESIDUAL_TARGETS, Residuals
from edge_lstm.bundle.contract import Alarm, Contract
from edge_lstm.decisions.alarms.anomaly import distance, fit_distance, usual_rows
from edge_lstm.decisions.angles import PublishedOutputs, difference
from edge_lstm.decisions.decider import decide_all
from edge_lstm.foundation.arrays import Doubles, Flags, Integers
from edge_lstm_train.data.dataset import Dataset
from edge_lstm_train.data.split import PARTS
from edge_lstm_train.evaluation.alarms.detection import f1
from edge_lstm_train.evaluation.alarms.tail import ENOUGH_EVENTS, Tail, fit_tail
from edge_lstm_train.evaluation.formatting import rate
from edge_lstm_train.model.carried_state import predict_streamed
from edge_lstm_train.model.forecaster import Forecaster
from edge_lstm_train.recipe.recipe import Recipe
from edge_lstm_train.recipe.task_sections import PERIOD_S

_FOLDS = 5
_FEWEST_ROWS = 60  # of a stream
_LEAST_FACTOR = 1.0  # less would raise alarms at what calibration has seen
_SPANS = (1.0, 0.5, 2.0)  # times the usual span, the preferred first


@dataclass(frozen=True, eq=False)
class AlarmRule:
    """An alarm rule, and what it was found from. Rates are events per period of each stream."""

    alarm: Alarm
    found: bool  # whether the factor was found; False: the recipe has it, or there are too few data
    period: str  # "month", for example
    period_steps: float
    data_steps: int  # scored steps of normal operation, over all streams
    expected: float  # rate at the factor
    interval: tuple[float, float]  # 90 % of it
    extrapolated: bool  # whether fewer than ten events are expected in the data
    spans: dict[int, float] = dataclasses.field(default_factory=dict)  # F1 on the validation part by span, if it chose

    @property
    def data_periods(self) -> float:
        """The length of the data in periods."""
        return self.data_steps / self.period_steps

    def sentence(self) -> str:
        """How the rule was found, in words."""
        alarm = self.alarm
        if not self.data_steps:
            return (
                f"The alarm threshold has a factor of {alarm.factor:g}: there are too few steps of normal operation to "
                f"find one for a false alarm {_each(self.period)}."
            )
        if not self.found:
            return f"The factor {alarm.factor:g} is the recipe's."
        low, high = self.interval
        text = (
            f"The factor {alarm.factor:.3g} is for one false alarm {_each(self.period)} of each stream. It was found "
            f"on {self.data_steps:,} steps of normal operation, {self.data_periods:.2g} {self.period}s in all"
        )
        if self.extrapolated:
            text += (
                f", so the rate is extrapolated by the tail of their scores: 90 % interval {rate(low)} to {rate(high)} "
                f"{_each(self.period)}"
            )
        return text + "."

    def figures(self) -> dict[str, Any]:
        """The rule as JSON values."""
        return {
            **{name: value for name, value in dataclasses.asdict(self.alarm).items() if name != "residuals"},
            "found": self.found,
            "false_alarms_per": self.period,
            "data_steps": self.data_steps,
            "data_periods": self.data_periods,
            "expected": self.expected,
            "interval": list(self.interval),
            "extrapolated": self.extrapolated,
            "f1_by_span": {str(span): value for span, value in self.spans.items()},
        }


def _each(period: str) -> str:
    return f"an {period}" if period == "hour" else f"a {period}"


def find_rule(recipe: Recipe, dataset: Dataset, outputs: Doubles) -> AlarmRule:
    """The alarm rule for the outputs (steps, outputs) of a model at the steps of training and validation part.

    Where the recipe has no `span_steps` and the validation part has events of `truth`, half and twice the usual span
    are tried, and the best F1 on the validation part decides.
    """
    section = recipe.anomaly
    assert section is not None  # the caller checks it
    residuals = residuals_of(dataset, outputs)
    usual = section.alarm(recipe.interval_s)
    rule = _rule_of(recipe, dataset, residuals, usual)
    judge = _validation_f1(recipe, dataset, outputs) if section.span_steps is None else None
    if judge is None:
        return rule
    rules = {}
    for times in _SPANS:
        alarm = section.alarm(recipe.interval_s, max(2, round(times * usual.span_steps)))
        rules[alarm.span_steps] = _rule_of(recipe, dataset, residuals, alarm)
    scores = {span: judge(one.alarm) for span, one in rules.items()}
    scores = {span: value for span, value in scores.items() if np.isfinite(value)}
    if not scores:
        return rule
    return dataclasses.replace(rules[max(scores, key=lambda span: scores[span])], spans=scores)


def calibrated_alarm(
    recipe: Recipe, dataset: Dataset, contract: Contract, model: Forecaster
) -> tuple[Contract, AlarmRule]:
    """The contract with the alarm rule for that model, and how the rule was found. The model meets no test part."""
    learned = dataset.with_validation_in_training()
    # not reading by reading, as a device does: after Ctrl-C there are seconds for it
    rule = find_rule(recipe, dataset, PublishedOutputs(contract)(predict_streamed(model, learned, "train")))
    return dataclasses.replace(contract, alarm=rule.alarm), rule


def residuals_of(dataset: Dataset, outputs: Doubles) -> Doubles:
    """(steps, targets): measured minus expected value at each step, in standard deviations of the feature.

    NaN where the value or its forecast is not known. outputs (steps, outputs): as published.
    """
    contract = dataset.contract
    names = [feature.name for feature in contract.features]
    scale = np.array([contract.features[names.index(target)].scale for target in contract.targets])
    truth, found = dataset.truth, np.full((len(dataset), len(contract.targets)), np.nan)
    error = truth - outputs
    for place, target in enumerate(contract.targets):
        if (period := contract.circles.get(target)) is not None:
            error[:, place] = difference(truth[:, place], outputs[:, place], period)
    horizon = contract.horizons[0]
    found[horizon:] = error[: len(error) - horizon] / scale
    found[dataset.restart if horizon else np.zeros(len(dataset), bool)] = np.nan
    return found


def averaged(dataset: Dataset, residuals: Doubles, alarm: Alarm) -> tuple[Doubles, Integers]:
    """(steps, targets): the averages of a device; (steps,): residuals since the restart, with this one."""
    first = 0 if dataset.contract.horizons == [0] else 1
    known = np.arange(len(dataset)) - dataset.run_start + 1 - first
    begins = np.flatnonzero(np.diff(dataset.stream_of, prepend=-1))
    lengths = np.diff(begins, append=len(dataset))
    smoothed = np.zeros_like(residuals)
    carried = np.zeros((len(begins), residuals.shape[1]))
    least = 2.0 / (alarm.span_steps + 1.0)
    for step in range(int(lengths.max())):
        streams = np.flatnonzero(lengths > step)
        at = begins[streams] + step
        before = np.where((known[at] <= 1)[:, None], 0.0, carried[streams])
        rate = np.maximum(least, 1.0 / np.maximum(known[at], 1))[:, None]
        silent = ~np.isfinite(residuals[at]) | (known[at] <= 0)[:, None]
        carried[streams] = np.where(silent, before, before + rate * (np.nan_to_num(residuals[at]) - before))
        smoothed[at] = carried[streams]
    return smoothed, known


def normal_steps(recipe: Recipe, dataset: Dataset, residuals: Doubles, known: Integers, alarm: Alarm) -> Flags:
    """(steps,): steps of training and validation part in normal operation, with a settled average."""
    early = (dataset.part_of == PARTS.index("train")) | (dataset.part_of == PARTS.index("validation"))
    settled = (np.arange(len(dataset)) - dataset.run_start >= alarm.settle_steps) & (known > 0)
    truth = truth_of(recipe, dataset)
    usual = np.ones(len(dataset), bool) if truth is None else ~(truth > 0)
    found: Flags = early & settled & usual & np.isfinite(residuals).any(axis=1)
    return found


def truth_of(recipe: Recipe, dataset: Dataset) -> Doubles | None:
    """(steps,): the label of anomalies, NaN where unknown; None without one."""
    assert recipe.anomaly is not None  # the caller checks it
    return None if recipe.anomaly.truth is None else dataset.labels.get(recipe.anomaly.truth)


def _rule_of(recipe: Recipe, dataset: Dataset, residuals: Doubles, alarm: Alarm) -> AlarmRule:
    section = recipe.anomaly
    assert section is not None  # the caller checks it
    smoothed, known = averaged(dataset, residuals, alarm)
    normal = normal_steps(recipe, dataset, residuals, known, alarm)
    streams = list(dataset.by_stream(np.flatnonzero(normal)).values())
    alarm = dataclasses.replace(alarm, residuals=residual_statistics(residuals, smoothed, streams, alarm))
    period_steps = PERIOD_S[section.false_alarms_per] / _interval_s(recipe, dataset)
    gap = max(alarm.span_steps, alarm.hold_steps)
    tail = fit_tail([_held_out_scores(smoothed[own], alarm) for own in streams if len(own) >= _FEWEST_ROWS], gap)
    if tail is None:
        return AlarmRule(alarm, False, section.false_alarms_per, period_steps, 0, 0.0, (0.0, 0.0), True)
    found = section.factor is None
    if found:
        alarm = dataclasses.replace(alarm, factor=_rounded(max(_LEAST_FACTOR, tail.level(period_steps))))
    return _described(alarm, found, section.false_alarms_per, period_steps, tail)


def _described(alarm: Alarm, found: bool, period: str, period_steps: float, tail: Tail) -> AlarmRule:
    expected, low, high = tail.events_in(period_steps, alarm.factor)
    extrapolated = tail.steps / period_steps < ENOUGH_EVENTS
    return AlarmRule(alarm, found, period, period_steps, tail.steps, expected, (low, high), extrapolated)


def _held_out_scores(rows: Doubles, alarm: Alarm) -> Doubles:
    """(steps,): distances of a stream's averages (rows, targets), each by a calibration that has not seen it.

    In units of the calibration's quantile. Averages within a span of each other are alike, so the calibration leaves
    out as many steps beside those that it scores.
    """
    bare = dataclasses.replace(alarm, factor=1.0)
    if len(rows) >= 1.5 * alarm.calibrate_steps:
        first = alarm.calibrate_steps
        return _scores(rows[first:], rows[:first], bare)
    edges = np.linspace(0, len(rows), _FOLDS + 1).astype(int)
    found = []
    for begin, end in zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True):
        others = np.ones(len(rows), bool)
        others[max(0, begin - alarm.span_steps) : end + alarm.span_steps] = False
        if others.sum() >= _FEWEST_ROWS // 3:
            found.append(_scores(rows[begin:end], rows[others], bare))
    return np.concatenate(found) if found else np.zeros(0)


def _scores(rows: Doubles, calibration: Doubles, alarm: Alarm) -> Doubles:
    center, whitening, threshold = fit_distance(calibration, alarm)
    repeated = np.broadcast_to(center, rows.shape), np.broadcast_to(whitening, (len(rows), *whitening.shape))
    found: Doubles = distance(rows, *repeated) / threshold
    return found


def residual_statistics(
    residuals: Doubles, smoothed: Doubles, streams: list[Integers], alarm: Alarm
) -> Residuals | None:
    """Pooled covariances and their spread between streams; None without a stream of enough steps, or too many targets.

    residuals, smoothed (steps, targets); streams: the steps of normal operation, by stream.
    """
    targets = residuals.shape[1]
    kept = []
    for own in streams:
        own = own[np.isfinite(residuals[own]).all(axis=1)]
        if len(own) >= max(_FEWEST_ROWS, 2 * targets):
            usual = usual_rows(smoothed[own], alarm.trim, alarm.shrinkage) if alarm.trim is not None else slice(None)
            kept.append(own[usual])
    if not kept or targets > MOST_RESIDUAL_TARGETS:
        return None
    counts = np.array([len(own) for own in kept])
    pooled = {
        name: np.average([np.atleast_2d(np.cov(rows[own], rowvar=False, bias=True)) for own in kept], 0, counts)
        for name, rows in (("raw", residuals), ("averaged", smoothed))
    }
    deviations = np.log(np.maximum([smoothed[own].std(axis=0) for own in kept], 1e-9))
    means = np.array([smoothed[own].mean(axis=0) for own in kept])
    bare = dataclasses.replace(alarm, factor=1.0)
    usual = np.log([max(1e-9, fit_distance(smoothed[own], bare)[2]) for own in kept])
    several = len(kept) > 1
    return Residuals(
        streams=len(kept),
        steps=int(counts.sum()),
        raw=_six_digits(pooled["raw"].ravel()),
        averaged=_six_digits(pooled["averaged"].ravel()),
        spread=_six_digits(deviations.std(axis=0, ddof=1) if several else np.zeros(targets)),
        shift=_six_digits(means.std(axis=0, ddof=1) if several else np.zeros(targets)),
        usual=float(f"{np.exp(np.median(usual)):.6g}"),
        usual_spread=float(f"{usual.std(ddof=1):.6g}") if several else 0.0,
    )


def _six_digits(values: Doubles) -> list[float]:
    return [float(f"{value:.6g}") for value in values]


def _rounded(factor: float) -> float:
    return float(f"{factor:.3g}")


def _interval_s(recipe: Recipe, dataset: Dataset) -> float:
    """The usual time between steps."""
    if recipe.interval_s is not None:
        return recipe.interval_s
    since = np.diff(dataset.times)[np.diff(dataset.stream_of) == 0]
    return float(np.median(since)) if since.size else 1.0


def _validation_f1(recipe: Recipe, dataset: Dataset, outputs: Doubles) -> Callable[[Alarm], float] | None:
    """F1 of an alarm rule on the scored steps of the validation part; None where labels do not show both kinds."""
    truth = truth_of(recipe, dataset)
    if truth is None:
        return None
    needed = np.flatnonzero(dataset.needed_for("validation"))
    validated = (dataset.part_of == PARTS.index("validation"))[needed]

    def judge(alarm: Alarm) -> float:
        contract = dataclasses.replace(dataset.contract, alarm=dataclasses.replace(alarm, residuals=None))
        _, scores, alarms = decide_all(
            contract,
            dataset.stream_of[needed],
            dataset.restart[needed],
            dataset.values[needed].astype(np.float32),
            np.nan_to_num(outputs[needed]).astype(np.float32),
        )
        judged = validated & np.isfinite(scores) & np.isfinite(truth[needed])
        anomalous = truth[needed][judged] > 0
        return f1(anomalous, alarms[judged]) if anomalous.any() and not anomalous.all() else np.nan

    return judge if np.isfinite(judge(dataset.contract.alarm or Alarm())) else None
