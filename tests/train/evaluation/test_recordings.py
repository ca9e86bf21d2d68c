"""Public recordings read with recipe keys only: rows, streams, missing values, first and last times.

They need --data.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from edge_lstm.foundation.times.text import format_time
from edge_lstm.recordings.recording import Recording, read_recording
from edge_lstm_train.data.dataset import dataset_of
from edge_lstm_train.data.split import PARTS
from edge_lstm_train.recipe.recipe import Recipe, read_recipe

_FORECAST = '[forecast]\ntargets = ["{}"]\nhorizons = [1]\n'


def recording_of_others(tmp_path: Path, data: Path, text: str) -> tuple[Recipe, Recording]:
    """What the recipe reads whose lines are `text`, with DATA for the folder; it forecasts its first feature."""
    path = tmp_path / "recipe.toml"
    target = next(line for line in text.splitlines() if line.startswith("[features."))
    name = target.removeprefix("[features.").removesuffix("]").strip('"')
    path.write_text(f'name = "other"\n{text}\n{_FORECAST.format(name)}'.replace("DATA", str(data)))
    recipe = read_recipe(path)
    return recipe, read_recording(recipe.recording.path, recipe.columns)


SETS = {
    "photovoltaic": """
[recording]
path = "DATA/pv_ac_power/serf_east_15min_ac_power.csv"
[features.ac_power]
""",
    "seattle": """
[recording]
path = "DATA/seattle_weather/seattle-weather.csv"
[features.temp_max]
[features.weather]
categories = ["drizzle", "rain", "sun", "snow", "fog"]
[labels.word]
column = "weather"
text = true
""",
    "beijing": """
[recording]
path = "DATA/beijing_multisite/*.csv.gz"
time = ["year", "month", "day", "hour"]
time_format = "%Y %m %d %H"
timezone = "Asia/Shanghai"
stream_column = "station"
[recording.groups]
centre = ["Aotizhongxin", "Guanyuan"]
north = ["Changping", "Dingling"]
east = ["Dongsi", "Nongzhanguan", "Tiantan"]
[features.TEMP]
[features."PM2.5"]
[features.wd]
categories = ["N", "NNE", "NE", "ENE", "E", "ESE", "SE", "SSE", "S", "SSW", "SW", "WSW", "W", "WNW", "NW", "NNW"]
[split]
train = 0.6
validation = 0.2
leave_out = ["centre"]
""",
    "skab": """
[recording]
path = ["DATA/skab/valve1/*.csv.gz", "DATA/skab/valve2/*.csv.gz"]
time = "datetime"
[features.Pressure]
[features."Volume Flow RateRMS"]
[labels.anomaly]
[labels.changepoint]
[split]
by = "stream"
leave_out = ["valve2-*"]
""",
    "machine_temperature": """
[recording]
path = "DATA/nab/machine_temperature_system_failure.csv.gz"
[features.value]
[labels.anomaly]
windows = [
  ["2013-12-10 06:25:00", "2013-12-12 05:35:00"], ["2013-12-15 17:50:00", "2013-12-17 17:00:00"],
  ["2014-01-27 14:20:00", "2014-01-29 13:30:00"], ["2014-02-07 14:55:00", "2014-02-09 14:05:00"],
]
""",
    "wsn": """
[recording]
path = "DATA/wsn_suthaharan/multihop.csv.gz"
stream_column = "mote_id"
interval_s = 5
start = "2010-07-10"
[features.humidity]
[features.temperature]
[labels.label]
""",
    "cmapss": """
[recording]
path = "DATA/cmapss/train_FD001.txt.gz"
separator = " "
header = [
  "unit", "cycle", "setting1", "setting2", "setting3", "s1", "s2", "s3", "s4", "s5", "s6", "s7", "s8", "s9", "s10",
  "s11", "s12", "s13", "s14", "s15", "s16", "s17", "s18", "s19", "s20", "s21",
]
stream_column = "unit"
interval_s = 1
[features.s2]
[features.s3]
[labels.remaining]
countdown = true
[split]
by = "stream"
""",
    "watch": """
[recording]
path = "DATA/har_watch/subject_*.csv.gz"
time = "t_s"
stream_column = "recording"
group_column = "subject"
[features.ax]
[features.ay]
[features.side]
categories = ["L", "R"]
[labels.activity]
text = true
[split]
by = "group"
leave_out = ["6", "7"]
""",
    "occupancy": """
[recording]
path = "DATA/occupancy_uci/*.txt.gz"
time = "date"
[features.Light]
[features.CO2]
[labels.Occupancy]
[split]
train = 0.8
validation = 0.2
leave_out = ["datatest"]
leave_out_time = "all"
""",
    "air_quality": """
[recording]
path = "DATA/airquality_uci/AirQualityUCI.csv.gz"
time = ["Date", "Time"]
time_format = "%m/%d/%Y %H:%M:%S"
sentinels = [-200]
[features."PT08.S1(CO)"]
[features.T]
[labels.co]
column = "CO(GT)"
""",
    "wind": """
