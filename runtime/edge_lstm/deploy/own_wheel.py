"""A wheel of the running edge-lstm, made from its own files, so that a board gets the version of the workstation.

It is the same for an install and for a checkout. It needs no index and no build, and equal files give equal bytes.
"""

from __future__ import annotations

import base64
import hashlib
import importlib.metadata
import importlib.util
import io
import zipfile
from collections.abc import Iterator
from pathlib import Path

from edge_lstm.foundation.errors import EdgeLstmError

_NAME = "edge_lstm"
_TAG = "py3-none-any"
_EPOCH = (1980, 1, 1, 0, 0, 0)  # the oldest date that a zip can hold
_INSTALLER_FILES = {"RECORD", "WHEEL", "INSTALLER", "REQUESTED", "direct_url.json"}


def own_wheel() -> tuple[str, bytes]:
    """(file name, content). Raises EdgeLstmError where edge-lstm is not installed."""
    distribution = _installed_distribution()
    stem = f"{_NAME}-{distribution.version}"
    files = dict(_packages(distribution))
    for name, content in _metadata(distribution):
        files[f"{stem}.dist-info/{name}"] = content
    files[f"{stem}.dist-info/WHEEL"] = (
        f"Wheel-Version: 1.0\nGenerator: edge-lstm\nRoot-Is-Purelib: true\nTag: {_TAG}\n".encode()
    )
    record = f"{stem}.dist-info/RECORD"
    lines = [f"{name},sha256={_digest(content)},{len(content)}\n" for name, content in sorted(files.items())]
    files[record] = ("".join(lines) + f"{record},,\n").encode()
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in sorted(files.items()):
            info = zipfile.ZipInfo(name, _EPOCH)
            info.compress_type = zipfile.ZIP_DEFLATED
            info.external_attr = 0o644 << 16
            archive.writestr(info, content)
    return f"{stem}-{_TAG}.whl", buffer.getvalue()


def extras() -> list[str]:
    """The names of the extras of edge-lstm. Raises EdgeLstmError where it is not installed."""
    return sorted(_installed_distribution().metadata.get_all("Provides-Extra") or [])


def _installed_distribution() -> importlib.metadata.Distribution:
    # a checkout may hold an .egg-info of a build, which has no METADATA
    installed = (one for one in importlib.metadata.distributions(name="edge-lstm") if one.read_text("METADATA"))
    distribution = next(installed, None)
    if distribution is None:
        raise EdgeLstmError(
            "expected edge-lstm to be installed here, found only its source", "run pip install . (or -e .)"
        )
    return distribution


def _packages(distribution: importlib.metadata.Distribution) -> Iterator[tuple[str, bytes]]:
    for package in (distribution.read_text("top_level.txt") or "").split():
        spec = importlib.util.find_spec(package)
        for place in (spec and spec.submodule_search_locations) or ():
            for file in sorted(Path(place).rglob("*")):
                name = file.relative_to(place)
                if file.is_file() and "__pycache__" not in name.parts and not file.name.startswith("."):
                    yield f"{package}/{name.as_posix()}", file.read_bytes()


def _metadata(distribution: importlib.metadata.Distribution) -> Iterator[tuple[str, bytes]]:
    for file in distribution.files or ():
        folder, _, name = file.as_posix().partition("/")
        if folder.endswith(".dist-info") and name not in _INSTALLER_FILES:
            yield name, Path(str(file.locate())).read_bytes()


def _digest(content: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
