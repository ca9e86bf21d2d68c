"""Home Assistant's recorder database as a table of one value a row: states, and before them hourly statistics.

The file is opened read-only. `states` holds every change of the last days, `statistics` one row an hour for years.
"""

from __future__ import annotations

import contextlib
import json
import math
import sqlite3
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import numpy as np

from edge_lstm.foundation.errors import EdgeLstmError
from edge_lstm.recordings.tables.table import Block, Cells

TIME, NAME, VALUE = "time", "entity_id", "state"
_TABLES = {"states", "states_meta", "statistics", "statistics_meta"}
_BLOCK = 65_536
_HOUR_S, _SHORT_INTERVAL_S = 3600, 300.0
_MEASURING = ("sensor", "binary_sensor", "number", "counter", "input_number")
_FEWEST_ROWS, _MOST_FEATURES = 20, 12

# A statistic of a meter (has_sum) is its reading at the end of the hour; of other sensors, the mean over the hour.
# Statistics are used before the first state of their entity.
_ROWS = """
with began as (select metadata_id, min(last_updated_ts) as since from states group by metadata_id),
     known as (select m.entity_id as entity, began.since as since from began join states_meta m using (metadata_id))
select s.start_ts + case when s.mean is null then :last else 0 end as time, m.statistic_id, coalesce(s.mean, s.state)
    from statistics s join statistics_meta m on m.id = s.metadata_id
    left join known on known.entity = m.statistic_id
    where coalesce(s.mean, s.state) is not null and (known.since is null or s.start_ts + 3600 <= known.since)
union all
select s.last_updated_ts as time, m.entity_id, s.state
    from states s join states_meta m on m.metadata_id = s.metadata_id
    where s.state is not null
order by time
"""
_COUNTS = """
select m.entity_id, count(*), min(s.last_updated_ts), max(s.last_updated_ts),
    sum(cast(s.state as real) <> 0 or s.state glob '0*' or s.state in ('on', 'off', 'open', 'closed')),
    sum(s.state not in ('unavailable', 'unknown', ''))
    from states s join states_meta m on m.metadata_id = s.metadata_id where s.state is not null group by m.entity_id
"""
_STATISTICS = """
select m.statistic_id, count(*), min(s.start_ts), max(s.start_ts), m.unit_of_measurement, m.has_sum
    from statistics s join statistics_meta m on m.id = s.metadata_id group by m.statistic_id
"""
_ATTRIBUTES = """
select m.entity_id, a.shared_attrs from (select metadata_id, max(state_id) as latest from states group by metadata_id) l
    join states s on s.state_id = l.latest join states_meta m on m.metadata_id = s.metadata_id
    join state_attributes a on a.attributes_id = s.attributes_id
"""


@dataclass
class Entity:
    """One entity of Home Assistant, and how much of it is recorded."""

    name: str
    unit: str = ""
    states: int = 0  # rows
    statistics: int = 0  # rows, one an hour
    first: float = math.inf  # seconds since 1970
    last: float = -math.inf
    is_numeric: bool = False  # its states are numbers or switches
    is_meter: bool = False  # it only grows


class HomeAssistantTable:
    """The rows as `tables.Table`: time (seconds since 1970), entity_id, state."""

    def __init__(self, path: Path) -> None:
        """Raises EdgeLstmError if it is another database, or one from before Home Assistant 2023.4."""
        self.source = str(path)
        self.header = [TIME, NAME, VALUE]
        self.units = {entity.name: entity.unit for entity in entities(path) if entity.unit}
        self.notes: list[str] = []
        self.left_out: Counter[str] = Counter()
        self._path = path

    def blocks(self, columns: Sequence[int], size: int = _BLOCK) -> Iterator[Block]:
        """The rows of these columns in the order of time."""
        with _opened(self._path) as database:
            rows, begin = database.execute(_ROWS, {"last": _HOUR_S - 1}), 2
            while found := rows.fetchmany(size):
                times, names, values = zip(*found, strict=True)
                cells: dict[int, Cells] = {0: np.array(times, np.float64), 1: names, 2: list(map(_text, values))}
                yield Block(range(begin, begin + len(found)), {at: cells[at] for at in columns})
                begin += len(found)


def entities(path: Path) -> list[Entity]:
    """All entities, those with the most statistics first. Raises EdgeLstmError as `HomeAssistantTable`."""
    found: dict[str, Entity] = {}
    with _opened(path) as database:
        for name, count, first, last, unit, has_sum in database.execute(_STATISTICS):
            one = found.setdefault(name, Entity(name, unit or ""))
            one.statistics, one.is_numeric, one.is_meter = count, True, bool(has_sum)
            one.first, one.last = min(one.first, first), max(one.last, last)
        for name, count, first, last, numbers, known in database.execute(_COUNTS):
            one = found.setdefault(name, Entity(name))
            one.states, one.is_numeric = count, one.is_numeric or (known > 0 and numbers == known)
            one.first, one.last = min(one.first, first), max(one.last, last)
        for name, attributes in database.execute(_ATTRIBUTES):
            if not found[name].unit:
                found[name].unit = _unit(attributes)
    return sorted(found.values(), key=lambda one: (-one.statistics, -one.states, one.name))


def usual_entities(listed: Sequence[Entity]) -> list[str]:
    """The names of at most a dozen that measure something, those with the longest history first."""
    measured = [
        one
        for one in listed
        if one.is_numeric
        and one.name.partition(".")[0] in _MEASURING
        and max(one.states, one.statistics) >= _FEWEST_ROWS
    ]
    return [one.name for one in measured[:_MOST_FEATURES]]


def usual_interval_s(listed: Sequence[Entity]) -> float:
    """The interval of a grid for these entities: an hour if there are hourly statistics, else five minutes."""
    return float(_HOUR_S) if any(one.statistics for one in listed) else _SHORT_INTERVAL_S


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[sqlite3.Connection]:
    try:
        database = sqlite3.connect(f"file:{quote(str(path))}?mode=ro", uri=True, timeout=5.0)
        try:
            tables = {name for (name,) in database.execute("select name from sqlite_master where type = 'table'")}
            if missing := sorted(_TABLES - tables):
                raise EdgeLstmError(
                    f"{path}: expected the recorder database of Home Assistant 2023.4 or later, "
                    f"found no table {missing[0]}",
                    "name its file home-assistant_v2.db, or export the history as CSV",
                )
            yield database
        finally:
            database.close()
    except sqlite3.Error as error:
        raise EdgeLstmError(
            f"{path}: expected the recorder database of Home Assistant, found: {error}",
            "copy home-assistant_v2.db and its -wal file while Home Assistant is stopped, and use the copy",
        ) from None


def _text(value: object) -> str:
    return value if isinstance(value, str) else repr(value)


def _unit(attributes: str | None) -> str:
    try:
        facts = json.loads(attributes or "{}")
    except ValueError:
        return ""
    unit = facts.get("unit_of_measurement") if isinstance(facts, dict) else None
    return unit if isinstance(unit, str) else ""
