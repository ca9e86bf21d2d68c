"""Setting a key of a service config: the rest of the file stays, byte for byte, or nothing is written."""

from __future__ import annotations

from pathlib import Path

import pytest

from edge_lstm.foundation.errors import EdgeLstmError
from edge_lstm.service.config_edit import set_keys

CHOSEN = {"backend": "onnx", "scheme": "int8"}


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (
            '# ours\nbundle = "x"  # the plant\n\n[mqtt]\nurl = "mqtt://b"\nbackend = "of another"\n',
            '# ours\nbundle = "x"  # the plant\nbackend = "onnx"\nscheme = "int8"\n\n'
            '[mqtt]\nurl = "mqtt://b"\nbackend = "of another"\n',
        ),
        (
            'bundle = "x"\n  backend  =  \'numpy\'  # was quickest\nscheme="float32"\n',
            'bundle = "x"\n  backend  =  "onnx"  # was quickest\nscheme="int8"\n',
        ),
        ('bundle = "x"', 'bundle = "x"\nbackend = "onnx"\nscheme = "int8"\n'),
        ('bundle = "x"\r\n[a]\r\n', 'bundle = "x"\r\nbackend = "onnx"\r\nscheme = "int8"\r\n[a]\r\n'),
        ("[a]\nb = 1\n", 'scheme = "int8"\nbackend = "onnx"\n[a]\nb = 1\n'),
        ('backend.x = 1\nscheme = """a\n"""\n', None),
        ('a = """\nbackend = "numpy"\n"""\n', None),
        ('a = [\n  "b",\n]\nbackend = 3\n', None),
        ('"backend" = "numpy"\n', None),
        ("no TOML", None),
    ],
)
def test_set_keys_changes_nothing_else_or_leaves_the_file(tmp_path: Path, before: str, after: str | None) -> None:
    path = tmp_path / "service.toml"
    path.write_bytes(before.encode())
    if after is None:
        with pytest.raises(EdgeLstmError) as caught:
            set_keys(path, CHOSEN, dict)
        assert 'write them yourself, above the first [table]: backend = "onnx", scheme = "int8"' in caught.value.hint
    else:
        set_keys(path, CHOSEN, dict)
    assert path.read_bytes().decode() == (before if after is None else after)
    assert [one.name for one in tmp_path.iterdir()] == ["service.toml"]


def test_a_symbolic_link_and_the_file_mode_are_kept(tmp_path: Path) -> None:
    real = tmp_path / "real.toml"
    real.write_text('bundle = "x"\n')
    real.chmod(0o640)
    (tmp_path / "service.toml").symlink_to(real)
    set_keys(tmp_path / "service.toml", {"backend": "numpy"}, dict)
    assert (tmp_path / "service.toml").is_symlink()
    assert real.read_text() == 'bundle = "x"\nbackend = "numpy"\n'
    assert real.stat().st_mode & 0o777 == 0o640
