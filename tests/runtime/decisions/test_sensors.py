"""Dead sensors: found by their own statistics, told once, left out, and back by themselves."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

from edge_lstm.backends.reference import ReferenceBackend
from edge_lstm.bundle.contract import Alarm, Contract, Feature
from edge_lstm.bundle.intervals import SHARES, Intervals
from edge_lstm.bundle.sensor import Sensor
from edge_lstm.decisions.rules import DecisionRules
from edge_lstm.messages.encoder import Encoder, decode_prediction, encode_prediction
from edge_lstm.messages.events.sensor_events import SensorEvents
from edge_lstm.messages.mapping import OutputMapping
from edge_lstm.streaming.predictor import Predictor
from edge_lstm.streaming.reading import Prediction, Reading
from tests.networks import contract_of, random_network

STEPS, AT = 200, 100
NOISY = Sensor(still=0.05, still_steps=8, equal_steps=2, least=-4, most=4, gap_s=120)
NIGHT = Sensor(
    still=0.05, still_steps=8, equal_steps=2, least=-4, most=4, levels=[-3.0], level_still_steps=[40],
    level_equal_steps=[40], reach=0.1,
)  # fmt: skip
DETECTS = {"task": "anomaly", "targets": ["flow", "pressure"], "horizons": [1]}
ALARM = Alarm(span_steps=5, settle_steps=5, calibrate_steps=60, quantile=0.99, factor=2.0)
Change = Callable[[np.ndarray], None]


def sensed_contract(sensor: Sensor | None = NOISY, **changes: Any) -> Contract:
    """Two features with that sensor; the first one is predicted."""
    changes = {"targets": ["flow"], "horizons": [1], **changes}
    network = random_network(inputs=2, outputs=len(changes["targets"]) * len(changes["horizons"]))
    names = ("flow", "pressure")
    return contract_of(network, features=[Feature(name, sensor=sensor) for name in names], clock=[], **changes)


def predictor(contract: Contract, **options: Any) -> Predictor:
    network = random_network(inputs=len(contract.inputs), outputs=len(contract.outputs))
    return Predictor(contract, ReferenceBackend(network), **options)


def readings(change: Change | None = None, stream: str = "pump", seed: int = 0, steps: int = STEPS) -> list[Reading]:
    """Noise of deviation 1, changed in place: (steps, 2), NaN where a value is missing."""
    values = np.random.default_rng(seed).standard_normal((steps, 2)).clip(-3.9, 3.9)
    if change is not None:
        change(values)
    return [
        Reading(stream, 1_700_000_000.0 + 60 * step, {"flow": flow, "pressure": pressure})
        for step, (flow, pressure) in enumerate(values.tolist())
    ]


def dies(kind: str, until: int = STEPS, column: int = 1) -> Change:
    def change(values: np.ndarray) -> None:
        part = slice(AT, until)
        jitter = 0.02 * np.random.default_rng(1).standard_normal(until - AT)
        last = values[AT - 1, column]
        values[part, column] = {"stuck": last, "jitter": last + jitter, "gone": math.nan, "outside": 80.0}[kind]

    return change


def dead_steps(predictions: Sequence[Prediction], name: str = "pressure") -> list[int]:
    """The indexes of the steps at which that sensor is dead."""
    return [index for index, one in enumerate(predictions) if name in one.degraded]


@pytest.mark.parametrize(("kind", "told_after"), [("stuck", 12), ("jitter", 24), ("gone", 20), ("outside", 5)])
def test_a_dead_sensor_is_told_and_is_back_ten_good_values_later(kind: str, told_after: int) -> None:
    found = predictor(sensed_contract()).feed(readings(dies(kind, until=150)))
    dead = dead_steps(found)
    assert AT + 3 <= dead[0] <= AT + told_after
    assert dead == list(range(dead[0], dead[-1] + 1))
    assert 158 <= dead[-1] <= 162  # a small first change, and jitter that is left in the variance, count as still
    assert dead_steps(found, "flow") == []


def test_working_sensors_are_never_told() -> None:
    found = predictor(sensed_contract()).feed(
        [one for seed in range(10) for one in readings(stream=f"pump-{seed}", seed=seed)]
    )
    assert {one.degraded for one in found} == {()}


def test_where_constant_stretches_are_normal_a_sensor_may_stand_longer() -> None:
    def night(values: np.ndarray, steps: int) -> None:
        values[AT : AT + steps, 1] = -3.0

    for steps, told in ((50, False), (90, True)):
        found = predictor(sensed_contract(NIGHT)).feed(readings(lambda values, steps=steps: night(values, steps)))
        assert bool(dead_steps(found)) == told
    assert dead_steps(found)[0] == AT + 60  # 1.5 times the 40 steps of training
    at_another_value = predictor(sensed_contract(NIGHT)).feed(readings(dies("stuck")))
    assert dead_steps(at_another_value)[0] <= AT + 12


def test_values_of_a_dead_sensor_do_not_matter() -> None:
    def other(values: np.ndarray) -> None:
        dies("outside")(values)
        values[AT:, 1] *= 2

    one, two = (predictor(sensed_contract()).feed(readings(change)) for change in (dies("outside"), other))
    assert one == two
    healthy = predictor(sensed_contract()).feed(readings())
    assert one[:AT] == healthy[:AT]
    assert one[-1].values != healthy[-1].values


def test_a_mask_and_an_age_say_that_a_sensor_is_dead() -> None:
    features = [Feature("flow"), Feature("pressure", mask=True, age=True, sensor=NOISY)]
    contract = contract_of(
        random_network(inputs=4, outputs=1), features=features, targets=["flow"], horizons=[1], clock=[]
    )
    seen: list[np.ndarray] = []

    class Watched(ReferenceBackend):
        def step(self, inputs: Any, states: Any) -> Any:
            seen.append(inputs[0].copy())
            return super().step(inputs, states)

    change = dies("stuck")
    given = readings(change)
    Predictor(contract, Watched(random_network(inputs=4, outputs=1))).feed(given)
    rows = np.array(seen)
    assert not rows[:AT, 2].any()
    assert rows[AT + 1 :, 2].all()  # doubted from the third equal value on
    assert rows[-1, 3] == pytest.approx(math.log1p(60.0 * (STEPS - 1 - AT)), rel=1e-3)
    assert set(rows[AT:, 1]) == {np.float32(given[-1].values["pressure"])}


def test_without_statistics_only_a_sensor_that_is_gone_for_the_timeout_is_told() -> None:
    contract = sensed_contract(None)
    for kind in ("stuck", "outside"):
        assert not dead_steps(predictor(contract).feed(readings(dies(kind))))
    rules = DecisionRules(sensor_timeout_s=300.0)
    found = predictor(contract, decision_rules=rules).feed(readings(dies("gone", until=150)))
    assert dead_steps(found) == list(range(AT + 4, 159))
    assert not dead_steps(predictor(contract, decision_rules=rules).feed(readings(dies("stuck"))))
    at_once = DecisionRules(sensor_timeout_s=60.0)
    late = predictor(sensed_contract(), decision_rules=at_once).feed(readings(dies("gone")))
    assert dead_steps(late)[0] == AT


def test_a_doubted_value_is_replaced_by_the_one_before_and_a_dead_one_by_the_usual_value() -> None:
    seen: list[float] = []

    class Watched(ReferenceBackend):
        def step(self, inputs: Any, states: Any) -> Any:
            seen.append(float(inputs[0, 1]))
            return super().step(inputs, states)

    given = readings(dies("outside"))
    Predictor(sensed_contract(), Watched(random_network(inputs=2, outputs=1))).feed(given)
    assert seen[:AT] == [np.float32(one.values["pressure"]) for one in given[:AT]]
    assert seen[AT : AT + 4] == [seen[AT - 1]] * 4
    assert seen[AT + 4 :] == [seen[AT + 4]] * (STEPS - AT - 4)
    assert seen[AT + 4] == pytest.approx(np.mean(seen[:AT]), rel=1e-5)


def test_a_gap_of_the_whole_stream_is_no_dead_sensor() -> None:
    given = readings()
    later = [one._replace(time=one.time + 86_400) for one in given[:5]]
    later[0] = later[0]._replace(values={"flow": 1.0})
    rules = DecisionRules(sensor_timeout_s=600.0)
    found = predictor(sensed_contract(None), decision_rules=rules).feed([*given[:50], *later])
    assert {one.degraded for one in found} == {()}


def test_a_dead_target_has_no_band() -> None:
    intervals = Intervals(0.9, [1.0], [1.0] * len(SHARES))
    found = predictor(sensed_contract(intervals=intervals)).feed(readings(dies("stuck", column=0)))
    assert found[AT].bands is not None
    assert all(map(math.isfinite, found[AT].bands["flow"][1]))
    last = found[-1]
    assert last.degraded == ("flow",)
    assert last.bands is not None
    assert all(map(math.isnan, last.bands["flow"][1]))
    assert json.loads(encode_prediction(last, "b"))["bands"] == {"flow": {"1": [None, None]}}


def test_the_death_of_a_sensor_alone_is_no_alarm() -> None:
    contract = sensed_contract(alarm=ALARM, **DETECTS)
    blind = sensed_contract(None, alarm=ALARM, **DETECTS)
    for kind in ("outside", "stuck", "gone"):
        found = predictor(contract).feed(readings(dies(kind)))
        assert not any(one.alarm for one in found[AT:])
        assert all(math.isfinite(one.score or 0.0) for one in found[AT:])
    assert any(one.alarm for one in predictor(blind).feed(readings(dies("outside")))[AT:])


def test_a_sensor_that_moves_without_its_dead_neighbour_is_no_alarm() -> None:
    def together(values: np.ndarray) -> None:
        values[:, 1] = values[:, 0] + 0.1 * values[:, 1]
        values[AT:, 1] = math.nan

    rules, contract = DecisionRules(sensor_timeout_s=60.0), sensed_contract(alarm=ALARM, **DETECTS)
    found = predictor(contract, decision_rules=rules).feed(readings(together, steps=1000))
    assert dead_steps(found)[0] == AT
    assert not any(one.alarm for one in found[AT:])  # 32 with the average of the dead one at its center


def test_another_sensor_still_raises_an_alarm_while_one_is_dead() -> None:
    def change(values: np.ndarray) -> None:
        dies("stuck")(values)
        values[150:, 0] += 3.5

    found = predictor(sensed_contract(alarm=ALARM, **DETECTS)).feed(readings(change))
    assert not any(one.alarm for one in found[AT:150])
    assert any(one.alarm for one in found[150:])
    alarmed = next(one for one in found[150:] if one.drivers)
    assert next(one.sensor for one in alarmed.drivers or []) == "flow"


def in_one_call(contract: Contract, given: list[list[Reading]], size: int) -> list[Prediction]:
    together = [one for row in zip(*given, strict=True) for one in row]
    alone = predictor(contract)
    return [one for begin in range(0, len(together), size) for one in alone.feed(together[begin : begin + size])]


@pytest.mark.parametrize("changes", [{}, {"alarm": ALARM, **DETECTS}])
def test_a_stream_gets_the_same_bits_alone_and_in_any_batch(changes: dict[str, Any]) -> None:
    contract = sensed_contract(NIGHT, **changes)
    kinds = ["stuck", "jitter", "gone", "outside"] * 2
    given = [readings(dies(kind), f"pump-{place}", place) for place, kind in enumerate(kinds)]
    together = in_one_call(contract, given, 10_000)
    for size in (1, 37):
        assert sorted(map(str, in_one_call(contract, given, size))) == sorted(map(str, together))
    for place in (0, 5, 7):
        alone = predictor(contract).feed(given[place])
        assert str([one for one in together if one.stream == f"pump-{place}"]) == str(alone)


def test_a_late_reading_rewinds_the_sensors_too() -> None:
    given = readings(dies("stuck"))
    late = [*given[: AT + 8], *given[AT + 9 : AT + 12], given[AT + 8], *given[AT + 12 :]]
    contract = sensed_contract()
    newest = {one.time: one._replace(revision=0) for one in predictor(contract, max_rewind=8).feed(late)}
    assert [newest[one.time] for one in given] == predictor(contract).feed(given)


def test_a_state_that_is_stored_goes_on_as_it_would_have() -> None:
    contract, given = sensed_contract(alarm=ALARM, **DETECTS), readings(dies("stuck"))
    whole = predictor(contract).feed(given)
    for cut in (AT + 5, AT + 30):
        first, second = predictor(contract), predictor(contract)
        first.feed(given[:cut])
        second.load_state("pump", first.state("pump"))
        assert str(second.feed(given[cut:])) == str(whole[cut:])


def test_rows_of_bundles_without_statistics_are_unchanged() -> None:
    plain, sensed = predictor(sensed_contract(None)), predictor(sensed_contract())
    for one in (plain, sensed):
        one.feed(readings(steps=3))
    assert "sensor" not in plain.table.layout
    assert "reported_faults" not in plain.table.layout
    assert len(sensed.table.row("pump")) - len(plain.table.row("pump")) == 2 * (12 * 8 + 1) + 2


def test_a_row_from_before_the_statistics_starts_nobody_cold() -> None:
    plain, sensed = predictor(sensed_contract(None)), predictor(sensed_contract())
    given = readings()
    plain.feed(given[:50])
    sensed.table.put_row("pump", plain.table.row("pump"), plain.table.layout)
    assert sensed.feed(given[50:51])[0].step == 51
    assert sensed.feed(given[51:])[-1].values == plain.feed(given[50:])[-1].values


def test_payloads_name_dead_sensors_and_others_have_no_such_key() -> None:
    found = predictor(sensed_contract(alarm=ALARM, **DETECTS)).feed_columns(readings(dies("stuck")))
    assert found is not None
    for output in (OutputMapping(), OutputMapping(format="flat")):
        payloads = [json.loads(payload) for _, payload in Encoder(output, "b").messages(found)]
        flat = output.format == "flat"
        assert not any(key.startswith("degraded") for key in payloads[AT])
        assert payloads[-1]["degraded_1" if flat else "degraded"] == ("pressure" if flat else ["pressure"])
    encoder = Encoder(OutputMapping(), "b")
    assert [payload for _, payload in encoder.messages(found)] == [encoder.payload(one) for one in found.predictions()]
    assert decode_prediction(encode_prediction(found.predictions()[-1], "b")).degraded == ("pressure",)


def test_each_death_and_each_return_is_one_message_in_any_batches() -> None:
    given = readings(dies("stuck", until=150))
    late = [*given[: AT + 20], *given[AT + 21 : AT + 25], given[AT + 20], *given[AT + 25 :]]
    for size in (1, 7, STEPS):
        one = predictor(sensed_contract(), max_rewind=8)
        events = SensorEvents(["flow", "pressure"], one.table)
        told: list[dict[str, Any]] = []
        for begin in range(0, len(late), size):
            steps = one.feed_columns(late[begin : begin + size])
            told += [] if steps is None else [json.loads(text) for text in events.messages(steps)]
            one.table.put_row("pump", one.table.row("pump"), one.table.layout)
        assert [(text["sensor"], text["fault"]) for text in told] == [("pressure", "stuck"), ("pressure", "working")]
        assert told[0]["error"] == 'sensor "pressure" is stuck'
    assert one.degraded(5) == {}
    one.feed(readings(dies("stuck"), "other"))
    assert one.degraded(5) == {"other": {"pressure": "stuck"}}
