"""A training run into a bundle: what `edge-lstm export` and `edge_lstm_export.export` share."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

import click

from edge_lstm.bundle.archive import Bundle
from edge_lstm.bundle.keys import SigningKey
from edge_lstm.bundle.purpose import Purpose
from edge_lstm.bundle.schemes import Format, Scheme
from edge_lstm.bundle.web_page import model_page
from edge_lstm.foundation.config import suggestion
from edge_lstm.foundation.errors import EdgeLstmError
from edge_lstm.foundation.files import write_file
from edge_lstm.foundation.text import escaped
from edge_lstm_export.assemble import ANY_PURPOSE, Exported, Proof, export_bundle
from edge_lstm_export.proof.budgets import Budgets
from edge_lstm_export.proof.certify import STEPS
from edge_lstm_export.quantization.quantize import unsupported_reason
from edge_lstm_train.model.checkpoint import Checkpoint, load_checkpoint

if TYPE_CHECKING:
    from edge_lstm_train.run import Run

_CERTIFICATE = "certificate.html"  # beside the training report
_AUTO_DRIFT, _AUTO_METRIC_LOSS = 0.005, 0.005  # for schemes = "auto" without a budget

_FORMER_RUN = (
    "note: the run kept no readings (an earlier release trained it), so the faults of the certificate are in the "
    "model's inputs, and derived inputs do not show them; train again to certify faulty readings"
)


@dataclass(frozen=True)
class ExportOptions:
    """How a run is exported; the defaults are those of the command."""

    schemes: tuple[Scheme, ...] | Literal["auto"] = ("float32", "int8")
    formats: tuple[Format, ...] = ("onnx", "tflite", "numpy")
    distill: bool = False
    certificate: bool = True
    max_drift: float | None = None  # in standard deviations
    max_metric_loss: float | None = None  # relative
    max_bytes: int | None = None  # of a variant's file
    sign_with: SigningKey | Path | None = None  # a private key, or its file
    purpose: Purpose = ANY_PURPOSE

    @property
    def limited(self) -> bool:
        """Whether there is a budget."""
        return any(limit is not None for limit in (self.max_drift, self.max_metric_loss, self.max_bytes))


def export_run(run: Run | str | Path, path: Path | None, options: ExportOptions) -> Exported:
    """Write the bundle at `path` (None: NAME.elstm), and add its scores to the run's report; progress goes to stderr.

    `run`: a Run or its folder. Raises EdgeLstmError where the options do not go together, and where `export_bundle`
    does.
    """
    if options.schemes != "auto":
        _refuse_unknown("scheme", options.schemes, get_args(Scheme))
    _refuse_unknown("format", options.formats, get_args(Format))
    if (options.schemes == "auto" or options.limited) and not options.certificate:
        raise EdgeLstmError(
            'expected a certificate for schemes="auto" and for budgets, found certificate=False',
            "leave certificate out",
        )
    if faults := [f"{name}: {message}" for name, message in options.purpose.faults()]:
        raise EdgeLstmError("; ".join(faults), "correct these options")
    if isinstance(run, (str, Path)):
        run_dir, checkpoint = Path(run), load_checkpoint(Path(run))
    else:
        run_dir, checkpoint = run.run_dir, run.checkpoint
    path = path or Path(f"{checkpoint.contract.name}.elstm")
    formats = list(dict.fromkeys(options.formats))
    schemes = _all_schemes(checkpoint, formats) if options.schemes == "auto" else list(dict.fromkeys(options.schemes))
    if options.certificate and checkpoint.samples is None:
        click.echo(_FORMER_RUN, err=True)
    click.echo(f"writing {', '.join(schemes)} as {', '.join(formats)}, and testing each on its backends", err=True)
    budgets = Budgets(options.max_drift, options.max_metric_loss, options.max_bytes)
    if options.schemes == "auto" and not options.limited:
        budgets = Budgets(_AUTO_DRIFT, _AUTO_METRIC_LOSS)
    steps = STEPS if options.certificate else None
    proof = Proof(options.distill, steps, budgets, options.schemes == "auto", options.sign_with, options.purpose)
    exported = export_bundle(checkpoint, path, schemes, formats, proof)
    if options.certificate:
        write_file(run_dir / _CERTIFICATE, model_page(exported.bundle))
        click.echo(f"wrote {run_dir / _CERTIFICATE}", err=True)
        _rescore(run_dir, exported.bundle)
    return exported


def _refuse_unknown(what: str, names: tuple[str, ...], known: tuple[str, ...]) -> None:
    unknown = [name for name in names if name not in known]
    if unknown:
        raise EdgeLstmError(
            f'expected {what}s of {", ".join(known)}, found "{unknown[0]}"', suggestion(str(unknown[0]), known)
        )
    if not names:
        raise EdgeLstmError(f"expected at least one {what} of {', '.join(known)}, found none", "name one")


def _all_schemes(checkpoint: Checkpoint, formats: list[Format]) -> list[Scheme]:
    """The schemes that some format has for this network."""
    network = checkpoint.model.network()
    known: tuple[Scheme, ...] = get_args(Scheme)
    return [scheme for scheme in known if not all(unsupported_reason(network, scheme, format) for format in formats)]


def _rescore(run_dir: Path, bundle: Bundle) -> None:
    """Add the bundle's own scores to the run's report, if the run is complete and its recording still exists."""
    from edge_lstm_export.rescore import rescore  # these two need matplotlib, which a bundle alone does not
    from edge_lstm_train.run import METRICS, RECIPE, REPORT

    if not all((run_dir / name).is_file() for name in (RECIPE, METRICS, REPORT)):
        return
    try:
        evaluation = rescore(run_dir, bundle)
    except EdgeLstmError as error:
        click.echo(f"note: {run_dir / REPORT} has no scores of the bundle: {error.message}", err=True)
        return
    click.echo(escaped(f"streamed through the bundle: {evaluation.verdict}"), err=True)
