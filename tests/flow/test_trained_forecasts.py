"""A target that a later value decides: a model that knows it beats one that does not, in the service too."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

pytest.importorskip("torch")  # a device has none

from edge_lstm import Bundle
from edge_lstm.bundle.data_sheet import KNOWN_AHEAD
from edge_lstm.cli.recordings import simulate
from edge_lstm.foundation.times.text import format_time
from edge_lstm.messages.encoder import decode_prediction
from edge_lstm_train.cli import train as train_command
from edge_lstm_train.model.checkpoint import load_checkpoint
from tests.deadline import wait_until

Make = Callable[..., Any]

ROWS = 500
START = 1_767_225_600.0


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a recording with archived forecasts, and one without: indoor follows outdoor at once."""
    folder = tmp_path_factory.mktemp("house")
    random = np.random.default_rng(3)
    outdoor = np.zeros(ROWS + 1)
    for row in range(ROWS):
        outdoor[row + 1] = 0.8 * outdoor[row] + random.normal()
    indoor = outdoor[:ROWS] + 0.05 * random.normal(size=ROWS)
    forecast = outdoor[1:] + 0.1 * random.normal(size=ROWS)
    lines = ["time,indoor,outdoor,outdoor+1h"]
    for row in range(ROWS):
        lines.append(f"{format_time(START + 3600 * row)},{indoor[row]:.4f},{outdoor[row]:.4f},{forecast[row]:.4f}")
    (folder / "archived.csv").write_text("\n".join(lines))
    (folder / "plain.csv").write_text("\n".join(line.rpartition(",")[0] for line in lines))
    return folder


def trained(house: Path, name: str, recording: str, keys: str) -> tuple[Path, str]:
    """The run folder, and what the command said."""
    recipe = house / f"{name}.toml"
    recipe.write_text(
        f'name = "house"\n[recording]\npath = "{recording}.csv"\n[features.indoor]\n[features.outdoor]\n{keys}\n'
        '[sampling]\ninterval_s = 3600\n[forecast]\ntargets = ["indoor"]\nhorizons = [1]\n[model]\ncell = "none"\n'
    )
    done = CliRunner().invoke(train_command, [str(recipe), "-o", str(house / name)])
    assert done.exit_code == 0, done.output
    return house / name, done.output


def rmse(run: Path) -> float:
    (row,) = json.loads((run / "metrics.json").read_text())["test"]
    return float(row["rmse"]["model"])


TOPIC = 'known_ahead = "weather/{stream}/forecast"'


@pytest.fixture(scope="module")
def archived(house: Path) -> tuple[Path, str]:
    """The run with archived forecasts, and what the command said."""
    return trained(house, "archived", "archived", TOPIC)


def test_a_model_that_knows_what_decides_its_target_has_a_fifth_of_the_error(
    house: Path, archived: tuple[Path, str]
) -> None:
    without, _ = trained(house, "without", "plain", "")
    run, said = archived
    assert rmse(without) > 0.9  # of innovations of 1
    assert rmse(run) < rmse(without) / 5
    assert "optimistic" not in said


def test_actual_values_in_place_of_forecasts_are_told_everywhere(house: Path) -> None:
    run, said = trained(house, "actual", "plain", TOPIC)
    warning = 'warning: outdoor+1: the recording has no archived forecasts of outdoor (in columns like "outdoor+6h")'
    assert warning in said
    assert "every figure is optimistic (an error was added:" in said
    assert json.loads((run / "metrics.json").read_text())["actual_ahead"]["outdoor"] == pytest.approx(0.5, abs=0.1)
    assert "every figure is optimistic" in (run / "report.html").read_text()
    assert "every figure is optimistic" in load_checkpoint(run).provenance[KNOWN_AHEAD]
    assert 0.3 < rmse(run) < 0.8  # between a forecast that is nearly right and none


def test_a_target_is_not_told_its_own_later_values(house: Path) -> None:
    recipe = house / "leak.toml"
    recipe.write_text(
        f'name = "house"\n[recording]\npath = "plain.csv"\n[features.indoor]\n{TOPIC}\n[sampling]\ninterval_s = 3600\n'
        '[forecast]\ntargets = ["indoor"]\nhorizons = [1]\n'
    )
    done = CliRunner().invoke(train_command, [str(recipe), "-o", str(house / "leak")])
    assert "expected archived forecasts of the target indoor" in str(done.exception or done.output)


@pytest.mark.timeout(120)
def test_the_service_is_as_good_as_the_training_said(
    house: Path,
    archived: tuple[Path, str],
    tmp_path: Path,
    make_bundle: Make,
    mosquitto: Any,
    start_service: Make,
    subscribe: Make,
) -> None:
    run, _ = archived
    checkpoint = load_checkpoint(run)
    bundle = make_bundle(tmp_path / "house.elstm", checkpoint.model.network(), checkpoint.contract)
    assert isinstance(bundle, Bundle)
    subscriber = subscribe(mosquitto.address, "predictions/+")
    service = start_service(tmp_path / "house.elstm", mosquitto.address)
    service.wait_connected()
    asked = ["--to", str(mosquitto.address), "--speed", "max", "--forecast", "outdoor=weather/{stream}/forecast"]
    assert CliRunner().invoke(simulate, [str(house / "archived.csv"), *asked]).exit_code == 0
    wait_until(lambda: len(subscriber.messages) == ROWS, "every row is predicted")
    assert service.stop() == 0
    found = [decode_prediction(one.payload.decode()) for one in subscriber.messages]
    truth = [float(line.split(",")[1]) for line in (house / "archived.csv").read_text().splitlines()[1:]]
    test = range(int(0.8 * ROWS), ROWS - 1)
    errors = [found[row].values["indoor"][1] - truth[row + 1] for row in test]
    assert np.sqrt(np.mean(np.square(errors))) == pytest.approx(rmse(run), rel=0.05)
