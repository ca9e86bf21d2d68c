"""The bundle: one .elstm file with every variant of a model and what proves it; read with suspicion, written whole.

A bundle is a zip of stored entries with fixed timestamps, so that equal contents are equal bytes. manifest.json names
every other entry with its sha256. Nothing in it is ever unpickled or executed.
"""

from __future__ import annotations

import dataclasses
import io
import json
import os
import re
import stat
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, Literal

from edge_lstm.bundle.contract import Contract
from edge_lstm.bundle.schemes import Format, Scheme
from edge_lstm.foundation.config import from_mapping, key
from edge_lstm.foundation.errors import BundleError
from edge_lstm.foundation.files import write_file
from edge_lstm.foundation.hashing import sha256
from edge_lstm.foundation.text import plain, told

FORMAT_VERSION = 1
MANIFEST = "manifest.json"
GOLDEN = "golden.npz"
CARD = "README.md"
CERTIFICATE = "certificate.json"
SIGNATURE = "manifest.sig"
_MOST_BYTES = 64 * 2**20  # far above any model for a small board, far below what hurts one
_MOST_OF = {MANIFEST: 8 * 2**20, CERTIFICATE: 2**20, SIGNATURE: 2**12}  # JSON takes many times its bytes in memory
_MOST_ENTRIES = 64
_MOST_CARRIED = 2**20  # numbers a stream
_MOST_COUNTED = 10**15  # of what is only told
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")  # of an entry: no folder, no hidden file


@dataclass(frozen=True)
class TensorPair:
    """The tensors through which a backend carries one state."""

    state: str = key(doc="the state's name in the contract")
    input: str = key(doc="the tensor that takes it")
    output: str = key(doc="the tensor that gives the next one")


@dataclass(frozen=True)
class Variant:
    """The model in one format and scheme, and the tolerances that every backend has to keep with it.

    `parity` bounds the difference from the golden vectors of the same scheme, relative to the largest of them;
    `drift` bounds the RMS difference from the float32 golden vectors, relative to their standard deviation.
    """

    format: Format = key(doc="onnx, tflite or numpy")
    scheme: Scheme = key(doc="how its weights are stored")
    file: str = key(doc="its entry in the bundle")
    features: str = key(doc="the tensor that takes the feature vectors (batch, inputs)")
    prediction: str = key(doc="the tensor that gives the predictions (batch, outputs)")
    states: list[TensorPair] = key(doc="one pair a state of the contract, in its order")
    parity: float = key(doc="largest relative difference from its golden vectors", least=0)
    drift: float = key(doc="largest drift from the float32 golden vectors", least=0)
    row_by_row: bool = key(False, doc="whether its kernels couple the rows of a batch, so that rows go one at a time")
    least: list[float] = key([], doc="smallest feature values in calibration, where it was calibrated")
    most: list[float] = key([], doc="largest feature values in calibration")


@dataclass(frozen=True)
class Architecture:
    """What the network is, for people."""

    cell: Literal["lstm", "gru", "foreign"] = key(doc="the recurrent cell; foreign: somebody else's")
    layers: int = key(doc="recurrent layers", least=1, most=_MOST_COUNTED)
    hidden: int = key(doc="units a layer", least=1, most=_MOST_COUNTED)
    parameters: int = key(doc="trained numbers", least=1, most=_MOST_COUNTED)
    multiply_accumulates: int | None = key(
        None, doc="of one step of one stream; none: unknown", least=0, most=_MOST_COUNTED
    )


