"""Export: a training run or a foreign ONNX model in, one proven bundle out.

Importing the package imports neither torch nor onnx; `export` and `adopt` do, and say what to install where they are
missing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal, cast

if TYPE_CHECKING:
    from edge_lstm.bundle.archive import Bundle
    from edge_lstm.bundle.schemes import Format, Scheme
    from edge_lstm_train.run import Run

__all__ = ["adopt", "export"]


def export(
    run: Run | str | Path,
    path: str | Path | None = None,
    *,
    schemes: Scheme | Sequence[Scheme] | Literal["auto"] = ("float32", "int8"),
    formats: Format | Sequence[Format] = ("onnx", "tflite", "numpy"),
    distill: bool = False,
    certificate: bool = True,
    max_drift: float | None = None,
    max_metric_loss: float | None = None,
    max_bytes: int | None = None,
    sign_with: str | Path | None = None,
) -> Bundle:
    """Write a training run's bundle, proven on every backend that is installed, and return it open.

    `run`: what `edge_lstm_train.train` returned, or its folder. `path`: the bundle's file, without it NAME.elstm in the
    working folder. `schemes`: how weights are stored, one or several; "auto" chooses the smallest within the budgets.
    `formats`: the backends' file formats, one or several. `distill`: teach int8 and int4 by the float32 model.
    `certificate`: measure every variant on every backend over 100,000 carried steps, and add the figures to the run's
    report. `max_drift` (in standard deviations of the predictions), `max_metric_loss` (relative, 0.005 is half a
    percent) and `max_bytes` (of a variant's file) are budgets, which need a certificate. `sign_with`: a private key's
    file. Progress goes to stderr.

    Raises EdgeLstmError, and leaves `path` unchanged, where the run is missing or damaged, a variant fails its
    self-test or breaks a budget, or a package is missing.
    """
    from edge_lstm.foundation.extras import require

    require("train,export", "torch")
    require("export", "onnx", "tflite", "flatbuffers")
    from edge_lstm_export.export_run import ExportOptions, export_run

    options = ExportOptions(
        "auto" if schemes == "auto" else cast("tuple[Scheme, ...]", _listed(schemes)),
        cast("tuple[Format, ...]", _listed(formats)),
        distill,
        certificate,
        max_drift,
        max_metric_loss,
        max_bytes,
        None if sign_with is None else Path(sign_with),
    )
    return export_run(run, None if path is None else Path(path), options).bundle


def _listed(names: str | Sequence[str]) -> tuple[str, ...]:
    """One name or several, as a tuple."""
    return (names,) if isinstance(names, str) else tuple(names)


def adopt(
    model: str | Path,
    path: str | Path | None = None,
    *,
    name: str | None = None,
    states: Mapping[str, str] | None = None,
    constants: Mapping[str, float] | None = None,
    width: int | None = None,
    context: int = 0,
    interval_s: float | None = None,
) -> Bundle:
    """Write the bundle of a recurrent ONNX model from elsewhere, and return it open.

    `model`: the .onnx file. `path`: the bundle's file, without it NAME.elstm in the working folder. `name`: the
    model's, without it the file's. `states`: the output that continues each state's input; without it they are found by
    shape and name. `constants`: numbers for inputs that never change. `width`: features a step, where the model takes
    any number. `context`: earlier samples that the model takes in front of them. `interval_s`: seconds between steps.

    Raises EdgeLstmError where the model has no explicit states, does not give its own answers on a backend, or a
    package is missing.
    """
    from edge_lstm.foundation.extras import require

    require("export,onnx", "onnx", "onnxruntime")
    from edge_lstm_export.adoption.adopt import adopt as adopt_model
    from edge_lstm_export.adoption.foreign_graph import AdoptOptions

    options = AdoptOptions(name or Path(model).stem, states or {}, constants or {}, width, context, interval_s)
    bundle, _ = adopt_model(Path(model), Path(f"{options.name}.elstm") if path is None else Path(path), options)
    return bundle
