"""Collects the wheels that pip needs on a board without internet, for each Python version of the board.

They include the wheel of edge-lstm. A folder with other files is refused, and a wheelhouse appears complete or not
at all.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Sequence
from pathlib import Path

from edge_lstm.deploy.own_wheel import own_wheel
from edge_lstm.deploy.wheel_hashes import refuse_other_wheels
from edge_lstm.deploy.wheel_target import Target, constraints
from edge_lstm.foundation.errors import EdgeLstmError
from edge_lstm.foundation.extras import require
from edge_lstm.foundation.files import write_file

CONTENTS = "wheelhouse.json"
_DOWNLOAD_S = 3600.0


def collect(folder: Path, board: str, targets: Sequence[Target], extras: list[str]) -> list[Path]:
    """Put every wheel that edge-lstm[extras] needs on each of `targets` into `folder`, and remove all older ones.

    Raises EdgeLstmError where pip finds no wheel, or another one than was tested, or where the folder is not a
    wheelhouse.
    """
    require("deploy", "packaging", "pip")
    folder = folder.resolve()
    if folder.exists() and any(folder.iterdir()) and not (folder / CONTENTS).exists():
        raise EdgeLstmError(
            f"expected a wheelhouse or an empty folder at {folder}, found other files", "name another folder with -o"
        )
    if not folder.parent.is_dir():
        raise EdgeLstmError(f"expected a folder at {folder.parent}, found none", "create it, or name another with -o")
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}.", dir=folder.parent) as beside:
        collected = Path(beside) / "wheels"
        collected.mkdir()
        name, content = own_wheel()
        (collected / name).write_bytes(content)
        limits = Path(beside) / "constraints.txt"
        for target in targets:
            limits.write_text(_limits(target, extras))
            _download_all(collected, target, collected / name, extras, limits)
        refuse_other_wheels(sorted(collected.glob("*.whl")))
        facts = {"board": board, "extras": extras, "pythons": [target.minor for target in targets]}
        write_file(collected / CONTENTS, json.dumps(facts, indent=2) + "\n")
        if folder.exists():
            shutil.rmtree(folder)
        collected.rename(folder)
    return sorted(folder.glob("*.whl"))


def _download_all(folder: Path, target: Target, own: Path, extras: list[str], limits: Path) -> None:
    """Download for `target` until nothing is missing.

    pip evaluates environment markers for its own Python. So it leaves out what only the target needs; `_missing` finds
    that, and a further download adds it.
    """
    solve = not target.from_distribution  # packages of the distribution have no wheel, and pip would look for one
    while missing := _missing(folder, target, own, extras):
        _download(folder, target, missing, limits, ["--no-deps"] * (not solve))
        solve = False


def _missing(folder: Path, target: Target, own: Path, extras: list[str]) -> list[str]:
    """Requirements that no wheel in the folder fulfils on the target, without their markers."""
    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name, parse_wheel_filename

    held = {parse_wheel_filename(path.name)[0]: path for path in folder.glob("*.whl") if target.takes(path.name)}
    missing: dict[str, str] = {}
    asked: set[tuple[Path, str]] = set()
    waiting = [(own, extra) for extra in ("", *extras)]
    while waiting:
        path, extra = waiting.pop()
        if (path, extra) in asked:
            continue
        asked.add((path, extra))
        for line in _requirements(path):
            need = Requirement(line)
            if need.marker is not None and not need.marker.evaluate({**target.markers, "extra": extra}):
                continue
            name = canonicalize_name(need.name)
            if name in target.from_distribution:
                continue
            if name not in held:
                missing[line] = f"{need.name}{need.specifier}"
                continue
            waiting += [(held[name], one) for one in ("", *need.extras)]
    return list(missing.values())


def _requirements(wheel: Path) -> list[str]:
    with zipfile.ZipFile(wheel) as archive:
        (name,) = [one for one in archive.namelist() if one.endswith(".dist-info/METADATA") and one.count("/") == 1]
        head = archive.read(name).decode("utf-8").split("\n\n")[0]
    return [line.removeprefix("Requires-Dist: ") for line in head.splitlines() if line.startswith("Requires-Dist: ")]


def _limits(target: Target, extras: list[str]) -> str:
    """The constraints that hold on the target, without their markers."""
    from packaging.requirements import Requirement

    needs = [Requirement(line) for line in constraints(extras).splitlines() if line and not line.startswith("#")]
    kept = [need for need in needs if need.marker is None or need.marker.evaluate(target.markers)]
    return "".join(f"{need.name}{need.specifier}\n" for need in kept)


def _download(folder: Path, target: Target, needs: list[str], limits: Path, options: list[str]) -> None:
    platforms = [part for platform in target.platforms for part in ("--platform", platform)]
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-input"]
    command += ["--only-binary", ":all:", "--implementation", "cp", "--python-version", target.minor, *platforms]
    command += ["--constraint", str(limits), "--dest", str(folder), *options, *needs]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_DOWNLOAD_S)
    except subprocess.TimeoutExpired:
        raise EdgeLstmError(
            f"expected pip to download wheels within {_DOWNLOAD_S:g} s, found that it still runs",
            "check the network and the index in pip's configuration",
        ) from None
    if done.returncode:
        said = [line.removeprefix("ERROR: ") for line in done.stderr.splitlines() if line.startswith("ERROR: ")]
        raise EdgeLstmError(
            f"expected wheels for Python {target.minor} on {target.machine} with glibc {target.glibc}, "
            f"pip found: {said[0] if said else done.stderr.strip()}",
            "choose another --python, or check the index in pip's configuration",
        )
