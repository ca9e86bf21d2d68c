"""Distillation: the float32 model teaches a copy of itself to live with rounded weights.

The copy computes with rounded weights and learns as if they were not rounded (straight-through, Bengio et al. 2013);
it is held against the float32 model's own streamed outputs, so no targets and no recording are needed. Where it does
not come out closer than rounding with feedback, that stays.
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
_NOISE = 0.3  # standard deviations; half of the streams see the tape as it is


def distilled(checkpoint: Checkpoint, scheme: Scheme, updates: int = UPDATES) -> Network:
    """The checkpoint's network in `scheme`, taught for `updates`; equal arguments give equal bits."""
    teacher = checkpoint.model
    student = copy.deepcopy(teacher).train(False)
    with one_thread(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        _teach(student, teacher, checkpoint, scheme, updates)
    tape = golden_inputs(checkpoint)
    rounded = [(student, tape), (student, None), (teacher, tape)]  # it was taught for nearest rounding
    candidates = [quantized(model.network(), scheme, tape) for model, tape in rounded]
    with one_thread():
        expected, _ = teacher.stream(tape)
        drifts = [drift(with_weights(teacher, one).stream(tape)[0], expected) for one in candidates]
    return candidates[int(np.argmin(drifts))]


def _teach(student: Forecaster, teacher: Forecaster, checkpoint: Checkpoint, scheme: Scheme, updates: int) -> None:
    taught = [*student.rnn.parameters(), *student.head.parameters()]
    optimizer = torch.optim.Adam(taught, _LEARNING_RATE[scheme])
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, updates)
    tape = torch.from_numpy(golden_inputs(checkpoint))
    measured = len(checkpoint.contract.features)  # what stands behind them, masks and the clock, stays as it is
    with torch.no_grad():
        spread = teacher(tape[None], teacher.initial_state(1))[0][0].std(dim=0).clamp(min=1e-12)  # (outputs,)
    with progress(updates, f"distilling {scheme}") as tick:
        for update in range(updates):
            if update % (len(tape) // _CHUNK) == 0:  # a new epoch: other starts, other noise
                starts = torch.randint(len(tape), (_STREAMS,))
                states = [teacher.initial_state(_STREAMS), student.initial_state(_STREAMS)]
            steps = (starts[:, None] + torch.arange(_CHUNK)) % len(tape)
            starts = starts + _CHUNK
            features = tape[steps]  # (streams, steps, inputs)
            noise = torch.randn(_STREAMS // 2, _CHUNK, measured) * teacher.scale[:measured] * _NOISE
            features[: _STREAMS // 2, :, :measured] += noise
            with torch.no_grad():
                wanted, states[0] = teacher(features, states[0])
            weights = _rounded(student, scheme)
            given, following = torch.func.functional_call(student, weights, (features, states[1]))
            states[1] = [tensor.detach() for tensor in following]
            loss = (((given - wanted) / spread) ** 2).mean()
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            schedule.step()
            tick("")


def _rounded(student: Forecaster, scheme: Scheme) -> dict[str, Tensor]:
    """The student's matrices as the scheme rounds them; their gradients go to the plain ones."""
    network = quantized(student.network(), scheme)
    rounded = {"head.weight": dense(network.head_weight) / student.output_scale.numpy()[:, None]}
    for index, layer in enumerate(network.layers):
        rounded[f"rnn.weight_ih_l{index}"] = dense(layer.w_ih)
        rounded[f"rnn.weight_hh_l{index}"] = dense(layer.w_hh)
    plain = dict(student.named_parameters())
    return {name: plain[name] + (torch.from_numpy(array) - plain[name]).detach() for name, array in rounded.items()}
