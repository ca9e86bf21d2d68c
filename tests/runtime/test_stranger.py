"""A bundle from a stranger: whatever it holds, it is refused on one line, soon, and nothing is written or run."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import stat
import tracemalloc
import warnings
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from edge_lstm.arrays import NO_ARRAYS, arrays_of
from edge_lstm.bundle import GOLDEN, Bundle
from edge_lstm.cli import main

_BOMB = 32 * 2**20
WEIGHTS = "weights.float32.npz"


@pytest.fixture
def honest(bundle_path: Path) -> dict[str, bytes]:
    """The entries of a good bundle, by name."""
    with zipfile.ZipFile(bundle_path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def zipped(entries: Mapping[str, bytes], compression: int = zipfile.ZIP_STORED) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compression) as archive:
        for name, data in entries.items():
            archive.writestr(zipfile.ZipInfo(name), data, compression)
    return file.getvalue()


def with_manifest(entries: Mapping[str, bytes], change: Callable[[Any], None]) -> bytes:
    facts = json.loads(entries["manifest.json"])
    change(facts)
    return zipped({**entries, "manifest.json": json.dumps(facts).encode()})


def with_entry(entries: Mapping[str, bytes], name: str, data: bytes) -> bytes:
    """A bundle whose manifest vouches for that entry."""

    def vouch(facts: Any) -> None:
        facts["files"][name] = hashlib.sha256(data).hexdigest()

    return with_manifest({**entries, name: data}, vouch)


def refused(data: bytes, folder: Path, most_memory: int | None = None) -> str:
    """What verify says, after it was seen to say one line and a hint, to write nothing, and to need little memory."""
    path = folder / "strange.elstm"
    path.write_bytes(data)
    before = {file: file.stat().st_mtime_ns for file in folder.rglob("*")}
    if most_memory is not None:
        tracemalloc.start()
    result = CliRunner().invoke(main, ["verify", str(path)])
    peak = tracemalloc.get_traced_memory()[1] if most_memory is not None else 0
    tracemalloc.stop()
    assert result.exit_code == 1, result.output
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    first, hint = result.stderr.splitlines()
    assert first.startswith("error: ")
    assert hint.startswith("hint: ")
    assert len(first) < 600
    assert most_memory is None or peak <= most_memory
    assert {file: file.stat().st_mtime_ns for file in folder.rglob("*")} == before
    return first


@pytest.mark.parametrize(
    "name", ["../out.txt", "/etc/out.txt", "..", "a/b", "a\\b", ".hidden", "C:out", "", "new\nline", "x" * 200]
)
def test_an_entry_that_points_elsewhere_is_refused(honest: dict[str, bytes], tmp_path: Path, name: str) -> None:
    assert "expected a whole bundle" in refused(with_entry(honest, name, b"x"), tmp_path)


def test_a_link_among_the_entries_is_refused(honest: dict[str, bytes], tmp_path: Path) -> None:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, data in honest.items():
            entry = zipfile.ZipInfo(name)
            if name == "README.md" or name == GOLDEN:
                entry.external_attr = (stat.S_IFLNK | 0o777) << 16
            archive.writestr(entry, data)
    assert "an entry that no bundle has: 'golden.npz'" in refused(file.getvalue(), tmp_path)


def test_two_entries_of_one_name_are_refused(honest: dict[str, bytes], tmp_path: Path) -> None:
    file = io.BytesIO(zipped(honest))
    with warnings.catch_warnings(), zipfile.ZipFile(file, "a") as archive:
        warnings.simplefilter("ignore")  # zipfile's own warning
        archive.writestr("manifest.json", b"{}")
    assert "4 entries of 3 names" in refused(file.getvalue(), tmp_path)


def test_very_many_entries_are_refused(honest: dict[str, bytes], tmp_path: Path) -> None:
    many = {**honest, **{f"file{index}": b"" for index in range(5000)}}
    assert "5003 entries of 5003 names" in refused(zipped(many), tmp_path)


def test_a_compressed_bundle_is_refused_before_it_is_inflated(honest: dict[str, bytes], tmp_path: Path) -> None:
    bomb = zipped({**honest, "bomb": bytes(_BOMB)}, zipfile.ZIP_DEFLATED)
    assert "that is compressed" in refused(bomb, tmp_path, _BOMB // 2)


@pytest.mark.parametrize("field", ["file_size", "both"])
def test_sizes_that_lie_are_refused(honest: dict[str, bytes], tmp_path: Path, field: str) -> None:
    data = bytearray(zipped(honest))
    at = data.index(b"PK\x01\x02")  # the first entry of the central directory: sizes at 20 and 24
    for offset in (20, 24) if field == "both" else (24,):
        data[at + offset : at + offset + 4] = (2**31).to_bytes(4, "little")
    assert "expected a whole bundle" in refused(bytes(data), tmp_path)


def test_entries_that_share_their_bytes_are_refused(honest: dict[str, bytes], tmp_path: Path) -> None:
    """Sixty entries that all point at the same bytes would be sixty times as large in memory as on the disk."""
    data = zipped({**honest, "big": bytes(2**20)})
    end = data.rindex(b"PK\x05\x06")
    begin = int.from_bytes(data[end + 16 : end + 20], "little")
    directory = data[begin:end]
    big = directory[directory.rindex(b"PK\x01\x02") :]
    more = b"".join(big.replace(b"big", f"b{index:02d}".encode()) for index in range(50))
    tail = bytearray(data[end:])
    count = len(honest) + 51
    tail[8:12] = count.to_bytes(2, "little") * 2
    tail[12:16] = (len(directory) + len(more)).to_bytes(4, "little")
    assert "entries that claim" in refused(data[:end] + more + bytes(tail), tmp_path, 10 * 2**20)


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (["contract"], []),
        (["contract", "features"], "level"),
        (["contract", "features", 0, "scale"], "1"),
        (["contract", "states", 0, "shape"], [1.5]),
        (["contract", "states", 0, "shape"], [10**12]),
        (["contract", "states", 0, "shape"], [-8]),
        (["contract", "horizons"], [True]),
        (["variants"], {}),
        (["variants", 0, "parity"], None),
        (["variants", 0, "file"], ["weights"]),
        (["variants", 0, "file"], "../weights.npz"),
        (["variants", 0, "scheme"], "int2"),
        (["variants", 0, "states"], [[]]),
        (["architecture", "hidden"], "many"),
        (["files"], ["golden.npz"]),
        (["files", GOLDEN], 7),
        (["format_version"], "1"),
        (["provenance", "recipe"], {"a": 1}),
    ],
)
def test_a_manifest_of_other_types_is_refused(
    honest: dict[str, bytes], tmp_path: Path, place: list[Any], value: Any
) -> None:
    def change(facts: Any) -> None:
        for step in place[:-1]:
            facts = facts[step]
        facts[place[-1]] = value

    refused(with_manifest(honest, change), tmp_path)


@pytest.mark.parametrize("content", [b"[" * 100_000, b"\xff", b"null", b"[]", b"7" * 5000, b""])
def test_a_manifest_that_is_no_table_is_refused(honest: dict[str, bytes], tmp_path: Path, content: bytes) -> None:
    refused(zipped({**honest, "manifest.json": content}), tmp_path)


def npy(shape: str, kind: str, data: bytes) -> bytes:
    head = f"{{'descr': '{kind}', 'fortran_order': False, 'shape': {shape}, }}".encode().ljust(117) + b"\n"
    return b"\x93NUMPY\x01\x00" + len(head).to_bytes(2, "little") + head + data


HOSTILE_ARRAYS = {
    "claims": zipped({"features.npy": npy("(1000000000, 1000)", "<f4", b"1234")}),
    "objects": zipped({"features.npy": npy("(1,)", "|O", b"cposix\nsystem\n(S'true'\ntR.")}),
    "bomb": zipped({"features.npy": npy(f"({_BOMB // 4},)", "<f4", bytes(_BOMB))}, zipfile.ZIP_DEFLATED),
    "negative": zipped({"features.npy": npy("(-1,)", "<f4", b"1234")}),
    "many": zipped({f"a{index}.npy": b"" for index in range(2000)}),
    "no zip": b"PK\x03\x04 and nothing",
    "empty": b"",
}


@pytest.mark.parametrize("entry", [GOLDEN, WEIGHTS])
@pytest.mark.parametrize("kind", list(HOSTILE_ARRAYS))
def test_arrays_that_lie_are_refused(honest: dict[str, bytes], tmp_path: Path, entry: str, kind: str) -> None:
    content = HOSTILE_ARRAYS[kind]
    with pytest.raises(NO_ARRAYS):
        arrays_of(content)
    refused(with_entry(honest, entry, content), tmp_path, _BOMB // 2)


@pytest.mark.parametrize(
    ("name", "array"),
    [
        ("features", np.zeros((200, 9), np.float32)),
        ("features", np.zeros((0, 3), np.float32)),
        ("features", np.array("text")),
        ("marks", np.array([10**9])),
        ("marks", np.array([[1]])),
        ("float32.prediction", np.zeros((200, 2), np.float64)),
        ("float32.state0", np.zeros((3, 9), np.float32)),
    ],
)
def test_golden_vectors_that_do_not_fit_are_refused(
    honest: dict[str, bytes], tmp_path: Path, name: str, array: np.ndarray
) -> None:
    file = io.BytesIO()
    np.savez(file, **{**arrays_of(honest[GOLDEN]), name: array})
    assert "expected golden" in refused(with_entry(honest, GOLDEN, file.getvalue()), tmp_path)


def test_arrays_come_back_as_they_were_saved() -> None:
    arrays = {"a": np.arange(6, dtype=np.int64).reshape(2, 3), "b": np.array("lstm"), "c": np.asfortranarray(np.eye(3))}
    file = io.BytesIO()
    np.savez(file, **arrays)
    found = arrays_of(file.getvalue())
    assert list(found) == list(arrays)
    for name, array in arrays.items():
        assert np.array_equal(found[name], array)
        assert found[name].dtype == array.dtype


def test_an_honest_bundle_is_read(bundle_path: Path) -> None:
    bundle = Bundle.open(bundle_path)
    assert dataclasses.asdict(bundle.manifest)["format_version"] == 1
    assert CliRunner().invoke(main, ["verify", str(bundle_path)]).exit_code == 0
