"""A part of the attacks on state databases that `make attack` runs at full size, with fixed seeds."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from tests.attack.databases import (
    Case,
    Damage,
    Files,
    Written,
    broken_block,
    flipped_bit,
    further,
    prepared_folder,
    run_case,
    torn,
    undisturbed,
    written_by_a_service,
)

KINDS = ("timed", "arrival")
States = tuple[Path, str, Written]


@pytest.fixture(scope="module", params=KINDS)
def states(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> States:
    """A config, the kind of its readings, and the files of its service after each commit and after its stop."""
    config = prepared_folder(tmp_path_factory.mktemp("states"), request.param)
    return config, request.param, written_by_a_service(config, request.param)


def outcomes(
    config: Path, kind: str, bases: Sequence[tuple[Files, int]], damages: list[Callable[[], tuple[str, Files]]]
) -> Counter[str]:
    """`bases`: what may be in the files. The broker sends again what the first of them had not taken."""
    script = further(kind, bases[0][1])
    right = [undisturbed(config, Case(files, script)) for files, _ in bases]
    found: Counter[str] = Counter()
    for damage in damages:
        what, damaged = damage()
        outcome, why, _ = run_case(config, Case(damaged, script), right)
        assert outcome in ("equal", "told"), f"{what}: {outcome}: {why}"
        found[outcome] += 1
    return found


@pytest.mark.parametrize(("damage", "seed"), [(flipped_bit, 1), (broken_block, 2)])
def test_a_damaged_database_changes_no_prediction_in_silence(damage: Damage, seed: int, states: States) -> None:
    config, kind, written = states
    chance = random.Random(seed)
    for base in (written.killed[-2], written.stopped):  # killed, and stopped
        found = outcomes(config, kind, [base], [lambda base=base: damage(chance, base[0])] * 8)  # type: ignore[misc]
        assert found["told"], found


def test_writes_that_a_power_cut_tears_change_no_prediction_in_silence(
    states: States,
) -> None:
    config, kind, written = states
    chance = random.Random(3)
    pairs = [*zip(written.killed[1::3], written.killed[2::3], strict=False), (written.killed[-1], written.checkpointed)]
    for before, after in pairs:
        tear = lambda before=before, after=after: torn(chance, before[0], after[0])  # noqa: E731
        outcomes(config, kind, [before, after], [tear] * 5)
