"""Dictionaries that are emptied before they grow too large."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable

import pytest

from edge_lstm.foundation.limited_dict import LimitedDict
from edge_lstm.messages.decoder import Decoder
from edge_lstm.messages.json_texts import quoted
from edge_lstm.messages.mapping import InputMapping
from edge_lstm.mqtt.client.topic_cache import DecodedTopics, EncodedTopics


def test_it_holds_at_most_so_many_entries_and_bytes_and_no_large_entry() -> None:
    held: LimitedDict[int, str] = LimitedDict(most=3, most_bytes=6400)
    for key in range(3):
        assert held.remember(key, "x", 10) == "x"
    assert list(held) == [0, 1, 2]
    held.remember(3, "x", 10)
    assert list(held) == [3]
    held.remember(4, "large", 101)
    assert list(held) == [3], "a large one would push out the others"
    for key in range(5, 90):
        held.remember(key, "x", 100)
        assert sum(10 if one == 3 else 100 for one in held) <= 6400


def fill_decoder(mapping: InputMapping, topic: str) -> Callable[[int], object]:
    decoder = Decoder(mapping, ["level"])
    return lambda number: decoder.readings(topic % number, b'{"time": 1, "level": 1}', {}, 0.0)


LONG = "x" * 60_000
FILLED: dict[str, Callable[[], Callable[[int], object]]] = {
    "topics received": lambda: (lambda topics: lambda number: topics[f"{number}{LONG}".encode()])(DecodedTopics()),
    "topics to publish to": lambda: (lambda topics: lambda number: topics[f"{number}{LONG}"])(EncodedTopics()),
    "topics of 200 signs that take four bytes": lambda: (
        lambda topics: lambda number: topics[f"{number}{'𝄞' * 200}".encode()]
    )(DecodedTopics()),
    "the meaning of topics": lambda: fill_decoder(InputMapping(), f"sensors/%d{LONG}"),
    "the meaning of topics that are ignored": lambda: fill_decoder(InputMapping(), f"%d/{LONG}"),
    "the meaning of topics of many levels": lambda: fill_decoder(InputMapping(topic="{stream...}"), "%d" + "/a" * 90),
    "texts as JSON": lambda: lambda number: quoted(f"{number}{'𝄞' * 200}"),
}


@pytest.mark.parametrize("filled", FILLED.values(), ids=FILLED.keys())
def test_what_strangers_choose_takes_a_few_mebibytes(filled: Callable[[], Callable[[int], object]]) -> None:
    enter = filled()
    tracemalloc.start()
    try:
        for number in range(6000):
            enter(number)
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert held < 4 << 20, "bytes"
