"""The command `export` as a user sees it in a terminal."""

from __future__ import annotations

import importlib.util
import pickle
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner, Result

from edge_lstm.backends.registry import installed
from edge_lstm.bundle.archive import Bundle
from edge_lstm.cli.main import main
from edge_lstm_train.model.checkpoint import Checkpoint, save_checkpoint


@pytest.fixture
def run_dir(make_checkpoint: Callable[..., Checkpoint], tmp_path: Path) -> Path:
    folder = tmp_path / "run"
    folder.mkdir()
    save_checkpoint(folder, make_checkpoint(hidden=4))
    return folder


def export(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, ["export", "--no-certificate", *map(str, arguments)])


def test_export_writes_a_bundle_and_prints_the_parity_table(
    run_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = export(run_dir, "--scheme", "int8,float32")
    assert result.exit_code == 0, result.output
    bundle = Bundle.open(tmp_path / "tank.elstm")
    assert bundle.schemes == ["int8", "float32"]
    title, _, *rows = result.stdout.splitlines()
    assert title.startswith(f"tank.elstm  id {bundle.id}  ")
    assert len(rows) == 2 * len(installed())
    assert all(any(name in row for row in rows) for name in installed())
    assert "testing each on its backends" in result.stderr


def test_a_format_without_a_backend_is_named_once_with_what_to_install(
    run_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edge_lstm_export.assemble.runnable", lambda bundle: [("numpy", "float32"), ("numpy", "int8")])
    result = export(run_dir, "-o", tmp_path / "x.elstm", "--format", "onnx,numpy")
    assert result.exit_code == 0, result.output
    assert result.stderr.splitlines()[-2:] == [
        "note: no backend for onnx is installed here; not tested: model.float32.onnx, model.int8.onnx",
        "hint: pip install 'edge-lstm[onnx]', or test the bundle on the device with edge-lstm verify",
    ]


def test_schemes_and_formats_can_be_left_out(run_dir: Path, tmp_path: Path) -> None:
    result = export(run_dir, "-o", tmp_path / "x.elstm", "--scheme", "int8", "--format", "numpy,onnx,numpy")
    assert result.exit_code == 0, result.output
    variants = Bundle.open(tmp_path / "x.elstm").manifest.variants
    assert [variant.file for variant in variants] == ["weights.int8.npz", "model.int8.onnx"]


@pytest.mark.parametrize(("scheme", "backend"), [("int8-static", "litert"), ("int4", "tflite-runtime")])
def test_verify_gives_the_reason_why_a_backend_cannot_run_a_scheme(
    run_dir: Path, tmp_path: Path, scheme: str, backend: str
) -> None:
    if backend not in installed():
        pytest.skip(f"{backend} is not installed")
    assert export(run_dir, "-o", tmp_path / "x.elstm", "--scheme", f"{scheme},float32").exit_code == 0
    arguments = ["verify", str(tmp_path / "x.elstm"), "--backend", backend, "--scheme", scheme]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 1
    assert f"expected a backend for {scheme}, found {backend}: it" in result.stderr


@pytest.mark.parametrize(
    ("option", "known"),
    [("--scheme", "float32, float16, int8, int8-dynamic, int8-static, int4"), ("--format", "onnx, tflite, numpy")],
)
def test_an_unknown_name_is_a_usage_error_and_lists_the_known_ones(run_dir: Path, option: str, known: str) -> None:
    result = export(run_dir, option, "float32x")
    assert result.exit_code == 2
    assert f"expected names of {known}, found 'float32x'" in result.stderr


def test_a_folder_without_a_run_is_refused(tmp_path: Path) -> None:
    result = export(tmp_path)
    assert result.exit_code == 1
    assert f"expected a run with checkpoint.pt at {tmp_path}" in result.stderr


@pytest.mark.parametrize(
    ("change", "found"),
    [
        (lambda content: content.update(format_version=99), "expected format version"),
        (
            lambda content: content["weights"]["rnn.weight_hh_l0"].fill_(float("nan")),
            "NaN or infinity in rnn.weight_hh",
        ),
        (lambda content: content["weights"]["scale"].fill_(0), "expected scales above 0, found 0"),
        (lambda content: content["weights"].pop("head.bias"), "Missing key"),
        (lambda content: content.pop("tape"), "'tape'"),
        (lambda content: content.update(tape=[1, 2]), "no attribute 'numpy'"),
        (lambda content: content.update(weights=[1]), "list indices"),
        (lambda content: content.update(contract="{"), "Expecting property name"),
        (lambda content: content.update(provenance=[1]), "cannot convert"),
        (lambda content: [one.zero_() for name, one in content["weights"].items() if "rnn" in name], "to change along"),
    ],
)
def test_a_foreign_checkpoint_is_refused_on_one_line(
    run_dir: Path, tmp_path: Path, change: Callable[[Any], Any], found: str
) -> None:
    content = torch.load(run_dir / "checkpoint.pt", weights_only=True)
    change(content)
    torch.save(content, run_dir / "checkpoint.pt")
    result = export(run_dir, "-o", tmp_path / "x.elstm")
    assert result.exit_code == 1, result.output
    error, hint = [line for line in result.stderr.splitlines() if not line.startswith("writing ")]
    assert error.startswith("error: ")
    assert found in error
    assert hint.startswith("hint: train again")
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


@pytest.mark.parametrize("content", [b"", b"junk", b"\x80\x02q", b"\x80\x02]q\x00(e", b"\x80\x02K\x01K\x02s.", b"]."])
def test_a_damaged_checkpoint_is_refused_on_one_line(run_dir: Path, tmp_path: Path, content: bytes) -> None:
    (run_dir / "checkpoint.pt").write_bytes(content)
    result = export(run_dir, "-o", tmp_path / "x.elstm")
    assert result.exit_code == 1, result.output
    error, _ = [line for line in result.stderr.splitlines() if not line.startswith("writing ")]
    assert re.match("error: .*checkpoint.pt: expected|error: expected a checkpoint at", error), error


@pytest.mark.parametrize(
    ("command", "needs"), [(["demo"], "iotcore"), (["train", "weather"], "matplotlib"), (["tune", "weather"], "optuna")]
)
def test_an_output_folder_that_is_a_file_is_refused(command: list[str], needs: str, tmp_path: Path) -> None:
    pytest.importorskip(needs)
    (tmp_path / "file").write_text("")
    result = CliRunner().invoke(main, [*command, "-o", str(tmp_path / "file")])
    assert result.exit_code == 1, result.output
    assert "error: expected to make a folder at" in result.stderr


def test_pickled_code_is_not_run(run_dir: Path, tmp_path: Path) -> None:
    class Harm:
        def __reduce__(self) -> tuple[Any, ...]:
            return Path.touch, (tmp_path / "owned",)

    (run_dir / "checkpoint.pt").write_bytes(pickle.dumps(Harm()))
    result = export(run_dir, "-o", tmp_path / "x.elstm")
    assert result.exit_code == 1
    assert "found another kind of file" in result.stderr
    assert "weights_only" not in result.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


@pytest.mark.parametrize(("package", "extras"), [("torch", "train,export"), ("onnx", "export"), ("tflite", "export")])
def test_a_missing_package_is_named_with_the_command_that_installs_it(
    run_dir: Path, monkeypatch: pytest.MonkeyPatch, package: str, extras: str
) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == package else find(name))
    result = export(run_dir)
    assert result.exit_code == 1
    assert result.stderr == f"error: {package} is not installed here\nhint: run pip install 'edge-lstm[{extras}]'\n"


def test_export_help_works_without_the_export_packages() -> None:
    program = (
        "import sys\n"
        "for name in ('torch', 'onnx', 'tflite', 'flatbuffers'): sys.modules[name] = None\n"
        "from edge_lstm.cli.main import main\n"
        "main(['export', '--help'])\n"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert "RUN_DIR" in result.stdout
