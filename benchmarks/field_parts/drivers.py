"""Whether an alarm names the right sensor: python benchmarks/field_parts/drivers.py --data DIR [--folder DIR].

Faults of one sensor are put into healthy stretches of the valves and motes, and the sensors that the device tells at
the first alarm are compared with it. `detected` is the share of faults with an alarm; the accuracy is among those.
Other orders of the sensors stand beside the product's, which was chosen on the first half of the recordings; the other
half is reported. Each recipe is measured with the network that training chooses, and with recurrent layers beside a
linear path. It also measures what this costs.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import platform
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

import numpy as np
from injected_faults import Fault, faults, with_fault

from edge_lstm.bundle.archive import Bundle
from edge_lstm.bundle.contract import Contract
from edge_lstm.decisions.alarms.drivers import drivers
from edge_lstm.decisions.alarms.events import follow, record_fields
from edge_lstm.decisions.step import Step
from edge_lstm.foundation.arrays import Doubles
from edge_lstm.messages.encoder import Encoder
from edge_lstm.messages.events.alarm_events import AlarmEvents
from edge_lstm.messages.mapping import OutputMapping
from edge_lstm.streaming.predictor import Predictor
from edge_lstm.streaming.reading import Reading
from edge_lstm.streaming.step_results import Steps
from edge_lstm.streaming.stream_table import StreamTable
from edge_lstm_export.assemble import export_bundle
from edge_lstm_train.data.dataset import Dataset, read_dataset
from edge_lstm_train.evaluation.baselines import fit_baselines
from edge_lstm_train.evaluation.trained_contract import trained_contract
from edge_lstm_train.model.checkpoint import Checkpoint
from edge_lstm_train.recipe.recipe import Recipe, read_recipe
from edge_lstm_train.run import choose, held_out_steps

SIZES = (3.0, 5.0, 8.0, 10.0)
MARKED = (3.0, 8.0)  # sizes that the marks are for
MARKS = {"valves": (0.93, 0.96, 0.985), "motes": (0.89, 0.93, 0.0)}  # first: pass, stretch; in the first two
LONGEST, SHORTEST = 500, 100  # steps of a fault
_STARTS = 6  # of faults in a healthy stretch, at most
_LAGS, _RMS, _QUANTILE = 5, 40, 0.99
_STREAMS, _SENSORS = 256, 8  # for the cost
PRODUCT = "complete decomposition"


class Stretch(NamedTuple):
    """Healthy values of a stream."""

    stream: str
    half: int  # 0: orders are chosen on it; 1: it is reported
    times: Doubles  # (steps,)
    values: Doubles  # (steps, features)
    starts: list[int]  # of faults


class Told(NamedTuple):
    """The sensors at the first alarm of a fault, by order of telling; none: no alarm."""

    half: int
    fault: Fault
    sensor: int
    orders: dict[str, list[int]]


def bundle_of(recipe: Recipe, dataset: Dataset, folder: Path) -> Bundle:
    """The bundle of a recipe with its candidates, trained once."""
    path = folder / f"{'-'.join([recipe.name, *recipe.model.candidates])}.elstm"
    if not path.exists():
        fitted = choose(recipe, dataset, fit_baselines(dataset, recipe.fit.refit, recipe.model.most_parameters)).chosen
        contract, _ = trained_contract(recipe, dataset, fitted.fitted)
        folder.mkdir(parents=True, exist_ok=True)
        held_out = dataset.features[held_out_steps(dataset)]
        export_bundle(Checkpoint(fitted.fitted.model, contract, held_out, {}), path, schemes=["int8"])
    return Bundle.open(path)


def stretches(recipe: Recipe, dataset: Dataset, contract: Contract) -> Iterator[Stretch]:
    """Each stream until its first anomaly; faults start from the end of its calibration on."""
    assert recipe.anomaly is not None
    assert recipe.anomaly.truth is not None
    assert contract.alarm is not None
    calibrated = contract.alarm.settle_steps + contract.alarm.calibrate_steps + 10
    odd = dataset.labels[recipe.anomaly.truth] > 0
    for number, stream in enumerate(dataset.recording.streams):
        rows = np.flatnonzero(dataset.stream_of == number)
        anomalies = np.flatnonzero(odd[rows])
        rows = rows[: anomalies[0]] if anomalies.size else rows
        last = len(rows) - SHORTEST
        if last <= calibrated:
            continue
        pace = max(60, (last - calibrated) // _STARTS)
        yield Stretch(
            stream,
            number % 2,
            dataset.times[rows],
            dataset.values[rows].astype(np.float64),
            list(range(calibrated, last, pace)),
        )


def told_of(bundle: Bundle, stretch: Stretch) -> list[Told]:
    """What the device tells of every fault of every sensor in a stretch."""
    contract = bundle.contract
    predictor = Predictor.of(bundle, "numpy")
    rng = np.random.default_rng(0)
    rows: dict[int, bytes] = {}
    alarms, expected = np.zeros(len(stretch.times), bool), np.zeros(stretch.values.shape)
    for step in range(len(stretch.times)):
        if step in stretch.starts:
            rows[step] = predictor.table.row(stretch.stream)
        if step:
            expected[step] = _record(predictor, stretch.stream)["expected"]
        alarms[step] = _fed(predictor, stretch, step, {stretch.stream: stretch.values[step]}).decisions.alarms.item()  # type: ignore[union-attr]
    found: list[Told] = []
    for start, row in rows.items():
        end = min(start + LONGEST, len(stretch.times))
        if alarms[start:end].any():
            continue  # it is not healthy to the device
        cases = [(sensor, fault) for sensor in range(len(contract.features)) for fault in faults(SIZES)]
        altered = np.tile(stretch.values[start:end], (len(cases), 1, 1))
        for number, (sensor, fault) in enumerate(cases):
            deviation, before = contract.features[sensor].scale, stretch.values[start - 1, sensor]
            altered[number, :, sensor] = with_fault(altered[number, :, sensor], before, fault, deviation, rng)
            predictor.table.put_row(str(number), row, predictor.table.layout)
        found += _told_of_faults(predictor, stretch, start, cases, altered, expected[:start])
    return found


def _told_of_faults(
    predictor: Predictor,
    stretch: Stretch,
    start: int,
    cases: list[tuple[int, Fault]],
    altered: Doubles,
    expected: Doubles,
) -> list[Told]:
    """Step all faults of a start together, each until its first alarm. altered: (faults, steps, features)."""
    names = [str(number) for number in range(len(cases))]
    slots = predictor.table.slots(names)
    orders: dict[int, dict[str, list[int]]] = {}
    others = OtherOrders(predictor.contract, stretch.values[:start], expected, len(cases))
    for step in range(altered.shape[1]):
        records = predictor.table.current[slots]
        said = records["expected"].astype(np.float64)
        found = _fed(predictor, stretch, start + step, dict(zip(names, altered[:, step], strict=True)))
        others.add(altered[:, step], said)
        decided, records = found.decisions, predictor.table.current[slots]
        assert decided.alarms is not None
        assert decided.drivers is not None
        for place in np.flatnonzero(decided.alarms).tolist():
            if place in orders:
                continue
            drove, shares = decided.drivers.sensors[place], decided.drivers.share[place]
            by_target = np.empty(len(drove))
            by_target[drove] = shares
            measures = {"exact share": by_target, **others.measures(place, records[place], by_target)}
            orders[place] = {PRODUCT: drove.tolist()} | {
                title: np.argsort(-measure, kind="stable").tolist() for title, measure in measures.items()
            }
        if len(orders) == len(cases):
            break
    return [Told(stretch.half, fault, sensor, orders.get(place, {})) for place, (sensor, fault) in enumerate(cases)]


class OtherOrders:
    """Measures of each sensor, from the steps before a fault and those of many faults; the largest is told first."""

    def __init__(self, contract: Contract, values: Doubles, predicted: Doubles, faults: int) -> None:
        """values and predicted (steps, sensors): before the fault."""
        assert contract.alarm is not None
        self._scale = np.array([feature.scale for feature in contract.features])
        self._mean, self._span = values.mean(axis=0), contract.alarm.span_steps
        scaled = (values - self._mean) / self._scale
        self._weights = np.stack([_own_weights(column) for column in scaled.T])  # (sensors, lags)
        residuals = (values - predicted) / self._scale
        residuals[0] = 0.0
        own = np.zeros_like(scaled)
        for lag in range(_LAGS):
            own[_LAGS:] -= scaled[_LAGS - 1 - lag : len(scaled) - 1 - lag] * self._weights[:, lag]
        own[_LAGS:] += scaled[_LAGS:]
        settled = contract.alarm.settle_steps + 1
        calibration = slice(settled, settled + contract.alarm.calibrate_steps)
        averaged, squares, own_squares = (
            _averaged(series, span) for series, span in ((residuals, self._span), (residuals**2, _RMS), (own**2, _RMS))
        )
        self._center = averaged[calibration].mean(axis=0)
        self._usual = [
            np.maximum(np.quantile(series[calibration], _QUANTILE, axis=0), 1e-9)
            for series in (np.abs(averaged - self._center), np.sqrt(squares), np.sqrt(own_squares))
        ]
        self._averages = [np.tile(series[-1], (faults, 1)) for series in (averaged, squares, own_squares)]
        self._last = np.tile(scaled[: -_LAGS - 1 : -1], (faults, 1, 1))  # (faults, lags, sensors), the newest first

    def add(self, values: Doubles, predicted: Doubles) -> None:
        """A step of all faults, (faults, sensors) each."""
        scaled = (values - self._mean) / self._scale
        residuals = (values - predicted) / self._scale
        own = scaled - (self._last * self._weights.T).sum(axis=1)
        self._last = np.concatenate([scaled[:, None], self._last[:, :-1]], axis=1)
        for average, series, span in zip(
            self._averages, (residuals, residuals**2, own**2), (self._span, _RMS, _RMS), strict=True
        ):
            average += 2 / (span + 1) * (series - average)

    def measures(self, place: int, record: np.void, share: Doubles) -> dict[str, Doubles]:
        """Of one fault: (sensors,) each."""
        averaged, squares, own_squares = (series[place] for series in self._averages)
        away = np.abs(record["smoothed"] - record["center"])
        covariance = np.linalg.inv(record["whitening"].T @ record["whitening"])
        offset = np.abs(averaged - self._center) / self._usual[0]
        spread, own = np.sqrt(squares) / self._usual[1], np.sqrt(own_squares) / self._usual[2]
        return {
            "averaged residual / its deviation": away / np.sqrt(np.diag(covariance)),
            "larger of averaged and RMS residual / quantiles": np.maximum(offset, spread),
            "RMS residual of own lags / its quantile": own,
            "share x squared RMS of own lags": share * own**2,
        }


def _own_weights(values: Doubles) -> Doubles:
    """(lags,): of a forecast from a sensor's own last values (steps,), by ridge."""
    lags = np.stack([values[_LAGS - 1 - lag : len(values) - 1 - lag] for lag in range(_LAGS)], axis=1)
    truth = values[_LAGS:]
    penalty = 1e-3 * len(truth) * max(float(np.var(truth)), 1e-12) * np.eye(_LAGS)
    weights: Doubles = np.linalg.solve(lags.T @ lags + penalty, lags.T @ truth)
    return weights


