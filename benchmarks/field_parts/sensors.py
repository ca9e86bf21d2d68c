"""Prints how soon dead sensors are found, and what their death does to forecasts and alarms, beside the marks.

    python benchmarks/field_parts/sensors.py [--data DIR] [--only NAME,NAME] [--injections 100]

- *stuck*, *jitter*: 100 injections a recording, at random steps of the test part, each sensor as often as the others.
  A jitter has .02 of the deviation of the stream's own training part. The constants were chosen with the test
  parts of `valves`, `solar`, `motes` and `occupancy` in view; only the other recordings report.
- *false*: sensors that are reported on the recording as it is, test part.
- *alarms*: of the machine, by deaths that leave the stream without one otherwise (stuck, at 0, gone).
- *forecast*: RMSE with each sensor that is no target dead in turn, over that of a ridge that was fitted without it.
  The recipe gets masks, ages and sensor_dropout = .2.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import platform
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[2]))

from benchmarks.field_parts.dying_sensors import Injection, Kind, random_injections, streamed
from edge_lstm.backends.reference import ReferenceBackend
from edge_lstm.bundle.contract import Contract, StateTensor
from edge_lstm.bundle.network import Network
from edge_lstm.decisions.angles import PublishedOutputs
from edge_lstm.recordings.replay import replay
from edge_lstm.streaming.predictor import Predictor
from edge_lstm.streaming.reading import Prediction
from edge_lstm_train.data.dataset import Dataset, dataset_of, read_dataset
from edge_lstm_train.data.sensor_dropout import mortal
from edge_lstm_train.data.split import PARTS
from edge_lstm_train.evaluation.alarms.detection import f1
from edge_lstm_train.evaluation.baselines import RIDGE, fit_baselines
from edge_lstm_train.evaluation.dead_sensors import without
from edge_lstm_train.evaluation.predictions import predictions_by_step
from edge_lstm_train.evaluation.trained_contract import trained_contract, with_sensors
from edge_lstm_train.recipe.recipe import Recipe, read_recipe
from edge_lstm_train.run import choose

FOUND = ("valves", "solar", "motes", "occupancy", "turbine", "machine", "beijing")  # the first four chose the constants
ALARMS = ("valves", "motes")
FORECASTS = ("turbine", "beijing")
AFTER = 250  # steps of a death


def without_network(dataset: Dataset) -> tuple[Contract, Network]:
    """The contract of the dataset with its sensors, and a network of zeros: what finds sensors does not need one."""
    inputs, outputs = len(dataset.contract.inputs), len(dataset.contract.network_outputs)
    zeros = np.zeros((outputs, 2 * inputs), np.float32)
    head, bias = np.zeros((outputs, 0), np.float32), np.zeros(outputs, np.float32)
    mean, scale = np.zeros(inputs, np.float32), np.ones(inputs, np.float32)
    network = Network("none", mean, scale, (), head, bias, np.zeros(outputs, np.int32), zeros, filled=True)
    states = [StateTensor(name, [size]) for name, size in network.state_sizes.items()]
    contract = dataclasses.replace(with_sensors(dataset.contract, dataset), states=states)
    return contract, network


def maker(contract: Contract, network: Network) -> Callable[[], Predictor]:
    return lambda: Predictor(contract, ReferenceBackend(network))


def blind(contract: Contract) -> Contract:
    """The contract of a device that watches no sensor."""
    return dataclasses.replace(
        contract, features=[dataclasses.replace(feature, sensor=None) for feature in contract.features]
    )


def delay(one: Injection, found: list[Prediction], name: str) -> float | None:
    """Steps from the fault to its report; inf: never; None: the sensor was dead before."""
    first = one.at - one.begin
    if name in found[first - 1].degraded:
        return None
    reported = (place for place, said in enumerate(found[first:], 1) if name in said.degraded)
    return next(reported, np.inf)


def allowed(contract: Contract, dataset: Dataset, one: Injection) -> float:
    """Steps within which a stuck sensor should be found."""
    sensor, value = contract.features[one.column].sensor, dataset.samples.values[one.at - 1, one.column]
    assert sensor is not None
    pairs = zip(sensor.levels, sensor.level_still_steps, sensor.level_equal_steps, strict=True)
    at_level = [max(still, equal) for level, still, equal in pairs if abs(value - level) <= sensor.reach]
    return max(50.0, 1.5 * max(at_level, default=0))


def found_stuck(name: str, recipe: Recipe, dataset: Dataset, count: int) -> Iterator[str]:
    contract, network = without_network(dataset)
    columns = [place for place, feature in enumerate(contract.features) if feature.sensor is not None]
    for kind in ("stuck", "jitter"):
        random = np.random.default_rng(7)
        longest = max([0, *(max([0, *contract.features[c].sensor.level_still_steps]) for c in columns)])  # type: ignore[union-attr]
        after = int(max(120, 1.5 * longest + 60))
        injections = random_injections(dataset, columns, kind, count, random, before=700, after=after)
        made = streamed(maker(contract, network), dataset, injections)
        rows = []
        for one, said in zip(injections, made, strict=True):
            steps = delay(one, said, contract.features[one.column].name)
            if steps is not None and one.end - one.at >= allowed(contract, dataset, one):
                rows.append((one.column, steps, allowed(contract, dataset, one)))
        delays, limits = np.array([row[1] for row in rows]), np.array([row[2] for row in rows])
        usual = delays[limits <= 50]
        missed: dict[str, int] = {}
        for column, steps, limit in rows:
            if steps > limit:
                missed[contract.features[column].name] = missed.get(contract.features[column].name, 0) + 1
        median = np.median(usual) if len(usual) else np.nan
        share = float(np.mean(delays <= limits))
        yield (
            f"{name:<10} {kind:<7} of {len(rows)}: in time {share:.3f} (>= .98), median {median:.0f} (<= 25), missed "
            f"{missed or 'none'}"
        )


def false_reports(name: str, recipe: Recipe, dataset: Dataset, contract: Contract, network: Network) -> Iterator[str]:
    """Sensors that are reported on the recording as it is; with alarms, F1 beside that of a device without."""
    truth = None
    if recipe.anomaly is not None and recipe.anomaly.truth is not None:
        truth = dataset.labels[recipe.anomaly.truth] > 0
    scores = []
    for watches in (False, True) if truth is not None else (True,):
        predictor = maker(contract if watches else blind(contract), network)()
        alarms, judged, reported = np.zeros((2, len(dataset)), np.bool_), np.zeros(len(dataset), np.bool_), []
        before: dict[str, tuple[str, ...]] = {}
        steps = predictions_by_step(dataset, replay(predictor, dataset.recording.readings_side_by_side()))
        for row, said in steps:
            is_tested = dataset.part_of[row] == PARTS.index("test")
            if is_tested:
                reported += [(said.stream, one) for one in said.degraded if one not in before.get(said.stream, ())]
            before[said.stream] = said.degraded
            judged[row] = is_tested and said.score is not None and np.isfinite(said.score)
            alarms[0, row] = bool(said.alarm)
        if truth is not None:
            scores.append(f1(truth[judged], alarms[0, judged]))
    yield f"{name:<10} false: {len(reported)} (0) {reported[:5] or ''}"
    if scores:
        yield f"{name:<10} F1 healthy {scores[1]:.4f}, without watching {scores[0]:.4f} (within .005)"


def alarms_by_deaths(
    name: str, recipe: Recipe, dataset: Dataset, contract: Contract, network: Network, count: int
) -> Iterator[str]:
    assert recipe.anomaly is not None  # true for these recipes
    assert recipe.anomaly.truth is not None
    normal = (dataset.labels[recipe.anomaly.truth] == 0).astype(np.int64)
    columns = list(range(len(contract.features)))
    kinds: tuple[Kind, ...] = ("stuck", "zero", "gone")
    for kind in kinds:
        random = np.random.default_rng(11)
        everything = 10**9
        injections = random_injections(
            dataset, columns, kind, count, random, before=everything, after=AFTER, normal=normal
        )
        healthy = [one.healthy for one in injections]
        quiet, watching, not_watching = (
            streamed(maker(one, network), dataset, which)
            for one, which in ((blind(contract), healthy), (contract, injections), (blind(contract), injections))
        )
        used = later = with_watch = without_watch = 0
        for one, alive, seen, unseen in zip(injections, quiet, watching, not_watching, strict=True):
            first = one.at - one.begin
            if any(said.alarm for said in alive[max(0, first - 100) :]):
                continue
            used += 1
            sensor = contract.features[one.column].name
            reported = next(
                (place for place, said in enumerate(seen) if place >= first and sensor in said.degraded), None
            )
            without_watch += any(said.alarm for said in unseen[first:])
            with_watch += any(said.alarm for said in seen[first:])
            later += reported is not None and any(said.alarm for said in seen[reported:])
        less = 1 - with_watch / without_watch if without_watch else np.nan
        yield (
            f"{name:<10} {kind:<6} of {used}: alarms after the report {later / max(used, 1):.3f} (<= .06, stretch "
            f".04); any alarm {with_watch} instead of {without_watch}: -{100 * less:.0f} % (>= 70, stretch 80)"
        )


def forecasts(name: str, recipe: Recipe, dataset: Dataset, contract: Contract, network: Network) -> Iterator[str]:
    """The runtime, with each sensor dead from a random step of the first fifth of the test part on."""
    random = np.random.default_rng(13)
    names = [feature.name for feature in contract.features]
    test = dataset.steps("test")
    published = PublishedOutputs(dataset.contract)
    for column in mortal(contract):
        fewer = dataset_of(without(recipe, names[column]), dataset.recording, dataset.left_out)
        ridge = fit_baselines(fewer, recipe.fit.refit, recipe.model.most_parameters).predictions[RIDGE]
        kinds: tuple[Kind, ...] = ("stuck", "gone")
        for kind in kinds:
            injections = []
            for own in dataset.by_stream(test).values():
                at = int(own[int(random.integers(1, max(2, len(own) // 5)))])
                injections.append(Injection("", max(int(own[0]) - 1000, 0), at, int(own[-1]) + 1, column, kind))
            made = streamed(maker(contract, network), dataset, injections)
            errors, bare = [], []
            for one, said in zip(injections, made, strict=True):
                rows = np.arange(one.at, one.end)
                first = one.at - one.begin
                values = np.array(
                    [[p.values[target][horizon] for target, horizon in contract.outputs] for p in said[first:]]
                )
                errors.append(values - dataset.truth[rows])
                bare.append((ridge if len(ridge) == len(dataset) else published(ridge))[rows] - dataset.truth[rows])
            model, other = (np.sqrt(np.nanmean(np.concatenate(part) ** 2, axis=0)) for part in (errors, bare))
            ratios = ", ".join(f"{ratio:.2f}" for ratio in (model / other).tolist())
            yield f"{name:<10} {names[column]:<12} {kind:<6} RMSE / ridge without it {ratios} (<= 1.05)"


def dying(recipe: Recipe) -> Recipe:
    """The recipe trained for dead sensors."""
    targets = recipe.forecast.targets if recipe.forecast is not None else []
    features = {
        name: section if name in targets else dataclasses.replace(section, mask=True, age=True)
        for name, section in recipe.features.items()
    }
    return dataclasses.replace(
        recipe, features=features, augment=dataclasses.replace(recipe.augment, sensor_dropout=0.2)
    )


def trained(recipe: Recipe, dataset: Dataset) -> tuple[Contract, Network]:
    baselines = fit_baselines(dataset, recipe.fit.refit, recipe.model.most_parameters)
    fitted = choose(recipe, dataset, baselines).chosen.fitted
    return trained_contract(recipe, dataset, fitted)[0], fitted.model.network()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default=os.environ.get("EDGE_LSTM_DATA"), help="folder of the recordings")
    parser.add_argument("--only", default=",".join(FOUND), help="recipes, with commas between")
    parser.add_argument("--injections", type=int, default=100, help="of each kind, a recording")
    options = parser.parse_args()
    print(f"{platform.machine()}, Python {platform.python_version()}, numpy {np.__version__}", flush=True)
    for name in options.only.split(","):
        recipe = read_recipe(name, None if name == "solar" else options.data)
        dataset = read_dataset(recipe)
        lines = [found_stuck(name, recipe, dataset, options.injections)]
        contract, network = trained(recipe, dataset) if name in ALARMS else without_network(dataset)
        lines.append(false_reports(name, recipe, dataset, contract, network))
        if name in ALARMS:
            lines.append(alarms_by_deaths(name, recipe, dataset, contract, network, options.injections))
        if name in FORECASTS:
            recipe = dying(recipe)
            dataset = read_dataset(recipe)
            lines.append(forecasts(name, recipe, dataset, *trained(recipe, dataset)))
        for line in lines:
            for text in line:
                print(text, flush=True)


if __name__ == "__main__":
    main()
