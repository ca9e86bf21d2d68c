"""What a status topic says where the broker takes small messages only."""

from __future__ import annotations

import json
from typing import Any

import pytest

from edge_lstm.service.reports.status_payload import status_payload

FACTS: dict[str, Any] = {
    "error": "expected " + "x" * 300,
    "readings": 7,
    "other": 1.5,
    "worst_streams": {f"stream-{number}": {"late": number} for number in range(10)},
}


def sent(limit: int) -> dict[str, Any]:
    facts: dict[str, Any] = json.loads(status_payload(FACTS, lambda payload: len(payload) <= limit))
    return facts


def test_everything_is_sent_where_it_fits() -> None:
    assert sent(10_000) == FACTS


def test_the_part_by_stream_is_left_out_first() -> None:
    assert sent(500) == {name: value for name, value in FACTS.items() if name != "worst_streams"}


def test_texts_are_shortened_next_and_the_main_numbers_stay() -> None:
    shorter = sent(120)
    assert shorter["error"].startswith("expected xxx")
    assert len(shorter["error"]) == 60
    assert (shorter["readings"], shorter["other"]) == (7, 1.5)
    assert sent(20) == {"readings": 7}


@pytest.mark.parametrize("limit", [0, 5])
def test_the_smallest_form_is_given_where_nothing_fits(limit: int) -> None:
    assert sent(limit) == {"readings": 7}
