"""Names of streams that look like others, or that change what is shown beside them, are refused with the sign."""

from __future__ import annotations

import json
import unicodedata
from pathlib import Path
from typing import Any

import pytest

from edge_lstm.foundation.config import from_mapping
from edge_lstm.foundation.errors import ConfigError
from edge_lstm.foundation.text import disguise, escaped, is_printable
from edge_lstm.messages.decoder import Decoder, InputMapping, PayloadError
from edge_lstm.messages.stream_names import NameRefusedError
from edge_lstm.messages.topics import name_fault

REFUSED = {
    "pump\u202e1": r"\u202e",
    "pump\u2028": r"\u2028",
    "pump\u2029": r"\u2029",
    "\ufeffpump": r"\ufeff",
    "pump\u200b": r"\u200b",
    "pump\xad1": r"\xad",
    "pump\u2066": r"\u2066",
    "pump\u200f": r"\u200f",
    "pump\u3164": r"\u3164",
    "pump\U000e0041": r"\U000e0041",
    "pump\U0001d173": r"\U0001d173",
    "pump\u200d": r"\u200d",
    "pu\u200cmp": r"\u200c",
    "pump\ufe0f1": r"\ufe0f",
    "\u200dx": r"\u200d",
    "پمپ\u200c": r"\u200c",
    "..": "..",
    ".": ".",
    "..\\..\\pump": "..",
    "pump\\..": "..",
    "{stream}": "{",
    "pump}": "}",
    "a\nb": r"\n",
    "a\x1b[2Jb": r"\x1b",
    "pump\x85": r"\x85",
    "a/b": "/",
    "+": "+",
    "#": "#",
    "$SYS": "$",
    "pump\ud800": r"\ud800",
    "pump\ufffe": r"\ufffe",
    "pump\U0001fffe": r"\U0001fffe",
}
ALLOWED = [
    "pump-1",
    "Pumpe 3, Süd",
    "größe",
    "ポンプ3",
    "泵-7",
    "насос",
    "مضخة",
    "می\u200cخواهم",  # Persian needs the joiner
    "क्\u200dष",
    "👨\u200d👩\u200d👧",
    "❤\ufe0f",
    "1\ufe0f\u20e3",  # a keycap
    "e\u0301",
    "kitchen.sensor",
    "v1..2",
    "a.b",
    "...",
    "C:\\plant\\pump",
    "100 %",
    "\u00a0",
]


@pytest.mark.parametrize("name", REFUSED)
def test_a_disguised_name_is_refused_with_its_sign(name: str) -> None:
    fault = name_fault(name)
    assert fault is not None
    assert fault.endswith(f'found "{REFUSED[name]}" in it')
    assert is_printable(fault)


@pytest.mark.parametrize("name", ALLOWED)
def test_names_of_all_scripts_are_allowed(name: str) -> None:
    assert name_fault(name) is None


def test_no_character_that_is_invisible_or_changes_a_line_is_allowed() -> None:
    allowed = "".join(chr(code) for code in range(0x110000) if name_fault(f"я{chr(code)}я") is None)
    found = {one for one in allowed if unicodedata.category(one) in ("Cc", "Cs", "Zl", "Zp")}
    assert not found
    # of the format characters: joiners, and marks that show (Arabic number signs, Egyptian joiners, …)
    format_characters = {one for one in allowed if unicodedata.category(one) == "Cf"} - {"\u200c", "\u200d"}
    assert all(unicodedata.name(one).split()[0] in SHOWN for one in format_characters), format_characters
    assert all(unicodedata.bidirectional(one) not in ("RLO", "LRO", "RLE", "LRE", "PDF") for one in allowed)
    assert not any(unicodedata.bidirectional(one) in ("RLI", "LRI", "FSI", "PDI") for one in allowed)


SHOWN = {"ARABIC", "SYRIAC", "KAITHI", "EGYPTIAN"}


def decoder(**mapping: Any) -> Decoder:
    return Decoder(from_mapping(mapping, InputMapping, "[input]"), ["level"])


