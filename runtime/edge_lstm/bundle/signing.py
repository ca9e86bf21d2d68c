"""Signatures: Ed25519 over a bundle's manifest, which has the hash of every other file.

Needs the package cryptography (extra `signing`) only if a key is used.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

from edge_lstm.bundle.archive import Bundle, Seal, open_bundle
from edge_lstm.foundation.errors import BundleError, EdgeLstmError
from edge_lstm.foundation.extras import require
from edge_lstm.foundation.files import write_file

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey


def new_keys(path: Path) -> tuple[Path, Path]:
    """Write a private key to PATH.key (readable by its owner only) and its public key to PATH.pub; both paths.

    Raises EdgeLstmError if one of the files exists: an overwritten key is lost.
    """
    if not path.name:
        raise EdgeLstmError(f"expected a path that ends in a name, found {path}", "choose a path like maker")
    require("signing", "cryptography")
    from cryptography.hazmat.primitives import serialization as forms
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    private, public = path.with_name(f"{path.name}.key"), path.with_name(f"{path.name}.pub")
    for file in (private, public):
        if file.exists():
            raise EdgeLstmError(
                f"expected no file at {file}, found one", "choose another path: a key is never replaced"
            )
    key = Ed25519PrivateKey.generate()
    secret = key.private_bytes(forms.Encoding.PEM, forms.PrivateFormat.PKCS8, forms.NoEncryption())
    try:
        descriptor = os.open(private, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except OSError as error:
        raise EdgeLstmError(f"expected to write {private}, found: {error.strerror}", "choose another path") from None
    with os.fdopen(descriptor, "wb") as file_of_key:
        file_of_key.write(secret)
    write_file(public, key.public_key().public_bytes(forms.Encoding.PEM, forms.PublicFormat.SubjectPublicKeyInfo))
    return private, public


def require_private_key(key: Path) -> None:
    """Raise EdgeLstmError if the file `key` has no private key. For use before long work that ends in a signature."""
    _private_key(key)


def signature(bundle: Bundle, key: Path) -> bytes:
    """The bundle's manifest.sig by the private key in the file `key`. Equal arguments give equal bytes."""
    private = _private_key(key)
    facts = {
        "public_key": _key_bytes(private.public_key()).hex(),
        "signature": private.sign(bundle.manifest_bytes).hex(),
    }
    return (json.dumps(facts) + "\n").encode()


def signer(bundle: Bundle) -> str | None:
    """The public key (hex) in the bundle's signature; None: unsigned. The signature is not verified."""
    if bundle.signature is None:
        return None
    return _claimed_signature(bundle)[0].hex()


def open_trusted(path: str | Path, public_key: Path | None) -> Bundle:
    """Open the bundle. With `public_key`, its signature by that key is checked before anything else is parsed.

    Raises BundleError as `Bundle.open` and `require_trusted_signature` do.
    """
    if public_key is None:
        return Bundle.open(path)
    return open_bundle(path, lambda seal: require_trusted_signature(seal, public_key))


def require_trusted_signature(bundle: Bundle | Seal, public_key: Path) -> None:
    """Raise BundleError if the bundle has no valid signature of its manifest by that key."""
    trusted = _public_key(public_key)
    if bundle.signature is None:
        raise BundleError(
            f"{bundle.source}: expected a signature by {public_key}, found none",
            "sign it with edge-lstm sign, or remove trust (--trust)",
        )
    from cryptography.exceptions import InvalidSignature

    claimed, signed = _claimed_signature(bundle)
    if claimed != _key_bytes(trusted):
        raise BundleError(
            f"{bundle.source}: expected a signature by {public_key}, found one by another key, {claimed.hex()[:16]}",
            "ask the sender to sign it with the trusted key",
        )
    try:
        trusted.verify(signed, bundle.manifest_bytes)
    except InvalidSignature:
        raise BundleError(
            f"{bundle.source}: expected a signature of its manifest, found one of other bytes",
            "the bundle was changed after it was signed: do not run it",
        ) from None


def _claimed_signature(bundle: Bundle | Seal) -> tuple[bytes, bytes]:
    """(public key, signature) in manifest.sig."""
    try:
        facts = json.loads(bundle.signature or b"")
        return bytes.fromhex(facts["public_key"]), bytes.fromhex(facts["signature"])
    except (ValueError, KeyError, TypeError, RecursionError):
        raise BundleError(
            f"{bundle.source}: expected a public key and a signature in manifest.sig, found something else",
            "sign the bundle again",
        ) from None


def _key_bytes(key: Ed25519PublicKey) -> bytes:
    raw: bytes = key.public_bytes_raw()
    return raw


def _private_key(path: Path) -> Ed25519PrivateKey:
    require("signing", "cryptography")
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        key = load_pem_private_key(_read_key(path), None)
    except (ValueError, TypeError):
        raise _not_a_key(path, "private") from None
    if not isinstance(key, Ed25519PrivateKey):
        raise _not_a_key(path, "private")
    return key


def _public_key(path: Path) -> Ed25519PublicKey:
    require("signing", "cryptography")
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    try:
        key = load_pem_public_key(_read_key(path))
    except (ValueError, TypeError):
        raise _not_a_key(path, "public") from None
    if not isinstance(key, Ed25519PublicKey):
        raise _not_a_key(path, "public")
    return key


def _read_key(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise EdgeLstmError(
            f"expected a key at {path}, found: {error.strerror}", "make one with edge-lstm keys new"
        ) from None


def _not_a_key(path: Path, kind: str) -> EdgeLstmError:
    return EdgeLstmError(
        f"expected an Ed25519 {kind} key (PEM) in {path}, found something else", "make one with edge-lstm keys new"
    )
