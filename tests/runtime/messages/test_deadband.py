"""Which predictions are published: those that left their deadband, and every correction."""

from __future__ import annotations

import numpy as np
import pytest

from edge_lstm.bundle.contract import Feature
from edge_lstm.decisions.decisions import Decisions
from edge_lstm.foundation.errors import EdgeLstmError
from edge_lstm.messages.deadband import Deadband
from edge_lstm.streaming.step_results import Steps
from edge_lstm.streaming.stream_table import StreamTable
from tests.networks import contract_of, random_network

CONTRACT = contract_of(random_network(inputs=3))


def steps_of(streams: list[str], values: list[float], revisions: list[int]) -> Steps:
    """One after the other; every output of a step is the same number."""
    count, counts = len(streams), np.arange(len(streams))
    outputs = [(name, CONTRACT.horizons) for name in CONTRACT.output_names]
    numbers = np.repeat(np.array(values, np.float32)[:, None], len(CONTRACT.outputs), axis=1)
    decided = Decisions(numbers, [None] * count, None, None, np.zeros(count, np.bool_))
    return Steps(outputs, range(count), streams, counts / 1.0, counts, counts, np.array(revisions, np.uint16), decided)


def test_a_prediction_is_published_when_it_leaves_its_deadband() -> None:
    deadband, table = Deadband(CONTRACT, dict.fromkeys(CONTRACT.targets, 0.5)), StreamTable(CONTRACT)
    steps = steps_of(["a", "b", "a", "a", "a"], [1.0, 9.0, 1.4, 1.6, 1.7], [0] * 5)
    assert deadband.moved(steps, table) == [0, 1, 3]
    assert deadband.moved(steps_of(["a", "b"], [2.0, 9.6], [0, 0]), table) == [1]


def test_a_deadband_on_a_circle_is_measured_along_it() -> None:
    circle = contract_of(random_network(inputs=3), features=[Feature("level", "degree", period=360.0)])
    deadband, table = Deadband(circle, dict.fromkeys(circle.targets, 5.0)), StreamTable(circle)
    assert deadband.moved(steps_of(["a"] * 5, [358.0, 2.0, 4.0, 359.0, 354.0], [0] * 5), table) == [0, 2, 4]


def test_a_deadband_for_an_unknown_output_gets_a_suggestion() -> None:
    name = CONTRACT.targets[0]
    with pytest.raises(EdgeLstmError, match=f'output.deadband.{name}x: .* did you mean "{name}"'):
        Deadband(CONTRACT, {name: 1.0, f"{name}x": 1.0})


def test_a_correction_is_always_published() -> None:
    deadband, table = Deadband(CONTRACT, dict.fromkeys(CONTRACT.targets, 0.5)), StreamTable(CONTRACT)
    assert deadband.moved(steps_of(["a", "a", "a"], [1.0, 1.1, 1.2], [0, 1, 0]), table) == [0, 1]
