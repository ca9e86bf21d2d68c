"""The verdicts on the models of all streams in a table, as facts for people."""

from __future__ import annotations

from typing import Any

import numpy as np

from edge_lstm.bundle.contract import Contract
from edge_lstm.decisions.health import POOR, VERDICTS, WATCH, cause_names
from edge_lstm.foundation.times.text import format_time
from edge_lstm.streaming.stream_table import StreamTable

_WORST = 10  # streams


def health_facts(contract: Contract, table: StreamTable) -> dict[str, Any] | None:
    """How many streams in memory have each verdict, and the worst of them; None if the bundle has no limits.

    Of a stream: the verdict, its cause, since when, and the RMS errors of its past predictions, of persistence and of
    a ridge regression in units of the model's own error on the validation part; and the share of intervals that held.
    """
    if contract.health is None:
        return None
    slots = np.array([table.slot(stream) for stream in table.names], np.intp)
    verdicts = table.current["verdict"][slots]
    counts = {name: int((verdicts == level).sum()) for level, name in enumerate(VERDICTS)}
    worst = slots[np.argsort(-verdicts, kind="stable")][: min(counts["watch"] + counts["poor"], _WORST)]
    return {**counts, "worst": [_facts(contract, table, slot) for slot in worst.tolist()]}


def _facts(contract: Contract, table: StreamTable, slot: int) -> dict[str, Any]:
    row = table.current[slot]
    facts = {"stream": table.name(slot), **verdict_facts(contract, row["verdict"], row["cause"])}
    facts["since"] = format_time(float(row["verdict_since"]))
    errors = None if contract.health is None else contract.health.errors
    if errors is None:
        return facts
    names = ("model", "persistence") if errors.reference is None else ("model", "persistence", "reference")
    shown = {("ridge" if name == "reference" else name): float(row[f"{name}_error"]) ** 0.5 for name in names}
    if errors.coverage:
        shown["coverage"] = float(row["coverage"])
    return {**facts, **{name: round(value, 3) for name, value in shown.items() if np.isfinite(value)}}


def verdict_facts(contract: Contract, level: int, cause: int) -> dict[str, str]:
    """A verdict and its cause, in words."""
    name = cause_names(contract)[cause]
    reasons = {
        "": "",
        "error": "its errors are larger than they were in validation",
        "persistence": "the newest value predicts better",
        "rise": "its errors rose and stay high",
        "coverage": "its intervals hold too seldom or too often",
    }
    reason = reasons.get(name, f"the values of {name} are not those of the training part")
    return {"health": VERDICTS[level], **({"reason": reason} if level in (WATCH, POOR) else {})}
