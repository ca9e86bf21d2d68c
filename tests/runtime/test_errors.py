"""A caller can catch a faulty bundle, config, backend or reading by the class of its exception."""

from __future__ import annotations

import dataclasses
import pickle
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from edge_lstm import Bundle
from edge_lstm.backends.registry import load
from edge_lstm.backends.selftest import SelfTestError, load_verified
from edge_lstm.bundle.archive import CERTIFICATE, GOLDEN, pack
from edge_lstm.bundle.certificate import read_certificate
from edge_lstm.bundle.golden import read_golden_vectors
from edge_lstm.foundation.config import read_toml
from edge_lstm.foundation.errors import BackendError, BundleError, ConfigError, EdgeLstmError, ReadingError
from edge_lstm.hardware.boards import read_board
from edge_lstm.service.config import ServiceConfig
from edge_lstm.service.config_edit import set_keys
from tests.networks import random_network
from tests.paths import FIXTURES, PUMP

WRITTEN = FIXTURES / "written_by_0_1_0/bundles"
DAMAGES: list[Callable[[bytes], bytes]] = [
    lambda data: b"",
    lambda data: data[: len(data) // 2],
    lambda data: data.replace(b'"format_version": 1', b'"format_version": 9'),
    lambda data: data.replace(b'"task": "forecast"', b'"task": "prophecy"'),
]


def repacked(**changes: bytes) -> Bundle:
    """The pump's bundle with other content under these names, its hashes correct."""
    bundle = Bundle.open(PUMP)
    content = {**bundle.content, **{name.replace("_", "."): data for name, data in changes.items()}}
    return Bundle.from_bytes(pack(bundle.manifest, content), "changed.elstm")


def test_every_class_is_an_edge_lstm_error_and_no_class_is_another_ones() -> None:
    kinds = [BundleError, ConfigError, BackendError, ReadingError]
    for kind in kinds:
        assert issubclass(kind, EdgeLstmError)
        assert kind.exit_code == 1
        assert [other for other in kinds if issubclass(kind, other)] == [kind]
        assert str(kind("expected a, found b", "do c")) == "expected a, found b\nhint: do c"


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_bundle_that_is_missing_or_damaged_is_a_bundle_error(damage: Callable[[bytes], bytes]) -> None:
    with pytest.raises(BundleError, match=r"pump\.elstm"):
        Bundle.from_bytes(damage(PUMP.read_bytes()), "pump.elstm")
    with pytest.raises(BundleError, match=r"expected a bundle at nowhere\.elstm, found no file"):
        Bundle.open("nowhere.elstm")


def test_faulty_golden_vectors_certificates_and_variants_are_bundle_errors() -> None:
    with pytest.raises(BundleError, match=r"expected golden vectors in golden\.npz"):
        read_golden_vectors(repacked(**{GOLDEN.replace(".", "_"): b"none"}))
    for certificate in (b"none", b"[]", b"{}"):
        with pytest.raises(BundleError, match=r"certificate\.json"):
            read_certificate(repacked(**{CERTIFICATE.replace(".", "_"): certificate}))
    with pytest.raises(BundleError, match="expected a variant onnx float64"):
        Bundle.open(PUMP).variant("onnx", "float64")


def test_a_signature_that_is_missing_or_not_one_is_a_bundle_error() -> None:
    pytest.importorskip("cryptography", reason="cryptography is not installed (extra signing)")
    from edge_lstm.bundle.signing import require_trusted_signature

    for bundle in (Bundle.open(PUMP), dataclasses.replace(Bundle.open(PUMP), signature=b"none")):
        with pytest.raises(BundleError, match=r"expected a (public key and a )?signature"):
            require_trusted_signature(bundle, WRITTEN / "maker.pub")
    with pytest.raises(EdgeLstmError, match="expected a key at") as caught:
        require_trusted_signature(Bundle.open(PUMP), Path("nowhere.pub"))
    assert type(caught.value) is EdgeLstmError  # a file, not a bundle


def test_a_config_that_is_missing_or_faulty_is_a_config_error(tmp_path: Path) -> None:
    path = tmp_path / "service.toml"
    for text in (None, "no TOML", 'bundel = "a.elstm"'):
        if text is not None:
            path.write_text(text)
        with pytest.raises(ConfigError, match=r"service\.toml"):
            read_toml(path, ServiceConfig)
    path.write_bytes(b"\xff")
    with pytest.raises(ConfigError, match="expected to read TOML"):
        set_keys(path, {"backend": "onnx"}, lambda table: None)
    with pytest.raises(ConfigError, match=r'found "raspberry-pi-6"; did you mean "raspberry-pi-[45]"'):
        read_board("raspberry-pi-6")


def test_a_backend_that_is_unknown_or_not_installed_is_a_backend_error(monkeypatch: pytest.MonkeyPatch) -> None:
    bundle = Bundle.open(PUMP)
    with pytest.raises(BackendError, match="expected a backend of litert, onnx"):
        load(bundle, "tensorrt", "int8")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(BackendError, match="expected the package onnxruntime for the backend onnx"):
        load(bundle, "onnx", "int8")


def test_a_backend_whose_package_does_not_load_is_a_backend_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "onnxruntime.py").write_text("raise ImportError('no GLIBCXX_3.4.29')\n")
    monkeypatch.syspath_prepend(tmp_path)
    for name in [name for name in sys.modules if name.split(".")[0] == "onnxruntime"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.delitem(sys.modules, "edge_lstm.backends.onnx", raising=False)
    with pytest.raises(BackendError, match="expected to import onnxruntime for the backend onnx, found: no GLIBCXX"):
        load(Bundle.open(PUMP), "onnx", "int8")


def test_a_failed_self_test_is_a_backend_error_with_exit_code_65(
    tmp_path: Path, make_bundle: Callable[..., Bundle]
) -> None:
    sound = make_bundle(tmp_path / "tank.elstm")
    network = random_network()
    other = make_bundle(tmp_path / "other.elstm", dataclasses.replace(network, mean=network.mean + 1))
    file = sound.manifest.variants[0].file
    content = {**sound.content, file: other.content[file]}
    with pytest.raises(SelfTestError, match="expected numpy float32 to give the golden vectors") as caught:
        load_verified(Bundle.from_bytes(pack(sound.manifest, content), "tank.elstm"), "numpy", "float32")
    assert isinstance(caught.value, BackendError)
    assert caught.value.exit_code == 65
    copy = pickle.loads(pickle.dumps(caught.value))  # as a pool of processes does with an error of a worker
    assert (type(copy), str(copy), copy.verdict) == (SelfTestError, str(caught.value), caught.value.verdict)
