"""The test part streamed through the exported bundle, and the bundle's certificate, added to the run's report."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path

from edge_lstm.bundle.archive import Bundle
from edge_lstm.bundle.certificate import figures_table, read_certificate, summary_text
from edge_lstm.foundation.files import write_file
from edge_lstm.streaming.predictor import Predictor
from edge_lstm_train.data.dataset import read_dataset
from edge_lstm_train.evaluation.baselines import fit_baselines
from edge_lstm_train.evaluation.evaluate import Evaluation, evaluate
from edge_lstm_train.evaluation.formatting import TextTable
from edge_lstm_train.evaluation.predictions import predictions_of
from edge_lstm_train.evaluation.regression import MODEL
from edge_lstm_train.evaluation.report import Paragraph, Section, Table, extend_report
from edge_lstm_train.recipe.recipe import read_recipe
from edge_lstm_train.run import METRICS, RECIPE, REPORT

TITLE = "The same through the exported bundle"
_FLOAT = "float32"
_MODEL_COLUMNS = (MODEL, "skill", "R²")  # the columns of an evaluation's table that depend on the model


def rescore(run_dir: Path, bundle: Bundle) -> Evaluation:
    """Stream the run's recording through the bundle, one reading at a time, and add the scores to its report.

    The returned evaluation is that of the scheme that a device uses. If the bundle has float32 as well, the report
    shows both. Raises EdgeLstmError if the recording is no longer in its place.
    """
    recipe = read_recipe(run_dir / RECIPE)
    dataset = dataclasses.replace(read_dataset(recipe), contract=bundle.contract)  # which has what training found
    baselines = None
    if recipe.classify is None:
        baselines = fit_baselines(dataset, recipe.fit.refit, recipe.model.most_parameters)
    chosen = Predictor.of(bundle)
    name, scheme = chosen.backend.name, chosen.backend.scheme
    evaluations: dict[str, Evaluation] = {}
    for one in dict.fromkeys([_FLOAT, scheme] if _FLOAT in bundle.schemes else [scheme]):
        predictor = chosen if one == scheme else Predictor.of(bundle, name, one)
        predictions = predictions_of(predictor, dataset.recording)
        evaluations[one] = evaluate(recipe, dataset, baselines, predictions)
    evaluation = evaluations[scheme]
    note = f"Bundle {bundle.id}, {' and '.join(evaluations)} on {name}, one reading at a time, its state carried."
    words = Paragraph(f"{evaluation.verdict} {note}", "note")
    table = Table(*join_by_scheme({one: found.table for one, found in evaluations.items()}))
    extend_report(run_dir / REPORT, Section(TITLE, [table, words]))
    certificate = read_certificate(bundle)
    if certificate is not None:
        words = Paragraph(summary_text(certificate), "note")
        extend_report(run_dir / REPORT, Section("Certificate", [Table(*figures_table(certificate)), words]))
    metrics = json.loads((run_dir / METRICS).read_text(encoding="utf-8"))
    metrics["bundle"] = {
        "id": bundle.id,
        "backend": name,
        "scheme": scheme,
        **evaluation.figures,
        "schemes": {one: found.figures for one, found in evaluations.items()},
    }
    write_file(run_dir / METRICS, json.dumps(metrics, indent=2, allow_nan=False) + "\n")
    return evaluation


def join_by_scheme(tables: Mapping[str, TextTable]) -> TextTable:
    """One table of several schemes: the model's columns once per scheme, those of the baselines once."""
    header, rows = next(iter(tables.values()))
    found: TextTable = ([], [[] for _ in rows])
    for column, title in enumerate(header):
        schemes = list(tables) if column and title in _MODEL_COLUMNS else [None]
        for scheme in schemes:
            named = title if scheme is None else scheme if title == MODEL else f"{title}, {scheme}"
            source = rows if scheme is None else tables[scheme][1]
            found[0].append(named)
            for row, cells in zip(found[1], source, strict=True):
                row.append(cells[column])
    return found
