"""Passwords and keys are used only from closed files beside the config, or as credentials of systemd."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from edge_lstm.cli.main import main
from edge_lstm.diagnostics.doctor import examine
from edge_lstm.foundation.errors import EdgeLstmError
from edge_lstm.mqtt.credentials import Tls, read_password, secret_path
from edge_lstm.service.config import read_service_config

pytestmark = pytest.mark.skipif(os.name != "posix", reason="files have no such permissions here")


@pytest.fixture
def config(bundle_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A service with a password in a file that everybody may read."""
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)
    path = bundle_path.parent / "service.toml"
    path.write_text(
        f'bundle = "{bundle_path.name}"\nbackend = "numpy"\n'
        '[mqtt]\nurl = "mqtt://127.0.0.1:1"\nusername = "u"\npassword_file = "password"\n'
    )
    (path.parent / "password").write_text("s3cret\n")
    (path.parent / "password").chmod(0o644)
    return path


def test_run_refuses_an_open_password_file_and_gives_the_repair(config: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "edge_lstm", "run", str(config)], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 1
    password = config.parent / "password"
    assert f"expected {password} to be closed to other users, found permissions 644" in done.stderr
    assert f"chmod 600 {password}" in done.stderr
    assert "s3cret" not in done.stdout + done.stderr


def test_doctor_is_red_for_an_open_password_file(config: Path) -> None:
    (access,) = [one for one in examine(config) if one.check == "access"]
    assert access.light == "red"
    assert "found permissions 644" in access.found
    assert "chmod 600" in access.remedy


@pytest.mark.parametrize("path", ["/etc/shadow", "../other/secret", "link"])
def test_a_secret_from_elsewhere_is_refused_before_it_is_read(config: Path, path: str, tmp_path: Path) -> None:
    (config.parent / "link").symlink_to("/etc/shadow")
    config.write_text(config.read_text().replace('"password"', f'"{path}"'))
    with pytest.raises(EdgeLstmError, match="expected the password_file in the config's folder or below") as caught:
        read_service_config(config)
    assert "copy it into" in caught.value.hint


def test_a_credential_of_systemd_may_have_any_mode(
    config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = tmp_path / "given"
    given.mkdir()
    (given / "password_file").write_text("systemd's")
    (given / "password_file").chmod(0o444)
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(given))
    assert read_password(secret_path(config.parent, "password", "password_file")) == "systemd's"


def test_an_open_private_key_is_named_beside_other_faults(tmp_path: Path) -> None:
    for name in ("client.pem", "client.key"):
        (tmp_path / name).write_text("no PEM")
        (tmp_path / name).chmod(0o644)
    with pytest.raises(EdgeLstmError) as caught:
        Tls(tmp_path / "none.pem", tmp_path / "client.pem", tmp_path / "client.key").context()
    assert f"expected to read {tmp_path / 'none.pem'}, found: No such file" in caught.value.message
    assert f"expected {tmp_path / 'client.key'} to be closed to other users" in caught.value.message
    assert "chmod 600" in caught.value.hint


@pytest.mark.parametrize(
    "command",
    [
        ["record", "--from", "URL", "--topic", "t/{stream}", "-o", "x.csv"],
        ["discover", "URL"],
        ["simulate", "x.csv", "--to", "URL"],
    ],
    ids=lambda command: command[0],
)
def test_a_password_in_an_address_is_refused_and_not_repeated(command: list[str]) -> None:
    url = "mqtts://user:s3cret@broker.example:8883"
    done = CliRunner().invoke(main, [url if part == "URL" else part for part in command])
    assert done.exit_code == 1
    assert "expected an address without a user and password" in done.stderr
    assert "s3cret" not in done.output
