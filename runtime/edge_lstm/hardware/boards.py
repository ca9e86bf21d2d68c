"""The supported boards as typed values, and how to detect which one a machine is."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib import resources
from typing import Any, Literal

from edge_lstm.bundle.schemes import Scheme
from edge_lstm.foundation.config import from_mapping, key, suggestion, toml_table
from edge_lstm.foundation.errors import ConfigError, EdgeLstmError
from edge_lstm.hardware.machine import Machine

BackendName = Literal["litert", "onnx", "tflite-runtime", "numpy"]  # backends.kinds.NAMES, which a type cannot read
Provider = Literal["CPUExecutionProvider", "CUDAExecutionProvider", "TensorrtExecutionProvider"]
Sync = Literal["full", "normal"]

_PACKAGE = "edge_lstm_device_configs"


@dataclass(frozen=True)
class Image:
    """An operating system that the board is used with."""

    name: str = key(doc="name of the image, as its maker writes it")
    python: str = key(doc="Python version of the image, like 3.11")
    glibc: str = key(doc="version of the image's C library, like 2.36")
    use_python: str | None = key(None, doc="Python version to install, if the image's own is too old or too new")
    note: str | None = key(None, doc="how to install that Python")

    @property
    def runs(self) -> str:
        """The version of Python that edge-lstm needs on this image."""
        return self.use_python or self.python


@dataclass(frozen=True)
class ServiceDefaults:
    """Defaults for keys of service.toml; a service config may override them."""

    backend: BackendName = key(doc="inference backend")
    scheme: Scheme = key(doc="quantization scheme")
    threads: int = key(doc="threads per step", least=1)
    sync: Sync = key(
        doc="full: a commit waits for the disk; normal: it does not, and a power cut may lose the last commits"
    )
    commit_interval_s: float = key(doc="shortest time between two commits", least=0)
    checkpoint_s: float = key(doc='time between commits with durability = "at-most-once"', least=0.1)
    memory_max_mb: int = key(doc="memory limit in the systemd unit", least=32)
    max_streams: int = key(
        doc="streams in memory; if there are more, those that were idle longest are only in the database", least=1
    )
    watchdog_s: float = key(doc="systemd restarts the service if its main loop hangs for this long", least=1)
    cores: list[int] | None = key(None, doc="CPU cores that the process may use; none: all")


@dataclass(frozen=True)
class Budget:
    """Limits for a bundle on the board."""

    step_p99_ms: float = key(doc="largest 99th percentile of the step time of one stream", least=0)
    rss_mb: float = key(doc="largest memory of a process with one bundle loaded", least=0)


@dataclass(frozen=True)
class BoardConfig:
    """One board, read from its TOML file in device_configs/."""

    title: str = key(doc="name for display")
    architecture: Literal["aarch64", "armv7l", "x86_64"] = key(doc="architecture of the installed system")
    compatible: list[str] = key(
        doc="first characters of the board's entries in /proc/device-tree/compatible; empty: for any board"
    )
    memory_mb: int = key(doc="memory that Linux reports on the smallest model", least=1)
    least_python: str = key(doc="oldest Python with wheels for the board")
    most_python: str = key(doc="newest Python with wheels for the board")
    least_glibc: str = key(doc="oldest C library that these wheels run on")
    extras: list[str] = key(doc="extras to install: edge-lstm[...]")
    providers: list[Provider] = key(doc="execution providers of onnxruntime that the board can have")
    images: list[Image] = key(doc="operating systems that are used on the board")
    service: ServiceDefaults = key(doc="defaults of a service on the board")
    budget: Budget = key(doc="limits that edge-lstm bench checks a bundle against")

    def faults(self) -> Iterator[tuple[str, str]]:
        for name in ("least_python", "most_python", "least_glibc"):
            if _version(getattr(self, name)) == ():
                yield name, f'expected a version like 3.11, found "{getattr(self, name)}"'

    def refusals(self, machine: Machine) -> list[tuple[str, str]]:
        """(what was expected and found, what to do) for each difference between the machine and this board.

        A fact that is not known of the machine (None) is not compared.
        """
        found = []
        if machine.architecture not in (None, self.architecture):
            remedy = "choose the board of this machine (edge-lstm device detect)"
            found.append((f"expected {self.architecture}, found {machine.architecture}", remedy))
        if machine.python is not None and _version(machine.python) < _version(self.least_python):
            notes = [image.note for image in self.images if image.note]
            remedy = notes[0] if notes else f"install Python {self.most_python}, and edge-lstm in it"
            found.append((f"expected Python {self.least_python} or newer, found {machine.python}", remedy))
        if machine.python is not None and _version(machine.python)[:2] > _version(self.most_python):
            remedy = f"install Python {self.most_python}, and edge-lstm in it"
            found.append((f"expected Python {self.most_python} or older, found {machine.python}", remedy))
        if machine.glibc is not None and _version(machine.glibc) < _version(self.least_glibc):
            remedy = f"use one of {', '.join(image.name for image in self.images)}"
            found.append((f"expected glibc {self.least_glibc} or newer, found {machine.glibc}", remedy))
        if machine.memory_mb is not None and machine.memory_mb < self.memory_mb:
            remedy = "choose the board of this machine (edge-lstm device detect), or one with more memory"
            found.append((f"expected {self.memory_mb} MB of memory, found {machine.memory_mb}", remedy))
        return found

    def fit(self, machine: Machine) -> None:
        """Raises EdgeLstmError with every reason why the machine is not this board."""
        refusals = self.refusals(machine)
        if refusals:
            reasons = "; ".join(reason for reason, _ in refusals)
            raise EdgeLstmError(
                f"this machine does not fit {self.title}: {reasons}", " / ".join(dict(refusals).values())
            )


def board_names() -> list[str]:
    """The names of all boards, sorted."""
    files = (file.name for file in resources.files(_PACKAGE).iterdir())
    return sorted(name.removesuffix(".toml") for name in files if name.endswith(".toml"))


def read_board(name: str) -> BoardConfig:
    """The board of that name. Raises ConfigError with a near one where there is none."""
    if name not in board_names():
        raise ConfigError(unknown_board(name), "choose one of those that edge-lstm device list shows")
    return _read(name)


def unknown_board(name: str) -> str:
    """The error message for a name that is not a board."""
    return f'expected a board, found "{name}"; {suggestion(name, board_names())}'


@functools.cache
def _read(name: str) -> BoardConfig:
    return from_mapping(board_table(name), BoardConfig, f"{name}.toml")


def board_table(name: str) -> Mapping[str, Any]:
    """The board's TOML as a table, unchecked."""
    return toml_table(board_text(name))


def board_text(name: str) -> str:
    """The board's TOML file with its comments, which give the reasons for its settings."""
    return (resources.files(_PACKAGE) / f"{name}.toml").read_text(encoding="utf-8")


def detected(machine: Machine) -> str | None:
    """The name of the machine's board: by its device tree, else by its architecture; None where nothing fits.

    A 32-bit system on a 64-bit board is found by its architecture, because it needs other wheels. Where the
    architecture is not known, only the device tree counts.
    """
    boards = {name: _read(name) for name in board_names()}
    for name, board in boards.items():
        if machine.architecture in (None, board.architecture) and _matches(board, machine.compatible):
            return name
    for name, board in boards.items():
        if not board.compatible and board.architecture == machine.architecture:
            return name
    return None


def _matches(board: BoardConfig, compatible: tuple[str, ...]) -> bool:
    # by prefix: makers append details that do not matter here, as in nvidia,p3767-0005-super
    return any(found.startswith(wanted) for wanted in board.compatible for found in compatible)


def _version(text: str) -> tuple[int, ...]:
    """3.11.7 as (3, 11, 7); () where it is not a version."""
    parts = text.split(".")
    return tuple(int(part) for part in parts) if all(part.isdecimal() for part in parts) else ()
