"""A changed verdict on a model is told once, and the stats show it."""

from __future__ import annotations

import json

from edge_lstm.backends.reference import ReferenceBackend
from edge_lstm.bundle.contract import Contract
from edge_lstm.bundle.health import ErrorLimits, Health
from edge_lstm.messages.events.health_events import HealthEvents
from edge_lstm.service.reports.status import status_text
from edge_lstm.streaming.model_health import health_facts
from edge_lstm.streaming.predictor import Predictor
from edge_lstm.streaming.reading import Reading
from tests.networks import contract_of, random_network

NETWORK = random_network()


def contract() -> Contract:
    errors = ErrorLimits(20, [1.0, 1.0], 1.5, 1e6, 1e9, 0.1)
    return contract_of(NETWORK, health=Health(0.1, 1.0, errors))


def messages(made: Contract, predictor: Predictor, values: list[float]) -> list[dict[str, object]]:
    """What is told of these readings, which come one by one."""
    events, found = HealthEvents(made, "b1"), []
    begun = 0 if not predictor.table.names else int(predictor.table.current["step"][predictor.table.slot("tank")])
    for at, value in enumerate(values, start=begun):
        steps = predictor.feed_columns([Reading("tank", 60.0 * at, {"level": value})])
        assert steps is not None
        found += [json.loads(text) for text in events.messages(steps)]
    return found


def test_a_verdict_is_told_when_it_changes_and_the_worst_streams_are_in_the_stats() -> None:
    made = contract()
    predictor = Predictor(made, ReferenceBackend(NETWORK))
    told = messages(made, predictor, [1e4 * (at % 3) for at in range(60)])
    assert told == [
        {
            "kind": "model",
            "change": "begin",
            "stream": "tank",
            "time": "1970-01-01T00:15:00Z",
            "step": 16,
            "revision": 0,
            "bundle": "b1",
            "health": "poor",
            "reason": "its errors are larger than they were in validation",
        }
    ]
    facts = health_facts(made, predictor.table)
    assert facts is not None
    assert {name: facts[name] for name in ("good", "watch", "poor")} == {"good": 0, "watch": 0, "poor": 1}
    (worst,) = facts["worst"]
    assert (worst["stream"], worst["since"]) == ("tank", "1970-01-01T00:15:00Z")
    assert worst["model"] > 9.0  # squared errors count 100 at most
    lines = status_text({"status": "online", "uptime_s": 1.0, "model_health": facts}).splitlines()
    assert "model     good for 0 streams, to watch for 0, poor for 1" in lines
    assert "poor      tank: its errors are larger than they were in validation, since 1970-01-01T00:15:00Z" in lines


def test_a_bundle_without_limits_says_nothing_of_its_model() -> None:
    made = contract_of(NETWORK)
    predictor = Predictor(made, ReferenceBackend(NETWORK))
    assert messages(made, predictor, [1e4 * (at % 3) for at in range(60)]) == []
    assert health_facts(made, predictor.table) is None
