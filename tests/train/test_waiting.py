"""Commands show that they work, and Ctrl-C ends them with a finished checkpoint or one line that says why not.

Real processes and signals. A phase is made to last by a pause in one of its functions.
"""

from __future__ import annotations

import importlib
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from edge_lstm.cli.main import main
from edge_lstm_train.model.checkpoint import load_checkpoint
from tests.deadline import wait_until

SOON_S = 60.0  # on a busy machine; on a quiet one, all of them leave within five seconds

RECIPE = """name = "pump"
[recording]
path = "pump.csv"
[features.level]
[forecast]
targets = ["level"]
horizons = [1]
[fit]
updates = {updates}
"""


class Command:
    """A command in a forked process, which has the imports already, and what it wrote to stderr so far."""

    def __init__(self, arguments: list[str], folder: Path, place: str | None) -> None:
        reading, writing = os.pipe()
        self.process_id = os.fork()
        if not self.process_id:
            os.dup2(writing, 2)
            _run(arguments, folder, place)
        os.close(writing)
        self.told = ""
        self.status: int | None = None
        self._pipe = os.fdopen(reading, encoding="utf-8")
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        for line in self._pipe:
            self.told += line

    def interrupt(self) -> int:
        """Press Ctrl-C; the exit status."""
        os.kill(self.process_id, signal.SIGINT)
        wait_until(self._has_ended, "it leaves", SOON_S)
        assert self.status is not None
        return self.status

    def _has_ended(self) -> bool:
        if self.status is None:
            ended, status = os.waitpid(self.process_id, os.WNOHANG)
            if ended:
                self.status = os.waitstatus_to_exitcode(status)
                self._reader.join(SOON_S)
        return self.status is not None

    def close(self) -> None:
        if not self._has_ended():
            os.kill(self.process_id, signal.SIGKILL)
            wait_until(self._has_ended, "it is killed")
        self._pipe.close()


def _run(arguments: list[str], folder: Path, place: str | None) -> None:
    """In the child: run the command in this folder, with a pause in the function at `place`, and leave."""
    status = 1
    try:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        os.chdir(folder)
        sys.stderr = os.fdopen(2, "w", encoding="utf-8")
        sys.stdout = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115 - until the process ends
        if place is not None:
            _pause_at(place)
        main(arguments, prog_name="edge-lstm")
    except SystemExit as leaving:
        status = int(leaving.code or 0)
    except BaseException:  # noqa: BLE001 - the child must never go on as the parent
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(status)


def _pause_at(place: str) -> None:
    """`place`: module:name of a function that says PAUSED from now on, and does not return for long."""
    module, _, name = place.rpartition(":")
    owner: Any = importlib.import_module(module)
    *path, last = name.split(".")
    for part in path:
        owner = getattr(owner, part)

    def paused(*arguments: Any, **more: Any) -> None:
        print("PAUSED", file=sys.stderr, flush=True)
        time.sleep(100)

    setattr(owner, last, paused)


@contextmanager
def command(arguments: list[str], folder: Path, place: str | None = None) -> Iterator[Command]:
    started = Command(arguments, folder, place)
    try:
        yield started
    finally:
        started.close()


def pump(folder: Path, updates: int = 16) -> list[str]:
    """The arguments of a training in the folder."""
    rows = [f"{1_700_000_000 + 60 * at},{(at * 7919 % 101) / 10}" for at in range(400)]
    (folder / "pump.csv").write_text("\n".join(["time,level", *rows]) + "\n")
    (folder / "pump.toml").write_text(RECIPE.format(updates=updates))
    return ["train", str(folder / "pump.toml"), "-o", str(folder / "run")]


@pytest.mark.parametrize(
    ("place", "during"),
    [
        ("edge_lstm.recordings.rows:RowReader.rows", "reading pump.csv"),
        ("edge_lstm_train.data.dataset:samples_of", "taking samples"),
        ("edge_lstm_train.model.ridge:_path", "fitting the baselines"),
    ],
)
def test_ctrl_c_before_the_training_says_that_there_are_no_weights_yet(tmp_path: Path, place: str, during: str) -> None:
    with command(pump(tmp_path), tmp_path, place) as run:
        wait_until(lambda: "PAUSED" in run.told, during, SOON_S)
        wait_until(lambda: f"{during}  " in run.told, f"progress of {during}", SOON_S)
        status = run.interrupt()
    assert status == 1
    last = run.told.splitlines()[-1]
    assert last == f"interrupted while {during}: there are no weights yet, so nothing was written"
    assert "Traceback" not in run.told
    assert not (tmp_path / "run" / "checkpoint.pt").exists()


def test_ctrl_c_in_the_training_leaves_the_best_weights_as_a_checkpoint(tmp_path: Path) -> None:
    with command(pump(tmp_path, updates=80_000), tmp_path) as run:
        wait_until(lambda: "training  " in run.told, "the training", SOON_S)
        status = run.interrupt()
    assert status in (0, 1)  # 1 where the machine was too busy for the evaluation
    assert "interrupted at update " in run.told
    assert "Traceback" not in run.told
    assert load_checkpoint(tmp_path / "run").contract.name == "pump"


@pytest.mark.parametrize("place", ["edge_lstm_train.run:predict", "edge_lstm_train.run:write_report"])
def test_ctrl_c_after_the_training_leaves_a_checkpoint_without_scores(tmp_path: Path, place: str) -> None:
    with command(pump(tmp_path), tmp_path, place) as run:
        wait_until(lambda: "PAUSED" in run.told, "the evaluation", SOON_S)
        status = run.interrupt()
    assert status == 1
    assert f"interrupted before the evaluation was done: {tmp_path / 'run' / 'checkpoint.pt'} holds" in run.told
    assert "Traceback" not in run.told
    assert load_checkpoint(tmp_path / "run").provenance["verdict"] == "interrupted before the evaluation"


@pytest.mark.parametrize(
    ("name", "arguments", "place"),
    [
        ("init", ["init", "pump.csv", "--task", "forecast", "--name", "other"], "edge_lstm_train.recipe.survey:survey"),
        ("replay", ["replay", "pump.elstm", "pump.csv"], "edge_lstm.bundle.archive:Bundle.open"),
        ("bench", ["bench", "pump.elstm"], "edge_lstm.bundle.archive:Bundle.open"),
        ("export", ["export", "run"], "edge_lstm_export.export_run:load_checkpoint"),
    ],
)
def test_each_long_command_shows_that_it_works_and_ends_at_ctrl_c(
    tmp_path: Path, name: str, arguments: list[str], place: str
) -> None:
    pump(tmp_path)
    with command(arguments, tmp_path, place) as run:
        wait_until(lambda: f"edge-lstm {name}  " in run.told, "progress", SOON_S)
        wait_until(lambda: "PAUSED" in run.told, "the pause", SOON_S)
        status = run.interrupt()
    assert status == 1
    assert run.told.splitlines()[-1].startswith("interrupted")
    assert "Traceback" not in run.told