@dataclass(frozen=True)
class Manifest:
    """All that is known about a model, as manifest.json holds it."""

    format_version: int = key(doc="of the bundle's layout")
    contract: Contract = key(doc="what goes in, comes out and is carried")
    architecture: Architecture = key(doc="what the network is")
    variants: list[Variant] = key(doc="the model, by format and scheme")
    files: dict[str, str] = key(doc="every other entry's sha256")
    provenance: dict[str, str] = key({}, doc="recipe, recording, versions")

    def faults(self) -> Iterator[tuple[str, str]]:
        states = [state.name for state in self.contract.states]
        if (carried := sum(prod(state.shape) for state in self.contract.states)) > _MOST_CARRIED:
            yield "contract.states", f"expected at most {_MOST_CARRIED} numbers a stream, found {carried}"
        if not self.variants:
            yield "variants", "expected at least one"
        if len({(variant.format, variant.scheme) for variant in self.variants}) < len(self.variants):
            yield "variants", "expected one of each format and scheme"
        for name, text in self.provenance.items():
            if not plain(name) or not plain(text.replace("\n", "").replace("\t", "")):
                yield "provenance", f'expected texts without control characters, found {name} = "{text}"'
        for index, variant in enumerate(self.variants):
            if variant.file not in self.files:
                yield f"variants[{index}].file", f'expected a name under "files", found "{variant.file}"'
            if [pair.state for pair in variant.states] != states:
                yield f"variants[{index}].states", f"expected the contract's states {states}"
            for name, bounds in (("least", variant.least), ("most", variant.most)):
                if len(bounds) not in (0, len(self.contract.inputs)):
                    yield f"variants[{index}].{name}", f"expected a number an input, found {len(bounds)}"


@dataclass(frozen=True, eq=False)
class Bundle:
    """A manifest, the files that it vouches for, and the identity that both together have."""

    manifest: Manifest
    content: Mapping[str, bytes]  # by entry name, without manifest.json
    id: str  # first 12 hex digits of the manifest's sha256
    source: str  # where it was read, for messages
    manifest_bytes: bytes = b""  # manifest.json as it stands in the file: what a signature is of
    signature: bytes | None = None  # manifest.sig, unchecked

    @staticmethod
    def open(path: str | Path) -> Bundle:
        """Read and check the bundle at `path`. Raises BundleError where it is missing, damaged or too new."""
        path = Path(path)
        try:
            with path.open("rb") as file:
                facts = os.fstat(file.fileno())
                data = file.read(1 + min(facts.st_size if stat.S_ISREG(facts.st_mode) else _MOST_BYTES, _MOST_BYTES))
        except FileNotFoundError:
            raise BundleError(f"expected a bundle at {path}, found no file", "make one with edge-lstm export") from None
        except OSError as error:
            raise BundleError(f"expected a bundle at {path}, found: {error.strerror}", "check the path") from None
        return Bundle.from_bytes(data, str(path))

    @staticmethod
    def from_bytes(data: bytes, source: str) -> Bundle:
        """Check the bytes of a bundle file. Raises BundleError as `open` does."""
        content = _entries(data, source)
        try:
            raw = content.pop(MANIFEST)
        except KeyError:
            raise _damaged(source, f"no {MANIFEST}") from None
        try:
            facts: Any = json.loads(raw)
        except (ValueError, RecursionError) as error:
            raise _damaged(source, f"a {MANIFEST} that is not JSON ({error})") from None
        version = facts.get("format_version") if isinstance(facts, dict) else None
        if version != FORMAT_VERSION:
            found = told(str(version)) if isinstance(version, (int, str)) else "none"
            raise BundleError(
                f"{source}: expected a bundle of format version {FORMAT_VERSION}, found {found}",
                "export it again with this version of edge-lstm, or install the version that made it",
            )
        signature = content.pop(SIGNATURE, None)
        manifest = from_mapping(facts, Manifest, f"{source}:{MANIFEST}", BundleError)
        if set(manifest.files) != set(content):
            odd = ", ".join(sorted(set(manifest.files) ^ set(content)))
            raise _damaged(source, f"other files than its manifest lists: {told(odd)}")
        for name, expected in manifest.files.items():
            if sha256(content[name]).hexdigest() != expected:
                raise _damaged(source, f"{name} with another sha256 than its manifest says")
        return Bundle(manifest, content, sha256(raw).hexdigest()[:12], source, raw, signature)

    def signed(self, signature: bytes) -> bytes:
        """The bytes of this bundle with that signature instead of its own."""
        return _zip({MANIFEST: self.manifest_bytes, **self.content, SIGNATURE: signature})

    @property
    def contract(self) -> Contract:
        return self.manifest.contract

    @property
    def schemes(self) -> list[str]:
        """The schemes that it holds, in the manifest's order."""
        return list(dict.fromkeys(variant.scheme for variant in self.manifest.variants))

    def variant(self, format: str, scheme: str) -> Variant:
        """The variant of that format and scheme. Raises BundleError that lists those there are."""
        for variant in self.manifest.variants:
            if (variant.format, variant.scheme) == (format, scheme):
                return variant
        held = ", ".join(f"{variant.format} {variant.scheme}" for variant in self.manifest.variants)
        raise BundleError(
            f"{self.source}: expected a variant {format} {scheme}, found {held}",
            "choose one of those, or export again with --scheme and --format",
        )


