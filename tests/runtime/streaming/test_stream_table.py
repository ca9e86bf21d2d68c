"""The table of streams: its columns, its rows, and the memory that it takes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edge_lstm.bundle.contract import Feature, Sampling
from edge_lstm.streaming.columns import columns_of
from edge_lstm.streaming.row_format import StoredRow
from edge_lstm.streaming.stream_table import StreamTable
from tests.networks import contract_of, random_network

HUGE = Path("/sys/kernel/mm/transparent_hugepage/enabled")


def resident_kib() -> int:
    (line,) = [one for one in Path("/proc/self/status").read_text().splitlines() if one.startswith("VmRSS")]
    return int(line.split()[1])


def test_an_unfit_row_starts_its_stream_cold_and_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    contract = contract_of(random_network())
    kept = StreamTable(contract)
    slot = kept.slot("a")
    kept.current["step"][slot] = 7
    table = StreamTable(contract, fetch={"a": kept.row("a"), "b": kept.row("a")[:-9]}.get)
    slots = [table.slot(stream) for stream in "abc"]
    assert table.current["step"][slots].tolist() == [7, 0, 0]
    assert np.isnan(table.current["time"][table.slot("b")])
    assert caplog.text.count("stream starts cold, its stored row does not fit stream=b") == 1


def test_every_array_of_the_table_is_a_declared_column() -> None:
    table = StreamTable(contract_of(random_network()), depth=2, window=4)
    public = {name: value for name, value in vars(table).items() if not name.startswith("_")}
    arrays = {name for name, value in public.items() if isinstance(value, np.ndarray)}
    declared = [column.name for column in columns_of(contract_of(random_network()), 2, 4)]
    assert sorted(declared) == sorted(arrays)
    assert arrays == StreamTable.__annotations__.keys() - {"states"}


def test_a_table_without_a_grid_has_no_memory_for_open_intervals() -> None:
    sampling = Sampling(60.0, 600.0, grid=True)
    tables = [StreamTable(contract_of(random_network())), StreamTable(contract_of(random_network(), sampling=sampling))]
    for table in tables:
        table.slot("a")
    assert [table.open_interval.nbytes > 0 for table in tables] == [False, True]


def test_a_reused_slot_starts_with_the_start_value_of_every_column() -> None:
    contract = contract_of(random_network(), sampling=Sampling(60.0, 600.0, grid=True))
    table = StreamTable(contract, depth=2, window=4)
    fresh = StreamTable(contract, depth=2, window=4)
    slot, other = table.slot("a"), fresh.slot("b")
    columns = columns_of(contract, 2, 4)
    for column in columns:
        array = getattr(table, column.name)
        array.view(np.uint8).reshape(len(array), -1)[slot] = 1
    table.evict("a")
    assert table.slot("b") == slot
    for column in columns:
        if column.start is not None:
            found, expected = (getattr(one, column.name)[at] for one, at in ((table, slot), (fresh, other)))
            assert found.tobytes() == expected.tobytes(), column.name


def test_a_row_with_a_window_is_not_read_as_a_trail_of_the_same_length() -> None:
    contract = contract_of(random_network())
    columns = {column.name: column.bytes for column in columns_of(contract, depth=2, window=0)}
    trail = sum(columns[name] for name in ("trail_length", "trail", "snapshot_old", "snapshot_mid"))
    assert trail % 8 == 0
    windowed = StreamTable(contract, window=trail // 8)
    slot = windowed.slot("a")
    windowed.current["step"][slot], windowed.seen[slot] = 7, 2**63 + 5
    table = StreamTable(contract, depth=2, fetch={"a": StoredRow(windowed.row("a"), windowed.layout)}.get)
    slot = table.slot("a")
    assert (table.current["step"][slot], table.trail_length[slot]) == (7, 0)


def test_a_row_without_a_trail_empties_the_trail_of_its_stream() -> None:
    contract = contract_of(random_network())
    short, table = StreamTable(contract), StreamTable(contract, depth=2)
    short.slot("a")
    slot = table.slot("a")
    table.trail_length[slot] = 2
    table.put_row("a", short.row("a"), short.layout)
    assert table.trail_length[slot] == 0


def test_the_layout_describes_every_stored_field() -> None:
    features = [Feature("level"), Feature("flow")]
    contract = contract_of(random_network(), features=features, sampling=Sampling(60.0, 600.0, grid=True))
    record = ["time <f8", "step <i8", "warm_steps <i8", "held <f4[2]", "state0 <f4[8]", "state1 <f4[8]"]
    table = StreamTable(contract, depth=2, window=4)
    assert table.layout.splitlines() == [
        *(f"current.{field}" for field in record),
        "partial_values[2] <f4",
        "partial_times[2] <f8",
        "last_published[2] <f4",
        "open_interval.interval <f8",
        "open_interval.newest <f8",
        "open_interval.value <f8[2]",
        "open_interval.count <u4[2]",
        "trail_length <i8",
        "trail[4].time <f8",
        "trail[4].id <u8",
        "trail[4].given <f4[2]",
        "trail[4].revision <u8",
        *(f"snapshot_old.{field}" for field in record),
        *(f"snapshot_mid.{field}" for field in record),
        "seen[4] <u8",
        "identities <i8",
        "last_number <i8",
        "calibration[residuals,0] <f4",
    ]
    assert StreamTable(contract).layout.splitlines() == [
        line
        for line in table.layout.splitlines()
        if not line.startswith(("trail", "snapshot", "seen", "identities", "last_number"))
    ]


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux, which says what memory is taken")
def test_memory_grows_with_the_streams_not_with_the_capacity() -> None:
    if HUGE.exists() and "[always]" in HUGE.read_text():
        pytest.skip("this kernel gives every program huge pages, asked for or not")
    table = StreamTable(contract_of(random_network(hidden=64)), depth=8)
    table._grow(20_000)
    before = resident_kib()
    for column in (table.current, table.trail, table.snapshot_old, table.snapshot_mid):
        column[10_000:10_010] = np.ones(1, column.dtype)  # amid what could be a huge page of 2 MB
    assert resident_kib() - before < 1000
