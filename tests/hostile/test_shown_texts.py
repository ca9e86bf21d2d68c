"""Texts of others are shown with escapes: on a terminal, in a log, in a page, in the refusal topic."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
from click.testing import CliRunner

from edge_lstm.bundle.archive import Bundle
from edge_lstm.bundle.data_sheet import data_sheet
from edge_lstm.bundle.web_page import model_page
from edge_lstm.cli.main import main
from edge_lstm.foundation.arguments import quoted
from edge_lstm.foundation.errors import EdgeLstmError
from edge_lstm.foundation.log_format import EscapingFormatter
from edge_lstm.foundation.text import escaped, is_printable, printable
from edge_lstm.service.reports.refusal import refusal_facts
from edge_lstm.service.reports.status import status_text
from tests.hostile.bundle_bytes import entries_of, with_manifest
from tests.paths import PUMP

EVIL = "a\x1b[2J\x9b\u202eb\u2066\u2028\ufeff\u200b\u200f\U000e0041c"
SHOWN = r"a\x1b[2J\x9b\u202eb\u2066\u2028\ufeff\u200b\u200f\U000e0041c"


def test_every_way_to_show_a_text_escapes_alike() -> None:
    assert escaped(EVIL) == printable(EVIL) == SHOWN
    assert quoted(EVIL).replace("\\u001b", r"\x1b") == f'"{SHOWN}"'
    assert escaped("zwei\n\tZeilen, 21 °C, 温度, می‌خواهم") == "zwei\n\tZeilen, 21 °C, 温度, می‌خواهم"
    assert printable("zwei\nZeilen") == r"zwei\nZeilen"


def test_a_log_line_stays_one_line_and_a_traceback_is_escaped() -> None:
    record = logging.LogRecord("x", logging.WARNING, "f", 1, "stream %s", ("a\nERROR all is well\x1b[0m",), None)
    assert (
        EscapingFormatter("%(levelname)s %(message)s").format(record) == r"WARNING stream a\nERROR all is well\x1b[0m"
    )
    try:
        raise ValueError(EVIL)
    except ValueError as error:
        record.exc_info = (ValueError, error, error.__traceback__)
    lines = EscapingFormatter("%(message)s").format(record).splitlines()
    assert len(lines) > 2
    assert lines[-1] == f"ValueError: {SHOWN}"


def test_an_error_and_a_retained_message_are_shown_escaped(tmp_path: Path) -> None:
    missing = tmp_path / "no\u202efile\x1b[2J.elstm"
    result = CliRunner().invoke(main, ["inspect", str(missing)])
    assert result.exit_code != 0
    assert r"no\u202efile\x1b[2J.elstm" in result.stderr or is_printable(result.stderr.replace("\n", ""))
    assert escaped(status_text({"status": EVIL})) == f"status    {SHOWN}"
    facts = refusal_facts(EdgeLstmError(EVIL, EVIL))
    assert (facts["error"], facts["hint"]) == (SHOWN, SHOWN)


@pytest.mark.parametrize("sign", ["\x1b[2J", "\u202e", "\u2028", "\x00", "\x9b"])
def test_a_name_that_changes_how_a_line_is_read_is_refused(sign: str) -> None:
    def named(facts: object) -> None:
        facts["contract"]["name"] = f"tank{sign}"  # type: ignore[index]

    with pytest.raises(EdgeLstmError, match="expected texts without control characters") as caught:
        Bundle.from_bytes(with_manifest(entries_of(PUMP), named), "strange")
    assert sign not in str(caught.value)


def test_an_invisible_sign_in_a_name_is_shown(tmp_path: Path) -> None:
    def named(facts: object) -> None:
        facts["contract"]["name"] = "tank\ufeff\u200b<b>"  # type: ignore[index]

    path = tmp_path / "strange.elstm"
    path.write_bytes(with_manifest(entries_of(PUMP), named))
    shown = CliRunner().invoke(main, ["inspect", str(path)]).stdout
    assert r"tank\ufeff\u200b<b>, id" in shown
    bundle = Bundle.open(path)
    assert escaped(data_sheet(bundle)) == shown.removesuffix("\n")
    page = model_page(bundle)
    assert r"<title>tank\ufeff\u200b&lt;b&gt;</title>" in page
    assert "\ufeff" not in page
