"""Progress shows what is being done within the first second, how fast, and for how long."""

from __future__ import annotations

import io
from types import SimpleNamespace

import pytest

from edge_lstm.foundation import progress as module
from edge_lstm.foundation.progress import interrupted_text, progress, work
from tests.deadline import wait_until


class Stderr(io.StringIO):
    def __init__(self, terminal: bool) -> None:
        super().__init__()
        self.terminal = terminal

    def isatty(self) -> bool:
        return self.terminal


@pytest.fixture
def stderr(monkeypatch: pytest.MonkeyPatch) -> Stderr:
    monkeypatch.setattr(module, "_FIRST_S", 0.0)
    monkeypatch.setattr(module, "_BAR_S", 0.01)
    monkeypatch.setattr(module, "_PAUSES_S", (0.01,))
    found = Stderr(terminal=False)
    monkeypatch.setattr(module, "sys", SimpleNamespace(stderr=found))  # pytest sets sys.stderr again
    return found


def test_the_innermost_work_is_shown_with_rate_and_time_left(stderr: Stderr) -> None:
    with work("training a pump"), work("reading pump.csv", 1000, "rows") as advance:
        advance(250)
        wait_until(lambda: "250/1,000" in stderr.getvalue(), "a line about the rows")
    line = next(line for line in stderr.getvalue().splitlines() if "250/1,000" in line)
    assert line.startswith("reading pump.csv  250/1,000 rows, ")
    assert "rows/s, " in line
    assert line.endswith(" left")


def test_outer_work_is_shown_again_when_the_inner_is_done(stderr: Stderr) -> None:
    with work("outer"):
        with work("inner"):
            wait_until(lambda: "inner" in stderr.getvalue(), "a line about the inner work")
        wait_until(lambda: "outer" in stderr.getvalue(), "a line about the outer work")
    assert not module._display._works


def test_short_work_says_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    with work("reading pump.csv", 10, "rows") as advance:
        advance(10)
    assert capfd.readouterr().err == ""


def test_steps_have_a_line_at_each_fifth_and_at_each_text(capfd: pytest.CaptureFixture[str]) -> None:
    with progress(10, "training") as tick:
        for step in range(10):
            tick("loss 1" if step == 2 else "")
    assert capfd.readouterr().err.splitlines() == [
        "training 2/10",
        "training 3/10  loss 1",
        "training 4/10",
        "training 6/10",
        "training 8/10",
        "training 10/10",
    ]


def test_a_terminal_has_one_line_with_a_bar_that_stays_at_the_end(stderr: Stderr) -> None:
    stderr.terminal = True
    with progress(4, "training") as tick:
        tick("")
        wait_until(lambda: "1/4" in stderr.getvalue(), "the bar")
        for _ in range(3):
            tick("loss 0.5")
    assert "training  [#####---------------]  1/4, " in stderr.getvalue()
    assert stderr.getvalue().endswith("training  [####################]  4/4  loss 0.5\n")


def test_an_interruption_says_what_was_done_and_what_is_left(stderr: Stderr) -> None:
    with pytest.raises(KeyboardInterrupt) as caught:  # noqa: SIM117 - the outer one is not part of the claim
        with work("preparing", left="nothing was written"), work("reading pump.csv"):
            raise KeyboardInterrupt
    assert interrupted_text(caught.value) == "interrupted while reading pump.csv: nothing was written"
    assert interrupted_text(KeyboardInterrupt()) == "interrupted"


class NobodyReads(Stderr):
    def write(self, text: str) -> int:
        raise BrokenPipeError


def test_work_goes_on_when_nobody_reads_its_progress(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "sys", SimpleNamespace(stderr=NobodyReads(terminal=False)))
    with progress(2, "training") as tick:
        tick("one")
        tick("two")
