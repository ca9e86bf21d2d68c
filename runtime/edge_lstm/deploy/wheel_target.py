"""Which wheels fit the Python of a board, in which versions, and which packages its distribution provides.

It refuses nothing itself: pip does, with the names of what is missing.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import resources

# PyPI has no numpy for 32-bit ARM, but the distribution has.
_FROM_DISTRIBUTION = {"armv7l": frozenset({"numpy"})}
_OLDEST_GLIBC = 17  # glibc 2.17, that of manylinux2014
_ALIASES = {"x86_64": ["manylinux1", "manylinux2010", "manylinux2014"]}


@dataclass(frozen=True)
class Target:
    """The Python of a board: `python` like 3.11 or 3.11.2, `machine` like aarch64, `glibc` like 2.36."""

    python: str
    machine: str
    glibc: str

    @property
    def minor(self) -> str:
        """The minor version of Python, as in tags of wheels: 3.11."""
        return ".".join(self.python.split(".")[:2])

    @property
    def from_distribution(self) -> frozenset[str]:
        """Packages that come from the board's distribution instead of a wheel."""
        return _FROM_DISTRIBUTION.get(self.machine, frozenset())

    @property
    def platforms(self) -> list[str]:
        """Platform tags of wheels that run there, newest first; pip must be given the older ones too."""
        newest = int(self.glibc.split(".")[1])
        tags = [f"manylinux_2_{minor}_{self.machine}" for minor in range(newest, _OLDEST_GLIBC - 1, -1)]
        aliases = [f"{alias}_{self.machine}" for alias in _ALIASES.get(self.machine, ["manylinux2014"])]
        return [*tags, *aliases, f"linux_{self.machine}"]

    @property
    def markers(self) -> dict[str, str]:
        """The values for environment markers of requirements (PEP 508)."""
        full = self.python if self.python.count(".") == 2 else f"{self.python}.0"
        return {
            "implementation_name": "cpython",
            "implementation_version": full,
            "os_name": "posix",
            "platform_machine": self.machine,
            "platform_python_implementation": "CPython",
            "platform_release": "",
            "platform_system": "Linux",
            "platform_version": "",
            "python_full_version": full,
            "python_version": self.minor,
            "sys_platform": "linux",
        }

    def takes(self, wheel: str) -> bool:
        """Whether a wheel with that file name fits this Python and this machine."""
        python, abi, platform = (tags.split(".") for tags in wheel.removesuffix(".whl").split("-")[-3:])
        fits = "py3" in python or self._tag in python or ("abi3" in abi and self._newer_than(python[0]))
        return fits and ("any" in platform or any(tag in self.platforms for tag in platform))

    @property
    def _tag(self) -> str:
        return f"cp{self.minor.replace('.', '')}"

    def _newer_than(self, tag: str) -> bool:
        """Whether this Python is at least that of a tag like cp39: then a wheel for its stable ABI fits."""
        return tag.startswith("cp3") and int(tag.removeprefix("cp3")) <= int(self.minor.split(".")[1])


def constraints(extras: list[str]) -> str:
    """The versions for boards, as a constraints file of pip."""
    text = (resources.files("edge_lstm_device_configs") / "constraints.txt").read_text(encoding="utf-8")
    lines = text.splitlines()
    if "tflite-runtime" in extras:  # its own requirement is numpy < 2
        lines = [line for line in lines if not line.startswith("numpy")]
    return "\n".join(lines) + "\n"
