"""Hostile bundles: refused on one line and quickly, with nothing written or run."""

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

from edge_lstm.bundle.archive import CERTIFICATE, GOLDEN, Bundle
from edge_lstm.bundle.certificate import Certificate, read_certificate
from edge_lstm.bundle.contract import Feature, KnownAhead, Sampling
from edge_lstm.bundle.data_sheet import sheet_rows
from edge_lstm.bundle.npz import NPZ_ERRORS, read_npz
from edge_lstm.cli.main import main
from edge_lstm.foundation.errors import EdgeLstmError
from tests.executed_lines import executed_lines
from tests.networks import contract_of, forecast_contract, linear_network, random_network

_BOMB = 32 * 2**20
WEIGHTS = "weights.float32.npz"


@pytest.fixture
def valid_bundle_entries(bundle_path: Path) -> dict[str, bytes]:
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
def test_an_entry_outside_the_archive_is_refused(
    valid_bundle_entries: dict[str, bytes], tmp_path: Path, name: str
) -> None:
    assert "expected a whole bundle" in refused(with_entry(valid_bundle_entries, name, b"x"), tmp_path)


def test_a_link_among_the_entries_is_refused(valid_bundle_entries: dict[str, bytes], tmp_path: Path) -> None:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, data in valid_bundle_entries.items():
            entry = zipfile.ZipInfo(name)
            if name == "README.md" or name == GOLDEN:
                entry.external_attr = (stat.S_IFLNK | 0o777) << 16
            archive.writestr(entry, data)
    assert "an entry that no bundle has: 'golden.npz'" in refused(file.getvalue(), tmp_path)


def test_two_entries_of_one_name_are_refused(valid_bundle_entries: dict[str, bytes], tmp_path: Path) -> None:
    file = io.BytesIO(zipped(valid_bundle_entries))
    with warnings.catch_warnings(), zipfile.ZipFile(file, "a") as archive:
        warnings.simplefilter("ignore")  # zipfile's own warning
        archive.writestr("manifest.json", b"{}")
    assert "4 entries of 3 names" in refused(file.getvalue(), tmp_path)


def test_very_many_entries_are_refused(valid_bundle_entries: dict[str, bytes], tmp_path: Path) -> None:
    many = {**valid_bundle_entries, **{f"file{index}": b"" for index in range(5000)}}
    assert "5003 entries, more than 64" in refused(zipped(many), tmp_path)


def test_a_compressed_bundle_is_refused_before_it_is_inflated(
    valid_bundle_entries: dict[str, bytes], tmp_path: Path
) -> None:
    bomb = zipped({**valid_bundle_entries, "bomb": bytes(_BOMB)}, zipfile.ZIP_DEFLATED)
    assert "that is compressed" in refused(bomb, tmp_path, _BOMB // 2)


@pytest.mark.parametrize("field", ["file_size", "both"])
def test_false_sizes_are_refused(valid_bundle_entries: dict[str, bytes], tmp_path: Path, field: str) -> None:
    data = bytearray(zipped(valid_bundle_entries))
    at = data.index(b"PK\x01\x02")  # the first entry of the central directory: sizes at 20 and 24
    for offset in (20, 24) if field == "both" else (24,):
        data[at + offset : at + offset + 4] = (2**31).to_bytes(4, "little")
    assert "expected a whole bundle" in refused(bytes(data), tmp_path)


def test_overlapping_entries_are_refused(valid_bundle_entries: dict[str, bytes], tmp_path: Path) -> None:
    """Sixty entries that all point at the same bytes would be sixty times as large in memory as on the disk."""
    data = zipped({**valid_bundle_entries, "big": bytes(2**20)})
    end = data.rindex(b"PK\x05\x06")
    begin = int.from_bytes(data[end + 16 : end + 20], "little")
    directory = data[begin:end]
    big = directory[directory.rindex(b"PK\x01\x02") :]
    more = b"".join(big.replace(b"big", f"b{index:02d}".encode()) for index in range(50))
    tail = bytearray(data[end:])
    count = len(valid_bundle_entries) + 51
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
        (["variants"], []),
        (["contract", "features", 0, "mean"], 10**400),
        (["contract", "features", 0, "mean"], 1e39),
        (["contract", "features", 0, "scale"], 1e39),
        (["contract", "states", 0, "start"], [1e39] + [0.0] * 7),
        (["contract", "states", 0, "shape"], [1] * 70 + [8]),
        (["contract", "horizons", 0], 10**30),
        (["contract", "name"], "\ud800"),
        (["contract", "name"], "a\nsigned    by the key"),
        (["contract", "units"], {"\x1b[2J": "m"}),
        (["contract", "features", 0, "unit"], "\u202em"),
        (["provenance", "recipe"], "\x1b]0;t\x07"),
        (["architecture", "parameters"], 10**4000),
    ],
)
def test_a_manifest_with_wrong_types_is_refused(
    valid_bundle_entries: dict[str, bytes], tmp_path: Path, place: list[Any], value: Any
) -> None:
    def change(facts: Any) -> None:
        for step in place[:-1]:
            facts = facts[step]
        facts[place[-1]] = value

    refused(with_manifest(valid_bundle_entries, change), tmp_path)


