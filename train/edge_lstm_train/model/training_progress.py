"""The progress of a training: validations, the best weights so far, and the file from which a stopped run resumes."""

from __future__ import annotations

import copy
import hashlib
import io
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from edge_lstm.foundation.arrays import Doubles
from edge_lstm.foundation.errors import EdgeLstmError
from edge_lstm.foundation.files import write_file
from edge_lstm_train.data.dataset import Dataset
from edge_lstm_train.model.carried_state import predict_streamed
from edge_lstm_train.model.checkpoint import UNREADABLE
from edge_lstm_train.model.forecaster import Forecaster, State
from edge_lstm_train.recipe.recipe import Recipe

PROGRESS_FILE = "progress.pt"


@dataclass(frozen=True)
class Validation:
    """One validation."""

    update: int
    training_loss: float  # mean since the last validation; NaN before the first update
    validation_error: float  # by task: RMSE over the ridge's (mean of all outputs), or cross-entropy


class TrainingProgress:
    """The validations of a training and the best weights so far."""

    def __init__(
        self,
        model: Forecaster,
        dataset: Dataset,
        error: Callable[[Doubles, Doubles], float],
        recipe: Recipe,
        run_dir: Path | None,
        file: str = PROGRESS_FILE,
    ) -> None:
        """error: predictions and targets (steps, outputs) -> the validation error. run_dir: None keeps no file."""
        self.update = 0
        self.curve: list[Validation] = []
        self.best = Validation(0, math.nan, math.inf)
        self.best_weights = copy.deepcopy(model.state_dict())
        self.resumed: dict[str, Any] = {}  # the content of the file that the training was resumed from
        self._model = model
        self._dataset = dataset
        self._error = error
        self._recipe = repr(recipe)
        self._path = None if run_dir is None else run_dir / file

    def validate(self, update: int, training_loss: float) -> Validation:
        """Validate the model as it is now, and keep its weights if they are the best so far."""
        predictions = predict_streamed(self._model, self._dataset, "validation")
        steps = self._dataset.steps("validation")
        validation = Validation(update, training_loss, self._error(predictions[steps], self._dataset.targets[steps]))
        self.curve.append(validation)
        if validation.validation_error < self.best.validation_error:
            self.best, self.best_weights = validation, copy.deepcopy(self._model.state_dict())
        return validation

    def save(self, optimizer: Any, schedule: Any, state: State | None) -> None:
        """Write all that is needed to resume from here into the run folder."""
        if self._path is None:
            return
        content = {
            "recipe": self._recipe,
            "recording": _digest(self._dataset),
            "update": self.update,
            "curve": [(one.update, one.training_loss, one.validation_error) for one in self.curve],
            "best": self.best.update,
            "best_weights": self.best_weights,
            "weights": self._model.state_dict(),
            "optimizer": optimizer.state_dict(),
            "schedule": schedule.state_dict(),
            "state": state,
            "random": torch.get_rng_state(),
            "random_cuda": torch.cuda.get_rng_state() if self._model.mean.is_cuda else None,  # for dropout on the GPU
        }
        file = io.BytesIO()
        torch.save(content, file)
        write_file(self._path, file.getvalue())

    def resume(self) -> bool:
        """Load the progress from the run folder. False without a file there.

        Raises EdgeLstmError if the file is another kind, or of another recipe or recording.
        """
        assert self._path is not None  # a training that resumes has a folder
        if not self._path.exists():
            return False
        content = self._read(self._path)
        self.update = content["update"]
        self.curve = [Validation(*one) for one in content["curve"]]
        self.best = next(one for one in self.curve if one.update == content["best"])
        self.best_weights = content["best_weights"]
        self._model.load_state_dict(content["weights"])
        torch.set_rng_state(content["random"].cpu())
        if self._model.mean.is_cuda and content.get("random_cuda") is not None:
            torch.cuda.set_rng_state(content["random_cuda"].cpu())
        self.resumed = content
        return True

    def _read(self, path: Path) -> dict[str, Any]:
        try:
            content: dict[str, Any] = torch.load(path, map_location=self._model.mean.device, weights_only=True)
            content["update"]
        except UNREADABLE:
            raise EdgeLstmError(
                f"expected the progress of a training at {path}, found another kind of file", "train without --resume"
            ) from None
        for what, own in (("recipe", self._recipe), ("recording", _digest(self._dataset))):
            if content.get(what) != own:
                raise EdgeLstmError(
                    f"{path}: expected the progress of this {what}, found that of another one",
                    f"train without --resume, or into a folder other than {path.parent}",
                )
        return content


def _digest(dataset: Dataset) -> str:
    """Identifies the dataset: progress is valid for one alone."""
    digest = hashlib.sha256(np.ascontiguousarray(dataset.features).data)
    digest.update(np.ascontiguousarray(dataset.targets).data)
    return digest.hexdigest()
