"""A bundle is for some devices, until a day, and has a version; a signature covers all three."""

from __future__ import annotations

import datetime
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from edge_lstm.bundle.archive import Bundle, pack
from edge_lstm.bundle.data_sheet import data_sheet
from edge_lstm.bundle.purpose import Purpose
from edge_lstm.foundation.errors import BundleError, EdgeLstmError
from tests.written_states import WRITTEN

LAST_SECOND = datetime.datetime(2027, 12, 31, 23, 59, 59, tzinfo=datetime.timezone.utc).timestamp()


@pytest.mark.parametrize("path", sorted((WRITTEN / "bundles").glob("*.elstm")), ids=lambda path: path.stem)
def test_a_bundle_without_a_purpose_has_the_bytes_of_0_1_0(path: Path) -> None:
    bundle = Bundle.open(path)
    again = Bundle.from_bytes(pack(bundle.manifest.with_purpose(Purpose()), bundle.content), "again")
    assert again.manifest_bytes == bundle.manifest_bytes
    assert bundle.manifest.purpose == Purpose()


def test_the_purpose_is_in_the_manifest_and_the_data_sheet(bundle_path: Path) -> None:
    purpose = Purpose(7, ("pump-1", "tank-*"), "2027-12-31")
    opened = Bundle.open(bundle_path)
    bundle = Bundle.from_bytes(pack(opened.manifest.with_purpose(purpose), opened.content), "tank.elstm")
    assert bundle.manifest.purpose == purpose
    facts = json.loads(bundle.manifest_bytes)
    assert (facts["format_version"], facts["version"], facts["expires"]) == (2, 7, "2027-12-31")
    sheet = data_sheet(bundle)
    for line in ("version   7", "for       pump-1, tank-*", "expires   after 2027-12-31"):
        assert line in sheet


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"version": -1}, "version: expected a number from 0 to"),
        ({"version": 10**16}, "version: expected a number from 0 to"),
        ({"devices": ["a\nb"]}, "devices: expected names without control characters"),
        ({"devices": ["x"] * 1001}, "devices: expected at most 1000 devices"),
        ({"expires": "soon"}, 'expires: expected a day like 2027-12-31, found "soon"'),
        ({"expires": "2027-13-01"}, "expires: expected a day"),
        ({"expires": "2027-1-1"}, "expires: expected a day"),
    ],
)
def test_a_manifest_with_an_odd_purpose_is_refused(bundle_path: Path, changed: Any, message: str) -> None:
    bundle = Bundle.open(bundle_path)
    with pytest.raises(EdgeLstmError, match=message):
        Bundle.from_bytes(pack(replace(bundle.manifest, **changed), bundle.content), "odd")


def test_only_the_named_devices_may_run_a_bundle() -> None:
    purpose = Purpose(devices=("pump-1", "tank-*"))
    for device in ("pump-1", "tank-7", "tank-"):
        purpose.require("x.elstm", device, lambda: True)
    for device in ("pump-11", "PUMP-1", "tank", "a-tank-1"):
        with pytest.raises(BundleError, match=f"expected a bundle for {device}, found one for pump-1, tank"):
            purpose.require("x.elstm", device, lambda: True)


def test_the_last_day_ends_at_midnight_utc_by_a_right_clock(caplog: pytest.LogCaptureFixture) -> None:
    purpose = Purpose(expires="2027-12-31")
    purpose.require("x.elstm", "any", lambda: True, lambda: LAST_SECOND)
    with pytest.raises(BundleError, match="found one that expired after 2027-12-31"):
        purpose.require("x.elstm", "any", lambda: True, lambda: LAST_SECOND + 1)
    purpose.require("x.elstm", "any", lambda: False, lambda: LAST_SECOND + 1)
    assert "not checked for its last day, the clock is not synchronized expires=2027-12-31" in caplog.text
