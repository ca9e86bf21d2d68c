"""Untrusted bundles cost little before they are trusted, and no byte of the file goes unseen."""

from __future__ import annotations

import json
import struct
import tracemalloc
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from edge_lstm.bundle.archive import Bundle
from edge_lstm.bundle.golden import GoldenVectors, read_golden_vectors, to_npz
from edge_lstm.bundle.npz import read_npz
from edge_lstm.foundation.errors import BundleError
from tests.executed_lines import executed_lines
from tests.hostile.bundle_bytes import entries_of, with_manifest
from tests.paths import FIXTURES, PUMP

# of one refusal, by byte of the bundle; 8 and 26 were measured, and work that grows with the square of it takes 180
MOST_LINES, MOST_MEMORY = 20, 60
OF_A_SMALL_BUNDLE = 20_000  # lines and bytes


def refused(data: bytes, found: str, most_memory: int = MOST_MEMORY) -> None:
    """Refused with this message, within bounds of work (lines of Python) and memory (bytes) by byte of `data`."""

    def refuse() -> None:
        with pytest.raises(BundleError, match=found):
            Bundle.from_bytes(data, "strange")

    assert executed_lines(refuse) < OF_A_SMALL_BUNDLE + MOST_LINES * len(data)
    tracemalloc.start()
    with pytest.raises(BundleError):
        Bundle.from_bytes(data, "strange")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < OF_A_SMALL_BUNDLE + most_memory * len(data)


def test_a_huge_directory_is_counted_before_it_is_read() -> None:
    record = b"PK\x01\x02" + bytes(24) + struct.pack("<H", 1) + bytes(16) + b"x"
    records = record * (10 * 2**20 // len(record))
    for count in (0, 1, 64, 65, 0xFFFF):
        end = b"PK\x05\x06" + struct.pack("<4H2LH", 0, 0, count, count, len(records), 0, 0)
        refused(records + end, "expected a whole bundle, found", 4)


@pytest.mark.parametrize(
    ("before", "behind"), [(b"MZ", b""), (b"", b"\0"), (b"", b"PK\x05\x06" + bytes(18)), (b"#!/bin/sh\n", b"x")]
)
def test_bytes_before_or_behind_the_archive_are_refused(before: bytes, behind: bytes) -> None:
    data = PUMP.read_bytes()
    Bundle.from_bytes(data, "whole")
    refused(before + data + behind, "expected a whole bundle, found")


def test_a_comment_and_hidden_bytes_are_refused() -> None:
    data = bytearray(PUMP.read_bytes())
    data[-2:] = struct.pack("<H", 5)
    refused(bytes(data) + b"hello", "bytes behind the archive")
    whole = PUMP.read_bytes()
    begin = int.from_bytes(whole[-6:-2], "little")
    moved = whole[:begin] + b"hidden" + whole[begin:-6] + struct.pack("<L", begin + 6) + whole[-2:]
    refused(moved, "bytes between the entries and the directory")


def test_arrays_behind_other_bytes_are_refused() -> None:
    content = Bundle.open(PUMP).content["golden.npz"]
    assert "features" in read_npz(content)
    for data in (b"x" + content, content + b"x"):
        with pytest.raises(ValueError, match="bytes"):
            read_npz(data)


def set_to(*path: Any, value: Any) -> Callable[[Any], None]:
    def change(facts: Any) -> None:
        for part in path[:-1]:
            facts = facts[part]
        facts[path[-1]] = value

    return change


FEATURES = ("contract", "features")
MANY = 6_000
HEAVY: dict[str, tuple[Callable[[Any], None], str]] = {
    "very many values": (set_to("contract", "horizons", value=[1] * 300_000), "about 3.* values, more than 200000"),
    "huge sizes": (set_to("contract", "states", 0, "shape", value=[2**1000] * 5000), "expected 1 to 8 sizes"),
    "names that differ": (set_to(*FEATURES, value=[{"name": f"f{at}"} for at in range(MANY)]), "expected names of"),
    "pairs that differ": (
        set_to(*FEATURES, value=[{"name": f"f{at}", "derived": ["covariance f1 9"]} for at in range(MANY // 2)]),
        "expected names of features",
    ),
    "a long name": (set_to("contract", "name", value="x" * 2**20), "expected texts of at most 1000 characters"),
    "very many inputs": (
        set_to(*FEATURES, value=[{"name": "a", "derived": ["difference"] * 90_000}]),
        "expected at most 65536 inputs",
    ),
    "unknown keys": (set_to("contract", value={f"k{at}": 1 for at in range(2 * MANY)}), "faults"),
    "a long number": (set_to("contract", "clip", value=10**1200), "a number of very many digits"),
}


@pytest.mark.parametrize("name", HEAVY)
def test_a_heavy_manifest_is_refused_with_little_work(name: str) -> None:
    change, found = HEAVY[name]
    refused(with_manifest(entries_of(PUMP), change), found)


@pytest.mark.parametrize(("scheme", "key", "most"), [("float32", "parity", 1e-3), ("float32", "drift", 0.01)])
def test_a_tolerance_has_a_ceiling(scheme: str, key: str, most: float) -> None:
    entries = entries_of(PUMP)
    assert json.loads(entries["manifest.json"])["variants"][0]["scheme"] == scheme
    Bundle.from_bytes(with_manifest(entries, set_to("variants", 0, key, value=most)), "at the ceiling")
    for over in (1.01 * most, 1e300):
        found = rf"variants\[0\]\.{key}: expected at most {most:g} for {scheme}, found"
        refused(with_manifest(entries, set_to("variants", 0, key, value=over)), found)


def test_long_golden_vectors_are_refused() -> None:
    whole = read_golden_vectors(Bundle.open(PUMP))
    long = GoldenVectors(np.zeros((20_001, whole.features.shape[1]), np.float32), whole.marks, whole.expected)
    entries = {**entries_of(PUMP), "golden.npz": to_npz(long)}
    bundle = Bundle.from_bytes(with_manifest(entries, lambda facts: None), "long")
    with pytest.raises(BundleError, match="vectors of at most 20000 steps, found 20001"):
        read_golden_vectors(bundle)


def test_every_bundle_of_our_own_is_opened() -> None:
    opened = [Bundle.open(path) for path in sorted(FIXTURES.rglob("*.elstm"))]
    assert len(opened) >= 7
    for bundle in opened:
        read_golden_vectors(bundle)
