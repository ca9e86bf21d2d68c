"""Budgets: limits on a bundle's size and loss of accuracy, and the smallest scheme within them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from edge_lstm.bundle.archive import Bundle
from edge_lstm.bundle.certificate import Certificate
from edge_lstm.bundle.schemes import Scheme
from edge_lstm.foundation.errors import EdgeLstmError
from edge_lstm_export.proof.stress import RECORDING

# Of schemes at most 5 % larger than the smallest, the fastest is used. Static products are the slowest.
_SAME_SIZE = 1.05
_FASTEST_FIRST: tuple[Scheme, ...] = ("int8-dynamic", "int8", "float32", "float16", "int4", "int8-static")


@dataclass(frozen=True)
class Budgets:
    """Limits on every variant and backend; None: no limit."""

    drift: float | None = None  # on the held-out recording, in standard deviations
    metric_loss: float | None = None  # relative, of the worst output
    bytes: int | None = None  # of a variant's file

    def faults(self, certificate: Certificate, scheme: str) -> list[str]:
        """The limits that the scheme exceeds, in words."""
        faults = []
        for one in certificate.variants:
            if one.scheme != scheme:
                continue
            drift = one.drift[RECORDING]
            for what, found, limit in (
                ("drift", drift, self.drift),
                ("metric loss", one.metric_loss, self.metric_loss),
                ("bytes", one.bytes, self.bytes),
            ):
                if limit is not None and not found <= limit:
                    faults.append(f"{one.backend} {scheme} has {what} {found:.4g} > {limit:g}")
        return faults


UNLIMITED = Budgets()


def smallest_scheme(bundle: Bundle, certificate: Certificate, schemes: Sequence[Scheme], budgets: Budgets) -> Scheme:
    """The smallest scheme within the budgets, or the fastest of about that size. Raises EdgeLstmError if none fits."""
    measured = {one.scheme for one in certificate.variants}
    faults = {scheme: budgets.faults(certificate, scheme) for scheme in schemes if scheme in measured}
    fit = [scheme for scheme in faults if not faults[scheme]]
    if not fit:
        raise _budget_error("a scheme within the budgets", [fault for found in faults.values() for fault in found[:1]])

    def size(scheme: Scheme) -> int:
        return sum(len(bundle.content[one.file]) for one in bundle.manifest.variants if one.scheme == scheme)

    formats = {scheme: [one.format for one in bundle.manifest.variants if one.scheme == scheme] for scheme in fit}
    mean_bytes = {scheme: size(scheme) / len(formats[scheme]) for scheme in fit}
    same_size = [scheme for scheme in fit if mean_bytes[scheme] <= _SAME_SIZE * min(mean_bytes.values())]
    return min(same_size, key=_FASTEST_FIRST.index)


def refuse_over_budget(certificate: Certificate, schemes: Sequence[Scheme], budgets: Budgets) -> None:
    """Raise EdgeLstmError if any of the schemes exceeds a budget on any backend."""
    faults = [fault for scheme in schemes for fault in budgets.faults(certificate, scheme)]
    if faults:
        raise _budget_error("every variant within the budgets", faults)


def _budget_error(expected: str, faults: Sequence[str]) -> EdgeLstmError:
    return EdgeLstmError(
        f"expected {expected}, found {'; '.join(faults)}",
        "nothing was written; add --distill, leave out that scheme, or raise the budget",
    )
