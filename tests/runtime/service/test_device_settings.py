"""Settings of a board that a service config may override: each takes effect or is refused."""

from __future__ import annotations

import dataclasses
import os
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest

from edge_lstm.backends import registry as backends
from edge_lstm.backends.protocol import ExecutionOptions
from edge_lstm.backends.registry import why_unavailable
from edge_lstm.bundle.archive import Bundle
from edge_lstm.foundation.errors import EdgeLstmError
from edge_lstm.hardware.boards import board_names, board_table
from edge_lstm.hardware.machine import run_on
from edge_lstm.service.config import ServiceConfig, read_service_config
from edge_lstm.service.database.store import Store
from edge_lstm.service.opened_files import state_path
from edge_lstm.service.service import Service
from tests.paths import PUMP


def config_of(folder: Path, keys: str) -> ServiceConfig:
    path = folder / "service.toml"
    path.write_text(f'bundle = "tank.elstm"\n{keys}\n[mqtt]\nurl = "mqtt://localhost:1"\n')
    return read_service_config(path)


def fault_of(folder: Path, keys: str) -> str:
    with pytest.raises(EdgeLstmError) as caught:
        config_of(folder, keys)
    return str(caught.value)


def test_every_key_that_a_board_sets_is_a_key_of_a_service_config() -> None:
    keys = {field.name for field in dataclasses.fields(ServiceConfig)}
    for name in board_names():
        assert set(board_table(name)["service"]) <= keys, name


def test_a_board_fills_the_keys_that_a_config_leaves_out(tmp_path: Path) -> None:
    config = config_of(tmp_path, 'device = "raspberry-pi-zero-2w"\nthreads = 2\ncommit_interval_s = 1.5')
    assert (config.backend, config.scheme, config.cores) == ("litert", "int8", [1, 2, 3])
    assert (config.sync, config.memory_max_mb, config.watchdog_s) == ("full", 160, 60.0)
    assert (config.threads, config.commit_interval_s) == (2, 1.5)
    bare = config_of(tmp_path, "")
    assert (bare.device, bare.backend, bare.cores, bare.memory_max_mb, bare.threads) == (None, None, None, None, 1)


def test_an_unknown_board_in_a_config_gets_a_suggestion(tmp_path: Path) -> None:
    fault = fault_of(tmp_path, 'device = "raspberry-pi-6"')
    assert 'device: expected a board, found "raspberry-pi-6"; did you mean "raspberry-pi-' in fault
    assert "device: expected a text, found 4" in fault_of(tmp_path, "device = 4")


def test_a_provider_the_board_lacks_is_a_config_fault(tmp_path: Path) -> None:
    cuda = 'backend = "onnx"\nproviders = ["CUDAExecutionProvider"]\n'
    assert config_of(tmp_path, f'device = "jetson-orin-nx"\n{cuda}').execution == ExecutionOptions(
        1, ("CUDAExecutionProvider",)
    )
    assert fault_of(tmp_path, f'device = "raspberry-pi-4"\n{cuda}').startswith(
        f"{tmp_path}/service.toml: providers: expected of CPUExecutionProvider, which the board has, "
        "found CUDAExecutionProvider"
    )
    assert 'providers: expected backend = "onnx" beside it, found litert' in fault_of(
        tmp_path, 'device = "jetson-orin-nx"\nproviders = ["CUDAExecutionProvider"]'
    )
    assert "providers: expected at least one, found none" in fault_of(tmp_path, 'backend = "onnx"\nproviders = []')
    assert 'providers[0]: expected one of "CPUExecutionProvider", "CUDAExecutionProvider", ' in fault_of(
        tmp_path, 'backend = "onnx"\nproviders = ["CUDA"]'
    )


@pytest.mark.parametrize("name", ["litert", "onnx", "tflite-runtime"])
def test_threads_reach_the_backend(name: str) -> None:
    if (error := why_unavailable(name)) is not None:
        pytest.skip(error.message)
    bundle = Bundle.open(PUMP)

    def begun(threads: int) -> int:
        before = len(list(Path("/proc/self/task").iterdir()))
        backend = backends.load(bundle, name, "float32", ExecutionOptions(threads))
        after = len(list(Path("/proc/self/task").iterdir()))
        del backend
        return after - before

    begun(1)  # the package itself may begin a thread when it is first imported
    assert begun(1) == 0
    two = begun(2)
    assert two > 0
    assert begun(3) == 2 * two  # beside the one that calls, for each interpreter or session


def test_numpy_refuses_more_threads_than_it_uses(tmp_path: Path) -> None:
    bundle = Bundle.open(PUMP)
    with pytest.raises(EdgeLstmError, match=r"expected one thread for the backend numpy.*found 2"):
        backends.load(bundle, "numpy", "float32", ExecutionOptions(2))
    assert "threads: expected 1, since the backend numpy" in fault_of(tmp_path, 'backend = "numpy"\nthreads = 2')


def test_a_service_passes_its_threads_to_any_backend(bundle_path: Path, tmp_path: Path) -> None:
    config = config_of(tmp_path, "threads = 2")  # the bundle has a variant for numpy only
    with pytest.raises(EdgeLstmError, match=r"expected one thread for the backend numpy.*found 2"):
        Service(config, bundle_path.parent)


@pytest.fixture
def pump() -> Bundle:
    """A bundle with a variant for onnxruntime; skips where that is not installed."""
    pytest.importorskip("onnxruntime")
    return Bundle.open(PUMP)


