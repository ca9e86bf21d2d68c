"""Training: a recipe and a recording in, a run folder with a checkpoint and a report out.

Importing the package imports no torch; `train` does, and says what to install where it is missing.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from edge_lstm_train.recipe.recipe import Recipe, read_recipe
    from edge_lstm_train.run import Run

__all__ = ["Recipe", "Run", "read_recipe", "train"]

_MODULES = {
    "Recipe": "edge_lstm_train.recipe.recipe",
    "Run": "edge_lstm_train.run",
    "read_recipe": "edge_lstm_train.recipe.recipe",
}
_LARGEST_SEED = 2**31 - 1


def train(
    recipe: str | Path | Recipe,
    output: str | Path | None = None,
    *,
    data: str | Path | None = None,
    seed: int | None = None,
    device: Literal["cpu", "cuda"] = "cpu",
    resume: bool = False,
) -> Run:
    """Train a model from a recipe, evaluate it with the code of the device, and write the run folder.

    `recipe`: the path of a TOML file, the name of a recipe that comes with edge-lstm, or a Recipe. `output`: the run
    folder, by default runs/NAME; it gets checkpoint.pt, recipe.toml, metrics.json and report.html. `data`: the folder
    where the path of the recording begins, by default the folder of the recipe. `seed`: replaces the seed of the
    recipe. `resume`: continue a training of the same recipe that was stopped in this folder. Progress goes to stderr.

    Raises ConfigError if the recipe is not valid. Raises EdgeLstmError if torch is missing, if the recording is missing
    or not valid, or if the loss is no longer finite. In the last case, the best weights so far are in the run folder.
    """
    from edge_lstm.foundation.arguments import described, flag_argument, path_argument, whole_number
    from edge_lstm.foundation.config import from_mapping
    from edge_lstm.foundation.errors import ConfigError
    from edge_lstm.foundation.extras import require

    require("train", "torch", "matplotlib")
    import dataclasses

    from edge_lstm_train.recipe.recipe import Recipe, read_recipe

    if not isinstance(recipe, Recipe):
        recipe = read_recipe(recipe, data)
    elif data is not None:
        raise ConfigError(
            f"expected data beside the path or name of a recipe, found the Recipe {recipe.name}",
            "leave data out, or give it to read_recipe",
        )
    else:  # the caller may have replaced any value of it
        from_mapping(dataclasses.asdict(recipe), Recipe, "the Recipe", ConfigError)
    if seed is not None:
        seed = whole_number(seed, "seed", 0, _LARGEST_SEED, ConfigError)
        recipe = dataclasses.replace(recipe, fit=dataclasses.replace(recipe.fit, seed=seed))
    from edge_lstm_train.run import train as train_recipe

    if device not in ("cpu", "cuda"):
        raise ConfigError(f"expected device as cpu or cuda, found {described(device)}", 'write device="cpu"')
    resume = flag_argument(resume, "resume", ConfigError)
    run_dir = Path("runs") / recipe.name
    if output is not None:
        run_dir = path_argument(output, "output as the path of a run folder", ConfigError)
    return train_recipe(recipe, run_dir, device=device, resume=resume)


if not TYPE_CHECKING:  # a type checker knows the imports above, and refuses every other name

    def __getattr__(name: str) -> object:
        if name not in _MODULES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from importlib import import_module

        value: object = getattr(import_module(_MODULES[name]), name)
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
