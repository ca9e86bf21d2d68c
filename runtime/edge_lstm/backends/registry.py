"""The backends: who steps a network. One is chosen by name and then used, or refused; there is no second choice."""

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
from edge_lstm.bundle.schemes import Format, refused
from edge_lstm.foundation.errors import BackendError


def refusal(name: str) -> BackendError | None:
    """Why the backend cannot run here, or None where it can (its package is found; it is not imported)."""
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
    """The format that the backend runs."""
    return BACKENDS[name].format


def module_of(name: str) -> str:
    """Our module that drives the backend."""
    return BACKENDS[name].module


def package_of(name: str) -> str:
    """The package that the backend needs, as it is imported."""
    return BACKENDS[name].package


def installed() -> list[str]:
    """The names of the backends that can run here, the preferred one first."""
    return [name for name in NAMES if refusal(name) is None]


def runnable(bundle: Bundle) -> list[tuple[str, str]]:
    """(backend, scheme) of every variant of the bundle that an installed backend can run."""
    return [
        (name, variant.scheme)
        for name in installed()
        for variant in bundle.manifest.variants
        if variant.format == BACKENDS[name].format and refused(variant.scheme, name) is None
    ]


def preferred(bundle: Bundle, backend: str | None = None, scheme: str | None = None) -> tuple[str, str]:
    """The backend and scheme for someone who named only one of them, or neither.

    Raises BackendError where nothing that is installed runs the bundle.
    """
    if scheme is None:
        scheme = "int8" if "int8" in bundle.schemes else bundle.schemes[0]
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
    """The bundle's model on the named backend, with one thread of the CPU unless `execution` says otherwise.

    Raises BackendError where that backend, that variant or those means are not here.
    """
    if name not in BACKENDS:
        raise BackendError(f"expected a backend of {', '.join(NAMES)}, found {name!r}", "choose one of them")
    if (error := refusal(name)) is not None:
        raise error
    _require_supported_execution(name, execution)
    kind = BACKENDS[name]
    if scheme in bundle.schemes and (reason := refused(scheme, name)) is not None:
        raise BackendError(
            f"{bundle.source}: expected a backend for {scheme}, found {name}: {reason}",
            f"use one of {', '.join(_allowed(scheme))}, or another scheme",
        )
    variant = bundle.variant(kind.format, scheme)
    backend: Backend = _imported(name).load(variant, bundle.content[variant.file], execution)
    if variant.row_by_row:
        backend = RowByRow(backend)
    _refuse_other_shapes(backend, bundle, variant)
    if variant.least and variant.most:
        return CalibratedBackend(backend, bundle.contract.inputs, variant.least, variant.most)
    return backend


def _imported(name: str) -> ModuleType:
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


def _allowed(scheme: str) -> list[str]:
    return [name for name in NAMES if refused(scheme, name) is None]


def _refuse_other_shapes(backend: Backend, bundle: Bundle, variant: Variant) -> None:
    """Two rows of zeros go through: whoever steps the backend later relies on the contract's shapes."""
    contract = bundle.contract
    features = np.zeros((2, len(contract.inputs)), np.float32)
    states = [np.zeros((2, *state.shape), np.float32) for state in contract.states]
    expected = [(2, len(contract.outputs)), *[state.shape for state in states]]
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
