"""The tables and plots of an evaluation, as blocks and sections of a report."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from edge_lstm.streaming.reading import Prediction
from edge_lstm_train.data.dataset import Dataset
from edge_lstm_train.evaluation import classification, plots
from edge_lstm_train.evaluation.baselines import MEAN, NAIVE
from edge_lstm_train.evaluation.formatting import (
    output_label,
    percent,
    rounded,
    steps_ahead,
    steps_text,
    with_unit,
)
from edge_lstm_train.evaluation.intervals import Held, aligned_bands, banded
from edge_lstm_train.evaluation.predictions import aligned
from edge_lstm_train.evaluation.regression import MODEL, Coverage, Score, errors_of, r2_text
from edge_lstm_train.evaluation.report import Block, Paragraph, Picture, Section, Table
from edge_lstm_train.recipe.recipe import Recipe

MOST_STREAMS = 12  # rows of a table by stream
_MOST_PLOTS = 6
_PLOTTED_STEPS = 120  # where the dataset has no season
_PLOTTED_SEASONS = 4


def score_tables(scores: list[Score]) -> list[Block]:
    """RMSE of the model and the baselines, the best in bold; one table per target if it has several horizons."""
    targets = list(dict.fromkeys(one.target for one in scores))
    several = len(scores) > len(targets)
    groups = [[one for one in scores if one.target == target] for target in targets] if several else [list(scores)]
    return [*(_score_table(group, several) for group in groups), Paragraph(_table_note(scores), "note")]


def _score_table(scores: list[Score], one_target: bool) -> Table:
    names = list(scores[0].rmse)
    head = with_unit(scores[0].target, scores[0].unit) if one_target else steps_ahead(scores[0].horizon) or "estimated"
    estimates = not any(one.horizon for one in scores)
    rows, strong = [], set()
    for row, one in enumerate(scores):
        name = steps_text(one.horizon) if one_target else with_unit(one.target, one.unit)
        rows.append(
            [
                name,
                *rounded([one.rmse[name] for name in names]),
                percent(one.skill()),
                *([r2_text(one)] if estimates else []),
            ]
        )
        strong.add((row, _best_column(one, names)))
    return Table([head, *names, "skill", *(["R²"] if estimates else [])], rows, frozenset(strong))


def _best_column(one: Score, names: list[str]) -> int:
    """The column of the lowest RMSE, in a table whose first column holds names."""
    return 1 + names.index(min(names, key=lambda name: one.rmse[name]))


def _table_note(scores: list[Score]) -> str:
    fewest, most = min(one.pairs for one in scores), max(one.pairs for one in scores)
    pairs = f"{most:,}" if fewest == most else f"{fewest:,} to {most:,}"
    naive = [name for name in NAIVE if name in scores[0].rmse]
    opponent = "the better naive baseline" if len(naive) > 1 else "the mean" if naive == [MEAN] else naive[0]
    return (
        f"RMSE over {pairs} predictions, the best of each row in bold; the state is carried from reading to reading. "
        f"Skill is 1 - RMSE of the model / RMSE of {opponent}."
    )


def stream_tables(by_stream: dict[str, list[Score]]) -> list[Block]:
    """RMSE of the model and the baselines per stream: a table for each of the first outputs."""
    blocks: list[Block] = []
    for scores in list(zip(*by_stream.values(), strict=True))[:_MOST_PLOTS]:
        compared = [(name, one) for name, one in zip(by_stream, scores, strict=True) if one.pairs]
        compared.sort(key=lambda one: -one[1].rmse[MODEL])
        head, names = scores[0], list(scores[0].rmse)
        rows, strong = [], set()
        for row, (stream, one) in enumerate(compared[:MOST_STREAMS]):
            rows.append([stream, *rounded([one.rmse[name] for name in names])])
            strong.add((row, _best_column(one, names)))
        title = with_unit(output_label(head.target, head.horizon), head.unit)
        blocks.append(Table([title, *names], rows, frozenset(strong)))
    return [*blocks, *not_shown(len(by_stream))]


def not_shown(streams: int) -> list[Block]:
    """A note if a table by stream does not show all of them."""
    if streams <= MOST_STREAMS:
        return []
    return [Paragraph(f"The {MOST_STREAMS} worst of {streams} streams; metrics.json has them all.", "note")]


def forecast_pictures(
    dataset: Dataset, predictions: Sequence[Prediction], row_s: float | None = None, name: str | None = None
) -> list[Block]:
    """For each target and horizon, the measured and the predicted values over the last seasons of the test part.

    row_s: seconds between rows that have no clock times. name: the legend's word for the predictions.
    """
    predicted, truth = aligned(dataset, predictions), dataset.truth
    bounds, places = aligned_bands(dataset, predictions), banded(dataset.contract)
    test = dataset.steps("test")
    stream = np.bincount(dataset.stream_of[test]).argmax()
    shown = test[dataset.stream_of[test] == stream]
    season = dataset.season
    plotted = _PLOTTED_SEASONS * season if season and season <= _PLOTTED_STEPS else _PLOTTED_STEPS
    contract = dataset.contract
    blocks: list[Block] = []
    for target in contract.targets:
        for horizon in contract.horizons:
            columns = [contract.outputs.index((each, horizon)) for each in contract.output_names_of(target)]
            output = columns[0]
            known = np.isfinite(truth[shown, output]) & np.isfinite(predicted[shown, output])
            steps = shown[known][-plotted:]
            if not steps.size or len(blocks) == _MOST_PLOTS:
                continue
            called = name or ("forecast" if horizon else "estimate")
            lines = plots.Lines(dataset.times[steps + horizon], truth[steps, output], predicted[steps, output])
            band = predicted[steps][:, columns[1:]]
            if contract.intervals is not None and target not in contract.circles:
                low, high = bounds[steps, places.index((target, horizon))].T
                share = f"interval of {100 * contract.intervals.level:g} %"
                lines = dataclasses.replace(lines, band=(share, low, high))
            elif band.shape[1] > 1:
                least, most = min(contract.quantiles), max(contract.quantiles)
                share = f"{100 * least:g} to {100 * most:g} %"
                lines = dataclasses.replace(lines, band=(share, band.min(axis=1), band.max(axis=1)))
            quantity = with_unit(target, contract.target_units[target])
            several = len(dataset.recording.streams) > 1
            named = dataset.recording.streams[stream] if several else None
            svg = plots.forecast_plot(lines, quantity, called, row_s, named)
            blocks.append(Picture(svg, f"{target}, {called} {steps_ahead(horizon)}".strip()))
    return blocks


def residual_pictures(dataset: Dataset, predictions: Sequence[Prediction]) -> list[Block]:
    """A histogram of the errors of each of the first outputs on the test part."""
    predicted, truth, test = aligned(dataset, predictions), dataset.truth, dataset.steps("test")
    periods = dataset.contract.circles
    blocks: list[Block] = []
    for output, (target, horizon) in enumerate(dataset.contract.outputs):
        errors = errors_of(predicted[test, output], truth[test, output], periods.get(target))
        errors = errors[np.isfinite(errors)]
        if target in dataset.contract.targets and errors.size and len(blocks) < _MOST_PLOTS:
            quantity = with_unit(f"error of {target}", dataset.contract.target_units[target])
            caption = f"{output_label(target, horizon)}: distribution of the error"
            blocks.append(Picture(plots.residual_plot(errors, quantity), caption))
    return blocks


def quantile_section(coverage: Sequence[Coverage]) -> Section:
    """The calibration of the quantiles: their levels and the shares of the truth below them."""
    rows = [[output_label(one.target, one.horizon), f"{one.level:g}", f"{one.below:.3f}"] for one in coverage]
    note = Paragraph("The share of measured values below each quantile. Well calibrated, both columns agree.", "note")
    picture = Picture(
        plots.calibration_plot([one.level for one in coverage], [one.below for one in coverage]),
        "Quantiles: measured share below each quantile, over its level",
    )
    return Section("Calibration", [Table(["quantile of", "level", "found"], rows), note, picture])


def interval_section(held: Sequence[Held]) -> Section:
    """How often the intervals held: overall, in the worst stream and in the worst hour of the day."""
    rows = []
    for one in held:
        if not one.pairs:
            continue
        stream = min(one.by_stream, key=lambda name: one.by_stream[name])
        hour = min(one.by_hour, key=lambda number: one.by_hour[number])
        rows.append(
            [
                output_label(one.target, one.horizon),
                percent(one.share),
                with_unit(rounded([one.width])[0], one.unit),
                f"{percent(one.by_stream[stream])} ({stream})",
                f"{percent(one.by_hour[hour])} ({hour}:00)",
            ]
        )
    level = 100 * held[0].level
    note = Paragraph(
        f"Intervals that should hold {level:g} % of the measured values, as a device publishes them: calibrated on the "
        "validation part, and by each stream's own measured values since. Hours are in UTC.",
        "note",
    )
    return Section(
        "Intervals", [Table(["interval of", "held", "mean width", "worst stream", "worst hour"], rows), note]
    )


def calibration_section(dataset: Dataset, predictions: Sequence[Prediction]) -> list[Section]:
    """The accuracy of the most likely class over its predicted probability; empty without predictions."""
    shares, found = classification.reliability(dataset, aligned(dataset, predictions))
    if not shares:
        return []
    picture = Picture(
        plots.calibration_plot(shares, found, ("probability", "share right")),
        "The most likely class of each step: its accuracy, over its predicted probability",
    )
    note = Paragraph("Well calibrated, the points are on the line. Below it, the model is overconfident.", "note")
    return [Section("Calibration", [picture, note])]


def time_note(recipe: Recipe) -> str:
    """The time zone of a plot, for its heading; empty for rows without clock times."""
    return "" if recipe.recording.row_s is not None else " (times in UTC)"
