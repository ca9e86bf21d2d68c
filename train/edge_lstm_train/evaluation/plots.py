"""The plots of a report as SVG, drawn with matplotlib figures that change no global state."""

from __future__ import annotations

import hashlib
import io
import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import matplotlib
import numpy as np
from matplotlib import dates
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from numpy.typing import NDArray

from edge_lstm.foundation.arrays import Doubles, Flags, Integers

_INK, _FAINT, _TRUTH, _FORECAST, _OTHER, _SOFT = "#1d2530", "#d9dee5", "#8a96a6", "#0b7a5b", "#c2571a", "#5b6675"
# The page has these colors as variables, so that its dark mode reaches the plots.
_VARIABLES = {_INK: "ink", _FAINT: "line", _TRUTH: "measured", _FORECAST: "model", _OTHER: "other", _SOFT: "soft"}
# A fixed salt, so that equal inputs give equal bytes. Text stays text: the reader's browser has the fonts.
_STYLE = {
    "svg.hashsalt": "edge-lstm",
    "svg.fonttype": "none",
    "text.color": _INK,
    "text.parse_math": False,  # "$" in a name is a dollar
    "axes.labelcolor": _INK,
    "axes.edgecolor": _FAINT,
    "axes.facecolor": "none",
    "figure.facecolor": "none",
    "xtick.color": _SOFT,
    "ytick.color": _SOFT,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
}
# A plot is drawn for a wide and for a narrow page, each about in the size in which it is shown.
_WIDE, _NARROW = (7.24, 9.0), (3.46, 8.6)  # width in inches of 100 pixels, size of the font in points
_INCH = 100  # pixels
_MOST_POINTS = 1500  # of a line: more than a plot has pixels
_MOST_NAME = 40  # characters of a name on a plot


class Drawing(NamedTuple):
    """A plot as two SVGs, for a wide and for a narrow page."""

    wide: bytes
    narrow: bytes


@dataclass(frozen=True, eq=False)
class Lines:
    """Measured and predicted values (samples,) at the same times."""

    times: Doubles  # seconds since 1970
    truth: Doubles
    predicted: Doubles
    band: tuple[str, Doubles, Doubles] | None = None  # a range of quantiles: name, lower and upper bound


def forecast_plot(
    lines: Lines, quantity: str, name: str = "forecast", row_s: float | None = None, stream: str | None = None
) -> Drawing:
    """The lines over time; `name` labels the predictions, `stream` the plot.

    row_s: seconds between rows that have no clock times.
    """

    def draw(figure: Figure) -> None:
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
        if stream is not None:
            axes.set_title(_short(f"stream {stream}"), loc="left", fontsize="medium", color=_SOFT)
        figure.legend(loc="outside upper right", ncols=3)

    return _drawn(draw, 2.6)


def learning_plot(
    updates: Sequence[int], training: Sequence[float], validation: Sequence[float], best: int, relative: bool = True
) -> Drawing:
    """The training loss and the validation error over the updates; `best` is the update whose weights are kept.

    relative: whether they are in units of the ridge's error.
    """

    def draw(figure: Figure) -> None:
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

    return _drawn(draw, 2.4)


def residual_plot(errors: Doubles, quantity: str) -> Drawing:
    """A histogram of errors (pairs,)."""

    def draw(figure: Figure) -> None:
        axes = figure.add_subplot()
        low, high = np.quantile(errors, [0.005, 0.995])
        bins = int(np.clip(np.sqrt(len(errors)), 12, 60))  # few bins for few errors
        axes.locator_params(axis="x", nbins=5)  # small numbers have long labels
        axes.hist(errors, bins=bins, range=(low, high) if high > low else None, color=_FORECAST)
        axes.axvline(0.0, color=_INK, linewidth=0.8)
        axes.set_xlabel(quantity)
        axes.set_ylabel("predictions")
        axes.margins(x=0.01)

    return _drawn(draw, 2.0)


def calibration_plot(
    levels: Sequence[float], found: Sequence[float], what: tuple[str, str] = ("level", "share below")
) -> Drawing:
    """The measured share below each quantile over its level, or any other measured share over the ideal one."""

    def draw(figure: Figure) -> None:
        axes = figure.add_subplot(box_aspect=1)
        axes.plot([0, 1], [0, 1], color=_FAINT, linewidth=1.5)
        axes.plot(levels, found, color=_FORECAST, linewidth=0, marker="o", markersize=5)
        axes.set_xlabel(what[0])
        axes.set_ylabel(what[1])
        axes.set_xlim(0, 1)
        axes.set_ylim(0, 1)

    return _drawn(draw, 3.0)


def threshold_plot(levels: Sequence[float], shares: Mapping[str, Sequence[float]]) -> Drawing:
    """Shares of steps by name over thresholds of the score; an alarm begins at 1."""

    def draw(figure: Figure) -> None:
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

    return _drawn(draw, 2.4)


@dataclass(frozen=True, eq=False)
class AlarmLines:
    """Scores and measured values (samples,) of one stream, with its true anomalies and its alarms."""

    stream: str
    times: Doubles  # seconds since 1970
    scores: Doubles  # NaN: none
    anomalous: Flags
    alarms: Flags
    measured: Mapping[str, Doubles]  # by quantity with its unit


