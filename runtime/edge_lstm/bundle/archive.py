"""The bundle: one .elstm file with all variants of a model, its golden vectors and its certificate.

A bundle is a zip file with uncompressed entries and fixed timestamps, so equal contents give equal bytes. manifest.json
has the SHA-256 of every other entry. Sizes and names are checked before anything is read. Nothing is unpickled or run.
"""

from __future__ import annotations

import dataclasses
import io
import json
import os
import re
import stat
import zipfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

from edge_lstm.bundle.alarm import without_newer_keys
from edge_lstm.bundle.contract import Contract
from edge_lstm.bundle.network import STARTED
from edge_lstm.bundle.purpose import Purpose
from edge_lstm.bundle.schemes import Format, Scheme
from edge_lstm.bundle.stored_zip import contents, directory
from edge_lstm.bundle.untrusted_json import parsed_json
from edge_lstm.foundation.arguments import described, path_argument
from edge_lstm.foundation.config import from_mapping, key
from edge_lstm.foundation.errors import BundleError
from edge_lstm.foundation.files import write_file
from edge_lstm.foundation.hashing import sha256
from edge_lstm.foundation.text import is_printable, printable

FORMAT_VERSION = 1
_NEWER_FORMAT_VERSION = 2  # of a bundle with anything that version 1 does not know, as `format_version` finds it
MANIFEST = "manifest.json"
GOLDEN = "golden.npz"
CARD = "README.md"
CERTIFICATE = "certificate.json"
SIGNATURE = "manifest.sig"
_NEWER_FEATURE_KEYS = ("period", "counter", "modulus", "age")
_MAX_BYTES = 64 * 2**20  # far more than any model for a small board has, far less than its memory
_MAX_BYTES_OF = {
    MANIFEST: 4 * 2**20,
    CERTIFICATE: 2**20,
    SIGNATURE: 2**12,
}  # parsed JSON takes many times its size in memory
_MAX_ENTRIES = 64
_MAX_VALUES = 200_000  # of the manifest; a model with 4,000 features has 60,000
_MAX_INPUTS = 2**16  # numbers of a feature vector
# What a manifest may tolerate, by scheme: several times what any export writes. A wrong kernel has an error of .001 and
# more in float32, and of 1 where activations are rounded; random weights drift by more than .5.
_MOST_PARITY: Mapping[str, float] = {"int8-dynamic": 0.1, "int8-static": 0.1}
_MOST_PARITY_OF_OTHERS = 1e-3
_MOST_DRIFT: Mapping[str, float] = {
    "float32": 0.01,
    "float16": 0.02,
    "int8": 0.05,
    "int8-dynamic": 0.1,
    "int8-static": 0.3,
    "int4": 0.5,
}
_MAX_STATE_NUMBERS = 2**20  # numbers per stream
_MAX_COUNT = 10**15  # of counts that are only shown
_ENTRY_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")  # of an entry: no folder, no hidden file


@dataclass(frozen=True)
class TensorPair:
    """The input and output tensor of one state."""

    state: str = key(doc="the state's name in the contract")
    input: str = key(doc="input tensor of the state")
    output: str = key(doc="output tensor of the next state")


@dataclass(frozen=True)
class Variant:
    """The model in one format and scheme, with the tolerances for every backend.

    `parity` limits the difference from the golden vectors of the same scheme, relative to their largest magnitude.
    `drift` limits the RMS difference from the float32 golden vectors, relative to their standard deviation.
    """

    format: Format = key(doc="onnx, tflite or numpy")
    scheme: Scheme = key(doc="how its weights are stored")
    file: str = key(doc="its entry in the bundle")
    features: str = key(doc="input tensor of the feature vectors (batch, inputs)")
    prediction: str = key(doc="output tensor of the predictions (batch, outputs)")
    states: list[TensorPair] = key(doc="one pair for each state of the contract, in its order")
    parity: float = key(doc="limit of the relative difference from its golden vectors", least=0)
    drift: float = key(doc="limit of the drift from the float32 golden vectors", least=0)
    row_by_row: bool = key(
        False, doc="whether rows are stepped one at a time, since kernels couple the rows of a batch"
    )
    least: list[float] = key([], doc="smallest input values in calibration; empty: not calibrated")
    most: list[float] = key([], doc="largest input values in calibration")


