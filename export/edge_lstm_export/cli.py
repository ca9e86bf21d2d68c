"""The verb `export`; it imports torch and the writers' packages when it runs, and names the one that is missing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, get_args

import click

from edge_lstm.bundle.schemes import Format, Scheme
from edge_lstm.foundation.errors import EdgeLstmError
from edge_lstm.foundation.extras import require

if TYPE_CHECKING:
    from edge_lstm.bundle.archive import Bundle
    from edge_lstm_export.assemble import Exported


_CERTIFICATE = "certificate.html"  # beside the training report
_AUTO_DRIFT, _AUTO_METRIC_LOSS = 0.005, 0.005  # where --scheme auto is given no budget
_SCHEMES, _FORMATS = get_args(Scheme), get_args(Format)


def _names_of(known: tuple[str, ...], *extra: str) -> Callable[[click.Context, click.Parameter, str], list[str]]:
    """Reads a comma list of known names, each once."""

    def read(context: click.Context, parameter: click.Parameter, text: str) -> list[str]:
        names = [name.strip() for name in text.split(",")]
        if names == ["auto"] and "auto" in extra:
            return names
        for name in names:
            if name not in known:
                raise click.BadParameter(f"expected names of {', '.join(known)}, found {name!r}")
        return list(dict.fromkeys(names))

    return read


@click.command()
@click.argument("run_dir", type=click.Path(path_type=Path))
@click.option("-o", "--output", type=click.Path(path_type=Path), help="The bundle's file. Default: NAME.elstm.")
@click.option(
    "--scheme",
    "schemes",
    metavar="NAME,NAME",
    callback=_names_of(_SCHEMES, "auto"),
    default="float32,int8",
    show_default=True,
    help=f"How weights are stored: {', '.join(_SCHEMES)}, or auto: the smallest within the budgets.",
)
@click.option(
    "--format",
    "formats",
    metavar="NAME,NAME",
    callback=_names_of(_FORMATS),
    default=",".join(_FORMATS),
    show_default=True,
    help="For which backends.",
)
@click.option("--distill", is_flag=True, help="Teach int8 and int4 by the float32 model, for less drift.")
@click.option(
    "--certificate/--no-certificate",
    default=True,
    show_default=True,
    help="Measure every variant on every backend over 100,000 carried steps.",
)
@click.option("--max-drift", type=click.FloatRange(0), help="Refuse more drift than that, in standard deviations.")
@click.option("--max-metric-loss", type=click.FloatRange(0), help="Refuse a larger relative loss than that, as .005.")
@click.option("--max-bytes", type=click.IntRange(1), help="Refuse a variant's file that is larger.")
@click.option("--sign-with", type=click.Path(path_type=Path), metavar="PRIVATE_KEY", help="Sign it (keys new).")
def export(
    run_dir: Path,
    output: Path | None,
    schemes: list[Scheme],
    formats: list[Format],
    distill: bool,
    certificate: bool,
    max_drift: float | None,
    max_metric_loss: float | None,
    max_bytes: int | None,
    sign_with: Path | None,
) -> None:
    """Make a bundle of a training run, proven on every backend that is installed here."""
    limited = any(limit is not None for limit in (max_drift, max_metric_loss, max_bytes))
    auto = schemes == ["auto"]
    if (auto or limited) and not certificate:
        raise click.UsageError("expected a certificate for --scheme auto and for budgets, found --no-certificate")
    require("train,export", "torch")
    require("export", "onnx", "tflite", "flatbuffers")
    from edge_lstm.bundle.web_page import model_page
    from edge_lstm.foundation.files import write_file
    from edge_lstm_export.assemble import Proof, export_bundle
    from edge_lstm_export.proof.budgets import Budgets
    from edge_lstm_export.proof.certify import STEPS
    from edge_lstm_export.quantization.quantize import unfit
    from edge_lstm_train.model.checkpoint import load_checkpoint

    checkpoint = load_checkpoint(run_dir)
    path = output or Path(f"{checkpoint.contract.name}.elstm")
    if auto:
        network = checkpoint.model.network()
        schemes = [one for one in get_args(Scheme) if not all(unfit(network, one, format) for format in formats)]
    click.echo(f"writing {', '.join(schemes)} as {', '.join(formats)}, and proving each on its backends", err=True)
    if auto and not limited:
        max_drift, max_metric_loss = _AUTO_DRIFT, _AUTO_METRIC_LOSS
    budgets = Budgets(max_drift, max_metric_loss, max_bytes)
    proof = Proof(distill, STEPS if certificate else None, budgets, auto, sign_with)
    exported = export_bundle(checkpoint, path, schemes, formats, proof)
    if certificate:
        write_file(run_dir / _CERTIFICATE, model_page(exported.bundle))
        click.echo(f"wrote {run_dir / _CERTIFICATE}", err=True)
        _rescore(run_dir, exported.bundle)
    click.echo(_table(exported, path))
    for variant in exported.unproven:
        click.echo(f"note: no backend for {variant.format} is installed here; {variant.file} is unproven", err=True)


def _rescore(run_dir: Path, bundle: Bundle) -> None:
    """The bundle's own scores into the run's report, where the run is whole and its recording still there."""
    from edge_lstm_export.rescore import rescore
    from edge_lstm_train.run import METRICS, RECIPE, REPORT

    if not all((run_dir / name).is_file() for name in (RECIPE, METRICS, REPORT)):
        return
    try:
        evaluation = rescore(run_dir, bundle)
    except EdgeLstmError as error:
        click.echo(f"note: {run_dir / REPORT} has no scores of the bundle: {error.message}", err=True)
        return
    click.echo(f"streamed through the bundle: {evaluation.verdict}", err=True)


def _table(exported: Exported, path: Path) -> str:
    from edge_lstm.backends.registry import format_of

    bundle = exported.bundle
    lines = [
        f"{path}  id {bundle.id}  {path.stat().st_size:,} bytes",
        f"{'variant':<16}{'bytes':>9}  {'backend':<15}{'parity':>8}{'drift':>9}",
    ]
    for variant in bundle.manifest.variants:
        begin = f"{variant.format + ' ' + variant.scheme:<16}{len(bundle.content[variant.file]):>9,}  "
        verdicts = [
            verdict
            for verdict in exported.verdicts
            if (format_of(verdict.backend), verdict.scheme) == (variant.format, variant.scheme)
        ]
        if not verdicts:
            lines.append(f"{begin}none here")
        for verdict in verdicts:
            rows = "  rows one at a time" if verdict.one_by_one else ""
            lines.append(f"{begin}{verdict.backend:<15}{verdict.error:>8.1e}{verdict.drift:>9.4f}{rows}")
            begin = " " * len(begin)
    return "\n".join(lines)
