"""The typed mapping: topic patterns, paths, presets, and error messages for wrong keys."""

from __future__ import annotations

import typing
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_lstm import EdgeLstmError
from edge_lstm.foundation.config import from_mapping
from edge_lstm.messages.formats.json_path import ABSENT
from edge_lstm.messages.formats.json_path import Path as FactPath
from edge_lstm.messages.mapping import InputMapping, OutputMapping, PresetName, ValueMapping
from edge_lstm.messages.presets import preset_names
from edge_lstm.messages.topics import TopicPattern, filters_of, topic_faults
from edge_lstm.service.config import read_service_config

HEAD = 'bundle = "tank.elstm"\n[mqtt]\nurl = "mqtt://localhost"\n'


def faults_of(input_table: str, tmp_path: Path) -> list[str]:
    """What is wrong with a service.toml that holds `input_table`, one a line."""
    path = tmp_path / "service.toml"
    path.write_text(HEAD + input_table)
    with pytest.raises(EdgeLstmError) as caught:
        read_service_config(path)
    assert str(path) in caught.value.message
    first, *lines = caught.value.message.splitlines()
    return [line.strip() for line in lines] or [first.removeprefix(f"{path}: ")]


@pytest.mark.parametrize(
    ("pattern", "topic", "parts"),
    [
        ("tele/{stream}/SENSOR", "tele/boiler/SENSOR", {"stream": "boiler"}),
        ("tele/{stream}/SENSOR", "tele/boiler/STATE", None),
        ("tele/{stream}/SENSOR", "tele//SENSOR", None),
        ("site/{line}/{stream}/+", "site/a/b/c", {"line": "a", "stream": "b"}),
        ("site/{line}/{stream}/+", "site/a/b/c/d", None),
        ("home/{stream}/#", "home/a", {"stream": "a"}),
        ("home/{stream}/#", "home/a/b/c", {"stream": "a"}),
        (
            "ha/{stream}_{value}/state",
            "ha/living_room_air_quality/state",
            {"stream": "living_room", "value": "air_quality"},
        ),
        ("ha/{stream}_{value}/state", "ha/living_room_uptime/state", None),
        ("a.b/{stream}", "axb/c", None),
        ("p-{stream}", "p-7\n", {"stream": "7\n"}),
        ("x/{stream}", "x/" + "y" * 300, None),
    ],
)
def test_a_topic_pattern_gives_its_parts_or_no_match(pattern: str, topic: str, parts: dict[str, str] | None) -> None:
    assert TopicPattern(pattern, ["quality", "air_quality"]).match(topic) == parts


def test_matching_a_long_topic_is_fast() -> None:
    pattern = TopicPattern("/".join([f"{{a{level}}}_{{b{level}}}x" for level in range(20)]))
    assert pattern.match("/".join(["_" * 250] * 20)) is None
    assert TopicPattern("{a}_{b}x").match("_" * 65_535) is None


def test_every_pattern_is_subscribed_to_once() -> None:
    own = {"c": ValueMapping(topic="garden/probe-{stream}"), "d": ValueMapping(topic="tele/{stream}/SENSOR")}
    mapping = InputMapping(["tele/{stream}/SENSOR", "{stream}/#"], values={"a": "x", **own})
    assert mapping.topic_filters == ["+/#"]  # which covers the others
    apart = InputMapping(["tele/{stream}/SENSOR", "a/{stream}", "a/b-{stream}"], values={"c": own["c"]})
    assert apart.topic_filters == ["tele/+/SENSOR", "a/+", "garden/+"]


@pytest.mark.parametrize(
    ("wide", "narrow", "covered"),
    [
        ("a/+", "a/b", True),
        ("a/#", "a/+/c", True),
        ("a/#", "a", True),
        ("a/#", "a/+", True),
        ("a/#", "a/+/#", True),
        ("+/#", "a/b/#", True),
        ("a/+", "+/b", False),
        ("a/+", "b/+", False),
    ],
)
def test_a_filter_that_another_covers_is_not_subscribed_to(wide: str, narrow: str, covered: bool) -> None:
    for patterns in ([wide, narrow], [narrow, wide]):
        assert filters_of(patterns) == ([wide] if covered else patterns)


@pytest.mark.parametrize("sign", ["\x01", "\x7f", "\ufffe"])
def test_a_topic_that_mqtt_forbids_is_refused(sign: str) -> None:
    shown = sign.encode("unicode_escape").decode()
    for topic, wildcards in ((f"a{sign}/{{stream}}", True), (f"a{sign}/{{stream}}", False)):
        ((where, fault),) = topic_faults(topic, wildcards=wildcards)
        assert where == "topic"
        assert fault.endswith(f'found "a{shown}"')
    ((_, fault),) = topic_faults("x" * 65_530 + "/{stream}", wildcards=False)
    assert fault == "expected at most 64000 bytes, found 65539"
    assert list(topic_faults("x" * 60_000 + "/{stream}", wildcards=False)) == []
    ((_, fault),) = topic_faults("$SYS/{stream}", wildcards=False)
    assert "without a first $" in fault


