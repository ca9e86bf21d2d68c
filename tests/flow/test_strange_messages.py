"""A short run of what `make fuzz` sends to the whole service, with kills at every point of a batch."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.fuzz.service import KILLS, SimulatedBroker, serve
from tests.paths import PUMP


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # of numpy, where a hostile value overflows
def test_hostile_messages_cuts_and_kills_step_every_reading_once(tmp_path: Path) -> None:
    shutil.copy(PUMP, tmp_path)
    config = tmp_path / "service.toml"
    config.write_text(
        f'bundle = "{PUMP.name}"\nbackend = "numpy"\nmax_streams = 200\nmax_rewind = 20\nstats_interval_s = 0.1\n'
        'mqtt.url = "mqtt://fuzz"\n'
    )
    broker = SimulatedBroker(20_000, seed=1)
    counts = serve(broker, config)
    assert broker.sent == 20_000
    assert min(broker.kills[point] for point in KILLS) > 0
    assert broker.cuts > 0
    assert broker.readings == broker.steps
    assert broker.steps.total() > 10_000
    assert counts["missing"] > 100
