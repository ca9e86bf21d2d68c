"""The measurements of the certificate: every variant on every installed backend against torch, over long streams."""

from __future__ import annotations

import json
from collections.abc import Iterable

import numpy as np
import torch

from edge_lstm.backends.calibrated import CalibratedBackend
from edge_lstm.backends.protocol import Backend
from edge_lstm.backends.reference import ReferenceBackend
from edge_lstm.backends.registry import format_of, load, runnable
from edge_lstm.backends.row_by_row import RowByRow
from edge_lstm.backends.selftest import initial_states, isolate_rows, relative_error
from edge_lstm.bundle.archive import FORMAT_VERSION, Bundle, format_version
from edge_lstm.bundle.certificate import Certificate, VariantFigures
from edge_lstm.bundle.contract import Contract
from edge_lstm.bundle.network import CARRIED, Network, dense
from edge_lstm.decisions.angles import PublishedOutputs
from edge_lstm.decisions.decider import decide_all
from edge_lstm.foundation.arrays import Doubles, Floats
from edge_lstm.foundation.progress import progress
from edge_lstm.streaming.features import values_in
from edge_lstm_export.proof.golden_vectors import golden_inputs, one_thread
from edge_lstm_export.proof.stress import stress
from edge_lstm_train.model.checkpoint import Checkpoint

STEPS = 20_000  # of each of the five segments: 100,000 in all
_AT_ONCE = 2_000  # steps in one call of torch's fused kernel
_AGREE = 1e-3  # standard deviations
_SATURATED = 4.0  # where a sigmoid is below 0.018 or above 0.982
_SATURATION_STEPS = 500


def certify(bundle: Bundle, checkpoint: Checkpoint, steps: int = STEPS) -> Certificate:
    """The bundle's certificate, from `steps` carried steps per segment. Raises EdgeLstmError if a backend fails."""
    contract = checkpoint.contract
    inputs = np.ascontiguousarray(checkpoint.input_sequence, np.float32)
    segments = stress(contract, inputs, checkpoint.samples, steps)
    stressed = np.stack([*segments.values()], axis=1)  # (steps, segments, inputs)
    expected = _stream_torch(checkpoint, stressed)  # (steps, segments, outputs)
    truth = _truth(checkpoint)
    torch_metric = _metric(contract, truth, expected[:, 0])
    decisions = _decisions(contract, inputs, expected[:, 0])
    variants = []
    runs = runnable(bundle)
    with progress(len(runs), "certifying") as tick:
        for name, scheme in runs:
            loaded = load(bundle, name, scheme)
            # stress input lies outside of the calibrated range on purpose
            watched = loaded.watched if isinstance(loaded, CalibratedBackend) else loaded
            backend, smallest = isolate_rows(watched, contract, golden_inputs(checkpoint))
            if isinstance(backend, RowByRow):
                smallest = None  # no batch size isolates streams
            found = _stream_backend(backend, contract, stressed)
            size = len(bundle.content[bundle.variant(format_of(name), scheme).file])
            changed_decisions = _share_differing(decisions, _decisions(contract, inputs, found[:, 0]))
            after = _metric(contract, truth, found[:, 0])
            figures = _variant_figures(
                contract,
                name,
                scheme,
                size,
                smallest,
                segments,
                found,
                expected,
                torch_metric,
                after,
                changed_decisions,
            )
            variants.append(figures)
            tick("")
    return Certificate(
        steps,
        [*segments],
        "rmse" if contract.decision is None else "error rate",
        _four_digits(float(torch_metric.mean())),
        warm_up_steps(checkpoint),
        saturation(checkpoint.model.network(), contract, stressed[:_SATURATION_STEPS]),
        variants,
        dead_sensors(checkpoint) if format_version(contract) > FORMAT_VERSION else {},
    )


def dead_sensors(checkpoint: Checkpoint) -> dict[str, float]:
    """By sensor, what training measured: RMSE while it is dead over that of a ridge without it, of the worst output."""
    ratios: dict[str, float] = {}
    for one in json.loads(checkpoint.provenance.get("dead_sensors", "[]")):
        ratios[one["sensor"]] = _four_digits(max(one["ratio"], ratios.get(one["sensor"], 0.0)))
    return ratios


