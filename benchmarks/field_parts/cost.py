"""Prints what each thing that a device does by itself costs: processor time of a reading, and bytes of a row.

    python benchmarks/field_parts/cost.py [--streams 256] [--rounds 300]

A small LSTM forecasts one feature at 1, 6 and 24 steps ahead with the NumPy backend; a detector has eight features. The
variants run in turn, and the median of seven turns counts. The predictor alone is measured, without decoding, storing
and publishing: docs/performance.md has what a reading costs in all.
"""

from __future__ import annotations

import argparse
import dataclasses
import platform
import statistics
import sys
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[2]))

from edge_lstm.backends.reference import ReferenceBackend
from edge_lstm.bundle.alarm import Alarm
from edge_lstm.bundle.contract import Contract, Feature
from edge_lstm.bundle.health import BINS, ErrorLimits, Health, InputLimits, Reference
from edge_lstm.bundle.intervals import SHARES, Intervals
from edge_lstm.bundle.sensor import Sensor
from edge_lstm.decisions.rules import DecisionRules
from edge_lstm.streaming.predictor import Predictor
from edge_lstm.streaming.reading import Reading
from tests.networks import contract_of, random_network

TURNS = 7
HORIZONS = [1, 6, 24]
NAMES = [f"sensor_{number}" for number in range(8)]
LEARN = DecisionRules(learn=True)
FEEDBACK = DecisionRules(feedback=True, feedback_most=1.5, feedback_half_life_s=86_400.0 * 30)

Variant = tuple[Contract, DecisionRules]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", help="not used; for field.py")
    parser.add_argument("--streams", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=300, help="readings of each stream in a turn")
    options = parser.parse_args()
    print(f"{platform.platform()}, Python {platform.python_version()}, numpy {version('numpy')}")
    print(f"{options.streams} streams, processor time of a reading in the predictor; bytes of a stream's row")
    for title, variants in (("forecast", forecasts()), ("detector", detectors())):
        times = measured(variants, options.streams, options.rounds)
        usual = times["nothing"]
        print(f"\n{title:<24}{'us':>8}{'more':>8}{'ratio':>8}{'bytes':>8}")
        for name, (contract, rules) in variants.items():
            size = len(predictor_of((contract, rules), 1).table.row("0"))
            more, ratio = times[name] - usual, times[name] / usual
            print(f"{name:<24}{times[name]:>8.2f}{more:>8.2f}{ratio:>8.2f}{size:>8}")


def forecasts() -> dict[str, Variant]:
    network = random_network(inputs=3, hidden=32, outputs=3)
    plain = contract_of(network, horizons=HORIZONS)
    scores = [float(share) for _ in HORIZONS for share in SHARES]
    bands = {"intervals": Intervals(0.9, [1.0] * 3, scores)}
    sensors = {"features": [Feature("level", "m", 1.0, 2.0, sensor=_sensor())]}
    health = {"health": _health(3, 1, [0.5, 1.0])}
    every = dataclasses.replace(plain, **bands, **sensors, **health)
    none = DecisionRules()
    return {
        "nothing": (plain, none),
        "bands": (dataclasses.replace(plain, **bands), none),
        "dead sensors": (dataclasses.replace(plain, **sensors), none),
        "health": (dataclasses.replace(plain, **health), none),
        "learning": (plain, LEARN),
        "feedback": (plain, FEEDBACK),
        "everything": (every, FEEDBACK._replace(learn=True)),
        "all but learning": (every, FEEDBACK),
    }


def detectors() -> dict[str, Variant]:
    network = random_network(inputs=8, hidden=32, outputs=8)
    features = [Feature(name, "", 0.0, 1.0) for name in NAMES]
    facts = {"task": "anomaly", "targets": NAMES, "horizons": [1], "clock": [], "alarm": Alarm(calibrate_steps=100)}
    plain = contract_of(network, features=features, **facts)
    watched = [dataclasses.replace(feature, sensor=_sensor()) for feature in features]
    health = {"health": _health(8, 8, [])}
    none = DecisionRules()
    return {
        "nothing": (plain, none),
        "dead sensors": (dataclasses.replace(plain, features=watched), none),
        "health": (dataclasses.replace(plain, **health), none),
        "feedback": (plain, FEEDBACK),
        "everything": (dataclasses.replace(plain, features=watched, **health), FEEDBACK),
    }


def _sensor() -> Sensor:
    return Sensor(still=1e-3, still_steps=10, equal_steps=3, least=-6.0, most=8.0)


def _health(outputs: int, features: int, coverage: list[float]) -> Health:
    reference = Reference(4, [0.01] * (outputs * (4 * features + 1)))
    errors = ErrorLimits(200, [1.0] * outputs, 1e6, 1e6, 1e9, 0.1, coverage, reference)
    edges = [float(edge) for _ in range(features) for edge in np.linspace(-2, 2, BINS - 1)]
    return Health(0.1, 1.0, errors, InputLimits(100, edges, [1 / BINS] * (features * BINS), [1e6] * features))


def predictor_of(variant: Variant, streams: int) -> Predictor:
    contract, rules = variant
    outputs = len(contract.network_outputs)
    network = random_network(inputs=len(contract.inputs), hidden=32, outputs=outputs)
    predictor = Predictor(contract, ReferenceBackend(network), decision_rules=rules)
    readings_of(contract, streams, 1)(predictor, 0)
    return predictor


def readings_of(contract: Contract, streams: int, rounds: int) -> Callable[[Predictor, int], None]:
    """A function that gives a predictor so many rounds of readings, from a round on."""
    random = np.random.default_rng(0)
    values = random.normal(1, 1, (rounds, streams, len(contract.features))).tolist()
    names = [feature.name for feature in contract.features]
    streams_of = [str(stream) for stream in range(streams)]

    def give(predictor: Predictor, begin: int) -> None:
        for number, row in enumerate(values, start=begin):
            at = 1_700_000_000.0 + 60 * number
            rows = zip(streams_of, row, strict=True)
            predictor.feed_columns([Reading(stream, at, dict(zip(names, own, strict=True))) for stream, own in rows])

    return give


def measured(variants: dict[str, Variant], streams: int, rounds: int) -> dict[str, float]:
    """Microseconds of processor time a reading, by variant."""
    predictors = {name: predictor_of(variant, streams) for name, variant in variants.items()}
    gives = {name: readings_of(contract, streams, rounds) for name, (contract, _) in variants.items()}
    times: dict[str, list[float]] = {name: [] for name in variants}
    for turn in range(TURNS):
        for name, predictor in predictors.items():
            begun = time.process_time()
            gives[name](predictor, 1 + turn * rounds)
            times[name].append(1e6 * (time.process_time() - begun) / (streams * rounds))
    return {name: statistics.median(found[1:]) for name, found in times.items()}  # the first turn calibrates


if __name__ == "__main__":
    main()
