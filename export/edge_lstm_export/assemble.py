"""A checkpoint as a bundle: every variant is written, and checked on every installed backend before the file exists."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import onnx
import torch

import edge_lstm
from edge_lstm.backends.registry import format_of, runnable
from edge_lstm.backends.selftest import Verdict, verify
from edge_lstm.bundle.archive import (
    CARD,
    CERTIFICATE,
    GOLDEN,
    Architecture,
    Bundle,
    Manifest,
    Variant,
    format_version,
    pack,
)
from edge_lstm.bundle.certificate import Certificate
from edge_lstm.bundle.certificate import to_json as certificate_json
from edge_lstm.bundle.contract import Contract
from edge_lstm.bundle.golden import to_npz as golden_npz
from edge_lstm.bundle.keys import SigningKey
from edge_lstm.bundle.network import Network, to_npz
from edge_lstm.bundle.purpose import Purpose
from edge_lstm.bundle.schemes import Format, Scheme
from edge_lstm.bundle.signing import signature
from edge_lstm.foundation.errors import EdgeLstmError
from edge_lstm.foundation.files import require_writable_folder, write_file
from edge_lstm_export.model_card import model_card
from edge_lstm_export.proof.budgets import UNLIMITED, Budgets, refuse_over_budget, smallest_scheme
from edge_lstm_export.proof.certify import certify
from edge_lstm_export.proof.golden_vectors import golden_inputs, golden_vectors
from edge_lstm_export.quantization.distill import DISTILLED, distilled
from edge_lstm_export.quantization.quantize import DEFAULT_SCHEMES, quantized, unsupported_reason
from edge_lstm_export.writers.onnx_writer import write_onnx
from edge_lstm_export.writers.tensor_names import FEATURES, PREDICTION, state_pairs
from edge_lstm_export.writers.tflite_writer import write_tflite
from edge_lstm_train.model.checkpoint import Checkpoint

ANY_PURPOSE = Purpose()
_Writer = Callable[[Network, Contract], bytes]
_WRITERS: Mapping[Format, tuple[str, _Writer]] = {
    "onnx": ("model.{scheme}.onnx", write_onnx),
    "tflite": ("model.{scheme}.tflite", write_tflite),
    "numpy": ("weights.{scheme}.npz", lambda network, _: to_npz(network)),
}
FORMATS: tuple[Format, ...] = tuple(_WRITERS)

# The largest error of a backend in float32, from the order of sums and its own exp and tanh. Export requires it of all
# installed backends.
PARITY = 1e-5
# The largest error of the same file on a device with approximate kernels: tflite-runtime 2.14 measures 2.4e-5 on 32-bit
# ARM, and 1.1e-6 on x86-64. Wrong kernels have errors of 0.001 and more.
_DEVICE_PARITY: Mapping[Format, float] = {"tflite": 5e-5}
# If activations are rounded too, a last bit sometimes decides the direction; a wrong kernel has an error of 1.
_SCHEME_PARITY: Mapping[str, float] = {"int8-dynamic": 0.05, "int8-static": 0.05}
# The largest loss by rounding, in standard deviations of the predictions; int8 measures .003 to .004, int4 .06 to .1.
_LARGEST_DRIFT: Mapping[Scheme, float] = {
    "float32": 1e-4,
    "float16": 2e-3,
    "int8": 0.01,
    "int8-dynamic": 0.02,
    "int8-static": 0.1,
    "int4": 0.2,
}


@dataclass(frozen=True, eq=False)
class Exported:
    """A written bundle and the results of its self-tests."""

    bundle: Bundle
    verdicts: list[Verdict]  # one per installed backend and variant
    unproven: list[Variant]  # variants that no installed backend runs


@dataclass(frozen=True)
class Proof:
    """Options of an export beyond the self-test."""

    distill: bool = False  # whether the float32 model trains int8 and int4
    certificate_steps: int | None = None  # carried steps per segment; None: no certificate
    budgets: Budgets = UNLIMITED
    choose: bool = False  # whether the bundle holds the best scheme within the budgets alone
    sign_with: SigningKey | Path | None = None  # a private key, or its file
    purpose: Purpose = ANY_PURPOSE


PLAIN = Proof()


def export_bundle(
    checkpoint: Checkpoint,
    path: Path,
    schemes: Sequence[Scheme] = DEFAULT_SCHEMES,
    formats: Sequence[Format] = FORMATS,
    proof: Proof = PLAIN,
) -> Exported:
    """Write the checkpoint's bundle at `path`; equal arguments give equal bytes.

    Raises EdgeLstmError, and leaves `path` unchanged, if a variant fails its self-test on an installed backend or
    exceeds a budget.
    """
    # first, before long work that ends in a signature
    key = SigningKey.read(proof.sign_with) if isinstance(proof.sign_with, Path) else proof.sign_with
    require_writable_folder(path)
    networks = quantized_networks(checkpoint, schemes, proof.distill)
    data = pack_bundle(checkpoint, networks, formats, purpose=proof.purpose)
    bundle = Bundle.from_bytes(data, str(path))
    verdicts = [replace(one, parity=_parity_here(one.scheme)) for one in verify(bundle, runnable(bundle))]
    _refuse_failures(path, verdicts)
    if proof.certificate_steps is not None:
        certificate = certify(bundle, checkpoint, proof.certificate_steps)
        if proof.choose:
            best = smallest_scheme(bundle, certificate, schemes, proof.budgets)
            networks = {best: networks[best]}
            certificate = replace(certificate, variants=[one for one in certificate.variants if one.scheme == best])
            verdicts = [verdict for verdict in verdicts if verdict.scheme == best]
        else:
            refuse_over_budget(certificate, schemes, proof.budgets)
        data = pack_bundle(checkpoint, networks, formats, certificate, proof.purpose)
        bundle = Bundle.from_bytes(data, str(path))
    if key is not None:
        data = bundle.signed(signature(bundle, key))
        bundle = Bundle.from_bytes(data, str(path))
    write_file(path, data)
    return Exported(bundle, verdicts, _unproven(bundle, verdicts))


def _parity_here(scheme: str) -> float:
    """The largest error allowed on the exporting machine; a device's limit may be larger."""
    return _SCHEME_PARITY.get(scheme, PARITY)