def _variant_figures(
    contract: Contract,
    backend: str,
    scheme: str,
    size: int,
    smallest: int | None,
    segments: Iterable[str],
    found: Floats,
    expected: Floats,
    before: Doubles,
    after: Doubles,
    changed_decisions: float,
) -> VariantFigures:
    spread = np.maximum(expected[:, 0].std(axis=0, dtype=np.float64), 1e-12)  # (outputs,): 0 in a constant segment
    rms = np.sqrt(((found.astype(np.float64) - expected) ** 2).mean(axis=0)) / spread  # (segments, outputs)
    relative = after / np.maximum(before, 1e-12) - 1 if contract.decision is None else after - before
    tenth = max(1, len(found) // 10)
    return VariantFigures(
        backend,
        scheme,
        size,
        {segment: _four_digits(float(one)) for segment, one in zip(segments, rms.max(axis=1), strict=True)},
        _four_digits(max(relative_error(found[:, row], expected[:, row]) for row in range(found.shape[1]))),
        _four_digits(relative_error(found[:tenth, 0], expected[:tenth, 0])),
        _four_digits(relative_error(found[-tenth:, 0], expected[-tenth:, 0])),
        _four_digits(float(after.mean())),
        _four_digits(float(relative.max())),
        _four_digits(changed_decisions),
        smallest,
    )


def _stream_torch(checkpoint: Checkpoint, stressed: Floats) -> Floats:
    """The trained model's predictions for each segment, with the state carried over all steps."""
    model, pieces = checkpoint.model.eval(), []
    features = torch.from_numpy(stressed.swapaxes(0, 1).copy())  # (segments, steps, inputs)
    state = model.initial_state(stressed.shape[1])
    with one_thread(), torch.no_grad():
        for begin in range(0, len(stressed), _AT_ONCE):
            prediction, state = model(features[:, begin : begin + _AT_ONCE], state)
            pieces.append(prediction.numpy())
    predictions: Floats = np.concatenate(pieces, axis=1).swapaxes(0, 1)
    return predictions


def _stream_backend(backend: Backend, contract: Contract, stressed: Floats) -> Floats:
    states = initial_states(contract, stressed.shape[1])
    predictions = np.empty((len(stressed), stressed.shape[1], len(contract.network_outputs)), np.float32)
    for step, features in enumerate(stressed):
        predictions[step], states = backend.step(features, states)
    return predictions


def _truth(checkpoint: Checkpoint) -> Floats:
    """(steps, network outputs): the true outputs of the input sequence, NaN where unknown."""
    if checkpoint.truth is not None:
        return checkpoint.truth
    contract, inputs = checkpoint.contract, checkpoint.input_sequence
    names = contract.inputs
    truth = np.full((len(inputs), len(contract.network_outputs)), np.nan, np.float32)
    for output, (target, horizon) in enumerate(contract.network_outputs):
        if target in names and horizon:
            truth[:-horizon, output] = inputs[horizon:, names.index(target)]
    return truth


def _metric(contract: Contract, truth: Floats, predictions: Floats) -> Doubles:
    """Over the input sequence: (outputs,) RMSE in standard deviations of the truth, or (1,) the error rate."""
    steps = min(len(truth), len(predictions))
    truth, predicted = truth[:steps].astype(np.float64), predictions[:steps].astype(np.float64)
    if contract.decision is not None:
        known = np.isfinite(truth[:, 0])
        wrong = truth[known].argmax(axis=1) != predicted[known].argmax(axis=1)
        return np.array([wrong.mean() if wrong.size else np.nan])
    errors = []
    quantiles = {name for target in contract.targets for name in contract.output_names_of(target)[1:]}
    for output, (name, _) in enumerate(contract.network_outputs):
        known = np.isfinite(truth[:, output])
        if name not in quantiles:  # whose RMSE has no meaning
            error = predicted[known, output] - truth[known, output]
            spread = max(float(truth[known, output].std()), 1e-12) if known.any() else 1.0
            errors.append(np.sqrt((error**2).mean()) / spread if error.size else np.nan)
    return np.array(errors)


def _decisions(contract: Contract, inputs: Floats, predictions: Floats) -> list[object]:
    """Label and alarm at each step of the input sequence."""
    steps = min(len(inputs), len(predictions))
    values, outputs = values_in(contract, inputs[:steps]), PublishedOutputs(contract)(predictions[:steps])
    restart = np.arange(steps) == 0
    labels, _, alarms = decide_all(contract, np.zeros(steps, np.int64), restart, values, outputs)
    return [*zip(labels, alarms.tolist(), strict=True)]


def _share_differing(one: list[object], other: list[object]) -> float:
    """The share of steps at which they differ."""
    return sum(a != b for a, b in zip(one, other, strict=True)) / max(1, len(one))


def warm_up_steps(checkpoint: Checkpoint) -> int | None:
    """The steps until the outputs from zeros and from a random state agree to 1e-3 and stay so; None if never."""
    model = checkpoint.model.eval()
    inputs = torch.from_numpy(np.stack([checkpoint.input_sequence, checkpoint.input_sequence]).astype(np.float32))
    state = model.initial_state(2)
    random = torch.Generator().manual_seed(0)
    state = [tensor.clone() for tensor in state]  # a learned start is one tensor for all streams
    for tensor in state:
        tensor[:, 1] = torch.rand(tensor[:, 1].shape, generator=random) * 2 - 1
    with one_thread(), torch.no_grad():
        one, other = model(inputs, state)[0].numpy().astype(np.float64)
    apart = (np.abs(one - other) > _AGREE * np.maximum(one.std(axis=0), 1e-12)).any(axis=1)
    last = np.flatnonzero(apart)
    if not last.size:
        return 0
    return int(last[-1]) + 1 if last[-1] + 1 < len(apart) else None


def saturation(network: Network, contract: Contract, stressed: Floats) -> dict[str, float]:
    """By layer, the share of saturated sigmoid gates, over `stressed` (steps, segments, inputs)."""
    backend, carried = ReferenceBackend(network), len(CARRIED[network.cell])
    states = initial_states(contract, stressed.shape[1])
    gates = (0, 1, 3) if network.cell == "lstm" else (0, 1)  # the sigmoids among them
    shares = np.zeros((len(stressed), len(network.layers)))
    for step, features in enumerate(stressed):
        _, following = backend.step(features, states)
        x = (features - network.mean) / network.scale
        for index, layer in enumerate(network.layers):
            sums = x @ dense(layer.w_ih).T + states[index * carried] @ dense(layer.w_hh).T + layer.b_ih + layer.b_hh
            stacked = np.split(sums, sums.shape[1] // network.hidden, axis=1)
            shares[step, index] = np.mean([np.abs(stacked[gate]) > _SATURATED for gate in gates])
            x = following[index * carried]
        states = following
    return {f"layer_{index}": _four_digits(float(share)) for index, share in enumerate(shares.mean(axis=0))}


def _four_digits(value: float) -> float:
    """Four significant digits, since more are noise; 1e9 for NaN, which JSON does not have."""
    return float(f"{value:.4g}") if np.isfinite(value) else 1e9
