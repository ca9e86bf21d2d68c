"""`device deploy` over a real sshd into a root folder here: environment, verify, unit, service, prediction."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from edge_lstm.bundle.archive import Bundle
from edge_lstm.deploy.deployment import remedy
from edge_lstm.deploy.ssh import Ssh
from edge_lstm.foundation.errors import EdgeLstmError
from edge_lstm.hardware.machine import this_machine
from edge_lstm.messages.decoder import encode_reading
from edge_lstm.mqtt.address import Address
from edge_lstm.streaming.reading import Reading
from tests.conftest import Mosquitto, mosquittos
from tests.deadline import wait_until
from tests.flow.conftest import Subscriber
from tests.flow.loopback_board import LoopbackBoard
from tests.flow.ssh_server import SSHD
from tests.flow.test_supervised import refused_bundle

pytestmark = [
    pytest.mark.timeout(600),  # one makes an environment, and others may use the machine
    pytest.mark.skipif(
        not Path(SSHD).exists(), reason="sshd is not installed (Debian: apt-get install openssh-server)"
    ),
    pytest.mark.skipif(os.geteuid() != 0, reason="deploying to this machine needs root here"),
]
UNIT = "edge-lstm-tank"
NOWHERE = Address("localhost", 1883, False)  # of a config that is refused before it matters


@pytest.fixture(scope="module")
def make_board(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., LoopbackBoard]]:
    """make_board(systemd=True): a board with a running sshd."""
    made: list[LoopbackBoard] = []

    def make(systemd: bool = True) -> LoopbackBoard:
        made.append(LoopbackBoard(tmp_path_factory.mktemp("board"), systemd))
        made[-1].start()
        return made[-1]

    yield make
    for board in made:
        board.stop()


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mosquitto]:
    with mosquittos(tmp_path_factory.mktemp("broker")) as start:
        yield start()


def write_service(folder: Path, client_id: str, address: Address) -> Path:
    path = folder / f"{client_id}.toml"
    path.write_text(
        f'bundle = "models/tank.elstm"\nbackend = "numpy"\n'
        f'[mqtt]\nurl = "{address}"\nclient_id = "{client_id}"\nusername = "board"\npassword_file = "secret.txt"\n'
    )
    (folder / "secret.txt").write_text("open sesame\n")
    (folder / "secret.txt").chmod(0o600)
    return path


def start_deploy(
    board: LoopbackBoard, service: Path, bundle: Path, *options: str, ssh: Path | None = None
) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "edge_lstm", "device", "deploy", "board", str(service), str(bundle)]
    command += ["--ssh-config", str(ssh or board.connection.configured()), "--root", str(board.root), *options]
    return subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def deploy(
    board: LoopbackBoard, service: Path, bundle: Path, *options: str, ssh: Path | None = None
) -> tuple[int, str, str]:
    process = start_deploy(board, service, bundle, *options, ssh=ssh)
    said, heard = process.communicate(timeout=300)
    return process.returncode, said, heard


@dataclass
class Deployed:
    """A board on which a service runs, and what its first deployments came to."""

    board: LoopbackBoard
    service: Path
    bundle: Path
    cut_short: list[Path]  # what the first one, which was killed, had made to its end
    status: int
    said: str
    log: str

    @property
    def environment(self) -> Path:
        (one,) = [path for path in (self.board.root / "opt/edge-lstm/envs").iterdir() if path.is_dir()]
        return one


@pytest.fixture(scope="module")
def deployed(
    make_board: Callable[..., LoopbackBoard],
    make_bundle: Callable[..., Bundle],
    wheelhouse: Path,
    broker: Mosquitto,
    tmp_path_factory: pytest.TempPathFactory,
) -> Deployed:
    """A deployment that is killed while it makes the environment, and another one while readings come.

    It is one board for all tests that follow, since an environment takes pip its time; each brings what differs.
    """
    board, folder = make_board(), tmp_path_factory.mktemp("workstation")
    service, bundle = write_service(folder, "tank", broker.address), folder / "tank.elstm"
    make_bundle(bundle)
    environments = board.root / "opt/edge-lstm/envs"
    process = start_deploy(board, service, bundle, "--wheelhouse", str(wheelhouse))
    wait_until(lambda: any(environments.glob("*/bin/python")), "the environment is half made", 200)
    process.kill()
    process.communicate()
    cut_short = list(environments.glob("*/.complete"))
    plant = Subscriber(broker.address, "edge-lstm/tank/status")
    process = start_deploy(board, service, bundle, "--wheelhouse", str(wheelhouse))
    second = iter(range(1_000_000))

    def ended() -> bool:
        at = 1_700_000_000.0 + 60 * next(second)
        plant.publish("sensors/north", encode_reading(Reading("north", at, {"level": 1.0})))
        return process.poll() is not None

    wait_until(ended, "the deployment ends", 300)
    plant.close()
    said, log = process.communicate()
    return Deployed(board, service, bundle, cut_short, process.returncode, said, log)


def test_the_next_deploy_repairs_an_interrupted_one(deployed: Deployed) -> None:
    assert deployed.cut_short == []
    assert deployed.status == 0, deployed.log
    assert f"{UNIT} runs on board; changed: the environment" in deployed.said
    assert (deployed.environment / ".complete").exists()


def test_a_deploy_ends_with_a_prediction_and_all_files_installed(deployed: Deployed) -> None:
    root, environment = deployed.board.root, deployed.environment
    assert "first prediction: predictions/north {" in deployed.said, deployed.log
    assert f'"bundle":"{Bundle.open(deployed.bundle).id}"' in deployed.said
    secret = root / "opt/edge-lstm/services" / UNIT / "secret.txt"
    assert (secret.read_text(), secret.stat().st_mode & 0o777) == ("open sesame\n", 0o600)
    assert (
        f"/opt/edge-lstm/envs/{environment.name}/bin/python"
        in (root / f"etc/systemd/system/{UNIT}.service").read_text()
    )
    assert (root / "opt/edge-lstm/edge-lstm").resolve() == environment / "bin/edge-lstm"
    os.kill(deployed.board.service_pid(UNIT), 0)


def test_a_second_deploy_changes_only_what_differs(deployed: Deployed, wheelhouse: Path) -> None:
    board, service, bundle = deployed.board, deployed.service, deployed.bundle
    left = board.root / "opt/edge-lstm/incoming/0123456789ab"
    left.mkdir()  # sent for an environment that never came to be
    made, pid = deployed.environment.stat().st_ino, board.service_pid(UNIT)
    status, said, log = deploy(board, service, bundle, "--wheelhouse", str(wheelhouse))
    assert (status, said) == (0, f"{UNIT} on board is up to date; nothing was changed\n"), log
    assert (deployed.environment.stat().st_ino, board.service_pid(UNIT)) == (made, pid)

    service.write_text("stats_interval_s = 30\n" + service.read_text())
    status, said, log = deploy(board, service, bundle, "--wait", "0")
    assert (status, said.splitlines()[0]) == (0, f"{UNIT} runs on board; changed: service.toml"), log
    assert deployed.environment.stat().st_ino == made
    assert board.service_pid(UNIT) != pid
    assert not left.exists()


def test_a_bundle_that_fails_verify_leaves_the_running_service(deployed: Deployed, tmp_path: Path) -> None:
    board, pid = deployed.board, deployed.board.service_pid(UNIT)
    refused_bundle(tmp_path / "strange.elstm", deployed.bundle)
    status, said, log = deploy(board, deployed.service, tmp_path / "strange.elstm")
    assert (status, said) == (1, "")
    assert "error: the bundle fails its self-test on board: numpy float32 relative difference " in log
    assert "from the golden vectors, first at step 1, over the limit of " in log
    assert "hint: the running service was not touched" in log
    assert board.service_pid(UNIT) == pid
    os.kill(pid, 0)
    installed = board.root / "etc/edge-lstm" / UNIT / "models/tank.elstm"
    assert Bundle.open(installed).id == Bundle.open(deployed.bundle).id


def test_a_service_that_does_not_become_ready_gives_the_reason(
    deployed: Deployed, broker: Mosquitto, tmp_path: Path
) -> None:
    board, service = deployed.board, write_service(tmp_path, "pond", broker.address)
    state = board.root / "var/lib/edge-lstm-pond/state.db"
    state.mkdir(parents=True)  # no database can be there
    status, said, log = deploy(board, service, deployed.bundle, "--wait", "0")
    assert (status, said) == (1, "")
    assert "error: board: expected edge-lstm-pond.service to become ready, found:\n" in log
    assert "state.db" in log.partition("to become ready")[2]


def test_an_install_error_on_the_board_is_shown_with_its_fix(
    deployed: Deployed, broker: Mosquitto, tmp_path: Path
) -> None:
    pid = deployed.board.service_pid(UNIT)
    namesake = write_service(tmp_path, UNIT, broker.address)
    status, said, log = deploy(deployed.board, namesake, deployed.bundle, "--wait", "0")
    assert (status, said) == (1, "")
    assert log.splitlines()[-2:] == [
        f'error: board: expected {UNIT} to be free or of client_id "{UNIT}", found the service of "tank"',
        "hint: choose another client_id, or uninstall that one",
    ]
    assert deployed.board.service_pid(UNIT) == pid


def test_an_unfit_board_is_refused_before_anything_is_copied(
    make_board: Callable[..., LoopbackBoard], bundle_path: Path, tmp_path: Path
) -> None:
    board, service = make_board(), write_service(tmp_path, "tank", NOWHERE)
    service.write_text('device = "generic-armv7"\n' + service.read_text())
    status, said, log = deploy(board, service, bundle_path)
    assert (status, said) == (1, "")
    assert log == (
        f"error: board does not fit a 32-bit ARM board: expected armv7l, found {this_machine().architecture}\n"
        "hint: choose the board of this machine (edge-lstm device detect)\n"
    )
    service.write_text(service.read_text().replace("generic-armv7", "generic-armv77"))
    assert 'found "generic-armv77"; did you mean "generic-armv7"?' in deploy(board, service, bundle_path)[2]
    assert sorted(path.name for path in board.root.iterdir()) == ["run"]


def test_a_board_without_systemd_is_refused_before_anything_is_copied(
    make_board: Callable[..., LoopbackBoard], bundle_path: Path, tmp_path: Path
) -> None:
    board = make_board(systemd=False)
    status, said, log = deploy(board, write_service(tmp_path, "tank", NOWHERE), bundle_path)
    assert (status, said) == (1, "")
    assert "error: board: expected systemd, found none\nhint: start it there by hand" in log
    assert sorted(path.name for path in board.root.iterdir()) == ["run"]


def test_a_failed_environment_is_reported_with_its_fix() -> None:
    extras = ["fast", "msgpack", "tflite"]  # one of them is not the board's own
    collecting = "edge-lstm device wheelhouse raspberry-pi-4 --extra msgpack -o wheels"
    roomy = {"free_mb": 9000}
    assert remedy(roomy, "raspberry-pi-4", extras, Path("wheels")) == f"collect the wheels again: {collecting}"
    assert remedy(roomy, "raspberry-pi-4", extras, None).startswith("without internet there: edge-lstm device wheel")
    full = {"free_mb": 3}
    assert remedy(full, "raspberry-pi-4", extras, None) == "free some space below /opt/edge-lstm: 3 MB were left"


def test_a_refused_ssh_login_is_one_line_with_the_fix(
    make_board: Callable[..., LoopbackBoard], bundle_path: Path, tmp_path: Path
) -> None:
    board, service = make_board(), write_service(tmp_path, "tank", NOWHERE)
    status, said, log = deploy(board, service, bundle_path, ssh=board.connection.configured(key="host"))
    assert (status, said) == (1, "")
    assert "Permission denied" in log.splitlines()[0]
    assert log.splitlines()[1] == "hint: copy your key to the board: ssh-copy-id board"
    status, said, log = deploy(board, service, bundle_path, ssh=board.connection.configured(known="nobody"))
    assert (status, said) == (1, "")
    assert log == (
        "error: expected to reach board over ssh, found: Host key verification failed.\n"
        "hint: connect once by hand (ssh board) and compare the key's fingerprint\n"
    )
    board.stop()
    status, _, log = deploy(board, service, bundle_path)
    assert status == 1
    assert "Connection refused" in log.splitlines()[0]


def test_a_remote_signal_is_distinguished_from_an_ssh_failure(
    make_board: Callable[..., LoopbackBoard],
) -> None:
    with Ssh("board", make_board().connection.configured()) as ssh:
        assert ssh.run(["sh", "-c", "kill -ILL $$"]).returncode == 128 + signal.SIGILL
        with pytest.raises(EdgeLstmError, match=r"board: expected a step to end within 0\.5 s, found that it still"):
            ssh.run(["sleep", "60"], limit_s=0.5)
        done = ssh.run(["sh", "-c", "cat; exit 7"], b'it\'s "quoted" $HOME\n')
        assert (done.returncode, done.stdout) == (7, b'it\'s "quoted" $HOME\n')


def test_a_config_with_files_outside_its_folder_is_refused(tmp_path: Path, bundle_path: Path) -> None:
    from edge_lstm.deploy.deployment import deployment_files

    config = tmp_path / "tank.toml"
    config.write_text('bundle = "../tank.elstm"\n[mqtt]\nurl = "mqtt://localhost:1883"\n')
    with pytest.raises(
        EdgeLstmError, match=r"bundle: expected a path below the folder of this config, found \.\./tank"
    ):
        deployment_files(config, bundle_path)
    config.write_text('bundle = "service.toml"\n[mqtt]\nurl = "mqtt://localhost:1883"\n')
    with pytest.raises(EdgeLstmError, match=r"bundle: expected another name than service\.toml, which is the name"):
        deployment_files(config, bundle_path)
    config.write_text('bundle = "t.elstm"\ntrust = "maker.pub"\n[mqtt]\nurl = "mqtt://localhost:1883"\n')
    with pytest.raises(EdgeLstmError, match=r"expected to read .*maker\.pub, found: No such file"):
        deployment_files(config, bundle_path)
