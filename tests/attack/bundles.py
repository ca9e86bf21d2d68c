"""Bundles with random changes, whose hashes fit: each is refused, or proves itself, and nothing of it ends its reader.

Each is read as a service does it: the file, the self-test in a child process without rights, and then the backend in
the process itself, which takes further steps of it.
"""

from __future__ import annotations

import io
import random
import resource
import traceback
import zipfile
from typing import Any

import numpy as np

from edge_lstm.backends.confined import self_test_confined
from edge_lstm.backends.registry import format_of, imported
from edge_lstm.backends.selftest import initial_states, load_verified
from edge_lstm.bundle.archive import Bundle
from edge_lstm.foundation.errors import EdgeLstmError
from tests.attack.forked import in_child
from tests.hostile.bundle_bytes import entries_of, packed, with_manifest
from tests.paths import PUMP

SCHEME = "int8"
_STRANGE = [
    0,
    -1,
    1e300,
    -1e300,
    2**63,
    10**400,
    "",
    "x" * 3000,
    "\u202e\x1b[2J",
    None,
    True,
    [],
    {},
    [[[]]],
    [1] * 5000,
]


def flipped(chance: random.Random, data: bytes) -> bytes:
    """Up to eight bits, or a piece that is removed, doubled or replaced."""
    content = bytearray(data)
    if chance.random() < 0.7:
        for _ in range(chance.randrange(1, 9)):
            content[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
        return bytes(content)
    at, size = chance.randrange(len(content)), chance.choice([1, 4, 64, 1000])
    piece = chance.choice([b"", 2 * bytes(content[at : at + size]), b"\xff" * size, bytes(size)])
    content[at : at + size] = piece
    return bytes(content)


def changed_value(chance: random.Random, facts: Any) -> None:
    """One value somewhere in the manifest becomes a strange one, or is left out."""
    while True:
        if isinstance(facts, dict) and facts:
            key: Any = chance.choice(sorted(facts))
        elif isinstance(facts, list) and facts:
            key = chance.randrange(len(facts))
        else:
            return
        deeper = isinstance(facts[key], (dict, list)) and facts[key] and chance.random() < 0.8
        if not deeper:
            if chance.random() < 0.2:
                del facts[key]
            else:
                facts[key] = chance.choice(_STRANGE)
            return
        facts = facts[key]


def mutated(chance: random.Random, entries: dict[str, bytes], model: str) -> bytes:
    """A bundle with a change in the model's file (mostly), the manifest, the golden vectors, or the archive."""
    which = chance.random()
    if which < 0.65:
        return with_manifest({**entries, model: flipped_file(chance, model, entries[model])}, lambda facts: None)
    if which < 0.85:
        return with_manifest(entries, lambda facts: changed_value(chance, facts))
    if which < 0.93:
        return with_manifest(
            {**entries, "golden.npz": flipped_file(chance, "golden.npz", entries["golden.npz"])}, lambda facts: None
        )
    return flipped(chance, packed(entries))


def flipped_file(chance: random.Random, name: str, data: bytes) -> bytes:
    """A changed file; in one of arrays, mostly an array whose checksum fits, for others are refused at once."""
    if not name.endswith(".npz") or chance.random() < 0.2:
        return flipped(chance, data)
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        arrays = {one: archive.read(one) for one in archive.namelist()}
    changed = chance.choice(sorted(arrays))
    begin = 0 if chance.random() < 0.2 else 128  # behind the header, which has the type and the shape
    content = arrays[changed]
    return packed({**arrays, changed: content[:begin] + flipped(chance, content[begin:])})


def read(data: bytes, backend: str) -> str:
    """What becomes of a bundle. Raises what nothing of a bundle may raise."""
    try:
        bundle = Bundle.from_bytes(data, "strange")
        verdict = self_test_confined(bundle, backend, SCHEME)
    except EdgeLstmError as error:
        return "refused: its child died" if "died of" in error.message else "refused"
    if not verdict.passed:
        return "refused: self-test"
    if verdict.error > verdict.parity:
        raise AssertionError(f"it passed with an error of {verdict.error}")
    ended = in_child(lambda: step_on(bundle, backend), 60)
    if ended.fault is not None:
        raise AssertionError(f"its child passed, and the service died: {ended.fault}")
    return "proves itself"


def step_on(bundle: Bundle, backend: str) -> None:
    """What a service does after a child has tested the bundle, with inputs that no self-test has."""
    loaded, smallest = load_verified(bundle, backend, SCHEME)
    states = initial_states(bundle.contract, smallest)
    for step in range(20):
        features = np.full((smallest, len(bundle.contract.inputs)), 10.0 ** (step % 5), np.float32)
        _, states = loaded.step(features, states)


class Mutations:
    """The mutated bundles of a backend, by number: each is the same in every run."""

    def __init__(self, backend: str, seed: int) -> None:
        imported(backend)
        self._backend, self._seed = backend, seed
        self._entries = entries_of(PUMP)
        self._model = Bundle.open(PUMP).variant(format_of(backend), SCHEME).file

    def one(self, number: int) -> tuple[str, str]:
        """(outcome, why it is a fault) of a bundle."""
        chance = random.Random(f"{self._backend} {self._seed} {number}")
        data = mutated(chance, self._entries, self._model)
        try:
            return read(data, self._backend), ""
        except Exception:  # noqa: BLE001 - whatever is raised is the finding
            return "crash", f"bundle {number}: {traceback.format_exc()[-900:]}"


def peak_mib() -> float:
    """The largest memory of a child so far."""
    return resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
