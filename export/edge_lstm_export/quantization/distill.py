"""Distillation: the float32 model trains a copy of itself whose weights are rounded.

The copy computes with rounded weights, and gradients pass as if they were not rounded (straight-through, Bengio et al.
2013). Its targets are the float32 model's own streamed outputs, so no recording is needed. If the result is no closer
than rounding with feedback, the latter is used.
"""

from __future__ import annotations

import copy

import numpy as np
import torch
from torch import Tensor

from edge_lstm.backends.selftest import drift
from edge_lstm.bundle.network import Network, dense
from edge_lstm.bundle.schemes import Scheme
from edge_lstm.foundation.progress import progress
from edge_lstm_export.proof.golden_vectors import golden_inputs, one_thread, with_weights
from edge_lstm_export.quantization.quantize import quantized
from edge_lstm_train.model.checkpoint import Checkpoint
from edge_lstm_train.model.forecaster import Forecaster

DISTILLED: tuple[Scheme, ...] = ("int8", "int4")
UPDATES = 500
_STREAMS, _CHUNK = 16, 48
_LEARNING_RATE = {"int8": 1e-3, "int4": 3e-3}
_NOISE = 0.3  # standard deviations, on half of the streams


def distilled(checkpoint: Checkpoint, scheme: Scheme, updates: int = UPDATES) -> Network:
    """The checkpoint's network in `scheme`, trained for `updates`; equal arguments give equal bits."""
    teacher = checkpoint.model
    if not teacher.shape.layers:
        return teacher.network()  # nothing of it is rounded
    student = copy.deepcopy(teacher).train(False)
    with one_thread(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        _train_student(student, teacher, checkpoint, scheme, updates)
    inputs = golden_inputs(checkpoint)
    rounded = [(student, inputs), (student, None), (teacher, inputs)]  # training used nearest rounding
    candidates = [quantized(model.network(), scheme, inputs) for model, inputs in rounded]
    with one_thread():
        expected, _ = teacher.stream(inputs)
        drifts = [drift(with_weights(teacher, one).stream(inputs)[0], expected) for one in candidates]
    return candidates[int(np.argmin(drifts))]


def _train_student(
    student: Forecaster, teacher: Forecaster, checkpoint: Checkpoint, scheme: Scheme, updates: int
) -> None:
    parameters = [*student.rnn.parameters(), *student.head.parameters()]
    optimizer = torch.optim.Adam(parameters, _LEARNING_RATE[scheme])
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, updates)
    inputs = torch.from_numpy(golden_inputs(checkpoint))
    measured = len(checkpoint.contract.features)  # the inputs after them, such as masks and clock, get no noise
    with torch.no_grad():
        output_std = teacher(inputs[None], teacher.initial_state(1))[0][0].std(dim=0).clamp(min=1e-12)  # (outputs,)
    with progress(updates, f"distilling {scheme}") as tick:
        for update in range(updates):
            if update % (len(inputs) // _CHUNK) == 0:  # a new epoch: other starts, other noise
                starts = torch.randint(len(inputs), (_STREAMS,))
                states = [teacher.initial_state(_STREAMS), student.initial_state(_STREAMS)]
            steps = (starts[:, None] + torch.arange(_CHUNK)) % len(inputs)
            starts = starts + _CHUNK
            features = inputs[steps]  # (streams, steps, inputs)
            noise = torch.randn(_STREAMS // 2, _CHUNK, measured) * teacher.scale[:measured] * _NOISE
            features[: _STREAMS // 2, :, :measured] += noise
            with torch.no_grad():
                wanted, states[0] = teacher(features, states[0])
            weights = _rounded_weights(student, scheme)
            predicted, following = torch.func.functional_call(student, weights, (features, states[1]))
            states[1] = [tensor.detach() for tensor in following]
            loss = (((predicted - wanted) / output_std) ** 2).mean()
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            schedule.step()
            tick("")


def _rounded_weights(student: Forecaster, scheme: Scheme) -> dict[str, Tensor]:
    """The student's matrices, rounded as in the scheme; their gradients go to the unrounded matrices."""
    network = quantized(student.network(), scheme)
    rounded = {"head.weight": dense(network.head_weight) / student.output_scale.numpy()[:, None]}
    for index, layer in enumerate(network.layers):
        rounded[f"rnn.weight_ih_l{index}"] = dense(layer.w_ih)
        rounded[f"rnn.weight_hh_l{index}"] = dense(layer.w_hh)
    plain = dict(student.named_parameters())
    return {name: plain[name] + (torch.from_numpy(array) - plain[name]).detach() for name, array in rounded.items()}
