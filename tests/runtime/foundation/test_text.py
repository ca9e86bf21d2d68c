"""Texts of others are shown without control characters, and without passwords in addresses."""

from __future__ import annotations

import pytest

from edge_lstm.foundation.text import printable


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("mqtts://user:secret@host:8883", "mqtts://…@host:8883"),
        ("mqtts://user:se/c@ret@host", "mqtts://…@host"),
        ('url: found "mqtt://a:secret@b", twice ws://c:secret@d/mqtt', 'url: found "mqtt://…@b", twice ws://…@d/mqtt'),
        ("mqtt://host:1883/a", "mqtt://host:1883/a"),
        ("mail me@home", "mail me@home"),
        ("a\x1b[2Jb\u202ec\nd", "a\\x1b[2Jb\\u202ec\\nd"),
    ],
)
def test_a_login_in_an_address_and_control_characters_are_not_shown(text: str, shown: str) -> None:
    assert printable(text) == shown


def test_a_login_does_not_show_where_a_long_text_is_cut() -> None:
    assert "secret" not in printable("x" * 180 + "mqtt://user:" + "secret" * 100 + "@host")
