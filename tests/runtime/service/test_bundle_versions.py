"""An older bundle than the highest version is refused; back to the one before is always allowed, and remembered."""

from __future__ import annotations

import sqlite3
from dataclasses import replace
from pathlib import Path

import pytest

from edge_lstm.bundle.archive import Bundle, pack
from edge_lstm.bundle.purpose import Purpose
from edge_lstm.foundation.errors import BundleError
from edge_lstm.service.bundle_versions import BundleVersions
from edge_lstm.service.config import read_service_config
from edge_lstm.service.service import Service


@pytest.fixture
def versions(bundle_path: Path) -> dict[int, Path]:
    """Bundles of one name by version; 0: without one."""
    bundle = Bundle.open(bundle_path)
    paths = {version: bundle_path.with_name(f"v{version}.elstm") for version in range(5)}
    for version, path in paths.items():
        path.write_bytes(pack(bundle.manifest.with_purpose(Purpose(version)), bundle.content))
    return paths


def start(bundle: Path, more: str = "") -> None:
    """Start a service with the bundle, and stop it."""
    config = bundle.with_name("service.toml")
    config.write_text(
        f'bundle = "{bundle.name}"\nbackend = "numpy"\n{more}\n[mqtt]\nurl = "mqtt://127.0.0.1:1"\nclient_id = "tank"\n'
    )
    Service(read_service_config(config), config.parent)._store.close(0)


def read(folder: Path, query: str) -> str:
    database = sqlite3.connect(folder / "state.db")
    try:
        (text,) = database.execute(query).fetchone()
        return str(text)
    finally:
        database.close()


def record(folder: Path) -> BundleVersions:
    return BundleVersions.from_text(read(folder, "select value from service where key = 'bundles'"), None)


def test_an_older_version_is_refused_and_the_states_stay(versions: dict[int, Path]) -> None:
    for version in (1, 3):
        start(versions[version])
    for older in (0, 2):
        expected = f"expected version 3 or a later one of .*, found version {older}"
        with pytest.raises(BundleError, match=expected) as caught:
            start(versions[older])
        assert "--allow-downgrade" in caught.value.hint
    assert read(versions[0].parent, "select id from bundle") == Bundle.open(versions[3]).id
    start(versions[3])
    start(versions[4])


def test_back_to_the_bundle_before_is_allowed_and_what_failed_remembered(
    versions: dict[int, Path], caplog: pytest.LogCaptureFixture
) -> None:
    for version in (1, 2, 3, 2):
        start(versions[version])
    assert "back to the bundle before, remembered as failed version=3" in caplog.text
    kept = record(versions[0].parent)
    assert [one.version for one in kept.failed] == [3]
    assert (kept.now.version if kept.now else None, kept.before.version if kept.before else None) == (2, 3)
    start(versions[2])  # a restart changes nothing
    with pytest.raises(BundleError, match="expected version 3 or a later one"):
        start(versions[1])
    for version in (3, 4, 3):
        start(versions[version])
    assert [one.version for one in record(versions[0].parent).failed] == [4, 3]


def test_bundles_without_a_version_are_not_compared(versions: dict[int, Path]) -> None:
    other = Bundle.open(versions[0])
    again = versions[0].with_name("again.elstm")
    again.write_bytes(pack(replace(other.manifest, provenance={"made": "again"}), other.content))
    for path in (versions[0], again, versions[0], again):
        start(path)
    assert record(versions[0].parent).failed == ()
    start(versions[1])
    start(again)  # the one before


def test_a_downgrade_is_allowed_where_the_operator_says_so(
    versions: dict[int, Path], caplog: pytest.LogCaptureFixture
) -> None:
    for version in (1, 3, 4):
        start(versions[version])
    start(versions[2], "allow_downgrade = true")
    assert "older bundle allowed version=2 highest=4" in caplog.text
    start(versions[2])  # it runs already
    assert record(versions[0].parent).highest == {Bundle.open(versions[0]).contract.name: 4}


def test_a_bundle_of_another_name_or_device_is_refused(versions: dict[int, Path]) -> None:
    bundle = Bundle.open(versions[1])
    name = bundle.contract.name
    start(versions[1], f'bundle_name = "{name}"')
    with pytest.raises(BundleError, match=f"expected the bundle boiler, found {name}"):
        start(versions[1], 'bundle_name = "boiler"')
    elsewhere = versions[1].with_name("elsewhere.elstm")
    elsewhere.write_bytes(pack(bundle.manifest.with_purpose(Purpose(9, ("pump-*",))), bundle.content))
    with pytest.raises(BundleError, match=r"expected a bundle for tank, found one for pump-\*"):
        start(elsewhere)
    start(versions[1])  # what was refused does not count as the highest


def test_a_record_of_a_later_release_begins_again(caplog: pytest.LogCaptureFixture) -> None:
    for text in ("[]", "{}", '{"now": {"id": "a", "shape": 1}, "before": null, "highest": {}, "failed": []}'):
        found = BundleVersions.from_text(text, "former")
        assert found.now is not None
        assert found.now.id == "former"
    assert "not readable, it begins again" in caplog.text
