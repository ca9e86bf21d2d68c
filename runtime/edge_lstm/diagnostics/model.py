"""Checks of the backends, and of the bundle on the service's backend; each runs in a child process."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path

from edge_lstm.backends.kinds import NAMES
from edge_lstm.backends.registry import package_of, preferred, why_unavailable
from edge_lstm.bundle.archive import Bundle
from edge_lstm.decisions.forecasts.learner import why_not
from edge_lstm.diagnostics.finding import Finding
from edge_lstm.foundation.child_process import ChildError, ask
from edge_lstm.foundation.errors import EdgeLstmError
from edge_lstm.service.accepted_bundle import open_acceptable
from edge_lstm.service.config import ServiceConfig

_TRIAL = "edge_lstm.diagnostics.trial"
_IMPORT_TIMEOUT_S, _GOLDEN_TIMEOUT_S = 60.0, 300.0


def backends(chosen: str | None) -> Iterator[Finding]:
    """A finding for each backend. A failure is red only for `chosen`, the backend of the service."""
    for name in NAMES:
        yield backend(name, name == chosen)


def backend(name: str, needed: bool) -> Finding:
    """Whether the backend is installed and its package can be imported."""
    check = f"backend {name}"
    if (refused := why_unavailable(name)) is not None:
        if needed:
            return Finding(check, "red", refused.message, refused.hint)
        if "not installed" in refused.message:
            return Finding(check, "green", "not installed, and not needed by this config")
        return Finding(check, "amber", refused.message, refused.hint)
    try:
        facts = ask(_TRIAL, {"backend": name}, _IMPORT_TIMEOUT_S)
    except ChildError as error:
        remedy = f"install another version of {package_of(name)}, made for this processor, or choose another backend"
        if not needed:
            remedy += "; this config does not use it"
        return Finding(check, "red" if needed else "amber", f"its import: {error.message}", error.hint or remedy)
    use = ", which this service uses" if needed else ""
    return Finding(check, "green", f"{facts['version']}, imported in {facts['import_ms']:.0f} ms{use}")


def bundle(path: Path, config: ServiceConfig, folder: Path) -> tuple[Finding, Bundle | None, str | None]:
    """Check the bundle: its file, signature and golden vectors. Also returns the bundle and the backend to use."""
    try:
        opened = open_acceptable(config, folder)
    except EdgeLstmError as error:
        return Finding("bundle", "red", error.message, error.hint), None, None
    name: str | None = config.backend
    try:
        name, scheme = preferred(opened, config.backend, config.scheme)
        asked = {"bundle": str(path.absolute()), "backend": name, "scheme": scheme, "cores": config.cores}
        facts = ask(_TRIAL, {**asked, **dataclasses.asdict(config.execution)}, _GOLDEN_TIMEOUT_S)
    except EdgeLstmError as error:
        found = error.message
        if isinstance(error, ChildError):
            found = f"its golden vectors on {name} {scheme}: {found}"
        hint = error.hint or "choose another backend, or install another version of it"
        return Finding("bundle", "red", found, hint), opened, name
    found = f"{opened.contract.name}, id {opened.id}, on {name} {scheme}: {facts['finding']}"
    if not facts["passed"]:
        remedy = "use another backend, or another version of this one; edge-lstm verify tries all that are installed"
        return Finding("bundle", "red", found, remedy), opened, name
    return Finding("bundle", "green", found), opened, name


def learning(config: ServiceConfig, opened: Bundle) -> Finding:
    """Whether [learn] can correct anything that the bundle predicts."""
    if reason := why_not(opened.contract):
        remedy = "leave out enabled in [learn]; the bundle's own predictions are published in any case"
        return Finding("learning", "amber", f"[learn] is enabled and corrects nothing: {reason}", remedy)
    return Finding("learning", "green", f"corrects forecasts, by the last {config.learn.memory_steps} errors")
