"""A recipe is read completely or refused with all faults at once."""

from __future__ import annotations

import dataclasses
import re
import sys
from pathlib import Path

import pytest

from edge_lstm.bundle.contract import Sampling
from edge_lstm.bundle.feature import DERIVED
from edge_lstm.foundation.config import from_mapping
from edge_lstm.foundation.errors import EdgeLstmError
from edge_lstm.recordings.columns import ValueColumn
from edge_lstm.recordings.tables.table import column_index, open_table, recording_files
from edge_lstm_train.recipe.recipe import bundled_recipes, read_recipe
from edge_lstm_train.recipe.recording_sections import FeatureSection, LabelSection, RecordingSection
from edge_lstm_train.recipe.task_sections import AnomalySection, ClassifySection, ForecastSection, RegressSection
from edge_lstm_train.recipe.toml_text import recipe_toml
from edge_lstm_train.recipe.training_sections import AugmentSection, FitSection, ModelSection, Range, SplitSection
from tests.paths import ROOT

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

SECTIONS: dict[str, type] = {
    "recording": RecordingSection,
    "features": FeatureSection,
    "labels": LabelSection,
    "split": SplitSection,
    "forecast": ForecastSection,
    "anomaly": AnomalySection,
    "classify": ClassifySection,
    "regress": RegressSection,
    "sampling": Sampling,
    "augment": AugmentSection,
    "model": ModelSection,
    "fit": FitSection,
    "tune": Range,
}
SEVERAL = {"features", "labels", "tune"}  # tables of sections
BRINGS_ITS_RECORDING = {"skies", "solar", "weather"}
MINIMAL = """
name = "pump"
[recording]
path = "pump.csv"
[features.flow]
unit = "l/s"
[forecast]
targets = ["flow"]
horizons = [1]
"""


def write(folder: Path, text: str) -> Path:
    path = folder / "pump.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_a_misspelt_key_gets_a_suggestion_and_all_faults_are_listed(tmp_path: Path) -> None:
    text = MINIMAL + '[model]\nhiden = 32\nlayers = 4\n[fit]\nmethod = "window"\nupdates = "many"\n'
    with pytest.raises(EdgeLstmError) as caught:
        read_recipe(write(tmp_path, text))
    assert caught.value.message.splitlines()[1:] == [
        '  model.hiden: unknown key; did you mean "hidden"?',
        "  model.layers: expected a whole number <= 3, found 4",
        '  fit.updates: expected a whole number, found "many"',
        '  fit.method: expected one of "carried", "windows" (did you mean "windows"?), found "window"',
    ]


def test_all_contradicting_keys_are_named(tmp_path: Path) -> None:
    text = MINIMAL.replace('targets = ["flow"]', 'targets = ["flwo"]')
    text += "[sampling]\ninterval_s = 60\nmax_gap_s = 30\n[model]\nhidden = 100\n"
    with pytest.raises(EdgeLstmError) as caught:
        read_recipe(write(tmp_path, text))
    assert caught.value.message.splitlines()[1:] == [
        '  forecast.targets: expected names of features, found "flwo"; did you mean "flow"?',
        "  sampling.max_gap_s: expected at least interval_s (60), found 30",
        "  model.hidden: expected at most 20,000 parameters, found 41,301; a smaller hidden or fewer layers, "
        "or else a larger most_parameters",
    ]


def test_a_covariance_needs_another_numeric_feature(tmp_path: Path) -> None:
    more = '[features.flow]\nderived = ["covariance flow 9", "covariance state 9", "covariance flwo 9"]\n'
    text = MINIMAL.replace("[features.flow]\n", more + '[features.state]\ncategories = ["on", "off"]\n')
    with pytest.raises(EdgeLstmError) as caught:
        read_recipe(write(tmp_path, text))
    assert caught.value.message.splitlines()[1:] == [
        '  features.flow.derived: expected names of features, found "flwo"; did you mean "flow"?',
        '  features.flow.derived: expected another feature of numbers, found "flow"',
        '  features.flow.derived: expected another feature of numbers, found "state"',
    ]


