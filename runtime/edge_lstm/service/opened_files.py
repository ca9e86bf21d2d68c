"""What a service reads once from the files of its config, and the proof that its bundle runs on this machine."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from edge_lstm.backends.protocol import ONE_THREAD, Backend
from edge_lstm.backends.registry import preferred
from edge_lstm.backends.selftest import Isolation, load_verified
from edge_lstm.bundle.archive import Bundle
from edge_lstm.mqtt.options import ConnectionOptions
from edge_lstm.service.accepted_bundle import open_acceptable
from edge_lstm.service.config import ServiceConfig
from edge_lstm.service.proven_bundles import proven


class OpenedFiles(NamedTuple):
    """What a service reads once from the files of its config."""

    bundle: Bundle
    access: ConnectionOptions

    @classmethod
    def read(cls, config: ServiceConfig, folder: Path) -> OpenedFiles:
        """Raises EdgeLstmError if a file is missing or unusable, or the bundle is not acceptable."""
        bundle = open_acceptable(config, folder)
        access = config.mqtt.options(folder)
        if access.tls is not None:
            access.tls.context()  # before the database, which drops the states of another bundle
        return cls(bundle, access)


def prove(config: ServiceConfig, folder: Path, turn: Callable[[], None]) -> None:
    """The self-test of the config's bundle in a child process, while `turn` is called again and again.

    Raises EdgeLstmError where the bundle or its backend is refused.
    """
    _isolation(config, folder, OpenedFiles.read(config, folder).bundle, turn)


def proven_backend(config: ServiceConfig, folder: Path, bundle: Bundle) -> tuple[Backend, int]:
    """The backend and its smallest batch, after the self-test in a child process and then in this one."""
    isolation = _isolation(config, folder, bundle)
    # the child tests on the CPU; a GPU has kernels of its own
    known = isolation if config.execution.providers == ONE_THREAD.providers else None
    name, scheme = preferred(bundle, config.backend, config.scheme)
    return load_verified(bundle, name, scheme, config.execution, known)


def _isolation(
    config: ServiceConfig, folder: Path, bundle: Bundle, turn: Callable[[], None] | None = None
) -> Isolation:
    name, scheme = preferred(bundle, config.backend, config.scheme)
    memory = state_path(folder, config.state).with_suffix(".proven.json")
    return proven(bundle, name, scheme, config.execution, memory, turn)


def state_path(folder: Path, state: str) -> Path:
    """Path of the state database: in the config's folder, or in the unit's StateDirectory= if systemd gives one."""
    return Path(os.environ.get("STATE_DIRECTORY") or folder) / state
