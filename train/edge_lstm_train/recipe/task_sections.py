"""The sections of a recipe on what to learn: a forecast, an alarm rule, classes or an estimate."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

from edge_lstm.bundle.contract import Alarm, Decision
from edge_lstm.foundation.config import key

Period = Literal["hour", "day", "week", "month", "year"]
PERIOD_S: dict[Period, float] = {"hour": 3600, "day": 86_400, "week": 604_800, "month": 2_592_000, "year": 31_536_000}
_UNKNOWN_FACTOR = 3.0  # until training has found one


def _intervals() -> Any:
    """The key that a forecast and an estimate share."""
    doc = "probability that the truth lies in the published interval of a prediction, e.g. 0.9; none: no interval"
    return key(None, doc=doc, least=0.5, most=0.995)


@dataclass(frozen=True)
class ForecastSection:
    """Targets and horizons of a forecast."""

    targets: list[str] = key(doc="features to predict")
    horizons: list[int] = key(doc="steps ahead", least=1)
    change: bool = key(True, doc="true: predict the change from the newest value; false: predict the value itself")
    season: int | None = key(None, doc="number of steps in a season, for the seasonal-naive baseline", least=2)
    quantiles: list[float] = key(
        [], doc="quantiles to predict for each target, ascending, e.g. 0.1 and 0.9", least=0.001, most=0.999
    )
    intervals: float | None = _intervals()

    def faults(self) -> Iterator[tuple[str, str]]:
        for name, listed in (("targets", self.targets), ("horizons", self.horizons)):
            if not listed:
                yield name, "expected at least one"
            elif len(set(listed)) < len(listed):
                yield name, f"expected each once, found {', '.join(map(str, listed))}"
        yield from _quantile_faults(self.quantiles)


@dataclass(frozen=True)
class AnomalySection:
    """The alarm rule of anomaly detection, on the residual of a forecast of the next step."""

    false_alarms_per: Period = key(
        "month",
        doc="the objective: about one false alarm of each stream in this time; training finds the `factor` for it",
    )
    span_steps: int | None = key(
        None,
        least=1,
        most=1_000_000,
        doc="span of the exponential average of the residuals; none: about 45 s if steps are 10 s apart or less, else "
        "4 h, but 10 to 240 steps; where labels tell, half or twice as much",
    )
    settle_steps: int | None = key(
        None,
        least=0,
        most=1_000_000,
        doc="steps after a start or restart that get no score; none: half of `span_steps`, but at least 20",
    )
    calibrate_steps: int = key(
        400,
        least=20,
        most=10_000,
        doc="steps after settle_steps in which a stream is calibrated; the equipment must work normally",
    )
    hold_steps: int | None = key(
        None,
        least=0,
        most=1_000_000,
        doc="an alarm ends after more than so many steps in a row at or below `release`; none: half of `span_steps`",
    )
    factor: float | None = key(
        None,
        least=0.01,
        doc="the alarm threshold is this factor times the quantile; none: found from data by `false_alarms_per`",
    )
    release: float = key(1.0, least=0.01, most=1.0, doc="an alarm ends below this score")
    ceiling: float | None = key(
        1.5, least=1.0, doc="the average is pulled back to this score, so that an alarm ends soon after its event"
    )
    trim: float | None = key(
        6.0,
        least=2.0,
        doc="steps of a stream's calibration further than this many times the median distance are left out of it",
    )
    quantile: float = key(0.99, least=0.5, most=1.0, doc="quantile of the distances during calibration")
    shrinkage: float = key(0.1, least=0.0, most=1.0, doc="shrinkage of the covariance towards its diagonal")
    targets: list[str] = key([], doc="features whose residuals are scored; empty: all numeric features")
    reconstruct: bool = key(
        False, doc="true: score the reconstruction of the same step; false: score the forecast of the next step"
    )
    truth: str | None = key(
        None, doc="label that is 1 where there is an anomaly; for alarm rule and evaluation, never for weights"
    )
    change: bool = key(True, doc="true: forecast the change from the newest value; false: forecast the value itself")

    def alarm(self, interval_s: float | None, span_steps: int | None = None) -> Alarm:
        """The alarm rule before its factor is found. interval_s: between steps, if known.

        span_steps: instead of the section's.
        """
        span = span_steps or self.span_steps or usual_span(interval_s)
        return Alarm(
            span_steps=span,
            settle_steps=max(20, span // 2) if self.settle_steps is None else self.settle_steps,
            calibrate_steps=self.calibrate_steps,
            quantile=self.quantile,
            factor=_UNKNOWN_FACTOR if self.factor is None else self.factor,
            release=self.release,
            shrinkage=self.shrinkage,
            hold_steps=span // 2 if self.hold_steps is None else self.hold_steps,
            ceiling=self.ceiling,
            trim=self.trim,
        )


def usual_span(interval_s: float | None) -> int:
    """The span of the average in steps, for steps that are interval_s apart.

    Faults of fast processes (steps of 10 s or less) show within a minute. Slow ones, such as leaks, go on for hours.
    """
    if interval_s is None:
        return 40
    return round(min(240.0, max(10.0, (45.0 if interval_s <= 10 else 14_400.0) / interval_s)))


@dataclass(frozen=True)
class ClassifySection(Decision):
    """The classes of a classifier."""

    classes: list[str] = key([], doc="values of the label to distinguish")
    ahead: int = key(0, doc="how many steps ahead the label is; 0: this step; 1: the next symbol of a series", least=0)
    balance: bool = key(False, doc="true: rare classes weigh as much as frequent ones")
    rare_chunks: float = key(
        0.0,
        doc="share of the chunks that are drawn from where the rarer classes occur, each class as often as any other",
        least=0,
        most=0.9,
    )
    smoothing: float = key(
        0.0, doc="label smoothing: share of the probability that is spread over all classes", least=0, most=0.5
    )


@dataclass(frozen=True)
class RegressSection:
    """The target of an estimate: a label of the recording that no sensor on the device measures."""

    target: str = key(doc="label of the recording to estimate")
    unit: str = key("", doc="physical unit of the target, for display only")
    cap: float | None = key(None, doc="a larger target is set to this value", least=1e-9)
    quantiles: list[float] = key(
        [], doc="quantiles to estimate for the target, ascending, e.g. 0.1 and 0.9", least=0.001, most=0.999
    )
    intervals: float | None = _intervals()

    def faults(self) -> Iterator[tuple[str, str]]:
        yield from _quantile_faults(self.quantiles)


def _quantile_faults(quantiles: list[float]) -> Iterator[tuple[str, str]]:
    if sorted(set(quantiles)) != quantiles:
        yield "quantiles", f"expected each once and the least first, found {', '.join(map(str, quantiles))}"
