"""`bench`: measures every backend × scheme of a bundle on this machine, and recommends one.

Each variant is measured in a child process. So memory and load time belong to that variant, and a crash becomes a line
of the table. A variant that fails its golden vectors or the budget is not recommended.
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

_TIMEOUT_S = 300.0  # besides the measuring: for loading and golden vectors on a slow card
_EQUAL = 1.25  # steps within a quarter of the fastest count as equal: another run may rank them differently
_BAR_WIDTH = 12


@dataclass(frozen=True)
class CpuLimits:
    """Number of threads for a step, and the cores that they may use (None: all)."""

    threads: int = 1
    cores: list[int] | None = None


DEFAULT_LIMITS = CpuLimits()


@dataclass(frozen=True)
class Result:
    """One backend × scheme: its measurement, or why there is none."""

    backend: str
    scheme: str
    measurement: Measurement | None
    fault: str = ""
    over: str = ""  # how it exceeds the budget; empty: it does not, or there is no budget


@dataclass(frozen=True)
class Report:
    """All results, and the recommended one; `choice` is None where none can be recommended."""

    bundle: Bundle
    board: str | None  # the board of the budget
    budget: Budget | None
    results: Sequence[Result]
    choice: Result | None
    reason: str
    absent: Sequence[str]  # backends that are not installed, and why


def bench(
    bundle: Bundle,
    path: Path,
    board: str | None = None,
    budget: Budget | None = None,
    limits: CpuLimits = DEFAULT_LIMITS,
    seconds: float = 0.5,
    root: Path = Path("/"),
    on_measured: Callable[[str], None] = lambda name: None,
) -> Report:
    """Measure the bundle in the file `path`: each batch size of each variant for `seconds`.

    `budget` is the budget of the board with the name `board`. `limits` are those of a service. `root` holds sys/, for
    the power rails. `on_measured` is called with the name of each variant after its measurement.
    Raises EdgeLstmError where no installed backend runs a variant of the bundle.
    """
    runs = runnable(bundle)
    if not runs:
        held = ", ".join(f"{variant.format} {variant.scheme}" for variant in bundle.manifest.variants)
        raise EdgeLstmError(
            f"{path}: expected an installed backend for one of its variants ({held}), found none",
            "install one: pip install 'edge-lstm[tflite]' or 'edge-lstm[onnx]'",
        )
    results = []
    for backend, scheme in runs:
        results.append(_result(path, backend, scheme, budget, limits, seconds, root))
        on_measured(f"{backend} {scheme}")
    choice, reason = _choice(results, board)
    absent = [f"{name}: {error.message}" for name in NAMES if (error := why_unavailable(name)) is not None]
    return Report(bundle, board, budget, results, choice, reason, absent)


def _result(
    path: Path, backend: str, scheme: str, budget: Budget | None, limits: CpuLimits, seconds: float, root: Path
) -> Result:
    asked = {
        "bundle": str(path.absolute()),
        "backend": backend,
        "scheme": scheme,
        "threads": 1 if backend == "numpy" else limits.threads,  # numpy has one thread
        "cores": limits.cores,
        "seconds": seconds,
        "root": str(root.absolute()),
    }
    try:
        facts = ask("edge_lstm.diagnostics.measurement", asked, _TIMEOUT_S + seconds * len(BATCHES))
    except ChildError as error:
        return Result(backend, scheme, None, error.message)
    found = from_mapping(facts, Measurement, "edge_lstm.diagnostics.measurement")
    fault = "" if found.passed else found.finding
    return Result(backend, scheme, found, fault, "" if budget is None else _over(found, budget))


def _over(found: Measurement, budget: Budget) -> str:
    p99_ms = found.pace(1).p99_us / 1000
    faults = []
    if not p99_ms <= budget.step_p99_ms:
        faults.append(f"p99 {p99_ms:.3g} ms > {budget.step_p99_ms:g} ms")
    if not found.rss_mb <= budget.rss_mb:
        faults.append(f"memory {found.rss_mb:.0f} MB > {budget.rss_mb:g} MB")
    return ", ".join(faults)


def _choice(results: Sequence[Result], board: str | None) -> tuple[Result | None, str]:
    """The fastest sound result within the budget; of equals the one with least drift, then with least memory."""
    sound = [(one, one.measurement) for one in results if one.measurement is not None and not one.fault]
    fit = [(one, found) for one, found in sound if not one.over]
    if not sound:
        return None, "none of them passes its golden vectors here: do not run this bundle on this board"
    if not fit:
        return None, f"none of them meets the budget of {board}: a smaller model may, or another board"
    fit.sort(key=lambda pair: _step_us(pair[1]))
    fastest = _step_us(fit[0][1])
    equals = [pair for pair in fit if _step_us(pair[1]) <= _EQUAL * fastest]
    exact = [pair for pair in equals if _drift(pair[1]) == min(_drift(found) for _, found in equals)]
    choice, _ = min(exact, key=lambda pair: pair[1].rss_mb)
    if len(equals) > 1:
        others = ", ".join(f"{one.backend} {one.scheme}" for one, _ in equals if one is not choice)
        best = ["drifts least from float32"] * (len(exact) < len(equals)) + ["takes the least memory"] * (
            len(exact) > 1
        )
        return choice, f"it is as fast as {others} (within a quarter of {fastest:.1f} µs) and {' and '.join(best)}"
    if len(fit) > 1:
        ratio = _step_us(fit[1][1]) / fastest
        return choice, f"its step is the fastest, {fastest:.1f} µs; the next one takes {ratio:.1f} times as long"
    return choice, "it is the only one that qualifies here"


def _step_us(found: Measurement) -> float:
    return found.pace(1).p50_us


def _drift(found: Measurement) -> float:
    """The drift, without the rounding of float32."""
    return round(found.drift, 4)


def facts(report: Report) -> dict[str, Any]:
    """The report as JSON values."""
    choice = report.choice
    return {
        "bundle": report.bundle.id,
        "board": report.board,
        "budget": None if report.budget is None else dataclasses.asdict(report.budget),
        "variants": [
            {
                "backend": one.backend,
                "scheme": one.scheme,
                "runs": not one.fault,
                "fault": one.fault or None,
                "meets_budget": None if report.budget is None or one.fault else not one.over,
                "over_budget": one.over or None,
                "measured": None if one.measurement is None else dataclasses.asdict(one.measurement),
            }
            for one in report.results
        ],
        "recommended": None if choice is None else {"backend": choice.backend, "scheme": choice.scheme},
        "reason": report.reason,
        "not_here": list(report.absent),
    }


def table(report: Report, bar: str = "█", width: int | None = None) -> str:
    """The report as text. `bar` is the character for bars; `width` is that of the terminal (None: not a terminal).

    Where a line does not fit, its bar and its mark are on a line of their own below its figures.
    """
    rows = [_head(report), *(_row(one, report, bar) for one in report.results)]
    lines = [f"{row.name}{row.times}  {row.bar:<{_BAR_WIDTH + 2}}{row.paces}  {row.mark}".rstrip() for row in rows]
    if width is not None and max(map(len, lines)) > width:
        pairs = [(f"{row.name}{row.times}{row.paces}", f"  {row.bar}  {row.mark}") for row in rows[1:]]
        lines = [f"{rows[0].name}{rows[0].times}{rows[0].paces}", *(text.rstrip() for pair in pairs for text in pair)]
    if report.budget is not None:
        budget = report.budget
        lines += ["", f"budget of {report.board}: p99 {budget.step_p99_ms:g} ms, {budget.rss_mb:g} MB"]
    chosen = "nothing" if report.choice is None else f"{report.choice.backend} {report.choice.scheme}"
    advice = f"recommended: {chosen}, since {report.reason}"
    return "\n".join([*lines, *([] if report.budget else [""]), *([advice] if width is None else wrap(advice, width))])


@dataclass(frozen=True)
class _Row:
    """The texts of a line of the table, or of its header, from left to right."""

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


def _row(result: Result, report: Report, bar: str) -> _Row:
    name, found = _name(result.backend, result.scheme, report), result.measurement
    if found is None:
        return _Row(name, mark=f"does not run: {result.fault}")
    single = found.pace(1)
    most = max(other.measurement.pace(1).steps_per_s for other in report.results if other.measurement is not None)
    paces = "".join(f"{_short(pace.steps_per_s):>7}" for pace in found.paces)
    paces += f"{found.rss_mb:>5.0f}{found.load_ms:>8.0f}"
    if _has_energy(report):
        paces += f"{'-':>8}" if found.energy is None else f"{found.energy.step_uj:>8.1f}"
    length = max(1, round(_BAR_WIDTH * single.steps_per_s / most))
    return _Row(name, f"{single.p50_us:>8.1f}{single.p99_us:>8.1f}", bar * length, paces, _mark(result, report))


def _name(backend: str, scheme: str, report: Report) -> str:
    """Backend and scheme, padded to the longest of the report."""
    wide, narrow = max(len(one.backend) for one in report.results), max(len(one.scheme) for one in report.results)
    return f"{backend:<{wide}} {scheme:<{narrow}} "


def _has_energy(report: Report) -> bool:
    return any(one.measurement is not None and one.measurement.energy is not None for one in report.results)


def _mark(result: Result, report: Report) -> str:
    if result.fault:
        return f"FAILED: {result.fault}"
    if result.over:
        return f"over: {result.over}"
    marks = ["ok"] if report.budget is not None else []
    if result.measurement is not None and result.measurement.one_by_one:
        marks.append("rows one at a time")
    mark = ", ".join(marks)
    return f"{mark} <- recommended".strip() if result is report.choice else mark


def _short(number: float) -> str:
    """A short form: 1.26M for 1,263,973."""
    for unit, size in (("M", 1e6), ("k", 1e3)):
        if number >= size:
            return f"{number / size:.3g}{unit}"
    return f"{number:.3g}"
