"""Readings that release 0.1.0 stepped: a replay gives what that release published."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence
from pathlib import Path

import pytest

from edge_lstm import Predictor, Reading
from edge_lstm.bundle.contract import Contract, Feature, Sampling
from edge_lstm.service.database.former_readings import as_stepped_by_0_1_0
from edge_lstm.service.database.history_reader import read_history, read_parts
from edge_lstm.service.database.migration import _FORM_1
from edge_lstm.service.database.spans import SteppingRules
from edge_lstm.service.database.store import Store
from tests.networks import contract_of, random_network

START = 1_700_000_000.0
RULES = SteppingRules(max_rewind=4, window=3)


def contract(grid: bool = False) -> Contract:
    features = [Feature("level"), Feature("flow")]
    return contract_of(random_network(inputs=2), features=features, clock=[], sampling=Sampling(60.0, 600.0, grid=grid))


def part(second: float, name: str, value: float, sequence: str | None = None) -> Reading:
    return Reading("a", START + second, {name: value}, sequence, partial=True)


def whole(second: float, level: float, flow: float, sequence: str | None = None) -> Reading:
    return Reading("a", START + second, {"level": level, "flow": flow}, sequence)


def stepped(*readings: Reading, grid: bool = False) -> list[Reading]:
    return list(as_stepped_by_0_1_0(readings, contract(grid), RULES.window))


def test_parts_join_whatever_their_times_are() -> None:
    parts = [part(0, "level", 1), part(0, "level", 2), part(90, "flow", 3), part(90, "flow", 3), part(120, "level", 4)]
    assert stepped(*parts) == [whole(90, 2, 3), whole(120, 4, 3)]


def test_a_sequence_is_known_by_itself_among_the_last_ones() -> None:
    readings = [whole(60 * number, number, 0, sequence) for number, sequence in enumerate("121341")]
    assert [one.time - START for one in stepped(*readings)] == [0, 60, 180, 240, 300]  # 1 is forgotten at the end


def test_a_grid_used_no_sequence() -> None:
    readings = [whole(60 * number, number, 0, "1") for number in range(3)]
    assert stepped(*readings, grid=True) == [one._replace(sequence=None) for one in readings]


def database_of_0_1_0(folder: Path, readings: Sequence[Reading]) -> Path:
    """A file of form 1 with a batch for each reading."""
    path = folder / "state.db"
    with sqlite3.connect(path) as database:
        for table in (
            "create table bundle (id text not null)",
            "create table streams (stream text primary key, row blob not null) without rowid",
            *_FORM_1,
        ):
            database.execute(table)
        database.execute("insert into bundle values ('bundle-1')")
        for number, one in enumerate(readings):
            text = json.dumps([[*one[:5]]])
            database.execute("insert into history values (?, 1, ?)", (number + 1, text))
        database.execute("insert into spans values (1, 'bundle-1', 4, 3)")
        database.execute("pragma user_version = 1")
    database.close()
    return path


@pytest.mark.parametrize("migrated", [False, True])
def test_only_readings_of_before_the_update_are_stepped_as_then(migrated: bool, tmp_path: Path) -> None:
    former = [part(0, "level", 1), part(9, "flow", 2), part(60, "level", 3), part(69, "flow", 4)]
    path = database_of_0_1_0(tmp_path, former)
    later = [part(120, "level", 5), part(129, "flow", 6)] if migrated else []
    if migrated:
        table = Predictor(contract(), None).table  # type: ignore[arg-type]
        store = Store(path, "bundle-1", table.layout, 100, rules=RULES)
        store.commit(5, [], [], 0, [], 0, later)
        store.close(0)
    expected = [whole(9, 1, 2), whole(69, 3, 4), *later]
    (found,) = read_parts(path, "bundle-1", contract=contract())
    assert found[:2] == (expected, RULES)
    assert found.batches == [-2, -1, 5, 5][: len(expected)]  # 0.1.0 stepped each reading on its own
    assert read_history(path, "bundle-1")[0] == [*former, *later]
