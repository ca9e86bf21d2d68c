"""The installed service: which file goes where, how systemd rates the unit, and a refusal that writes nothing."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from edge_lstm.deploy.install import Plan, install, installed, plan, service_name, uninstall
from edge_lstm.deploy.system_root import SystemRoot
from edge_lstm.deploy.systemd_unit import Program, unit_text
from edge_lstm.foundation.config import read_toml
from edge_lstm.foundation.errors import EdgeLstmError
from edge_lstm.hardware.boards import board_names
from edge_lstm.hardware.machine import prepared_machine
from edge_lstm.service.config import ServiceConfig

PROGRAM = Program(Path(sys.executable), (Path("/opt/edge-lstm"), Path("/usr")))
HIGHEST_EXPOSURE = 1.5

needs_systemd_analyze = pytest.mark.skipif(
    shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed (Debian: apt-get install systemd)"
)


@pytest.fixture
def config(bundle_path: Path) -> Path:
    """A config beside its bundle, with a password in a file of its own."""
    path = bundle_path.parent / "tank.toml"
    path.write_text(
        f'bundle = "{bundle_path.name}"\nbackend = "numpy"  # a comment that stays\nmemory_max_mb = 256\n'
        'watchdog_s = 45.0\ncores = [0]\n[mqtt]\nurl = "mqtt://127.0.0.1"\nclient_id = "tank"\n'
        'username = "u"\npassword_file = "secrets/password"\n'
    )
    (bundle_path.parent / "secrets").mkdir()
    (bundle_path.parent / "secrets/password").write_text("s3cret\n")
    (bundle_path.parent / "secrets/password").chmod(0o600)
    return path


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "root").mkdir()
    return tmp_path / "root"


def tree(root: Path) -> dict[str, str]:
    """Every file and link below `root`, with its content or target."""
    return {
        str(path.relative_to(root)): f"-> {path.readlink()}" if path.is_symlink() else path.read_bytes().hex()
        for path in sorted(root.rglob("*"))
        if path.is_symlink() or path.is_file()
    }


def lines_of(unit: str) -> list[str]:
    return [line for line in unit.splitlines() if line and line[0] not in "#["]


def test_install_puts_every_file_where_the_unit_expects_it(config: Path, root: Path) -> None:
    said = install(plan(config, root, PROGRAM))
    home = root / "etc/edge-lstm/edge-lstm-tank"
    assert (home / "service.toml").read_text() == config.read_text()
    assert (home / "tank.elstm").read_bytes() == (config.parent / "tank.elstm").read_bytes()
    assert (home / "secrets/password").stat().st_mode & 0o777 == 0o600
    assert {path.name: path.stat().st_mode & 0o777 for path in home.iterdir()} == {
        "service.toml": 0o644,
        "tank.elstm": 0o644,
        "secrets": 0o755,
    }
    unit = lines_of((root / "etc/systemd/system/edge-lstm-tank.service").read_text())
    assert f"ExecStart={sys.executable} -m edge_lstm run /etc/edge-lstm/edge-lstm-tank/service.toml" in unit
    assert "LoadCredential=password_file:/etc/edge-lstm/edge-lstm-tank/secrets/password" in unit
    for line in (
        "Type=notify",
        "WatchdogSec=45",
        "MemoryMax=256M",
        "CPUAffinity=0",
        "StateDirectory=edge-lstm-tank",
        "DynamicUser=yes",
        "Restart=on-failure",
        "RestartPreventExitStatus=2 65",
        "IPAddressDeny=any",
        "IPAddressAllow=127.0.0.1",
    ):
        assert line in unit
    want = root / "etc/systemd/system/multi-user.target.wants/edge-lstm-tank.service"
    assert want.readlink() == Path("/etc/systemd/system/edge-lstm-tank.service")
    assert said == [
        "wrote /etc/edge-lstm/edge-lstm-tank/service.toml",
        "wrote /etc/edge-lstm/edge-lstm-tank/tank.elstm",
        "wrote /etc/edge-lstm/edge-lstm-tank/secrets/password",
        "wrote /etc/systemd/system/edge-lstm-tank.service",
        "enabled edge-lstm-tank, which starts with the system",
    ]
    assert "s3cret" not in json.dumps(unit)
    assert installed(root) == ["edge-lstm-tank"]


def test_a_second_install_changes_nothing_and_a_new_bundle_is_atomic(config: Path, root: Path) -> None:
    install(plan(config, root, PROGRAM))
    before = tree(root)
    assert all(line.startswith("unchanged ") for line in install(plan(config, root, PROGRAM)))
    assert tree(root) == before
    home = root / "etc/edge-lstm"
    former = home / (home / "edge-lstm-tank").readlink()
    config.write_text(config.read_text().replace("45.0", "50.0"))
    said = install(plan(config, root, PROGRAM))
    assert "wrote /etc/systemd/system/edge-lstm-tank.service" in said
    assert not former.exists()
    assert sorted(path.name for path in home.iterdir()) == sorted(
        ["edge-lstm-tank", (home / "edge-lstm-tank").readlink().name]
    )


def test_a_failed_install_step_is_rolled_back(config: Path, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(root: SystemRoot, path: Path, content: bytes) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))

    with monkeypatch.context() as broken:
        broken.setattr("edge_lstm.deploy.install._write_unit", full)
        with pytest.raises(EdgeLstmError, match=r"edge-lstm-tank\.service, found: No space left"):
            install(plan(config, root, PROGRAM))
    assert tree(root) == {}
    install(plan(config, root, PROGRAM))
    before = tree(root)
    config.write_text(config.read_text().replace("45.0", "50.0"))
    with monkeypatch.context() as broken:
        broken.setattr("edge_lstm.deploy.install._write_unit", full)
        with pytest.raises(EdgeLstmError):
            install(plan(config, root, PROGRAM))
    assert tree(root) == before


@pytest.mark.parametrize(
    "link",
    ["etc", "etc/edge-lstm", "etc/systemd", "etc/systemd/system", "etc/systemd/system/multi-user.target.wants"],
)
@pytest.mark.parametrize("is_absolute", [True, False])
def test_an_install_refuses_a_link_on_the_way_and_writes_nothing(
    config: Path, root: Path, link: str, is_absolute: bool
) -> None:
    outside = root.parent / "outside"
    outside.mkdir()
    place = root / link
    place.parent.mkdir(parents=True, exist_ok=True)
    place.symlink_to(outside if is_absolute else os.path.relpath(outside, place.parent))
    with pytest.raises(EdgeLstmError, match=f"expected a folder /{link} in .*, found a link") as caught:
        install(plan(config, root, PROGRAM))
    assert "could lead to files of this machine" in caught.value.hint
    assert list(outside.iterdir()) == []
    assert list(tree(root)) == [link]


def test_links_in_place_of_files_are_replaced_or_refused_not_followed(config: Path, root: Path) -> None:
    outside = root.parent / "outside"
    outside.mkdir()
    (outside / "service.toml").write_text('bundle = "secret of this machine"')
    home, unit = root / "etc/edge-lstm/edge-lstm-tank", root / "etc/systemd/system/edge-lstm-tank.service"
    home.parent.mkdir(parents=True)
    home.symlink_to(outside)
    install(plan(config, root, PROGRAM))
    assert tree(outside).keys() == {"service.toml"}
    assert (home / "tank.elstm").exists()
    unit.rename(outside / "unit")  # a unit that `install` wrote, elsewhere
    unit.symlink_to(outside / "unit")
    with pytest.raises(EdgeLstmError, match=r"expected /etc/systemd/system/edge-lstm-tank\.service to be free or made"):
        plan(config, root, PROGRAM)
    uninstall("edge-lstm-tank", root)
    assert tree(outside).keys() == {"service.toml", "unit"}


def test_uninstall_with_the_state_removes_links_and_not_what_they_lead_to(config: Path, root: Path) -> None:
    install(plan(config, root, PROGRAM))
    outside = root.parent / "outside"
    (outside / "below").mkdir(parents=True)
    (outside / "below/kept").write_text("x")
    state = root / "var/lib/edge-lstm-tank"
    state.mkdir(parents=True)
    (state / "state.db").write_text("x")
    (state / "link").symlink_to(outside / "below")
    (root / "var/lib/private").symlink_to(outside)
    with pytest.raises(EdgeLstmError, match=r"expected a folder /var/lib/private in .*, found a link"):
        uninstall("edge-lstm-tank", root, with_state=True)
    (root / "var/lib/private").unlink()
    uninstall("edge-lstm-tank", root, with_state=True)
    assert tree(root) == {}
    assert tree(outside).keys() == {"below/kept"}


def test_a_config_from_elsewhere_cannot_have_files_of_root_copied(
    config: Path, root: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    good = config.read_text()
    config.write_text(good.replace('"secrets/password"', '"/etc/shadow"'))
    with pytest.raises(EdgeLstmError, match="expected the password_file in the config's folder or below, found it at"):
        plan(config, root, PROGRAM)
    (config.parent / "secrets/password").unlink()
    (config.parent / "secrets/password").symlink_to("/etc/shadow")
    config.write_text(good)
    with pytest.raises(EdgeLstmError, match="expected the password_file in the config's folder or below, found it at"):
        plan(config, root, PROGRAM)
    closed = tmp_path_factory.mktemp("closed")
    (closed / "notes").write_text("of somebody else")
    (closed / "notes").chmod(0o600)
    (config.parent / "ca.pem").symlink_to(closed / "notes")
    config.write_text('bundle = "tank.elstm"\n[mqtt]\nurl = "mqtts://b"\nclient_id = "tank"\nca_file = "ca.pem"\n')
    with pytest.raises(EdgeLstmError, match=r"mqtt\.ca_file: expected a file that everybody may read, found .*ca\.pem"):
        plan(config, root, PROGRAM)


def test_facts_of_a_machine_are_not_read_through_a_link_out_of_its_root(root: Path) -> None:
    (root.parent / "memory").write_text("MemTotal:  400000 kB\n")
    (root / "proc").mkdir()
    (root / "proc/meminfo").symlink_to(root.parent / "memory")
    assert prepared_machine(root).memory_mb is None
    (root / "proc/meminfo").unlink()
    (root / "proc/real").write_text("MemTotal:  400000 kB\n")
    (root / "proc/meminfo").symlink_to("real")
    assert prepared_machine(root).memory_mb == 390


def test_the_next_install_repairs_an_interrupted_one(config: Path, root: Path) -> None:
    wanted = plan(config, root, PROGRAM)
    program = (
        "import os, sys; from pathlib import Path; from edge_lstm.deploy import install; "
        "install._write_unit = lambda *_: os._exit(9); "
        f"install.install(install.plan(Path({str(config)!r}), Path({str(root)!r}), install.Program(Path('/p'), ())))"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 9
    assert not (root / "etc/systemd/system/edge-lstm-tank.service").exists()  # systemd knows nothing of it yet
    install(wanted)
    assert (root / "etc/systemd/system/edge-lstm-tank.service").read_text() == wanted.unit
    assert len(list((root / "etc/edge-lstm").iterdir())) == 2


def test_uninstall_keeps_the_state_unless_with_state_is_given(config: Path, root: Path) -> None:
    install(plan(config, root, PROGRAM))
    state = root / "var/lib/private/edge-lstm-tank"
    state.mkdir(parents=True)
    (state / "state.db").write_text("x")
    (root / "var/lib/edge-lstm-tank").symlink_to("private/edge-lstm-tank")
    assert uninstall("edge-lstm-tank", root) == [
        "removed /etc/systemd/system/multi-user.target.wants/edge-lstm-tank.service",
        "removed /etc/systemd/system/edge-lstm-tank.service",
        "removed /etc/edge-lstm/edge-lstm-tank",
        "kept /var/lib/edge-lstm-tank",
    ]
    assert set(tree(root)) == {"var/lib/private/edge-lstm-tank/state.db", "var/lib/edge-lstm-tank"}
    install(plan(config, root, PROGRAM))
    uninstall("edge-lstm-tank", root, with_state=True)
    assert tree(root) == {}
    with pytest.raises(EdgeLstmError, match=r"expected a service edge-lstm-tank at .*, found none"):
        uninstall("edge-lstm-tank", root)


def test_the_state_can_be_removed_after_the_service(config: Path, root: Path) -> None:
    install(plan(config, root, PROGRAM))
    (root / "var/lib/edge-lstm-tank").mkdir(parents=True)
    uninstall("edge-lstm-tank", root)
    assert uninstall("edge-lstm-tank", root, with_state=True) == ["removed /var/lib/edge-lstm-tank"]
    with pytest.raises(EdgeLstmError, match="found none"):
        uninstall("edge-lstm-tank", root, with_state=True)


def test_files_of_others_are_neither_removed_nor_overwritten(config: Path, root: Path) -> None:
    units = root / "etc/systemd/system"
    (units / "multi-user.target.wants").mkdir(parents=True)
    (root / "var/lib/ssh").mkdir(parents=True)
    for name in ("ssh", "edge-lstm-tank"):
        (units / f"{name}.service").write_text("[Service]\nExecStart=/usr/bin/true\n")
    before = tree(root)
    for name in ("ssh", "edge-lstm-tank", "../../systemd/system/ssh"):
        with pytest.raises(EdgeLstmError, match=f"expected a service {name} at "):
            uninstall(name, root, with_state=True)
    with pytest.raises(
        EdgeLstmError, match=r"expected /etc/systemd/system/edge-lstm-tank\.service to be free or made by"
    ):
        plan(config, root, PROGRAM)
    assert tree(root) == before
    assert (root / "var/lib/ssh").is_dir()
    (units / "edge-lstm-tank.service").unlink()
    (root / "etc/edge-lstm/edge-lstm-tank").mkdir(parents=True)
    with pytest.raises(EdgeLstmError, match="expected /etc/edge-lstm/edge-lstm-tank to be free or made by"):
        plan(config, root, PROGRAM)


def refusals(folder: Path) -> list[tuple[str, str, str]]:
    """(what to replace in the config, by what, what the refusal says)."""
    return [
        ('"tank.elstm"', '"none.elstm"', f"expected the file of bundle at {folder}/none.elstm, found: No such file"),
        ('"tank.elstm"', '"../tank.elstm"', 'bundle: expected a path without .., found "../tank.elstm"'),
        (
            '"tank.elstm"',
            '"/home/me/tank.elstm"',
            'expected a path that a service can read, found "/home/me/tank.elstm"',
        ),
        ('"secrets/password"', '"secrets/none"', "expected the file of mqtt.password_file at"),
        (
            "cores = [0]",
            'state = "/data/state.db"',
            "expected a relative path for state, which is in /var/lib/edge-lstm-tank",
        ),
        ("cores = [0]", 'device = "raspberry-pi-4"', "expected 850 MB of memory, found 390"),
        ("memory_max_mb = 256", "memory_max_mb = 400", "expected at least memory_max_mb = 400 MB of memory, found 390"),
        (
            "cores = [0]",
            'trust = "tank.elstm"',
            "expected an Ed25519 public key" if find_spec("cryptography") else "cryptography is not installed",
        ),
        ("cores = [0]", 'bakcend = "numpy"', "bakcend: unknown key"),
        ('password_file = "secrets/password"', 'password_credential = "broker"', "expected the password in "),
        (
            'password_file = "secrets/password"',
            'password_credential = "x\\nExecStartPre="',
            r"expected the name of a credential without /, : and line ends, found 'x\nExecStartPre='",
        ),
        (
            '"secrets/password"',
            '"secrets/x\\nExecStartPre=y"',
            r"mqtt.password_file: expected a path without line ends, found 'secrets/x\nExecStartPre=y'",
        ),
        ('"secrets/password"', '"service.toml"', "mqtt.password_file: expected another name than service.toml"),
    ]


def test_an_unfit_install_is_refused_in_one_line_and_writes_nothing(config: Path, root: Path) -> None:
    (root / "proc").mkdir()
    (root / "proc/meminfo").write_text("MemTotal:  400000 kB\n")
    before, good = tree(root), config.read_text()
    for old, new, message in refusals(config.parent):
        assert old in good
        config.write_text(good.replace(old, new))
        with pytest.raises(EdgeLstmError) as caught:
            plan(config, root, PROGRAM)
        assert message in caught.value.message, (new, caught.value.message)
        assert "\n" not in caught.value.message
        assert caught.value.hint
        assert tree(root) == before


def test_two_services_install_side_by_side(config: Path, root: Path) -> None:
    install(plan(config, root, PROGRAM))
    config.write_text(config.read_text().replace('client_id = "tank"', 'client_id = "edge-lstm-tank"'))
    with pytest.raises(EdgeLstmError, match='of client_id "edge-lstm-tank", found the service of "tank"'):
        plan(config, root, PROGRAM)
    assert [service_name(one) for one in ("edge-lstm", "edge-lstm-a", "a b", "ü")] == [
        "edge-lstm",
        "edge-lstm-a",
        "edge-lstm-a-b",
        "edge-lstm--",
    ]


def test_missing_cores_are_refused_before_anything_is_written(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edge_lstm.deploy.install._refuse_without_systemd", lambda: None)
    config.write_text(config.read_text().replace("cores = [0]", "cores = [4711]"))
    with pytest.raises(EdgeLstmError, match="expected to run on the cores 4711, found: "):
        plan(config, Path("/"), PROGRAM)


@pytest.mark.skipif(Path("/run/systemd/system").exists(), reason="systemd manages this machine")
def test_without_systemd_the_error_names_the_next_step(config: Path) -> None:
    with pytest.raises(
        EdgeLstmError, match="expected systemd to manage this machine, found that it does not"
    ) as caught:
        plan(config, Path("/"), PROGRAM)
    assert "--root DIR" in caught.value.hint


def test_a_credential_comes_from_the_systemd_credential_store(config: Path, root: Path) -> None:
    config.write_text(
        config.read_text().replace('password_file = "secrets/password"', 'password_credential = "broker"')
    )
    (root / "etc/credstore").mkdir(parents=True)
    (root / "etc/credstore/broker").write_text("s3cret")
    assert "LoadCredential=broker:/etc/credstore/broker" in lines_of(plan(config, root, PROGRAM).unit)
    assert "secrets/password" not in plan(config, root, PROGRAM).files


def test_a_python_under_home_is_visible_to_the_service(config: Path, root: Path) -> None:
    home = Program(Path("/home/me/venv 1/bin/python"), (Path("/home/me/venv 1"), Path("/usr")))
    unit = lines_of(plan(config, root, home).unit)
    assert 'ExecStart="/home/me/venv 1/bin/python" -m edge_lstm run /etc/edge-lstm/edge-lstm-tank/service.toml' in unit
    place = unit.index("ProtectHome=tmpfs")
    assert unit[place + 1 : place + 3] == [
        "TemporaryFileSystem=/home:ro /root:ro /run/user:ro",
        'BindReadOnlyPaths="/home/me/venv 1"',
    ]
    assert "ProtectHome=yes" in lines_of(plan(config, root, PROGRAM).unit)


def analyzed(folder: Path, wanted: Plan, *arguments: str) -> str:
    """What systemd-analyze says of the unit; a failure where it ends with an error."""
    path = folder / wanted.unit_path.name
    path.write_text(wanted.unit)
    done = subprocess.run(["systemd-analyze", *arguments, str(path)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def units_of(config: Path, root: Path) -> list[Plan]:
    """Units of every kind: each board, a broker by name, a GPU, a Python under /home."""
    good = config.read_text().replace("memory_max_mb = 256\n", "").replace("cores = [0]\n", "")
    wanted = []
    for name in board_names():
        config.write_text(f'device = "{name}"\n' + good.replace("127.0.0.1", "broker.example"))
        wanted.append(plan(config, root, PROGRAM))
    config.write_text(good)
    wanted.append(plan(config, root, Program(Path(sys.executable), (Path("/home/me/venv 1"),))))
    return wanted


@needs_systemd_analyze
def test_systemd_analyze_accepts_every_unit(config: Path, root: Path, tmp_path: Path) -> None:
    for wanted in units_of(config, root):
        assert analyzed(tmp_path, wanted, "verify", "--man=no") == ""


@needs_systemd_analyze
def test_systemd_rates_every_units_exposure_at_most_1_5(config: Path, root: Path, tmp_path: Path) -> None:
    for wanted in units_of(config, root):
        said = analyzed(
            tmp_path, wanted, "security", "--offline=true", f"--threshold={int(10 * HIGHEST_EXPOSURE)}", "--no-pager"
        )
        exposure = float(said.split("Overall exposure level for")[1].split(":")[1].split()[0])
        assert exposure <= HIGHEST_EXPOSURE, said


def test_the_unit_allows_a_gpu_only_for_its_provider(config: Path) -> None:
    config.write_text(
        config.read_text().replace('backend = "numpy"', 'backend = "onnx"\nproviders = ["CUDAExecutionProvider"]')
    )
    settings = read_toml(config, ServiceConfig)
    unit = lines_of(unit_text("edge-lstm-tank", settings, Path("/etc/x.toml"), PROGRAM, {}))
    assert "SupplementaryGroups=video render" in unit
    assert "PrivateDevices=yes" not in unit


def run(*arguments: object, code: int = 0) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "edge_lstm", "device", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert "Traceback" not in done.stderr, done.stderr
    assert done.returncode == code, done.stderr
    return done


def test_the_commands_install_show_and_uninstall(config: Path, root: Path) -> None:
    dry = run("install", config, "--root", root, "--dry-run")
    assert dry.stdout.startswith("# Written by edge-lstm device install")
    assert "would write /etc/edge-lstm/edge-lstm-tank/tank.elstm" in dry.stderr
    assert tree(root) == {}
    done = run("install", config, "--root", root)
    assert done.stdout.splitlines()[0] == "wrote /etc/edge-lstm/edge-lstm-tank/service.toml"
    assert done.stderr == f"{root} has no {sys.executable}, which the unit starts: install edge-lstm there too\n"
    assert (root / "etc/systemd/system/edge-lstm-tank.service").read_text() == dry.stdout
    assert run("install", config, "--root", root, "--start", code=2).stdout == ""
    assert run("uninstall", config, "--root", root).stdout.count("removed ") == 3
    refused = run("uninstall", "edge-lstm-tank", "--root", root, code=1).stderr
    assert refused.startswith("error: expected a service edge-lstm-tank at ")
    assert list((root / "etc/edge-lstm").iterdir()) == []
    for name in ("tank", "edge-lstm-tank.service"):
        run("install", config, "--root", root)
        assert run("uninstall", name, "--root", root).stdout.count("removed ") == 3
    assert "does not exist" in run("install", config, "--root", root / "mistyped", code=2).stderr
