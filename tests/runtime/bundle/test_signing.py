"""Signed bundles: a device with a trusted key accepts no other bundle."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from edge_lstm.bundle import archive
from edge_lstm.bundle.archive import SIGNATURE, Bundle
from edge_lstm.bundle.keys import MOST_ROTATIONS, SigningKey, new_keys, rotated_keys
from edge_lstm.bundle.signing import open_trusted, require_trusted_signature, signature, signer
from edge_lstm.cli.main import main
from edge_lstm.foundation.errors import EdgeLstmError
from edge_lstm.service.config import read_service_config
from edge_lstm.service.service import Service
from tests.hostile.bundle_bytes import entries_of, packed, with_manifest
from tests.paths import PUMP

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


def signed_by(bundle_path: Path, private: Path) -> Bundle:
    bundle = Bundle.open(bundle_path)
    return Bundle.from_bytes(bundle.signed(signature(bundle, private)), "signed")


def test_one_of_several_keys_is_enough_in_one_file_or_in_many(bundle_path: Path, tmp_path: Path) -> None:
    pairs = [new_keys(tmp_path / name) for name in ("first", "second", "third")]
    signed = signed_by(bundle_path, pairs[1][0])
    require_trusted_signature(signed, [public for _, public in pairs])
    both = tmp_path / "both.pub"
    both.write_bytes(b"the first:\n" + pairs[0][1].read_bytes() + b"and another:\n" + pairs[1][1].read_bytes())
    require_trusted_signature(signed, both)
    with pytest.raises(EdgeLstmError, match=r"by .*first\.pub or .*third\.pub, found one by another key"):
        require_trusted_signature(signed, [pairs[0][1], pairs[2][1]])
    path = bundle_path.parent / "service.toml"
    path.write_text('bundle = "tank.elstm"\ntrust = ["first.pub", "second.pub"]\n[mqtt]\nurl = "mqtt://b"\n')
    assert read_service_config(path).trusted_keys == ["first.pub", "second.pub"]
    path.write_text('bundle = "tank.elstm"\ntrust = []\n[mqtt]\nurl = "mqtt://b"\n')
    with pytest.raises(EdgeLstmError, match="trust: expected at least one path, found none"):
        read_service_config(path)


def test_a_rotated_key_is_trusted_where_the_old_one_is(bundle_path: Path, tmp_path: Path) -> None:
    old, old_public = new_keys(tmp_path / "old")
    assert run("keys", "rotate", old, tmp_path / "new").exit_code == 0
    assert (tmp_path / "new.key").stat().st_mode & 0o777 == 0o600
    rotated_keys(SigningKey.read(tmp_path / "new.key"), tmp_path / "newest")
    for name in ("new", "newest"):
        signed = signed_by(bundle_path, tmp_path / f"{name}.key")
        require_trusted_signature(signed, old_public)
        require_trusted_signature(signed, tmp_path / f"{name}.pub")
    with pytest.raises(EdgeLstmError, match="found one by another key"):  # the way leads forward only
        require_trusted_signature(signed_by(bundle_path, old), tmp_path / "new.pub")


def test_a_rotation_without_the_old_keys_word_is_worth_nothing(bundle_path: Path, tmp_path: Path) -> None:
    _, trusted = new_keys(tmp_path / "trusted")
    thief, _ = new_keys(tmp_path / "thief")
    own = rotated_keys(SigningKey.read(thief), tmp_path / "own")[0]
    facts = json.loads(signature(Bundle.open(bundle_path), own))
    trusted_hex = json.loads(signature(Bundle.open(bundle_path), tmp_path / "trusted.key"))["public_key"]
    forged = [{**facts["rotations"][0], "old": trusted_hex}]
    for rotations in (facts["rotations"], forged, forged * 100, [5], {"old": 1}, "x", [{"old": trusted_hex}]):
        data = json.dumps({**facts, "rotations": rotations}).encode()[:4096]
        if len(data) < 4096:
            bundle = Bundle.from_bytes(Bundle.open(bundle_path).signed(data), "forged")
            with pytest.raises(EdgeLstmError, match="found one by another key"):
                require_trusted_signature(bundle, trusted)


def test_rotations_end_before_a_signature_is_too_large(bundle_path: Path, tmp_path: Path) -> None:
    key, first = new_keys(tmp_path / "0")
    for number in range(MOST_ROTATIONS):
        key, _ = rotated_keys(SigningKey.read(key), tmp_path / str(number + 1))
    require_trusted_signature(signed_by(bundle_path, key), first)
    with pytest.raises(EdgeLstmError, match="expected at most 8 rotations in a row"):
        rotated_keys(SigningKey.read(key), tmp_path / "last")


def test_a_key_with_a_passphrase_signs_only_with_it(bundle_path: Path, tmp_path: Path) -> None:
    for name, text in (("right", "open sesame\n"), ("wrong", "guess")):
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o600)
    assert run("keys", "new", tmp_path / "mine", "--passphrase-file", tmp_path / "right").exit_code == 0
    assert b"ENCRYPTED" in (tmp_path / "mine.key").read_bytes()
    command = ["sign", bundle_path, "--key", tmp_path / "mine.key"]
    before = bundle_path.read_bytes()
    assert "found none\n  hint: give it with --passphrase-file" in run(*command).stderr.replace("\nhint", "\n  hint")
    assert "expected the passphrase of" in run(*command, "--passphrase-file", tmp_path / "wrong").stderr
    assert bundle_path.read_bytes() == before
    assert run(*command, "--passphrase-file", tmp_path / "right").exit_code == 0
    require_trusted_signature(Bundle.open(bundle_path), tmp_path / "mine.pub")
    (tmp_path / "right").chmod(0o644)
    assert "to be closed to other users" in run(*command, "--passphrase-file", tmp_path / "right").stderr


def test_a_passphrase_is_asked_twice_for_a_new_key(tmp_path: Path) -> None:
    command = ["keys", "new", str(tmp_path / "mine"), "--passphrase"]
    done = CliRunner().invoke(main, command, input="sesame\nsesame\n")
    assert done.exit_code == 0
    assert "sesame" not in done.output
    assert SigningKey.read(tmp_path / "mine.key", lambda: b"sesame").public


def test_the_signature_is_checked_before_anything_is_parsed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    private, public = new_keys(tmp_path / "maker")
    _, other = new_keys(tmp_path / "other")
    bundle = Bundle.open(PUMP)
    path = tmp_path / "signed.elstm"
    path.write_bytes(bundle.signed(signature(bundle, private)))
    assert open_trusted(path, public).id == bundle.id
    entries = entries_of(path)
    changed = with_manifest(entries, lambda facts: facts["contract"].update(name="evil"))
    parsed: list[bytes] = []
    parse = archive.parsed_json
    monkeypatch.setattr(archive, "parsed_json", lambda raw, most: parsed.append(raw) or parse(raw, most))
    for data, key, found in (
        (packed({**entries, "manifest.json": b"[" * 100_000}), public, "found one of other bytes"),
        (changed, public, "found one of other bytes"),
        (path.read_bytes(), other, "found one by another key"),
        (PUMP.read_bytes(), public, "found none"),
    ):
        (tmp_path / "strange.elstm").write_bytes(data)
        with pytest.raises(EdgeLstmError, match=found):
            open_trusted(tmp_path / "strange.elstm", key)
    assert parsed == []
    open_trusted(path, public)
    assert len(parsed) == 1