def test_an_output_topic_has_no_placeholder_but_the_stream() -> None:
    assert list(topic_faults("a/{stream}/b", wildcards=False)) == []
    assert len(list(topic_faults("+/{stream}/{line}/#", wildcards=False))) == 3
    assert [key for key, _ in OutputMapping("predictions/all").faults()] == ["topic"]


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("a", {"b": [10, {"c": 20}], "x.y": 30, "1-0:1.8.0": 40, "7": 50}),
        ("a.b[0]", 10),
        ("a.b.0", 10),
        ("a.b[1].c", 20),
        ("a.b.1.c", 20),
        ("a.'x.y'", 30),
        ('a."1-0:1.8.0"', 40),
        ("a.7", 50),
        ("p.q", 60),
        ("temperature:0.tC", 70),
        ("a.b[2]", ABSENT),
        ("a.b.c", ABSENT),
        ("a.x", ABSENT),
        ("a.b.1.c.d", ABSENT),
    ],
)
def test_a_path_leads_to_the_value_or_nowhere(path: str, found: object) -> None:
    inner = {"b": [10, {"c": 20}], "x.y": 30, "1-0:1.8.0": 40, "7": 50}
    facts = {"a": inner, "p.q": 60, "p": {"q": 61}, "temperature:0": {"tC": 70}}
    assert FactPath.parse(path).find(facts) == found


@pytest.mark.parametrize("path", ["", ".", "a.", ".a", "a..b", "a[", "a[x]", "a[-1]", "'a", 'a"b"', "[0]a"])
def test_an_invalid_path_is_refused(path: str) -> None:
    with pytest.raises(ValueError, match="expected a path like"):
        FactPath.parse(path)


@given(st.text(max_size=30))
def test_any_text_is_a_valid_path_or_refused(text: str) -> None:
    try:
        path = FactPath.parse(text)
    except ValueError:
        return
    assert path.find([{}, []]) is ABSENT or path.begins_with_a_position


def test_each_preset_has_a_complete_file() -> None:
    assert preset_names() == typing.get_args(PresetName)
    for name in preset_names():
        assert from_mapping({"preset": name}, InputMapping, name).preset == name


def test_keys_of_the_config_override_the_preset() -> None:
    table = {"preset": "shelly", "time": "params.at", "values": {"humidity": "h", "pressure": "p"}}
    mapping = from_mapping(table, InputMapping, "x")
    assert (mapping.topic, mapping.time, mapping.join) == ("{stream}/events/rpc", "params.at", True)
    assert mapping.values["temperature"] == "params.temperature:0.tC"
    assert (mapping.values["humidity"], mapping.values["pressure"]) == ("h", "p")


def test_all_faults_of_a_mapping_are_listed_with_their_keys(tmp_path: Path) -> None:
    table = """[input]
topic = ["plant/{line}/data", "a/{stream}/{stream}", "b/#/{stream}", "c/{x}{stream}", "$share/g/{stream}"]
readings = "a..b"
format = "csv"
separator = ";;"
timezone = "Europe/Berlyn"
[input.values]
a = "x["
b = { path = "", scale = 0, least = 2, most = 1 }
c = { topic = "t/{value}" }
"""
    assert faults_of(table, tmp_path) == [
        "input.values.b.scale: expected a number other than 0, found 0",
        "input.values.b.least: expected at most `most` (1.0), found 2.0",
        'input.values.c.topic: expected a topic of one value, so without {value}, found "t/{value}"',
        "input.readings: expected a path like a.b[0].'c.d', found \"a..b\"",
        "input.timezone: expected a zone of this machine's zone database, like Europe/Berlin (pip install tzdata), "
        'found "Europe/Berlyn"',
        'input.topic: expected different parts, found {stream} twice in "a/{stream}/{stream}"',
        'input.topic: expected levels of plain text, {parts}, + or a last #, found "#"',
        'input.topic: expected at most two {parts} a level, with text between them, found "{x}{stream}"',
        'input.topic: expected a topic of one subscriber, since readings have an order, found "$share/g/{stream}"',
        'input.columns: expected with format = "csv", and only there, found []',
        'input.separator: expected one sign, found ";;"',
        "input.values.a: expected a path like a.b[0].'c.d', found \"x[\"",
        "input.values.b.path: expected a path like a.b[0].'c.d', found \"\"",
        'input.topic: expected {stream} in the topic (or stream = "path"), found "plant/{line}/data"',
        'input.values.c.topic: expected {stream} in the topic (or stream = "path"), found "t/{value}"',
    ]


