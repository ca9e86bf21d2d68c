"""Which wheels a board accepts, the wheel of this installation, and wheelhouses for other Pythons and processors."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from edge_lstm.deploy.own_wheel import own_wheel
from edge_lstm.deploy.wheel_target import Target, constraints
from edge_lstm.deploy.wheelhouse import collect
from edge_lstm.foundation.errors import EdgeLstmError

BOOKWORM = Target("3.11.2", "aarch64", "2.36")
_OF_PLAN = 200e6  # bytes of an install


@pytest.mark.parametrize(
    ("wheel", "taken"),
    [
        ("numpy-2.4.6-cp311-cp311-manylinux_2_27_aarch64.manylinux_2_28_aarch64.whl", True),
        ("numpy-2.4.6-cp313-cp313-manylinux_2_27_aarch64.manylinux_2_28_aarch64.whl", False),
        ("numpy-2.4.6-cp311-cp311-manylinux_2_27_x86_64.whl", False),
        ("tflite_runtime-2.14.0-cp311-cp311-manylinux_2_34_armv7l.whl", False),
        ("protobuf-7.36.2-cp310-abi3-manylinux2014_aarch64.whl", True),
        ("later-1.0-cp312-abi3-manylinux2014_aarch64.whl", False),
        ("newer-1.0-cp311-cp311-manylinux_2_39_aarch64.whl", False),
        ("flatbuffers-25.12.19-py2.py3-none-any.whl", True),
    ],
)
def test_a_board_takes_wheels_of_its_python_processor_and_glibc(wheel: str, taken: bool) -> None:
    assert BOOKWORM.takes(wheel) is taken


def test_numpy_is_left_out_on_32_bits_and_for_tflite_runtime() -> None:
    assert Target("3.11", "armv7l", "2.36").from_distribution == {"numpy"}
    assert BOOKWORM.from_distribution == frozenset()
    assert "\nnumpy==" in constraints(["tflite"])
    assert "\nnumpy==" not in constraints(["tflite-runtime"])
    assert "\ntflite-runtime==2.14.0\n" in constraints(["tflite-runtime"])


def test_our_own_wheel_is_complete_pure_and_reproducible(tmp_path: Path) -> None:
    name, content = own_wheel()
    assert name.endswith("-py3-none-any.whl")
    assert own_wheel() == (name, content)
    path = tmp_path / name
    path.write_bytes(content)
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--target"]
    subprocess.run([*install, str(tmp_path / "here"), "--disable-pip-version-check", str(path)], check=True)
    with zipfile.ZipFile(path) as archive:
        held = set(archive.namelist())
    assert {"edge_lstm/deploy/board_agent.py", "edge_lstm_device_configs/constraints.txt"} <= held
    program = (
        "import edge_lstm; from edge_lstm.hardware.boards import board_names; "
        "print(edge_lstm.__file__, len(board_names()))"
    )
    said = subprocess.run(
        [sys.executable, "-I", "-c", f"import sys; sys.path.insert(0, {str(tmp_path / 'here')!r}); {program}"],
        capture_output=True,
        text=True,
        check=True,
    )
    file, count = said.stdout.split()
    assert Path(file).is_relative_to(tmp_path / "here")
    assert int(count) >= 12


def collected(folder: Path, target: Target, extras: list[str]) -> dict[str, Path]:
    """Wheels by package; skips where there is no index."""
    try:
        wheels = collect(folder, "a board", [target], extras)
    except EdgeLstmError as error:
        if "No matching distribution" in error.message or "versions: none" in error.message:
            pytest.skip(f"no index to collect wheels from: {error.message}")
        raise
    return {path.name.split("-")[0]: path for path in wheels}


@pytest.mark.parametrize("python", ["3.11", "3.13"])
def test_litert_for_a_64_bit_board_brings_no_torch_and_stays_under_200_mb(tmp_path: Path, python: str) -> None:
    wheels = collected(tmp_path / "wheels", Target(python, "aarch64", "2.28"), ["tflite"])
    assert {"edge_lstm", "ai_edge_litert", "numpy", "paho_mqtt", "click"} <= wheels.keys()
    assert not wheels.keys() & {"torch", "onnx", "tensorflow", "tflite", "flatbuffers_compiler"}
    unpacked = 0
    for path in wheels.values():
        with zipfile.ZipFile(path) as archive:
            unpacked += sum(entry.file_size for entry in archive.infolist())
    assert unpacked < _OF_PLAN


def test_a_wheelhouse_holds_what_only_the_boards_python_needs(tmp_path: Path) -> None:
    """pip asks such conditions about the Python that it runs on: tomli is for 3.10 alone."""
    wheels = collected(tmp_path / "wheels", Target("3.10", "aarch64", "2.35"), [])
    assert wheels.keys() == {"edge_lstm", "click", "numpy", "paho_mqtt", "tomli"}
    assert "-cp310-" in wheels["numpy"].name


def test_a_32_bit_board_gets_tflite_runtime_and_no_numpy(tmp_path: Path) -> None:
    wheels = collected(tmp_path / "wheels", Target("3.11", "armv7l", "2.36"), ["tflite-runtime"])
    assert wheels.keys() == {"edge_lstm", "click", "paho_mqtt", "tflite_runtime"}
    assert wheels["tflite_runtime"].name.endswith("-cp311-cp311-manylinux_2_34_armv7l.whl")


def test_a_wheelhouse_is_not_written_into_a_folder_of_other_files(tmp_path: Path) -> None:
    (tmp_path / "letter.txt").write_text("dear")
    with pytest.raises(EdgeLstmError, match=r"expected a wheelhouse or an empty folder at .*, found other files"):
        collect(tmp_path, "a board", [BOOKWORM], [])
    assert [path.name for path in tmp_path.iterdir()] == ["letter.txt"]


def test_an_unknown_extra_is_refused_before_any_download(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "edge_lstm", "device", "wheelhouse", "raspberry-pi-4", "-o", str(tmp_path / "w")]
    done = subprocess.run([*command, "--extra", "sining"], capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.startswith('error: expected an extra of edge-lstm, found "sining"; did you mean "signing"?\n')
    assert not (tmp_path / "w").exists()
