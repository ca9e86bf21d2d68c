"""A trained bundle, and boards: ARM userlands with the wheel and its backends, installed without internet."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.arm.userland import Machine, Userland, why_not
from tests.flow.conftest import subscribe as subscribe
from tests.paths import ROOT

ROOTS = "EDGE_LSTM_ARM_ROOTS"
BUNDLE = "EDGE_LSTM_ARM_BUNDLE"
HOME = "/mnt/edge-lstm"  # the environment inside
RECORDING = ROOT / "train/recipes/recordings/pv_ac_power/serf_east_15min_ac_power.csv"


def roots_folder() -> Path:
    """Where the roots are kept between runs."""
    return Path(os.environ.get(ROOTS) or Path.home() / ".cache/edge-lstm/arm-roots")


@pytest.fixture(scope="session")
def edge_lstm() -> str:
    """The command of this environment."""
    return str(Path(sys.executable).with_name("edge-lstm"))


@pytest.fixture(scope="session")
def solar(tmp_path_factory: pytest.TempPathFactory, edge_lstm: str) -> Path:
    """The bundled recipe, trained and exported with its certificate; or the file that a variable names."""
    if BUNDLE in os.environ:
        return Path(os.environ[BUNDLE])
    folder = tmp_path_factory.mktemp("solar")
    subprocess.run([edge_lstm, "train", "solar", "-o", str(folder / "run")], check=True, capture_output=True)
    export = [edge_lstm, "export", str(folder / "run"), "-o", str(folder / "solar.elstm")]
    subprocess.run(export, check=True, capture_output=True)
    return folder / "solar.elstm"


@dataclass
class Board:
    """An ARM userland with edge-lstm installed; `shared` is its /mnt."""

    name: str
    userland: Userland
    shared: Path
    environment: dict[str, str]
    installed_mb: dict[str, float] = field(default_factory=dict)  # by what is installed, as du counts it

    def install(self, *extras: str) -> None:
        """edge-lstm with each of the extras in turn, from its wheelhouse alone."""
        (own,) = (self.shared / "wheels").glob("edge_lstm-*.whl")
        pip = [f"{HOME}/bin/python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-index"]
        for extra in extras:
            wanted = [*pip, "--find-links", "/mnt/wheels", f"/mnt/wheels/{own.name}[{extra}]"]
            self.userland.run(wanted, shared=self.shared, check=True)
            said = subprocess.run(["du", "-sk", str(self.shared / "edge-lstm")], capture_output=True, text=True)
            self.installed_mb[extra] = int(said.stdout.split()[0]) / 1000

    def run(self, *arguments: str, plugin: str | None = None) -> subprocess.CompletedProcess[str]:
        """`edge-lstm` with these arguments, to its end."""
        return self.userland.run(
            [f"{HOME}/bin/edge-lstm", *arguments],
            shared=self.shared,
            env=self.environment,
            plugin=plugin,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )

    def predictions(self, backend: str, recording: str) -> list[dict[str, object]]:
        """The predictions of `replay` there."""
        done = self.run("replay", "/mnt/solar.elstm", f"/mnt/{recording}", "--backend", backend, "--json")
        assert done.returncode == 0, done.stderr
        return [json.loads(line) for line in done.stdout.splitlines()]

    def instructions(self, backend: str, recording: str) -> int:
        """How many instructions a whole `replay` takes, counted by qemu."""
        arguments = ["replay", "/mnt/solar.elstm", f"/mnt/{recording}", "--backend", backend]
        done = self.run(*arguments, plugin="instructions.so")
        assert done.returncode == 0, done.stderr
        return int(re.findall(r"^instructions (\d+)$", done.stderr, re.MULTILINE)[-1])


def head(recording: Path, readings: int, into: Path) -> None:
    """The first readings of a recording."""
    with recording.open() as lines:
        into.write_text("".join(next(lines) for _ in range(readings + 1)))


def make_board(
    machine: Machine,
    suite: str,
    packages: list[str],
    shared: Path,
    solar: Path,
    *,
    wheelhouse: list[str],
    extras: list[str],
) -> Board:
    """A board with `extras`, from a wheelhouse that is collected for it; skips where no userland can run."""
    if (reason := why_not(machine)) is not None:
        pytest.skip(reason)
    userland = Userland.cached(roots_folder(), machine, suite, packages)
    command = Path(sys.executable).with_name("edge-lstm")
    subprocess.run([str(command), "device", "wheelhouse", *wheelhouse, "-o", str(shared / "wheels")], check=True)
    shutil.copy(solar, shared / "solar.elstm")
    for readings in (200, 700):
        head(RECORDING, readings, shared / f"{readings}.csv")
    counter = Path(__file__).with_name("instructions.c")
    compiler = ["cc", "-shared", "-fPIC", "-O2", "-o", str(shared / "instructions.so"), str(counter)]
    subprocess.run(compiler, check=True)
    # as in the unit: the other BLAS threads wait for work in a busy loop, for a time and not for a number of rounds
    environment = {"PYTHONHASHSEED": "0", "OPENBLAS_NUM_THREADS": "1"}
    board = Board(f"{machine.debian} {suite}", userland, shared, environment)
    seeing = ["--system-site-packages"] if packages else []
    userland.run(["python3", "-m", "venv", *seeing, HOME], shared=shared, check=True)
    board.install(*extras)
    return board
