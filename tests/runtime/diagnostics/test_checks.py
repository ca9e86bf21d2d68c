"""The checks of `doctor`: each light follows from facts, and nothing unmeasured is green."""

from __future__ import annotations

import dataclasses
import errno
import os
import re
import time
from pathlib import Path

import numpy as np
import pytest

from edge_lstm.backends.kinds import NAMES
from edge_lstm.backends.registry import why_unavailable
from edge_lstm.bundle.archive import GOLDEN, Bundle, write_bundle
from edge_lstm.bundle.golden import read_golden_vectors
from edge_lstm.bundle.golden import to_npz as golden_npz
from edge_lstm.diagnostics import board, clock, disk, model, software
from edge_lstm.diagnostics.broker import encryption
from edge_lstm.foundation.times.text import CLOCK_UNSET_BEFORE
from edge_lstm.hardware.machine import Machine
from edge_lstm.service.config import MqttConfig, ServiceConfig
from tests.paths import PUMP


def written(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def wheel(folder: Path, name: str, code: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A package that takes the place of the installed one, here and in children."""
    written(folder / name / "__init__.py", code)
    monkeypatch.setenv("PYTHONPATH", str(folder), prepend=os.pathsep)
    monkeypatch.syspath_prepend(str(folder))


def config_for(bundle: Path, **keys: str) -> ServiceConfig:
    return ServiceConfig(bundle.name, MqttConfig("mqtt://localhost"), **keys)  # type: ignore[arg-type]


# what the wheels ask for


@pytest.mark.parametrize(
    ("architecture", "light", "found"),
    [
        ("aarch64", "green", "aarch64"),
        ("armv7l", "amber", "a 32-bit system: neither LiteRT nor onnxruntime"),
        ("riscv64", "amber", "riscv64, for which no backend has wheels"),
    ],
)
def test_an_architecture_is_rated_by_the_wheels_it_has(architecture: str, light: str, found: str) -> None:
    finding = software.architecture(architecture)
    assert finding.light == light
    assert found in finding.found
    assert bool(finding.remedy) == (light != "green")


def test_glibc_is_green_from_the_version_of_the_wheels() -> None:
    found = {version: software.c_library(version) for version in ("2.26", "2.27", "2.28", "2.36", None)}
    assert [one.light for one in found.values()] == ["amber", "amber", "green", "green", "amber"]
    assert "onnxruntime and LiteRT" in found["2.26"].found
    assert "wheels of onnxruntime" in found["2.27"].found
    assert "musl" in found[None].found


def test_a_config_for_another_board_is_red_with_every_reason() -> None:
    machine = Machine("x86_64", "3.9.1", "2.36", 4000)
    finding = software.fit(machine, "raspberry-pi-4")
    assert finding.light == "red"
    assert "expected aarch64, found x86_64; expected Python 3.10 or newer, found 3.9.1" in finding.found
    assert "edge-lstm device detect" in finding.remedy
    assert software.fit(Machine("x86_64", "3.11.2", "2.36", 4000), None).found == "generic-x86_64"
    assert software.fit(Machine("riscv64", "3.11.2", "2.36", 4000), None).light == "unknown"


# the backends, in processes of their own


def test_a_crashing_wheel_is_red_if_used_and_amber_if_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wheel(tmp_path, "onnxruntime", "import os, signal\nos.kill(os.getpid(), signal.SIGILL)\n", monkeypatch)
    needed = model.backend("onnx", needed=True)
    assert needed.light == "red"
    assert needed.found == "its import: died of SIGILL (an instruction that this processor does not have)"
    assert "another version of onnxruntime, made for this processor" in needed.remedy
    other = model.backend("onnx", needed=False)
    assert other.light == "amber"
    assert other.remedy.endswith("this config does not use it")


def test_a_crashing_default_backend_is_red(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle_path = PUMP
    wheel(tmp_path, "onnxruntime", "import os, signal\nos.kill(os.getpid(), signal.SIGILL)\n", monkeypatch)
    monkeypatch.setattr(model, "preferred", lambda *_: ("onnx", "float32"))  # named by nobody
    config = ServiceConfig(bundle_path.name, MqttConfig("mqtt://localhost"))
    finding, _, chosen = model.bundle(bundle_path, config, bundle_path.parent)
    assert (finding.light, chosen) == ("red", "onnx")
    assert "its golden vectors on onnx float32: died of SIGILL" in finding.found


def test_the_import_error_of_a_wheel_is_quoted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wheel(tmp_path, "onnxruntime", "raise ImportError('libstdc++.so.6: no version GLIBCXX_3.4.29')", monkeypatch)
    assert model.backend("onnx", needed=True).found == (
        "its import: ImportError: libstdc++.so.6: no version GLIBCXX_3.4.29"
    )


def test_tflite_runtime_with_numpy_2_is_reported_with_its_fix(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wheel(tmp_path, "tflite_runtime", "", monkeypatch)
    monkeypatch.setattr(np, "__version__", "2.4.6")
    finding = model.backend("tflite-runtime", needed=False)
    assert finding.light == "amber"
    assert "expected numpy < 2 for the backend tflite-runtime" in finding.found
    assert finding.remedy.startswith("run pip install 'numpy<2'")
    assert model.backend("tflite-runtime", needed=True).light == "red"


def test_a_missing_backend_matters_only_if_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert model.backend("litert", needed=False).light == "green"
    needed = model.backend("litert", needed=True)
    assert needed.light == "red"
    assert "pip install 'edge-lstm[tflite]'" in needed.remedy


def test_each_installed_backend_shows_its_version() -> None:
    lines = {finding.check: finding for finding in model.backends("numpy")}
    assert list(lines) == [f"backend {name}" for name in NAMES]
    assert lines["backend numpy"].found.startswith(f"{np.__version__}, imported in ")
    assert lines["backend numpy"].found.endswith("which this service uses")
    here = [name for name in NAMES if why_unavailable(name) is None]
    assert all(re.match(r"\d+\.\d+", lines[f"backend {name}"].found) for name in here)


# the bundle


def test_a_bundle_is_green_if_its_golden_vectors_pass(bundle_path: Path) -> None:
    finding, bundle, backend = model.bundle(bundle_path, config_for(bundle_path), bundle_path.parent)
    assert finding.light == "green"
    assert bundle is not None
    assert finding.found.startswith(f"tank, id {bundle.id}, on numpy float32: parity ")
    assert backend == "numpy"


def test_a_bad_bundle_is_red_with_the_reason(bundle_path: Path) -> None:
    bundle = Bundle.open(bundle_path)
    other, _, backend = model.bundle(bundle_path, config_for(bundle_path, backend="onnx"), bundle_path.parent)
    assert other.light == "red"
    assert re.search("expected a variant onnx float32|package onnxruntime", other.found)
    assert backend == "onnx"
    golden = read_golden_vectors(bundle)
    golden.expected["float32"].prediction[100:] += 1
    write_bundle(bundle_path, bundle.manifest, {**bundle.content, GOLDEN: golden_npz(golden)})
    failed, _, _ = model.bundle(bundle_path, config_for(bundle_path), bundle_path.parent)
    assert failed.light == "red"
    assert "first at step 101" in failed.found
    bundle_path.write_bytes(b"no zip")
    damaged, nothing, _ = model.bundle(bundle_path, config_for(bundle_path), bundle_path.parent)
    assert damaged.light == "red"
    assert "expected a whole bundle" in damaged.found
    assert nothing is None


def test_missing_cores_or_providers_are_red(bundle_path: Path) -> None:
    cores = dataclasses.replace(config_for(bundle_path), cores=[999])
    finding, _, _ = model.bundle(bundle_path, cores, bundle_path.parent)
    assert finding.light == "red"
    assert "expected to run on the cores 999" in finding.found
    assert finding.remedy == "correct cores, or leave it out"
    onnxruntime = pytest.importorskip("onnxruntime")
    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("this onnxruntime has CUDA")
    config = ServiceConfig(
        PUMP.name, MqttConfig("mqtt://localhost"), backend="onnx", providers=["CUDAExecutionProvider"]
    )
    finding, _, _ = model.bundle(PUMP, config, PUMP.parent)
    assert finding.light == "red"
    assert "expected onnxruntime to have CUDAExecutionProvider, found" in finding.found


# the clock


def test_an_unset_clock_is_red_and_one_behind_its_files_amber(tmp_path: Path) -> None:
    written(tmp_path / "service.toml", "")
    files = [tmp_path / "service.toml", tmp_path / "none"]
    now = time.time()
    assert clock.plausible(now, files).light == "green"
    assert clock.plausible(CLOCK_UNSET_BEFORE - 1, files).light == "red"
    os.utime(files[0], (now + 3600, now + 3600))
    behind = clock.plausible(now, files)
    assert behind.light == "amber"
    assert "before the service's own files were written" in behind.found


def test_clock_sync_is_read_from_the_kernel_or_systemd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert clock.synchronized(tmp_path).light == "unknown"
    written(tmp_path / "run/systemd/timesync/synchronized", "")
    assert clock.synchronized(tmp_path).light == "green"
    for said, light in ((True, "green"), (False, "amber")):
        monkeypatch.setattr("edge_lstm.foundation.times.clock.kernel_synchronized", lambda said=said: said)
        assert clock.synchronized().light == light


# the disk


def test_fsync_is_measured_in_the_state_folder_and_leaves_no_file(tmp_path: Path) -> None:
    space, cost = disk.disk(tmp_path / "state.db")
    assert space.light in ("green", "amber")
    assert f"{tmp_path} can be written" in space.found
    assert re.search(r"[\d.e+]+ ms per write, [\d.e+]+ ms at worst of 20", cost.found)
    assert list(tmp_path.iterdir()) == []
    (missing,) = disk.disk(tmp_path / "none" / "state.db")
    assert missing.light == "red"
    assert "cannot be written: No such file or directory" in missing.found


def test_a_read_only_disk_has_its_own_fix(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(folder: Path) -> list[float]:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(disk, "_fsyncs_ms", refused)
    (finding,) = disk.disk(tmp_path / "state.db")
    assert (finding.light, finding.found) == ("red", f"{tmp_path} cannot be written: Read-only file system")
    assert "mount -o remount,rw" in finding.remedy


def test_slow_full_and_volatile_disks_are_distinguished(tmp_path: Path) -> None:
    assert disk.fsync_cost(0.5, 9, "ext4").light == "green"
    slow = disk.fsync_cost(25, 90, "ext4")
    assert slow.light == "amber"
    assert 'durability = "at-most-once"' in slow.remedy
    assert [disk.free_space(tmp_path, free, "ext4").light for free in (10, 100, 1000)] == ["red", "amber", "green"]
    memory = disk.free_space(tmp_path, 1000, "tmpfs")
    assert memory.light == "amber"
    assert "a power cut loses the states" in memory.found
    assert disk.fsync_cost(0.001, 0.01, "tmpfs").light == "unknown"
    mounts = "/dev/root / ext4 rw 0 0\ntmpfs /var tmpfs rw 0 0\n/dev/sda1 /var/lib/my\\040disk f2fs rw 0 0\n"
    written(tmp_path / "proc/mounts", mounts)
    for folder, kind in (
        ("/home", "ext4"),
        ("/var/lib", "tmpfs"),
        ("/variety", "ext4"),
        ("/var/lib/my disk/a", "f2fs"),
    ):
        assert disk.filesystem(Path(folder), tmp_path) == kind
    assert disk.filesystem(Path("/home"), tmp_path / "none") is None


# the board


def test_unreadable_board_values_are_not_green(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert [finding.light for finding in board.board(tmp_path)] == ["unknown"] * 3


@pytest.mark.parametrize(("free_kb", "light"), [(60_000, "red"), (120_000, "amber"), (400_000, "green")])
def test_memory_is_compared_with_the_need_of_a_service(tmp_path: Path, free_kb: int, light: str) -> None:
    written(tmp_path / "proc/meminfo", f"MemTotal: 999999 kB\nMemFree: 1 kB\nMemAvailable:   {free_kb} kB\n")
    assert board.memory(tmp_path).light == light


@pytest.mark.parametrize(("degrees", "light"), [(61_300, "green"), (76_000, "amber"), (86_000, "red")])
def test_the_hottest_thermal_zone_counts(tmp_path: Path, degrees: int, light: str) -> None:
    for zone, text in enumerate(("41000\n", f"{degrees}\n", "")):
        written(tmp_path / f"sys/class/thermal/thermal_zone{zone}/temp", text)
    finding = board.temperature(tmp_path)
    assert (finding.light, finding.found.split(" ")[0]) == (light, str(round(degrees / 1000)))


@pytest.mark.parametrize(
    ("bits", "light", "found"),
    [
        ("0", "green", "no low voltage and no throttling"),
        ("50005", "red", "the supply voltage is too low now (0x50005)"),
        ("60006", "amber", "the processor is slowed down now"),
        ("50000", "amber", "the supply voltage was too low since the boot"),
        ("80000", "amber", "the processor was slowed down since the boot"),
    ],
)
def test_a_raspberry_pi_shows_undervoltage_and_throttling(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bits: str, light: str, found: str
) -> None:
    written(tmp_path / "sys/devices/platform/soc/soc:firmware/get_throttled", f"{bits}\n")
    by_kernel = board.throttling(tmp_path)
    program = tmp_path / "bin" / "vcgencmd"
    written(program, f"#!/bin/sh\necho throttled=0x{bits}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(program.parent))
    by_program = board.throttling(tmp_path / "none")
    assert by_kernel == by_program
    assert (by_kernel.light, found in by_kernel.found) == (light, True)


def test_vcgencmd_without_permission_is_unknown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "vcgencmd"
    written(program, "#!/bin/sh\necho 'Can'\\''t open device file: /dev/vcio' >&2\nexit 255\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    finding = board.throttling(tmp_path)
    assert finding.light == "unknown"
    assert "usermod -aG video" in finding.remedy


def test_a_certificate_that_expires_soon_is_amber() -> None:
    assert encryption("TLSv1.3", 90 * 86_400).light == "green"
    soon = encryption("TLSv1.3", 3 * 86_400)
    assert soon.light == "amber"
    assert "ends in 3 days" in soon.found
