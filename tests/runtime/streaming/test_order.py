"""A shuffled, repeated, gapped stream within the bounds ends as the ordered one: samples, states, final predictions."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_lstm import Deduplicator, Prediction, Predictor, Reading
from edge_lstm.backends.reference import ReferenceBackend
from edge_lstm.bundle.contract import Feature, Sampling
from tests.networks import contract_of, random_network

START = 1_700_000_040.0
FEATURES = ("level", "flow", "heat")
REWIND = 24
seeds = st.integers(0, 2**32)


def predictor(**settings: Any) -> Predictor:
    grid = settings.pop("grid", False)
    network = random_network(inputs=3)
    features = [Feature(name) for name in FEATURES]
    sampling = Sampling(60.0, 600.0, grid=grid)
    contract = contract_of(network, features=features, clock=[], sampling=sampling)
    return Predictor(contract, ReferenceBackend(network), max_rewind=REWIND, **settings)


def samples(rng: random.Random, count: int) -> list[tuple[float, dict[str, float]]]:
    """(time, values) with lost samples and two silences that restart the state."""
    minutes = [minute for minute in range(count) if rng.random() > 0.1]
    silences = rng.sample(range(count), 2)
    return [
        (START + 60 * (minute + 20 * sum(minute > one for one in silences)), {n: rng.gauss(0, 1) for n in FEATURES})
        for minute in minutes
    ]


def in_parts(rng: random.Random, whole: Sequence[tuple[float, dict[str, float]]], lost: float) -> list[Reading]:
    """Each sample as one to three partial readings, some of which are lost; the last sample is complete."""
    parts = []
    for number, (time, values) in enumerate(whole):
        names = rng.sample(FEATURES, 3)
        cuts = sorted(rng.sample([1, 2], rng.randint(1, 2)))
        for begin, end in zip([0, *cuts], [*cuts, 3], strict=True):
            if number == len(whole) - 1 or rng.random() >= lost:
                part = {name: values[name] for name in names[begin:end]}
                parts.append(Reading("a", time, part, partial=True))
    return parts


def shuffled(rng: random.Random, ordered: Sequence[Reading], reach: float, repeats: float) -> list[Reading]:
    """Each reading up to `reach` places away from its own, and some again a little later."""
    places = [(index + rng.uniform(0, reach), reading) for index, reading in enumerate(ordered)]
    again = [(place + rng.uniform(0, reach), reading) for place, reading in places if rng.random() < repeats]
    return [reading for _, reading in sorted([*places, *again], key=lambda item: item[0])]


def fed(one: Predictor, readings: Sequence[Reading], rng: random.Random) -> list[Prediction]:
    """The predictions, in batches of random size."""
    found, at = [], 0
    while at < len(readings):
        size = rng.choice([1, 1, 2, 5, 30])
        found += one.feed(readings[at : at + size])
        at += size
    return found


def final(predictions: Sequence[Prediction]) -> dict[tuple[str, float], tuple[Any, ...]]:
    """What a subscriber has in the end that drops repeats and lower revisions."""
    deduplicator = Deduplicator(max_rewind=REWIND)
    new = [one for one in predictions if deduplicator.is_new(one)]
    return {(one.stream, one.time): (one.step, one.warm_steps, one.values) for one in new}


def state(one: Predictor) -> bytes:
    """The stream's record: time, counts, held values, states."""
    return one.table.current[one.table.slot("a")].tobytes()


def trail(one: Predictor) -> list[tuple[float, list[float]]]:
    """The last samples; a value that has not arrived and a missing one are the same for the network."""
    slot = one.table.slot("a")
    kept = one.table.trail[slot, : one.table.trail_length[slot]]
    return [
        (float(entry["time"]), [x if math.isfinite(x) else None for x in entry["given"].tolist()]) for entry in kept
    ]


def assert_end_alike(one: Predictor, other: Predictor, said: list[Prediction], expected: list[Prediction]) -> None:
    assert trail(one)[-REWIND:] == trail(other)[-REWIND:]
    assert state(one) == state(other)
    assert final(said) == final(expected)