def _averaged(values: Doubles, span: int) -> Doubles:
    """(steps, sensors): the exponential average, at first the arithmetic mean."""
    found, average = np.empty_like(values), np.zeros(values.shape[1])
    for step, row in enumerate(values):
        average = average + max(2 / (span + 1), 1 / (step + 1)) * (row - average)
        found[step] = average
    return found


def _record(predictor: Predictor, stream: str) -> np.void:
    record: np.void = predictor.table.current[predictor.table.slot(stream)]
    return record


def _fed(predictor: Predictor, stretch: Stretch, step: int, rows: dict[str, Doubles]) -> Steps:
    names = [feature.name for feature in predictor.contract.features]
    at = stretch.times[step].item()
    steps = predictor.feed_columns(
        [Reading(stream, at, dict(zip(names, row.tolist(), strict=True))) for stream, row in rows.items()]
    )
    assert steps is not None
    return steps


def accuracy(told: list[Told], order: str) -> tuple[int, float, float]:
    """How many faults raised an alarm, and the share with the right sensor first, and among the first two."""
    ranks = np.array([one.orders[order].index(one.sensor) for one in told if one.orders])
    if not ranks.size:
        return 0, float("nan"), float("nan")
    return len(ranks), float((ranks == 0).mean()), float((ranks <= 1).mean())


