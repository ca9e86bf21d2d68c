"""Signatures: Ed25519 over a bundle's manifest, which has its name, its version and the hash of every other file.

Needs the package cryptography (extra `signing`) only if a key is used.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from edge_lstm.bundle.archive import Bundle, Seal, open_bundle
from edge_lstm.bundle.keys import SigningKey, public_keys, raw, successors
from edge_lstm.foundation.errors import BundleError


def signature(bundle: Bundle, key: SigningKey | Path) -> bytes:
    """The bundle's manifest.sig by that key, or by the key in that file. Equal arguments give equal bytes."""
    if isinstance(key, Path):
        key = SigningKey.read(key)
    facts: dict[str, Any] = {"public_key": key.public.hex(), "signature": key.private.sign(bundle.manifest_bytes).hex()}
    if key.rotations:
        facts["rotations"] = list(key.rotations)
    return (json.dumps(facts) + "\n").encode()


def signer(bundle: Bundle) -> str | None:
    """The public key (hex) in the bundle's signature; None: unsigned. The signature is not verified."""
    if bundle.signature is None:
        return None
    return _claimed_signature(bundle)[0].hex()


def open_trusted(path: str | Path, trusted: Path | Sequence[Path] | None) -> Bundle:
    """Open the bundle. With `trusted`, its signature is checked before anything else is parsed.

    Raises BundleError and EdgeLstmError as `Bundle.open` and `require_trusted_signature` do.
    """
    if not trusted:
        return Bundle.open(path)
    return open_bundle(path, lambda seal: require_trusted_signature(seal, trusted))


def require_trusted_signature(bundle: Bundle | Seal, trusted: Path | Sequence[Path]) -> None:
    """Raise BundleError if the bundle has no valid signature of its manifest by one of the keys in the file or files.

    A key that replaced one of them by `keys rotate` is trusted too. Raises EdgeLstmError if a file is missing or no
    public key, or if other users may write it.
    """
    files = [trusted] if isinstance(trusted, Path) else trusted
    keys = {raw(key) for file in files for key in public_keys(file)}
    named = " or ".join(map(str, files))
    if bundle.signature is None:
        raise BundleError(
            f"{bundle.source}: expected a signature by {named}, found none",
            "sign it with edge-lstm sign, or remove trust (--trust)",
        )
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    claimed, signed, facts = _claimed_signature(bundle)
    if claimed not in keys and claimed not in successors(keys, facts.get("rotations")):
        raise BundleError(
            f"{bundle.source}: expected a signature by {named}, found one by another key, {claimed.hex()[:16]}",
            "ask the sender to sign it with the trusted key",
        )
    try:
        Ed25519PublicKey.from_public_bytes(claimed).verify(signed, bundle.manifest_bytes)
    except InvalidSignature:
        raise BundleError(
            f"{bundle.source}: expected a signature of its manifest, found one of other bytes",
            "the bundle was changed after it was signed: do not run it",
        ) from None


def _claimed_signature(bundle: Bundle | Seal) -> tuple[bytes, bytes, Mapping[str, Any]]:
    """(public key, signature, everything) in manifest.sig."""
    try:
        facts = json.loads(bundle.signature or b"")
        return bytes.fromhex(facts["public_key"]), bytes.fromhex(facts["signature"]), facts
    except (ValueError, KeyError, TypeError, RecursionError):
        raise BundleError(
            f"{bundle.source}: expected a public key and a signature in manifest.sig, found something else",
            "sign the bundle again",
        ) from None
