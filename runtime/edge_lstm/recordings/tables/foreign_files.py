"""Refuses files that are no tables of text, by their first bytes, with what to do instead."""

from __future__ import annotations

from pathlib import Path

from edge_lstm.foundation.errors import EdgeLstmError

_SAVE_AS = "open it in the program that wrote it, and save or export it as CSV"
_UNPACK = "unpack it first"
_SHEET = "save the sheet as CSV (in Excel: Save As)"
_ROWS = "write its objects as rows of CSV, one column a key"
_KINDS: tuple[tuple[bytes, str, str], ...] = (
    (b"PK\x03\x04", "an Excel workbook or a zip archive", f"{_SHEET}, or unpack the archive"),
    (b"\xd0\xcf\x11\xe0", "an old Excel workbook", _SHEET),
    (b"\x1f\x8b", "a file packed by gzip", "name it .csv.gz, or unpack it"),
    (b"BZh", "a file packed by bzip2", _UNPACK),
    (b"\xfd7zXZ", "a file packed by xz", _UNPACK),
    (b"\x28\xb5\x2f\xfd", "a file packed by zstd", _UNPACK),
    (b"7z\xbc\xaf", "a 7-Zip archive", _UNPACK),
    (b"PAR1", "a Parquet file", "name it .parquet"),
    (b"\x89HDF", "an HDF5 file", _SAVE_AS),
    (b"RIFF", "a WAV or AVI file", "only replay takes WAV; for others, write its samples as CSV, one column a feature"),
    (b"MATLAB", "a MATLAB file", _SAVE_AS),
    (b"TDSm", "a TDMS file of LabVIEW", _SAVE_AS),
    (b"MDF ", "a measurement file (MDF)", _SAVE_AS),
    (b"%PDF", "a PDF", _SAVE_AS),
    (b"<", "HTML or XML", "open it in a browser to see what it is: a download may have brought a login page"),
    (b"{", "JSON", _ROWS),
)  # fmt: skip


def refuse_other_kinds(path: Path) -> None:
    """Raises EdgeLstmError if the file begins as one of another kind does."""
    if path.suffix == ".gz":
        return
    try:
        with path.open("rb") as file:
            begin = file.read(64)
    except OSError:
        return  # reported where the file is read
    begin = begin.removeprefix(b"\xef\xbb\xbf").lstrip()
    if begin.startswith(b"[") and begin[1:].lstrip().startswith((b"{", b"[")):
        begin = b"{"  # a list of objects
    for first, kind, hint in _KINDS:
        if begin.startswith(first):
            raise EdgeLstmError(f"expected a CSV file at {path}, found {kind}", hint)
