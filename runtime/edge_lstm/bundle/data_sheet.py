"""The data sheet of a bundle, as text and as JSON."""

from __future__ import annotations

import dataclasses
from math import prod
from typing import Any

from edge_lstm.bundle.archive import Bundle
from edge_lstm.bundle.certificate import read_certificate
from edge_lstm.bundle.contract import Contract, Feature
from edge_lstm.bundle.purpose import Purpose
from edge_lstm.bundle.signing import signer

# Entries of the provenance in the text; `facts` has all.
_PROVENANCE_SHOWN = ("recording", "verdict", "exported by")


def facts(bundle: Bundle) -> dict[str, Any]:
    """The manifest with the bundle's id, the size of each file and the state bytes per stream, for JSON."""
    certificate = read_certificate(bundle)
    return {
        "id": bundle.id,
        "state_bytes_per_stream": state_bytes(bundle),
        "bytes": {name: len(data) for name, data in sorted(bundle.content.items())},
        "certificate": None if certificate is None else dataclasses.asdict(certificate),
        "signed_by": signer(bundle),
        **dataclasses.asdict(bundle.manifest),
    }


def state_bytes(bundle: Bundle) -> int:
    """Bytes of the state tensors (float32) of one stream."""
    return sum(4 * prod(state.shape) for state in bundle.contract.states)


def data_sheet(bundle: Bundle) -> str:
    """The data sheet as text."""
    lines = [f"{name:<10}{text}" for name, text in sheet_rows(bundle)]
    lines += ["", f"{'variant':<18}{'bytes':>9}   {'parity':>7}  {'drift':>7}"]
    for name, size, parity, drift, rows in variant_rows(bundle):
        lines.append(f"{name:<18}{size:>9}   {parity}  {drift:>7}  {rows}".rstrip())
    lines += [""] + [
        f"{name:<18}{' '.join(bundle.manifest.provenance[name].split())}"
        for name in _PROVENANCE_SHOWN
        if name in bundle.manifest.provenance
    ]
    return "\n".join(lines)


def variant_rows(bundle: Bundle) -> list[tuple[str, str, str, str, str]]:
    """Of each variant: format and scheme, bytes, limits of parity and drift, and whether rows go one at a time."""
    return [
        (
            f"{variant.format} {variant.scheme}",
            f"{len(bundle.content[variant.file]):,}",
            f"<={variant.parity:.0e}",
            f"<={variant.drift:g}",
            "rows one at a time" if variant.row_by_row else "",
        )
        for variant in bundle.manifest.variants
    ]


def sheet_rows(bundle: Bundle) -> list[tuple[str, str]]:
    """The entries of the data sheet, (name, text) each."""
    contract, architecture = bundle.contract, bundle.manifest.architecture
    sampling = contract.sampling
    rows = [
        ("bundle", f"{contract.name}, id {bundle.id}"),
        *_purpose_rows(bundle.manifest.purpose),
        ("task", contract.task),
        ("takes", _listed([_with_unit(feature.name, feature.unit) for feature in contract.features])),
    ]
    if kinds := list(filter(None, map(_kind, contract.features))):
        rows.append(("as", _listed(kinds)))
    if missing := list(filter(None, map(_missing_values, contract.features))):
        rows.append(("missing", _listed(missing)))
    if contract.clock:
        rows.append(("clock", ", ".join(name.replace("_", " ") for name in contract.clock) + " (UTC)"))
    if sampling.interval_s:
        rows.append(("every", duration(sampling.interval_s)))
    if sampling.max_gap_s:
        rows.append(("restarts", f"a stream that was silent for more than {duration(sampling.max_gap_s)}"))
    rows += [
        ("gives", _outputs(contract)),
        ("ahead", _horizons_text(contract.horizons)),
        *([] if contract.intervals is None else [("intervals", f"{100 * contract.intervals.level:g} % about each")]),
        (
            "network",
            f"{architecture.kind}, {architecture.parameters:,} parameters",
        ),
        ("carries", f"{', '.join(state.name for state in contract.states)}: {state_bytes(bundle)} bytes a stream"),
    ]
    if architecture.multiply_accumulates:
        rows.append(("computes", f"{architecture.multiply_accumulates:,} multiply-accumulates a step"))
    certificate = read_certificate(bundle)
    rows.append(("certified", "no: exported without a certificate" if certificate is None else certificate.summary))
    if (key := signer(bundle)) is not None:
        rows.append(("signed", f"by the key {key} (edge-lstm verify --trust checks it)"))
    return rows


def _kind(feature: Feature) -> str:
    """What the numbers of the feature are, where they are no plain measurements; empty: they are."""
    if feature.counter:
        return f"{feature.name}: the reading of a counter"
    return "" if feature.period is None else f"{feature.name}: on a circle of {feature.period:g}"


def _purpose_rows(purpose: Purpose) -> list[tuple[str, str]]:
    rows = [("version", str(purpose.version))] if purpose.version else []
    rows += [("for", _listed([*purpose.devices]))] if purpose.devices else []
    return rows + ([("expires", f"after {purpose.expires}")] if purpose.expires else [])


def _missing_values(feature: Feature) -> str:
    """Which values of the feature are missing, like "co2 below 0 or -200"; empty: none."""
    bounds = [("below", feature.least), ("above", feature.most)]
    rules = [f"{word} {bound:g}" for word, bound in bounds if bound is not None]
    rules += [f"{code:g}" for code in feature.sentinels]
    return f"{feature.name} {' or '.join(rules)}" if rules else ""


def _outputs(contract: Contract) -> str:
    """The outputs of a prediction."""
    named = _listed([_with_unit(name, unit) for name, unit in contract.target_units.items()])
    if contract.decision is not None:
        return f"{contract.decision.label}, one of {named}"
    if contract.alarm is not None:
        how = "with the sensors that drove them, calibrated by each stream's own first steps"
        return f"a score and an alarm for {named}, {how}"
    return named


def _horizons_text(horizons: list[int]) -> str:
    if horizons == [0]:
        return "the same step"
    return ", ".join(map(str, horizons)) + (" step" if horizons == [1] else " steps")


def duration(seconds: float) -> str:
    """A duration in its largest whole unit: 900 -> 15 min."""
    for unit, size in (("d", 86_400.0), ("h", 3_600.0), ("min", 60.0)):
        if seconds >= size and (seconds / size).is_integer():
            return f"{seconds / size:g} {unit}"
    return f"{seconds:g} s"


def _listed(names: list[str]) -> str:
    """All names; of more than 24 the first, the last and the count."""
    return ", ".join(names) if len(names) <= 24 else f"{names[0]} to {names[-1]}, {len(names)} in all"


def _with_unit(name: str, unit: str) -> str:
    return f"{name} ({unit})" if unit else name
