"""The adoption of a recurrent ONNX model: read, rewritten into one step, checked, and written as a bundle.

Its states have to be explicit inputs and outputs. The first of its other outputs is the prediction.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx

import edge_lstm
from edge_lstm.backends.onnx import load as load_onnx
from edge_lstm.backends.onnx_contents import refuse_strange_graph
from edge_lstm.backends.registry import load, runnable
from edge_lstm.backends.selftest import Verdict, smallest_isolated_batch, verify
from edge_lstm.bundle.archive import (
    CARD,
    FORMAT_VERSION,
    GOLDEN,
    Architecture,
    Bundle,
    Manifest,
    TensorPair,
    Variant,
    pack,
)
from edge_lstm.bundle.contract import Contract, Feature, Sampling, StateTensor
from edge_lstm.bundle.golden import GoldenVectors
from edge_lstm.bundle.golden import to_npz as golden_npz
from edge_lstm.bundle.network import RECENT
from edge_lstm.foundation.errors import EdgeLstmError
from edge_lstm.foundation.files import write_file
from edge_lstm_export.adoption.foreign_graph import AdoptOptions, ForeignGraph, Shape, read_foreign_graph
from edge_lstm_export.adoption.golden_vectors import golden_vectors
from edge_lstm_export.adoption.rewrite import rewrite, size_of

LEFT_OUT = "outputs left out"  # a key of the provenance
_PARITY = 1e-4  # foreign graphs hold operators of every kind, and optimizers reorder their sums
_DRIFT = 1e-3
_ISOLATION_STEPS = 24


def adopt(path: Path, output: Path, options: AdoptOptions) -> tuple[Bundle, list[Verdict]]:
    """Write the model's bundle at `output`. Raises EdgeLstmError, without a file, if the model cannot be streamed."""
    foreign = read_foreign_graph(path, options)
    features, prediction = rewrite(foreign, options.constants, options.context)
    content: bytes = foreign.model.SerializeToString(deterministic=True)
    refuse_strange_graph(content, str(path))
    states, pairs = _states(foreign, options.context)
    variant = Variant("onnx", "float32", "model.float32.onnx", features, prediction, pairs, _PARITY, _DRIFT)
    contract = _contract(foreign, options, states, _count_outputs(path, content, variant, foreign.width, states))
    golden = golden_vectors(path, content, contract, variant)
    if smallest_isolated_batch(load_onnx(variant, content), contract, golden.features[:_ISOLATION_STEPS]) is None:
        variant = replace(variant, row_by_row=True)
    data = _pack_bundle(foreign, content, contract, variant, golden)
    bundle = Bundle.from_bytes(data, str(output))
    verdicts = _verify(path, bundle)
    write_file(output, data)
    return bundle, verdicts


def _states(foreign: ForeignGraph, context: int) -> tuple[list[StateTensor], list[TensorPair]]:
    states = [StateTensor(name, _shape_of_one_stream(shape)) for name, shape in foreign.state_shapes.items()]
    pairs = [TensorPair(name, name, following) for name, following in foreign.pairs.items()]
    if context:
        states.append(StateTensor(RECENT, [context]))
        pairs.append(TensorPair(RECENT, RECENT, f"next_{RECENT}"))
    return states, pairs


def _shape_of_one_stream(shape: Shape) -> list[int]:
    """The shape without the batch axis, and without axes of one before it, which the backend adds."""
    before, after = shape[: shape.index(None)], shape[shape.index(None) + 1 :]
    sizes = [size for size in (before if any(size != 1 for size in before) else ()) + after if size is not None]
    return sizes or [1]


def _count_outputs(path: Path, content: bytes, variant: Variant, width: int, states: Sequence[StateTensor]) -> int:
    """The outputs per step, from one step. Raises EdgeLstmError if a state changes its shape."""
    backend = load_onnx(variant, content)
    zeros = [np.zeros((1, *state.shape), np.float32) for state in states]
    prediction, following = backend.step(np.zeros((1, width), np.float32), zeros)
    for state, tensor in zip(states, following, strict=True):
        if tensor.shape != (1, *state.shape):
            raise EdgeLstmError(
                f"{path}: expected {state.name} to come out as it went in, {state.shape}, found {tensor.shape[1:]}",
                "name the state's output with --state IN=OUT",
            )
    return prediction.shape[1]


def _contract(foreign: ForeignGraph, options: AdoptOptions, states: Sequence[StateTensor], outputs: int) -> Contract:
    features = [Feature(f"sample_{index:03d}") for index in range(foreign.width)]
    name = foreign.prediction.name
    targets = [name] if outputs == 1 else [f"{name}_{index}" for index in range(outputs)]
    sampling = Sampling(options.interval_s)
    return Contract(options.name, "estimate", features, targets, [0], list(states), [], sampling)


def _pack_bundle(
    foreign: ForeignGraph, content: bytes, contract: Contract, variant: Variant, golden: GoldenVectors
) -> bytes:
    recurrent, numbers = size_of(foreign.model.graph)
    architecture = Architecture("foreign", max(1, recurrent), contract.states[0].shape[-1], max(1, numbers))
    source = foreign.path.name
    provenance = {
        "adopted from": source,
        **({LEFT_OUT: ", ".join(foreign.left_out)} if foreign.left_out else {}),
        "exported by": f"edge-lstm {edge_lstm.__version__}, onnx {onnx.__version__}",
    }
    manifest = Manifest(FORMAT_VERSION, contract, architecture, [variant], {}, provenance)
    card = f"# {contract.name}\n\nAdopted from {source}: {len(contract.features)} values a step, states carried.\n"
    return pack(manifest, {variant.file: content, GOLDEN: golden_npz(golden), CARD: card.encode()})


def _verify(path: Path, bundle: Bundle) -> list[Verdict]:
    """The self-tests on all installed backends. Raises EdgeLstmError if one fails."""
    for name, scheme in runnable(bundle):
        load(bundle, name, scheme)
    verdicts = verify(bundle, runnable(bundle))
    if failed := [verdict for verdict in verdicts if not verdict.passed]:
        raise EdgeLstmError(
            f"{path}: expected the model's own outputs on {failed[0].backend}, found {failed[0].finding}",
            "nothing was written; try another version of onnxruntime",
        )
    return verdicts
