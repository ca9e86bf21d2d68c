"""Reads the history of a stopped service for a replay, from a state database of any form."""

from __future__ import annotations

import contextlib
import logging
import sqlite3
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from itertools import compress
from pathlib import Path
from typing import Any, NamedTuple

from edge_lstm.bundle.contract import Contract
from edge_lstm.foundation.errors import EdgeLstmError
from edge_lstm.service.database.checksums import batch_checksum, chunk_checksum
from edge_lstm.service.database.former_readings import as_stepped_by_0_1_0
from edge_lstm.service.database.readings_json import entries_of, record_of, stream_of
from edge_lstm.service.database.schema import FORM, form_of, readable_errors
from edge_lstm.service.database.service_values import HISTORY, kept_readings, read_values
from edge_lstm.service.database.spans import Span, SteppingRules, last_span
from edge_lstm.streaming.reading import Command, Forgotten, Reading

log = logging.getLogger(__name__)


class _Placed(NamedTuple):
    """An entry and its place in the order of processing."""

    batch: int
    place: int
    entry: Any


class _Gap(NamedTuple):
    """Readings up to this batch are damaged; stream None: possibly of every stream."""

    batch: int
    stream: str | None


_Numbered = tuple[int, Reading | Forgotten | Command]  # with the batch


class Part(NamedTuple):
    """Readings that were stepped by the same rules; None: by another bundle.

    `batches`: of each reading the number of the batch in which it was stepped; empty: no service stepped them.
    """

    readings: list[Reading]
    rules: SteppingRules | None
    batches: Sequence[int] = ()
    before: tuple[Forgotten | Command, ...] = ()  # what happened to streams just before; a forgotten one begins as new

    def until(self, time: float) -> Part:
        """The readings and commands up to `time` (seconds since 1970)."""
        chosen = [reading.time <= time for reading in self.readings]
        batches = list(compress(self.batches, chosen))
        before = tuple(one for one in self.before if isinstance(one, Forgotten) or one.time <= time)
        return self._replace(readings=list(compress(self.readings, chosen)), batches=batches, before=before)


def read_history(path: Path, bundle_id: str, stream: str | None = None) -> tuple[list[Reading], SteppingRules | None]:
    """`read_parts` as one list of readings, and the last rules."""
    parts = read_parts(path, bundle_id, stream)
    return [reading for part in parts for reading in part.readings], parts[-1].rules


def read_parts(path: Path, bundle_id: str, stream: str | None = None, contract: Contract | None = None) -> list[Part]:
    """The readings in a state database in the order of their processing, and the rules of their steps; at least a part.

    Only the readings of the last time that this bundle ran. For a bundle that never ran there: all readings, and None.
    `stream`: only its readings. `contract`: of the bundle; with it, readings that release 0.1.0 stepped are changed, so
    that they are stepped in the same way. Refused readings are left out. After damaged readings, their streams restart;
    that is logged. The file is not changed.

    Raises EdgeLstmError if it is no state database, has a later form, or a running service uses it.
    """
    try:
        opened = sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=1.0)
        with contextlib.closing(opened) as database, readable_errors():
            form = form_of(database, path) or 0
            span = last_span(database, form, bundle_id)
            records = _within(database, form, span, stream)
            if form > 1:
                _compare_count(database)
    except sqlite3.Error as error:
        raise EdgeLstmError(
            f"expected a state database at {path}, found: {error}",
            "copy the file of a stopped service, and use the copy",
        ) from None
    if stream is not None and not any(isinstance(record, Reading) for _, record in records):
        raise EdgeLstmError(
            f"expected readings of the stream {stream} in {path}, found none of bundle {bundle_id}",
            "name a stream that the service predicted; its topic or payload has the name",
        )
    return [part for records, rules in _by_rules(records, span, contract) for part in _parts(records, rules)]


def kept_readings_of(database: sqlite3.Connection, bundle_id: str, stream: str) -> list[tuple[int, Reading]]:
    """The readings of a stream that this bundle stepped last, since it was forgotten, each with its batch.

    `database`: open, of the present form.
    """
    records = _within(database, FORM, last_span(database, FORM, bundle_id), stream)
    return readings_so_far(records)


def readings_so_far(records: Iterable[_Numbered]) -> list[tuple[int, Reading]]:
    """The readings of one stream among its records, from the last time on that it was forgotten."""
    found: list[tuple[int, Reading]] = []
    for batch, record in records:
        if isinstance(record, Reading):
            found.append((batch, record))
        elif isinstance(record, Forgotten):
            found.clear()
    return found


