"""Stored rows: of other layouts, of other settings, of release 0.1.0, and what they hold during a calibration."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from edge_lstm.backends.reference import ReferenceBackend
from edge_lstm.bundle.contract import Alarm, Contract, Feature
from edge_lstm.decisions.rules import DecisionRules
from edge_lstm.streaming import columns
from edge_lstm.streaming.columns import Column, columns_of
from edge_lstm.streaming.predictor import Predictor
from edge_lstm.streaming.reading import Prediction, Reading
from edge_lstm.streaming.row_format import StoredRow
from edge_lstm.streaming.stream_table import StreamTable
from tests.networks import contract_of, random_network

DEPTH = 8


def detector(steps: int = 12) -> Contract:
    alarm = Alarm(span_steps=3, settle_steps=2, calibrate_steps=steps, quantile=0.9, factor=1.2)
    facts: dict[str, Any] = {"features": [Feature("x"), Feature("y")], "targets": ["x", "y"], "horizons": [1]}
    return contract_of(random_network(inputs=2), task="anomaly", alarm=alarm, clock=[], **facts)


def predictor(contract: Contract, **options: Any) -> Predictor:
    network = random_network(inputs=len(contract.features) + 2 * len(contract.clock))
    return Predictor(contract, ReferenceBackend(network), max_rewind=DEPTH, **options)


def readings(streams: int, steps: int) -> list[Reading]:
    rng = random.Random(5)
    return [
        Reading(f"mill-{stream}", 60.0 * step, {"x": rng.gauss(0, 1 + stream), "y": rng.gauss(0, 1)})
        for step in range(steps)
        for stream in range(streams)
    ]


def plain(found: list[Prediction]) -> list[str]:
    return list(map(repr, found))  # NaN is equal to itself here


@pytest.mark.parametrize("steps_since", range(1, 2 * DEPTH + 1))
def test_a_late_reading_after_an_eviction_calibrates_on_the_same_residuals(steps_since: int) -> None:
    contract = detector()
    rows: dict[str, StoredRow] = {}
    small, large = predictor(contract, fetch=rows.get), predictor(contract)
    end = 2 + 1 + 12  # settled, one step of which the residual is unknown, calibrated
    ordered = readings(3, end + steps_since)
    late = [ordered.pop(3 * (end + steps_since - min(steps_since, DEPTH) - 1) + stream) for stream in (2, 1, 0)]
    for reading in [*ordered, *late]:
        assert plain(small.feed([reading])) == plain(large.feed([reading]))
        rows[reading.stream] = StoredRow(small.table.row(reading.stream), small.table.layout)
        small.table.evict(reading.stream)  # so the next stream gets its slot, with its residuals in it
    assert large.totals["rewound"] == 3


def test_a_row_has_residuals_until_no_snapshot_needs_them() -> None:
    one = predictor(detector())
    lengths = []
    for reading in readings(1, 40):
        one.feed([reading])
        lengths.append(len(one.table.row("mill-0")))
    counts = [(length - min(lengths)) // 8 for length in lengths]
    assert counts[1:13] == list(range(12))  # one more at each step of the calibration, after two that settle
    assert counts[13:24] == [6] * 11  # after it, those of the snapshot before step 9, which a rewind may restore
    assert counts[24:] == [0] * 16


def without(
    fields: set[str], order: Callable[[list[Any]], list[Any]] = list
) -> Callable[[Contract, DecisionRules], np.ndarray]:
    first_record = columns.first_record

    def former(contract: Contract, rules: DecisionRules) -> np.ndarray:
        record = first_record(contract, rules)
        kept = order([name for name in record.dtype.names or () if name not in fields])
        found = np.zeros(1, [(name, record.dtype[name]) for name in kept])
        for name in kept:
            found[name] = record[name]
        return found

    return former


def test_a_row_of_another_layout_is_read_field_by_field(monkeypatch: pytest.MonkeyPatch) -> None:
    contract = contract_of(random_network())
    with monkeypatch.context() as former:
        former.setattr(columns, "first_record", without({"held"}, lambda names: names[::-1]))
        written = StreamTable(contract, DEPTH, window=4)
        slot = written.slot("a")
        written.current["step"][slot], written.current["warm_steps"][slot] = 70_000, 12
        written.current["state1"][slot] = np.arange(8)
        written.trail_length[slot], written.trail["time"][slot, 0] = 1, 5.5
        written.snapshot_old["step"][slot] = 69_999
        written.seen[slot] = [1, 2, 3, 2**64 - 1]
    table = StreamTable(contract, DEPTH, window=4)
    assert table.layout != written.layout
    table.put_row("a", written.row("a"), written.layout)
    assert (table.current["step"][0], table.current["warm_steps"][0]) == (70_000, 12)
    assert table.current["state1"][0].tolist() == list(range(8))
    assert table.current["held"][0].tolist() == [1.0]  # the mean of the feature: a new field's start value
    assert (table.trail_length[0], table.trail["time"][0, 0], table.snapshot_old["step"][0]) == (1, 5.5, 69_999)
    assert table.seen[0].tolist() == [1, 2, 3, 2**64 - 1]


def test_a_row_of_another_type_that_loses_digits_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    contract = contract_of(random_network())
    written = StreamTable(contract)
    written.slot("a")
    layout = written.layout.replace("current.step <i8", "current.step <f8")
    with pytest.raises(ValueError, match=r"expected current.step as <i8 \(\), found <f8 \(\)"):
        StreamTable(contract).put_row("a", written.row("a"), layout)
    for damaged in ("no layout", "current[x].time <f8\n", "seen[4] <u8\n"):
        with pytest.raises(ValueError, match="expected"):
            StreamTable(contract).put_row("a", written.row("a"), damaged)


def test_a_revision_counts_past_65_535() -> None:
    one = Predictor(contract_of(random_network()), ReferenceBackend(random_network()), max_rewind=DEPTH)
    one.feed([Reading("a", 60.0 * minute, {"level": 1.0}) for minute in (0, 2)])
    one.table.trail["revision"][one.table.slot("a"), 1] = 65_535
    assert [said.revision for said in one.feed([Reading("a", 60.0, {"level": 1.5})])] == [0, 65_536]


def as_0_1_0(table: StreamTable, stream: str) -> bytes:
    """The row that release 0.1.0 would have stored: revisions of 16 bits, residuals only during the calibration."""
    slot = table.slot(stream)
    parts = []
    for column in table._format.columns:
        found = np.array(getattr(table, column.name)[slot])
        if not column.is_new:
            parts.append(_in_type(found, column.former_dtype or column.dtype).tobytes())
    count = int(table.current["calibrated"][slot]) if table.calibration.shape[1] else 0
    parts.append(table.calibration[slot, : count if count < table.calibration.shape[1] else 0].tobytes())
    return b"".join(parts)


def _in_type(found: np.ndarray, former: np.dtype) -> np.ndarray:
    """The values in the type of that release, whose records have fewer fields."""
    if former.names is None:
        return found.astype(former)
    converted = np.zeros(found.shape, former)
    for name in former.names:
        converted[name] = found[name]
    return converted


@pytest.mark.parametrize("steps", [5, 10, 14, 15, 23, 40])
def test_a_detectors_row_of_0_1_0_goes_on_bit_for_bit(steps: int) -> None:
    contract = detector()
    one, other = predictor(contract), predictor(contract)
    ordered = readings(1, steps + 10)
    one.feed(ordered[:steps])
    other.table.put_row("mill-0", as_0_1_0(one.table, "mill-0"))
    found, expected = (  # a row of 0.1.0 does not know when an alarm began
        [said._replace(event=None) for said in each.feed(ordered[steps:])] for each in (other, one)
    )
    assert plain(found) == plain(expected)


@pytest.mark.parametrize(("steps", "is_dropped"), [(12, False), (15, True), (23, True), (40, False)])
def test_a_row_of_0_1_0_without_its_residuals_has_no_trail(steps: int, is_dropped: bool) -> None:
    contract = detector()
    one, other = predictor(contract), predictor(contract)
    ordered = readings(1, steps)
    late = ordered.pop(-2)
    one.feed(ordered)
    other.table.put_row("mill-0", as_0_1_0(one.table, "mill-0"))
    found, expected = other.feed([late]), one.feed([late])
    assert expected
    assert plain(found) == ([] if is_dropped else plain(expected))
    assert other.totals["late"] == is_dropped


def test_rows_without_a_layout_are_told_from_those_of_0_1_0() -> None:
    for contract, depth, window in itertools.product((detector(), contract_of(random_network())), (0, 8), (0, 4)):
        one, other = (StreamTable(contract, depth, window) for _ in range(2))
        slot = one.slot("a")
        one.current["step"][slot] = 7
        if depth:
            one.trail_length[slot] = 1
        for row in (one.row("a"), as_0_1_0(one, "a")):
            other.put_row("a", row)
            assert other.row("a") == one.row("a")


def test_every_column_of_0_1_0_is_known() -> None:
    former = [column.name for column in columns_of(detector(), DEPTH, 4) if not column.is_new]
    expected = ["current", "partial_values", "last_published", "open_interval", "trail_length", "trail"]
    assert former == [*expected, "snapshot_old", "snapshot_mid", "seen", "calibration", "used"]
    assert Column("x", np.dtype("f4"), (3,)).bytes == 12
