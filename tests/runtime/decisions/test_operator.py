"""What an operator said about streams, in their records."""

from __future__ import annotations

import numpy as np

from edge_lstm.bundle.contract import Alarm, Feature
from edge_lstm.decisions.alarms import operator as said
from edge_lstm.decisions.alarms.operator import Operator
from edge_lstm.decisions.rules import DecisionRules
from tests.networks import contract_of, random_network

RULES = DecisionRules(feedback=True, feedback_step=1.1, feedback_most=1.5, feedback_half_life_s=86_400.0)
STREAMS = 37


def records() -> np.ndarray:
    """Streams with marks of every kind, and some without."""
    rng = np.random.default_rng(4)
    features, alarm = [Feature(name, "", 0.0, 1.0) for name in "abc"], Alarm(span_steps=5)
    contract = contract_of(random_network(), features=features, targets=[*"abc"], task="anomaly", alarm=alarm)
    size = len(contract.targets)
    usual = [("time", "f8"), ("alarm", "?"), ("center", "f8", (size,)), ("whitening", "f8", (size, size))]
    found = np.zeros(STREAMS, [*usual, *said.record_fields(contract, RULES)])
    for name in ("center", "whitening", "alarm_means"):
        found[name] = rng.normal(size=found[name].shape)
    found["time"] = rng.uniform(0, 1e6, STREAMS)
    found["alarm_begins"] = found["time"][:, None] - np.arange(1, said.EVENTS + 1)
    operator = Operator(RULES)
    for number in range(0, STREAMS - 5):
        excused = rng.normal(size=size) if number % 3 == 0 else None
        event = float(found["alarm_begins"][number, 2])
        operator.move(found[number], np.uint64(number + 1), rng.uniform(0, 1e6), rng.normal(), event, excused)
    return found


def test_scores_have_the_same_bits_in_any_batch() -> None:
    current, operator = records(), Operator(RULES)
    rng = np.random.default_rng(5)
    smoothed, scores = rng.normal(size=current["center"].shape), rng.uniform(0, 3, STREAMS)
    together = operator.scores(current, np.arange(STREAMS), smoothed, scores)
    alone = [operator.scores(current, np.array([n]), smoothed[[n]], scores[[n]])[0] for n in range(STREAMS)]
    assert together.tolist() == alone
    share = together / scores
    assert share.min() >= 1 / 1.5 - 1e-12
    assert share.max() <= 1.5 + 1e-12
    assert (share[-5:] == 1).all()
    assert len(set(share.tolist())) > 20


def test_an_excused_direction_counts_less_and_others_as_before() -> None:
    current, operator = records()[:1], Operator(RULES)
    current["whitening"], current["center"] = np.eye(current["center"].shape[1]), 0
    current["is_moved"], current["raised"], current["excused"] = True, 0, 0
    current["excused"][0, 0, 0], current["move_times"] = 0.5, current["time"]
    current["alarm_means"] = 0
    along, across = np.zeros_like(current["center"]), np.zeros_like(current["center"])
    along[0, 0] = 3.0
    scores = np.array([1.2])
    assert operator.scores(current, np.array([0]), along, scores) == [1.2 / np.sqrt(1.25)]  # variance 1 + 0.25
    across[0, 1] = 3.0
    assert operator.scores(current, np.array([0]), across, scores) == scores


def test_a_score_like_alarms_that_stood_keeps_the_calibrated_threshold() -> None:
    current, operator = records()[:1], Operator(RULES)
    current["whitening"], current["center"] = np.eye(3), 0
    current["excused"], current["raised"], current["raised_at"] = 0, np.log(1.25), current["time"]
    current["alarm_means"], current["move_events"] = 0, 0
    current["alarm_means"][0, :3] = [[2, 0, 0], [3, 0.5, 0], [0, 4, 0]]
    current["move_events"][0, 0] = current["alarm_begins"][0, 2]  # the third was marked
    scores, slots = np.array([1.2]), np.array([0])
    assert operator.scores(current, slots, np.array([[5.0, 0, 0]]), scores) == scores
    assert operator.scores(current, slots, np.array([[0, 5.0, 0]]), scores) == scores / 1.25
    assert operator.scores(current, slots, np.array([[0, 0, 5.0]]), scores) == scores / 1.25  # like none
    current["move_events"][0, 1] = current["alarm_begins"][0, 0]  # a wrong mark: one of two alike
    assert operator.scores(current, slots, np.array([[5.0, 0, 0]]), scores) == scores
    current["move_events"][0, 2] = current["alarm_begins"][0, 1]
    assert operator.scores(current, slots, np.array([[5.0, 0, 0]]), scores) == scores / 1.25
