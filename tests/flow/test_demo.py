"""The demo as a new user runs it: from a recording to received predictions."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="the demo trains; torch is not installed here")
@pytest.mark.timeout(240)
def test_the_demo_succeeds_and_beats_the_naive_baselines(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "edge_lstm", "demo", "-o", str(tmp_path / "demo")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    skills = [float(text) for text in re.findall(r"(-?[\d.]+) %", done.stdout)]
    assert len(skills) == 3
    assert skills[0] > 12
    assert skills[1] > 35
    assert skills[2] > 18
    assert "readings in      2000\npredictions out  2000\n" in done.stdout
    assert "every prediction equals the replay's" in done.stderr
    for backend in ("litert", "onnx", "numpy"):
        assert f"{backend} int8: parity" in done.stderr
    report = (tmp_path / "demo" / "report.html").read_text()
    assert report.count("<figure>") == 4
    assert "http" not in report
