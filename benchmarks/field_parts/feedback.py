"""Prints how an operator's marks change the alarms.

    python benchmarks/field_parts/feedback.py --data DIR [--folder DIR] [--choose]

A simulated operator marks each false episode when it ends, and each window that passed without an alarm. Twenty
shuffled orders of the valve recordings are each one device; the machine is another one. A threshold's move and its
half-life are chosen by the first ten orders (`--choose` prints all candidates), and the other ten are reported.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import os
import platform
import random
import time
from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

from edge_lstm.bundle.archive import Bundle
from edge_lstm.decisions.alarms.operator import Operator
from edge_lstm.decisions.rules import DecisionRules
from edge_lstm.service.feedback.applying import apply
from edge_lstm.streaming.predictor import Predictor
from edge_lstm.streaming.reading import Command, Reading
from edge_lstm_export.assemble import export_bundle
from edge_lstm_train.data.dataset import read_dataset
from edge_lstm_train.evaluation.baselines import fit_baselines
from edge_lstm_train.evaluation.trained_contract import trained_contract
from edge_lstm_train.model.checkpoint import Checkpoint
from edge_lstm_train.recipe.recipe import read_recipe
from edge_lstm_train.run import choose, held_out_steps

ORDERS = 20
PAUSE_S = 3600.0  # between two recordings of a chain: the device restarts
DAY_S = 86_400.0
WRONG = 0.1  # share of the alarms within windows that are marked as false
CHOSEN = DecisionRules(feedback=True, feedback_most=1.5, feedback_half_life_s=30 * DAY_S)
STEPS, BOUNDS, HALF_LIVES = (1.0, 1.05, 1.1), (1.25, 1.5), (1.0, 30.0)  # days
RESIDUALS = (False, True)


class Row(NamedTuple):
    """A reading and whether it lies in a window with a fault; `window`: its number, or -1."""

    reading: Reading
    window: int


class Found(NamedTuple):
    """What the alarms of some devices came to."""

    hit: int  # windows with an alarm
    windows: int
    false: int  # episodes outside of windows

    def __str__(self) -> str:
        return f"{self.hit} of {self.windows} windows, {self.false} false episodes"


class Marks(NamedTuple):
    """How the operator marks."""

    rules: DecisionRules = DecisionRules()
    residuals: bool = False
    wrong: float = 0.0


def bundle_of(name: str, data: Path, folder: Path, factor: float) -> Bundle:
    """The bundle of a recipe with this factor of the threshold; trained once."""
    path = folder / f"{name}.elstm"
    if not path.exists():
        recipe = read_recipe(name, data)
        assert recipe.anomaly is not None
        recipe = dataclasses.replace(recipe, anomaly=dataclasses.replace(recipe.anomaly, factor=factor))
        dataset = read_dataset(recipe)
        fitted = choose(recipe, dataset, fit_baselines(dataset, recipe.fit.refit, recipe.model.most_parameters))
        contract, _ = trained_contract(recipe, dataset, fitted.chosen.fitted)
        held_out = dataset.features[held_out_steps(dataset)]
        folder.mkdir(parents=True, exist_ok=True)
        export_bundle(Checkpoint(fitted.chosen.fitted.model, contract, held_out, {}), path, schemes=["int8"])
    return Bundle.open(path)


def recordings_of(name: str, data: Path) -> list[list[Row]]:
    """The rows of each recording of a recipe, in order."""
    recipe = read_recipe(name, data)
    assert recipe.anomaly is not None
    assert recipe.anomaly.truth is not None
    dataset = read_dataset(recipe)
    inside = dataset.labels[recipe.anomaly.truth] > 0
    truth = {
        (int(stream), float(at)): bool(flag)
        for stream, at, flag in zip(dataset.stream_of, dataset.times, inside, strict=True)
    }
    streams = list(dataset.recording.streams)
    rows: dict[str, list[Row]] = {}
    windows, former = 0, {}
    for reading in dataset.recording.readings():
        flag = truth.get((streams.index(reading.stream), reading.time), False)
        if flag and not former.get(reading.stream, False):
            windows += 1
        former[reading.stream] = flag
        rows.setdefault(reading.stream, []).append(Row(reading, windows - 1 if flag else -1))
    return list(rows.values())


def chained(recordings: Sequence[Sequence[Row]], device: str) -> list[Row]:
    """The recordings one after another, as those of one device."""
    found: list[Row] = []
    at = 1_700_000_000.0
    for rows in recordings:
        begin = rows[0].reading.time
        found += [
            row._replace(reading=row.reading._replace(stream=device, time=at + row.reading.time - begin))
            for row in rows
        ]
        at = found[-1].reading.time + PAUSE_S
    return found


def alarms_of(bundle: Bundle, devices: Sequence[Sequence[Row]], marks: Marks) -> list[Found]:
    """What the alarms of each device come to while the operator marks them."""
    predictor = Predictor.of(bundle, scheme="int8", decision_rules=marks.rules)
    watchers = [_Watcher(predictor, marks, rows, seed) for seed, rows in enumerate(devices)]
    for rows in itertools.zip_longest(*devices):
        steps = predictor.feed_columns([row.reading for row in rows if row is not None])
        if steps is None:  # a repeated row
            continue
        assert steps.decisions.alarms is not None
        by_stream = dict(zip(steps.streams, steps.decisions.alarms.tolist(), strict=True))
        for row, watcher in zip(rows, watchers, strict=True):
            if row is not None and row.reading.stream in by_stream:
                watcher.look(row, by_stream[row.reading.stream])
    return [watcher.found() for watcher in watchers]


class _Watcher:
    """One operator beside one device."""

    def __init__(self, predictor: Predictor, marks: Marks, rows: Sequence[Row], seed: int) -> None:
        self._predictor, self._marks = predictor, marks
        self._operator = Operator(marks.rules)
        self._random = random.Random(seed)
        self._windows = len({row.window for row in rows} - {-1})
        self._hit: set[int] = set()
        self._false = self._number = 0
        self._window, self._alarm, self._touched = -1, False, False

    def look(self, row: Row, alarm: bool) -> None:
        if alarm and row.window >= 0:
            self._hit.add(row.window)
        if alarm:
            self._touched = (self._touched and self._alarm) or row.window >= 0
        elif self._alarm:
            self._false += not self._touched
            if not self._touched or self._random.random() < self._marks.wrong:
                self._mark(row, "false_alarm")
        if row.window != self._window and self._window >= 0 and self._window not in self._hit:
            self._mark(row, "missed")
        self._window, self._alarm = row.window, alarm

    def _mark(self, row: Row, kind: str) -> None:
        if not self._marks.rules.feedback:
            return
        self._number += 1
        stream, time_s = row.reading.stream, row.reading.time
        record = self._predictor.table.current[self._predictor.table.slot(stream)]
        facts = {"from": float(record["alarm_begins"][0]), "residuals": self._marks.residuals}
        apply(self._predictor, self._operator, Command(stream, str(self._number), kind, time_s, facts))

    def found(self) -> Found:
        return Found(len(self._hit), self._windows, self._false)


def total(found: Sequence[Found]) -> Found:
    """The sums."""
    return Found(*(sum(column) for column in zip(*found, strict=True)))


def candidates() -> Iterator[Marks]:
    """The ways to mark among which one is chosen."""
    for step, most, days, residuals in itertools.product(STEPS, BOUNDS, HALF_LIVES, RESIDUALS):
        half_life_s = days * DAY_S
        rules = DecisionRules(feedback=True, feedback_step=step, feedback_most=most, feedback_half_life_s=half_life_s)
        yield Marks(rules, residuals)


def main() -> None:
    options = _options()
    valves = bundle_of("valves", options.data, options.folder, 2.5)
    machine = bundle_of("machine", options.data, options.folder, 1.25)
    recordings = recordings_of("valves", options.data)
    orders = [random.Random(seed).sample(recordings, len(recordings)) for seed in range(ORDERS)]
    devices = [chained(order, f"device-{number}") for number, order in enumerate(orders)]
    half = ORDERS // 2
    if options.choose:
        print(f"without: {total(alarms_of(valves, devices[:half], Marks()))}", flush=True)
        for marks in candidates():
            rules = marks.rules
            lost = total(alarms_of(valves, devices[:half], marks._replace(wrong=WRONG)))
            days = rules.feedback_half_life_s / DAY_S
            keys = f"step {rules.feedback_step} most {rules.feedback_most} half-life {days:g} d"
            marked = total(alarms_of(valves, devices[:half], marks))
            print(f"{keys}, residuals {marks.residuals}: {marked}; 10 % wrong: {lost}", flush=True)
        return
    machine_text = f"{platform.machine()}, Python {platform.python_version()}, numpy {version('numpy')}"
    print(f"{time.strftime('%Y-%m-%d')}, {machine_text}")
    reported: Mapping[str, tuple[Bundle, list[list[Row]]]] = {
        "machine": (machine, [chained(recordings_of("machine", options.data), "machine")]),
        "valves, ten orders": (valves, devices[half:]),
    }
    print("| device | marks | without | marked | false episodes | mark | 10 % wrong |\n|---|---|---|---|---|---|---|")
    for name, (bundle, rows) in reported.items():
        if not name.startswith(options.only):
            continue
        without = total(alarms_of(bundle, rows, Marks()))
        for residuals in RESIDUALS:
            marks = Marks(CHOSEN, residuals)
            marked, wrong = (total(alarms_of(bundle, rows, marks._replace(wrong=share))) for share in (0.0, WRONG))
            change = 100 * (marked.false / without.false - 1) if without.false else 0.0
            kind = "threshold and residuals" if residuals else "threshold"
            print(f"| {name} | {kind} | {without} | {marked} | {change:+.0f} % | -60 % | {wrong} |", flush=True)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", type=Path, default=os.environ.get("EDGE_LSTM_DATA"), help="folder of the recordings")
    parser.add_argument("--folder", type=Path, default=Path("runs/field"), help="where the bundles are kept")
    parser.add_argument("--only", default="", help="begin of the names of the devices that are reported")
    parser.add_argument("--choose", action="store_true", help="print all candidates by the first ten orders")
    return parser.parse_args()


if __name__ == "__main__":
    main()
