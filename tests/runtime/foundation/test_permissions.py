"""Secrets that others may read, and files of trust that others may write, are refused; a database is closed."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from edge_lstm.foundation.errors import EdgeLstmError
from edge_lstm.foundation.permissions import is_within, make_private, require_private, require_unaltered_by_others

pytestmark = pytest.mark.skipif(os.name != "posix", reason="files have no such permissions here")
needs_root = pytest.mark.skipif(os.name == "posix" and os.geteuid() != 0, reason="only root gives files away")
SOMEBODY = 4711


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    path = tmp_path / "secret"
    path.write_text("s3cret")
    path.chmod(0o600)
    return path


@pytest.mark.parametrize("mode", [0o604, 0o606, 0o602, 0o644, 0o777, 0o660, 0o620])
def test_a_secret_that_others_may_use_is_refused_with_the_command(secret: Path, mode: int) -> None:
    if os.geteuid() == 0:
        os.chown(secret, -1, SOMEBODY)
    elif os.getuid() == os.getgid():  # nobody else is in that group
        mode |= 0o004
    secret.chmod(mode)
    with pytest.raises(EdgeLstmError, match=f"found permissions {mode:o}\n") as caught:
        require_private(secret)
    assert f"chmod 600 {secret}" in caught.value.hint
    secret.chmod(0o600)
    require_private(secret)
    secret.chmod(0o400)
    require_private(secret)


@needs_root
def test_a_group_may_read_a_secret_of_root_but_of_nobody_else(secret: Path) -> None:
    secret.chmod(0o640)
    os.chown(secret, 0, SOMEBODY)
    require_private(secret)
    os.chown(secret.parent, SOMEBODY, SOMEBODY)
    os.chown(secret, SOMEBODY, SOMEBODY + 1)
    with pytest.raises(EdgeLstmError, match="found permissions 640"):
        require_private(secret)
    os.chown(secret, SOMEBODY, SOMEBODY)  # a group of this user alone, as Debian makes them
    require_private(secret)


@needs_root
def test_a_file_of_another_user_is_refused(secret: Path) -> None:
    os.chown(secret, SOMEBODY, SOMEBODY)
    for require in (require_private, require_unaltered_by_others):
        with pytest.raises(EdgeLstmError, match=f"found user {SOMEBODY}"):
            require(secret)
    os.chown(secret.parent, SOMEBODY, SOMEBODY)  # root looks at the files of a user, as with sudo
    require_private(secret)


def test_a_file_of_trust_may_be_read_but_not_written_by_others(secret: Path) -> None:
    secret.chmod(0o644)
    require_unaltered_by_others(secret)
    secret.chmod(0o646)
    with pytest.raises(EdgeLstmError, match="writable by its owner only, found permissions 646") as caught:
        require_unaltered_by_others(secret)
    assert f"chmod 644 {secret}" in caught.value.hint


def test_a_folder_in_which_others_may_replace_the_file_is_refused(secret: Path) -> None:
    secret.parent.chmod(0o777)
    for require in (require_private, require_unaltered_by_others):
        with pytest.raises(EdgeLstmError, match="its folder with permissions 777") as caught:
            require(secret)
        assert f"chmod o-w {secret.parent}" in caught.value.hint
    secret.parent.chmod(0o1777)  # as /tmp: only the owner of a file may replace it
    require_private(secret)
    secret.parent.chmod(0o700)


def test_an_open_file_is_closed_once(secret: Path) -> None:
    secret.chmod(0o644)
    assert make_private(secret)
    assert secret.stat().st_mode & 0o777 == 0o600
    assert not make_private(secret)


def test_a_link_out_of_the_folder_is_not_within_it(secret: Path, tmp_path: Path) -> None:
    folder = tmp_path / "config"
    (folder / "below").mkdir(parents=True)
    (folder / "link").symlink_to(secret)
    (folder / "inside").symlink_to("below")
    (tmp_path / "version").symlink_to(folder)
    assert not is_within(folder / "link", folder)
    assert not is_within(folder / "../secret", folder)
    assert not is_within(folder / "/etc/shadow", folder)
    assert is_within(folder / "inside/file", folder)
    assert is_within(tmp_path / "version/below/file", folder)
    assert is_within(folder / "below/file", tmp_path / "version")
