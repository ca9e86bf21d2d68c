"""The boards: what each TOML file holds, how a board is detected, and what a wrong machine is shown."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from pathlib import Path
from typing import get_args

import pytest

from edge_lstm.backends.kinds import BACKENDS, NAMES
from edge_lstm.foundation.config import from_mapping
from edge_lstm.foundation.errors import EdgeLstmError
from edge_lstm.hardware.boards import BackendName, board_names, board_table, detected, read_board
from edge_lstm.hardware.machine import Machine, memory_mb, prepared_machine, this_machine

PI_4 = Machine("aarch64", "3.11.2", "2.36", 3794, "Raspberry Pi 4 Model B Rev 1.4", ("raspberrypi,4-model-b",))


def device_tree(root: Path, model: str, *compatible: str) -> Path:
    """A root folder whose device tree says so, as the kernel writes it: with a NUL after each text."""
    (root / "proc/device-tree").mkdir(parents=True)
    (root / "proc/device-tree/model").write_bytes(model.encode() + b"\0")
    (root / "proc/device-tree/compatible").write_bytes(b"".join(one.encode() + b"\0" for one in compatible))
    (root / "proc/meminfo").write_text("MemTotal:        3884360 kB\nMemFree:         3118200 kB\n")
    return root


def test_every_board_config_is_valid_and_within_its_hardware() -> None:
    assert set(board_names()) == {
        "generic-arm64",
        "generic-armv7",
        "generic-x86_64",
        "jetson-agx-orin",
        "jetson-nano",
        "jetson-orin-nano",
        "jetson-orin-nx",
        "jetson-xavier-nx",
        "raspberry-pi-3b-plus",
        "raspberry-pi-4",
        "raspberry-pi-5",
        "raspberry-pi-zero-2w",
    }
    for name in board_names():
        board = read_board(name)
        assert board.service.memory_max_mb < board.memory_mb, name
        assert board.budget.rss_mb < board.service.memory_max_mb, name
        assert 60 + 0.003 * board.service.max_streams <= board.service.memory_max_mb, name  # MB; docs/boards.md
        assert board.providers[0] == "CPUExecutionProvider", name
        assert BACKENDS[board.service.backend].extra in board.extras, name
        assert all(image.python == image.runs or image.note for image in board.images), name


def test_a_config_may_name_every_backend_and_no_other() -> None:
    assert get_args(BackendName) == NAMES


def test_every_image_names_a_supported_python() -> None:
    assert [(image.python, image.runs) for image in read_board("jetson-xavier-nx").images] == [("3.8", "3.11")]
    assert [(image.python, image.runs) for image in read_board("jetson-orin-nano").images] == [("3.10", "3.10")]


def test_an_unknown_board_gets_a_suggestion() -> None:
    with pytest.raises(EdgeLstmError, match=r'found "raspberry-pi4"; did you mean "raspberry-pi-4"\?'):
        read_board("raspberry-pi4")
    with pytest.raises(EdgeLstmError, match=r'found "Jetson-Nano"; did you mean "jetson-nano"\?'):
        read_board("Jetson-Nano")
    with pytest.raises(EdgeLstmError, match=r'found "../../etc/passwd"; known here: generic-arm64, '):
        read_board("../../etc/passwd")


def test_a_wrong_board_value_is_refused_with_its_key() -> None:
    table = {**board_table("raspberry-pi-4"), "least_python": "new", "architecture": "arm"}
    del table["budget"]
    with pytest.raises(EdgeLstmError, match="3 faults") as caught:
        from_mapping(table, type(read_board("raspberry-pi-4")), "x.toml")
    assert 'architecture: expected one of "aarch64", "armv7l", "x86_64" (did you mean' in caught.value.message
    assert "budget: missing" in caught.value.message
    assert 'least_python: expected a version like 3.11, found "new"' in caught.value.message


@pytest.mark.parametrize(
    ("model", "compatible", "board"),
    [
        ("Raspberry Pi Zero 2 W Rev 1.0", ["raspberrypi,model-zero-2-w", "brcm,bcm2837"], "raspberry-pi-zero-2w"),
        ("Raspberry Pi 3 Model B Plus Rev 1.3", ["raspberrypi,3-model-b-plus", "brcm,bcm2837"], "raspberry-pi-3b-plus"),
        ("Raspberry Pi 4 Model B Rev 1.4", ["raspberrypi,4-model-b", "brcm,bcm2711"], "raspberry-pi-4"),
        ("Raspberry Pi Compute Module 4", ["raspberrypi,4-compute-module", "brcm,bcm2711"], "raspberry-pi-4"),
        ("Raspberry Pi 400 Rev 1.0", ["raspberrypi,400", "brcm,bcm2711"], "raspberry-pi-4"),
        ("Raspberry Pi 5 Model B Rev 1.0", ["raspberrypi,5-model-b", "brcm,bcm2712"], "raspberry-pi-5"),
        ("NVIDIA Jetson Nano Developer Kit", ["nvidia,p3450-0000", "nvidia,tegra210"], "jetson-nano"),
        (
            "NVIDIA Jetson Xavier NX Developer Kit",
            ["nvidia,p3509-0000+p3668-0000", "nvidia,tegra194"],
            "jetson-xavier-nx",
        ),
        (
            "NVIDIA Jetson Orin Nano Engineering Reference Developer Kit Super",
            ["nvidia,p3768-0000+p3767-0005-super", "nvidia,p3767-0005", "nvidia,tegra234"],
            "jetson-orin-nano",
        ),
        (
            "NVIDIA Jetson Orin NX Engineering Reference Developer Kit",
            ["nvidia,p3768-0000+p3767-0000", "nvidia,p3767-0000", "nvidia,tegra234"],
            "jetson-orin-nx",
        ),
        (
            "NVIDIA Jetson AGX Orin Developer Kit",
            ["nvidia,p3737-0000+p3701-0005", "nvidia,p3701-0005", "nvidia,tegra234"],
            "jetson-agx-orin",
        ),
        ("Radxa ROCK 5B", ["radxa,rock-5b", "rockchip,rk3588"], "generic-arm64"),
    ],
)
def test_a_board_is_detected_by_its_device_tree(model: str, compatible: list[str], board: str, tmp_path: Path) -> None:
    found = prepared_machine(device_tree(tmp_path, model, *compatible))
    assert (found.model, found.memory_mb) == (model, 3793)
    assert detected(dataclasses.replace(found, architecture="aarch64")) == board
    # a 32-bit system on the same board needs other wheels
    assert detected(dataclasses.replace(found, architecture="armv7l")) == "generic-armv7"


def test_without_a_device_tree_the_architecture_decides() -> None:
    assert detected(Machine("x86_64", "3.13.1", "2.41", 8000)) == "generic-x86_64"
    assert detected(Machine("riscv64", "3.13.1", "2.41", 8000)) is None


def test_a_wrong_machine_gets_every_reason_and_fix() -> None:
    board = read_board("raspberry-pi-4")
    board.fit(PI_4)
    misfit = Machine("armv7l", "3.9.2", "2.24", 430)
    with pytest.raises(EdgeLstmError) as caught:
        board.fit(misfit)
    assert caught.value.message == (
        "this machine does not fit Raspberry Pi 4: expected aarch64, found armv7l; expected Python 3.10 or newer, "
        "found 3.9.2; expected glibc 2.27 or newer, found 2.24; expected 850 MB of memory, found 430"
    )
    assert "edge-lstm device detect" in caught.value.hint
    assert "Raspberry Pi OS Bookworm" in caught.value.hint
    with pytest.raises(EdgeLstmError, match=r"expected Python 3.14 or older, found 3.15.0"):
        board.fit(dataclasses.replace(PI_4, python="3.15.0"))
    xavier = dataclasses.replace(PI_4, python="3.8.10", memory_mb=6800)
    with pytest.raises(EdgeLstmError) as caught:
        read_board("jetson-xavier-nx").fit(xavier)
    assert caught.value.hint == "install a newer Python (uv python install 3.11), and edge-lstm in it"


def test_unknown_facts_of_a_prepared_root_are_not_faults(tmp_path: Path) -> None:
    read_board("raspberry-pi-4").fit(prepared_machine(tmp_path))
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/meminfo").write_text("MemTotal:  400000 kB\n")
    with pytest.raises(EdgeLstmError, match="expected 850 MB of memory, found 390"):
        read_board("raspberry-pi-4").fit(prepared_machine(tmp_path))


def test_this_machine_is_described() -> None:
    machine = this_machine()
    assert machine.architecture in ("x86_64", "aarch64", "armv7l")
    assert machine.python == sys.version.split()[0].rstrip("+")
    assert machine.memory_mb == memory_mb()
    assert machine == prepared_machine(Path("/"))


def run(*arguments: object, code: int = 0) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "edge_lstm", "device", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == code, done.stderr
    return done


def test_the_commands_list_show_and_detect_boards(tmp_path: Path) -> None:
    listed = run("list").stdout.splitlines()
    assert [line.split()[0] for line in listed] == board_names()
    assert "raspberry-pi-4       Raspberry Pi 4         aarch64  litert         int8    512 MB" in listed
    assert 'title = "Raspberry Pi 5"' in run("show", "raspberry-pi-5").stdout
    refused = run("show", "raspbery-pi-5", code=1).stderr
    assert refused.startswith('error: expected a board, found "raspbery-pi-5"; did you mean "raspberry-pi-5"?\nhint: ')
    here = run("detect")
    assert here.stdout.strip() in board_names()
    assert "Python" in here.stderr


def test_detect_on_another_root_reads_nothing_of_this_machine(tmp_path: Path) -> None:
    root = device_tree(tmp_path, "Raspberry Pi 4 Model B Rev 1.4", "raspberrypi,4-model-b")
    found = run("detect", "--root", root)
    assert found.stdout == "raspberry-pi-4\n"
    assert found.stderr == "Raspberry Pi 4 Model B Rev 1.4, unknown architecture, 3793 MB\n"
    (root / "lib").mkdir()
    (root / "lib/ld-linux-armhf.so.3").symlink_to("arm-linux-gnueabihf/ld-linux-armhf.so.3")
    assert run("detect", "--root", root).stdout == "generic-armv7\n"
    with pytest.raises(EdgeLstmError, match="expected aarch64, found armv7l"):
        read_board("raspberry-pi-4").fit(prepared_machine(root))
    (root / "lib/ld-linux-aarch64.so.1").touch()  # both: either may be the system's own
    assert prepared_machine(root).architecture is None
    (tmp_path / "empty").mkdir()
    assert "found no information\nhint: " in run("detect", "--root", tmp_path / "empty", code=1).stderr
    assert "does not exist" in run("detect", "--root", tmp_path / "none", code=2).stderr
