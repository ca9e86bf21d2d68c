"""A run trained by 0.1.0 exports into a bundle of the same contract that verifies."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from edge_lstm.backends.registry import runnable
from edge_lstm.backends.selftest import verify
from edge_lstm.bundle.archive import Bundle
from edge_lstm.cli.main import main
from tests.written_states import WRITTEN, assert_holds, plain

RUNS: dict[str, Any] = json.loads((WRITTEN / "runs.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("task", RUNS)
def test_a_run_of_0_1_0_exports_into_a_bundle_that_verifies(task: str, tmp_path: Path) -> None:
    run_dir, path = tmp_path / "run", tmp_path / "mill.elstm"
    shutil.copytree(WRITTEN / "runs" / task, run_dir)
    result = CliRunner().invoke(main, ["export", str(run_dir), "-o", str(path), "--no-certificate"])
    assert result.exit_code == 0, result.output
    bundle = Bundle.open(path)
    assert_holds(plain(bundle.contract), RUNS[task]["contract"], "contract")
    verdicts = verify(bundle, runnable(bundle))
    assert {(one.backend, one.scheme) for one in verdicts} >= {("numpy", "float32"), ("numpy", "int8")}
    assert [verdict for verdict in verdicts if not verdict.passed] == []