def test_contradicting_keys_of_circles_and_counters_are_named(tmp_path: Path) -> None:
    features = (
        '[features.a]\ncircular = true\nunit = "bar"\n'
        "[features.b]\nperiod = 24\n"
        '[features.c]\nunit = "Deg"\ncircular = true\nderived = ["difference"]\nlevel = false\n'
        "[features.d]\nmodulus = 65536\n"
        '[features.e]\ncounter = true\naggregate = "last"\n'
    )
    with pytest.raises(EdgeLstmError) as caught:
        read_recipe(write(tmp_path, MINIMAL.replace("[features.flow]\n", features + "[features.flow]\n")))
    assert caught.value.message.splitlines()[1:] == [
        '  features.a.period: missing (the length of the circle where the unit is not "degree" or "radian", '
        'found the unit "bar")',
        "  features.b.period: expected circular = true beside it",
        "  features.c.derived: expected no categories, derived or mirrored_by on a circle, which has sine and cosine",
        "  features.c.level: expected true for a circle: its sine and cosine are all that the layers see of it",
        "  features.d.modulus: expected counter = true beside it",
        '  features.e.aggregate: expected none for a counter, whose increases are added up, found "last"',
    ]


def test_what_has_no_meaning_on_a_circle_is_refused(tmp_path: Path) -> None:
    text = MINIMAL.replace('unit = "l/s"', 'unit = "radian"\ncircular = true')
    text = text.replace("[forecast]\n", "[forecast]\nquantiles = [0.1, 0.9]\n")
    with pytest.raises(EdgeLstmError) as caught:
        read_recipe(write(tmp_path, text + '[features."flow sin"]\n[augment]\naxes = [["flow", "flow sin", "flow"]]\n'))
    assert caught.value.message.splitlines()[1:] == [
        '  features: expected another name than "flow sin", which is an input of the circle "flow"',
        "  forecast.quantiles: expected none for flow: on a circle no value is below another",
        '  augment.axes: expected the axes of a sensor, found the angle "flow"',
        '  augment.axes: expected the axes of a sensor, found the angle "flow"',
    ]


def test_value_changing_augmentation_is_refused_for_forecasts(tmp_path: Path) -> None:
    with pytest.raises(EdgeLstmError) as caught:
        read_recipe(write(tmp_path, MINIMAL + "[augment]\nscale = 0.1\nwarp = 0.2\nnoise = 0.1\n"))
    assert caught.value.message.splitlines()[1:] == [
        "  augment.scale: expected none with [forecast]: it changes the inputs, not the targets",
        "  augment.warp: expected none with [forecast]: it changes the inputs, not the targets",
    ]


def test_a_recipe_may_raise_the_cap_on_parameters(tmp_path: Path) -> None:
    recipe = read_recipe(write(tmp_path, MINIMAL + "[model]\nhidden = 100\nmost_parameters = 50_000\n"))
    assert recipe.parameters == 4 * 100 * (1 + 100 + 2) + 101


def test_a_refit_is_refused_for_classification(tmp_path: Path) -> None:
    text = MINIMAL.partition("[forecast]")[0].replace("[recording]", 'task = "classify"\n[recording]', 1)
    text += '[labels.state]\n[classify]\nlabel = "state"\nclasses = ["on", "off"]\n[fit]\nrefit = true\n'
    with pytest.raises(EdgeLstmError, match=r"fit\.refit: expected none with \[classify\]"):
        read_recipe(write(tmp_path, text))


@pytest.mark.parametrize(("fit", "found"), [('method = "windows"', "window: missing"), ("window = 6", "has no window")])
def test_a_window_is_accepted_only_with_the_method_windows(tmp_path: Path, fit: str, found: str) -> None:
    with pytest.raises(EdgeLstmError, match=found):
        read_recipe(write(tmp_path, MINIMAL + f"[fit]\n{fit}\n"))


@pytest.mark.parametrize(
    ("task", "found"),
    [
        (
            '[regress]\ntarget = "y"\nquantiles = [0.9, 0.1]',
            "regress.quantiles: expected each once and the least first",
        ),
        (
            '[forecast]\ntargets = ["x"]\nhorizons = [1]\nquantiles = [0.1, 0.1]',
            "expected each once and the least first",
        ),
        (
            '[anomaly]\n[augment]\ncrop = true\n[fit]\nmethod = "windows"\nwindow = 8',
            "augment.crop: expected none where method",
        ),
        ("[anomaly]\nreconstruct = true\n[model]\nhighway = 2", "model.highway: expected none with reconstruct"),
        ('[classify]\nlabel = "x"\nclasses = ["0", "1"]\n[fit]\nloss = "huber"', "fit.loss: expected none with"),
        (
            '[anomaly]\n[model]\nhighway = 8\n[fit]\nmethod = "windows"\nwindow = 8',
            "fit.window: expected more steps than the highway sees (8), found 8",
        ),
    ],
)
def test_settings_that_a_task_cannot_learn_with_are_refused(tmp_path: Path, task: str, found: str) -> None:
    name = task.partition("]")[0][1:]
    path = tmp_path / "recipe.toml"
    path.write_text(f'name = "a"\ntask = "{name}"\n[recording]\npath = "a.csv"\n[features.x]\n{task}\n')
    with pytest.raises(EdgeLstmError, match=re.escape(found)):
        read_recipe(path)


