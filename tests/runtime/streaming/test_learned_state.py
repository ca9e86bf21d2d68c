"""What a stream has learned goes with its state; where nothing learns, stored rows do not change."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest

from edge_lstm.backends.reference import ReferenceBackend
from edge_lstm.bundle.alarm import Alarm
from edge_lstm.bundle.intervals import SHARES, Intervals
from edge_lstm.decisions.rules import DecisionRules
from edge_lstm.streaming.predictor import Predictor
from edge_lstm.streaming.reading import Reading
from edge_lstm.streaming.row_format import StoredRow
from edge_lstm.streaming.stream_table import StreamTable
from tests.networks import contract_of, random_network

DEPTH = 8
RULES = DecisionRules(learn=True, learn_memory_steps=40)
CONTRACT = contract_of(random_network(), horizons=[1, 12])  # of random weights, so there is much to correct


def predictor(rules: DecisionRules = RULES, **options: Any) -> Predictor:
    return Predictor(CONTRACT, ReferenceBackend(random_network()), max_rewind=DEPTH, decision_rules=rules, **options)


def readings(streams: int, steps: int) -> list[Reading]:
    rng = random.Random(5)
    levels = [1.0] * streams
    found = []
    for step in range(steps):
        for stream in range(streams):
            levels[stream] += 0.1 * (1 - levels[stream]) + rng.gauss(0, 0.5)
            found.append(Reading(f"tank-{stream}", 60.0 * step, {"level": levels[stream]}))
    return found


def test_late_readings_end_where_ordered_ones_do() -> None:
    ordered = readings(2, 120)
    rng = random.Random(1)
    shuffled = sorted(ordered, key=lambda one: one.time + 60 * rng.uniform(0, 5))
    first, second = predictor(), predictor()
    last = {(one.stream, one.time): one.values for one in second.feed(shuffled)}
    expected = first.feed(ordered)
    assert second.totals["rewound"] > 50
    for one in expected:
        assert last[one.stream, one.time] == one.values
    for stream in ("tank-0", "tank-1"):
        rows = [each.table.current[each.table.slot(stream)] for each in (first, second)]
        assert rows[0].tobytes() == rows[1].tobytes()
    plain = predictor(DecisionRules()).feed(ordered)
    assert sum(one.values != other.values for one, other in zip(expected, plain, strict=True)) > 50


def test_a_stream_that_is_stored_after_each_reading_learns_the_same() -> None:
    rows: dict[str, StoredRow] = {}
    kept, evicted = predictor(), predictor(fetch=rows.get)
    for reading in readings(1, 100):
        assert kept.feed([reading]) == evicted.feed([reading])
        rows["tank-0"] = StoredRow(evicted.table.row("tank-0"), evicted.table.layout)
        evicted.table.evict("tank-0")


def test_switching_learning_on_and_off_keeps_the_rest_of_a_stream() -> None:
    fed = readings(1, 160)
    always_off, switched = predictor(DecisionRules()), predictor(DecisionRules())
    off = always_off.feed(fed)
    found = switched.feed(fed[:60])
    for until, rules in ((120, RULES), (160, DecisionRules())):
        former, switched = switched, predictor(rules)
        switched.table.put_row("tank-0", former.table.row("tank-0"), former.table.layout)
        found += switched.feed(fed[until - (60 if rules.learn else 40) : until])
    assert [one.step for one in found] == [one.step for one in off]
    assert [one.values for one in found[120:]] == [one.values for one in off[120:]]  # to the bit
    assert sum(one.values != other.values for one, other in zip(found[60:120], off[60:120], strict=True)) > 5
    assert switched.table.row("tank-0") == always_off.table.row("tank-0")


def test_a_stream_that_begins_to_learn_has_no_predictions_of_before_to_learn_from() -> None:
    former, learning = predictor(DecisionRules()), predictor()
    fed = readings(1, 80)
    former.feed(fed[:60])
    learning.table.put_row("tank-0", former.table.row("tank-0"), former.table.layout)
    learned = learning.table.current["learned"][0]
    for reading in fed[60:62]:
        assert not learned.any()
        learning.feed([reading])
    assert learned[:, 0].any()
    assert not learned[:, 1].any()  # 12 steps ahead


@pytest.mark.parametrize(
    "facts", [{}, {"task": "anomaly", "horizons": [1], "alarm": Alarm()}, {"task": "estimate", "targets": ["load"]}]
)
def test_a_row_is_what_it_was_unless_learning_is_on_and_possible(facts: dict[str, Any]) -> None:
    contract = contract_of(random_network(outputs=1 if facts else 2), **facts)
    tables = [StreamTable(contract, DEPTH, rules=rules) for rules in (DecisionRules(), RULES)]
    assert "learn" not in tables[0].layout
    assert (tables[0].layout == tables[1].layout) == bool(facts)


def test_the_bands_are_about_the_corrected_output() -> None:
    contract = contract_of(random_network(), intervals=Intervals(0.9, [1.0, 2.0], [1.0] * 2 * len(SHARES)))
    learning = Predictor(contract, ReferenceBackend(random_network()), decision_rules=RULES)
    for one in learning.feed(readings(1, 100)):
        assert one.bands is not None
        for horizon, (low, high) in one.bands["level"].items():
            np.testing.assert_allclose((low + high) / 2, one.values["level"][horizon], atol=1e-5)
