"""Deploying over a real sshd to a root folder of this machine: environment, proof, unit, service, prediction."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from edge_lstm.board_wheels import Target
from edge_lstm.bundle import Bundle, write_bundle
from edge_lstm.codec import encode_reading
from edge_lstm.errors import EdgeLstmError
from edge_lstm.machine import this_machine
from edge_lstm.network import to_npz
from edge_lstm.reading import Reading
from edge_lstm.wheelhouse import collect
from tests.deadline import wait_until
from tests.flow.loopback_board import SSHD, LoopbackBoard
from tests.networks import random_network

pytestmark = [
    pytest.mark.timeout(400),  # each makes an environment, some a few
    pytest.mark.skipif(
        not Path(SSHD).exists(), reason="sshd is not installed (Debian: apt-get install openssh-server)"
    ),
    pytest.mark.skipif(os.geteuid() != 0, reason="deploying to this machine needs root here"),
]
UNIT = "edge-lstm-tank"


@pytest.fixture(scope="module")
def wheelhouse(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """For this machine, as for a board without internet; what follows needs none."""
    machine = this_machine()
    folder = tmp_path_factory.mktemp("wheelhouse") / "wheels"
    target = Target(machine.python or "", machine.architecture or "", machine.glibc or "")
    try:
        collect(folder, "this machine", [target], ["fast"])
    except EdgeLstmError as error:
        pytest.skip(f"no index to collect wheels from: {error.message}")
    return folder


@pytest.fixture
def make_board(tmp_path: Path) -> Iterator[Callable[..., LoopbackBoard]]:
    """make_board(systemd=True): a board with a running sshd."""
    made: list[LoopbackBoard] = []

    def make(systemd: bool = True) -> LoopbackBoard:
        folder = tmp_path / f"board-{len(made)}"
        folder.mkdir()
        made.append(LoopbackBoard(folder, systemd))
        made[-1].start()
        return made[-1]

    yield make
    for board in made:
        board.stop()


@pytest.fixture
def service_toml(tmp_path: Path, mosquitto: Any) -> Path:
    path = tmp_path / "tank.toml"
    path.write_text(
        f'bundle = "models/tank.elstm"\nbackend = "numpy"\n'
        f'[mqtt]\nurl = "{mosquitto.address}"\nclient_id = "tank"\nusername = "board"\npassword_file = "secret.txt"\n'
    )
    (tmp_path / "secret.txt").write_text("open sesame\n")
    return path


def start_deploy(board: LoopbackBoard, service: Path, bundle: Path, *options: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "edge_lstm", "device", "deploy", "board", str(service), str(bundle)]
    command += ["--ssh-config", str(board.config), "--root", str(board.root), *options]
    return subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def deploy(board: LoopbackBoard, service: Path, bundle: Path, *options: str) -> tuple[int, str, str]:
    process = start_deploy(board, service, bundle, *options)
    said, heard = process.communicate(timeout=200)
    return process.returncode, said, heard


def test_a_deploy_ends_with_a_prediction_and_another_one_changes_what_differs(
    make_board: Callable[..., LoopbackBoard],
    service_toml: Path,
    bundle_path: Path,
    wheelhouse: Path,
    mosquitto: Any,
    subscribe: Any,
    tmp_path: Path,
) -> None:
    board = make_board()
    subscriber = subscribe(mosquitto.address, "edge-lstm/tank/status")
    process = start_deploy(board, service_toml, bundle_path, "--wheelhouse", str(wheelhouse))
    second = iter(range(1_000_000))

    def heard() -> bool:
        at = 1_700_000_000.0 + 60 * next(second)
        subscriber.publish("sensors/north", encode_reading(Reading("north", at, {"level": 1.0})))
        return process.poll() is not None

    wait_until(heard, "the deployment ends", 200)
    said, log = process.communicate()
    assert process.returncode == 0, log
    assert "first prediction: predictions/north {" in said
    assert f'"bundle":"{Bundle.open(bundle_path).id}"' in said
    (environment,) = [path for path in (board.root / "opt/edge-lstm/envs").iterdir() if path.is_dir()]
    made, pid = environment.stat().st_ino, board.service_pid(UNIT)
    secret = board.root / "opt/edge-lstm/services" / UNIT / "secret.txt"
    assert (secret.read_text(), secret.stat().st_mode & 0o777) == ("open sesame\n", 0o600)
    assert (
        f"/opt/edge-lstm/envs/{environment.name}/bin/python"
        in (board.root / f"etc/systemd/system/{UNIT}.service").read_text()
    )

    status, said, log = deploy(board, service_toml, bundle_path, "--wheelhouse", str(wheelhouse))
    assert (status, said) == (0, f"{UNIT} runs on board as it is here; nothing was changed\n"), log
    assert (environment.stat().st_ino, board.service_pid(UNIT)) == (made, pid)

    service_toml.write_text("stats_interval_s = 30\n" + service_toml.read_text())
    status, said, log = deploy(board, service_toml, bundle_path, "--wait", "0")
    assert (status, said.splitlines()[0]) == (0, f"{UNIT} serves on board; changed: service.toml"), log
    assert environment.stat().st_ino == made
    assert board.service_pid(UNIT) != pid

    # a bundle that does not prove itself there: what runs, runs on
    pid = board.service_pid(UNIT)
    opened = Bundle.open(bundle_path)
    other = random_network()
    other.layers[0].b_ih[:] += 1.0
    write_bundle(tmp_path / "strange.elstm", opened.manifest, {**opened.content, "weights.float32.npz": to_npz(other)})
    status, said, log = deploy(board, service_toml, tmp_path / "strange.elstm")
    assert (status, said) == (1, "")
    assert "error: the bundle does not prove itself on board: " in log
    assert "hint: what ran there runs on" in log
    assert board.service_pid(UNIT) == pid
    os.kill(pid, 0)
    installed = board.root / "etc/edge-lstm" / UNIT / "models/tank.elstm"
    assert Bundle.open(installed).id == opened.id


def test_a_deploy_that_was_cut_short_is_mended_by_the_next(
    make_board: Callable[..., LoopbackBoard], service_toml: Path, bundle_path: Path, wheelhouse: Path
) -> None:
    board = make_board()
    environments = board.root / "opt/edge-lstm/envs"
    process = start_deploy(board, service_toml, bundle_path, "--wheelhouse", str(wheelhouse))
    wait_until(lambda: any(environments.glob("*/bin/python")), "the environment is half made", 120)
    process.kill()
    process.communicate()
    assert not any(environments.glob("*/.complete"))
    status, said, log = deploy(board, service_toml, bundle_path, "--wheelhouse", str(wheelhouse), "--wait", "0")
    assert status == 0, log
    assert f"{UNIT} serves on board; changed: the environment" in said
    assert len(list(environments.glob("*/.complete"))) == 1


def test_a_service_that_does_not_become_ready_says_why(
    make_board: Callable[..., LoopbackBoard], service_toml: Path, bundle_path: Path, wheelhouse: Path
) -> None:
    board = make_board()
    state = board.root / "var/lib" / UNIT / "state.db"
    state.mkdir(parents=True)  # no database can be there
    status, said, log = deploy(board, service_toml, bundle_path, "--wheelhouse", str(wheelhouse), "--wait", "0")
    assert (status, said) == (1, "")
    assert f"error: board: expected {UNIT}.service to become ready, found:\n" in log
    assert "state.db" in log.partition("to become ready")[2]


def test_a_board_without_systemd_is_refused_before_anything_lies_there(
    make_board: Callable[..., LoopbackBoard], service_toml: Path, bundle_path: Path
) -> None:
    board = make_board(systemd=False)
    status, said, log = deploy(board, service_toml, bundle_path)
    assert (status, said) == (1, "")
    assert "error: board: expected systemd; found none of it\nhint: start it there by hand" in log
    assert sorted(path.name for path in board.root.iterdir()) == ["run"]


def test_a_host_that_refuses_is_one_line_with_the_remedy(
    make_board: Callable[..., LoopbackBoard], service_toml: Path, bundle_path: Path
) -> None:
    board = make_board()
    known = board.config
    board.config = board.configured(key="host")
    assert "Permission denied" in deploy(board, service_toml, bundle_path)[2]
    assert "hint: let the board know your key: ssh-copy-id board" in deploy(board, service_toml, bundle_path)[2]
    board.config = board.configured(known="nobody")
    status, said, log = deploy(board, service_toml, bundle_path)
    assert (status, said) == (1, "")
    assert log == (
        "error: expected to reach board over ssh, found: Host key verification failed.\n"
        "hint: connect once by hand (ssh board) and compare the key's fingerprint\n"
    )
    board.stop()
    board.config = known
    status, _, log = deploy(board, service_toml, bundle_path)
    assert status == 1
    assert "Connection refused" in log.splitlines()[0]


def test_a_config_that_names_files_elsewhere_is_refused_here(tmp_path: Path, bundle_path: Path) -> None:
    from edge_lstm.deploy import parcel

    config = tmp_path / "tank.toml"
    config.write_text('bundle = "../tank.elstm"\n[mqtt]\nurl = "mqtt://localhost:1883"\n')
    with pytest.raises(
        EdgeLstmError, match=r"bundle: expected a path below the folder of this config, found \.\./tank"
    ):
        parcel(config, bundle_path)
    config.write_text('bundle = "t.elstm"\ntrust = "maker.pub"\n[mqtt]\nurl = "mqtt://localhost:1883"\n')
    with pytest.raises(EdgeLstmError, match=r"expected to read .*maker\.pub, found: No such file"):
        parcel(config, bundle_path)
