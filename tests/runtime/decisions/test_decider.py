"""Labels and alarms: what a step gives beside numbers."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest

from edge_lstm.backends.reference import ReferenceBackend
from edge_lstm.bundle.contract import Alarm, Contract, Decision, Feature
from edge_lstm.messages.encoder import decode_prediction, encode_prediction
from edge_lstm.streaming.predictor import Predictor
from edge_lstm.streaming.reading import Prediction, Reading
from edge_lstm.streaming.stream_table import StreamTable
from tests.networks import contract_of, random_network

CLASSES = ["still", "walk", "run"]


class Says(ReferenceBackend):
    """A backend that says given rows, one after the other; its states are the reference's."""

    def __init__(self, inputs: int, rows: list[list[float]]) -> None:
        super().__init__(random_network(inputs=inputs))
        self.rows = iter(rows)

    def step(self, features: np.ndarray, states: list[np.ndarray]) -> tuple[np.ndarray, list[np.ndarray]]:
        _, following = super().step(features, states)
        return np.array([next(self.rows)] * len(features), np.float32), following


def classifier(**decision: object) -> Contract:
    network = random_network(inputs=1)
    facts = {"targets": CLASSES, "horizons": [0], "clock": [], "decision": Decision("gait", **decision)}
    return contract_of(network, task="classify", **facts)


def labels(contract: Contract, rows: list[list[float]], minutes: list[float] | None = None) -> list[Prediction]:
    predictor = Predictor(contract, Says(1, rows))
    times = minutes or list(range(len(rows)))
    return [
        prediction for minute in times for prediction in predictor.feed([Reading("s", 60.0 * minute, {"level": 1.0})])
    ]


def test_the_label_is_the_most_probable_class() -> None:
    (one,) = labels(classifier(), [[0.0, math.log(3), 0.0]])
    assert one.label == "walk"
    assert [one.values[name][0] for name in CLASSES] == pytest.approx([0.2, 0.6, 0.2])


def test_the_label_changes_after_hold_steps() -> None:
    still, walk, run = [5.0, 0, 0], [0, 5.0, 0], [0, 0, 5.0]
    found = labels(classifier(hold_steps=3), [still, walk, walk, still, walk, run, walk, walk, walk, walk])
    assert [one.label for one in found] == ["still"] * 8 + ["walk"] * 2
    assert [one.turned for one in found] == [True, *[False] * 7, True, False]


def test_pooled_votes_are_those_of_all_steps_since_the_start() -> None:
    found = labels(classifier(pool=True), [[9.0, 0, 0], [9.0, 0, 0], [0, 9.0, 0], [0, 9.0, 0]], [0, 1, 2, 60])
    assert [one.label for one in found] == ["still", "still", "still", "walk"]  # the last after a gap
    assert found[2].values["walk"][0] == pytest.approx(1 / 3, abs=1e-3)


def detector(**alarm: object) -> Contract:
    settings = Alarm(
        **{"span_steps": 5, "settle_steps": 5, "calibrate_steps": 100, "quantile": 1.0, "factor": 1.5, **alarm}
    )
    facts = {"features": [Feature("x"), Feature("y")], "targets": ["x", "y"], "horizons": [1], "clock": []}
    return contract_of(random_network(inputs=2), task="anomaly", alarm=settings, **facts)


class Persists(ReferenceBackend):
    """A forecast of no change."""

    def step(self, features: np.ndarray, states: list[np.ndarray]) -> tuple[np.ndarray, list[np.ndarray]]:
        _, following = super().step(features, states)
        return features.copy(), following


def scored(contract: Contract, streams: dict[str, np.ndarray], batch: int = 50) -> dict[str, list[Prediction]]:
    predictor = Predictor(contract, Persists(random_network(inputs=2)))
    length = max(map(len, streams.values()))
    readings = [
        Reading(name, 60.0 * step, {"x": values[step, 0], "y": values[step, 1]})
        for step in range(length)
        for name, values in streams.items()
        if step < len(values)
    ]
    found: dict[str, list[Prediction]] = {name: [] for name in streams}
    for start in range(0, len(readings), batch):
        for prediction in predictor.feed(readings[start : start + batch]):
            found[prediction.stream].append(prediction)
    return found


def noise(steps: int, size: float, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, size, (steps, 2))


def test_each_stream_is_calibrated_by_its_own_first_steps() -> None:
    quiet, loud = noise(300, 0.1), noise(300, 10.0, 2)
    quiet[200:] += np.linspace(0, 100, 100)[:, None]  # a drift that would be nothing for the loud one
    found = scored(detector(), {"quiet": quiet, "loud": loud})
    alarms = {name: [bool(one.alarm) for one in predictions] for name, predictions in found.items()}
    assert not any(alarms["loud"])
    assert not any(alarms["quiet"][:200])
    assert any(alarms["quiet"][200:])


def test_a_stream_has_no_alarm_before_it_is_calibrated() -> None:
    found = scored(detector(), {"s": noise(200, 1.0)})["s"]
    judged = [math.isfinite(one.score or 0.0) for one in found]
    assert judged.index(True) == 5 + 100 - 1  # five that settle, a hundred that calibrate, the last of them judged
    assert all(judged[104:])