def alarm_plot(lines: AlarmLines, top: float, row_s: float | None = None) -> Drawing:
    """Measured values above the score, over times as in `forecast_plot`. top: of the score's axis, for all streams."""

    def draw(figure: Figure) -> None:
        rows = len(lines.measured) + 1
        panels: list[Axes] = list(figure.subplots(rows, sharex=True, squeeze=False)[:, 0])
        every = _envelope(np.nan_to_num(lines.scores), *lines.measured.values())
        moments = _time_axis(panels[-1], lines.times, row_s)
        for axes in panels:
            _shade(axes, moments, lines.anomalous, _TRUTH, 0.28, "anomaly")
            _shade(axes, moments, lines.alarms, _OTHER, 0.22, "alarm")
            axes.margins(x=0.01)
        for axes, (name, values) in zip(panels, lines.measured.items(), strict=False):
            axes.plot(moments[every], values[every], color=_INK, linewidth=0.9)
            axes.set_title(_short(name), loc="left", fontsize="medium", color=_SOFT)
            axes.locator_params(axis="y", nbins=4)
        below = panels[-1]
        below.plot(moments[every], np.minimum(lines.scores, top)[every], color=_FORECAST, linewidth=1.1, label="score")
        below.axhline(1.0, color=_OTHER, linewidth=1, linestyle=(0, (4, 3)))
        below.set_ylim(0, top)
        above = np.nanmax(lines.scores, initial=0.0) > top
        below.set_title(
            "score" + (f", cut off at {top:.2g}" if above else ""), loc="left", fontsize="medium", color=_SOFT
        )
        figure.suptitle(_short(f"stream {lines.stream}"), x=0.02, ha="left", fontsize="large")
        _legend(figure, panels)

    return _drawn(draw, 0.9 + 1.15 * (len(lines.measured) + 1))


def _shade(axes: Axes, moments: NDArray[Any], flags: Flags, color: str, alpha: float, name: str) -> None:
    """Mark the runs of true flags (samples,)."""
    edges = np.flatnonzero(np.diff(flags.astype(np.int64), prepend=0, append=0))
    for run, (begin, end) in enumerate(zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True)):
        last = min(end, len(moments) - 1)
        axes.axvspan(
            moments[begin], moments[last], color=color, alpha=alpha, linewidth=0, label=name if run == 0 else None
        )


def _legend(figure: Figure, panels: Sequence[Axes]) -> None:
    """One legend for all panels, each name once."""
    found: dict[str, Any] = {}
    for axes in panels:
        for handle, name in zip(*axes.get_legend_handles_labels(), strict=True):
            found.setdefault(name, handle)
    figure.legend(
        found.values(), found.keys(), loc="outside lower left", ncols=len(found), columnspacing=1, handlelength=1.4
    )


def _envelope(*lines: Doubles) -> Integers:
    """The samples to draw, so that a line of many samples keeps its smallest and largest values."""
    count = len(lines[0])
    if count <= _MOST_POINTS:
        return np.arange(count)
    blocks = np.array_split(np.arange(count), _MOST_POINTS // (2 * len(lines)))
    chosen = {
        int(block[at]) for line in lines for block in blocks for at in (line[block].argmin(), line[block].argmax())
    }
    return np.array(sorted(chosen | {0, count - 1}))


def _short(name: str) -> str:
    return name if len(name) <= _MOST_NAME else f"{name[: _MOST_NAME - 3]}..."


def _time_axis(axes: Axes, times: Doubles, row_s: float | None) -> NDArray[Any]:
    """The positions (samples,) on the x axis; labels it with dates, or with row numbers if row_s is given."""
    if row_s is not None:
        axes.set_xlabel("row of the stream")
        return 1 + times / row_s
    locator = dates.AutoDateLocator(minticks=3, maxticks=6)
    axes.xaxis.set_major_locator(locator)
    axes.xaxis.set_major_formatter(dates.ConciseDateFormatter(locator))
    return (times * 1000).astype("datetime64[ms]")


def _drawn(draw: Callable[[Figure], None], height: float) -> Drawing:
    """The plot in both widths; height: in inches of the wide one."""
    return Drawing(*(_svg(draw, width, height, font) for width, font in (_WIDE, _NARROW)))


def _svg(draw: Callable[[Figure], None], width: float, height: float, font: float) -> bytes:
    with matplotlib.rc_context({**_STYLE, "font.size": font}), warnings.catch_warnings():
        # letters that the measuring font lacks; the browser has them
        warnings.filterwarnings("ignore", "Glyph .* missing from", UserWarning)
        figure = Figure(figsize=(width, height), dpi=_INCH, layout="constrained")
        draw(figure)
        FigureCanvasSVG(figure)
        file = io.BytesIO()
        figure.savefig(file, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    return _for_a_page(file.getvalue())


def _for_a_page(svg: bytes) -> bytes:
    """The SVG as an element of a page: its colors are the page's variables, and its ids are its own."""
    text = svg[svg.index(b"<svg") :].decode()
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r' xmlns(:xlink)?="[^"]*"', "", text).replace("xlink:href", "href")  # names that HTML knows itself
    text = re.sub(r"; font-family: [^;\"]+", "", text)  # that of the page
    own = hashlib.blake2b(text.encode(), digest_size=4).hexdigest()
    text = re.sub(r'(\bid="|url\(#|href="#)', rf"\g<1>p{own}-", text)
    for color, name in _VARIABLES.items():
        text = text.replace(color, f"var(--{name})")
    return text.encode()