@dataclass(frozen=True)
class Architecture:
    """The kind and size of the network, for display."""

    cell: Literal["lstm", "gru", "none", "foreign"] = key(
        doc="the recurrent cell; none: a linear network; foreign: a model from elsewhere"
    )
    layers: int = key(doc="recurrent layers", least=0, most=_MAX_COUNT)
    hidden: int = key(doc="units per layer", least=0, most=_MAX_COUNT)
    parameters: int = key(doc="trained parameters", least=1, most=_MAX_COUNT)
    multiply_accumulates: int | None = key(
        None, doc="of one step of one stream; none: unknown", least=0, most=_MAX_COUNT
    )

    def faults(self) -> Iterator[tuple[str, str]]:
        if (self.cell == "none") != (self.layers == 0) or (self.cell == "none") != (self.hidden == 0):
            yield "cell", f'expected layers and units, or neither and "none", found {self.layers} x {self.hidden}'

    @property
    def kind(self) -> str:
        """The kind and size of the layers in words."""
        if self.cell == "none":
            return "linear, no recurrent layers"
        return f"{self.cell.upper()}, {self.layers} x {self.hidden} units"


@dataclass(frozen=True)
class Manifest:
    """The description of a model, as in manifest.json."""

    format_version: int = key(doc="version of the bundle format")
    contract: Contract = key(doc="inputs, outputs and states")
    architecture: Architecture = key(doc="kind and size of the network")
    variants: list[Variant] = key(doc="the model in each format and scheme")
    files: dict[str, str] = key(doc="SHA-256 of every other entry")
    provenance: dict[str, str] = key({}, doc="recipe, recording, versions")
    version: int = key(0, doc="rises with each bundle of the same name; 0: none")
    devices: list[str] = key([], doc="client ids that may run it, or patterns like pump-*; empty: all")
    expires: str | None = key(None, doc="the last day on which it may start, like 2027-12-31 (UTC); none: no limit")

    @property
    def purpose(self) -> Purpose:
        """Version, devices and last day."""
        return Purpose(self.version, tuple(self.devices), self.expires)

    def with_purpose(self, purpose: Purpose) -> Manifest:
        """This manifest for that purpose."""
        if purpose == Purpose():
            return self
        return dataclasses.replace(
            self,
            format_version=_NEWER_FORMAT_VERSION,  # an older edge-lstm would not look at the purpose
            version=purpose.version,
            devices=[*purpose.devices],
            expires=purpose.expires,
        )

    def faults(self) -> Iterator[tuple[str, str]]:
        yield from self.purpose.faults()
        if self.format_version < (needed := format_version(self.contract)):
            yield "format_version", f"expected {needed} for what the contract has, found {self.format_version}"
        states = [state.name for state in self.contract.states]
        if (inputs := len(self.contract.inputs)) > _MAX_INPUTS:
            yield "contract.features", f"expected at most {_MAX_INPUTS} inputs, found {inputs}"
        if (carried := sum(state.size for state in self.contract.states)) > _MAX_STATE_NUMBERS:
            yield "contract.states", f"expected at most {_MAX_STATE_NUMBERS} numbers per stream, found {carried}"
        if not self.variants:
            yield "variants", "expected at least one"
        if len({(variant.format, variant.scheme) for variant in self.variants}) < len(self.variants):
            yield "variants", "expected one of each format and scheme"
            return  # the others are looked at one by one
        for name, text in self.provenance.items():
            if not is_printable(name) or not is_printable(text.replace("\n", "").replace("\t", "")):
                yield "provenance", f'expected texts without control characters, found {name} = "{text}"'
        for index, variant in enumerate(self.variants):
            if variant.file not in self.files:
                yield f"variants[{index}].file", f'expected a name under "files", found "{variant.file}"'
            if [pair.state for pair in variant.states] != states:
                yield f"variants[{index}].states", f"expected the contract's states {states}"
            for name, bounds in (("least", variant.least), ("most", variant.most)):
                if len(bounds) not in (0, inputs):
                    yield f"variants[{index}].{name}", f"expected one number per input, found {len(bounds)}"
            most_parity = _MOST_PARITY.get(variant.scheme, _MOST_PARITY_OF_OTHERS)
            for name, limit, most in (
                ("parity", variant.parity, most_parity),
                ("drift", variant.drift, _MOST_DRIFT[variant.scheme]),
            ):
                if limit > most:
                    yield (
                        f"variants[{index}].{name}",
                        f"expected at most {most:g} for {variant.scheme}, found {limit:g}",
                    )


