"""What the columns of a table hold: numbers, perhaps with a unit in each cell, or texts."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from edge_lstm.foundation.numbers import NUMBER_WORDS
from edge_lstm.recordings.columns import NumberWords, ValueColumn, texts_of
from edge_lstm.recordings.number_cells import cell_unit, plain_number
from edge_lstm.recordings.tables.long_table import LongTable
from edge_lstm.recordings.tables.table import Table

_MOST_OTHERS = 0.1  # share of cells with another unit


def column_kinds(table: Table, names: Sequence[str], words: NumberWords) -> dict[str, ValueColumn]:
    """The columns as numbers or as texts, by their first value that is not missing; texts where there is none.

    In a table of one row a value, only its names are such columns.
    """
    missing = {text.lower() for text in words.missing}
    kinds: dict[str, ValueColumn] = {}
    wanted = [name for name in names if not isinstance(table, LongTable) or name in table.names]
    for name, texts in column_texts(table, wanted):
        if name not in kinds:
            found = [text for text in texts if text.lower() not in missing and not _is_missing(text)]
            if found:
                kinds[name] = _kind(name, found, words)
                if len(kinds) == len(wanted):
                    break
    return {name: kinds.get(name, ValueColumn(name, text=True)) for name in wanted}


def column_texts(table: Table, names: Sequence[str]) -> Iterator[tuple[str, list[str]]]:
    """(column, its texts) of all blocks; in a table of one row a value, the values of each name."""
    if isinstance(table, LongTable):
        for long in table.values([]):
            yield from ((name, texts_of(long.part(name)[1])) for name in names if name in long.rows_of)
        return
    places = {name: table.header.index(name) for name in names}
    for block in table.blocks(list(places.values())):
        yield from ((name, texts_of(block.cells[at])) for name, at in places.items())


def _kind(name: str, texts: Sequence[str], words: NumberWords) -> ValueColumn:
    """The kind of a column, by some of its values that are not missing."""
    if plain_number(texts[0], "", words.decimal_comma, words.thousands) is not None:
        return ValueColumn(name)
    unit = cell_unit(texts[0])
    if unit:
        others = [text for text in texts if plain_number(text, unit, words.decimal_comma, words.thousands) is None]
        if len(others) <= _MOST_OTHERS * len(texts):
            return ValueColumn(name, unit=unit)
    return ValueColumn(name, text=True)


def _is_missing(text: str) -> bool:
    return math.isnan(NUMBER_WORDS.get(text.lower(), 0.0))
