"""Bundles byte by byte: entries packed again, manifests changed."""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any


def entries_of(path: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def packed(entries: Mapping[str, bytes]) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, data in entries.items():
            archive.writestr(zipfile.ZipInfo(name), data)
    return file.getvalue()


def with_manifest(entries: Mapping[str, bytes], change: Callable[[Any], None]) -> bytes:
    """The bundle with a changed manifest, whose hashes fit the entries."""
    facts = json.loads(entries["manifest.json"])
    facts["files"] = {
        name: hashlib.sha256(data).hexdigest()
        for name, data in entries.items()
        if name not in ("manifest.json", "manifest.sig")
    }
    change(facts)
    return packed({**entries, "manifest.json": json.dumps(facts, separators=(",", ":")).encode()})