@settings(max_examples=10, deadline=None)
@given(seed=seeds)
def test_whole_readings(seed: int) -> None:
    rng = random.Random(seed)
    ordered = [Reading("a", time, values) for time, values in samples(rng, 60)]
    arriving = shuffled(rng, ordered, reach=12, repeats=0.3)
    one, other = predictor(), predictor()
    assert_end_alike(one, other, fed(one, arriving, rng), fed(other, ordered, rng))
    assert one.totals["used"] == len(ordered)
    assert one.totals["duplicate"] == len(arriving) - len(ordered)


@settings(max_examples=20, deadline=None)
@given(seed=seeds, lost=st.sampled_from([0.0, 0.2]))
def test_joined_parts(seed: int, lost: float) -> None:
    rng = random.Random(seed)
    ordered = in_parts(rng, samples(rng, 40), lost)
    arriving = shuffled(rng, ordered, reach=12, repeats=0.3)
    one, other = predictor(), predictor()
    assert_end_alike(one, other, fed(one, arriving, rng), fed(other, ordered, rng))
    assert one.totals["used"] == len(ordered)
    assert one.totals["duplicate"] == len(arriving) - len(ordered)


@settings(max_examples=10, deadline=None)
@given(seed=seeds, bits=st.sampled_from([3, 8, 64]), arrived=st.booleans())
def test_sequences_that_wrap(seed: int, bits: int, arrived: bool) -> None:
    rng = random.Random(seed)
    ordered = [
        Reading("a", time, values, sequence=str(number % 2**bits))
        for number, (time, values) in enumerate(samples(rng, 300 if arrived else 60))
    ]
    one, other = predictor(window=256), predictor(window=256)
    if arrived:  # each gets the time at which it comes
        ordered = [reading._replace(time=START + number, arrived=True) for number, reading in enumerate(ordered)]
        again = [(number + rng.randint(1, 40), reading) for number, reading in enumerate(ordered) if rng.random() < 0.2]
        arriving = [r for _, r in sorted([*enumerate(ordered), *again], key=lambda item: item[0])]
        arriving = [reading._replace(time=START + 0.5 * number) for number, reading in enumerate(arriving)]
    else:
        arriving = shuffled(rng, ordered, reach=12, repeats=0.3)
    said, expected = fed(one, arriving, rng), fed(other, ordered, rng)
    if arrived:
        assert [(p.step, p.values) for p in said] == [(p.step, p.values) for p in expected]
    else:
        assert_end_alike(one, other, said, expected)
    assert one.totals["used"] == len(ordered)
    assert one.totals["duplicate"] == len(arriving) - len(ordered)


@settings(max_examples=10, deadline=None)
@given(seed=seeds, lost=st.sampled_from([0.0, 0.2]))
def test_parts_on_a_grid(seed: int, lost: float) -> None:
    rng = random.Random(seed)
    ordered: list[Reading] = []
    arriving: list[Reading] = []
    for time, values in samples(rng, 60):
        for second in (0.0, 20.0, 40.0):
            parts = in_parts(rng, [(time + second, values), (0.0, values)], lost)
            parts = [part for part in parts if part.time]
            ordered += parts
            arriving += rng.sample(parts, len(parts))
            if arriving:
                arriving += rng.sample(arriving[-30:], min(len(arriving), rng.randint(0, 2)))
    one, other = predictor(grid=True), predictor(grid=True)
    assert fed(one, arriving, rng) == fed(other, ordered, rng)
    assert state(one) == state(other)
    assert one.totals["used"] == len(ordered)
    dropped = one.totals["duplicate"] + one.totals["late"]  # on a grid a repeat of long ago is late
    assert dropped == len(arriving) - len(ordered)


@pytest.mark.parametrize("seed", range(3))
def test_rows_that_were_stored_and_evicted(seed: int) -> None:
    rng = random.Random(seed)
    ordered = in_parts(rng, samples(rng, 40), 0.2)
    arriving = shuffled(rng, ordered, reach=12, repeats=0.3)
    rows: dict[str, bytes] = {}
    one, other = predictor(fetch=rows.get), predictor()
    for reading in arriving:
        assert one.feed([reading]) == other.feed([reading])
        rows["a"] = one.table.row("a")
        one.table.evict("a")
    assert one.table.row("a") if "a" in one.table.names else rows["a"] == other.table.row("a")
