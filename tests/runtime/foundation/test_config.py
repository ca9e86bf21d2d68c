"""Typed TOML: all faults at once, suggestions for misspelt keys, and invalid TOML."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pytest

from edge_lstm.foundation.config import from_mapping, key, read_toml
from edge_lstm.foundation.errors import EdgeLstmError


@dataclass(frozen=True)
class Pump:
    power: float = key(doc="kW", least=0)
    phases: int = key(3, least=1, most=3)


@dataclass(frozen=True)
class Plant:
    name: str = key(doc="what it is called")
    pumps: dict[str, Pump] = key({})
    kind: Literal["water", "oil"] = key("water")
    limits: list[float] = key([])
    note: str | None = key(None)
    running: bool = key(True)

    def faults(self) -> Iterator[tuple[str, str]]:
        if self.limits and self.limits[0] > self.limits[-1]:
            yield "limits", "expected rising numbers"


def message_of(data: dict[str, object]) -> str:
    with pytest.raises(EdgeLstmError) as caught:
        from_mapping(data, Plant, "plant.toml")
    return caught.value.message


def test_a_complete_file_becomes_the_dataclass(tmp_path: Path) -> None:
    path = tmp_path / "plant.toml"
    path.write_text('name = "a"\nlimits = [1, 2.5]\n[pumps.p1]\npower = 3\n')
    assert read_toml(path, Plant) == Plant("a", {"p1": Pump(3.0)}, limits=[1.0, 2.5])


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_a_byte_order_mark_is_not_part_of_the_first_key(tmp_path: Path, encoding: str) -> None:
    path = tmp_path / "plant.toml"
    path.write_bytes('name = "a"\r\nnote = "21 °C"\r\n'.encode(encoding))
    assert read_toml(path, Plant) == Plant("a", note="21 °C")


def test_all_faults_are_listed_with_their_keys() -> None:
    message = message_of({"pumps": {"p1": {"power": -1, "phases": 9}, "p2": {}}, "kind": "watter", "running": 1})
    assert message.splitlines()[0] == "plant.toml: 6 faults:"
    assert set(message.splitlines()[1:]) == {
        "  name: missing (what it is called)",
        "  pumps.p1.power: expected a number >= 0, found -1.0",
        "  pumps.p1.phases: expected a whole number <= 3, found 9",
        "  pumps.p2.power: missing (kW)",
        '  kind: expected one of "water", "oil" (did you mean "water"?), found "watter"',
        "  running: expected true or false, found 1",
    }


def test_a_misspelt_key_gets_a_suggestion() -> None:
    assert 'nmae: unknown key; did you mean "name"?' in message_of({"nmae": "a"})


def test_nan_and_infinity_are_refused() -> None:
    assert "limits[1]: expected a number, found true" in message_of({"name": "a", "limits": [1, True]})
    assert "limits[0]: expected a finite number, found inf" in message_of({"name": "a", "limits": [float("inf")]})


def test_a_number_beyond_float_range_is_refused() -> None:
    assert "limits[0]: expected a finite number, found inf" in message_of({"name": "a", "limits": [10**400]})


def test_checks_across_fields_run() -> None:
    assert message_of({"name": "a", "limits": [2, 1]}) == "plant.toml: limits: expected rising numbers"


@dataclass(frozen=True)
class Valve:
    size: int = key(doc="mm")

    def faults(self) -> Iterator[tuple[str, str]]:
        if self.size % 5:
            yield "size", f"expected a multiple of 5, found {self.size}"


@dataclass(frozen=True)
class Line:
    valves: dict[str, str | Valve] = key({})
    names: str | list[str] = key("")

    @staticmethod
    def completed(data: Mapping[str, object]) -> Mapping[str, object]:
        return {"names": "from the valves", **data}

    def faults(self) -> Iterator[tuple[str, str]]:
        if not self.names:
            yield "names", "expected some"


def test_a_key_with_two_forms_is_read_in_either() -> None:
    line = from_mapping({"valves": {"a": "ball", "b": {"size": 15}}, "names": ["x", "y"]}, Line, "line.toml")
    assert line == Line({"a": "ball", "b": Valve(15)}, ["x", "y"])
    with pytest.raises(EdgeLstmError) as caught:
        from_mapping({"valves": {"a": 3}, "names": {}}, Line, "line.toml")
    assert caught.value.message.splitlines()[1:] == [
        "  valves.a: expected a text or a table, found 3",
        "  names: expected a text or a list, found a table",
    ]


def test_implied_keys_are_filled_in_before_reading() -> None:
    assert from_mapping({}, Line, "line.toml").names == "from the valves"


def test_checks_across_fields_skip_invalid_fields() -> None:
    lines = message_of({"nmae": "a", "limits": [2, 1], "kind": 3}).splitlines()[1:]
    assert [line.split(":")[0].strip() for line in lines] == ["nmae", "kind", "limits"]
    assert lines[-1] == "  limits: expected rising numbers"
    lines = message_of({"name": 1, "limts": [2, 1]}).splitlines()[1:]
    assert [line.split(":")[0].strip() for line in lines] == ["limts", "name"]  # and nothing of limits


def test_a_nested_fault_hides_no_outer_fault() -> None:
    with pytest.raises(EdgeLstmError) as caught:
        from_mapping({"valves": {"b": {"size": 7}}, "names": []}, Line, "line.toml")
    assert caught.value.message.splitlines()[1:] == [
        "  valves.b.size: expected a multiple of 5, found 7",
        "  names: expected some",
    ]


def test_invalid_toml_is_refused_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "plant.toml"
    path.write_text('name = "a"\nlimits = [1,\n')
    with pytest.raises(EdgeLstmError, match=r"plant.toml: expected TOML, found: .*(line|end of document)"):
        read_toml(path, Plant)
    with pytest.raises(EdgeLstmError, match=r"expected a file at .*, found none"):
        read_toml(tmp_path / "none.toml", Plant)
