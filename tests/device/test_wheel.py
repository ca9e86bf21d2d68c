"""The wheel is pure Python and holds every module, recipe and recording of the source tree."""

from __future__ import annotations

import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.paths import ROOT

SOURCES = {
    "edge_lstm": "runtime/edge_lstm",
    "edge_lstm_train": "train/edge_lstm_train",
    "edge_lstm_export": "export/edge_lstm_export",
    "edge_lstm_recipes": "train/recipes",
    "edge_lstm_device_configs": "device_configs",
}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy of what git knows, so that leftovers of other builds do not count."""
    folder = tmp_path_factory.mktemp("wheel")
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True
    )
    if listed.returncode:
        pytest.skip("this is no git checkout")
    for name in listed.stdout.splitlines():
        if (ROOT / name).is_file() and not name.startswith("tests/"):
            copy = folder / "source" / name
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes((ROOT / name).read_bytes())
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(folder), "./source"]
    subprocess.run([*command, "--disable-pip-version-check"], cwd=folder, check=True)
    (built,) = folder.glob("*.whl")
    return built


def test_the_wheel_is_pure_python(wheel: Path) -> None:
    assert wheel.name.endswith("-py3-none-any.whl")


def test_the_wheel_holds_every_module_recipe_and_recording(wheel: Path) -> None:
    expected = {
        f"{package}/{file.relative_to(ROOT / folder)}"
        for package, folder in SOURCES.items()
        for file in (ROOT / folder).rglob("*")
        if file.is_file() and file.suffix != ".pyc"
    }
    held = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    assert held == expected
    assert {f"{package}/py.typed" for package in ("edge_lstm", "edge_lstm_train", "edge_lstm_export")} <= held
    assert "edge_lstm_recipes/recordings/pv_ac_power/serf_east_15min_ac_power.csv" in held


def test_the_base_needs_neither_torch_nor_a_backend(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        (name,) = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
        lines = archive.read(name).decode().splitlines()
    needs = [line.removeprefix("Requires-Dist: ") for line in lines if line.startswith("Requires-Dist: ")]
    base = {re.split("[<>=;]", need)[0] for need in needs if "extra ==" not in need}
    assert base == {"click", "numpy", "paho-mqtt", "tomli"}


def modules_of(folder: Path) -> set[str]:
    """The modules of a folder by name, and its subpackages with a slash; `__init__` is left out."""
    modules = {file.stem for file in folder.glob("*.py")} - {"__init__"}
    return modules | {f"{file.parent.name}/" for file in folder.glob("*/__init__.py")}


def test_the_tables_of_the_architecture_name_exactly_the_modules() -> None:
    sections = re.split(r"^#+ ", (ROOT / "docs/architecture.md").read_text(), flags=re.MULTILINE)
    tables = {
        heading[1]: re.findall(r"^\| `([^`]+)` \|", section, flags=re.MULTILINE)
        for section in sections
        if (heading := re.match("`((?:runtime|train|export)/[^`]+)`\n", section))
    }
    for name, rows in tables.items():
        assert len(rows) == len(set(rows)), f"docs/architecture.md names a module of {name} twice: {sorted(rows)}"
    roots = [ROOT / SOURCES[package] for package in ("edge_lstm", "edge_lstm_train", "edge_lstm_export")]
    folders = [file.parent for root in roots for file in root.rglob("__init__.py")]
    present = {str(folder.relative_to(ROOT)): modules_of(folder) for folder in folders if modules_of(folder)}
    for name in sorted({*present, *tables}):
        named, there = set(tables.get(name, [])), present.get(name, set())
        missing, extra = sorted(there - named), sorted(named - there)
        assert named == there, f"docs/architecture.md, table of {name}: missing {missing}, without a module {extra}"
