"""What was found around the table of a recording, as keys for its recipe and as notes."""

from __future__ import annotations

from dataclasses import replace

from edge_lstm.foundation.text import printable
from edge_lstm.recordings.tables.csv_table import CsvTable
from edge_lstm.recordings.tables.table import Layout, Table

_MOST_SHOWN = 60  # signs of a title


def found_around(table: Table, layout: Layout) -> tuple[Layout, list[str]]:
    """The layout with the keys that were found in a file, and notes about them."""
    source = getattr(table, "table", table)
    if not isinstance(source, CsvTable):
        return layout, []
    found, notes = source.preamble, []
    if found.skip_lines and layout.skip_lines is None:
        lines = "line 1 is" if found.skip_lines == 1 else f"lines 1 to {found.skip_lines} are"
        title = f': "{printable(found.title)[:_MOST_SHOWN]}"' if found.title else ""
        notes.append(f"{lines} above the table{title}")
        layout = replace(layout, skip_lines=found.skip_lines)
        layout = (
            layout
            if layout.separator or not found.title.lower().startswith(("sep=", '"sep='))
            else replace(layout, separator=found.separator)
        )
    if found.comment and layout.comment is None:
        notes.append(f"lines that begin with {found.comment} are comments")
        layout = replace(layout, comment=found.comment)
    if not found.has_header and not layout.header:
        notes.append(f"the names of the columns are in the last comment: {', '.join(found.header)}")
        layout = replace(layout, header=list(found.header))
    if source.trailing:
        notes.append("each row ends with a separator: its last column has no name and no values")
    if found.units and layout.units_row is None:
        units = ", ".join(f"{name} {unit}" for name, unit in source.units.items())
        notes.append(f"the row below the header holds units: {units}")
        layout = replace(layout, units_row=True)
    return layout, notes
