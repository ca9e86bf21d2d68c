"""Every backend × scheme of a bundle that runs here, side by side; which meet a budget, and which one to take.

Each is measured in a process of its own, so that memory and load time are its own and one that dies is a line of the
table. It recommends nothing that failed its golden vectors or the budget.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from textwrap import wrap
from typing import Any

from edge_lstm.backends.kinds import NAMES
from edge_lstm.backends.registry import runnable, why_unavailable
from edge_lstm.bundle.archive import Bundle
from edge_lstm.diagnostics.measurement import BATCHES, Measurement
from edge_lstm.foundation.child_process import ChildError, ask
from edge_lstm.foundation.config import from_mapping
from edge_lstm.foundation.errors import EdgeLstmError
from edge_lstm.hardware.boards import Budget

_TIMEOUT_S = 300.0  # beside the time asked for: loading and golden vectors on a slow card
_EQUAL = 1.25  # what lies within a quarter of the fastest is as fast: a repetition may turn them round
_BAR = 12


@dataclass(frozen=True)
class CpuLimits:
    """The threads of a step, and the cores that they may run on (None: all)."""

    threads: int = 1
    cores: list[int] | None = None


ANYWHERE = CpuLimits()


@dataclass(frozen=True)
class Line:
    """One backend × scheme: what was measured, or why nothing was."""

    backend: str
    scheme: str
    measurement: Measurement | None
    fault: str = ""
    over: str = ""  # what of the board's budget it breaks; empty: nothing, or there is no board


@dataclass(frozen=True)
class Report:
    """All lines, and the choice; `choice` is None where nothing may run."""

    bundle: Bundle
    board: str | None  # whose budget counts
    budget: Budget | None
    lines: Sequence[Line]
    choice: Line | None
    reason: str
    absent: Sequence[str]  # backends that are not here, and why


def bench(
    bundle: Bundle,
    path: Path,
    board: str | None = None,
    budget: Budget | None = None,
    place: CpuLimits = ANYWHERE,
    seconds: float = 0.5,
    root: Path = Path("/"),
    tell: Callable[[str], None] = lambda text: None,
) -> Report:
    """Measure the bundle, which lies at `path`: each batch size of each variant for `seconds`.

    `budget` is that of the `board`, which is a name for people; `place` is where a service would run; `root` holds
    sys/, for the power rails; `tell` hears the name of what was measured. Raises EdgeLstmError where no backend here
    runs any of it.
    """
    runs = runnable(bundle)
    if not runs:
        held = ", ".join(f"{variant.format} {variant.scheme}" for variant in bundle.manifest.variants)
        raise EdgeLstmError(
            f"{path}: expected a backend here for one of its variants ({held}), found none",
            "install one: pip install 'edge-lstm[tflite]' or 'edge-lstm[onnx]'",
        )
    lines = []
    for backend, scheme in runs:
        lines.append(_line(path, backend, scheme, budget, place, seconds, root))
        tell(f"{backend} {scheme}")
    choice, reason = _choice(lines, board)
    absent = [f"{name}: {error.message}" for name in NAMES if (error := why_unavailable(name)) is not None]
    return Report(bundle, board, budget, lines, choice, reason, absent)


def _line(
    path: Path, backend: str, scheme: str, budget: Budget | None, place: CpuLimits, seconds: float, root: Path
) -> Line:
    asked = {
        "bundle": str(path.absolute()),
        "backend": backend,
        "scheme": scheme,
        "threads": 1 if backend == "numpy" else place.threads,  # which steps rows one by one
        "cores": place.cores,
        "seconds": seconds,
        "root": str(root.absolute()),
    }
    try:
        facts = ask("edge_lstm.diagnostics.measurement", asked, _TIMEOUT_S + seconds * len(BATCHES))
    except ChildError as error:
        return Line(backend, scheme, None, error.message)
    found = from_mapping(facts, Measurement, "edge_lstm.diagnostics.measurement")
    fault = "" if found.passed else found.finding
    return Line(backend, scheme, found, fault, "" if budget is None else _over(found, budget))


def _over(found: Measurement, budget: Budget) -> str:
    p99_ms = found.pace(1).p99_us / 1000
    faults = []
    if not p99_ms <= budget.step_p99_ms:
        faults.append(f"p99 {p99_ms:.3g} ms > {budget.step_p99_ms:g} ms")
    if not found.rss_mb <= budget.rss_mb:
        faults.append(f"memory {found.rss_mb:.0f} MB > {budget.rss_mb:g} MB")
    return ", ".join(faults)


def _choice(lines: Sequence[Line], board: str | None) -> tuple[Line | None, str]:
    """The fastest that may run; of those as fast, the one that drifts least, then the one that takes least memory."""
    sound = [(line, line.measurement) for line in lines if line.measurement is not None and not line.fault]
    fit = [(line, found) for line, found in sound if not line.over]
    if not sound:
        return None, "none of them gives the golden vectors here: do not run this bundle on this board"
    if not fit:
        return None, f"none of them meets the budget of {board}: a smaller model may, or another board"
    fit.sort(key=lambda pair: _step_us(pair[1]))
    fastest = _step_us(fit[0][1])
    equals = [pair for pair in fit if _step_us(pair[1]) <= _EQUAL * fastest]
    exact = [pair for pair in equals if _drift(pair[1]) == min(_drift(found) for _, found in equals)]
    choice, _ = min(exact, key=lambda pair: pair[1].rss_mb)
    if len(equals) > 1:
        others = ", ".join(f"{line.backend} {line.scheme}" for line, _ in equals if line is not choice)
        best = ["drifts least from float32"] * (len(exact) < len(equals)) + ["takes the least memory"] * (
            len(exact) > 1
        )
        return choice, f"it is as fast as {others} (within a quarter of {fastest:.1f} µs) and {' and '.join(best)}"
    if len(fit) > 1:
        ratio = _step_us(fit[1][1]) / fastest
        return choice, f"its step is the fastest, {fastest:.1f} µs; the next one takes {ratio:.1f} times as long"
    return choice, "it is the only one that may run here"


def _step_us(found: Measurement) -> float:
    return found.pace(1).p50_us


def _drift(found: Measurement) -> float:
    """As far as it is more than the rounding of float32."""
    return round(found.drift, 4)


def facts(report: Report) -> dict[str, Any]:
    """The report, JSON-able."""
    choice = report.choice
    return {
        "bundle": report.bundle.id,
        "board": report.board,
        "budget": None if report.budget is None else dataclasses.asdict(report.budget),
        "variants": [
            {
                "backend": line.backend,
                "scheme": line.scheme,
                "runs": not line.fault,
                "fault": line.fault or None,
                "meets_budget": None if report.budget is None or line.fault else not line.over,
                "over_budget": line.over or None,
                "measured": None if line.measurement is None else dataclasses.asdict(line.measurement),
            }
            for line in report.lines
        ],
        "recommended": None if choice is None else {"backend": choice.backend, "scheme": choice.scheme},
        "reason": report.reason,
        "not_here": list(report.absent),
    }


def table(report: Report, bar: str = "█", width: int | None = None) -> str:
    """The report for a person; `bar` is what bars are made of, `width` that of the terminal, where it is one.

    Where a line would not fit, its bar and its mark stand below its figures.
    """
    rows = [_head(report), *(_row(line, report, bar) for line in report.lines)]
    lines = [f"{row.name}{row.times}  {row.bar:<{_BAR + 2}}{row.paces}  {row.mark}".rstrip() for row in rows]
    if width is not None and max(map(len, lines)) > width:
        pairs = [(f"{row.name}{row.times}{row.paces}", f"  {row.bar}  {row.mark}") for row in rows[1:]]
        lines = [f"{rows[0].name}{rows[0].times}{rows[0].paces}", *(text.rstrip() for pair in pairs for text in pair)]
    if report.budget is not None:
        budget = report.budget
        lines += ["", f"budget of {report.board}: p99 {budget.step_p99_ms:g} ms, {budget.rss_mb:g} MB"]
    chosen = "nothing" if report.choice is None else f"{report.choice.backend} {report.choice.scheme}"
    told = f"recommended: {chosen}, since {report.reason}"
    return "\n".join([*lines, *([] if report.budget else [""]), *([told] if width is None else wrap(told, width))])


@dataclass(frozen=True)
class _Row:
    """What the table says of a line, or of its columns, in the order in which it stands there."""

    name: str
    times: str = ""
    bar: str = ""
    paces: str = ""
    mark: str = ""


def _head(report: Report) -> _Row:
    paces = "".join(f"{f'x{batch}':>7}" for batch in BATCHES) + f"{'MB':>5}{'load ms':>8}"
    if _has_energy(report):
        paces += f"{'µJ/step':>8}"
    return _Row(_name("", "", report), f"{'p50 µs':>8}{'p99 µs':>8}", "steps/s of one", paces)


def _row(line: Line, report: Report, bar: str) -> _Row:
    name, found = _name(line.backend, line.scheme, report), line.measurement
    if found is None:
        return _Row(name, mark=f"does not run: {line.fault}")
    one = found.pace(1)
    most = max(other.measurement.pace(1).steps_per_s for other in report.lines if other.measurement is not None)
    paces = "".join(f"{_short(pace.steps_per_s):>7}" for pace in found.paces)
    paces += f"{found.rss_mb:>5.0f}{found.load_ms:>8.0f}"
    if _has_energy(report):
        paces += f"{'-':>8}" if found.energy is None else f"{found.energy.step_uj:>8.1f}"
    length = max(1, round(_BAR * one.steps_per_s / most))
    return _Row(name, f"{one.p50_us:>8.1f}{one.p99_us:>8.1f}", bar * length, paces, _mark(line, report))


def _name(backend: str, scheme: str, report: Report) -> str:
    """Both, as wide as the longest of the report."""
    wide, narrow = max(len(line.backend) for line in report.lines), max(len(line.scheme) for line in report.lines)
    return f"{backend:<{wide}} {scheme:<{narrow}} "


def _has_energy(report: Report) -> bool:
    return any(line.measurement is not None and line.measurement.energy is not None for line in report.lines)


def _mark(line: Line, report: Report) -> str:
    if line.fault:
        return f"FAILED: {line.fault}"
    if line.over:
        return f"over: {line.over}"
    marks = ["ok"] if report.budget is not None else []
    if line.measurement is not None and line.measurement.one_by_one:
        marks.append("rows one at a time")
    mark = ", ".join(marks)
    return f"{mark} <- recommended".strip() if line is report.choice else mark


def _short(number: float) -> str:
    """1,263,973 as 1.26M."""
    for unit, size in (("M", 1e6), ("k", 1e3)):
        if number >= size:
            return f"{number / size:.3g}{unit}"
    return f"{number:.3g}"