def test_duplicate_variants_are_refused(valid_bundle_entries: dict[str, bytes], tmp_path: Path) -> None:
    data = with_manifest(valid_bundle_entries, lambda facts: facts["variants"].append(facts["variants"][0]))
    assert "expected one of each format and scheme" in refused(data, tmp_path)


def test_only_what_is_newer_needs_the_newer_format(tmp_path: Path, make_bundle: Callable[..., Bundle]) -> None:
    plain = make_bundle(tmp_path / "plain.elstm")
    assert json.loads(plain.manifest_bytes)["format_version"] == 1
    assert not {"period", "counter", "modulus"} & set(json.loads(plain.manifest_bytes)["contract"]["features"][0])
    features = [Feature("level", period=360.0), Feature("energy", counter=True, modulus=1e5)]
    contract = contract_of(random_network(), features=features, targets=["energy"], clock=[])
    newer = make_bundle(tmp_path / "newer.elstm", random_network(inputs=3), contract)
    assert json.loads(newer.manifest_bytes)["format_version"] == 2
    assert Bundle.open(tmp_path / "newer.elstm").contract == contract
    entries = {"manifest.json": newer.manifest_bytes, **newer.content}
    data = with_manifest(entries, lambda facts: facts.update(format_version=1))
    assert "expected 2 for what the contract has, found 1" in refused(data, tmp_path)
    linear = make_bundle(tmp_path / "linear.elstm", linear_network())
    assert json.loads(linear.manifest_bytes)["format_version"] == 2
    assert "known_ahead" not in json.loads(newer.manifest_bytes)["contract"]
    network, contract = forecast_contract(KnownAhead("outdoor", "weather/{stream}", [1, 6]))
    ahead = make_bundle(tmp_path / "ahead.elstm", network, contract)
    assert json.loads(ahead.manifest_bytes)["format_version"] == 2
    assert Bundle.open(tmp_path / "ahead.elstm").contract == contract
    assert ("forecasts", "outdoor 1, 6 steps ahead, from weather/{stream}") in sheet_rows(ahead)


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"sampling": Sampling()}, "sampling.interval_s: missing"),
        ({"targets": ["outdoor+1"]}, 'expected no target among its features, found "outdoor+1"'),
        ({"features": [Feature("level")]}, 'expected a feature "outdoor+1", found none'),
    ],
)
def test_a_contract_with_faulty_known_values_is_refused(changes: dict[str, Any], fault: str) -> None:
    _, contract = forecast_contract(KnownAhead("outdoor", "weather", [1]), **changes)
    assert fault in ", ".join(f"{where}: {text}" for where, text in contract.faults())


@pytest.mark.parametrize("key", ["\x1b[2J", "a\nb", "\ud800", "x" * 100_000, "[" * 3000])
def test_manifest_text_in_errors_has_no_control_characters(
    valid_bundle_entries: dict[str, bytes], tmp_path: Path, key: str
) -> None:
    for change in (
        lambda facts: facts.update({key: 1}),
        lambda facts: facts.update(format_version=key),
        lambda facts: facts["files"].update({key: "0"}),
        lambda facts: facts["contract"].update(task=key),
        lambda facts: facts["variants"][0].update(file=key),
    ):
        told = refused(with_manifest(valid_bundle_entries, change), tmp_path)
        assert told.isprintable()


def test_the_first_faults_are_listed_and_the_rest_counted(valid_bundle_entries: dict[str, bytes]) -> None:
    data = with_manifest(
        valid_bundle_entries, lambda facts: facts.update({f"contrac{index}": 1 for index in range(20_000)})
    )
    told: list[str] = []

    def refuse() -> None:
        with pytest.raises(EdgeLstmError) as caught:
            Bundle.from_bytes(data, "strange")
        told.extend(caught.value.message.splitlines())

    work = executed_lines(refuse)
    assert told[0] == "strange:manifest.json: 20000 faults:"
    assert len(told) == 22
    assert told[-1] == "  and 19980 more"
    assert work < 100 * 20_000  # lines; to look for what each key may have been meant to be takes thousands for a key


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("manifest.json", b'{"format_version": 1, "x": [' + b"[]," * 5_000_000 + b"[]]}"),
        ("certificate.json", b"[" + b"[]," * 5_000_000 + b"[]]"),
        ("manifest.sig", b"[" + b"[]," * 5_000_000 + b"[]]"),
    ],
)
def test_json_that_would_grow_thirtyfold_is_refused_unread(
    valid_bundle_entries: dict[str, bytes], tmp_path: Path, name: str, data: bytes
) -> None:
    assert f"'{name}' of {len(data)} bytes" in refused(
        zipped({**valid_bundle_entries, name: data}), tmp_path, 4 * len(data)
    )


