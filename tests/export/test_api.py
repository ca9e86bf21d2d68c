"""train, export and adopt from Python: the run folder and the bundle are those of the commands."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from edge_lstm import Bundle, ConfigError, EdgeLstmError, Predictor, Reading
from edge_lstm.cli.main import main
from edge_lstm_export import adopt, export
from edge_lstm_train import Recipe, Run, read_recipe, train
from tests.networks import write_recurrent_onnx
from tests.paths import FIXTURES

RECIPES = FIXTURES / "written_by_0_1_0/recipes"


@pytest.fixture(scope="module")
def recipe() -> Recipe:
    """A forecast of a mill, trained for a moment."""
    found = read_recipe(RECIPES / "forecast.toml")
    return dataclasses.replace(found, fit=dataclasses.replace(found.fit, updates=3, refit=False))


@pytest.fixture(scope="module")
def run(recipe: Recipe, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return train(recipe, tmp_path_factory.mktemp("runs") / "mill", seed=7)


def test_train_takes_a_recipe_and_writes_the_run_folder_that_it_returns(run: Run) -> None:
    assert {path.name for path in run.run_dir.iterdir()} >= {
        "checkpoint.pt",
        "recipe.toml",
        "metrics.json",
        "report.html",
    }
    assert json.loads((run.run_dir / "metrics.json").read_text())["seed"] == run.recipe.fit.seed == 7


def test_train_takes_a_path_or_a_name_and_refuses_what_the_command_refuses(
    recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[Any, ...]] = []
    monkeypatch.setattr("edge_lstm_train.run.train", lambda *a, **k: seen.append((*a, k)))
    path = RECIPES / "forecast.toml"
    train(str(path))
    train(path, str(tmp_path), device="cuda", resume=True)
    named = read_recipe(path)
    assert seen == [
        (named, Path("runs") / named.name, {"device": "cpu", "resume": False}),
        (named, tmp_path, {"device": "cuda", "resume": True}),
    ]
    with pytest.raises(ConfigError, match="found 'sollar'\nhint: did you mean solar"):
        train("sollar")
    with pytest.raises(ConfigError, match="expected a seed of 0 to 2147483647, found -1"):
        train(recipe, seed=-1)
    with pytest.raises(ConfigError, match="expected data beside the path or name of a recipe"):
        train(recipe, data=tmp_path)


def test_export_of_a_run_and_of_its_folder_give_the_bundle_of_the_command(run: Run, tmp_path: Path) -> None:
    names = {"schemes": ["float32"], "formats": ["numpy"], "certificate": False}
    bundle = export(run, tmp_path / "run.elstm", **names)  # type: ignore[arg-type]
    export(str(run.run_dir), str(tmp_path / "folder.elstm"), **names)  # type: ignore[arg-type]
    command = ["export", str(run.run_dir), "--scheme", "float32", "--format", "numpy", "--no-certificate"]
    result = CliRunner().invoke(main, [*command, "-o", str(tmp_path / "command.elstm")])
    assert result.exit_code == 0, result.output
    files = [(tmp_path / f"{name}.elstm").read_bytes() for name in ("run", "folder", "command")]
    assert files == [files[0]] * 3
    assert bundle.id == Bundle.open(tmp_path / "run.elstm").id
    values = {feature.name: 0.0 for feature in bundle.contract.features}
    assert len(Predictor.from_bundle(bundle).predict(Reading("mill-1", 1_767_225_600.0, values))) == 1


def test_export_names_the_file_by_the_model_and_refuses_what_does_not_go_together(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    bundle = export(run, schemes="float32", formats="numpy", certificate=False)
    assert bundle.source == f"{run.recipe.name}.elstm"
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"schemes": ["int9"]}, 'expected schemes of float32, .* found "int9"'),
        ({"schemes": "int9"}, 'expected schemes of float32, .* found "int9"'),
        ({"schemes": []}, "expected at least one scheme"),
        ({"formats": ["onx"]}, 'expected formats of onnx, .* found "onx"\nhint: did you mean "onnx"'),
        ({"formats": []}, "expected at least one format"),
        ({"schemes": "auto", "certificate": False}, "expected a certificate"),
        ({"max_drift": 0.1, "certificate": False}, "expected a certificate"),
    ]
    for options, said in wrong:
        with pytest.raises(EdgeLstmError, match=said):
            export(run, "other.elstm", **options)
    with pytest.raises(EdgeLstmError, match=r"expected a run with checkpoint\.pt at nowhere"):
        export("nowhere")
    assert [path.name for path in tmp_path.iterdir()] == [bundle.source]


def test_adopt_gives_the_bundle_of_the_command(tmp_path: Path) -> None:
    write_recurrent_onnx(tmp_path / "small.onnx")
    bundle = adopt(tmp_path / "small.onnx", tmp_path / "api.elstm", interval_s=0.5)
    command = ["adopt", str(tmp_path / "small.onnx"), "--every", "0.5", "-o", str(tmp_path / "command.elstm")]
    assert CliRunner().invoke(main, command).exit_code == 0
    assert (tmp_path / "api.elstm").read_bytes() == (tmp_path / "command.elstm").read_bytes()
    predictor = Predictor.from_bundle(bundle, "onnx")
    first = predictor.predict(Reading("a", 0.0, {"sample_000": 0.5}))[0].values["y"][0]
    assert first == pytest.approx(np.tanh(0.5), abs=1e-6)
    with pytest.raises(EdgeLstmError, match="expected a model at"):
        adopt(tmp_path / "none.onnx")
