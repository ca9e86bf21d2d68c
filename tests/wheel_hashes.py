"""python -m tests.wheel_hashes: asks the package index for the SHA-256 of each pinned wheel that a board may get.

Writes device_configs/wheels.txt. pip asks the index only for facts; it downloads no large wheel.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from urllib.parse import unquote, urlsplit

from edge_lstm.deploy.wheel_target import Target
from edge_lstm.hardware.boards import board_names, read_board
from tests.paths import ROOT

FOLDER = ROOT / "device_configs"
HEADER = "# SHA-256 of the wheels that boards get, from the package index. Written by: python -m tests.wheel_hashes\n"
PLAIN_INDEX = {"PIP_CONFIG_FILE": os.devnull, "PIP_FIND_LINKS": ""}  # no wheels that were built on this machine


def targets() -> list[Target]:
    """Every Python of every board, once."""
    boards = map(read_board, board_names())
    found = {Target(image.runs, board.architecture, image.glibc) for board in boards for image in board.images}
    return sorted(found, key=lambda one: (one.machine, one.minor, one.glibc))


def pins(target: Target) -> list[str]:
    """The pinned packages on that target, as name==version."""
    from packaging.requirements import Requirement

    lines = (FOLDER / "constraints.txt").read_text().splitlines()
    needs = [Requirement(line) for line in lines if line and not line.startswith("#")]
    return [
        f"{need.name}{need.specifier}"
        for need in needs
        if (need.marker is None or need.marker.evaluate(target.markers)) and need.name not in target.from_distribution
    ]


def wheels(target: Target) -> dict[str, str]:
    """{file name: SHA-256} of the wheels that pip would install there; a package without a wheel is left out."""
    needs = pins(target)
    platforms = [part for platform in target.platforms for part in ("--platform", platform)]
    while needs:
        with tempfile.TemporaryDirectory() as folder:
            command = [sys.executable, "-m", "pip", "install", "--quiet", "--dry-run", "--ignore-installed"]
            # pip would compare with its own Python; the versions are pinned
            command += ["--no-deps", "--ignore-requires-python"]
            command += ["--report", f"{folder}/report", "--target", folder, "--only-binary", ":all:", *platforms]
            command += ["--implementation", "cp", "--python-version", target.minor, *needs]
            done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **PLAIN_INDEX})
            if done.returncode == 0:
                report = json.loads(Path(folder, "report").read_text(encoding="utf-8"))
                found = [one["download_info"] for one in report["install"]]
                return {
                    unquote(urlsplit(one["url"]).path).rpartition("/")[2]: one["archive_info"]["hashes"]["sha256"]
                    for one in found
                }
        missing = re.search(r"No matching distribution found for (\S+)", done.stderr)
        if missing is None:
            raise SystemExit(done.stderr)
        needs = [need for need in needs if need != missing[1]]
    return {}


if __name__ == "__main__":
    known: dict[str, str] = {}
    for target in targets():
        here = wheels(target)
        print(f"{target}: {len(here)} of {len(pins(target))}", file=sys.stderr)
        known |= here
    text = "".join(f"{digest}  {name}\n" for name, digest in sorted(known.items(), key=lambda one: one[0].lower()))
    (FOLDER / "wheels.txt").write_text(HEADER + text)
