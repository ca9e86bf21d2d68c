"""The boards: what each ships, bears and prefers, typed; refuses an unknown name and a machine that is not it."""

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

BackendName = Literal["litert", "onnx", "tflite-runtime", "numpy"]
Provider = Literal["CPUExecutionProvider", "CUDAExecutionProvider", "TensorrtExecutionProvider"]
Sync = Literal["full", "normal"]

_PACKAGE = "edge_lstm_device_configs"


@dataclass(frozen=True)
class Image:
    """An operating system that the board is used with."""

    name: str = key(doc="as its maker calls it")
    python: str = key(doc="the Python it ships, like 3.11")
    glibc: str = key(doc="the C library it ships, like 2.36")
    use_python: str | None = key(None, doc="the Python to install, where the shipped one is too old or too new")
    note: str | None = key(None, doc="how to come by that Python")

    @property
    def runs(self) -> str:
        """The Python that edge-lstm runs on there."""
        return self.use_python or self.python


@dataclass(frozen=True)
class ServiceDefaults:
    """Keys of service.toml that a board sets and a service config may set otherwise; they mean the same there."""

    backend: BackendName = key(doc="who steps the network")
    scheme: Scheme = key(doc="how its weights are stored")
    threads: int = key(doc="of a step", least=1)
    sync: Sync = key(doc="whether a commit waits for the disk itself")
    commit_interval_s: float = key(doc="least time between two commits", least=0)
    checkpoint_s: float = key(doc="time between commits where durability is at-most-once", least=0.1)
    memory_max_mb: int = key(doc="what the service may use before systemd ends it", least=32)
    max_streams: int = key(doc="in memory; the longest idle ones wait in the database", least=1)
    watchdog_s: float = key(doc="a loop that stands still for so long is restarted", least=1)
    cores: list[int] | None = key(None, doc="the cores it may run on; none: all")


@dataclass(frozen=True)
class Budget:
    """What a bundle may cost on the board."""

    step_p99_ms: float = key(doc="99 of 100 steps of one stream take no longer", least=0)
    rss_mb: float = key(doc="memory of a process with one bundle loaded", least=0)


@dataclass(frozen=True)
class BoardConfig:
    """One board, as its TOML in device_configs/ says."""

    title: str = key(doc="what a person calls it")
    architecture: Literal["aarch64", "armv7l", "x86_64"] = key(doc="of the userland")
    compatible: list[str] = key(doc="how entries of /proc/device-tree/compatible begin on it; none: a kind of board")
    memory_mb: int = key(doc="the least that Linux has on it, of the smallest model", least=1)
    least_python: str = key(doc="the oldest Python with wheels for it")
    most_python: str = key(doc="the newest one")
    least_glibc: str = key(doc="the oldest C library that these wheels run on")
    extras: list[str] = key(doc="what to install: edge-lstm[...]")
    providers: list[Provider] = key(doc="execution providers of onnxruntime that the board can have")
    images: list[Image] = key(doc="operating systems")
    service: ServiceDefaults = key(doc="what a service does there unless its config says otherwise")
    budget: Budget = key(doc="what edge-lstm bench holds a bundle to")

    def faults(self) -> Iterator[tuple[str, str]]:
        for name in ("least_python", "most_python", "least_glibc"):
            if _version(getattr(self, name)) == ():
                yield name, f'expected a version like 3.11, found "{getattr(self, name)}"'

    def refusals(self, machine: Machine) -> list[tuple[str, str]]:
        """(what was expected and found, what to do) for each way in which the machine is not this board.

        What is not known of the machine (None) is not held against it.
        """
        found = []
        if machine.architecture not in (None, self.architecture):
            remedy = "choose the board that it is (edge-lstm device detect)"
            found.append((f"expected {self.architecture}, found {machine.architecture}", remedy))
        if machine.python is not None and _version(machine.python) < _version(self.least_python):
            notes = [image.note for image in self.images if image.note]
            remedy = notes[0] if notes else f"install Python {self.most_python}, and edge-lstm with it"
            found.append((f"expected Python {self.least_python} or newer, found {machine.python}", remedy))
        if machine.python is not None and _version(machine.python)[:2] > _version(self.most_python):
            remedy = f"install Python {self.most_python}, and edge-lstm with it"
            found.append((f"expected Python {self.most_python} or older, found {machine.python}", remedy))
        if machine.glibc is not None and _version(machine.glibc) < _version(self.least_glibc):
            remedy = f"use one of {', '.join(image.name for image in self.images)}"
            found.append((f"expected glibc {self.least_glibc} or newer, found {machine.glibc}", remedy))
        if machine.memory_mb is not None and machine.memory_mb < self.memory_mb:
            remedy = "choose the board that it is (edge-lstm device detect), or one with more memory"
            found.append((f"expected {self.memory_mb} MB of memory, found {machine.memory_mb}", remedy))
        return found

    def fit(self, machine: Machine) -> None:
        """Raises EdgeLstmError where the machine is not this board, with every reason."""
        refusals = self.refusals(machine)
        if refusals:
            reasons = "; ".join(reason for reason, _ in refusals)
            raise EdgeLstmError(
                f"this machine does not fit {self.title}: {reasons}", " / ".join(dict(refusals).values())
            )


def board_names() -> list[str]:
    """All boards, by name."""
    files = (file.name for file in resources.files(_PACKAGE).iterdir())
    return sorted(name.removesuffix(".toml") for name in files if name.endswith(".toml"))


def read_board(name: str) -> BoardConfig:
    """The board of that name. Raises ConfigError with a near one where there is none."""
    if name not in board_names():
        raise ConfigError(unknown_board(name), "choose one of those that edge-lstm device list shows")
    return _read(name)


def unknown_board(name: str) -> str:
    """What is said of a name that no board has."""
    return f'expected a board, found "{name}"; {suggestion(name, board_names())}'


@functools.cache
def _read(name: str) -> BoardConfig:
    return from_mapping(board_table(name), BoardConfig, f"{name}.toml")


def board_table(name: str) -> Mapping[str, Any]:
    """The board's TOML as it was written."""
    return toml_table(board_text(name))


def board_text(name: str) -> str:
    """The board's TOML, comments and all: the reasons stand in them."""
    return (resources.files(_PACKAGE) / f"{name}.toml").read_text(encoding="utf-8")


def detected(machine: Machine) -> str | None:
    """The board that the machine is: by its device tree, else by its architecture; None where nothing fits.

    A 32-bit system on a 64-bit board is what its architecture says, since it needs other wheels; where that is not
    known, the device tree alone counts.
    """
    boards = {name: _read(name) for name in board_names()}
    for name, board in boards.items():
        if machine.architecture in (None, board.architecture) and _is_named(board, machine.compatible):
            return name
    for name, board in boards.items():
        if not board.compatible and board.architecture == machine.architecture:
            return name
    return None


def _is_named(board: BoardConfig, compatible: tuple[str, ...]) -> bool:
    # by beginnings, since makers append what matters to nobody here: nvidia,p3767-0005-super
    return any(found.startswith(wanted) for wanted in board.compatible for found in compatible)


def _version(text: str) -> tuple[int, ...]:
    """3.11.7 as numbers; () where it is no version."""
    parts = text.split(".")
    return tuple(int(part) for part in parts) if all(part.isdecimal() for part in parts) else ()
