"""The command line and `import edge_lstm` start without the packages that only a command needs."""

from __future__ import annotations

import importlib
import subprocess
import sys

import pytest

import edge_lstm
from edge_lstm.cli.main import main

HEAVY = ("numpy", "paho", "onnxruntime", "ai_edge_litert", "tflite_runtime", "torch", "onnx", "matplotlib", "logging")
LOADED = f"\nprint(*[name for name in {HEAVY} if name in sys.modules], file=sys.stderr)"


def loaded_by(program: str) -> str:
    """Which of the heavy packages a new interpreter has loaded after `program`."""
    done = subprocess.run([sys.executable, "-c", f"import sys\n{program}{LOADED}"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stderr.strip()


@pytest.mark.parametrize("option", ["--help", "--version"])
def test_help_and_version_load_no_package_that_only_a_command_needs(option: str) -> None:
    assert loaded_by(f"from edge_lstm.cli.main import main\nmain([{option!r}], standalone_mode=False)") == ""


def test_the_help_of_no_command_loads_a_package_that_only_the_command_needs() -> None:
    names = main.list_commands(None)  # type: ignore[arg-type]
    assert {"run", "train", "export", "adopt", "init", "device", "replay", "bench"} <= set(names)
    program = f"""
from edge_lstm.cli.main import main
for name in {names}:
    try:
        main([name, "--help"], prog_name="edge-lstm", standalone_mode=False)
    except BaseException as error:
        raise SystemExit(f"{{name}}: {{error!r}}")
    heavy = [heavy for heavy in {HEAVY} if heavy in sys.modules and heavy != "logging"]  # the group sets logging up
    if heavy:
        raise SystemExit(f"{{name}} --help loads {{heavy}}")
"""
    assert loaded_by(program) in ("", "logging")


@pytest.mark.parametrize("package", ["edge_lstm", "edge_lstm_train", "edge_lstm_export"])
def test_an_import_loads_no_package_until_a_name_is_used(package: str) -> None:
    assert loaded_by(f"import {package}\ndir({package})") == ""


def test_every_public_name_is_the_object_of_its_module() -> None:
    assert set(edge_lstm._MODULES) == set(edge_lstm.__all__) - {"__version__"}
    for name, module in edge_lstm._MODULES.items():
        assert getattr(edge_lstm, name) is getattr(importlib.import_module(module), name)
    assert set(edge_lstm.__all__) <= set(dir(edge_lstm))
    with pytest.raises(AttributeError, match="module 'edge_lstm' has no attribute 'Predicter'"):
        edge_lstm.Predicter  # noqa: B018
