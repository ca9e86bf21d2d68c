"""Late readings of one call share a rewind; the states are those of a rewind for each."""

from __future__ import annotations

import random
from collections.abc import Sequence

import numpy as np
import pytest

from edge_lstm import Prediction, Predictor, Reading
from edge_lstm.backends.reference import ReferenceBackend
from edge_lstm.bundle.contract import Contract
from tests.networks import contract_of, random_network

START = 1_700_000_000.0
DEPTH = 6


def predictor(contract: Contract | None = None, depth: int = DEPTH, **options: int) -> Predictor:
    network = random_network(inputs=3)
    return Predictor(contract or contract_of(network), ReferenceBackend(network), max_rewind=depth, **options)


def shuffled(seed: int, count: int, back: float, sequence: bool = False) -> list[Reading]:
    """Readings of three streams in an order that is up to `back` readings late, some of them twice."""
    rng = random.Random(seed)
    ordered = [
        Reading(
            f"s{index % 3}",
            START + 60 * (index // 6 if sequence else index // 3),
            {"level": round(rng.gauss(0, 1), 3)},
            str(index) if sequence else None,
        )
        for index in range(count)
    ]
    places = sorted((index + rng.uniform(0, back), one) for index, one in enumerate(ordered))
    found = [one for _, one in places]
    return [again for index, one in enumerate(found) for again in ([one] if index % 7 else [one, found[index - 3]])]


def in_parts(one: Predictor, readings: Sequence[Reading], size: int) -> list[Prediction]:
    return [said for at in range(0, len(readings), size) for said in one.feed(readings[at : at + size])]


@pytest.mark.parametrize("window", [0, 32])
@pytest.mark.parametrize("back", [9, 40])
@pytest.mark.parametrize("seed", range(4))
def test_readings_at_once_leave_the_rows_and_revisions_of_readings_one_by_one(
    seed: int, back: float, window: int
) -> None:
    readings = shuffled(seed, 240, back, sequence=window > 0)
    single, shared = predictor(window=window), predictor(window=window)
    alone = in_parts(single, readings, 1)
    known = {(said.stream, said.time, said.step, said.revision): said.values for said in alone}
    together = in_parts(shared, readings, 40 if back == 9 else 1000)
    for said in together:
        assert known[said.stream, said.time, said.step, said.revision] == said.values
    assert single.totals["rewound"] == shared.totals["rewound"] > 20
    for count in ("late", "duplicate", "used"):
        assert single.totals[count] == shared.totals[count]
    for stream in ("s0", "s1", "s2"):
        assert single.table.row(stream) == shared.table.row(stream)
    last = {(said.stream, said.time, said.values[next(iter(said.values))][1]) for said in alone[-3:]}
    assert last <= {(said.stream, said.time, said.values[next(iter(said.values))][1]) for said in together}


def test_many_late_readings_cost_a_few_steps_each() -> None:
    """Alone, each of these rewinds over hundreds of samples."""
    depth, late = 200, 100
    one = predictor(depth=depth)
    one.feed([Reading("a", START + 60 * minute, {"level": 1.0}) for minute in range(3 * depth)])
    before = one.totals["samples"]
    newest = START + 60 * (3 * depth - 1)
    said = one.feed([Reading("a", newest - 60 * number - 30, {"level": 2.0}) for number in range(late)])
    assert one.totals["rewound"] == late
    assert one.totals["samples"] - before <= 3 * (2 * depth + 1)
    assert len(said) <= 2 * (2 * depth + 1)
    assert max(one.revision for one in said) == late


def test_a_late_reading_that_causes_too_many_steps_is_dropped_and_counted() -> None:
    one = predictor(depth=10, max_steps=6)
    one.feed([Reading("a", START + 60 * minute, {"level": 1.0}) for minute in range(15)])
    before = one.table.row("a")
    assert one.feed([Reading("a", START + 60 * 7.5, {"level": 1.0})]) == []
    assert (one.totals["costly"], one.totals["rewound"], one.table.row("a")) == (1, 0, before)
    assert len(one.feed([Reading("a", START + 60 * 12.5, {"level": 1.0})])) == 3


def test_a_slice_takes_the_readings_that_its_steps_allow_and_at_least_one() -> None:
    depth = 50
    one = predictor(depth=depth)
    asked: list[None] = []
    fresh = [Reading("a", START + 60 * minute, {"level": 1.0}) for minute in range(90)]
    steps, count = one.feed_slice(fresh, 1000, lambda: asked.append(None))
    assert (count, len(asked)) == (90, 90)
    assert steps is not None
    mixed = [Reading("b", START + number, {"level": 1.0}) for number in range(3)]
    late = [Reading("a", START + 60 * 80.5 - number, {"level": 1.0}) for number in range(100)]
    _, count = one.feed_slice([*mixed, *late], 103 + 20, lambda: None)
    assert count == 3 + 1 + 9  # until the trail is full
    before = one.totals["samples"]
    _, count = one.feed_slice(late, 10, lambda: None)
    assert count == 1
    assert one.totals["samples"] - before <= 2 * depth + 1


def test_a_slice_of_late_readings_makes_no_more_steps_than_it_may() -> None:
    rng = random.Random(1)
    one = predictor(depth=20)
    readings = [Reading(f"s{rng.randrange(4)}", START + rng.randrange(400), {"level": 1.0}) for _ in range(3000)]
    while readings:
        before = one.totals["samples"]
        _, count = one.feed_slice(readings, 300, lambda: None)
        assert one.totals["samples"] - before <= 300
        del readings[:count]
    assert one.totals["rewound"] > 100
    assert np.isfinite(one.table.current["time"][0])
