"""Text for tables, verdicts and reports: outputs in words, rounded numbers, and tables for a terminal."""

from __future__ import annotations

import math
from collections.abc import Sequence

TextTable = tuple[list[str], list[list[str]]]  # header and rows


def steps_text(horizon: int) -> str:
    return f"{horizon} step{'s' if horizon > 1 else ''}"


def steps_ahead(horizon: int) -> str:
    return f"{steps_text(horizon)} ahead" if horizon else ""


def output_label(target: str, horizon: int) -> str:
    """An output in words, such as "power 6 steps ahead"."""
    return f"{target} {steps_ahead(horizon)}".strip()


def with_unit(target: str, unit: str) -> str:
    return f"{target} ({unit})" if unit else target


def percent(share: float) -> str:
    return f"{100 * share:.1f} %" if math.isfinite(share) else "none"


def rate(value: float) -> str:
    """A number of events in two significant digits; less than one in a hundred is "less than 0.01"."""
    return f"{value:.2g}" if value >= 0.01 or not value else "less than 0.01"


def rounded(values: Sequence[float]) -> list[str]:
    """The values with one number of decimals for all, so that the largest has three significant digits."""
    largest = max((abs(value) for value in values if math.isfinite(value)), default=1.0)
    decimals = max(0, 2 - math.floor(math.log10(largest))) if largest > 0 else 0
    return [f"{value:.{decimals}f}" for value in values]


def as_text(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table for a terminal: the first column aligned left, the others right."""
    widths = [max(len(line[column]) for line in [header, *rows]) for column in range(len(header))]
    lines = []
    for first, *numbers in [header, *rows]:
        cells = [number.rjust(width) for number, width in zip(numbers, widths[1:], strict=True)]
        lines.append("  ".join([first.ljust(widths[0]), *cells]))
    return "\n".join(lines)