def _within(database: sqlite3.Connection, form: int, span: Span, stream: str | None) -> list[_Numbered]:
    """The records of a span in the order of their processing."""
    gaps: list[_Gap] = []
    placed = sorted(_placed(database, form, stream, gaps), key=lambda one: one[:2])
    within = [one for one in placed if span.since <= one.batch < span.until]
    return list(_records(within, [gap for gap in gaps if span.since <= gap.batch < span.until]))


def _compare_count(database: sqlite3.Connection) -> None:
    """Log where there are not as many readings as the last commit recorded."""
    expected = read_values(database).get(HISTORY)
    found = kept_readings(database)
    if expected is not None and int(expected) != found:
        log.warning("history damaged, readings were lost outside of a commit expected=%s found=%d", expected, found)


def _by_rules(
    records: Sequence[_Numbered], span: Span, contract: Contract | None
) -> list[tuple[Sequence[_Numbered], SteppingRules | None]]:
    """The records in parts of the same rules."""
    if not span.rules:
        return [(records, None)]
    parts: list[tuple[Sequence[_Numbered], SteppingRules | None]] = []
    end = span.until
    for since, rules in span.rules:
        found = [one for one in records if since <= one[0] < end]
        if contract is not None and since < span.former_until:  # that release forgot no stream
            former = [record for _, record in found if isinstance(record, Reading)]
            stepped = list(as_stepped_by_0_1_0(former, contract, rules.window))
            found = list(zip(range(-len(stepped), 0), stepped, strict=True))  # it stepped each reading on its own
        if parts and parts[-1][1] == rules:
            parts[-1] = [*found, *parts[-1][0]], rules
        elif found or not parts:
            parts.append((found, rules))
        end = since
    return parts[::-1]


def _parts(records: Iterable[_Numbered], rules: SteppingRules | None) -> list[Part]:
    """The readings in parts, between which something happened to streams; at least a part."""
    parts: list[Part] = []
    readings: list[Reading] = []
    batches: list[int] = []
    before: list[Forgotten | Command] = []
    for batch, record in records:
        if isinstance(record, Reading):
            readings.append(record)
            batches.append(batch)
            continue
        if readings:
            parts.append(Part(readings, rules, batches, tuple(before)))
            readings, batches, before = [], [], []
        before.append(record)
    return [*parts, Part(readings, rules, batches, tuple(before))] if readings or before or not parts else parts


def _placed(database: sqlite3.Connection, form: int, stream: str | None, gaps: list[_Gap]) -> Iterator[_Placed]:
    """The entries of the stream, or of all streams. Adds what is damaged to `gaps`."""
    if form > 1:
        yield from _of_chunks(database, stream, gaps)
        batches = database.execute("select batch, facts, checksum, readings from history order by batch")
    else:
        batches = database.execute("select batch, null, null, readings from history order by batch")
    for batch, facts, kept, content in batches:
        if kept is not None and (not isinstance(content, bytes) or batch_checksum(batch, facts, content) != kept):
            gaps.append(_Gap(batch, None))
            continue
        for place, entry in enumerate(entries_of(content)):
            if stream is None or stream_of(entry) == stream:
                yield _Placed(batch, place, entry)


def _of_chunks(database: sqlite3.Connection, stream: str | None, gaps: list[_Gap]) -> Iterator[_Placed]:
    chosen = "" if stream is None else "where stream = ? or stream is null"
    query = f"select stream, until, checksum, readings from chunks {chosen}"
    for found, until, kept, content in database.execute(query, () if stream is None else (stream,)):
        if found is None or not isinstance(content, bytes) or chunk_checksum(found, content) != kept:
            gaps.append(_Gap(until, found))
        else:
            yield from (_Placed(*one) for one in entries_of(content))


def _records(placed: Iterable[_Placed], gaps: list[_Gap]) -> Iterator[_Numbered]:
    """The readings, forgotten streams and commands, and their batches.

    The first reading of a stream after a gap restarts it.
    """
    last_gap: defaultdict[str | None, list[int]] = defaultdict(list)
    for gap in sorted(gaps, key=lambda gap: gap.batch):
        names = "every stream" if gap.stream is None else f"stream {gap.stream}"
        log.warning("history damaged, %s restarts in the replay after batch=%d", names, gap.batch)
        last_gap[gap.stream].append(gap.batch)
    known: dict[str, int] = {}  # by stream: batch of its last reading
    for batch, _, entry in placed:
        record = record_of(entry)
        if isinstance(record, (Forgotten, Command)):
            yield batch, record
        if not isinstance(record, Reading):
            continue
        if gaps:
            before = known.get(record.stream, -1)
            known[record.stream] = batch
            if any(before <= at < batch for at in (*last_gap[None], *last_gap[record.stream])):
                record = record._replace(restart=True)
        yield batch, record
