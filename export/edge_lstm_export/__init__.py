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
    version: int = 0,
    devices: Sequence[str] = (),
    expires: str | None = None,
) -> Bundle:
    """Write the bundle of a training run, test it on every installed backend, and return it open.

    `run`: the result of `edge_lstm_train.train`, or the run folder. `path`: file of the bundle, by default NAME.elstm
    in the working folder. `schemes`: one or several ways to store the weights; "auto" chooses the smallest within the
    limits below. `formats`: one or several file formats of the backends. `distill`: train the int8 and int4 weights to
    match float32. `certificate`: measure every variant on every backend over 100,000 steps with carried state, and add
    the figures to the report of the run. The limits need a certificate: `max_drift` (in standard deviations of the
    predictions), `max_metric_loss` (relative; 0.005 is 0.5 %) and `max_bytes` (file of a variant). `sign_with`: file of
    a private key. `version` rises with each bundle of the same name; a service refuses an older one than it has run.
    `devices`: client ids that may run it, or patterns like "pump-*"; empty: all. `expires`: the last day on which it
    may start, like "2027-12-31" (UTC). Progress goes to stderr.

    Raises EdgeLstmError, and leaves `path` unchanged, if the run is missing or damaged, if a variant fails its
    self-test or exceeds a limit, or if a package is missing.
    """
    from edge_lstm.foundation.extras import require

    require("train,export", "torch")
    require("export", "onnx", "tflite", "flatbuffers")
    from edge_lstm.bundle.purpose import MOST_VERSION, Purpose
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
        Purpose(
            whole_number(version, "version", 0, MOST_VERSION),
            _names(devices, "devices", '["pump-1", "pump-2"]'),
            None if expires is None else str(expires),
        ),
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
