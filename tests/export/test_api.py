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
    with pytest.raises(ConfigError, match="expected seed as a whole number of 0 to 2147483647, found the int -1"):
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


def test_train_refuses_arguments_of_a_wrong_type(recipe: Recipe, tmp_path: Path) -> None:
    nothing: list[Any] = [None, 5, b"recipe.toml", ["recipe.toml"], Recipe]
    for wrong in nothing:
        for call in (read_recipe, train):
            with pytest.raises(ConfigError, match="expected the path or name of a recipe, found"):
                call(wrong)
    for wrong in (5, b"data", "da\0ta"):
        with pytest.raises(ConfigError, match="expected data as the path of a folder, found"):
            read_recipe(RECIPES / "forecast.toml", wrong)
    assert read_recipe(RECIPES / "forecast.toml", str(RECIPES)) == read_recipe(RECIPES / "forecast.toml")
    options: list[tuple[dict[str, Any], str]] = [
        ({"output": 5}, "expected output as the path of a run folder, found the int 5"),
        ({"seed": 1.5}, "expected seed as a whole number .* found the float 1.5"),
        ({"seed": "1"}, "expected seed as a whole number .* found the str '1'"),
        ({"device": "gpu"}, "expected device as cpu or cuda, found the str 'gpu'"),
        ({"device": None}, "expected device as cpu or cuda, found None"),
        ({"resume": "no"}, "expected resume as True or False, found the str 'no'"),
    ]
    for changes, said in options:
        with pytest.raises(ConfigError, match=said):
            train(recipe, **{"output": tmp_path / "run", **changes})
    assert not (tmp_path / "run").exists()


def test_train_checks_a_recipe_that_the_caller_changed(recipe: Recipe, tmp_path: Path) -> None:
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"fit": dataclasses.replace(recipe.fit, updates=-5)}, r"fit\.updates: expected a whole number >= 1, found -5"),
        ({"model": dataclasses.replace(recipe.model, hidden=0)}, r"model\.hidden: expected a whole number >= 1"),
        ({"fit": None}, "fit: expected a table, found none"),
        ({"name": "../up"}, "name: expected letters"),
    ]
    for changes, said in wrong:
        with pytest.raises(ConfigError, match=said):
            train(dataclasses.replace(recipe, **changes), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_export_refuses_arguments_of_a_wrong_type(run: Run, tmp_path: Path) -> None:
    for nothing in (None, 5, b"run", ["run"], Run):
        with pytest.raises(EdgeLstmError, match="expected run as a Run or the path of its folder, found"):
            export(nothing, tmp_path / "a.elstm")  # type: ignore[arg-type]
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"path": 5}, "expected the path of the bundle to write, found the int 5"),
        ({"schemes": None}, "expected schemes as a name or a list of names, found None"),
        ({"schemes": [5]}, "expected schemes as a name or a list of names, found the int 5"),
        ({"formats": b"numpy"}, r'found an object of type bytes\nhint: write formats=\["onnx", "numpy"\]'),
        ({"distill": "no"}, "expected distill as True or False, found the str 'no'"),
        ({"certificate": np.zeros(2)}, "expected certificate as True or False, found an object of type ndarray"),
        ({"max_drift": "1"}, "expected max_drift as a number, found the str '1'"),
        ({"max_metric_loss": float("nan")}, "expected max_metric_loss as a number, found the float nan"),
        ({"max_bytes": [1]}, "expected max_bytes as a whole number .* found an object of type list"),
        ({"sign_with": 5}, "expected sign_with as the path of a private key, found the int 5"),
    ]
    for options, said in wrong:
        with pytest.raises(EdgeLstmError, match=said):
            export(run, **{"path": tmp_path / "a.elstm", **options})
    assert not (tmp_path / "a.elstm").exists()


def test_adopt_refuses_arguments_of_a_wrong_type(tmp_path: Path) -> None:
    for nothing in (None, 5, b"a.onnx", ["a.onnx"]):
        with pytest.raises(EdgeLstmError, match=r"expected model as the path of an \.onnx file, found"):
            adopt(nothing)  # type: ignore[arg-type]
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"name": 5}, "expected name as a str, found the int 5"),
        (
            {"states": "h"},
            'expected states as a mapping of names, found the str .*\nhint: write states={"h": "next_h"}',
        ),
        ({"states": {"h": 5}}, r"expected states\['h'\] as the name of an output, found the int 5"),
        ({"constants": {"sr": "1"}}, r"expected constants\['sr'\] as a number, found the str '1'"),
        ({"constants": {5: 1.0}}, "expected constants as a mapping of names, found the int 5"),
        ({"width": 2.5}, "expected width as a whole number of 1 to 1000000, found the float 2.5"),
        ({"width": 0}, "expected width as a whole number of 1 to 1000000, found the int 0"),
        ({"context": None}, "expected context as a whole number of 0 to 1000000, found None"),
        ({"interval_s": "1"}, "expected interval_s as a number, found the str '1'"),
    ]
    for options, said in wrong:
        with pytest.raises(EdgeLstmError, match=said):
            adopt(tmp_path / "a.onnx", tmp_path / "a.elstm", **options)


def test_a_checkpoint_of_other_bytes_is_refused(tmp_path: Path) -> None:
    for content in (b"junk", b"\x80\x02", b"", b"(lp0\n."):
        (tmp_path / "checkpoint.pt").write_bytes(content)
        with pytest.raises(EdgeLstmError, match=r"expected a checkpoint at .*checkpoint\.pt, found"):
            export(tmp_path)
