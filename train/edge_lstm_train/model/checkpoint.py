"""The checkpoint: the result of training that export reads, in one file without pickled code."""

from __future__ import annotations

import dataclasses
import io
import json
import pickle
import struct
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from edge_lstm.bundle.contract import Contract
from edge_lstm.foundation.arrays import Floats
from edge_lstm.foundation.config import from_mapping
from edge_lstm.foundation.errors import EdgeLstmError
from edge_lstm.foundation.files import write_file
from edge_lstm_train.data.feature_vectors import Samples
from edge_lstm_train.model.forecaster import Forecaster, Shape

FORMAT_VERSION = 2
FILE = "checkpoint.pt"
_REMEDY = "train again with this version of edge-lstm"
# what torch.load raises for a file that is damaged or of another kind
UNREADABLE = (
    OSError,
    EOFError,
    RuntimeError,
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    struct.error,
    pickle.UnpicklingError,
)


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """A trained model, its contract, and an input sequence that it was not trained on."""

    model: Forecaster
    contract: Contract
    input_sequence: Floats  # (steps, inputs): steps in order, raw features; for golden vectors and certificate
    provenance: dict[str, str]  # recipe, recording, versions, metrics: for people
    truth: Floats | None = None  # (steps, outputs): the true outputs of the sequence, NaN if unknown
    samples: Samples | None = None  # what the sequence was derived from; None: not kept (release 0.1.0)


def save_checkpoint(run_dir: Path, checkpoint: Checkpoint) -> None:
    """Write the checkpoint into the run folder. On an error the old file stays unchanged."""
    content = {
        "format_version": FORMAT_VERSION,
        "contract": json.dumps(dataclasses.asdict(checkpoint.contract)),
        "shape": json.dumps(dataclasses.asdict(checkpoint.model.shape)),
        "weights": checkpoint.model.state_dict(),
        "tape": torch.from_numpy(checkpoint.input_sequence),
        "truth": None if checkpoint.truth is None else torch.from_numpy(checkpoint.truth),
        "provenance": dict(checkpoint.provenance),
        "samples": None if checkpoint.samples is None else _tensors(checkpoint.samples),
    }
    file = io.BytesIO()
    torch.save(content, file)
    write_file(run_dir / FILE, file.getvalue())


def load_checkpoint(run_dir: Path) -> Checkpoint:
    """The checkpoint of a run. Raises EdgeLstmError if it is missing, damaged, of another format or not finite."""
    path = run_dir / FILE
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of other pickle protocols, which are refused below
            content = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise EdgeLstmError(
            f"expected a run with {FILE} at {run_dir}, found none", "make one with edge-lstm train RECIPE -o RUN_DIR"
        ) from None
    except pickle.UnpicklingError:
        # torch's own message advises to execute the file's content
        raise EdgeLstmError(f"expected a checkpoint at {path}, found another kind of file", _REMEDY) from None
    except UNREADABLE as error:
        found = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise EdgeLstmError(f"expected a checkpoint at {path}, found: {found}", _REMEDY) from None
    version = content.get("format_version") if isinstance(content, dict) else None
    if version != FORMAT_VERSION:
        raise EdgeLstmError(f"{path}: expected format version {FORMAT_VERSION}, found {version}", _REMEDY)
    try:
        return _read(content, path)
    except (KeyError, TypeError, AttributeError, ValueError, RuntimeError) as error:
        found = " ".join(str(error).split()) or type(error).__name__
        raise EdgeLstmError(f"{path}: expected what training writes, found: {found}", _REMEDY) from None


def _read(content: dict[str, Any], path: Path) -> Checkpoint:
    """The checkpoint from the file's content. Raises EdgeLstmError, or any error that unexpected content causes."""
    contract = from_mapping(json.loads(content["contract"]), Contract, f"{path}:contract", EdgeLstmError)
    model = Forecaster(from_mapping(json.loads(content["shape"]), Shape, f"{path}:shape", EdgeLstmError))
    weights = content["weights"]
    weights_shape = weights["change_of"].shape
    model.change_of = torch.zeros(weights_shape, dtype=torch.int64)  # empty, or one per output
    for name in {"free", "tied"} & model.state_dict().keys() - weights.keys():  # of a checkpoint of edge-lstm 0.1.0
        weights[name] = getattr(model, name)
    model.load_state_dict(weights)
    for name, value in weights.items():
        if not torch.isfinite(value).all():
            raise EdgeLstmError(f"{path}: expected finite weights, found NaN or infinity in {name}", _REMEDY)
    if not (weights["scale"] > 0).all():
        raise EdgeLstmError(f"{path}: expected scales above 0, found {float(weights['scale'].min()):g}", _REMEDY)
    model.eval()
    truth = content["truth"]
    inputs, provenance = content["tape"].numpy(), dict(content["provenance"])
    samples = content.get("samples")  # release 0.1.0 kept none
    return Checkpoint(
        model,
        contract,
        inputs,
        provenance,
        None if truth is None else truth.numpy(),
        None if samples is None else Samples(**{name: tensor.numpy() for name, tensor in samples.items()}),
    )


def _tensors(samples: Samples) -> dict[str, torch.Tensor]:
    columns = {field.name: getattr(samples, field.name) for field in dataclasses.fields(samples)}
    return {name: torch.from_numpy(np.ascontiguousarray(column)) for name, column in columns.items()}
