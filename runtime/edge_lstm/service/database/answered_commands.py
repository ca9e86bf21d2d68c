"""Operators' commands and their answers by id: a command that comes again gets the same answer, and changes nothing."""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from edge_lstm.messages.formats.payloads import dump_json
from edge_lstm.service.database.checksums import batch_checksum
from edge_lstm.service.database.readings_json import entries_of, record_of, records_text
from edge_lstm.streaming.reading import Command

log = logging.getLogger(__name__)

_MOST = 10_000  # the oldest are forgotten


class Answered(NamedTuple):
    """A command with an id, or None where it was refused, and the JSON that answered it."""

    id: str
    command: Command | None
    answer: str


def write_answers(database: sqlite3.Connection, batch: int, answers: Iterable[Answered]) -> None:
    """Write the answers of a batch. Runs inside a transaction."""
    for one in answers:
        command = None if one.command is None else records_text([one.command]).decode()
        checksum = _checksum(one.id, batch, command, one.answer)
        row = one.id, batch, checksum, command, one.answer
        database.execute("insert or replace into commands values (?, ?, ?, ?, ?)", row)
    database.execute(
        "delete from commands where id in (select id from commands order by batch desc limit -1 offset ?)", (_MOST,)
    )


def read_answer(database: sqlite3.Connection, command_id: str) -> Answered | None:
    """The answer to a command; None: it is not known. A damaged one is not known either, and logged."""
    row = database.execute("select * from commands where id = ?", (command_id,)).fetchone()
    return None if row is None else _answered(*row)


def read_commands(database: sqlite3.Connection) -> Iterator[Command]:
    """The commands that were taken, the oldest first."""
    for row in database.execute("select * from commands where command is not null order by batch"):
        found = _answered(*row)
        if found is not None and found.command is not None:
            yield found.command


def _answered(command_id: object, batch: object, kept: object, command: object, answer: object) -> Answered | None:
    if kept != _checksum(command_id, batch, command, answer):
        log.error("command of an operator damaged, it is not known any more id=%s", str(command_id)[:64])
        return None
    record = None if command is None else record_of(entries_of(str(command).encode())[0])
    return Answered(str(command_id), record if isinstance(record, Command) else None, str(answer))


def _checksum(command_id: object, batch: object, command: object, answer: object) -> int:
    return batch_checksum(
        batch, dump_json([str(command_id), command if command is None else str(command)]), str(answer).encode()
    )
