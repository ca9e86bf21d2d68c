"""Whether a service accepts a bundle: signature, name, device and last day, before its model is loaded."""

from __future__ import annotations

from pathlib import Path

from edge_lstm.bundle.archive import Bundle
from edge_lstm.bundle.signing import open_trusted
from edge_lstm.foundation.errors import BundleError
from edge_lstm.foundation.times.clock import ClockTrust
from edge_lstm.service.config import ServiceConfig


def open_acceptable(config: ServiceConfig, folder: Path) -> Bundle:
    """Open the config's bundle, its signature first; relative paths of the config start at `folder`.

    Raises BundleError if the config does not accept it, EdgeLstmError if a file of `trust` is missing or no key.
    """
    bundle = open_trusted(folder / config.bundle, [folder / path for path in config.trusted_keys])
    require_purpose(bundle, config)
    return bundle


def require_purpose(bundle: Bundle, config: ServiceConfig) -> None:
    """Raise BundleError if the bundle has another name than the config expects, or is not for this device and day."""
    if config.bundle_name is not None and bundle.contract.name != config.bundle_name:
        raise BundleError(
            f"{bundle.source}: expected the bundle {config.bundle_name}, found {bundle.contract.name}",
            "correct bundle or bundle_name in the config",
        )
    bundle.manifest.purpose.require(bundle.source, config.mqtt.client_id, ClockTrust(config.clock.trust))