[recording]
path = "DATA/haute_borne/*.csv.gz"
time = "Date_time"
stream_column = "Wind_turbine_name"
[features.Ws_avg]
least = 0
most = 60
[features.Ot_avg]
sentinels = [-273.2]
[labels.P_avg]
[split]
validation_from = "2014-11-01"
test_from = "2015-01-01"
leave_out = ["R80721"]
""",
    "etth1": """
[recording]
path = "DATA/etth/ETTh1.csv.gz"
[features.OT]
[features.HUFL]
""",
    "appliances": """
[recording]
path = "DATA/appliances_energy/energydata_complete.csv.gz"
[features.T2]
[features.Appliances]
""",
    "water": """
[recording]
path = "DATA/waterflow/water-flow.csv"
[features.flow]
column = "Water flow [l/s]"
""",
}

# rows, streams, missing values of each feature, first and last time, steps of the three parts, sums of the labels
FIGURES: Mapping[str, tuple[int, int, list[int], str, str, list[int], dict[str, float]]] = {
    "photovoltaic": (10_000, 1, [0], "2016-07-01T07:00:00Z", "2016-10-13T10:45:00Z", [6000, 2000, 2000], {}),
    "seattle": (1461, 1, [0, 0], "2012-01-01T00:00:00Z", "2015-12-31T00:00:00Z", [877, 292, 292], {"word": 3854}),
    "beijing": (
        280_512,
        8,
        [257, 6062, 1159],
        "2013-02-28T16:00:00Z",
        "2017-02-28T15:00:00Z",
        [126_228, 42_078, 14_026],
        {},
    ),
    "skab": (
        22_472,
        20,
        [0, 0],
        "2020-03-09T10:14:33Z",
        "2020-03-09T17:14:09Z",
        [13_635, 4525, 4312],
        {"anomaly": 7826, "changepoint": 79},
    ),
    "machine_temperature": (
        22_695,
        1,
        [0],
        "2013-12-02T21:15:00Z",
        "2014-02-19T15:25:00Z",
        [13_610, 4536, 4537],
        {"anomaly": 2268},
    ),
    "wsn": (
        18_760,
        4,
        [0, 0],
        "2010-07-10T00:00:00Z",
        "2010-07-10T06:30:45Z",
        [11_256, 3752, 3752],
        {"label": 158},
    ),
    "cmapss": (
        20_631,
        100,
        [0, 0],
        "1970-01-01T00:00:00Z",
        "1970-01-01T00:06:01Z",
        [12_292, 4134, 4205],
        {"remaining": 2_224_184},
    ),
    "watch": (
        166_904,
        98,
        [0, 0, 0],
        "1970-01-01T00:00:00Z",
        "1970-01-01T00:00:52.340Z",
        [89_214, 25_487, 52_203],
        {"activity": 467_297},
    ),
    "occupancy": (
        10_808,
        2,
        [0, 0],
        "2015-02-02T14:19:00Z",
        "2015-02-10T09:33:00Z",
        [6514, 1629, 2665],
        {"Occupancy": 2701},
    ),
    "air_quality": (
        9357,
        1,
        [366, 366],
        "2004-03-10T18:00:00Z",
        "2005-04-04T14:00:00Z",
        [5614, 1872, 1871],
        {"co": 16_520.2},
    ),
    "wind": (
        210_240,
        2,
        [1684, 1717],
        "2014-01-01T00:00:00Z",
        "2015-12-31T23:50:00Z",
        [43_770, 8784, 52_554],
        {"P_avg": 74_328_920.2},
    ),
    "etth1": (17_420, 1, [0, 0], "2016-07-01T00:00:00Z", "2018-06-26T19:00:00Z", [10_452, 3484, 3484], {}),
    "appliances": (19_735, 1, [0, 0], "2016-01-11T17:00:00Z", "2016-05-27T18:00:00Z", [11_841, 3947, 3947], {}),
    "water": (1268, 1, [0], "2022-03-20T10:00:00Z", "2022-05-16T20:00:00Z", [761, 253, 254], {}),
}


@pytest.mark.parametrize("name", SETS)
def test_a_public_recording_is_read_with_recipe_keys_only(name: str, tmp_path: Path, data: Path) -> None:
    rows, streams, missing, first, last, steps, labels = FIGURES[name]
    recipe, recording = recording_of_others(tmp_path, data, SETS[name])
    assert (len(recording), len(recording.streams)) == (rows, streams)
    assert np.isnan(recording.values).sum(axis=0).tolist() == missing
    assert (format_time(recording.times.min()), format_time(recording.times.max())) == (first, last)
    assert {label: float(np.nansum(values)) for label, values in recording.labels.items()} == pytest.approx(labels)
    dataset = dataset_of(recipe, recording)
    assert [len(dataset.steps(part)) for part in PARTS] == steps
