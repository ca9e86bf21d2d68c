"""The network in torch: raw features in, raw predictions out, its state passed in and out by the caller."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edge_lstm.bundle.network import CARRIED, Cell, Layer, Network, state_sizes
from edge_lstm.foundation.arrays import Floats
from edge_lstm.foundation.config import key

# One (layers, batch, hidden) tensor for each name in CARRIED[cell]: [h, c] of an LSTM, [h] of a GRU; then, with a
# highway, its shift register (1, batch, highway * inputs), and where that starts full, a 1 after the first step.
State = list[Tensor]


@dataclass(frozen=True)
class Shape:
    """The sizes and options of a network, which determine the shapes of its weights."""

    cell: Cell = key(doc="lstm, gru, or none: a linear path alone, with 0 layers of 0 units")
    inputs: int = key(doc="width of the feature vector", least=1)
    hidden: int = key(doc="units a layer", least=0)
    layers: int = key(doc="recurrent layers", least=0)
    outputs: int = key(doc="targets x horizons", least=1)
    dropout: float = key(0.0, doc="share of a layer's outputs dropped in training", least=0, most=0.95)
    recurrent_dropout: float = key(
        0.0, doc="share of the hidden-to-hidden weights dropped in training", least=0, most=0.95
    )
    highway: int = key(0, doc="earlier samples that a linear path past the layers sees", least=0)
    level_free: bool = key(True, doc="whether that path sees them relative to the newest sample")
    learned_start: bool = key(False, doc="whether the layers' state starts where training found best, and not at zero")
    linear: bool = key(False, doc="whether there is a linear path even where it sees the newest sample alone")
    filled: bool = key(False, doc="whether a stream's first sample fills that path's register, which else starts at 0")

    @property
    def has_highway(self) -> bool:
        """Whether there is a linear path beside the layers, or in their place."""
        return self.linear or self.highway > 0

    @property
    def state_sizes(self) -> dict[str, int]:
        """The carried tensors by name, with the size of each for one stream."""
        return state_sizes(self.cell, self.layers, self.hidden, self.highway * self.inputs, self.filled)

    @property
    def taps(self) -> int:
        """The highway's inputs per step: earlier samples, and unless it is level-free the newest sample."""
        return (self.highway if self.level_free else self.highway + 1) * self.inputs


class _BiasAlone(nn.Module):
    """The head of a network without layers: a dense layer of no inputs."""

    def __init__(self, outputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(outputs, 0))
        self.bias = nn.Parameter(torch.zeros(outputs))


