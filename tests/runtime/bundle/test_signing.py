"""Signed bundles: a device with a trusted key accepts no other bundle."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from edge_lstm.bundle.archive import SIGNATURE, Bundle
from edge_lstm.bundle.signing import new_keys, require_trusted_signature, signature, signer
from edge_lstm.cli.main import main
from edge_lstm.foundation.errors import EdgeLstmError
from edge_lstm.service.config import read_service_config
from edge_lstm.service.service import Service

pytest.importorskip("cryptography", reason="cryptography is not installed (extra signing)")


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, list(map(str, arguments)))


def test_the_commands_create_keys_sign_and_verify(bundle_path: Path, tmp_path: Path) -> None:
    before = Bundle.open(bundle_path)
    assert run("keys", "new", tmp_path / "mine").exit_code == 0
    assert (tmp_path / "mine.key").stat().st_mode & 0o777 == 0o600
    assert run("sign", bundle_path, "--key", tmp_path / "mine.key").exit_code == 0
    signed = Bundle.open(bundle_path)
    assert (signed.id, signed.content) == (before.id, before.content)
    assert run("verify", bundle_path, "--trust", tmp_path / "mine.pub").exit_code == 0
    assert signer(signed) in run("inspect", bundle_path).stdout


def test_equal_bundles_and_keys_give_equal_signatures(bundle_path: Path, tmp_path: Path) -> None:
    private, _ = new_keys(tmp_path / "mine")
    bundle = Bundle.open(bundle_path)
    assert bundle.signed(signature(bundle, private)) == bundle.signed(signature(bundle, private))


def test_a_key_is_never_overwritten(tmp_path: Path) -> None:
    private, _ = new_keys(tmp_path / "mine")
    secret = private.read_bytes()
    with pytest.raises(EdgeLstmError, match=r"expected no file at .*mine\.key"):
        new_keys(tmp_path / "mine")
    assert private.read_bytes() == secret


@pytest.mark.parametrize("path", ["", "/"])
def test_keys_need_a_name(path: str) -> None:
    with pytest.raises(EdgeLstmError, match="expected a path that ends in a name, found"):
        new_keys(Path(path))


def test_untrusted_bundles_are_refused_on_one_line(
    bundle_path: Path, tmp_path: Path, make_bundle: Callable[..., Bundle]
) -> None:
    private, public = new_keys(tmp_path / "mine")
    _, other = new_keys(tmp_path / "other")
    result = run("verify", bundle_path, "--trust", public)
    assert (result.exit_code, result.stderr.count("\n")) == (1, 2)
    assert "found none" in result.stderr
    bundle = Bundle.open(bundle_path)
    signed = Bundle.from_bytes(bundle.signed(signature(bundle, private)), "signed")
    require_trusted_signature(signed, public)
    with pytest.raises(EdgeLstmError, match="found one by another key"):
        require_trusted_signature(signed, other)
    elsewhere = signature(signed, private)
    facts = json.loads(elsewhere)
    flipped = {**facts, "signature": facts["signature"][:-2] + ("00" if facts["signature"][-2:] != "00" else "01")}
    with pytest.raises(EdgeLstmError, match="found one of other bytes"):
        require_trusted_signature(Bundle.from_bytes(bundle.signed(json.dumps(flipped).encode()), "altered"), public)
    with pytest.raises(EdgeLstmError, match=SIGNATURE):
        require_trusted_signature(Bundle.from_bytes(bundle.signed(b"[1]"), "broken"), public)
    with pytest.raises(EdgeLstmError, match="expected an Ed25519 public key"):
        require_trusted_signature(signed, private)


def test_a_service_with_a_trusted_key_refuses_an_unsigned_bundle(bundle_path: Path, tmp_path: Path) -> None:
    new_keys(tmp_path / "mine")
    config = tmp_path / "service.toml"
    config.write_text(
        f'bundle = "{bundle_path.name}"\ntrust = "mine.pub"\n[mqtt]\nurl = "mqtt://127.0.0.1:1"\n', encoding="utf-8"
    )
    with pytest.raises(EdgeLstmError, match=r"expected a signature by .*mine\.pub, found none"):
        Service(read_service_config(config), tmp_path)
    assert not (tmp_path / "state.db").exists()


def test_an_open_private_key_and_a_writable_public_key_are_refused(bundle_path: Path, tmp_path: Path) -> None:
    private, public = new_keys(tmp_path / "mine")
    bundle = Bundle.open(bundle_path)
    signed = Bundle.from_bytes(bundle.signed(signature(bundle, private)), "signed")
    require_trusted_signature(signed, public)
    private.chmod(0o644)
    with pytest.raises(EdgeLstmError, match=r"mine\.key to be closed to other users, found permissions 644"):
        signature(bundle, private)
    public.chmod(0o666)
    with pytest.raises(EdgeLstmError, match=r"mine\.pub to be writable by its owner only, found permissions 666"):
        require_trusted_signature(signed, public)
