"""A subscriber's predictions without repeats: each is used once, and of a corrected one the last revision stays."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from edge_lstm import Deduplicator, EdgeLstmError, Prediction, Predictor, Reading
from edge_lstm.backends.reference import ReferenceBackend
from edge_lstm.messages.deduplicator import _Stream
from edge_lstm.messages.encoder import decode_prediction, encode_prediction
from tests.networks import contract_of, random_network

START = 1_700_000_000.0


def said(minute: float, step: int, revision: int = 0, stream: str = "a") -> Prediction:
    return Prediction(stream, START + 60 * minute, step, step, {}, revision)


def predictor(**settings: Any) -> Predictor:
    network = random_network()
    return Predictor(contract_of(network), ReferenceBackend(network), **settings)


@settings(max_examples=15, deadline=None)
@example(seed=370386709)  # the repeats come between a late reading and the corrections that it causes
@given(seed=st.integers(0, 2**32))
def test_predictions_that_are_sent_again_are_dropped(seed: int) -> None:
    rng = random.Random(seed)
    readings = [Reading(f"s{n % 2}", START + 30 * n, {"level": rng.gauss(0, 1)}) for n in range(200)]
    place = [n + rng.uniform(0, 8) for n in range(len(readings))]
    shuffled = [readings[n] for n in sorted(range(len(readings)), key=place.__getitem__)]
    sent = predictor(max_rewind=8).feed(shuffled)
    received: list[Prediction] = []
    for at in range(0, len(sent), 20):  # after each kill, up to 40 of the last ones come again
        received += sent[max(0, at - rng.randint(0, 40)) : at + 20]
    deduplicator = Deduplicator()
    assert [one for one in received if deduplicator.is_new(one)] == sent


def test_a_lower_revision_that_comes_again_is_not_new() -> None:
    deduplicator = Deduplicator()
    order = [said(0, 1), said(1, 2), said(0.5, 2), said(1, 3, 1), said(1, 2), said(0.5, 2), said(1, 3, 1)]
    assert [deduplicator.is_new(one) for one in order] == [True, True, True, True, False, False, False]


def test_readings_of_one_time_are_told_apart_by_their_step() -> None:
    deduplicator = Deduplicator()
    order = [said(0, 1), said(0, 2), said(0, 1), said(0, 2), said(1, 3)]
    assert [deduplicator.is_new(one) for one in order] == [True, True, False, False, True]


def test_repeats_from_before_what_is_kept_are_dropped() -> None:
    deduplicator = Deduplicator(max_rewind=2)
    sent = [said(n, n + 1) for n in range(100)]
    assert all(map(deduplicator.is_new, sent))
    assert not any(map(deduplicator.is_new, sent))


def test_a_stream_whose_clock_was_set_back_goes_on() -> None:
    deduplicator = Deduplicator(max_rewind=2)
    order = [*(said(n, n + 1) for n in range(50)), *(said(n - 1000, 51 + n) for n in range(20))]
    assert all(map(deduplicator.is_new, order))
    assert not any(map(deduplicator.is_new, order[-20:]))


def test_a_stream_that_counts_from_one_again_goes_on() -> None:
    deduplicator = Deduplicator(max_rewind=2)
    order = [*(said(n, n + 1) for n in range(50)), *(said(50 + n, 1 + n) for n in range(20))]
    assert all(map(deduplicator.is_new, order))
    assert not any(map(deduplicator.is_new, order[-20:]))


def test_a_published_payload_is_taken_as_json() -> None:
    deduplicator = Deduplicator()
    readings = [Reading("a", START + second, {"level": 1.0}) for second in (0.000001, 0.000002, 0.5)]
    payloads = [json.loads(encode_prediction(one, "b")) for one in predictor().feed(readings)]
    assert [one["time"][17:] for one in payloads] == ["20.000001Z", "20.000002Z", "20.500Z"]
    assert [deduplicator.is_new(one) for one in [*payloads, *payloads]] == [True] * 3 + [False] * 3
    assert not deduplicator.is_new(decode_prediction(json.dumps(payloads[2])))


def test_memory_is_bounded() -> None:
    deduplicator = Deduplicator(max_rewind=3, most_streams=5)
    for stream in range(20):
        for step in range(100):
            deduplicator.is_new(said(step, step + 1, stream=f"s{stream}"))
    kept: dict[str, _Stream] = deduplicator._streams
    assert (len(kept), {len(one.times) for one in kept.values()}) == (5, {8})


@pytest.mark.parametrize("wrong", [{"max_rewind": -1}, {"max_rewind": "8"}, {"most_streams": 0}])
def test_an_argument_of_no_use_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(EdgeLstmError, match="expected m"):
        Deduplicator(**wrong)
