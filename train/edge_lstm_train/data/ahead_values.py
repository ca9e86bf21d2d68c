"""Reads a recipe's recording with the values that are known ahead: archived forecasts, or else later actual values."""

from __future__ import annotations

import dataclasses

from edge_lstm.foundation.errors import EdgeLstmError
from edge_lstm.recordings.ahead_columns import columns_to_read, with_actual_values
from edge_lstm.recordings.recording import Recording, read_recording
from edge_lstm.recordings.tables.table import open_table, recording_files
from edge_lstm_train.recipe.recipe import Recipe


def read_inputs(recipe: Recipe) -> Recording:
    """The recording with every feature of the recipe. Raises EdgeLstmError as `read_recording` does.

    Also where a target of the forecast is known ahead by its own actual values: the model would only copy them.
    """
    columns, ahead, sampling = recipe.columns, recipe.ahead_columns, recipe.sampling
    if not ahead:
        return read_recording(recipe.recording.path, columns)
    assert sampling.interval_s is not None  # checked by Recipe.faults
    header = open_table(recording_files(recipe.recording.paths)[0], columns.layout).header
    values = columns_to_read(header, columns.values, ahead, sampling.interval_s)
    targets = [] if recipe.forecast is None else recipe.forecast.targets
    for name, one in ahead.items():
        if name not in values and one.quantity in targets:
            raise EdgeLstmError(
                f"{recipe.recording.name}: expected archived forecasts of the target {one.quantity}, in a column like "
                f'"{one.actual.column}+{one.step}", found none',
                "record its forecasts, or remove known_ahead: its actual values would be the answer",
            )
    recording = read_recording(recipe.recording.path, dataclasses.replace(columns, values=values))
    return with_actual_values(recording, list(recipe.features), ahead, sampling, noisy=True)
