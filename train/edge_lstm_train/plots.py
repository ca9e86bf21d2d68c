"""The plots of a report, as SVG; drawn with matplotlib's figures alone, so that no global state is touched."""

from __future__ import annotations

import io
from collections.abc import Sequence

import matplotlib
import numpy as np
from matplotlib import dates
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from numpy.typing import NDArray

_INK, _FAINT, _TRUTH, _FORECAST, _OTHER = "#1d2530", "#d9dee5", "#9aa5b4", "#0b7a5b", "#c2571a"
# Fixed, so that equal inputs give equal bytes; and letters as outlines, so that no font has to be there.
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


def forecast_plot(
    times: NDArray[np.float64], truth: NDArray[np.float64], forecast: NDArray[np.float64], quantity: str
) -> bytes:
    """What was measured (samples,) and what had been forecast for the same times (seconds since 1970)."""
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(5.8, 2.6), layout="constrained")
        axes = figure.add_subplot()
        moments = (times * 1000).astype("datetime64[ms]")
        axes.plot(moments, truth, color=_TRUTH, linewidth=2.4, label="measured", solid_capstyle="round")
        axes.plot(moments, forecast, color=_FORECAST, linewidth=1.3, label="forecast")
        locator = dates.AutoDateLocator(minticks=3, maxticks=6)
        axes.xaxis.set_major_locator(locator)
        axes.xaxis.set_major_formatter(dates.ConciseDateFormatter(locator))
        axes.set_ylabel(quantity)
        axes.grid(axis="y", color=_FAINT, linewidth=0.6)
        axes.margins(x=0.01)
        figure.legend(loc="outside upper right", ncols=2)
        return _svg(figure)


def learning_plot(updates: Sequence[int], training: Sequence[float], validation: Sequence[float], best: int) -> bytes:
    """The training loss and the validation error (both relative to ridge) over the updates; `best` is the one kept."""
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(5.8, 2.4), layout="constrained")
        axes = figure.add_subplot()
        axes.plot(updates, training, color=_TRUTH, linewidth=1.8, marker="o", markersize=3, label="training")
        axes.plot(updates, validation, color=_FORECAST, linewidth=1.8, marker="o", markersize=3, label="validation")
        axes.axhline(1.0, color=_OTHER, linewidth=1, linestyle=(0, (4, 3)), label="ridge on training")
        axes.axvline(best, color=_FAINT, linewidth=4, zorder=0)
        axes.set_xlabel("updates (the band marks the weights that were kept)")
        axes.set_ylabel("error")
        axes.grid(axis="y", color=_FAINT, linewidth=0.6)
        figure.legend(loc="outside upper right", ncols=3)
        return _svg(figure)


def _svg(figure: Figure) -> bytes:
    FigureCanvasSVG(figure)
    file = io.BytesIO()
    figure.savefig(file, format="svg", metadata={"Date": None})
    return file.getvalue()
