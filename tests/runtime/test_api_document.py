"""docs/api.md: every public name is in it with the signature and description of the code, and its examples run."""

from __future__ import annotations

import importlib.util
import re
import shutil
from pathlib import Path

import pytest

import edge_lstm
import edge_lstm_export
import edge_lstm_train
from tests.api_document import DOCUMENT, NAMES, blocks, entry, rewritten
from tests.networks import write_recurrent_onnx
from tests.paths import FIXTURES, PUMP

TEXT = DOCUMENT.read_text(encoding="utf-8")
BLOCKS = blocks(TEXT)
WRITTEN = FIXTURES / "written_by_0_1_0"
NEEDS = {  # by what an example has in it
    'backend="onnx"': ("onnxruntime",),
    "edge_lstm_train": ("torch", "matplotlib"),
    "edge_lstm_export": ("torch", "onnx", "onnxruntime", "tflite", "flatbuffers"),
}


def test_signatures_and_descriptions_are_those_of_the_code() -> None:
    assert rewritten(TEXT) == TEXT, "run python -m tests.api_document"


def test_every_public_name_is_described_and_has_an_example_or_is_used_in_one() -> None:
    public = {*edge_lstm.__all__, *edge_lstm_train.__all__, *edge_lstm_export.__all__} - {"__version__"}
    assert {name for name in NAMES if "." not in name} == public
    code = "\n".join(block for _, block in BLOCKS)
    for name in [*NAMES, "__version__"]:
        assert re.search(rf"\b{name.rpartition('.')[2]}\b", code), f"no example uses {name}"


@pytest.mark.parametrize("name", NAMES)
def test_a_description_begins_with_one_sentence_of_at_most_25_words(name: str) -> None:
    sentence = re.split(r"(?<=[.:;])\s", entry(name)[1], maxsplit=1)[0]
    assert sentence[-1] in ".:;"
    assert len(sentence.split()) <= 25, sentence


@pytest.mark.parametrize(("heading", "code"), BLOCKS, ids=[f"{n}-{heading}" for n, (heading, _) in enumerate(BLOCKS)])
def test_an_example_runs(heading: str, code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for part, needed in NEEDS.items():
        for name in needed if part in code else ():
            if importlib.util.find_spec(name) is None:
                pytest.skip(f"{name} is not installed")
    monkeypatch.chdir(tmp_path)
    shutil.copy(PUMP, "pump.elstm")
    for source in (WRITTEN / "recipes/mill.csv", WRITTEN / "recipes/forecast.toml"):
        shutil.copy(source, source.name)
    shutil.copytree(WRITTEN / "runs/forecast", "runs/forecast")
    if "detector.onnx" in code:
        write_recurrent_onnx(Path("detector.onnx"))
    exec(compile(code, f"docs/api.md: {heading}", "exec"), {"__name__": "example"})