class Forecaster(nn.Module):
    """Standardization, recurrent layers, dropout, a dense layer, and the conversion to the targets' units.

    A highway is a linear path around the layers, over the last samples (Lai et al. 2018, LSTNet). A level-free highway
    sees differences from the newest sample alone, so that a level unknown from training has no effect. Inputs that are
    not `seen` bypass the layers. They reach the output by the highway, or as the level that a change is added to.

    The head works on a scale where every output's typical size is one: prediction = head * output_scale +
    output_offset, plus the raw feature `change_of[o]` for each output o where changes are predicted.
    """

    mean: Tensor  # (inputs,)
    scale: Tensor  # (inputs,)
    seen: Tensor  # (inputs,): 1 where the layers see an input, else 0
    output_offset: Tensor  # (outputs,)
    output_scale: Tensor  # (outputs,)
    change_of: Tensor  # (outputs,) int64, or empty
    free: Tensor  # (outputs, taps): 1 where a highway with levels has a weight, else 0
    tied: Tensor  # (outputs, inputs): 1 where the weights of an input over all its samples sum to zero, else 0

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        dropout = shape.dropout if shape.layers > 1 else 0.0
        if shape.layers:
            cell = nn.LSTM if shape.cell == "lstm" else nn.GRU
            self.rnn = cell(shape.inputs, shape.hidden, shape.layers, batch_first=True, dropout=dropout)
        self.dropout = nn.Dropout(shape.dropout)
        self.head = nn.Linear(shape.hidden, shape.outputs) if shape.layers else _BiasAlone(shape.outputs)
        if shape.has_highway:
            self.highway = nn.Linear(shape.taps, shape.outputs, bias=False)
            nn.init.zeros_(self.highway.weight)
        if shape.has_highway and not shape.level_free:
            self.register_buffer("free", torch.ones(shape.outputs, shape.taps))
            self.register_buffer("tied", torch.zeros(shape.outputs, shape.inputs))
        self.register_buffer("mean", torch.zeros(shape.inputs))
        self.register_buffer("scale", torch.ones(shape.inputs))
        self.register_buffer("seen", torch.ones(shape.inputs))
        self.register_buffer("output_offset", torch.zeros(shape.outputs))
        self.register_buffer("output_scale", torch.ones(shape.outputs))
        self.register_buffer("change_of", torch.zeros(0, dtype=torch.int64))
        carried = CARRIED[shape.cell] if shape.learned_start else ()
        self.start = nn.ParameterList([torch.zeros(shape.layers, shape.hidden) for _ in carried])
        if shape.cell == "lstm":
            self._open_forget_gates()

    def _open_forget_gates(self) -> None:
        """Set the forget gates' bias to 1, so that cells remember from the first update on (Jozefowicz et al. 2015)."""
        hidden = self.shape.hidden
        with torch.no_grad():
            for layer in range(self.shape.layers):
                getattr(self.rnn, f"bias_ih_l{layer}")[hidden : 2 * hidden] = 1.0
                getattr(self.rnn, f"bias_hh_l{layer}")[hidden : 2 * hidden] = 0.0

    def initial_state(self, batch: int) -> State:
        """The state at the start of every stream: zeros, or the learned start."""
        size = (self.shape.layers, batch, self.shape.hidden)
        state = [torch.zeros(size, device=self.mean.device) for _ in CARRIED[self.shape.cell]]
        if self.shape.learned_start:
            state = [start[:, None].expand(size) for start in self.start]
        if self.shape.highway:
            state.append(torch.zeros((1, batch, self.shape.highway * self.shape.inputs), device=self.mean.device))
        if self.shape.filled:
            state.append(torch.zeros((1, batch, 1), device=self.mean.device))
        return state

    def forward(self, features: Tensor, state: State) -> tuple[Tensor, State]:
        """features (batch, steps, inputs) raw -> predictions (batch, steps, outputs) raw, the next state."""
        x = (features - self.mean) / self.scale
        if self.shape.layers:
            hidden, following = self._recurrent_layers(x, state)  # (batch, steps, hidden)
            prediction = self.head(self.dropout(hidden)) * self.output_scale + self.output_offset
        else:
            prediction, following = self.head.bias * self.output_scale + self.output_offset, []
        if self.shape.has_highway:
            register = self._register(x, state[len(following) :])
            added, recent = self._highway_outputs(x, register)
            prediction = prediction + added * self.output_scale
            following += [] if recent is None else [recent]
        if self.shape.filled:
            following.append(torch.ones_like(state[-1]))
        if self.change_of.numel():
            prediction = prediction + features[..., self.change_of]
        return prediction, following

    def _register(self, x: Tensor, state: State) -> Tensor | None:
        """The register before the steps x (batch, steps, inputs), filled by the first of them where a stream starts."""
        if not state:
            return None
        if not self.shape.filled:
            return state[0]
        register, started = state  # (1, batch, highway * inputs), (1, batch, 1)
        return register + (1 - started) * x[:, 0].repeat(1, self.shape.highway)

    def _highway_outputs(self, x: Tensor, register: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """x (batch, steps, inputs) and the register (1, batch, highway * inputs), newest first; None: no register.

        Returns the highway's part of the outputs, (batch, steps, outputs), and the next register. It is a convolution:
        the samples of every step side by side would be the largest tensor of all.
        """
        batch, _, inputs = x.shape
        samples = x
        if register is not None:
            earlier = register[0].view(batch, self.shape.highway, inputs).flip(1)  # in the order of time
            samples = torch.cat([earlier, x], dim=1)  # (batch, highway + steps, inputs)
        taps = self._taps(self.highway.weight)
        added = F.conv1d(samples.transpose(1, 2), taps.flip(1).transpose(1, 2))  # (batch, outputs, steps)
        if register is not None:
            register = samples[:, -self.shape.highway :].flip(1).reshape(1, batch, -1)
        return added.transpose(1, 2), register

    def _taps(self, weight: Tensor) -> Tensor:
        """The highway's weights over plain samples, (outputs, 1 + highway, inputs), the newest first."""
        shape = self.shape
        if shape.level_free:
            taps = weight.view(shape.outputs, -1, shape.inputs)
            return torch.cat([-taps.sum(dim=1, keepdim=True), taps], dim=1)
        taps = (weight * self.free).view(shape.outputs, -1, shape.inputs)
        newest, earlier = taps[:, :1], taps[:, 1:]
        return torch.cat([newest - self.tied[:, None] * earlier.sum(dim=1, keepdim=True), earlier], dim=1)

    def _recurrent_layers(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """The recurrent layers over all steps at once, in torch's fused kernel."""
        shape = self.shape
        if shape.cell == "lstm":
            dropout = self.rnn.dropout
            h_c, weights = state[:2], self._weights()
            out, h, c = torch.lstm(x, h_c, weights, True, shape.layers, dropout, self.training, False, True)
            return out, [h, c]
        out, h = torch.gru(
            x, state[0], self._weights(), True, shape.layers, self.rnn.dropout, self.training, False, True
        )
        return out, [h]

    def _weights(self) -> list[Tensor]:
        """w_ih, w_hh, b_ih, b_hh of each layer, in the order of the fused kernel.

        Recurrent dropout drops hidden-to-hidden weights, once for all steps (weight drop, Merity et al. 2017), so the
        fused kernel still applies.
        """
        weights = []
        for layer in range(self.shape.layers):
            w_hh = getattr(self.rnn, f"weight_hh_l{layer}")
            if self.shape.recurrent_dropout:
                w_hh = F.dropout(w_hh, self.shape.recurrent_dropout, self.training)
            rest = (getattr(self.rnn, f"{name}_l{layer}") for name in ("weight_ih", "bias_ih", "bias_hh"))
            w_ih, b_ih, b_hh = rest
            w_ih = w_ih * self.seen if layer == 0 else w_ih
            weights += [w_ih, w_hh, b_ih, b_hh]
        return cast(list[Tensor], weights)

    def network(self) -> Network:
        """The same network as arrays; the head includes the scale and offset of the targets' units."""
        arrays = {name: value.detach().cpu().numpy() for name, value in self.state_dict().items()}
        if self.shape.layers:
            arrays["rnn.weight_ih_l0"] = arrays["rnn.weight_ih_l0"] * arrays["seen"]
        layers = tuple(
            Layer(*(arrays[f"rnn.{name}_l{layer}"] for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")))
            for layer in range(self.shape.layers)
        )
        return Network(
            self.shape.cell,
            arrays["mean"],
            arrays["scale"],
            layers,
            arrays["head.weight"] * arrays["output_scale"][:, None],
            arrays["head.bias"] * arrays["output_scale"] + arrays["output_offset"],
            arrays["change_of"].astype(np.int32),
            self._highway_weights(),
            filled=self.shape.filled,
        )

    def _highway_weights(self) -> Floats | None:
        """The highway's weights over plain samples, (outputs, (1 + highway) * inputs), in the targets' units."""
        if not self.shape.has_highway:
            return None
        weight = self.highway.weight.detach() * self.output_scale[:, None]
        taps = self._taps(weight.double()).reshape(self.shape.outputs, -1)
        return cast(Floats, taps.cpu().numpy().astype(np.float32))

    def stream(self, inputs: Floats, marks: Sequence[int] = ()) -> tuple[Floats, list[Floats]]:
        """The predictions of one stream along `inputs` (steps, inputs), its state carried.

        Returns predictions (steps, outputs) and, per tensor of `Network.state_names`, the states after the steps
        `marks` (ascending, counted from 1), (marks, hidden).
        """
        kept, predictions = [], []
        state = self.initial_state(1)
        self.eval()
        with torch.no_grad():
            for begin, end in pairwise(sorted({0, *marks, len(inputs)})):
                prediction, state = self(torch.from_numpy(inputs[None, begin:end]), state)
                predictions.append(prediction[0])
                kept.append([state[position][layer, 0] for position, layer in self._state_positions()])
        states = [torch.stack(column).numpy() for column in zip(*kept[: len(marks)], strict=True)]
        return torch.cat(predictions).numpy(), states

    def start_values(self) -> list[list[float]]:
        """Per tensor of `Network.state_names`, its value at the start of a stream: (hidden,), or empty for zeros."""
        starts = [position[0] < len(self.start) for position in self._state_positions()]
        return [
            self.start[kind][layer].detach().tolist() if learned else []
            for (kind, layer), learned in zip(self._state_positions(), starts, strict=True)
        ]

    def _state_positions(self) -> list[tuple[int, int]]:
        """The position of each tensor of `Network.state_names` in a `State`: (index of the tensor, its layer)."""
        kinds = range(len(CARRIED[self.shape.cell]))
        places = [(kind, layer) for layer in range(self.shape.layers) for kind in kinds]
        registers = self.shape.highway > 0, self.shape.filled
        return [*places, *((len(kinds) + index, 0) for index in range(sum(registers)))]
