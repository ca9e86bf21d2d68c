"""The command `export`, which imports torch and the writers only when it runs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

import click

from edge_lstm.bundle.schemes import Format, Scheme
from edge_lstm.cli.options import passphrase_option, signing_key
from edge_lstm.foundation.extras import require

if TYPE_CHECKING:
    from edge_lstm_export.assemble import Exported


_SCHEMES, _FORMATS = get_args(Scheme), get_args(Format)


def _names_of(known: tuple[str, ...], *extra: str) -> Callable[[click.Context, click.Parameter, str], list[str]]:
    """A callback that parses a comma-separated list of known names."""

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
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), metavar="FILE", help="Bundle to write (default: NAME.elstm)."
)
@click.option(
    "--scheme",
    "schemes",
    metavar="NAME,NAME",
    callback=_names_of(_SCHEMES, "auto"),
    default="float32,int8",
    show_default=True,
    help=f"Storage of the weights: {', '.join(_SCHEMES)}; or auto: the smallest within the --max limits.",
)
@click.option(
    "--format",
    "formats",
    metavar="NAME,NAME",
    callback=_names_of(_FORMATS),
    default=",".join(_FORMATS),
    show_default=True,
    help="Model formats to write; each backend reads one of them.",
)
@click.option(
    "--distill", is_flag=True, help="Train the int8 and int4 weights to match the float32 outputs, for less drift."
)
@click.option(
    "--certificate/--no-certificate",
    default=True,
    show_default=True,
    help="Measure every variant on every backend over 100,000 steps with carried state.",
)
@click.option(
    "--max-drift",
    type=click.FloatRange(0),
    metavar="NUMBER",
    help="Largest drift (error against float32), in standard deviations (default: no limit; 0.005 with --scheme auto).",
)
@click.option(
    "--max-metric-loss",
    type=click.FloatRange(0),
    metavar="FRACTION",
    help="Largest relative loss of the test metric; 0.005 is 0.5 % (default: no limit; 0.005 with --scheme auto).",
)
@click.option(
    "--max-bytes",
    type=click.IntRange(1),
    metavar="BYTES",
    help="Largest file of a variant, in bytes (default: no limit).",
)
@click.option(
    "--sign-with",
    type=click.Path(path_type=Path),
    metavar="PRIVATE_KEY",
    help="Sign the bundle with this key, made by the command keys new (default: unsigned).",
)
@passphrase_option
@click.option(
    "--version",
    type=click.IntRange(0),
    default=0,
    metavar="N",
    help="Version of the bundle; a service refuses an older one than it has run (default: none).",
)
@click.option(
    "--device",
    "devices",
    multiple=True,
    metavar="CLIENT_ID",
    help="Device that may run it, or a pattern like pump-*; repeatable (default: all).",
)
@click.option(
    "--expires", metavar="DAY", help="Last day on which it may start, like 2027-12-31, in UTC (default: no limit)."
)
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
    passphrase_file: Path | None,
    version: int,
    devices: tuple[str, ...],
    expires: str | None,
) -> None:
    """Make a bundle from a training run, and test it on each backend.

    RUN_DIR is the run folder of edge-lstm train. A bundle that fails on an installed backend is not written.
    """
    limited = any(limit is not None for limit in (max_drift, max_metric_loss, max_bytes))
    auto = schemes == ["auto"]
    if (auto or limited) and not certificate:
        raise click.UsageError("expected a certificate for --scheme auto and for limits, found --no-certificate")
    require("train,export", "torch")
    require("export", "onnx", "tflite", "flatbuffers")
    from edge_lstm.bundle.purpose import Purpose
    from edge_lstm_export.export_run import ExportOptions, export_run

    chosen: tuple[Scheme, ...] | Literal["auto"] = "auto" if auto else tuple(schemes)
    budgets = (max_drift, max_metric_loss, max_bytes)
    purpose = Purpose(version, devices, expires)
    key = None if sign_with is None else signing_key(sign_with, passphrase_file)
    options = ExportOptions(chosen, tuple(formats), distill, certificate, *budgets, key, purpose)
    exported = export_run(run_dir, output, options)
    click.echo(_table(exported))
    untested: dict[str, list[str]] = {}
    for variant in exported.unproven:
        untested.setdefault(variant.format, []).append(variant.file)
    for format, files in untested.items():
        click.echo(
            f"note: no backend for {format} is installed here; not tested: {', '.join(files)}\n"
            f"hint: pip install 'edge-lstm[{format}]', or test the bundle on the device with edge-lstm verify",
            err=True,
        )


def _table(exported: Exported) -> str:
    from edge_lstm.backends.registry import format_of

    bundle, path = exported.bundle, Path(exported.bundle.source)
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
