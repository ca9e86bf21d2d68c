"""A whole training run: its files, its output, and the skill of the bundled recipes."""

from __future__ import annotations

import dataclasses
import json
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from edge_lstm.foundation.errors import EdgeLstmError
from edge_lstm_train.cli import train as train_command
from edge_lstm_train.data.batches import Batch
from edge_lstm_train.data.dataset import dataset_of
from edge_lstm_train.evaluation.report import Facts, Paragraph, Section, Table, write_report
from edge_lstm_train.model import fit as fitting
from edge_lstm_train.model.checkpoint import load_checkpoint
from edge_lstm_train.recipe.recipe import Recipe, read_recipe
from edge_lstm_train.run import held_out_steps, train
from tests.train.bundled_runs import bundled_run

Make = Callable[..., Recipe]


@pytest.fixture(scope="module")
def solar(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return bundled_run("solar", tmp_path_factory).run_dir


def test_the_solar_recipe_beats_both_naive_baselines(solar: Path) -> None:
    rows = json.loads((solar / "metrics.json").read_text())["test"]
    assert [row["horizon"] for row in rows] == [1, 6, 24]
    skill = [row["skill"] for row in rows]
    assert skill[0] > 0.10
    assert skill[1] > 0.33
    assert skill[2] > 0.14
    # Worked out once by hand from the file: the plain differences of its last 2,000 rows.
    assert [round(row["rmse"]["persistence"]) for row in rows] == [544, 1090, 2598]
    assert [row["pairs"] for row in rows] == [1999, 1994, 1976]


def test_the_weather_recipe_reaches_its_skill_and_beats_ridge(tmp_path_factory: pytest.TempPathFactory) -> None:
    run = bundled_run("weather", tmp_path_factory)
    high, low = (one.rmse for one in run.evaluation.scores)
    assert high["model"] < 2.85
    assert low["model"] < 1.65
    assert high["model"] < high["ridge"]
    assert low["model"] < low["ridge"]
    # the high's gain is under one percent, which the verdict calls nothing
    assert run.evaluation.verdict.startswith("The model beats every baseline on 1 of 2 outputs (RMSE 2 % below")
    assert "It adds nothing to ridge for temp_max 1 step ahead" in run.evaluation.verdict


def weather(updates: int) -> Recipe:
    """The weather recipe with every candidate, trained for so many updates."""
    recipe = read_recipe("weather")
    model, section = dataclasses.replace(recipe.model, candidates=[]), dataclasses.replace(recipe.fit, updates=updates)
    return dataclasses.replace(recipe, model=model, fit=section)


def test_the_report_and_the_figures_name_every_candidate_and_the_chosen_one(tmp_path: Path) -> None:
    run = train(weather(40), tmp_path)
    assert run.choice.chosen.name == "linear"  # 40 updates gain nothing over ridge
    for one in run.evaluation.scores:
        assert one.rmse["model"] == pytest.approx(one.rmse["ridge"], rel=1e-5)
    assert run.evaluation.verdict.startswith("The model adds nothing to ridge for temp_max 1 step ahead")
    figures = json.loads((tmp_path / "metrics.json").read_text())
    assert figures["chosen"] == "linear"
    assert [one["name"] for one in figures["candidates"]] == ["linear", "network", "both"]
    assert figures["candidates"][0]["validation_error"] == pytest.approx(1.0344, abs=2e-4)
    assert figures["parameters"] == figures["candidates"][0]["parameters"] == 98
    report = (tmp_path / "report.html").read_text()
    assert report.count("<h2>Candidates</h2>") == 1
    assert "Chosen by the validation part: the linear path alone" in report
    assert load_checkpoint(tmp_path).model.shape.cell == "none"


def test_a_checkpoint_holds_test_inputs_that_were_not_trained_on(solar: Path) -> None:
    checkpoint = load_checkpoint(solar)
    assert checkpoint.input_sequence.shape == (2000, 3)
    assert checkpoint.input_sequence[0, 0] == pytest.approx(read_first_validation_value(), rel=1e-6)
    assert json.loads(checkpoint.provenance["test"])[0]["horizon"] == 1
    assert len(checkpoint.provenance["recording_sha256"]) == 64


def read_first_validation_value() -> float:
    lines = Path(read_recipe("solar").recording.path).read_text().splitlines()
    return float(lines[1 + 6000].split(",")[1])


def test_the_recipe_in_a_run_can_be_trained_again(solar: Path) -> None:
    recipe = read_recipe(solar / "recipe.toml")
    assert recipe.fit == read_recipe("solar").fit
    assert recipe.recording == read_recipe("solar").recording


def test_the_report_loads_nothing_and_names_every_baseline(solar: Path) -> None:
    page = (solar / "report.html").read_text()
    assert not re.search(r"https?://|<script|<link|@import|src=|url\((?!#)", page)
    assert page.count("<figure>") == 7  # a forecast and its residuals for three horizons, and the learning curve
    assert page.count("<svg") == 14  # each for a wide and for a narrow page
    for name in ("persistence", "seasonal-naive", "ridge", "skill"):
        assert name in page
    assert json.loads((solar / "metrics.json").read_text())["verdict"] in page


def test_the_report_escapes_html(tmp_path: Path) -> None:
    sections = [
        Section("<b>", [Paragraph("a < b", "note"), Table(["&"], [["<i>"]]), Facts({"<script>": "<script>"})]),
    ]
    write_report(tmp_path / "report.html", "<title>", sections)
    page = (tmp_path / "report.html").read_text()
    assert "<script>" not in page
    assert "<b>" not in page
    assert "a &lt; b" in page


def test_train_prints_the_table_on_stdout_and_the_rest_on_stderr(tmp_path: Path) -> None:
    quick = tmp_path / "quick.toml"
    recipe = Path(str(read_recipe("weather").recording.path))
    quick.write_text(
        f'name = "quick"\n[recording]\npath = "{recipe}"\n[features.temp_max]\nunit = "°C"\n'
        '[forecast]\ntargets = ["temp_max"]\nhorizons = [1]\n[fit]\nupdates = 8\n',
        encoding="utf-8",
    )
    result = CliRunner().invoke(train_command, [str(quick), "-o", str(tmp_path / "run"), "--seed", "7"])
    assert result.exit_code == 0, result.stderr
    header, row, words = result.stdout.splitlines()
    assert header.split() == ["target", "steps", "ahead", "model", "persistence", "ridge", "skill", "pairs"]
    assert row.startswith("temp_max (°C)            1   2.8")
    assert words.startswith("The model ")
    assert "\ncandidates: linear path alone " in result.stderr
    assert "\nChosen by the validation part: the linear path alone. Its error is " in result.stderr
    assert "training 8/8  loss " in result.stderr
    assert "report.html" in result.stderr
    assert " INFO " not in result.stderr  # its gaps are counted
    assert json.loads((tmp_path / "run" / "metrics.json").read_text())["seed"] == 7
    assert (tmp_path / "run" / "checkpoint.pt").is_file()


def test_a_non_finite_loss_is_reported_after_the_best_is_saved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def spoilt(*arguments: Any) -> Iterator[Batch]:
        for index, batch in enumerate(batches(*arguments), 1):
            yield dataclasses.replace(batch, features=batch.features * np.float32(np.nan)) if index == 17 else batch

    batches = fitting.carried_chunks
    monkeypatch.setattr(fitting, "carried_chunks", spoilt)
    recipe = weather(40)
    with pytest.raises(EdgeLstmError) as caught:
        train(recipe, tmp_path)
    assert caught.value.message == (
        f"expected a finite loss, found NaN or infinity at update 17 of 40; {tmp_path} holds the linear path alone"
    )
    assert load_checkpoint(tmp_path).contract.name == "weather"
    assert json.loads((tmp_path / "metrics.json").read_text())["diverged_at"] == 17


def test_ctrl_c_says_whether_and_how_training_can_resume(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("edge_lstm_train.run._LEAVE_WITHIN_S", 100.0)  # the machine may be busy
    recipe = weather(16)
    real = torch.nn.utils.clip_grad_norm_

    def stopped_at(update: int) -> None:
        left = iter([False] * (update - 1) + [True])

        def clip(*arguments: Any) -> object:
            if next(left, False):
                raise KeyboardInterrupt
            return real(*arguments)

        monkeypatch.setattr("torch.nn.utils.clip_grad_norm_", clip)

    for update, how in ((1, "start again, since no progress is saved yet"), (4, "continue with --resume")):
        stopped_at(update)
        best = train(recipe, tmp_path).fitted.best
        assert f"interrupted at update {update}: weights of update {best} kept; {how}\n" in capsys.readouterr().err
        assert load_checkpoint(tmp_path).contract.name == "weather"

    def evaluated(*arguments: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("edge_lstm_train.run.predict", evaluated)
        with pytest.raises(KeyboardInterrupt):
            train(recipe, tmp_path, resume=True)
    assert "continue with the same command and --resume\n" in capsys.readouterr().err
    candidates = train(recipe, tmp_path, resume=True).choice.candidates
    assert {one.name: len(one.fitted.curve) for one in candidates} == {"linear": 1, "network": 9, "both": 9}


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # how Python tells of a lost one
@pytest.mark.parametrize("lost", [False, True])
def test_ctrl_c_before_a_long_evaluation_leaves_a_checkpoint_without_scores(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], lost: bool
) -> None:
    """Also where Python ignores the first end of the time, because it comes while a finalizer runs."""
    recipe = read_recipe("weather")
    recipe = dataclasses.replace(recipe, fit=dataclasses.replace(recipe.fit, updates=16))
    left = iter([False] * 6 + [True])
    real = torch.nn.utils.clip_grad_norm_
    ends = []

    def clip(*arguments: Any) -> object:
        if next(left, False):
            raise KeyboardInterrupt
        return real(*arguments)

    def evaluate_for_long(*arguments: Any) -> None:
        signal.setitimer(signal.ITIMER_REAL, 0.01, signal.getitimer(signal.ITIMER_REAL)[1])  # the time is over
        time.sleep(60)

    class Finalized:
        def __del__(self) -> None:
            try:
                evaluate_for_long()
            except KeyboardInterrupt:
                ends.append("lost")
                raise

    def evaluate_and_finalize(*arguments: Any) -> None:
        Finalized()
        time.sleep(60)

    monkeypatch.setattr("torch.nn.utils.clip_grad_norm_", clip)
    monkeypatch.setattr("edge_lstm_train.run.predict", evaluate_and_finalize if lost else evaluate_for_long)
    monkeypatch.setattr("edge_lstm_train.run._LEAVE_WITHIN_S", 60.0)  # the machine may be busy before
    (tmp_path / "report.html").write_text("of an earlier run")
    with pytest.raises(KeyboardInterrupt):
        train(recipe, tmp_path)
    assert ends == ["lost"] * lost
    told = capsys.readouterr().err
    assert f"interrupted before the evaluation was done: {tmp_path / 'checkpoint.pt'} holds the weights of" in told
    assert load_checkpoint(tmp_path).provenance["verdict"] == "interrupted before the evaluation"
    assert sorted(file.name for file in tmp_path.iterdir()) == ["checkpoint.pt", "progress.pt", "recipe.toml"]


def test_train_without_torch_names_the_extra(tmp_path: Path) -> None:
    code = (
        "import sys\n"
        "sys.modules['torch'] = None\n"
        "from edge_lstm_train.cli import train\n"
        "assert 'matplotlib' not in sys.modules\n"
        "from edge_lstm.foundation.errors import EdgeLstmError\n"
        "try:\n"
        "    train(['solar', '-o', 'run'], standalone_mode=False)\n"
        "except EdgeLstmError as error:\n"
        "    print(error)\n"
    )
    told = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert told.stdout == "torch is not installed here\nhint: run pip install 'edge-lstm[train]'\n"
    assert not (tmp_path / "run").exists()


def test_the_test_inputs_of_short_streams_hold_several_streams(recipe_of: Make, recording_of: Make) -> None:
    random = np.random.default_rng(2)
    rows = [(name, 60.0 * at, [float(random.normal())]) for name in "abc" for at in range(100 if name == "b" else 80)]
    dataset = dataset_of(recipe_of(), recording_of(rows, ("x",)))
    chosen = held_out_steps(dataset)
    assert dataset.recording.streams[dataset.stream_of[chosen[0]]] == "b"  # the one with most of them comes first
    assert sorted(chosen.tolist()) == np.flatnonzero(dataset.part_of > 0).tolist()