def test_a_split_without_a_test_part_is_refused(tmp_path: Path) -> None:
    with pytest.raises(EdgeLstmError, match=r"expected train \+ validation <= 0\.99, found 1: nothing is left"):
        read_recipe(write(tmp_path, MINIMAL + "[split]\ntrain = 0.8\nvalidation = 0.2\n"))


def test_an_unknown_name_gets_a_suggestion_and_the_list() -> None:
    with pytest.raises(EdgeLstmError) as caught:
        read_recipe("solr")
    assert caught.value.message.startswith("expected a recipe file or one of ")
    assert set(bundled_recipes()) >= {"solar", "weather"}
    assert all(name in caught.value.message for name in bundled_recipes())
    assert caught.value.hint == "did you mean solar?"


@pytest.mark.parametrize("name", ["solar", "weather"])
def test_a_written_recipe_reads_back_unchanged(tmp_path: Path, name: str) -> None:
    recipe = read_recipe(name)
    assert read_recipe(write(tmp_path, recipe_toml(recipe))) == recipe


def test_a_path_starts_at_the_data_folder_or_at_the_recipe(tmp_path: Path) -> None:
    path = write(tmp_path, MINIMAL)
    assert read_recipe(path).recording.path == str(tmp_path / "pump.csv")
    assert read_recipe(path, tmp_path / "data").recording.path == str(tmp_path / "data" / "pump.csv")


@pytest.mark.parametrize("name", sorted(bundled_recipes()))
def test_a_bundled_recipe_has_its_recording_or_asks_for_data(tmp_path: Path, name: str) -> None:
    if name in BRINGS_ITS_RECORDING:
        assert Path(str(read_recipe(name).recording.path)).is_file()
        return
    with pytest.raises(EdgeLstmError, match=f'expected --data DIR beside the recipe "{name}": the folder') as caught:
        read_recipe(name)
    assert caught.value.hint == "this recording does not come with edge-lstm; docs/accuracy.md has its source"
    paths = read_recipe(name, tmp_path).recording.path
    assert all(path.startswith(str(tmp_path)) for path in ([paths] if isinstance(paths, str) else paths))


@pytest.mark.parametrize("name", sorted(set(bundled_recipes()) - BRINGS_ITS_RECORDING))
def test_a_recipe_names_its_columns_as_the_public_recording_does(data: Path, name: str) -> None:
    recipe = read_recipe(name, data)
    columns = recipe.columns
    table = open_table(recording_files(recipe.recording.path)[0], columns.layout)
    asked = [*columns.values.values(), *(one for one in columns.labels.values() if isinstance(one, ValueColumn))]
    found = [
        column_index(table, one if isinstance(one, str) else one.column) for one in asked
    ]  # raises for a wrong one
    assert len(found) == len(asked) > 0


def test_a_written_recipe_keeps_names_that_need_quotes(tmp_path: Path) -> None:
    recipe = read_recipe(write(tmp_path, MINIMAL))
    odd = {'flow "north" °C': dataclasses.replace(recipe.features["flow"], column="a\\b")}
    forecast = dataclasses.replace(recipe.forecast, targets=list(odd))
    recipe = dataclasses.replace(recipe, features=odd, forecast=forecast)
    assert read_recipe(write(tmp_path, recipe_toml(recipe))) == recipe


def test_the_recording_path_is_relative_to_the_recipe(tmp_path: Path) -> None:
    assert read_recipe(write(tmp_path, MINIMAL)).recording.path == str(tmp_path / "pump.csv")


def test_keys_of_recordings_labels_and_splits_read_back_unchanged(tmp_path: Path) -> None:
    text = MINIMAL.replace(
        'path = "pump.csv"',
        'path = ["a/*.csv", "b.parquet"]\ntime = ["day", "hour"]\ntime_format = "%d.%m.%Y %H"\nseparator = ";"\n'
        'decimal = "comma"\nsentinels = [-200]\nmissing = ["?"]\ngroups = {"hall 1" = ["p1", "p2"], "2" = ["p3"]}',
    )
    text += (
        '[features.sky]\ncategories = ["sun", "rain"]\n'
        '[labels.broken]\nwindows = [["2024-01-01", "2024-01-02", "p1"]]\n'
        '[labels.left]\ncountdown = true\n[split]\nby = "group"\nleave_out = ["hall*"]\n'
    )
    recipe = read_recipe(write(tmp_path, text))
    assert recipe.recording.path == [str(tmp_path / "a/*.csv"), str(tmp_path / "b.parquet")]
    assert recipe.recording.name == "*.csv, b.parquet"
    assert read_recipe(write(tmp_path, recipe_toml(recipe))) == recipe