class Seal(NamedTuple):
    """What a signature is checked with, before anything else of a bundle is parsed."""

    manifest_bytes: bytes
    signature: bytes | None  # manifest.sig
    source: str  # path, for messages


CheckSeal = Callable[[Seal], None]


def format_version(contract: Contract) -> int:
    """The oldest version of the bundle format that has everything in the contract.

    An older edge-lstm refuses a newer version. Without this, it would take an angle or a counter for a plain number,
    end alarms at other steps, or step a register that starts full as one of zeros.
    """
    newer = any(feature.period is not None or feature.counter or feature.age for feature in contract.features)
    newer |= any(feature.sensor is not None for feature in contract.features)
    newer |= contract.intervals is not None or contract.health is not None or bool(contract.known_ahead)
    newer |= contract.alarm is not None and contract.alarm.is_newer
    newer |= any(state.name == STARTED for state in contract.states)
    return _NEWER_FORMAT_VERSION if newer else FORMAT_VERSION


@dataclass(frozen=True, eq=False)
class Bundle:
    """A bundle in memory: its manifest, its other files and its id."""

    manifest: Manifest
    content: Mapping[str, bytes]  # by entry name, without manifest.json
    id: str  # first 12 hex digits of the manifest's sha256
    source: str  # path, for messages
    manifest_bytes: bytes = b""  # manifest.json as in the file, which a signature signs
    signature: bytes | None = None  # manifest.sig, not verified

    @staticmethod
    def open(path: str | Path) -> Bundle:
        """Read and check the bundle at `path`. Raises BundleError if the file is missing, damaged or too new."""
        return open_bundle(path, None)

    @staticmethod
    def from_bytes(data: bytes, source: str) -> Bundle:
        """Check the bytes of a bundle file. Raises BundleError as `open` does.

        `source`: where they are from, for messages.
        """
        return _parsed(data, source, None)

    def signed(self, signature: bytes) -> bytes:
        """The bytes of this bundle with `signature` in place of its own."""
        return _zip({MANIFEST: self.manifest_bytes, **self.content, SIGNATURE: signature})

    @property
    def contract(self) -> Contract:
        return self.manifest.contract

    @property
    def schemes(self) -> list[str]:
        """The schemes of its variants, in the manifest's order."""
        return list(dict.fromkeys(variant.scheme for variant in self.manifest.variants))

    def variant(self, format: str, scheme: str) -> Variant:
        """The variant of that format and scheme. Raises BundleError that lists the variants if there is none."""
        for variant in self.manifest.variants:
            if (variant.format, variant.scheme) == (format, scheme):
                return variant
        held = ", ".join(f"{variant.format} {variant.scheme}" for variant in self.manifest.variants)
        raise BundleError(
            f"{self.source}: expected a variant {format} {scheme}, found {held}",
            "choose one of those, or export again with --scheme and --format",
        )


def open_bundle(path: str | Path, trusted: CheckSeal | None) -> Bundle:
    """Read and check the bundle at `path`. Raises BundleError if the file is missing, damaged or too new.

    `trusted` raises BundleError for a signature that is not trusted, before anything else is parsed.
    """
    path = path_argument(path, "the path of a bundle", BundleError, "give the path of an .elstm file")
    try:
        with path.open("rb") as file:
            facts = os.fstat(file.fileno())
            data = file.read(1 + min(facts.st_size if stat.S_ISREG(facts.st_mode) else _MAX_BYTES, _MAX_BYTES))
    except FileNotFoundError:
        raise BundleError(f"expected a bundle at {path}, found no file", "make one with edge-lstm export") from None
    except OSError as error:
        raise BundleError(f"expected a bundle at {path}, found: {error.strerror}", "check the path") from None
    return _parsed(data, str(path), trusted)


