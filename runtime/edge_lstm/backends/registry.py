"""Finds and loads inference backends by name. A backend that cannot be used is an error: there is no fallback."""

from __future__ import annotations

import importlib
import importlib.util
from types import ModuleType

import numpy as np

from edge_lstm.backends.calibrated import CalibratedBackend
from edge_lstm.backends.kinds import BACKENDS, NAMES
from edge_lstm.backends.protocol import ONE_THREAD, Backend, ExecutionOptions
from edge_lstm.backends.row_by_row import RowByRow
from edge_lstm.bundle.archive import Bundle, Variant
from edge_lstm.bundle.schemes import Format, why_unsupported
from edge_lstm.foundation.arguments import described, quoted
from edge_lstm.foundation.config import suggestion
from edge_lstm.foundation.errors import BackendError, BundleError


def why_unavailable(name: str) -> BackendError | None:
    """Why the backend cannot run on this machine; None: its package is found (and not imported)."""
    kind = BACKENDS[name]
    if importlib.util.find_spec(kind.package) is None:
        return BackendError(
            f"expected the package {kind.package} for the backend {name}, found it is not installed here",
            f"run pip install 'edge-lstm[{kind.extra}]', or choose another backend",
        )
    if name == "tflite-runtime" and int(np.__version__.split(".")[0]) >= 2:
        return BackendError(
            f"expected numpy < 2 for the backend tflite-runtime (it was built against numpy 1), found {np.__version__}",
            "run pip install 'numpy<2', or use the backend litert (pip install 'edge-lstm[tflite]')",
        )
    return None


def format_of(name: str) -> Format:
    """The model format of the backend."""
    return BACKENDS[name].format


def module_of(name: str) -> str:
    """The module of edge_lstm for the backend."""
    return BACKENDS[name].module


def package_of(name: str) -> str:
    """The import name of the package that the backend needs."""
    return BACKENDS[name].package


def installed() -> list[str]:
    """The names of the backends that can run on this machine, in order of preference."""
    return [name for name in NAMES if why_unavailable(name) is None]


def runnable(bundle: Bundle) -> list[tuple[str, str]]:
    """(backend, scheme) of each variant of the bundle that an installed backend can run."""
    return [
        (name, variant.scheme)
        for name in installed()
        for variant in bundle.manifest.variants
        if variant.format == BACKENDS[name].format and why_unsupported(variant.scheme, name) is None
    ]


def preferred(bundle: Bundle, backend: str | None = None, scheme: str | None = None) -> tuple[str, str]:
    """The backend and scheme to use if one of them is not given, or neither.

    Raises BundleError if the bundle has no such scheme, and BackendError if no installed backend runs the bundle.
    """
    if scheme is None:
        scheme = "int8" if "int8" in bundle.schemes else bundle.schemes[0]
    elif scheme not in bundle.schemes:
        found = quoted(scheme) if isinstance(scheme, str) else described(scheme)
        raise BundleError(
            f"{bundle.source}: expected a scheme of {', '.join(bundle.schemes)}, found {found}",
            "choose one of those, or export again with --scheme",
        )
    if backend is None:
        names = [name for name, runs in runnable(bundle) if runs == scheme]
        if not names:
            formats = ", ".join(sorted({variant.format for variant in bundle.manifest.variants}))
            found = ", ".join(installed())
            raise BackendError(
                f"{bundle.source}: expected an installed backend for {scheme} in {formats}, found {found}",
                "choose another scheme, or install one: pip install 'edge-lstm[tflite]' or 'edge-lstm[onnx]'",
            )
        backend = names[0]
    return backend, scheme


def load(bundle: Bundle, name: str, scheme: str, execution: ExecutionOptions = ONE_THREAD) -> Backend:
    """The bundle's model on the named backend, by default on one CPU thread.

    Raises BackendError if the backend, the variant or the requested execution is not available.
    """
    if not isinstance(name, str) or name not in BACKENDS:
        found = quoted(name) if isinstance(name, str) else described(name)
        near = suggestion(name, NAMES) if isinstance(name, str) else "choose one of them"
        raise BackendError(f"expected a backend of {', '.join(NAMES)}, found {found}", near)
    if (error := why_unavailable(name)) is not None:
        raise error
    _require_supported_execution(name, execution)
    kind = BACKENDS[name]
    if scheme in bundle.schemes and (reason := why_unsupported(scheme, name)) is not None:
        raise BackendError(
            f"{bundle.source}: expected a backend for {scheme}, found {name}: {reason}",
            f"use one of {', '.join(_supporting(scheme))}, or another scheme",
        )
    variant = bundle.variant(kind.format, scheme)
    backend: Backend = imported(name).load(variant, bundle.content[variant.file], execution)
    if variant.row_by_row:
        backend = RowByRow(backend)
    _require_contract_shapes(backend, bundle, variant)
    if variant.least and variant.most:
        return CalibratedBackend(backend, bundle.contract.inputs, variant.least, variant.most)
    return backend


def imported(name: str) -> ModuleType:
    """The module that drives the backend. Raises BackendError where its package is here and does not load."""
    kind = BACKENDS[name]
    try:
        return importlib.import_module(kind.module)
    except ImportError as error:
        raise BackendError(
            f"expected to import {kind.package} for the backend {name}, found: {error}",
            "install a wheel of it for this system and this Python, or choose another backend",
        ) from None


def _require_supported_execution(name: str, execution: ExecutionOptions) -> None:
    if name != "onnx" and execution.providers != ONE_THREAD.providers:
        raise BackendError(
            f"expected the backend onnx for the providers {', '.join(execution.providers)}, found {name}",
            'set backend = "onnx", or leave providers out',
        )
    if name == "numpy" and execution.threads != 1:
        raise BackendError(
            f"expected one thread for the backend numpy, which steps rows one by one, found {execution.threads}",
            "set threads = 1, or choose another backend",
        )


def _supporting(scheme: str) -> list[str]:
    return [name for name in NAMES if why_unsupported(scheme, name) is None]


def _require_contract_shapes(backend: Backend, bundle: Bundle, variant: Variant) -> None:
    """Step two rows of zeros, and raise EdgeLstmError if the shapes are not the contract's."""
    contract = bundle.contract
    features = np.zeros((2, len(contract.inputs)), np.float32)
    states = [np.zeros((2, *state.shape), np.float32) for state in contract.states]
    expected = [(2, len(contract.network_outputs)), *[state.shape for state in states]]
    try:
        prediction, following = backend.step(features, states)
        found = str([array.shape for array in (prediction, *following)])
    except (ValueError, IndexError, TypeError) as error:
        found = str(error)
    if found != str(expected):
        raise BackendError(
            f"{variant.file}: expected a step of the contract's shapes {expected}, found {found}",
            "export the bundle again",
        )