def test_an_alarm_holds_until_its_score_falls_below_release() -> None:
    swinging = noise(400, 0.1)
    swinging[250:350] += np.cumsum(0.5 + 0.45 * np.sin(np.arange(100) / 4.0))[:, None]  # climbs, now fast, now slowly
    swinging[350:] += swinging[349]
    loose, held = (scored(detector(release=release), {"s": swinging})["s"][104:] for release in (1.0, 0.3))
    scores = [one.score or 0.0 for one in held]
    assert scores == [one.score for one in loose]
    assert [one.alarm for one in loose] == [score > 1.0 for score in scores]
    begun = [sum(one.turned and bool(one.alarm) for one in found) for found in (loose, held)]
    assert begun[0] >= 4
    assert begun[1] == 1
    first, end = [at for at, one in enumerate(held) if one.turned]
    assert min(scores[first:end]) > 0.3 > scores[end]


def test_diverging_sensors_raise_an_alarm_though_each_looks_normal() -> None:
    together = noise(400, 1.0)
    together[:, 1] = together[:, 0] + noise(400, 0.01, 3)[:, 1]
    apart = together.copy()
    apart[300:, 1] = -apart[300:, 0]
    found = scored(detector(shrinkage=0.0), {"together": together, "apart": apart})
    assert not any(one.alarm for one in found["together"])
    assert sum(bool(one.alarm) for one in found["apart"][300:]) > 80


def test_a_detector_gives_the_same_bits_in_any_batch_and_after_a_store() -> None:
    streams = {name: noise(250, 1.0, seed) for seed, name in enumerate(("a", "b", "c"))}
    together, alone = (
        scored(detector(), streams),
        {name: scored(detector(), {name: streams[name]}, 1)[name] for name in streams},
    )
    assert repr(together) == repr(alone)
    contract = detector()
    for cut in (3, 60, 180):
        first = Predictor(contract, Persists(random_network(inputs=2)), max_rewind=4)
        readings = [Reading("a", 60.0 * step, {"x": row[0], "y": row[1]}) for step, row in enumerate(streams["a"])]
        first.feed(readings[:cut])
        second = Predictor(contract, Persists(random_network(inputs=2)), max_rewind=4, fetch=first.table.row)
        assert repr(second.feed(readings[cut:])) == repr(alone["a"][cut:])


def test_a_calibrated_row_no_longer_holds_its_residuals() -> None:
    contract = detector()
    predictor = Predictor(contract, Persists(random_network(inputs=2)))
    sizes = []
    for step, row in enumerate(noise(120, 1.0)):
        predictor.feed([Reading("a", 60.0 * step, {"x": row[0], "y": row[1]})])
        sizes.append(len(predictor.table.row("a")))
    assert sizes[100] - sizes[0] == (101 - 5) * 2 * 4
    assert sizes[-1] == sizes[0]


def test_a_truncated_calibration_row_starts_its_stream_cold() -> None:
    predictor = Predictor(detector(), Persists(random_network(inputs=2)))
    predictor.feed([Reading("a", 60.0 * step, {"x": row[0], "y": row[1]}) for step, row in enumerate(noise(50, 1.0))])
    row = predictor.table.row("a")
    for kept, steps in ((row, 50), (row[:-1], 0)):
        table = StreamTable(detector(), fetch=lambda stream, kept=kept: kept)
        slot = table.slot("a")
        assert table.current["step"][slot] == steps


def test_a_constant_sensor_calibrates_without_error() -> None:
    still = np.zeros((200, 2))
    still[150:] = 1.0
    found = scored(detector(), {"s": still})["s"]
    assert not any(one.alarm for one in found[:150])
    assert found[150].alarm


def test_labels_scores_and_alarms_survive_the_payload() -> None:
    known = Prediction("s", 60.0, 1, 1, {"x": {1: 2.0}}, 0, None, 1.25, True, True)
    facts = json.loads(encode_prediction(known, "b"))
    assert (facts["score"], facts["alarm"]) == (1.25, True)
    back = decode_prediction(encode_prediction(known, "b"))
    assert (back.score, back.alarm) == (1.25, True)
    waiting = Prediction("s", 60.0, 1, 1, {"x": {1: 2.0}}, 0, None, math.nan, alarm=False)
    facts = json.loads(encode_prediction(waiting, "b"))
    assert (facts["score"], facts["alarm"]) == (None, False)
    label = Prediction("s", 60.0, 1, 1, {"walk": {0: 0.75}}, 0, "walk")
    assert decode_prediction(encode_prediction(label, "b")) == label


def test_a_bundle_keeps_its_decision_parameters(tmp_path: Path, make_bundle: object) -> None:
    for contract in (detector(), classifier(hold_steps=4)):
        network = random_network(inputs=len(contract.inputs), outputs=len(contract.outputs))
        bundle = make_bundle(tmp_path / "x.elstm", network, contract)  # type: ignore[operator]
        assert bundle.contract == contract
