"""Hash functions of the interpreter itself: hashlib loads OpenSSL, which takes 4 MB of memory."""

from __future__ import annotations

try:
    from _blake2 import blake2b as blake2b

    try:
        from _sha2 import sha256 as sha256  # type: ignore[import-not-found]  # from Python 3.12 on
    except ImportError:
        from _sha256 import sha256 as sha256  # type: ignore[import-not-found]
except ImportError:  # an interpreter built without them
    from hashlib import blake2b as blake2b
    from hashlib import sha256 as sha256