@pytest.mark.parametrize(
    ("table", "fault"),
    [
        ('preset = "tasmotta"', 'input.preset: expected one of "esphome", "homeassistant", "kepware", "rtl_433"'),
        ('topic = "all"', 'input.topic: expected {stream} in the topic (or stream = "path"), found "all"'),
        ('stream = "id"', 'input.topic: expected {stream} in the topic or stream = "id", found both'),
        ("topic = []", "input.topic: expected at least one, or values that have a topic of their own, found none"),
        ('topic = ""\nname = "x"', "input.topic: expected levels of plain text"),
        ('name = "{line}-{stream}"', 'input.topic: expected {line} in the topic, found "sensors/{stream}"'),
        ('topic = "all"\nname = "a/b"', "input.name: expected a stream's name without / + #"),
        ('topic = "all"\nstream = "id"\nname = "x"', 'input.name: expected {stream} in it, since stream = "id"'),
        ('format = "text"', 'input.time_from: expected "arrival" or "property", since a text holds no time'),
        ('time_from = "arival"', '(did you mean "arrival"?), found "arival"'),
        ('stream = "{a}-{b"\ntopic = "x"', 'input.stream: expected each part as {path}, found "{a}-{b"'),
        ('stream = "{a..b}"', "input.stream: expected a path like a.b[0].'c.d', found \"a..b\""),
        ('stream = "{a?}-x"', 'input.stream: expected a part that each message has, so without "?"'),
        ('stream = "{a}/{b}"', "input.stream: expected a stream's name without / + #"),
        ('stream = "{a}"\nname = "x"', 'input.name: expected none beside stream = "{a}", which is the whole name'),
        (
            'stream = "{id}"\nformat = "text"\ntime_from = "arrival"',
            'input.topic: expected {id} in the topic, found "sensors/{stream}"',
        ),
        ('time_format = "%d.%m %H:%M"', "input.time_format: expected a year, %Y or %y"),
        ('time_format = ["%Y", "%Q"]', 'input.time_format: expected codes like %d.%m.%Y %H:%M, found "%Q"'),
        ('time_unit = "sec"', 'input.time_unit: expected one of "s", "ms", "us"'),
        ('time_unit = "s"\ntime_format = "%Y"', "input.time_unit: expected time_format for texts or time_unit for"),
        ('time_unit = "s"\ntime_from = "arrival"', 'input.time_unit: expected none, since time_from = "arrival" says'),
        ('quality = "q"', "input.quality: expected with value_name or name_pattern only"),
        ('value_name = "a..b"', "input.value_name: expected a path like"),
        ('value_name = "n"\nformat = "influx"', 'input.format: expected "json", "msgpack" or "senml" for named'),
        (
            'name_pattern = "{a}.PV"',
            'input.name_pattern: expected {value} once, which names the feature, found "{a}.PV"',
        ),
        ('name_pattern = "{a}{value}"', "input.name_pattern: expected text between two parts"),
        ('name_pattern = "{stream}.{value}"', "input.name_pattern: expected {stream} in the topic or in the pattern"),
        (
            'value_name = "n"\ntopic = "a/{stream}/{value}"',
            "input.topic: expected no {value}, since each value says its",
        ),
        ('format = "senml"\nvalue = "v"', 'input.value: expected none, since format = "senml" says what it is'),
        ('format = "msgpack"\nencoding = "cp1252"', 'input.encoding: expected "utf-8", which MessagePack texts have'),
        ('tpoic = "x"', 'input.tpoic: unknown key; did you mean "topic"?'),
        ('columns = ["a"]', 'input.columns: expected with format = "csv", and only there'),
        ("values = { a = 7 }", "input.values.a: expected a text or a table, found 7"),
        ('values = { a = { pth = "x" } }', 'input.values.a.pth: unknown key; did you mean "path"?'),
    ],
)
def test_a_wrong_key_is_explained(table: str, fault: str, tmp_path: Path) -> None:
    (found,) = faults_of(f"[input]\n{table}\n", tmp_path)
    assert fault in found


@pytest.mark.parametrize(("join", "within_s"), [(True, None), (False, None), ({"within_s": 2}, 2.0)])
def test_join_is_a_flag_or_says_how_far_apart_parts_may_be(join: object, within_s: float | None) -> None:
    assert from_mapping({"join": join}, InputMapping, "test").join_within_s == within_s


@pytest.mark.parametrize("join", [{}, {"within_s": -1}, {"within": 2}, "yes"])
def test_a_wrong_join_is_refused_with_its_key(join: object) -> None:
    with pytest.raises(EdgeLstmError, match="join"):
        from_mapping({"join": join}, InputMapping, "test")
