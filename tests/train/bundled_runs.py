"""The runs of the recipes whose recordings come with the package; each is trained once for all tests."""

from __future__ import annotations

import pytest

from edge_lstm_train.recipe.recipe import read_recipe
from edge_lstm_train.run import Run, train

BUNDLED = ("solar", "weather")
_runs: dict[str, Run] = {}


def bundled_run(name: str, folders: pytest.TempPathFactory) -> Run:
    """The run of this recipe, in a folder that no test changes."""
    if name not in _runs:
        _runs[name] = train(read_recipe(name), folders.mktemp("runs") / "deep" / name)
    return _runs[name]
