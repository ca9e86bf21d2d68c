"""Checks of Python, processor and C library, which decide the available wheels, and of the board."""

from __future__ import annotations

import sys
from collections.abc import Iterator

from edge_lstm.diagnostics.finding import Finding
from edge_lstm.hardware.boards import detected, read_board
from edge_lstm.hardware.machine import Machine

_GLIBC_OF_ONNX, _GLIBC_OF_LITERT = (2, 28), (2, 27)  # required by the wheels of onnxruntime and ai-edge-litert


def software(machine: Machine, board: str | None) -> Iterator[Finding]:
    """Findings for Python, architecture, glibc and board; `board` is its name in the config, or None."""
    yield Finding("python", "green", f"{machine.python} at {sys.executable}")
    yield architecture(machine.architecture)
    yield c_library(machine.glibc)
    yield fit(machine, board)


def architecture(name: str | None) -> Finding:
    """The architecture of the userland, and whether there are wheels for it."""
    if name == "armv7l":
        return Finding(
            "architecture",
            "amber",
            "armv7l, a 32-bit system: neither LiteRT nor onnxruntime has wheels for it",
            "use a 64-bit image; or pip install 'edge-lstm[tflite-runtime]' on Python up to 3.11",
        )
    if name not in ("aarch64", "x86_64"):
        remedy = 'the backend "numpy" runs everywhere; the others need aarch64 or x86_64'
        return Finding("architecture", "amber", f"{name}, for which no backend has wheels", remedy)
    return Finding("architecture", "green", name)


def c_library(version: str | None) -> Finding:
    """The version of glibc; None: another C library."""
    if version is None:
        return Finding(
            "glibc",
            "amber",
            "another C library (such as musl), for which no backend has wheels",
            'use a system with glibc (Debian, Raspberry Pi OS, Ubuntu), or the backend "numpy"',
        )
    numbers = tuple(int(part) for part in version.split(".") if part.isdecimal())
    if numbers < _GLIBC_OF_ONNX:
        which = "onnxruntime" if numbers >= _GLIBC_OF_LITERT else "onnxruntime and LiteRT"
        found = f"{version}, too old for the present wheels of {which}"
        return Finding("glibc", "amber", found, "use a newer system image")
    return Finding("glibc", "green", version)


def fit(machine: Machine, board: str | None) -> Finding:
    """Whether this machine is the board that the config names, or else the detected one."""
    name = board or detected(machine)
    if name is None:
        found = f"not one of the supported boards ({machine.model or machine.architecture})"
        return Finding(
            "board", "unknown", found, "set backend, scheme and threads yourself; edge-lstm bench measures them"
        )
    known = read_board(name)
    refusals = known.refusals(machine)
    if refusals:
        reasons = "; ".join(reason for reason, _ in refusals)
        remedies = " / ".join(dict.fromkeys(remedy for _, remedy in refusals))
        return Finding("board", "red" if board else "amber", f"{known.title}, but: {reasons}", remedies)
    model = f", {machine.model}" if machine.model else ""
    return Finding("board", "green", f"{name}{model}")
