"""`device deploy` to a board with a real sshd and systemd as process 1; all tests here share one board."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from edge_lstm.bundle.archive import Bundle
from edge_lstm.messages.decoder import encode_reading
from edge_lstm.streaming.reading import Reading
from tests.conftest import Mosquitto, mosquittos
from tests.deadline import wait_until
from tests.flow.conftest import Subscriber
from tests.flow.ssh_server import SSHD, SshServer
from tests.flow.test_supervised import refused_bundle
from tests.networks import random_network
from tests.systemd.conftest import System, booted

NAME = "edge-lstm-tank"
PYTHON = str(Path(sys.base_prefix) / "bin/python3")  # one that makes environments, and that the wheels are for
ENVIRONMENTS = "/opt/edge-lstm/envs"
PROGRAM = "/opt/edge-lstm/edge-lstm"
STATE = f"/var/lib/private/{NAME}"

pytestmark = [
    pytest.mark.timeout(900),  # the first makes an environment, and others may use the machine
    pytest.mark.skipif(
        not Path(SSHD).exists(), reason="sshd is not installed (Debian: apt-get install openssh-server)"
    ),
]


class Plant:
    """A device that publishes a reading a minute, and receives the predictions."""

    def __init__(self, broker: Mosquitto) -> None:
        self._subscriber = Subscriber(broker.address, "predictions/+")
        self._step = 0

    def publish(self) -> None:
        reading = Reading("north", 1_700_000_000.0 + 60 * self._step, {"level": 1.0})
        self._subscriber.publish("sensors/north", encode_reading(reading))
        self._step += 1

    def predictions(self) -> list[tuple[int, str]]:
        """(step of the stream, id of the bundle), in the order of arrival."""
        return [(one["step"], one["bundle"]) for one in self._subscriber.payloads()]

    def next_prediction(self) -> tuple[int, str]:
        """After one more reading."""
        former = len(self.predictions())
        self.publish()
        wait_until(lambda: len(self.predictions()) > former, "the reading is predicted", 60)
        return self.predictions()[-1]

    def close(self) -> None:
        self._subscriber.close()


@dataclass
class Board:
    """What a user at the workstation has: a host to reach, a config and a bundle."""

    system: System
    connection: SshServer
    service: Path
    bundle: Path
    wheelhouse: Path
    plant: Plant

    def start_deploy(self, *options: str, user: str = "root", bundle: Path | None = None) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "edge_lstm", "device", "deploy", "board", str(self.service)]
        command += [str(bundle or self.bundle), "--ssh-config", str(self.connection.configured(user=user))]
        command += ["--python", PYTHON, "--wheelhouse", str(self.wheelhouse), *options]
        return subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    def deploy(self, user: str = "root", bundle: Path | None = None) -> tuple[int, str, str]:
        """Exit status, stdout, stderr of a deployment that waits for no prediction."""
        process = self.start_deploy("--wait", "0", user=user, bundle=bundle)
        said, log = process.communicate(timeout=600)
        return process.returncode, said, log

    def bring(self) -> None:
        """Have the service there, whatever the test before left; it is connected then."""
        status, _, log = self.deploy()
        assert status == 0, log + self.system.journal()
        wait_until(lambda: self.show("StatusText").startswith("connected to"), "the service is connected", 60)

    def show(self, what: str) -> str:
        return self.system.show(NAME, what)

    def environments(self) -> list[str]:
        """Name and inode, as a made-again one would have another."""
        listed = self.system.run(
            "find", ENVIRONMENTS, "-mindepth", 1, "-maxdepth", 1, "-type", "d", "-printf", "%f %i\n"
        )
        return listed.stdout.splitlines()


@pytest.fixture(scope="module")
def board(
    tmp_path_factory: pytest.TempPathFactory,
    obstacle: str | None,
    make_bundle: Callable[..., Bundle],
    wheelhouse: Path,
) -> Iterator[Board]:
    """Booted, its sshd running, and nothing of edge-lstm on it."""
    if obstacle is not None:
        pytest.skip(obstacle)
    workstation = tmp_path_factory.mktemp("workstation")
    passwords = workstation / "passwords"
    passwords.touch()
    subprocess.run(["mosquitto_passwd", "-b", str(passwords), "tank", "s3cret"], check=True, capture_output=True)
    passwords.chmod(0o644)
    make_bundle(workstation / "tank.elstm")
    with (
        mosquittos(tmp_path_factory.mktemp("broker")) as start,
        booted(tmp_path_factory.mktemp("board")) as system,
    ):
        broker = start(f"allow_anonymous true\npassword_file {passwords}")
        service = workstation / "tank.toml"
        service.write_text(
            f'bundle = "models/tank.elstm"\nbackend = "numpy"\n'
            f'[mqtt]\nurl = "{broker.address}"\nclient_id = "tank"\nusername = "tank"\npassword_file = "secret.txt"\n'
        )
        (workstation / "secret.txt").write_text("s3cret\n")
        (workstation / "secret.txt").chmod(0o600)
        connection = _open_ssh(system)
        plant = Plant(broker)
        yield Board(system, connection, service, workstation / "tank.elstm", wheelhouse, plant)
        plant.close()


def _open_ssh(system: System) -> SshServer:
    """An sshd as a service of the booted systemd: what comes in by it is on the board."""
    keys = system.shared / "keys"
    keys.mkdir()
    connection = SshServer(keys, seen_at=Path("/etc/keys"))
    system.run("cp", "-r", keys, "/etc/keys")  # a user of the board's cannot read this machine's own folder
    system.run("chmod", "-R", "go+rX", "/etc/keys")
    system.run("chmod", 600, "/etc/keys/host")
    system.run("systemd-run", "--quiet", "--unit=board-sshd", "--property=RuntimeDirectory=sshd", *connection.command)
    wait_until(connection.is_open, "sshd listens", 60)
    return connection


def test_a_bare_board_ends_with_a_ready_service_and_its_first_prediction(board: Board) -> None:
    process = board.start_deploy("--wait", "120")

    def ended() -> bool:
        board.plant.publish()
        return process.poll() is not None

    wait_until(ended, "the deployment ends", 600)
    said, log = process.communicate()
    assert process.returncode == 0, log + board.system.journal()
    assert (
        said.splitlines()[0]
        == f"{NAME} runs on board; changed: the environment, service.toml, models/tank.elstm, secret.txt"
    )
    first = json.loads(said.splitlines()[1].removeprefix("first prediction: predictions/north "))
    assert first["bundle"] == Bundle.open(board.bundle).id
    assert f"ready        {NAME}.service" in log
    assert (board.show("ActiveState"), board.show("UnitFileState")) == ("active", "enabled")
    user = board.system.run("stat", "-c", "%u", f"/proc/{board.show('MainPID')}").stdout.strip()
    assert 61184 <= int(user) <= 65519  # systemd's dynamic users
    (environment,) = board.environments()
    program = f"{ENVIRONMENTS}/{environment.split()[0]}/bin/edge-lstm"
    assert board.system.run("readlink", "-f", PROGRAM).stdout.strip() == program
    assert board.system.run("stat", "-c", "%a", f"/opt/edge-lstm/services/{NAME}/secret.txt").stdout.strip() == "600"


def test_a_second_deploy_changes_only_what_differs_and_keeps_the_state(
    board: Board, make_bundle: Callable[..., Bundle], tmp_path: Path
) -> None:
    board.bring()
    made, former = board.environments(), board.show("MainPID")
    step, bundle = board.plant.next_prediction()
    status, said, log = board.deploy()
    assert (status, said) == (0, f"{NAME} on board is up to date; nothing was changed\n"), log
    assert (board.environments(), board.show("MainPID")) == (made, former)

    board.service.write_text("stats_interval_s = 30\n" + board.service.read_text())
    status, said, log = board.deploy()
    assert (status, said.splitlines()[0]) == (0, f"{NAME} runs on board; changed: service.toml"), log
    assert board.environments() == made
    assert board.show("MainPID") != former
    assert board.plant.next_prediction() == (step + 1, bundle)

    network = random_network()
    network.layers[0].b_ih[:] += 0.5
    other = make_bundle(tmp_path / "other.elstm", network)
    assert other.id != bundle
    status, said, log = board.deploy(bundle=tmp_path / "other.elstm")
    assert (status, said.splitlines()[0]) == (0, f"{NAME} runs on board; changed: models/tank.elstm"), log
    assert board.environments() == made
    assert board.plant.next_prediction()[1] == other.id


def test_a_failed_verify_leaves_the_old_service_running(board: Board, tmp_path: Path) -> None:
    board.bring()
    former, bundle = board.show("MainPID"), Bundle.open(board.bundle).id
    step, _ = board.plant.next_prediction()
    refused_bundle(tmp_path / "strange.elstm", board.bundle)
    status, said, log = board.deploy(bundle=tmp_path / "strange.elstm")
    assert (status, said) == (1, "")
    assert "error: the bundle fails its self-test on board: numpy float32 relative difference " in log
    assert log.splitlines()[-1].startswith("hint: the running service was not touched")
    assert (board.show("ActiveState"), board.show("MainPID"), board.show("NRestarts")) == ("active", former, "0")
    assert board.plant.next_prediction() == (step + 1, bundle)
    board.system.run("systemctl", "restart", NAME)  # nor is it there for the next start
    assert board.plant.next_prediction() == (step + 2, bundle)


def test_the_next_deploy_repairs_a_service_that_is_not_ready(board: Board) -> None:
    board.bring()
    step, _ = board.plant.next_prediction()
    board.system.run("systemctl", "stop", NAME)
    board.system.run("mv", f"{STATE}/state.db", f"{STATE}/kept.db")
    board.system.run("mkdir", f"{STATE}/state.db")  # no database can be there
    status, said, log = board.deploy()
    assert (status, said) == (1, "")
    assert f"error: board: expected {NAME}.service to become ready, found:\n" in log
    assert "state.db" in log.partition("to become ready")[2]
    board.system.run("systemctl", "stop", NAME)  # it would try again
    board.system.run("rmdir", f"{STATE}/state.db")
    board.system.run("mv", f"{STATE}/kept.db", f"{STATE}/state.db")
    board.bring()
    assert board.plant.next_prediction()[0] == step + 1


@pytest.mark.skipif(shutil.which("sudo") is None, reason="sudo is not installed (Debian: apt-get install sudo)")
def test_a_user_deploys_with_passwordless_sudo(board: Board) -> None:
    board.bring()
    board.system.run("useradd", "--create-home", "--password=*", "--shell=/bin/sh", "pi")
    status, said, log = board.deploy(user="pi")
    assert (status, said) == (1, "")
    assert log == (
        "error: expected board to become root by sudo, found: sudo: a password is required\n"
        "hint: allow sudo without a password (visudo: USER ALL=(ALL) NOPASSWD: ALL), or deploy as root@HOST\n"
    )
    board.system.run("sh", "-c", "echo 'pi ALL=(ALL) NOPASSWD: ALL' > /etc/sudoers.d/pi")
    status, said, log = board.deploy(user="pi")
    assert (status, said) == (0, f"{NAME} on board is up to date; nothing was changed\n"), log
    former = board.show("MainPID")
    board.service.write_text(
        "stats_interval_s = 40\n"
        + "".join(line for line in board.service.read_text().splitlines(keepends=True) if not line.startswith("stats"))
    )
    status, said, log = board.deploy(user="pi")
    assert (status, said.splitlines()[0]) == (0, f"{NAME} runs on board; changed: service.toml"), log
    assert board.show("MainPID") != former


def test_uninstall_keeps_the_state_for_the_next_deploy(board: Board) -> None:
    board.bring()
    step, _ = board.plant.next_prediction()
    made = board.environments()
    ssh = ["ssh", "-F", str(board.connection.configured()), "board", PROGRAM, "device", "uninstall", NAME]
    done = subprocess.run(ssh, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert f"removed /etc/systemd/system/{NAME}.service" in done.stdout
    assert f"kept /var/lib/{NAME}" in done.stdout
    assert board.show("LoadState") == "not-found"
    board.system.run("test", "!", "-e", f"/etc/edge-lstm/{NAME}")
    status, said, log = board.deploy()
    assert (status, said.splitlines()[0]) == (0, f"{NAME} runs on board; changed: the service"), log
    assert board.environments() == made
    assert board.plant.next_prediction()[0] == step + 1
