"""Home Assistant's recorder as a recording: states, and before them hourly statistics. The tables are made by hand."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from edge_lstm.cli.main import main
from edge_lstm.foundation.errors import EdgeLstmError
from edge_lstm.recordings.recording import Columns, read_recording
from edge_lstm.recordings.tables.home_assistant import entities, usual_entities, usual_interval_s
from edge_lstm.recordings.tables.table import Layout
from edge_lstm_train.recipe.recipe import read_recipe

BEGIN = 1_700_000_000 // 3600 * 3600  # the first hour of the statistics
HOURS = 48
STATES_FROM = BEGIN + 3600 * HOURS  # two days later the states begin


def write_database(path: Path) -> None:
    """An attic with temperature, meter and door; names and types of the columns as in schema 53."""
    database = sqlite3.connect(path)
    database.executescript("""
        create table states_meta (metadata_id integer primary key, entity_id varchar(255));
        create table states (state_id integer primary key, state varchar(255), last_updated_ts float,
            attributes_id integer, metadata_id integer);
        create table state_attributes (attributes_id integer primary key, shared_attrs text);
        create table statistics_meta (id integer primary key, statistic_id varchar(255),
            unit_of_measurement varchar(255), has_mean boolean, has_sum boolean);
        create table statistics (id integer primary key, metadata_id integer, start_ts float, mean float, min float,
            max float, state float, sum float);
        insert into states_meta values
            (1, 'sensor.attic'), (2, 'sensor.meter'), (3, 'binary_sensor.door'), (4, 'sun.sun');
        insert into statistics_meta values (7, 'sensor.attic', '°C', 1, 0), (8, 'sensor.meter', 'kWh', 0, 1);
        insert into state_attributes values (1, '{"unit_of_measurement": "°C"}'), (2, '{"device_class": "door"}');
    """)
    for hour in range(HOURS + 2):  # the last two hours are in the states too
        start = BEGIN + 3600 * hour
        database.execute("insert into statistics values (null, 7, ?, ?, 0, 99, null, null)", (start, 20.0 + hour % 24))
        database.execute(
            "insert into statistics values (null, 8, ?, null, null, null, ?, ?)", (start, 100.0 + hour, hour)
        )
    for minute in range(0, 120, 5):
        time = STATES_FROM + 60 * minute + 0.25
        state = "unavailable" if minute == 10 else f"{30 + minute / 10}"
        database.execute("insert into states values (null, ?, ?, 1, 1)", (state, time))
        database.execute("insert into states values (null, ?, ?, 2, 3)", (("on", "off")[minute % 2], time + 1))
    database.execute("insert into states values (null, '150.5', ?, 1, 2)", (STATES_FROM + 60.0,))
    database.execute("insert into states values (null, 'above_horizon', ?, 2, 4)", (STATES_FROM + 1.0,))
    database.commit()
    database.close()


@pytest.fixture
def database(tmp_path: Path) -> Path:
    path = tmp_path / "home-assistant_v2.db"
    write_database(path)
    return path


def test_entities_have_counts_units_and_kinds(database: Path) -> None:
    listed = {one.name: one for one in entities(database)}
    attic, meter, door, sun = (listed[n] for n in ("sensor.attic", "sensor.meter", "binary_sensor.door", "sun.sun"))
    assert (attic.unit, attic.statistics, attic.states, attic.is_numeric, attic.is_meter) == ("°C", 50, 24, True, False)
    assert (meter.unit, meter.statistics, meter.states, meter.is_numeric, meter.is_meter) == ("kWh", 50, 1, True, True)
    assert (door.unit, door.statistics, door.states, door.is_numeric) == ("", 0, 24, True)
    assert (sun.states, sun.is_numeric) == (1, False)
    assert (attic.first, attic.last) == (BEGIN, STATES_FROM + 115 * 60 + 0.25)
    assert usual_entities(list(listed.values())) == ["sensor.attic", "sensor.meter", "binary_sensor.door"]
    assert usual_interval_s([attic]) == 3600
    assert usual_interval_s([door]) == 300


def test_statistics_end_where_the_states_of_an_entity_begin(database: Path) -> None:
    layout = Layout(name_column="entity_id", value_column="state")
    names = ["sensor.attic", "sensor.meter"]
    read = read_recording(database, Columns({name: name for name in names}, "time", stream="home", layout=layout))
    attic, meter = read.values.T
    known = ~np.isnan(attic)
    assert read.times[known][:HOURS].tolist() == [BEGIN + 3600.0 * hour for hour in range(HOURS)]
    assert attic[known][:HOURS].tolist() == [20.0 + hour % 24 for hour in range(HOURS)]
    assert attic[known][HOURS:].tolist() == [30 + minute / 10 for minute in range(0, 120, 5) if minute != 10]
    known = ~np.isnan(meter)
    # a meter's statistic is its reading at the end of the hour
    assert read.times[known].tolist() == [*(BEGIN + 3600.0 * hour + 3599 for hour in range(HOURS)), STATES_FROM + 60.0]
    assert meter[known].tolist() == [*(100.0 + hour for hour in range(HOURS)), 150.5]


def test_init_lists_entities_and_writes_a_recipe_over_the_database(database: Path) -> None:
    before = database.read_bytes()
    arguments = ["init", str(database), "--task", "forecast", "-o", str(database.parent), "--name", "house"]
    done = CliRunner().invoke(main, arguments, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    assert "sensor.attic        °C     50 hourly statistics, 24 states, since 2023-11-14T22:00:00Z" in done.output
    assert "sun.sun" not in done.output
    recipe = read_recipe(database.parent / "house.toml")
    assert set(recipe.features) == {"sensor.attic", "sensor.meter"} | ({"binary_sensor.door"} & set(recipe.features))
    assert (recipe.features["sensor.attic"].unit, recipe.sampling.interval_s) == ("°C", 3600)
    assert recipe.sampling.grid
    assert database.read_bytes() == before
    assert sorted(path.name for path in database.parent.iterdir()) == [
        "home-assistant_v2.db",
        "house.toml",
        "service.toml",
    ]


def test_another_database_is_refused(tmp_path: Path) -> None:
    other = sqlite3.connect(tmp_path / "other.db")
    other.execute("create table streams (name text)")
    other.commit()
    other.close()
    with pytest.raises(
        EdgeLstmError, match=r"expected the recorder database of Home Assistant 2023\.4 or later, found no"
    ):
        entities(tmp_path / "other.db")
    (tmp_path / "torn.db").write_bytes(b"SQLite format 3\0" + b"\xff" * 5000)
    with pytest.raises(EdgeLstmError, match="expected the recorder database of Home Assistant, found: "):
        entities(tmp_path / "torn.db")
