"""Golden vectors from torch: the outputs and states of a trained model along its input sequence."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator, Mapping

import numpy as np
import torch

from edge_lstm.backends.reference import ReferenceBackend
from edge_lstm.backends.selftest import replay_tape
from edge_lstm.bundle.golden import Expected, GoldenVectors
from edge_lstm.bundle.network import STARTED, Network, dense
from edge_lstm.bundle.schemes import Scheme
from edge_lstm.foundation.arrays import Floats
from edge_lstm.foundation.errors import EdgeLstmError
from edge_lstm_train.model.checkpoint import Checkpoint
from edge_lstm_train.model.forecaster import Forecaster

STEPS = 1000  # long enough for an error that adds up from step to step to show
MARKS = (1, 10, 100, 1000)


def golden_vectors(checkpoint: Checkpoint, networks: Mapping[Scheme, Network]) -> GoldenVectors:
    """The golden vectors of `checkpoint` for each scheme of `networks`, and always for float32.

    float32 is the trained model itself; another scheme is that model with the scheme's dequantized weights. Static int8
    rounds activations as well, which torch does not do, so its vectors come from the numpy reference.

    Raises EdgeLstmError if the input sequence is empty, of another width or not finite, or if a state is constant.
    """
    inputs = golden_inputs(checkpoint)
    expected: dict[str, Expected] = {}
    with one_thread():
        for scheme, network in networks.items():
            if network.arithmetic == "static":
                stream = replay_tape(ReferenceBackend(network), checkpoint.contract, inputs, np.array(MARKS))
            else:
                stream = with_weights(checkpoint.model, network).stream(inputs, MARKS)
            expected[scheme] = Expected(*stream)
        expected["float32"] = Expected(*checkpoint.model.stream(inputs, MARKS))
    _refuse_meaningless(checkpoint, expected)
    return GoldenVectors(inputs, np.array(MARKS), expected)


def with_weights(model: Forecaster, network: Network) -> Forecaster:
    """A copy of `model` with the dequantized weights of `network`, whose head gives the targets' units directly."""
    copied = copy.deepcopy(model)
    weights = copied.state_dict()
    for index, layer in enumerate(network.layers):
        weights[f"rnn.weight_ih_l{index}"] = torch.from_numpy(dense(layer.w_ih))
        weights[f"rnn.weight_hh_l{index}"] = torch.from_numpy(dense(layer.w_hh))
        weights[f"rnn.bias_ih_l{index}"] = torch.from_numpy(layer.b_ih)
        weights[f"rnn.bias_hh_l{index}"] = torch.from_numpy(layer.b_hh)
    weights["head.weight"] = torch.from_numpy(dense(network.head_weight))
    weights["head.bias"] = torch.from_numpy(network.head_bias)
    weights["output_scale"] = torch.ones_like(copied.output_scale)
    weights["output_offset"] = torch.zeros_like(copied.output_offset)
    if network.highway is not None:  # its weights are in the targets' units as well
        weights["highway.weight"] = weights["highway.weight"] * model.output_scale[:, None]
    copied.load_state_dict(weights)
    return copied


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Runs torch on one core: the number of cores may change the last bits of a sum, and so a bundle's bytes."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def golden_inputs(checkpoint: Checkpoint) -> Floats:
    """The checkpoint's input sequence as (STEPS, inputs): cut if it is longer, repeated if it is shorter."""
    inputs, width = checkpoint.input_sequence, len(checkpoint.contract.inputs)
    if inputs.ndim != 2 or inputs.shape[1] != width or not len(inputs):
        raise _input_error(checkpoint, f"an input sequence of shape (steps, {width})", f"{inputs.shape}")
    if not np.isfinite(inputs).all():
        raise _input_error(checkpoint, "an input sequence of finite numbers", "NaN or infinity")
    return np.ascontiguousarray(inputs[np.arange(STEPS) % len(inputs)], np.float32)


def _refuse_meaningless(checkpoint: Checkpoint, expected: Mapping[str, Expected]) -> None:
    for scheme, vectors in expected.items():
        if not np.isfinite(vectors.prediction).all():
            raise _input_error(checkpoint, f"finite predictions ({scheme})", "NaN or infinity")
        for state, marked in zip(checkpoint.contract.states, vectors.states, strict=True):
            if state.name != STARTED and not np.ptp(marked, axis=0).any():
                raise _input_error(
                    checkpoint, f"{state.name} to change along the inputs ({scheme})", "the same state at every mark"
                )


def _input_error(checkpoint: Checkpoint, expected: str, found: str) -> EdgeLstmError:
    return EdgeLstmError(
        f"checkpoint of {checkpoint.contract.name}: expected {expected}, found {found}",
        "train again: a device cannot check the model without golden vectors",
    )
