"""The status of a service as text for a person."""

from __future__ import annotations

from edge_lstm.service.reports.status import status_text

FACTS = {
    "status": "online",
    "uptime_s": 3600.0,
    "readings": 1200,
    "gaps": 2,
    "restarted": 3,
    "damaged": 4,
    "lag_s": 0.42,
    "dropped_by_stream": [{"stream": "tank-1", "late": 7, "duplicate": 1}],
    "degraded": {"tank-2": {"flow": "stuck", "level": "gone"}},
}


def test_the_text_names_restarts_damage_lag_the_worst_streams_and_dead_sensors() -> None:
    lines = status_text(FACTS).splitlines()
    for line in (
        "status    online",
        "states    2 restarted after gaps, 3 in another time, 0 ran away, 0 values held",
        "damage    4 rows and batches of the state database, 0 batches rolled back",
        "lag       0.4 s now, p50 0.0 s, p99 0.0 s",
        "stream    tank-1: 7 late, 1 duplicate",
        "sensors   tank-2: flow stuck, level gone",
    ):
        assert line in lines


def test_a_service_without_stats_yet_has_its_status_alone() -> None:
    assert status_text({"status": "online"}) == "status    online"


def test_the_text_names_streams_that_an_operator_moved() -> None:
    moved = [
        {"stream": "tank-1", "threshold": 1.25},
        {"stream": "tank-2", "threshold": 1.0, "maintenance_until": "2026-03-01T16:00:00Z"},
    ]
    lines = status_text(
        {**FACTS, "commands": {"taken": 3, "refused": 1, "repeated": 0}, "operator": moved}
    ).splitlines()
    for line in (
        "commands  3 taken, 1 refused, 0 repeated",
        "operator  tank-1: threshold 1.25 times the calibrated one",
        "operator  tank-2: threshold 1 times the calibrated one, maintenance until 2026-03-01T16:00:00Z",
    ):
        assert line in lines