def test_an_endless_file_is_not_read_to_its_end() -> None:
    with pytest.raises(EdgeLstmError, match="expected a whole bundle, found more than 67108864 bytes"):
        Bundle.open("/dev/zero")


@pytest.mark.parametrize(
    ("change", "found"),
    [
        ({"segments": []}, "segments: expected at least one"),
        ({"metric": "rmse\x1b[2J"}, "segments: expected texts without control characters"),
        ({"variants": [{"drift": {}}]}, r"variants\[0\]\.drift: expected a number for each segment"),
        ({"variants": [{"scheme": "a\nb"}]}, r"variants\[0\]: expected names without control characters"),
        ({"steps": 10**400, "metric_before": 10**400}, "metric_before: expected a finite number"),
    ],
)
def test_a_malformed_certificate_is_refused(
    valid_bundle_entries: dict[str, bytes], change: dict[str, Any], found: str
) -> None:
    variant = dict.fromkeys(("error", "first_tenth", "last_tenth", "metric_after", "metric_loss", "flipped"), 0.0) | {
        "backend": "onnx",
        "scheme": "int8",
        "bytes": 7,
        "drift": {"recording": 0.1},
        "smallest_batch": 1,
    }
    facts = {
        "steps": 10,
        "segments": ["recording"],
        "metric": "rmse",
        "metric_before": 1.0,
        "warm_up_steps": 3,
        "saturation": {},
        "variants": [variant],
    }

    def read(facts: dict[str, Any]) -> Certificate | None:
        return read_certificate(
            Bundle.from_bytes(with_entry(valid_bundle_entries, CERTIFICATE, json.dumps(facts).encode()), "strange")
        )

    certificate = read(facts)
    assert certificate is not None
    assert "worst drift 0.1000 (onnx int8, recording)" in certificate.summary
    changed = {**facts, **change}
    if "variants" in change:
        changed["variants"] = [{**variant, **change["variants"][0]}]
    with pytest.raises(EdgeLstmError, match=found):
        read(changed)


def test_a_certificate_without_backends_is_shown_as_such() -> None:
    assert Certificate(10, ["recording"], "rmse", 1.0, 3, {}, []).summary.startswith("nothing: no backend")


@pytest.mark.parametrize("content", [b"[" * 100_000, b"\xff", b"null", b"[]", b"7" * 5000, b""])
def test_a_manifest_that_is_not_an_object_is_refused(
    valid_bundle_entries: dict[str, bytes], tmp_path: Path, content: bytes
) -> None:
    refused(zipped({**valid_bundle_entries, "manifest.json": content}), tmp_path)


def npy(shape: str, kind: str, data: bytes) -> bytes:
    head = f"{{'descr': '{kind}', 'fortran_order': False, 'shape': {shape}, }}".encode().ljust(117) + b"\n"
    return b"\x93NUMPY\x01\x00" + len(head).to_bytes(2, "little") + head + data


HOSTILE_ARRAYS = {
    "another name": zipped({"features.npy": npy("(1,)", "<f4", b"1234")}).replace(b"features.npy", b"\x1b" * 12, 1),
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
def test_arrays_with_false_headers_are_refused(
    valid_bundle_entries: dict[str, bytes], tmp_path: Path, entry: str, kind: str
) -> None:
    content = HOSTILE_ARRAYS[kind]
    with pytest.raises(NPZ_ERRORS):
        read_npz(content)
    refused(with_entry(valid_bundle_entries, entry, content), tmp_path, _BOMB // 2)


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
def test_golden_vectors_of_wrong_shape_are_refused(
    valid_bundle_entries: dict[str, bytes], tmp_path: Path, name: str, array: np.ndarray
) -> None:
    file = io.BytesIO()
    np.savez(file, **{**read_npz(valid_bundle_entries[GOLDEN]), name: array})
    assert "expected golden" in refused(with_entry(valid_bundle_entries, GOLDEN, file.getvalue()), tmp_path)


def test_arrays_survive_a_round_trip() -> None:
    arrays = {"a": np.arange(6, dtype=np.int64).reshape(2, 3), "b": np.array("lstm"), "c": np.asfortranarray(np.eye(3))}
    file = io.BytesIO()
    np.savez(file, **arrays)
    found = read_npz(file.getvalue())
    assert list(found) == list(arrays)
    for name, array in arrays.items():
        assert np.array_equal(found[name], array)
        assert found[name].dtype == array.dtype


def test_a_valid_bundle_is_read(bundle_path: Path) -> None:
    bundle = Bundle.open(bundle_path)
    assert dataclasses.asdict(bundle.manifest)["format_version"] == 1
    assert CliRunner().invoke(main, ["verify", str(bundle_path)]).exit_code == 0
