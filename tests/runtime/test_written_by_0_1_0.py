"""Files written by 0.1.0 open as before: bundles, service configs, and copies of state databases."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from edge_lstm import Bundle
from edge_lstm.backends.registry import format_of, installed, runnable
from edge_lstm.backends.selftest import verify
from edge_lstm.bundle.certificate import read_certificate
from edge_lstm.foundation.config import read_toml
from edge_lstm.service.config import ServiceConfig
from tests.written_states import STATES, WRITTEN, assert_holds, further, open_copy, plain

BUNDLES: dict[str, Any] = json.loads((WRITTEN / "bundles.json").read_text(encoding="utf-8"))
CONFIGS: dict[str, Any] = json.loads((WRITTEN / "configs.json").read_text(encoding="utf-8"))
SIZE_LIMIT = 1_500_000  # bytes of the whole folder


def recorded(state: str) -> dict[str, Any]:
    facts: dict[str, Any] = json.loads((WRITTEN / "states" / state / "contents.json").read_text(encoding="utf-8"))
    return facts


@pytest.mark.parametrize("name", BUNDLES)
def test_a_bundle_opens_with_its_recorded_identity_and_contract(name: str) -> None:
    bundle = Bundle.open(WRITTEN / f"bundles/{name}.elstm")
    assert bundle.id == BUNDLES[name]["id"]
    assert [[one.format, one.scheme] for one in bundle.manifest.variants] == BUNDLES[name]["variants"]
    assert_holds(plain(bundle.contract), BUNDLES[name]["contract"], "contract")
    assert_holds(plain(bundle.manifest.architecture), BUNDLES[name]["architecture"], "architecture")


@pytest.mark.parametrize("name", BUNDLES)
def test_a_bundle_verifies_on_every_installed_backend_that_has_a_variant(name: str) -> None:
    bundle = Bundle.open(WRITTEN / f"bundles/{name}.elstm")
    verdicts = verify(bundle, runnable(bundle))
    variants = [tuple(variant) for variant in BUNDLES[name]["variants"]]
    assert {(one.backend, one.scheme) for one in verdicts} == {
        (backend, scheme) for backend in installed() for format, scheme in variants if format == format_of(backend)
    }
    assert [verdict for verdict in verdicts if not verdict.passed] == []


def test_the_bundles_cover_every_task_both_cells_a_grid_and_a_highway() -> None:
    bundles = [Bundle.open(WRITTEN / f"bundles/{name}.elstm") for name in BUNDLES]
    contracts = [bundle.contract for bundle in bundles]
    assert {contract.task for contract in contracts} == {"forecast", "estimate", "classify", "anomaly"}
    assert {bundle.manifest.architecture.cell for bundle in bundles} == {"lstm", "gru"}
    assert [contract.name for contract in contracts if contract.sampling.grid] == ["mill-power"]
    assert "recent_samples" in {state.name for contract in contracts for state in contract.states}


def test_the_forecast_certificate_is_read() -> None:
    certificate = read_certificate(Bundle.open(WRITTEN / "bundles/forecast.elstm"))
    assert certificate is not None
    assert {one.scheme for one in certificate.variants} == {"float32", "int8"}


def test_only_the_signed_bundle_is_trusted_by_the_key() -> None:
    pytest.importorskip("cryptography", reason="cryptography is not installed (extra signing)")
    from edge_lstm.bundle.signing import require_trusted_signature, signer
    from edge_lstm.foundation.errors import EdgeLstmError

    public = WRITTEN / "bundles/maker.pub"
    signed = Bundle.open(WRITTEN / "bundles/signed.elstm")
    require_trusted_signature(signed, public)
    assert signer(signed) == BUNDLES["signed"]["signer"]
    with pytest.raises(EdgeLstmError, match="found none"):
        require_trusted_signature(Bundle.open(WRITTEN / "bundles/classify.elstm"), public)


@pytest.mark.parametrize("name", CONFIGS)
def test_a_service_config_gives_the_recorded_values(name: str) -> None:
    expected = CONFIGS[name]
    if expected["max_ahead_s"] == 86_400.0:  # the default of 0.1.0, which no file has: a day ahead silenced streams
        expected = {**expected, "max_ahead_s": 300.0}
    assert_holds(plain(read_toml(WRITTEN / name, ServiceConfig)), expected, name)


@pytest.mark.parametrize("name", STATES)
def test_a_state_database_holds_exactly_what_was_recorded(name: str, tmp_path: Path) -> None:
    opened = open_copy(name, tmp_path)
    assert_holds(opened.contents(), recorded(name)["holds"], name)
    opened.close()


@pytest.mark.parametrize("name", STATES)
def test_no_stream_of_a_state_database_starts_cold(name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    opened = open_copy(name, tmp_path)
    steps = {stream: facts["now"]["step"] for stream, facts in opened.contents()["streams"].items()}
    opened.close()
    assert all(steps.values()), steps
    assert "starts cold" not in caplog.text


@pytest.mark.parametrize("name", STATES)
def test_further_readings_on_a_state_database_get_the_recorded_predictions(name: str, tmp_path: Path) -> None:
    opened = open_copy(name, tmp_path)
    facts = recorded(name)
    assert_holds(opened.feed(further(facts)), facts["published"], name, rounded=True)
    opened.close()


def test_unsent_and_unacknowledged_messages_are_read(tmp_path: Path) -> None:
    opened = open_copy("outbox", tmp_path)
    assert (opened.last_batch, len(opened.unacknowledged)) == (recorded("outbox")["holds"]["last_batch"], 50)
    payloads = [json.loads(payload) for _, messages in opened.unsent for _, payload in messages]
    assert [(one["stream"], one["step"]) for one in payloads] == [
        (f"mill-{stream}", step) for step in range(1, 9) for stream in (1, 2, 3)
    ]
    assert {topic for _, messages in opened.unsent for topic, _ in messages} == {
        f"predictions/mill-{stream}" for stream in (1, 2, 3)
    }
    opened.close()


def test_a_late_reading_rewinds_with_the_stored_trail(tmp_path: Path) -> None:
    opened = open_copy("rewind", tmp_path)
    published = opened.feed(further(recorded("rewind")))
    opened.close()
    corrected = [one["payload"] for one in published if one["payload"]["revision"]]
    assert [(one["stream"], one["step"], one["revision"]) for one in corrected] == [
        ("mill-2", 8, 1),
        ("mill-1", 14, 1),
        ("mill-1", 15, 1),
    ]


@pytest.mark.parametrize("name", STATES)
def test_a_state_database_is_one_file_of_form_1(name: str, tmp_path: Path) -> None:
    folder = WRITTEN / "states" / name
    assert sorted(path.name for path in folder.iterdir()) == ["contents.json", "service.toml", "state.db"]
    copy = tmp_path / "state.db"
    copy.write_bytes((folder / "state.db").read_bytes())
    database = sqlite3.connect(copy)
    assert database.execute("pragma user_version").fetchone() == (1,)
    database.close()


@pytest.mark.parametrize("name", STATES)
def test_a_state_database_has_form_2_once_it_was_opened(name: str, tmp_path: Path) -> None:
    open_copy(name, tmp_path).close()
    with sqlite3.connect(tmp_path / "state.db") as database:
        texts = [text for (text,) in database.execute("select description from layouts order by id")]
        assert database.execute("pragma user_version").fetchone() == (2,)
    database.close()
    assert texts[0] == ""  # the rows of 0.1.0
    assert texts[1].startswith("current.time <f8\n")


def test_the_folder_stays_small() -> None:
    assert sum(path.stat().st_size for path in WRITTEN.rglob("*") if path.is_file()) < SIZE_LIMIT
