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
    """Write the bundle of a training run, test it on every installed backend, and return it open.

    `run`: the result of `edge_lstm_train.train`, or the run folder. `path`: file of the bundle, by default NAME.elstm
    in the working folder. `schemes`: one or several ways to store the weights; "auto" chooses the smallest within the
    limits below. `formats`: one or several file formats of the backends. `distill`: train the int8 and int4 weights to
    match float32. `certificate`: measure every variant on every backend over 100,000 steps with carried state, and add
    the figures to the report of the run. The limits need a certificate: `max_drift` (in standard deviations of the
    predictions), `max_metric_loss` (relative; 0.005 is 0.5 %) and `max_bytes` (file of a variant). `sign_with`: file of
    a private key. Progress goes to stderr.

    Raises EdgeLstmError, and leaves `path` unchanged, if the run is missing or damaged, if a variant fails its
    self-test or exceeds a limit, or if a package is missing.
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
    """Write the bundle of a recurrent ONNX model from another project, and return it open.

    `model`: the .onnx file. `path`: file of the bundle, by default NAME.elstm in the working folder. `name`: name of
    the model, by default that of the file. `states`: for the input of each state, the output with its next value; by
    default found by shape and name. `constants`: values of the constant inputs. `width`: values per step, if the model
    does not fix this number. `context`: number of values of earlier steps that the model takes before those of the
    step. `interval_s`: seconds between two steps.

    Raises EdgeLstmError if the states are not inputs and outputs of the model, if a backend does not reproduce its
    outputs, or if a package is missing.
    """
    from edge_lstm.foundation.extras import require

    require("export,onnx", "onnx", "onnxruntime")
    from edge_lstm_export.adoption.adopt import adopt as adopt_model
    from edge_lstm_export.adoption.foreign_graph import AdoptOptions

    options = AdoptOptions(name or Path(model).stem, states or {}, constants or {}, width, context, interval_s)
    bundle, _ = adopt_model(Path(model), Path(f"{options.name}.elstm") if path is None else Path(path), options)
    return bundle
