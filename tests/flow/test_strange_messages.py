"""A little of what `make fuzz` sends to the whole service: faults were once found there that no other test had met."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.fuzz.service import Field, serve
from tests.paths import PUMP


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # of numpy, where a hostile value overflows
def test_strange_messages_cuts_and_kills_leave_every_reading_stepped_once(tmp_path: Path) -> None:
    shutil.copy(PUMP, tmp_path)
    config = tmp_path / "service.toml"
    config.write_text(
        f'bundle = "{PUMP.name}"\nbackend = "numpy"\nmax_streams = 200\nmax_rewind = 20\nstats_interval_s = 0.1\n'
        'mqtt.url = "mqtt://fuzz"\n'
    )
    field = Field(20_000, seed=1)
    counts = serve(field, config)
    assert field.sent == 20_000
    assert field.kills + field.cuts > 0
    assert field.readings == field.steps
    assert field.steps.total() > 10_000
    assert counts["missing"] > 100
