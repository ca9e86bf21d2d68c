"""Signatures: Ed25519 over a bundle's manifest, which carries every other file's hash; who signed is a public key.

Needs the package cryptography (extra `signing`); a device that trusts no key does without.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

from edge_lstm.bundle.archive import Bundle
from edge_lstm.foundation.errors import BundleError, EdgeLstmError
from edge_lstm.foundation.extras import require
from edge_lstm.foundation.files import write_file

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey


def new_keys(path: Path) -> tuple[Path, Path]:
    """Write a private key at PATH.key (readable by its owner alone) and its public one at PATH.pub; both paths.

    Raises EdgeLstmError where one of them exists: a key that was overwritten is lost.
    """
    require("signing", "cryptography")
    from cryptography.hazmat.primitives import serialization as forms
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    private, public = path.with_name(f"{path.name}.key"), path.with_name(f"{path.name}.pub")
    for file in (private, public):
        if file.exists():
            raise EdgeLstmError(f"expected no file at {file}, found one", "name another place: a key is never replaced")
    key = Ed25519PrivateKey.generate()
    secret = key.private_bytes(forms.Encoding.PEM, forms.PrivateFormat.PKCS8, forms.NoEncryption())
    try:
        descriptor = os.open(private, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except OSError as error:
        raise EdgeLstmError(f"expected to write {private}, found: {error.strerror}", "name another place") from None
    with os.fdopen(descriptor, "wb") as file_of_key:
        file_of_key.write(secret)
    write_file(public, key.public_key().public_bytes(forms.Encoding.PEM, forms.PublicFormat.SubjectPublicKeyInfo))
    return private, public


def require_private_key(key: Path) -> None:
    """Raise EdgeLstmError unless the file `key` holds a private key: before long work that ends in a signature."""
    _private_key(key)


def signature(bundle: Bundle, key: Path) -> bytes:
    """The entry manifest.sig for the bundle, by the private key in the file `key`; equal arguments give equal bytes."""
    private = _private_key(key)
    facts = {
        "public_key": _raw(private.public_key()).hex(),
        "signature": private.sign(bundle.manifest_bytes).hex(),
    }
    return (json.dumps(facts) + "\n").encode()


def signer(bundle: Bundle) -> str | None:
    """The public key (hex) that claims to have signed the bundle; None: it is unsigned. Checks nothing."""
    if bundle.signature is None:
        return None
    return _claim(bundle)[0].hex()


def require_trusted_signature(bundle: Bundle, public_key: Path) -> None:
    """Raise BundleError unless the bundle carries that key's signature of its manifest."""
    trusted = _public_key(public_key)
    if bundle.signature is None:
        raise BundleError(
            f"{bundle.source}: expected a signature by {public_key}, found none",
            "sign it with edge-lstm sign, or run it without trust",
        )
    from cryptography.exceptions import InvalidSignature

    claimed, signed = _claim(bundle)
    if claimed != _raw(trusted):
        raise BundleError(
            f"{bundle.source}: expected a signature by {public_key}, found one by another key, {claimed.hex()[:16]}",
            "ask whoever sent it to sign with the key that is trusted here",
        )
    try:
        trusted.verify(signed, bundle.manifest_bytes)
    except InvalidSignature:
        raise BundleError(
            f"{bundle.source}: expected a signature of its manifest, found one of other bytes",
            "the bundle was altered after it was signed: do not run it",
        ) from None


def _claim(bundle: Bundle) -> tuple[bytes, bytes]:
    """(public key, signature) as manifest.sig has them."""
    try:
        facts = json.loads(bundle.signature or b"")
        return bytes.fromhex(facts["public_key"]), bytes.fromhex(facts["signature"])
    except (ValueError, KeyError, TypeError, RecursionError):
        raise BundleError(
            f"{bundle.source}: expected a public key and a signature in manifest.sig, found something else",
            "sign the bundle again",
        ) from None


def _raw(key: Ed25519PublicKey) -> bytes:
    raw: bytes = key.public_bytes_raw()
    return raw


def _private_key(path: Path) -> Ed25519PrivateKey:
    require("signing", "cryptography")
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        key = load_pem_private_key(_bytes(path), None)
    except (ValueError, TypeError):
        raise _no_key(path, "private") from None
    if not isinstance(key, Ed25519PrivateKey):
        raise _no_key(path, "private")
    return key


def _public_key(path: Path) -> Ed25519PublicKey:
    require("signing", "cryptography")
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    try:
        key = load_pem_public_key(_bytes(path))
    except (ValueError, TypeError):
        raise _no_key(path, "public") from None
    if not isinstance(key, Ed25519PublicKey):
        raise _no_key(path, "public")
    return key


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise EdgeLstmError(
            f"expected a key at {path}, found: {error.strerror}", "make one with edge-lstm keys new"
        ) from None


def _no_key(path: Path, kind: str) -> EdgeLstmError:
    return EdgeLstmError(
        f"expected an Ed25519 {kind} key (PEM) in {path}, found something else", "make one with edge-lstm keys new"
    )
