"""The SHA-256 of each wheel that boards get: a wheel of a pinned package that is another file is refused.

The package index, a mirror, a cache or the folder of a wheelhouse may have been changed.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping
from importlib import resources
from pathlib import Path

from edge_lstm.foundation.errors import EdgeLstmError
from edge_lstm.foundation.hashing import sha256

_ANY = "any"
_MACHINES = ("x86_64", "aarch64", "armv7l", _ANY)


def refuse_other_wheels(wheels: Iterable[Path]) -> None:
    """Raise EdgeLstmError if one of the files is a wheel of a pinned package, but not one of those that were tested.

    Not judged: a wheel of a package without a pin, or without a wheel for that processor on the package index.
    """
    known = known_wheels()
    judged = {_package_and_machine(name) for name in known}
    for wheel in wheels:
        package, machine = _package_and_machine(wheel.name)
        if not {(package, machine), (package, _ANY)} & judged:
            continue
        found = sha256(wheel.read_bytes()).hexdigest()
        if known.get(wheel.name) != found:
            expected = f"SHA-256 {known[wheel.name][:16]}…" if wheel.name in known else "another file"
            raise EdgeLstmError(
                f"expected {expected} as the wheel {wheel.name}, found SHA-256 {found[:16]}…",
                "it is not the one that was tested: check the index in pip's configuration, and collect them again",
            )


@functools.cache
def known_wheels() -> Mapping[str, str]:
    """{file name: SHA-256} of the pinned wheels."""
    text = (resources.files("edge_lstm_device_configs") / "wheels.txt").read_text(encoding="utf-8")
    lines = [line.split() for line in text.splitlines() if line and not line.startswith("#")]
    return {name: digest for digest, name in lines}


def _package_and_machine(wheel: str) -> tuple[str, str]:
    """Package and processor in the name of a wheel: upper and lower case, and . and _, are the same there."""
    platform = wheel.removesuffix(".whl").rpartition("-")[2].split(".")[-1]
    machine = next((one for one in _MACHINES if platform.endswith(one)), platform)
    return wheel.split("-")[0].replace(".", "_").lower(), machine
