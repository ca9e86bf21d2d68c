"""Budgets: what a bundle may cost at most, and the smallest and fastest scheme that keeps within them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from edge_lstm.bundle.archive import Bundle
from edge_lstm.bundle.certificate import Certificate
from edge_lstm.bundle.schemes import Scheme
from edge_lstm.foundation.errors import EdgeLstmError
from edge_lstm_export.proof.stress import SEGMENTS

# Within a twentieth of the smallest, the fastest is taken: float32 kernels are alike, static products are slow.
_ALIKE = 1.05
_FASTEST_FIRST: tuple[Scheme, ...] = ("int8-dynamic", "int8", "float32", "float16", "int4", "int8-static")


@dataclass(frozen=True)
class Budgets:
    """Limits on every variant and backend; None: no limit."""

    drift: float | None = None  # of the held-out recording, in standard deviations
    metric_loss: float | None = None  # relative, of the worst output
    bytes: int | None = None  # of a variant's file

    def faults(self, certificate: Certificate, scheme: str) -> list[str]:
        """What of the scheme breaks them, in words."""
        faults = []
        for one in certificate.variants:
            if one.scheme != scheme:
                continue
            drift = one.drift[SEGMENTS[0]]
            for what, found, limit in (
                ("drift", drift, self.drift),
                ("metric loss", one.metric_loss, self.metric_loss),
                ("bytes", one.bytes, self.bytes),
            ):
                if limit is not None and not found <= limit:
                    faults.append(f"{one.backend} {scheme} has {what} {found:.4g} > {limit:g}")
        return faults


UNLIMITED = Budgets()


def chosen(bundle: Bundle, certificate: Certificate, schemes: Sequence[Scheme], budgets: Budgets) -> Scheme:
    """The smallest scheme within the budgets, or the fastest of those as small. Raises EdgeLstmError without one."""
    measured = {one.scheme for one in certificate.variants}
    faults = {scheme: budgets.faults(certificate, scheme) for scheme in schemes if scheme in measured}
    fit = [scheme for scheme in faults if not faults[scheme]]
    if not fit:
        raise _over("a scheme within the budgets", [fault for found in faults.values() for fault in found[:1]])

    def size(scheme: Scheme) -> int:
        return sum(len(bundle.content[one.file]) for one in bundle.manifest.variants if one.scheme == scheme)

    formats = {scheme: [one.format for one in bundle.manifest.variants if one.scheme == scheme] for scheme in fit}
    each = {scheme: size(scheme) / len(formats[scheme]) for scheme in fit}
    alike = [scheme for scheme in fit if each[scheme] <= _ALIKE * min(each.values())]
    return min(alike, key=_FASTEST_FIRST.index)


def refuse_over(certificate: Certificate, schemes: Sequence[Scheme], budgets: Budgets) -> None:
    """Raise EdgeLstmError where any of the schemes breaks a budget on any backend."""
    faults = [fault for scheme in schemes for fault in budgets.faults(certificate, scheme)]
    if faults:
        raise _over("every variant within the budgets", faults)


def _over(expected: str, faults: Sequence[str]) -> EdgeLstmError:
    return EdgeLstmError(
        f"expected {expected}, found {'; '.join(faults)}",
        "nothing was written; add --distill, leave that scheme out, or allow more",
    )