@pytest.mark.parametrize("name", [name for name in REFUSED if "/" not in name])
def test_a_disguised_name_is_refused_from_topic_and_payload_and_shown_escaped(name: str) -> None:
    payload = b'{"time": 1700000000, "level": 1}'
    topic = f"sensors/{name}"
    with pytest.raises(NameRefusedError) as refusal:
        decoder().readings(topic, payload, {}, 0.0)
    assert is_printable(str(refusal.value))
    assert is_printable(escaped(topic).replace("\n", ""))
    assert REFUSED[name] in escaped(topic).replace("\n", "\\n")
    within = json.dumps({"id": name, "time": 1_700_000_000, "level": 1}).encode()
    with pytest.raises(PayloadError) as in_payload:
        decoder(topic="sensors", stream="id").readings("sensors", within, {}, 0.0)
    assert is_printable(str(in_payload.value))


def test_a_pattern_allows_the_streams_that_match() -> None:
    payload = b'{"time": 1700000000, "level": 1}'
    one = decoder(streams=["pump-*", "mill-[12]"])
    for name in ("pump-1", "pump-", "mill-2"):
        (reading,) = one.readings(f"sensors/{name}", payload, {}, 0.0)
        assert reading.stream == name
    for name in ("Pump-1", "mill-3", "xpump-1", "mill-12"):
        for _ in range(2):  # known topics too
            with pytest.raises(NameRefusedError, match=r"expected a stream that \[input\] streams allows, found"):
                one.readings(f"sensors/{name}", payload, {}, 0.0)
    named = decoder(topic="sensors", stream="id", streams="pump-*")
    with pytest.raises(NameRefusedError, match="streams allows"):
        named.readings("sensors", b'{"id": "mill", "time": 1700000000, "level": 1}', {}, 0.0)
    with pytest.raises(ConfigError, match="streams: expected patterns"):
        decoder(streams=[""])


def test_a_line_of_the_log_and_the_status_shows_an_old_name_escaped() -> None:
    from edge_lstm.service.reports.status import status_text

    facts = {"status": "online", "uptime_s": 1.0, "dropped_by_stream": [{"stream": "pump\u202e\u2028", "late": 1}]}
    assert r"pump\u202e\u2028: 1 late" in escaped(status_text(facts))


def test_the_commands_show_names_of_earlier_releases_on_one_line(tmp_path: Path, bundle_path: Path) -> None:
    from click.testing import CliRunner

    from edge_lstm import Bundle, Reading
    from edge_lstm.cli.main import main
    from tests.runtime.service.test_name_limit import Small

    small = Small(Bundle.open(bundle_path), bundle_path.parent, most=100)
    for name, count in (("pump-1", 12), ("pump\u202e\n2", 3)):
        small.feed([Reading(name, 1.7e9 + 60 * number, {"level": 1.0}) for number in range(count)])
    small.store.close(0)
    config = bundle_path.parent / "service.toml"
    config.write_text('bundle = "tank.elstm"\n[mqtt]\nurl = "mqtt://127.0.0.1"\n')
    run = CliRunner().invoke
    listed = run(main, ["streams", "list", str(config)])
    assert listed.exit_code == 0, listed.output
    assert len(listed.stdout.splitlines()) == 3
    assert r"pump\u202e\n2" in listed.stdout
    as_json = json.loads(run(main, ["streams", "list", str(config), "--json"]).stdout)
    assert {one["stream" if "stream" in one else "name"]: one["readings"] for one in as_json} == {
        "pump-1": 12,
        "pump\u202e\n2": 3,
    }
    refused = run(main, ["streams", "forget", str(config), "pump-9"])
    assert refused.exit_code == 1
    assert "found no stream pump-9" in refused.output
    for wrong in ([], ["pump-1", "--idle", "3"]):
        assert run(main, ["streams", "forget", str(config), *wrong]).exit_code == 2
    assert run(main, ["streams", "forget", str(config), "--idle", "1"]).exit_code == 0
    assert run(main, ["streams", "forget", str(config), "pump\u202e\n2"]).stdout == "pump\\u202e\\n2\n"
    (left,) = json.loads(run(main, ["streams", "list", str(config), "--json"]).stdout)
    assert left["name"] == "pump-1"
    config.write_text(
        config.read_text().replace("tank.elstm", "none.elstm").replace("[mqtt]", 'state = "no.db"\n[mqtt]')
    )
    missing = run(main, ["streams", "list", str(config)])
    assert "expected a state database at" in missing.output


def test_disguise_names_nothing_in_plain_texts() -> None:
    assert disguise("pump 7") is None
    assert disguise("Größe 🌡\ufe0f") is None