def is_marked(one: Told) -> bool:
    """Whether the marks count this fault."""
    return MARKED[0] <= one.fault.size <= MARKED[1]


def print_accuracy(name: str, network: str, told: list[Told], sensors: int) -> None:
    """The tables of one recipe."""
    passed, stretch, two = MARKS[name]
    reported = [one for one in told if one.half == 1]
    print(f"\n{name}, {network}: {sensors} sensors, chance {1 / sensors:.3f}; sizes {MARKED[0]:g} to {MARKED[1]:g}")
    print(f"marks: right sensor first {passed}, stretch {stretch}" + (f"; in the first two {two}" if two else ""))
    print(f"{'order':<50}{'chosen on: first':>18}{'two':>8}{'reported: first':>18}{'two':>8}")
    for order in dict.fromkeys(order for one in told for order in one.orders):
        halves = [accuracy([one for one in told if one.half == half and is_marked(one)], order) for half in (0, 1)]
        print(f"{order:<50}{halves[0][1]:>18.3f}{halves[0][2]:>8.3f}{halves[1][1]:>18.3f}{halves[1][2]:>8.3f}")
    print(f"{'fault, reported half':<22}{'size':>6}{'faults':>8}{'detected':>10}{'first':>8}{'two':>8}")
    groups: dict[tuple[str, float], list[Told]] = defaultdict(list)
    for one in reported:
        groups[one.fault.name, one.fault.size].append(one)
    for (kind, size), group in groups.items():
        count, first, second = accuracy(group, PRODUCT)
        print(f"{kind:<22}{size:>6g}{len(group):>8}{count / len(group):>10.2f}{first:>8.3f}{second:>8.3f}")