def test_an_unavailable_provider_is_refused_with_the_available_ones(pump: Bundle) -> None:
    import onnxruntime

    assert "CUDAExecutionProvider" not in onnxruntime.get_available_providers()
    with pytest.raises(EdgeLstmError) as caught:
        backends.load(pump, "onnx", "float32", ExecutionOptions(1, ("CUDAExecutionProvider", "CPUExecutionProvider")))
    assert caught.value.message.startswith(
        "expected onnxruntime to have CUDAExecutionProvider, CPUExecutionProvider, found "
    )
    assert "leave providers out" in caught.value.hint
    with pytest.raises(EdgeLstmError, match="expected the backend onnx for the providers CUDAExecutionProvider"):
        backends.load(pump, "numpy", "float32", ExecutionOptions(1, ("CUDAExecutionProvider",)))


def test_a_provider_dropped_by_onnxruntime_is_refused(pump: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    # a provider is announced whose libraries are missing: onnxruntime warns, and would go on with the CPU alone
    monkeypatch.setattr(
        "onnxruntime.get_available_providers", lambda: ["CUDAExecutionProvider", "CPUExecutionProvider"]
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(EdgeLstmError, match="CUDAExecutionProvider, CPUExecutionProvider, found CPUExec"):
            backends.load(
                pump, "onnx", "float32", ExecutionOptions(1, ("CUDAExecutionProvider", "CPUExecutionProvider"))
            )


def test_no_node_falls_back_to_the_cpu_silently(pump: Bundle) -> None:
    import onnxruntime

    if "AzureExecutionProvider" not in onnxruntime.get_available_providers():
        pytest.skip("this onnxruntime has no second provider")
    with pytest.raises(EdgeLstmError, match=r"found:.*fallback to CPU EP has been explicitly disabled"):
        backends.load(pump, "onnx", "float32", ExecutionOptions(1, ("AzureExecutionProvider",)))


@pytest.fixture
def cores() -> Iterator[set[int]]:
    """The cores of this process, given back after the test."""
    former = os.sched_getaffinity(0)
    yield former
    os.sched_setaffinity(0, former)


def test_a_service_runs_on_the_cores_that_its_config_names(bundle_path: Path, tmp_path: Path, cores: set[int]) -> None:
    one = min(cores)
    config = config_of(tmp_path, f'backend = "numpy"\ncores = [{one}]')
    Service(config, tmp_path)._store.close(0)
    assert os.sched_getaffinity(0) == {one}


def test_a_service_already_on_its_cores_sets_no_affinity(cores: set[int], monkeypatch: pytest.MonkeyPatch) -> None:
    one = min(cores)
    os.sched_setaffinity(0, {one})

    calls: list[list[int]] = []

    def refused(_: int, wanted: list[int]) -> None:
        calls.append(wanted)
        raise PermissionError(1, "Operation not permitted")  # as the unit's system call filter does

    monkeypatch.setattr(os, "sched_setaffinity", refused)
    run_on([one, 4711])  # a board's config on a machine with fewer cores
    assert calls == []
    assert os.sched_getaffinity(0) == {one}


def test_missing_cores_are_refused(tmp_path: Path, cores: set[int]) -> None:
    with pytest.raises(EdgeLstmError, match=r"expected to run on the cores 4711, found: .*; this machine has 0 to "):
        run_on([4711])
    assert os.sched_getaffinity(0) == cores
    assert "cores: expected at least one, found none" in fault_of(tmp_path, "cores = []")
    assert "cores[0]: expected a whole number >= 0, found -1" in fault_of(tmp_path, "cores = [-1]")


def test_the_sync_policy_reaches_the_database(tmp_path: Path) -> None:
    for sync, found in (("full", 2), ("normal", 1)):
        store = Store(tmp_path / f"{sync}.db", "bundle-1", "", sync=sync)  # type: ignore[arg-type]
        assert store._database.execute("pragma synchronous").fetchone() == (found,)
        store.close(0)


def test_a_service_opens_its_database_with_its_sync_policy(bundle_path: Path, tmp_path: Path) -> None:
    service = Service(config_of(tmp_path, 'backend = "numpy"\nsync = "normal"'), tmp_path)
    assert service._store._database.execute("pragma synchronous").fetchone() == (1,)
    service._store.close(0)


def test_the_state_is_in_the_systemd_state_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("STATE_DIRECTORY", raising=False)
    assert state_path(tmp_path, "state.db") == tmp_path / "state.db"
    monkeypatch.setenv("STATE_DIRECTORY", "/var/lib/pumps")
    assert state_path(tmp_path, "state.db") == Path("/var/lib/pumps/state.db")
    assert state_path(tmp_path, "/data/state.db") == Path("/data/state.db")


def test_secrets_come_from_credentials_where_systemd_gives_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "secret").write_text("ours")
    (tmp_path / "secret").chmod(0o600)
    path = tmp_path / "service.toml"
    path.write_text('bundle = "x"\n[mqtt]\nurl = "mqtt://b"\nusername = "u"\npassword_file = "secret"\n')

    def password() -> str | None:
        login = read_service_config(path).mqtt.login(tmp_path)
        return login.password if login else None

    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)
    assert password() == "ours"
    (tmp_path / "given").mkdir()
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path / "given"))
    assert password() == "ours"
    (tmp_path / "given/password_file").write_text("systemd's")
    assert password() == "systemd's"
