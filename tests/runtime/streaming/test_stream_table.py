"""The table of streams: its columns, its rows, and the memory that it takes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edge_lstm.streaming.stream_table import StreamTable
from tests.networks import contract_of, random_network

HUGE = Path("/sys/kernel/mm/transparent_hugepage/enabled")


def resident_kib() -> int:
    (line,) = [one for one in Path("/proc/self/status").read_text().splitlines() if one.startswith("VmRSS")]
    return int(line.split()[1])


def test_a_row_that_does_not_fit_starts_its_stream_cold_and_says_so(caplog: pytest.LogCaptureFixture) -> None:
    contract = contract_of(random_network())
    kept = StreamTable(contract)
    slot = kept.slot("a")
    kept.current["step"][slot] = 7
    table = StreamTable(contract, fetch={"a": kept.row("a"), "b": kept.row("a")[:-9]}.get)
    slots = [table.slot(stream) for stream in "abc"]
    assert table.current["step"][slots].tolist() == [7, 0, 0]
    assert np.isnan(table.current["time"][table.slot("b")])
    assert caplog.text.count("stream starts cold, what was kept of it does not fit stream=b") == 1


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux, which says what memory is taken")
def test_a_table_takes_memory_for_its_streams_and_not_for_its_capacity() -> None:
    if HUGE.exists() and "[always]" in HUGE.read_text():
        pytest.skip("this kernel gives every program huge pages, asked for or not")
    table = StreamTable(contract_of(random_network(hidden=64)), depth=8)
    table._grow(20_000)
    before = resident_kib()
    for column in (table.current, table.trail, table.snapshot_old, table.snapshot_mid):
        column[10_000:10_010] = np.ones(1, column.dtype)  # amid what could be a huge page of 2 MB
    assert resident_kib() - before < 1000
