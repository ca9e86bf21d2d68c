"""The model card: the README.md inside a bundle, for people who have the file alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from edge_lstm.bundle.archive import Architecture, Manifest
from edge_lstm.bundle.contract import Contract
from edge_lstm.bundle.data_sheet import KNOWN_AHEAD, duration


def model_card(manifest: Manifest, content: Mapping[str, bytes]) -> str:
    """The card in Markdown; `content` holds the files of the variants."""
    contract, architecture = manifest.contract, manifest.architecture
    every = f", one every {duration(contract.sampling.interval_s)}" if contract.sampling.interval_s else ""
    lines = [
        f"# {contract.name}",
        "",
        f"{_purpose(contract)}, from readings{every}.",
        "It takes one reading at a time and carries its state from each to the next:",
        f"{_kind(architecture)}, {architecture.parameters:,} parameters.",
        *_intervals(contract),
        *_known_ahead(manifest),
        "",
        "| feature | unit | mean | standard deviation |",
        "|---|---|---:|---:|",
        *[
            f"| {feature.name} | {feature.unit or '-'} | {feature.mean:.6g} | {feature.scale:.6g} |"
            for feature in contract.features
        ],
        "",
        "| variant | file | bytes |",
        "|---|---|---:|",
        *[
            f"| {variant.format} {variant.scheme} | {variant.file} | {len(content[variant.file]):,} |"
            for variant in manifest.variants
        ],
        "",
        "Normalization is part of the model: values go in and come out in the units above. `golden.npz` holds an input",
        "tape and what the model has to answer to it; a device checks that before it runs the model.",
        "",
        f"    edge-lstm inspect {contract.name}.elstm",
        f"    edge-lstm verify {contract.name}.elstm",
        f"    edge-lstm replay {contract.name}.elstm recording.csv",
        "",
    ]
    return "\n".join(lines)


def _purpose(contract: Contract) -> str:
    """The purpose of the model, as the beginning of a sentence."""
    named = _listed(contract.targets)
    ahead = f"{_listed(contract.horizons)} step{'' if contract.horizons == [1] else 's'} ahead"
    if contract.decision is not None:
        when = "" if contract.horizons == [0] else f" {ahead}"
        return f"Tells {contract.decision.label}{when} ({named})"
    if contract.alarm is not None:
        return f"Raises an alarm where {named} are not as they were in a stream's first steps"
    return f"Estimates {named}" if contract.horizons == [0] else f"Forecasts {named}, {ahead}"


def _intervals(contract: Contract) -> list[str]:
    """How often the truth should lie in the published intervals, as lines; none without intervals."""
    if contract.intervals is None:
        return []
    return [f"With each prediction it gives an interval that holds the truth in {100 * contract.intervals.level:g} %."]


def _known_ahead(manifest: Manifest) -> list[str]:
    """Which forecasts it takes, and whether its figures are those of actual values; none without forecasts."""
    known = manifest.contract.known_ahead
    if not known:
        return []
    listed = _listed([f"{one.name} ({_listed(one.steps)} steps ahead)" for one in known])
    lines = ["", f"It takes forecasts of {listed}; without one it goes on, and names what it lacks in `degraded`."]
    return [*lines, *([f"**{manifest.provenance[KNOWN_AHEAD]}**"] if KNOWN_AHEAD in manifest.provenance else [])]


def _kind(architecture: Architecture) -> str:
    if architecture.cell == "none":
        return "a linear network of the newest samples"
    article = "an" if architecture.cell == "lstm" else "a"
    return f"{article} {architecture.cell.upper()} of {architecture.layers} x {architecture.hidden} units"


def _listed(items: Sequence[object]) -> str:
    *rest, last = map(str, items)
    return f"{', '.join(rest)} and {last}" if rest else last