def _parsed(data: bytes, source: str, trusted: CheckSeal | None) -> Bundle:
    if not isinstance(data, (bytes, bytearray, memoryview)):
        raise BundleError(
            f"{source}: expected the bytes of a bundle, found {described(data)}",
            "read the file with Path.read_bytes(), or open a path with Bundle.open",
        )
    content = _entries(bytes(data), source)
    if MANIFEST not in content:
        raise _damaged(source, f"no {MANIFEST}")
    raw, signature = content.pop(MANIFEST), content.pop(SIGNATURE, None)
    if trusted is not None:
        trusted(Seal(raw, signature, source))
    try:
        facts: Any = parsed_json(raw, _MAX_VALUES)
    except ValueError as error:
        raise _damaged(source, f"a {MANIFEST} that is not JSON ({error})") from None
    version = facts.get("format_version") if isinstance(facts, dict) else None
    if version not in (FORMAT_VERSION, _NEWER_FORMAT_VERSION):
        found = printable(str(version)) if isinstance(version, (int, str)) else "none"
        raise BundleError(
            f"{source}: expected a bundle of format version {FORMAT_VERSION} or {_NEWER_FORMAT_VERSION}, found {found}",
            "export it again with this version of edge-lstm, or install the version that made it",
        )
    manifest = from_mapping(facts, Manifest, f"{source}:{MANIFEST}", BundleError)
    if set(manifest.files) != set(content):
        odd = ", ".join(sorted(set(manifest.files) ^ set(content)))
        raise _damaged(source, f"other files than its manifest lists: {printable(odd)}")
    for name, expected in manifest.files.items():
        if sha256(content[name]).hexdigest() != expected:
            raise _damaged(source, f"{name} with another SHA-256 than its manifest has")
    return Bundle(manifest, content, sha256(raw).hexdigest()[:12], source, raw, signature)


def write_bundle(path: Path, manifest: Manifest, content: Mapping[str, bytes]) -> Bundle:
    """Write the bundle to `path`, completely or not at all, and return it.

    `manifest.files` is computed from `content`.
    """
    data = pack(manifest, content)
    bundle = Bundle.from_bytes(data, str(path))
    write_file(path, data)
    return bundle


def pack(manifest: Manifest, content: Mapping[str, bytes]) -> bytes:
    """The bytes of a bundle. Equal arguments give equal bytes."""
    files = {name: sha256(content[name]).hexdigest() for name in sorted(content)}
    facts = dataclasses.asdict(dataclasses.replace(manifest, files=files))
    if manifest.format_version == FORMAT_VERSION:  # its readers refuse keys that they do not know
        for feature in facts["contract"]["features"]:
            for name in _NEWER_FEATURE_KEYS:
                if not feature[name]:
                    del feature[name]
    for feature in facts["contract"]["features"]:
        if feature["sensor"] is None:
            del feature["sensor"]
    for name in ("intervals", "health", "known_ahead"):
        if not getattr(manifest.contract, name):
            del facts["contract"][name]
    if facts["contract"]["alarm"] is not None:
        facts["contract"]["alarm"] = without_newer_keys(facts["contract"]["alarm"])
    if manifest.purpose == Purpose():  # bundles without one stay what they were
        for name in ("version", "devices", "expires"):
            del facts[name]
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
    """The entries of the zip file by name. Names, count and sizes are checked before anything is read."""
    if len(data) > _MAX_BYTES:
        raise _damaged(source, f"more than {_MAX_BYTES} bytes")
    try:
        entries = directory(data, _MAX_ENTRIES)
        for entry in entries:
            kind = stat.S_IFMT(entry.attributes >> 16)
            if not _ENTRY_NAME.fullmatch(entry.name) or kind not in (0, stat.S_IFREG):
                raise _damaged(source, f"an entry that no bundle has: {printable(entry.name)!r}")
            if entry.size > _MAX_BYTES_OF.get(entry.name, _MAX_BYTES):
                raise _damaged(source, f"{entry.name!r} of {entry.size} bytes")
        return contents(data, entries)
    except ValueError as error:
        raise _damaged(source, str(error)) from None


def _damaged(source: str, found: str) -> BundleError:
    return BundleError(
        f"{source}: expected a whole bundle, found {found}", "copy or export it again: a damaged bundle is never run"
    )
