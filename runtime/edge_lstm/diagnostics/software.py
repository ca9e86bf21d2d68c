"""Python, processor and C library: what decides which wheels there are; and whether this is the board it should be."""

from __future__ import annotations

import sys
from collections.abc import Iterator

from edge_lstm.diagnostics.finding import Finding
from edge_lstm.hardware.boards import detected, read_board
from edge_lstm.hardware.machine import Machine

_GLIBC_OF_ONNX, _GLIBC_OF_LITERT = (2, 28), (2, 27)  # what the wheels of onnxruntime and ai-edge-litert ask for


def software(machine: Machine, board: str | None) -> Iterator[Finding]:
    """A line each for Python, architecture, glibc, and the board: `board` is what the config calls it, if anything."""
    yield Finding("python", "green", f"{machine.python} at {sys.executable}")
    yield architecture(machine.architecture)
    yield c_library(machine.glibc)
    yield fit(machine, board)


def architecture(name: str | None) -> Finding:
    """The userland's processor, by the wheels that there are for it."""
    if name == "armv7l":
        return Finding(
            "architecture",
            "amber",
            "armv7l, a 32-bit system: neither LiteRT nor onnxruntime has wheels for it",
            "take a 64-bit image; else pip install 'edge-lstm[tflite-runtime]' on Python up to 3.11",
        )
    if name not in ("aarch64", "x86_64"):
        remedy = 'the backend "numpy" runs everywhere; for the others take aarch64 or x86_64'
        return Finding("architecture", "amber", f"{name}, for which no backend has wheels", remedy)
    return Finding("architecture", "green", name)


def c_library(version: str | None) -> Finding:
    """The version of glibc; None: another C library."""
    if version is None:
        return Finding(
            "glibc",
            "amber",
            "another C library (musl, say), for which no backend has wheels",
            'take a system with glibc (Debian, Raspberry Pi OS, Ubuntu), or the backend "numpy"',
        )
    numbers = tuple(int(part) for part in version.split(".") if part.isdecimal())
    if numbers < _GLIBC_OF_ONNX:
        which = "onnxruntime" if numbers >= _GLIBC_OF_LITERT else "onnxruntime and LiteRT"
        found = f"{version}, too old for the present wheels of {which}"
        return Finding("glibc", "amber", found, "take a newer system image")
    return Finding("glibc", "green", version)


def fit(machine: Machine, board: str | None) -> Finding:
    """The board by its name in the config, else by what it says of itself, against what this machine is."""
    name = board or detected(machine)
    if name is None:
        found = f"none of those that are known ({machine.model or machine.architecture})"
        return Finding("board", "unknown", found, "set backend, scheme and threads yourself; edge-lstm bench measures")
    known = read_board(name)
    refusals = known.refusals(machine)
    if refusals:
        reasons = "; ".join(reason for reason, _ in refusals)
        remedies = " / ".join(dict.fromkeys(remedy for _, remedy in refusals))
        return Finding("board", "red" if board else "amber", f"{known.title}, but: {reasons}", remedies)
    told = f", {machine.model}" if machine.model else ""
    return Finding("board", "green", f"{name}{told}")
