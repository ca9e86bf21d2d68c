"""The plots of a report as SVG, drawn with matplotlib figures that change no global state."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib
import numpy as np
from matplotlib import dates
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from numpy.typing import NDArray

from edge_lstm.foundation.arrays import Doubles, Flags

_INK, _FAINT, _TRUTH, _FORECAST, _OTHER = "#1d2530", "#d9dee5", "#9aa5b4", "#0b7a5b", "#c2571a"
# A fixed salt, so that equal inputs give equal bytes. Text as paths, so that no font needs to be installed.
_STYLE = {
    "svg.hashsalt": "edge-lstm",
    "svg.fonttype": "path",
    "font.size": 9.5,
    "text.color": _INK,
    "axes.labelcolor": _INK,
    "axes.edgecolor": _FAINT,
    "xtick.color": "#5b6675",
    "ytick.color": "#5b6675",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
}


@dataclass(frozen=True, eq=False)
class Lines:
    """Measured and predicted values (samples,) at the same times."""

    times: Doubles  # seconds since 1970
    truth: Doubles
    predicted: Doubles
    band: tuple[str, Doubles, Doubles] | None = None  # a range of quantiles: name, lower and upper bound


def forecast_plot(lines: Lines, quantity: str, name: str = "forecast", row_s: float | None = None) -> bytes:
    """The lines over time; `name` labels the predictions. row_s: seconds between rows that have no clock times."""
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(5.8, 2.6), layout="constrained")
        axes = figure.add_subplot()
        moments = _time_axis(axes, lines.times, row_s)
        if lines.band is not None:
            share, low, high = lines.band
            axes.fill_between(moments, low, high, color=_FORECAST, alpha=0.18, linewidth=0, label=share)
        axes.plot(moments, lines.truth, color=_TRUTH, linewidth=2.4, label="measured", solid_capstyle="round")
        axes.plot(moments, lines.predicted, color=_FORECAST, linewidth=1.3, label=name)
        axes.set_ylabel(quantity)
        axes.grid(axis="y", color=_FAINT, linewidth=0.6)
        axes.margins(x=0.01)
        figure.legend(loc="outside upper right", ncols=3)
        return _svg(figure)


def learning_plot(
    updates: Sequence[int], training: Sequence[float], validation: Sequence[float], best: int, relative: bool = True
) -> bytes:
    """The training loss and the validation error over the updates; `best` is the update whose weights are kept.

    relative: whether they are in units of the ridge's error.
    """
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(5.8, 2.4), layout="constrained")
        axes = figure.add_subplot()
        axes.plot(updates, training, color=_TRUTH, linewidth=1.8, marker="o", markersize=3, label="training")
        axes.plot(updates, validation, color=_FORECAST, linewidth=1.8, marker="o", markersize=3, label="validation")
        if relative:
            axes.axhline(1.0, color=_OTHER, linewidth=1, linestyle=(0, (4, 3)), label="ridge on training")
        axes.axvline(best, color=_FAINT, linewidth=4, zorder=0)
        axes.set_xlabel("updates (the band marks the best, whose weights are kept)")
        axes.set_ylabel("error" if relative else "loss")
        axes.grid(axis="y", color=_FAINT, linewidth=0.6)
        figure.legend(loc="outside upper right", ncols=3)
        return _svg(figure)


def residual_plot(errors: Doubles, quantity: str) -> bytes:
    """A histogram of errors (pairs,)."""
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(5.8, 2.0), layout="constrained")
        axes = figure.add_subplot()
        low, high = np.quantile(errors, [0.005, 0.995])
        bins = int(np.clip(np.sqrt(len(errors)), 12, 60))  # few bins for few errors
        axes.locator_params(axis="x", nbins=5)  # small numbers have long labels
        axes.hist(errors, bins=bins, range=(low, high) if high > low else None, color=_FORECAST)
        axes.axvline(0.0, color=_INK, linewidth=0.8)
        axes.set_xlabel(quantity)
        axes.set_ylabel("predictions")
        axes.margins(x=0.01)
        return _svg(figure)


def calibration_plot(
    levels: Sequence[float], found: Sequence[float], what: tuple[str, str] = ("level", "share below")
) -> bytes:
    """The measured share below each quantile over its level, or any other measured share over the ideal one."""
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(5.8, 3.0), layout="constrained")  # as wide as the other plots: equal font sizes
        axes = figure.add_subplot(box_aspect=1)
        axes.plot([0, 1], [0, 1], color=_FAINT, linewidth=1.5)
        axes.plot(levels, found, color=_FORECAST, linewidth=0, marker="o", markersize=5)
        axes.set_xlabel(what[0])
        axes.set_ylabel(what[1])
        axes.set_xlim(0, 1)
        axes.set_ylim(0, 1)
        return _svg(figure)


def threshold_plot(levels: Sequence[float], shares: Mapping[str, Sequence[float]]) -> bytes:
    """Shares of steps by name over thresholds of the score; an alarm begins at 1."""
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(5.8, 2.2), layout="constrained")
        axes = figure.add_subplot()
        for (name, share), color in zip(shares.items(), (_FORECAST, _TRUTH), strict=False):
            axes.plot(levels, share, color=color, linewidth=1.8, label=name)
        axes.axvline(1.0, color=_OTHER, linewidth=1, linestyle=(0, (4, 3)))
        axes.set_xlabel("threshold")
        axes.set_ylabel("share of steps")
        axes.set_ylim(0, 1)
        axes.grid(axis="y", color=_FAINT, linewidth=0.6)
        axes.margins(x=0.01)
        figure.legend(loc="outside upper right", ncols=2)
        return _svg(figure)


def score_plot(times: Doubles, scores: Doubles, truth: Flags, row_s: float | None = None) -> bytes:
    """Scores (samples,) over times as in `forecast_plot`, with the threshold 1 and the true anomalies."""
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(5.8, 2.2), layout="constrained")
        axes = figure.add_subplot()
        moments = _time_axis(axes, times, row_s)
        top = max(1.5, float(np.quantile(scores, 0.99)) * 1.2)
        if truth.any():
            axes.fill_between(moments, 0, top, where=truth.tolist(), color=_FAINT, linewidth=0, label="anomaly")
        axes.plot(moments, np.minimum(scores, top), color=_FORECAST, linewidth=1.2, label="score")
        axes.axhline(1.0, color=_OTHER, linewidth=1, linestyle=(0, (4, 3)), label="alarm")
        axes.set_ylabel("score" if scores.max() <= top else f"score, cut off at {top:.2g}")
        axes.set_ylim(0, top)
        axes.margins(x=0.01)
        figure.legend(loc="outside upper right", ncols=3)
        return _svg(figure)


def _time_axis(axes: Axes, times: Doubles, row_s: float | None) -> NDArray[Any]:
    """The positions (samples,) on the x axis; labels it with dates, or with row numbers if row_s is given."""
    if row_s is not None:
        axes.set_xlabel("row of the stream")
        return 1 + times / row_s
    locator = dates.AutoDateLocator(minticks=3, maxticks=6)
    axes.xaxis.set_major_locator(locator)
    axes.xaxis.set_major_formatter(dates.ConciseDateFormatter(locator))
    return (times * 1000).astype("datetime64[ms]")


def _svg(figure: Figure) -> bytes:
    FigureCanvasSVG(figure)
    file = io.BytesIO()
    figure.savefig(file, format="svg", metadata={"Date": None})
    return file.getvalue()