@pytest.mark.parametrize("document", ["recordings", "tasks", "training"])
def test_the_examples_in_a_document_are_sections_of_a_recipe(document: str) -> None:
    text = (ROOT / f"docs/{document}.md").read_text(encoding="utf-8")
    blocks = [tomllib.loads(block) for block in re.findall(r"```toml\n(.*?)```", text, re.DOTALL)]
    sections = [(name, value) for block in blocks for name, value in block.items() if isinstance(value, dict)]
    assert sections
    for name, value in sections:
        for one in value.values() if name in SEVERAL else [value]:
            from_mapping(one, SECTIONS[name], f"docs/{document}.md, {name}")


def test_the_document_of_tasks_shows_every_task_and_every_derived_input() -> None:
    text = (ROOT / "docs/tasks.md").read_text(encoding="utf-8")
    blocks = [tomllib.loads(block) for block in re.findall(r"```toml\n(.*?)```", text, re.DOTALL)]
    assert [block["task"] for block in blocks if "task" in block] == ["forecast", "anomaly", "classify", "regress"]
    (derived,) = [block["features"]["ax"]["derived"] for block in blocks if "ax" in block.get("features", {})]
    assert [one.split()[0] for one in derived] == list(DERIVED)
    for name in DERIVED:
        assert f'`"{name}' in text  # in the table of what each is


def test_contradicting_recording_label_and_split_keys_are_all_named(tmp_path: Path) -> None:
    text = MINIMAL.replace(
        'path = "pump.csv"',
        'path = "pump.csv"\ntime = "when"\ntimezone = "Mars/North"\ninterval_s = 5\nseparator = ", "\n'
        'groups = {a = ["p1"], b = ["p1"]}',
    )
    text += (
        '[features.sky]\ncategories = ["sun", "sun"]\nleast = 3\n[features.x]\nleast = 3\nmost = 2\n'
        '[labels.broken]\ncolumn = "b"\nwindows = [["2024-01-01"], ["2024-01-02", "2024-01-01"]]\n'
        '[split]\nvalidate_on = ["p1"]\ntest_from = "soon"\n'
    )
    with pytest.raises(EdgeLstmError) as caught:
        read_recipe(write(tmp_path, text))
    assert [line.strip().partition(": ")[::2] for line in caught.value.message.splitlines()[1:]] == [
        ("recording.separator", 'expected one sign, found ", "'),
        ("recording.groups", 'expected each stream in one group, found "p1" in several'),
        ("recording.time", "expected none beside interval_s, which is for rows without times"),
        (
            "recording.timezone",
            "expected a zone of this machine's zone database, like Europe/Berlin (pip install tzdata), "
            'found "Mars/North"',
        ),
        ("features.sky.categories", "expected different texts, found sun, sun"),
        ("features.sky.categories", "expected no sentinels, least or most beside them: those are for numbers"),
        ("features.x.least", "expected at most `most` (2), found 3"),
        ("labels.broken.column", "expected one of a column, windows, windows_file and countdown, found several"),
        ("labels.broken.windows[0]", "expected [from, to] or [from, to, stream], found 1 texts"),
        (
            "labels.broken.windows[1]",
            'expected an end after its begin, found "2024-01-02" to "2024-01-01"',
        ),
        ("split.validation_from", "expected both validation_from and test_from, found one"),
        ("split.validate_on", 'expected by = "stream" or "group" beside it, found "time"'),
        (
            "split.test_from",
            "'soon' is not a time: expected ISO 8601, or seconds, milliseconds, microseconds or nanoseconds since 1970",
        ),
    ]


def test_control_characters_are_refused_before_training(tmp_path: Path) -> None:
    text = MINIMAL + '[features."in\\u001b[2J"]\nunit = "bar\\u202e"\n'
    with pytest.raises(EdgeLstmError) as caught:
        read_recipe(write(tmp_path, text))
    assert [line.strip() for line in caught.value.message.splitlines()[1:]] == [
        'features: expected texts without control characters, found "in\\x1b[2J"',
        'features.in\\x1b[2J: expected texts without control characters, found "bar\\u202e"',
    ]
