"""`device deploy`, without a board: its agent's source, sent to a Python of this machine as it is sent over ssh."""

from __future__ import annotations

import platform
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from edge_lstm.deploy.deployment import DeploymentFiles, _Board, _extras, _last_line, _line_after
from edge_lstm.hardware.boards import BackendName, read_board
from edge_lstm.service.config import MqttConfig, ServiceConfig


class LocalSsh:
    """Runs commands here, as the board's root would."""

    destination = "this machine"

    def run(
        self, command: Sequence[str], stdin: bytes = b"", limit_s: float = 60
    ) -> subprocess.CompletedProcess[bytes]:
        if list(command) == ["id", "-u"]:
            return subprocess.CompletedProcess(command, 0, b"0\n", b"")
        return subprocess.run(command, input=stdin, capture_output=True, timeout=limit_s)


def test_the_agent_that_is_sent_to_a_board_answers_there(tmp_path: Path) -> None:
    ssh: Any = LocalSsh()
    board = _Board(ssh, sys.executable)
    facts = board.call("probe", root="", folder=str(tmp_path))
    assert facts["python"] == platform.python_version()
    assert board.send(f"{tmp_path}/files", {"a/b": b"1"}, secret=True, alone=False) == ["a/b"]
    assert (tmp_path / "files/a/b").read_bytes() == b"1"
    assert board.send(f"{tmp_path}/files", {"a/b": b"1"}, secret=True, alone=False) == []


@pytest.mark.parametrize(
    ("backend", "extras"),
    [
        (None, ["fast", "tflite"]),
        ("litert", ["fast", "tflite"]),
        ("onnx", ["fast", "onnx"]),
        ("tflite-runtime", ["fast", "tflite-runtime"]),
        ("numpy", ["fast"]),
    ],
)
def test_a_board_gets_the_extra_of_the_backend_in_the_config_and_no_other(
    backend: BackendName | None, extras: list[str]
) -> None:
    config = ServiceConfig("tank.elstm", MqttConfig("mqtt://localhost"), backend=backend)
    bundle: Any = None
    assert _extras(read_board("raspberry-pi-4"), DeploymentFiles("tank", config, bundle, {})) == extras


def test_what_a_board_prints_is_shown_without_control_characters() -> None:
    said = "error: \x1b[2J\x1b[Hall is well\x07\nhint: \u202edone\n"
    assert _line_after("error: ", said) == r"\x1b[2J\x1b[Hall is well\x07"
    assert _line_after("hint: ", said) == r"\u202edone"
    assert _last_line("first\nlast \u2066red\n") == r"last \u2066red"
