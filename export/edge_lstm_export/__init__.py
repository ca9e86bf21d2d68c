"""Export: a training run or a foreign ONNX model in, one proven bundle out.

Importing the package imports neither torch nor onnx; `export` and `adopt` do, and say what to install where they are
missing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal, cast

if TYPE_CHECKING:
    from edge_lstm.bundle.archive import Bundle
    from edge_lstm.bundle.schemes import Format, Scheme
    from edge_lstm_train.run import Run

__all__ = ["adopt", "export"]

_MOST_BYTES = 2**40
_MOST_FEATURES = 1_000_000  # of a step


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
    from edge_lstm.foundation.arguments import flag_argument, number_argument, path_argument, whole_number
    from edge_lstm_export.export_run import ExportOptions, export_run

    if not isinstance(getattr(run, "run_dir", None), Path):  # no isinstance: Run is in a module that needs matplotlib
        run = path_argument(run, "run as a Run or the path of its folder", hint="give what train returned")
    asked = _names(schemes, "schemes", '["float32", "int8"]')
    options = ExportOptions(
        "auto" if asked == ("auto",) and isinstance(schemes, str) else cast("tuple[Scheme, ...]", asked),
        cast("tuple[Format, ...]", _names(formats, "formats", '["onnx", "numpy"]')),
        flag_argument(distill, "distill"),
        flag_argument(certificate, "certificate"),
        None if max_drift is None else number_argument(max_drift, "max_drift"),
        None if max_metric_loss is None else number_argument(max_metric_loss, "max_metric_loss"),
        None if max_bytes is None else whole_number(max_bytes, "max_bytes", 0, _MOST_BYTES),
        None if sign_with is None else path_argument(sign_with, "sign_with as the path of a private key"),
    )
    file = None if path is None else path_argument(path, "the path of the bundle to write")
    return export_run(run, file, options).bundle


def _names(names: object, what: str, example: str) -> tuple[str, ...]:
    """One name or several, as a tuple. Raises EdgeLstmError for other types."""
    from edge_lstm.foundation.arguments import described
    from edge_lstm.foundation.errors import EdgeLstmError

    if isinstance(names, str):
        return (names,)
    listed = [*names] if isinstance(names, Iterable) and not isinstance(names, bytes) else [names]
    if odd := [one for one in listed if not isinstance(one, str)]:
        raise EdgeLstmError(
            f"expected {what} as a name or a list of names, found {described(odd[0])}", f"write {what}={example}"
        )
    return tuple(cast("list[str]", listed))


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
    from edge_lstm.foundation.arguments import described, number_argument, path_argument, whole_number
    from edge_lstm.foundation.errors import EdgeLstmError
    from edge_lstm_export.adoption.adopt import adopt as adopt_model
    from edge_lstm_export.adoption.foreign_graph import AdoptOptions

    file = path_argument(model, "model as the path of an .onnx file")
    if not isinstance(name, (str, type(None))):
        raise EdgeLstmError(f"expected name as a str, found {described(name)}", 'write name="detector"')
    numbers = _table(constants, "constants", '{"sr": 16000.0}')
    options = AdoptOptions(
        name or file.stem,
        _texts(_table(states, "states", '{"h": "next_h"}')),
        {key: number_argument(value, f"constants[{key!r}]") for key, value in numbers.items()},
        None if width is None else whole_number(width, "width", 1, _MOST_FEATURES),
        whole_number(context, "context", 0, _MOST_FEATURES),
        None if interval_s is None else number_argument(interval_s, "interval_s"),
    )
    output = f"{options.name}.elstm" if path is None else path
    bundle, _ = adopt_model(file, path_argument(output, "the path of the bundle to write"), options)
    return bundle


def _table(table: object, what: str, example: str) -> Mapping[str, object]:
    """A mapping with names as keys; empty for None. Raises EdgeLstmError for other types."""
    from edge_lstm.foundation.arguments import described
    from edge_lstm.foundation.errors import EdgeLstmError

    found = {} if table is None else table
    odd = [key for key in found if not isinstance(key, str)] if isinstance(found, Mapping) else [found]
    if odd:
        raise EdgeLstmError(
            f"expected {what} as a mapping of names, found {described(odd[0])}", f"write {what}={example}"
        )
    return cast("Mapping[str, object]", found)


def _texts(states: Mapping[str, object]) -> dict[str, str]:
    """The states' names. Raises EdgeLstmError where a value is no text."""
    from edge_lstm.foundation.arguments import described
    from edge_lstm.foundation.errors import EdgeLstmError

    for name, output in states.items():
        if not isinstance(output, str):
            raise EdgeLstmError(
                f"expected states[{name!r}] as the name of an output, found {described(output)}", "give its name"
            )
    return cast("dict[str, str]", dict(states))