def write_bundle(path: Path, manifest: Manifest, content: Mapping[str, bytes]) -> Bundle:
    """Write the bundle at `path`, whole or not at all, and return it as it was written.

    `manifest.files` is filled in here from `content`.
    """
    data = pack(manifest, content)
    bundle = Bundle.from_bytes(data, str(path))
    write_file(path, data)
    return bundle


def pack(manifest: Manifest, content: Mapping[str, bytes]) -> bytes:
    """The bytes of a bundle: equal arguments give equal bytes."""
    files = {name: sha256(content[name]).hexdigest() for name in sorted(content)}
    facts = dataclasses.asdict(dataclasses.replace(manifest, files=files))
    entries = {MANIFEST: (json.dumps(facts, indent=1) + "\n").encode(), **{name: content[name] for name in files}}
    return _zip(entries)


def _zip(entries: Mapping[str, bytes]) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        for name, data in entries.items():
            entry = zipfile.ZipInfo(name, date_time=(1980, 1, 1, 0, 0, 0))
            entry.external_attr = 0o644 << 16
            archive.writestr(entry, data)
    return file.getvalue()


def _entries(data: bytes, source: str) -> dict[str, bytes]:
    """The entries of the zip, by name; names, count and sizes are checked before anything is read."""
    if len(data) > _MOST_BYTES:
        raise _damaged(source, f"more than {_MOST_BYTES} bytes")
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            infos = archive.infolist()
            names = [info.filename for info in infos]
            if len(infos) > _MOST_ENTRIES or len(set(names)) < len(names):
                raise _damaged(source, f"{len(names)} entries of {len(set(names))} names")
            for info in infos:
                kind = stat.S_IFMT(info.external_attr >> 16)
                if not _NAME.fullmatch(info.filename) or kind not in (0, stat.S_IFREG):
                    raise _damaged(source, f"an entry that no bundle has: {told(info.filename)!r}")
                if info.compress_type != zipfile.ZIP_STORED or info.compress_size != info.file_size:
                    raise _damaged(source, f"{info.filename!r} that is compressed")
                if info.file_size > _MOST_OF.get(info.filename, _MOST_BYTES):
                    raise _damaged(source, f"{info.filename!r} of {info.file_size} bytes")
            if (claimed := sum(info.file_size for info in infos)) > len(data):
                raise _damaged(source, f"entries that claim {claimed} bytes in a file of {len(data)}")
            return {info.filename: archive.read(info) for info in infos}
    # what zipfile raises on damaged archives: BadZipFile, and from corrupted fields any of the others
    except (zipfile.BadZipFile, EOFError, ValueError, NotImplementedError, RuntimeError, OSError) as error:
        raise _damaged(source, told(str(error))) from None


def _damaged(source: str, found: str) -> BundleError:
    return BundleError(
        f"{source}: expected a whole bundle, found {found}", "copy or export it again: a damaged bundle is never run"
    )
