"""Files are written whole, and reach the disk before the call returns."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from edge_lstm.foundation.errors import EdgeLstmError
from edge_lstm.foundation.files import write_file


class Fsyncs:
    """Calls os.fsync, and notes for each call: folder or file, its inode, and the content at `path` at that time."""

    def __init__(self, path: Path) -> None:
        self.calls: list[tuple[str, int, bytes | None]] = []
        self._path = path
        self._fsync = os.fsync

    def __call__(self, descriptor: int) -> None:
        facts = os.fstat(descriptor)
        kind = "folder" if stat.S_ISDIR(facts.st_mode) else "file"
        self.calls.append((kind, facts.st_ino, self._path.read_bytes() if self._path.exists() else None))
        self._fsync(descriptor)


@pytest.mark.parametrize("before", [None, b"old"])
def test_a_file_is_synced_before_its_rename_and_its_folder_after_it(
    before: bytes | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "bundle.elstm"
    if before is not None:
        path.write_bytes(before)
    fsyncs = Fsyncs(path)
    monkeypatch.setattr(os, "fsync", fsyncs)
    write_file(path, b"new")
    assert fsyncs.calls == [
        ("file", path.stat().st_ino, before),
        ("folder", tmp_path.stat().st_ino, b"new"),
    ]
    assert [one.name for one in tmp_path.iterdir()] == ["bundle.elstm"]


def test_a_write_that_fails_leaves_the_old_file_and_nothing_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "bundle.elstm"
    path.write_bytes(b"old")

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(EdgeLstmError, match=r"expected to write .*bundle.elstm, found: No space left on device"):
        write_file(path, b"new")
    assert [(one.name, one.read_bytes()) for one in tmp_path.iterdir()] == [("bundle.elstm", b"old")]
