"""Keys that sign bundles: Ed25519 in PEM files. A private key may have a passphrase, and a new key the old one's word.

Needs the package cryptography (extra `signing`) only if a key is used.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge_lstm.foundation.errors import EdgeLstmError
from edge_lstm.foundation.extras import require
from edge_lstm.foundation.files import write_file
from edge_lstm.foundation.permissions import PRIVATE, require_private, require_unaltered_by_others

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

Passphrase = Callable[[], bytes]

# A manifest begins with {, so no signature of a bundle is one of a rotation.
_ROTATION = b"edge-lstm key rotation\n"
MOST_ROTATIONS = 8  # between a trusted key and that of a bundle
_PUBLIC_BLOCK = re.compile(rb"-----BEGIN PUBLIC KEY-----.*?-----END PUBLIC KEY-----", re.DOTALL)


@dataclass(frozen=True)
class SigningKey:
    """A private key, and the rotations that lead to it from older keys, the oldest first."""

    private: Ed25519PrivateKey
    rotations: tuple[Mapping[str, str], ...] = ()

    @staticmethod
    def read(path: Path, passphrase: Passphrase | None = None) -> SigningKey:
        """The key in the file at `path`; `passphrase` is called if it has one.

        Raises EdgeLstmError if there is no such key, if other users may read it, or if the passphrase is wrong.
        """
        return SigningKey(_private_key(path, passphrase), _rotations_beside(path))

    @property
    def public(self) -> bytes:
        """The public key, 32 bytes."""
        return raw(self.private.public_key())


def new_keys(path: Path, passphrase: bytes | None = None) -> tuple[Path, Path]:
    """Write a private key to PATH.key (readable by its owner only) and its public key to PATH.pub; both paths.

    `passphrase`: the private key is encrypted with it. Raises EdgeLstmError if one of the files exists: an overwritten
    key is lost.
    """
    if not path.name:
        raise EdgeLstmError(f"expected a path that ends in a name, found {path}", "choose a path like maker")
    require("signing", "cryptography")
    from cryptography.hazmat.primitives import serialization as forms
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    private, public = path.with_name(f"{path.name}.key"), path.with_name(f"{path.name}.pub")
    for file in (private, public, _rotation_file(private)):
        if file.exists():
            raise EdgeLstmError(
                f"expected no file at {file}, found one", "choose another path: a key is never replaced"
            )
    key = Ed25519PrivateKey.generate()
    encryption = forms.NoEncryption() if passphrase is None else forms.BestAvailableEncryption(passphrase)
    secret = key.private_bytes(forms.Encoding.PEM, forms.PrivateFormat.PKCS8, encryption)
    try:
        descriptor = os.open(private, os.O_WRONLY | os.O_CREAT | os.O_EXCL, PRIVATE)
    except OSError as error:
        raise EdgeLstmError(f"expected to write {private}, found: {error.strerror}", "choose another path") from None
    with os.fdopen(descriptor, "wb") as file_of_key:
        file_of_key.write(secret)
    written = key.public_key().public_bytes(forms.Encoding.PEM, forms.PublicFormat.SubjectPublicKeyInfo)
    write_file(public, written, 0o644)  # also where the umask lets a group write
    return private, public


def rotated_keys(old: SigningKey, path: Path, passphrase: bytes | None = None) -> tuple[Path, Path]:
    """New keys at PATH.key and PATH.pub, and PATH.rotation beside them: the new public key, signed by the old key.

    A device that trusts the old key then accepts bundles by the new one. Raises EdgeLstmError as `new_keys` does.
    """
    if len(old.rotations) >= MOST_ROTATIONS:
        raise EdgeLstmError(
            f"expected at most {MOST_ROTATIONS} rotations in a row, found as many",
            "make new keys with edge-lstm keys new, and put the public one on the devices",
        )
    private, public = new_keys(path, passphrase)
    (new,) = public_keys(public)
    rotation = {
        "old": old.public.hex(),
        "new": raw(new).hex(),
        "signature": old.private.sign(_rotation_statement(old.public, raw(new))).hex(),
    }
    write_file(_rotation_file(private), json.dumps([*old.rotations, rotation], indent=1) + "\n", 0o644)
    return private, public


def successors(trusted: Iterable[bytes], rotations: Any) -> set[bytes]:
    """The trusted public keys, and those to which valid rotations lead from them. `rotations` is not trusted."""
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    accepted = set(trusted)
    for rotation in rotations[:MOST_ROTATIONS] if isinstance(rotations, list) else ():
        try:
            old, new, signed = (bytes.fromhex(rotation[name]) for name in ("old", "new", "signature"))
            if old in accepted:
                Ed25519PublicKey.from_public_bytes(old).verify(signed, _rotation_statement(old, new))
                accepted.add(new)
        except (ValueError, KeyError, TypeError, InvalidSignature):
            continue
    return accepted


def public_keys(path: Path) -> list[Ed25519PublicKey]:
    """The public keys in a file, one or more.

    Raises EdgeLstmError if there is none, or if other users may write the file.
    """
    require("signing", "cryptography")
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    keys = []
    for block in _PUBLIC_BLOCK.findall(_read(path, require_unaltered_by_others)):
        try:
            key = load_pem_public_key(block)
        except (ValueError, TypeError):
            raise _not_a_key(path, "public") from None
        if not isinstance(key, Ed25519PublicKey):
            raise _not_a_key(path, "public")
        keys.append(key)
    if not keys:
        raise _not_a_key(path, "public")
    return keys


def raw(key: Ed25519PublicKey) -> bytes:
    """The 32 bytes of a public key."""
    content: bytes = key.public_bytes_raw()
    return content


def read_passphrase(path: Path) -> bytes:
    """The passphrase in a file, without the line end that an editor adds.

    Raises EdgeLstmError if it is missing or empty, or if other users may read it.
    """
    passphrase = _read(path, require_private).rstrip(b"\r\n")
    if not passphrase:
        raise EdgeLstmError(f"expected a passphrase in {path}, found an empty file", "write it there")
    return passphrase


def _rotation_statement(old: bytes, new: bytes) -> bytes:
    return _ROTATION + old + new


def _rotation_file(private: Path) -> Path:
    return private.with_suffix(".rotation")


def _rotations_beside(private: Path) -> tuple[Mapping[str, str], ...]:
    path = _rotation_file(private)
    if not path.exists():
        return ()
    try:
        found: Sequence[Mapping[str, str]] = json.loads(path.read_bytes())
        return tuple({name: str(one[name]) for name in ("old", "new", "signature")} for one in found)
    except (ValueError, KeyError, TypeError, OSError):
        raise EdgeLstmError(
            f"expected rotations of a key in {path}, found something else", "put the file of edge-lstm keys rotate back"
        ) from None


def _private_key(path: Path, passphrase: Passphrase | None) -> Ed25519PrivateKey:
    require("signing", "cryptography")
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    data = _read(path, require_private)
    try:
        key = load_pem_private_key(data, None)
    except TypeError:  # it is encrypted
        if passphrase is None:
            raise EdgeLstmError(
                f"expected a passphrase for the encrypted key {path}, found none",
                "give it with --passphrase-file, or on a terminal",
            ) from None
        try:
            key = load_pem_private_key(data, passphrase())
        except ValueError:
            raise EdgeLstmError(f"expected the passphrase of {path}, found another one", "try again") from None
    except ValueError:
        raise _not_a_key(path, "private") from None
    if not isinstance(key, Ed25519PrivateKey):
        raise _not_a_key(path, "private")
    return key


def _read(path: Path, check: Callable[[Path], None]) -> bytes:
    try:
        check(path)
        return path.read_bytes()
    except OSError as error:
        raise EdgeLstmError(
            f"expected a key at {path}, found: {error.strerror}", "make one with edge-lstm keys new"
        ) from None


def _not_a_key(path: Path, kind: str) -> EdgeLstmError:
    return EdgeLstmError(
        f"expected an Ed25519 {kind} key (PEM) in {path}, found something else", "make one with edge-lstm keys new"
    )
