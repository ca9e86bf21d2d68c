"""A model that crashes its runtime, hangs, or does what no model does is refused; the process that asks lives on."""

from __future__ import annotations

import ctypes
import os
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from edge_lstm.backends import confined
from edge_lstm.backends.confined import self_test_confined
from edge_lstm.backends.reference import ReferenceBackend
from edge_lstm.backends.selftest import SelfTestError
from edge_lstm.bundle.archive import Bundle
from edge_lstm.cli.main import main
from edge_lstm.foundation.child_process import ChildError, call_confined
from edge_lstm.service.config import read_service_config
from edge_lstm.service.opened_files import prove
from edge_lstm.service.service import Service

Step = Callable[..., Any]

LONG_S = 50.0  # for an answer that comes


def crash(*_: Any) -> None:
    ctypes.string_at(0)


def hang(*_: Any) -> None:
    time.sleep(60)


def loop_without_end(*_: Any) -> None:
    while True:
        pass


def take_memory(*_: Any) -> None:
    np.ones(2**27)


def leave(*_: Any) -> None:
    os._exit(7)


def raise_anything(*_: Any) -> None:
    raise KeyboardInterrupt("\x1b[2J")


BAD: dict[str, tuple[Step, str]] = {
    "crash": (crash, r"it died of SIGSEGV \(a fault in compiled code\)"),
    "hang": (hang, "it failed: no answer within"),
    "loop": (loop_without_end, "it failed: no answer within"),
    "memory": (take_memory, "it failed: MemoryError: Unable to allocate 1.00 GiB"),
    "exit": (leave, "it ended without an answer, exit code 7"),
    "exception": (raise_anything, "it failed: KeyboardInterrupt"),
}


@pytest.fixture(params=list(BAD))
def bad_model(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """numpy's backend does this at every step; the pattern of what is found."""
    step, found = BAD[request.param]
    monkeypatch.setattr(ReferenceBackend, "step", step)
    if "no answer" in found:
        monkeypatch.setattr(confined, "TIMEOUT_S", 0.3)
    return found


def config_of(bundle_path: Path) -> Path:
    config = bundle_path.parent / "service.toml"
    config.write_text(f'bundle = "{bundle_path.name}"\nbackend = "numpy"\n[mqtt]\nurl = "mqtt://localhost:1"\n')
    return config


def test_a_bad_model_is_refused_and_the_process_lives_on(bundle_path: Path, bad_model: str) -> None:
    bundle = Bundle.open(bundle_path)
    with pytest.raises(
        SelfTestError, match=f"expected numpy float32 to give the golden vectors, found that {bad_model}"
    ):
        self_test_confined(bundle, "numpy", "float32")


def test_a_bad_model_is_refused_at_the_start_of_a_service(bundle_path: Path, bad_model: str) -> None:
    config = config_of(bundle_path)
    with pytest.raises(SelfTestError, match=bad_model):
        Service(read_service_config(config), config.parent)
    assert not list(bundle_path.parent.glob("state*"))


def test_verify_refuses_a_bad_model(bundle_path: Path, bad_model: str) -> None:
    result = CliRunner().invoke(main, ["verify", str(bundle_path), "--backend", "numpy"])
    assert result.exit_code == 65
    assert result.stderr.splitlines()[-2].startswith("error: ")  # after the progress
    assert "\x1b" not in result.stderr


def test_a_service_serves_while_the_next_model_is_tested(bundle_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = config_of(bundle_path)
    settings = read_service_config(config)
    turns: list[float] = []
    monkeypatch.setattr(ReferenceBackend, "step", crash)
    with pytest.raises(SelfTestError, match="SIGSEGV"):
        prove(settings, config.parent, lambda: turns.append(time.monotonic()))
    assert turns
    monkeypatch.undo()
    with pytest.raises(SelfTestError, match="SIGSEGV"):  # the answer is repeated once, without a second child
        Service(settings, config.parent)
    service = Service(settings, config.parent)
    service._store.close(0)


def test_a_known_bundle_starts_without_a_child(bundle_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = config_of(bundle_path)
    settings, memory = read_service_config(config), bundle_path.parent / "state.proven.json"
    Service(settings, config.parent)._store.close(0)
    assert memory.exists()

    def no_child(*_: Any) -> None:
        raise AssertionError("a child")

    monkeypatch.setattr("edge_lstm.backends.confined.call_confined", no_child)
    service = Service(settings, config.parent)
    assert service._predictor._smallest_batch == 1
    service._store.close(0)
    for damaged in (b"", b"[", b"[1]", b'{"a": 5}', b'{"a": ["x", 1]}'):
        memory.write_bytes(damaged)
        with pytest.raises(AssertionError, match="a child"):
            Service(settings, config.parent)


def refused(work: Callable[[], Any]) -> str:
    with pytest.raises(ChildError) as caught:
        call_confined(work, LONG_S)
    return caught.value.message


def test_the_child_opens_no_socket_and_starts_no_program(tmp_path: Path) -> None:
    if os.uname().machine not in ("x86_64", "aarch64", "armv7l"):
        pytest.skip(f"no filter of system calls for {os.uname().machine}")
    for work in (
        socket.socket,
        socket.socketpair,
        lambda: subprocess.run(["true"], check=True),
        lambda: os.kill(os.getppid(), 0),
        lambda: (tmp_path / "file").unlink(),
    ):
        assert refused(work).startswith("PermissionError")
    open_to_all = Path("/tmp") / f"edge-lstm-test-{os.getpid()}"
    open_to_all.touch()
    open_to_all.chmod(0o666)
    try:
        assert "File too large" in refused(lambda: open_to_all.write_bytes(b"x"))
    finally:
        open_to_all.unlink()


def test_the_child_inherits_no_descriptor_and_no_rights_of_root() -> None:
    with socket.socket() as connection:
        number = connection.fileno()
        assert "Bad file descriptor" in refused(lambda: os.fstat(number).st_size)
    user = call_confined(lambda: [*os.getresuid(), *os.getgroups()], LONG_S)
    if os.geteuid() == 0:
        assert 0 not in user
        assert "Permission denied" in refused(lambda: Path("/etc/shadow").read_bytes())
    else:
        assert user[0] == os.getuid()


def test_no_child_is_left_behind() -> None:
    def turn() -> None:
        raise ValueError("the service ends")

    with pytest.raises(ValueError, match="the service ends"):
        call_confined(lambda: time.sleep(60), LONG_S, turn)
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)
