"""`device deploy`, without a board: its agent's source, sent to a Python of this machine as it is sent over ssh."""

from __future__ import annotations

import platform
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from edge_lstm.deploy.deployment import _Board


class LocalSsh:
    """Runs commands here, as the board's root would."""

    destination = "this machine"

    def run(self, command: Sequence[str], stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
        if list(command) == ["id", "-u"]:
            return subprocess.CompletedProcess(command, 0, b"0\n", b"")
        return subprocess.run(command, input=stdin, capture_output=True, timeout=60)


def test_the_agent_that_is_sent_to_a_board_answers_there(tmp_path: Path) -> None:
    ssh: Any = LocalSsh()
    board = _Board(ssh, sys.executable)
    facts = board.ask("probe", root="", folder=str(tmp_path))
    assert facts["python"] == platform.python_version()
    assert board.send(f"{tmp_path}/files", {"a/b": b"1"}, secret=True, alone=False) == ["a/b"]
    assert (tmp_path / "files/a/b").read_bytes() == b"1"
    assert board.send(f"{tmp_path}/files", {"a/b": b"1"}, secret=True, alone=False) == []
