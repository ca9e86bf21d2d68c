"""What operators said becomes the label of a training run."""

from __future__ import annotations

import json
import random
from pathlib import Path

import numpy as np
import pytest

from edge_lstm.foundation.errors import ConfigError, EdgeLstmError
from edge_lstm.foundation.times.text import format_time
from edge_lstm.service.feedback.labels import labels_csv
from edge_lstm.streaming.reading import Command
from edge_lstm_train.data.dataset import read_dataset
from edge_lstm_train.recipe.recipe import read_recipe
from edge_lstm_train.run import train

START, ROWS = 1_700_000_000.0, 600
SAID = [
    Command("tank", "1", "missed", START, {"from": START + 60 * 500, "to": START + 60 * 520}),
    Command("tank", "2", "false_alarm", START, {"from": START + 60 * 540, "to": START + 60 * 550}),
]
RECIPE = """
name = "tank"
task = "anomaly"
[recording]
path = "tank.csv"
[features.level]
[labels.fault]
windows_file = "labels.csv"
windows_kind = "missed"
[sampling]
interval_s = 60
[anomaly]
truth = "fault"
span_steps = 5
calibrate_steps = 40
factor = 1.2
[model]
hidden = 4
[fit]
updates = 2
segments = 4
chunk = 20
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    rng = random.Random(5)
    rows = [f"{format_time(START + 60 * row)},{rng.gauss(8 if 500 <= row <= 520 else 1, 1):.3f}" for row in range(ROWS)]
    (tmp_path / "tank.csv").write_text("time,level\n" + "\n".join(rows) + "\n")
    (tmp_path / "labels.csv").write_text(labels_csv(SAID))
    (tmp_path / "tank.toml").write_text(RECIPE)
    return tmp_path


def test_a_recipe_trains_with_the_exported_labels(folder: Path) -> None:
    recipe = read_recipe(folder / "tank.toml")
    fault = read_dataset(recipe).labels["fault"]
    assert np.flatnonzero(fault).tolist() == list(range(500, 521))
    train(recipe, folder / "run")
    metrics = json.loads((folder / "run" / "metrics.json").read_text())
    assert metrics["alarms"]["events"] == 1


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("from,to,stream\n1,2,tank\n", "found none named kind"),
        ("from,to,stream,kind\nsoon,2,tank,missed\n", "labels.csv, line 2: 'soon' is not a time"),
        ("from,to,stream,kind\n1700000600,1700000000,tank,missed\n", "line 2: expected an end after its begin"),
        ("from,to,stream,kind\n1700000000,1700000600,tnak,missed\n", 'found one for "tnak"'),
    ],
)
def test_a_labels_file_that_does_not_fit_is_refused(folder: Path, text: str, found: str) -> None:
    (folder / "labels.csv").write_text(text)
    with pytest.raises(EdgeLstmError) as refused:
        read_dataset(read_recipe(folder / "tank.toml"))
    assert found in refused.value.message


def test_a_kind_needs_a_file(folder: Path) -> None:
    (folder / "tank.toml").write_text(RECIPE.replace('windows_file = "labels.csv"\n', ""))
    with pytest.raises(ConfigError) as refused:
        read_recipe(folder / "tank.toml")
    assert "labels.fault.windows_kind: expected windows_file beside it, found none" in refused.value.message
