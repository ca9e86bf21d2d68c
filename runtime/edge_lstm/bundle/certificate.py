"""The certificate: each variant on each installed backend, measured by export against the float32 torch model."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from dataclasses import dataclass

from edge_lstm.bundle.archive import CERTIFICATE, Bundle
from edge_lstm.bundle.untrusted_json import parsed_json
from edge_lstm.foundation.config import from_mapping, key
from edge_lstm.foundation.errors import BundleError
from edge_lstm.foundation.text import is_printable

_MAX_VALUES = 20_000


@dataclass(frozen=True)
class VariantFigures:
    """The figures of one variant on one backend, over all steps of all segments."""

    backend: str = key(doc="the inference backend")
    scheme: str = key(doc="how its weights are stored")
    bytes: int = key(doc="size of its file")
    drift: dict[str, float] = key(
        doc="by segment: RMS difference, in standard deviations of the recording's predictions"
    )
    error: float = key(doc="largest difference, relative to the largest magnitude, of the worst segment and output")
    first_tenth: float = key(doc="the same in the first tenth of the recording's stream")
    last_tenth: float = key(doc="the same in its last tenth; an error that accumulates is larger here")
    metric_after: float = key(doc="the task's metric; Certificate.metric_before is float32's")
    metric_loss: float = key(
        doc="loss of the metric of the worst output: relative, or absolute for rates; above 0: worse than float32"
    )
    flipped: float = key(doc="share of the recording's steps whose label or alarm differs from that of float32")
    smallest_batch: int | None = key(
        doc="rows agree bit for bit from this batch size on; none: rows are stepped one at a time"
    )

    @property
    def worst(self) -> tuple[str, float]:
        """The segment with the largest drift, and that drift."""
        segment = max(self.drift, key=lambda name: self.drift[name])
        return segment, self.drift[segment]


@dataclass(frozen=True)
class Certificate:
    """Figures of the model, and of each variant on each backend."""

    steps: int = key(doc="steps of each segment, with carried state")
    segments: list[str] = key(doc="names of the inputs")
    metric: str = key(doc="the task's metric: rmse in standard deviations of the truth, or error rate")
    metric_before: float = key(doc="of the float32 torch model, mean of outputs")
    warm_up_steps: int | None = key(doc="steps until two start states agree to 1e-3; none: not within the recording")
    saturation: dict[str, float] = key(doc="by layer: share of gate values below 0.018 or above 0.982")
    variants: list[VariantFigures] = key(doc="figures of each variant on each backend")
    dead_sensors: dict[str, float] = key(
        {},
        doc="by sensor: RMSE of float32 on the test part while it is dead, over that of a ridge without it; the worst",
    )

    def faults(self) -> Iterator[tuple[str, str]]:
        if not self.segments:
            yield "segments", "expected at least one"
        for index, one in enumerate(self.variants):
            if sorted(one.drift) != sorted(self.segments):
                yield f"variants[{index}].drift", "expected a number for each segment"
            if not is_printable(one.backend + one.scheme):
                yield f"variants[{index}]", "expected names without control characters"
        if not all(map(is_printable, [self.metric, *self.segments, *self.saturation, *self.dead_sensors])):
            yield "segments", "expected texts without control characters"

    @property
    def summary(self) -> str:
        """One line of text."""
        if not self.variants:
            return "nothing: no backend for it was installed during export"
        names = len({one.backend for one in self.variants})
        worst = max(self.variants, key=lambda one: one.worst[1])
        lone = [f"{one.backend} {one.scheme}" for one in self.variants if one.smallest_batch is None]
        rows = f"; rows one at a time on {', '.join(lone)}" if lone else ""
        warm = "not within the recording" if self.warm_up_steps is None else f"after {self.warm_up_steps} steps"
        return (
            f"{self.steps:,} steps x {len(self.segments)} segments on {names} backends; worst drift "
            f"{worst.worst[1]:.4f} ({worst.backend} {worst.scheme}, {worst.worst[0]}); starts agree {warm}{rows}"
        )


def figures_table(certificate: Certificate) -> tuple[list[str], list[list[str]]]:
    """Header and rows, as texts, of the figures of each variant on each backend."""
    drifts = [f"drift, {segment}" for segment in certificate.segments]
    head = [
        "variant",
        "bytes",
        *drifts,
        "largest error",
        "first, last tenth",
        f"{certificate.metric} change",
        "decisions flipped",
    ]
    rows = [
        [
            f"{one.backend} {one.scheme}",
            f"{one.bytes:,}",
            *(f"{drift:.2g}" for drift in one.drift.values()),
            f"{one.error:.1e}",
            f"{one.first_tenth:.1e}, {one.last_tenth:.1e}",
            f"{100 * one.metric_loss:+.2f} %",
            f"{100 * one.flipped:.2f} %",
            str(one.smallest_batch) if one.smallest_batch else "none: one at a time",
        ]
        for one in certificate.variants
    ]
    return [*head, "rows alike from a batch of"], rows


def summary_text(certificate: Certificate) -> str:
    """The figures of the model in a few sentences."""
    saturated = ", ".join(f"{name} {100 * share:.1f} %" for name, share in certificate.saturation.items())
    unit = "" if certificate.metric == "error rate" else " standard deviations"
    ratios = ", ".join(f"{name} {ratio:.2f}" for name, ratio in certificate.dead_sensors.items())
    dead = f" RMSE with a dead sensor, over that of a ridge without it: {ratios}." if ratios else ""
    return (
        f"{certificate.summary}. {certificate.metric} of the float32 model: {certificate.metric_before:.4g}{unit}. "
        f"Gates that no longer answer: {saturated or 'none, since it has no layers'}.{dead}"
    )


def read_certificate(bundle: Bundle) -> Certificate | None:
    """The bundle's certificate; None: it has none. Raises BundleError if the file is no certificate."""
    content = bundle.content.get(CERTIFICATE)
    if content is None:
        return None
    where = f"{bundle.source}:{CERTIFICATE}"
    try:
        facts = parsed_json(content, _MAX_VALUES)
    except ValueError as error:
        raise BundleError(f"{where}: expected JSON, found: {error}", "export the bundle again") from None
    if not isinstance(facts, dict):
        raise BundleError(f"{where}: expected a table, found another value", "export the bundle again")
    return from_mapping(facts, Certificate, where, BundleError)


def to_json(certificate: Certificate) -> bytes:
    """The certificate as JSON. Equal certificates give equal bytes."""
    facts = dataclasses.asdict(certificate)
    if not certificate.dead_sensors:  # release 0.1.0 refuses keys that it does not know
        del facts["dead_sensors"]
    return (json.dumps(facts, indent=1) + "\n").encode()