def bundle_bytes(checkpoint: Checkpoint, schemes: Sequence[Scheme], formats: Sequence[Format]) -> bytes:
    """The bundle as bytes, without any check."""
    return pack_bundle(checkpoint, quantized_networks(checkpoint, schemes), formats)


def quantized_networks(
    checkpoint: Checkpoint, schemes: Sequence[Scheme], distill: bool = False
) -> dict[Scheme, Network]:
    """The checkpoint's network in each scheme."""
    original, inputs = checkpoint.model.network(), golden_inputs(checkpoint)
    return {
        scheme: distilled(checkpoint, scheme)
        if distill and scheme in DISTILLED
        else quantized(original, scheme, inputs)
        for scheme in schemes
    }


def pack_bundle(
    checkpoint: Checkpoint,
    networks: Mapping[Scheme, Network],
    formats: Sequence[Format],
    certificate: Certificate | None = None,
    purpose: Purpose = ANY_PURPOSE,
) -> bytes:
    """The bundle of these networks as bytes."""
    contract, original = checkpoint.contract, checkpoint.model.network()
    inputs = golden_inputs(checkpoint)
    content: dict[str, bytes] = {}
    variants = []
    for scheme, network in networks.items():
        for format in _supported_formats(original, scheme, formats):
            pattern, write = _WRITERS[format]
            file = pattern.format(scheme=scheme)
            content[file] = write(network, contract)
            states = state_pairs(network)
            parity = max(_parity_here(scheme), _DEVICE_PARITY.get(format, PARITY))
            variant = Variant(format, scheme, file, FEATURES, PREDICTION, states, parity, _LARGEST_DRIFT[scheme])
            if network.arithmetic == "dynamic" and format == "onnx":
                variant = replace(variant, row_by_row=True)
            if network.arithmetic == "static":
                variant = replace(variant, least=inputs.min(axis=0).tolist(), most=inputs.max(axis=0).tolist())
            variants.append(variant)
    content[GOLDEN] = golden_npz(golden_vectors(checkpoint, networks))
    if certificate is not None:
        content[CERTIFICATE] = certificate_json(certificate)
    architecture = Architecture(
        original.cell,
        len(original.layers),
        original.hidden,
        original.parameters + sum(len(state.start) for state in contract.states),  # with the learned start
        original.multiply_accumulates,
    )
    manifest = Manifest(format_version(contract), contract, architecture, variants, {}, _provenance(checkpoint))
    manifest = manifest.with_purpose(purpose)
    content[CARD] = model_card(manifest, content).encode()
    return pack(manifest, content)


def _supported_formats(network: Network, scheme: Scheme, formats: Sequence[Format]) -> list[Format]:
    """The formats that the scheme has for this network. Raises EdgeLstmError with the reasons if there are none."""
    reasons = {format: unsupported_reason(network, scheme, format) for format in formats}
    supported = [format for format in formats if reasons[format] is None]
    if not supported:
        found = "; ".join(f"{format}: {reason}" for format, reason in reasons.items())
        raise EdgeLstmError(
            f"expected a format for the scheme {scheme} among {', '.join(formats)}, found none: {found}",
            "choose another scheme (int8 works with every network and backend), or add formats",
        )
    return supported


def _provenance(checkpoint: Checkpoint) -> dict[str, str]:
    makers = {"edge-lstm": edge_lstm, "torch": torch, "numpy": np, "onnx": onnx}
    versions = ", ".join(f"{name} {package.__version__}" for name, package in makers.items())
    return {**checkpoint.provenance, "exported by": versions}


def _refuse_failures(path: Path, verdicts: Sequence[Verdict]) -> None:
    failed = [verdict for verdict in verdicts if not verdict.passed]
    found = "; ".join(f"{verdict.backend} {verdict.scheme}: {verdict.finding}" for verdict in failed)
    if failed and all(verdict.error <= verdict.parity and verdict.smallest_batch for verdict in failed):
        raise EdgeLstmError(
            f"{path}: expected every scheme to stay near float32, found {found}",
            "nothing was written; add --distill, or leave out that scheme (--scheme)",
        )
    if failed:
        raise EdgeLstmError(
            f"{path}: expected every backend to give the golden vectors, found {found}",
            "nothing was written; leave out that scheme or format (--scheme, --format), or install another version of "
            "the backend",
        )


def _unproven(bundle: Bundle, verdicts: Sequence[Verdict]) -> list[Variant]:
    proven = {(format_of(verdict.backend), verdict.scheme) for verdict in verdicts}
    return [variant for variant in bundle.manifest.variants if (variant.format, variant.scheme) not in proven]