def print_cost() -> None:
    """Microseconds a reading, at 256 streams of eight sensors: normal, with a score told, in alarm."""
    rng = np.random.default_rng(0)
    contract = dataclasses.replace(_EIGHT, targets=[f"s{number}" for number in range(_SENSORS)])
    current = np.zeros(_STREAMS, [("time", "f8"), *record_fields(contract)])
    slots, empty = np.arange(_STREAMS), np.zeros((_STREAMS, _SENSORS), np.float32)
    step = Step(current, np.zeros((0, 0, 0)), slots, empty, empty > 0, empty, slots >= 0)
    away, whitening = rng.normal(0, 1, (_STREAMS, _SENSORS)), rng.normal(0, 1, (_STREAMS, _SENSORS, _SENSORS))
    print(f"\ncost at {_STREAMS} streams of {_SENSORS} sensors, us a reading, the best of 50; mark 2")
    for title, told, alarms in (
        ("normal, nothing named", slots < 0, slots < 0),
        ("one stream in twenty in alarm", slots % 20 == 0, slots % 20 == 0),
        ("all named", slots >= 0, slots < 0),
        ("all in alarm", slots >= 0, slots >= 0),
    ):
        scores = np.where(alarms, 1.5, 0.6)
        took = _best(
            lambda t=told, s=scores, a=alarms: follow(step, s, a, drivers(t, away[t], whitening[t], empty, empty))
        )  # type: ignore[misc]
        print(f"  {title:<34}{took:>8.3f}")


def print_payload_cost(bundle: Bundle, steps: Steps, table: StreamTable) -> None:
    """Microseconds that the keys at the end of a payload take, where all predictions have them."""
    encoder, bare = Encoder(OutputMapping(), bundle.id), steps.decisions._replace(drivers=None, events=None)
    took = [_best(lambda one=one: encoder.messages(one)) for one in (steps, steps._replace(decisions=bare))]  # type: ignore[misc]
    print(f"  {'payload, with drivers and event':<34}{took[0] - took[1]:>8.3f}  (of {took[0]:.3f})")
    events = AlarmEvents(bundle.id, table)
    events.messages(steps)  # those of the beginning
    print(f"  {'nothing new about events':<34}{_best(lambda: events.messages(steps)):>8.3f}")


def _best(do: Callable[[], object]) -> float:
    """Microseconds a stream, the best of 50."""
    best = float("inf")
    for _ in range(50):
        begun = time.perf_counter()
        do()
        best = min(best, time.perf_counter() - begun)
    return 1e6 * best / _STREAMS


_EIGHT = Contract("", "anomaly", [], [], [1], [])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", type=Path, default=os.environ.get("EDGE_LSTM_DATA"), help="folder of the recordings")
    parser.add_argument("--folder", type=Path, default=Path("runs/field"), help="where bundles are kept")
    options = parser.parse_args()
    versions = ", ".join(f"{name} {version(name)}" for name in ("numpy", "torch"))
    print(f"{time.strftime('%Y-%m-%d')}, {platform.machine()}, Python {platform.python_version()}, {versions}")
    print_cost()
    for name in MARKS:
        recipe = read_recipe(name, options.data)
        dataset = read_dataset(recipe)
        with_layers = dataclasses.replace(recipe, model=dataclasses.replace(recipe.model, candidates=["both"]))
        for one in (recipe, with_layers):
            bundle = bundle_of(one, dataset, options.folder)
            healthy = list(stretches(one, dataset, bundle.contract))
            if one is recipe:
                print_payload_cost(bundle, *_in_alarm(bundle, healthy[0]))
            told = [each for stretch in healthy for each in told_of(bundle, stretch)]
            print_accuracy(name, bundle.manifest.architecture.kind, told, len(bundle.contract.targets))


def _in_alarm(bundle: Bundle, stretch: Stretch) -> tuple[Steps, StreamTable]:
    """A step of 256 streams that are all in alarm, and their table."""
    predictor = Predictor.of(bundle, "numpy")
    for step in range(stretch.starts[0]):
        _fed(predictor, stretch, step, {stretch.stream: stretch.values[step]})
    row, layout = predictor.table.row(stretch.stream), predictor.table.layout
    far = stretch.values[0] + 50 * np.array([feature.scale for feature in bundle.contract.features])
    names = [f"pump-{number}" for number in range(_STREAMS)]
    for stream in names:
        predictor.table.put_row(stream, row, layout)
    return _fed(predictor, stretch, stretch.starts[0], dict.fromkeys(names, far)), predictor.table


if __name__ == "__main__":
    main()
