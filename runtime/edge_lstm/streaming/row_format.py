"""The bytes of a stored row, and the layout that describes them; rows of other layouts are read field by field."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from edge_lstm.foundation.arrays import Floats, Integers
from edge_lstm.streaming.columns import Column

_RESIDUALS = "residuals"  # the size of the last column in a layout: as many as the row has bytes left
_LINE = re.compile(rf"(\w+)(?:\[([\d,]*|{_RESIDUALS},\d+)\])?(?:\.(\w+))? ([<>|]\w+)(?:\[([\d,]*)\])?")
_WINDOW_OF_0_1_0 = 256  # of sequences, in its service
_SNAPSHOTS = ("snapshot_old", "snapshot_mid")  # records like `current`


class StoredRow(NamedTuple):
    """A stream's row from a store, and the `StreamTable.layout` of the table that wrote it.

    An empty layout: release 0.1.0 wrote the row, or a table of this release with the present settings.
    """

    content: bytes
    layout: str = ""


class RowValues(NamedTuple):
    """What a row holds. A column that it lacks is not among `columns`."""

    columns: Mapping[str, NDArray[Any]]  # by name
    residuals: Floats  # (n, targets)


class _Part(NamedTuple):
    """One column in a row."""

    name: str
    dtype: np.dtype[Any]
    shape: tuple[int, ...]

    @property
    def bytes(self) -> int:
        return self.dtype.itemsize * int(np.prod(self.shape))


class RowFormat:
    """Reads rows of one contract. Its own rows have `columns` one after another, then residuals of the calibration.

    Rows of another depth or window, of another release, or with other fields are read by the names of their fields. A
    field that such a row lacks gets its start value. Trail and identities are read from rows of the same depth and
    window only: their entries have a meaning together.
    """

    def __init__(
        self, columns: Sequence[Column], depth: int, window: int, bounds: Mapping[str, tuple[int, int]]
    ) -> None:
        """`bounds`: the least and the most of each count in a record; a row with another one is damaged."""
        used = {"always": True, "trail": depth > 0, "window": window > 0}
        self.columns = [column for column in columns if used.get(column.stored, False)]
        (residuals,) = [column for column in columns if column.stored == "residuals"]
        self._calibrate_steps, self._targets = residuals.shape
        self._bounds, self._window = bounds, window
        former_bytes = {c.name: (c.former_dtype or c.dtype).itemsize for c in columns}
        self._record_bytes, self._sample_bytes = former_bytes["current"], former_bytes["trail"]
        self._parts = [_Part(column.name, column.dtype, column.shape) for column in self.columns]
        self._bytes = sum(part.bytes for part in self._parts)
        self._groups = [[c for c in self.columns if c.stored == group] for group in ("trail", "window")]
        former = [column for column in self.columns if not column.is_new]
        self._former = [_Part(c.name, c.former_dtype or c.dtype, c.shape) for c in former]
        self._former_bytes = sum(part.bytes for part in self._former)
        self._former_always = [
            part for part, column in zip(self._former, former, strict=True) if column.stored == "always"
        ]
        self._least_bytes = sum(part.bytes for part in self._former_always)
        self.layout = layout_of(self._parts, residuals)

    def read(self, row: StoredRow) -> RowValues:
        """The values of a row. Raises ValueError if its bytes do not fit its layout, the contract or their bounds."""
        if row.layout == self.layout:
            return self._described(row.content, self._parts)
        if not row.layout or "2*depth" in row.layout:  # before 0.2.0, layouts did not say the sizes of a row
            return self._undescribed(row.content)
        try:
            return self._converted(self._described(row.content, _parts_of(row.layout)))
        except (KeyError, TypeError) as error:
            raise ValueError(f"expected a layout of the stream table, found one without {error}") from None

    def residual_count(self, columns: Mapping[str, NDArray[Any]]) -> Integers:
        """How many residuals rows with these columns need, in the shape of `trail_length`: one number or (rows,).

        After a rewind, calibration goes on from a snapshot. So a row has residuals until no snapshot needs them.
        """
        size = self._calibrate_steps
        if not size:
            return np.zeros((), np.int64)
        count = _so_far(columns["current"], size)
        if "trail" in columns:
            length, depth = columns["trail_length"], columns["trail"].shape[-1] // 2
            for name, least in zip(_SNAPSHOTS, (1, depth + 1), strict=True):
                count = np.maximum(count, np.where(length >= least, _so_far(columns[name], size), 0))
        return count

    def _described(self, content: bytes, parts: Sequence[_Part]) -> RowValues:
        columns, end = self._cut(content, parts)
        if not _has_a_trail(columns):
            raise ValueError(
                f"expected a trail of 0 to {len(columns['trail'])} samples, found {columns['trail_length']}"
            )
        return RowValues(columns, self._residuals(content, end, int(self.residual_count(columns))))

    def _residuals(self, content: bytes, begin: int, count: int) -> Floats:
        expected = 4 * count * self._targets
        if len(content) - begin != expected:
            raise ValueError(f"expected a row of {begin + expected} bytes, found {len(content)}")
        return np.frombuffer(content, np.float32, offset=begin).reshape(count, self._targets)

    def _undescribed(self, content: bytes) -> RowValues:
        """A row of this format, or else of release 0.1.0, whose rows are shorter."""
        if len(content) >= self._bytes > self._former_bytes or self._former == self._parts:
            try:
                return self._described(content, self._parts)
            except ValueError:
                pass  # the bytes of 0.1.0, or its error
        return self._converted(self._by_0_1_0(content))

    def _by_0_1_0(self, content: bytes) -> RowValues:
        """Release 0.1.0 stored no residuals once the current record had all: older snapshots then lack them.

        Such a row is read without its trail: a late reading is dropped and not calibrated on other numbers.
        """
        if len(content) < self._least_bytes:
            raise ValueError(f"expected a row of at least {self._least_bytes} bytes, found {len(content)}")
        always, _ = self._cut(content, self._former_always)
        count = int(self.residual_count(always))
        end = len(content) - 4 * count * self._targets
        columns = always
        if end == self._former_bytes:  # rows of other settings can have the same length by chance
            found, _ = self._cut(content, self._former)
            columns = found if _has_a_trail(found) else always
        elif not self._fits_0_1_0(end - self._least_bytes):
            raise ValueError(f"expected a row of release 0.1.0, or of this one, found {len(content)} bytes")
        if self.residual_count(columns) > count:
            columns = _without(columns, self._groups[0])
        return RowValues(columns, np.frombuffer(content, np.float32, offset=end).reshape(count, self._targets))

    def _fits_0_1_0(self, rest: int) -> bool:
        """Whether a row of 0.1.0 with another depth or window has so many bytes after those that every row has."""
        for window in {0, _WINDOW_OF_0_1_0, self._window}:
            samples = rest - 8 * window - 8 - 2 * self._record_bytes  # 8: the length of the trail
            if rest == 8 * window or (samples > 0 and samples % (2 * self._sample_bytes) == 0):
                return True
        return False

    def _converted(self, found: RowValues) -> RowValues:
        """The values as columns of this format."""
        columns = {}
        for column in self.columns:
            former = found.columns.get(column.name)
            if former is not None and former.shape == column.shape:
                columns[column.name] = _as_column(former, column)
            elif former is not None and column.stored == "always":
                raise ValueError(f"expected {column.name} of shape {column.shape}, found {former.shape}")
        for group in self._groups:
            if not {column.name for column in group if not column.is_new} <= columns.keys():
                columns = _without(columns, group)
        return RowValues(columns, found.residuals)

    def _cut(self, content: bytes, parts: Iterable[_Part]) -> tuple[dict[str, NDArray[Any]], int]:
        """The columns at the beginning of a row, with possible counts, and where they end."""
        columns, end = _cut(content, parts)
        for name in ("current", *_SNAPSHOTS):
            if name in columns:
                self._require_bounds(columns[name])
        return columns, end

    def _require_bounds(self, record: NDArray[Any]) -> None:
        names = record.dtype.names or ()
        for name, (least, most) in self._bounds.items():
            if name not in names:  # of a row from before it had the field
                continue
            found = record[name]
            if not ((found >= least) & (found <= most)).all():
                raise ValueError(f"expected {name} of {least} to {most}, found {found.tolist()}")


def layout_of(parts: Iterable[_Part], residuals: Column) -> str:
    """The layout of a row: a line for each number or array in it, as name, type and shape.

    Types are NumPy's, with their byte order (`<f8`).
    """
    lines = []
    for part in parts:
        name = part.name + _suffix(part.shape)
        if part.dtype.names is None:
            lines.append(f"{name} {part.dtype.str}")
            continue
        for field in part.dtype.names:
            one = part.dtype[field]
            lines.append(f"{name}.{field} {one.base.str}{_suffix(one.shape)}")
    lines.append(f"{residuals.name}[{_RESIDUALS},{residuals.shape[1]}] {residuals.dtype.str}")
    return "".join(f"{line}\n" for line in lines)


@functools.lru_cache(64)
def _parts_of(layout: str) -> list[_Part]:
    """The columns that a layout describes. Raises ValueError if it describes none."""
    fields: dict[tuple[str, tuple[int, ...]], list[Any]] = {}
    for line in layout.splitlines():
        found = _LINE.fullmatch(line)
        if found is None:
            raise ValueError(f"expected a line like current.step <i8 in the layout of a row, found {line[:60]!r}")
        name, sizes, field, kind, shape = found.groups()
        if sizes is None or _RESIDUALS not in sizes:
            fields.setdefault((name, _sizes(sizes)), []).append((field, kind, _sizes(shape)))
    parts = []
    for (name, sizes_of), members in fields.items():
        plain = members[0][0] is None
        parts.append(_Part(name, np.dtype(members[0][1] if plain else members), sizes_of))
    return parts


def _cut(content: bytes, parts: Iterable[_Part]) -> tuple[dict[str, NDArray[Any]], int]:
    """The columns at the beginning of a row, and where they end."""
    columns: dict[str, NDArray[Any]] = {}
    begin = 0
    for part in parts:
        if begin + part.bytes > len(content):
            raise ValueError(f"expected a row of at least {begin + part.bytes} bytes, found {len(content)}")
        count = int(np.prod(part.shape))
        columns[part.name] = np.frombuffer(content, part.dtype, count, begin).reshape(part.shape)
        begin += part.bytes
    return columns, begin


def _without(columns: Mapping[str, NDArray[Any]], group: Iterable[Column]) -> dict[str, NDArray[Any]]:
    """The columns that are not of the group."""
    names = {column.name for column in group}
    return {name: values for name, values in columns.items() if name not in names}


def _so_far(record: NDArray[Any], size: int) -> Integers:
    """The steps of a calibration that is under way; 0 after its end."""
    count: Integers = record["calibrated"]
    return np.where(count < size, count, 0)


def _has_a_trail(columns: Mapping[str, NDArray[Any]]) -> bool:
    """Whether the length of the trail is possible, if the row has one."""
    return "trail" not in columns or 0 <= int(columns["trail_length"]) <= len(columns["trail"])


def _as_column(former: NDArray[Any], column: Column) -> NDArray[Any]:
    """The values in the column's type; a field that they lack has its start value."""
    if former.dtype == column.dtype:
        return former
    converted = np.zeros(column.shape, column.dtype)
    if column.start is not None:
        converted[...] = column.start
    if column.dtype.names is None or former.dtype.names is None:
        _assign(converted, former, column.name)
        return converted
    for field in column.dtype.names:
        if field in former.dtype.names:
            _assign(converted[field], former[field], f"{column.name}.{field}")
    return converted


def _assign(converted: NDArray[Any], former: NDArray[Any], name: str) -> None:
    if converted.shape != former.shape or not np.can_cast(former.dtype, converted.dtype, "safe"):
        expected, found = (f"{array.dtype.str} {array.shape}" for array in (converted, former))
        raise ValueError(f"expected {name} as {expected}, found {found}")
    converted[...] = former


def _suffix(sizes: Sequence[int]) -> str:
    return f"[{','.join(map(str, sizes))}]" if sizes else ""


def _sizes(text: str | None) -> tuple[int, ...]:
    return tuple(map(int, text.split(","))) if text else ()
