"""The test part once more, through the bundle itself, and its certificate: both into the run's own report."""

from __future__ import annotations

import json
from pathlib import Path

from edge_lstm.bundle import Bundle
from edge_lstm.certificate import certificate_of, in_words, measured
from edge_lstm.files import write_file
from edge_lstm.predictor import Predictor
from edge_lstm.replay import replay
from edge_lstm_train.baselines import fit_baselines
from edge_lstm_train.dataset import read_dataset
from edge_lstm_train.judgement import Judgement, judge
from edge_lstm_train.recipe import read_recipe
from edge_lstm_train.report import Paragraph, Section, Table, extend_report
from edge_lstm_train.run import METRICS, RECIPE, REPORT

TITLE = "The same through the exported bundle"


def rescore(run_dir: Path, bundle: Bundle) -> Judgement:
    """Stream the run's recording through the bundle, one reading at a time, and put the scores into its report.

    Raises EdgeLstmError where the recording is no longer where the run found it.
    """
    recipe = read_recipe(run_dir / RECIPE)
    dataset = read_dataset(recipe)
    baselines = None if recipe.classify is not None else fit_baselines(dataset, recipe.fit.refit)
    predictor = Predictor.of(bundle)
    predictions = list(replay(predictor, dataset.recording.side_by_side().readings()))
    judgement = judge(recipe, dataset, baselines, predictions)
    backend = predictor.backend
    note = f"Bundle {bundle.id}, {backend.scheme} on {backend.name}, one reading at a time, its state carried."
    section = Section(TITLE, [Table(*judgement.table), Paragraph(f"{judgement.verdict} {note}", "note")])
    extend_report(run_dir / REPORT, section)
    certificate = certificate_of(bundle)
    if certificate is not None:
        words = Paragraph(in_words(certificate), "note")
        extend_report(run_dir / REPORT, Section("Certificate", [Table(*measured(certificate)), words]))
    metrics = json.loads((run_dir / METRICS).read_text(encoding="utf-8"))
    metrics["bundle"] = {"id": bundle.id, "backend": backend.name, "scheme": backend.scheme, **judgement.figures}
    write_file(run_dir / METRICS, json.dumps(metrics, indent=2, allow_nan=False) + "\n")
    return judgement
