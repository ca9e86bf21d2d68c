"""The frame of `make attack`: it goes on after an interruption, and says which targets were missed."""

from __future__ import annotations

import os
import signal
import time
from collections import Counter
from pathlib import Path

import pytest

from tests.attack.__main__ import Attack, Results, attacks, faults_of, table
from tests.attack.forked import in_child
from tests.attack.services import Result


def attack(variants: int = 5, alone: bool = False) -> Attack:
    def run(part: range, folder: Path) -> Result:
        return Result(Counter(equal=len(part)), memory_mib=10.0 + part.start)

    return Attack("a small one", variants, run, 2, alone)


def test_an_interrupted_run_goes_on_with_the_parts_that_are_left(tmp_path: Path) -> None:
    one, path = attack(), tmp_path / "results.jsonl"
    assert one.parts == [range(0, 2), range(2, 4), range(4, 5)]
    results = Results(path, {one.name: one.variants})
    results.add(one, 0, one.run(one.parts[0], tmp_path))
    results.add(one, 2, one.run(one.parts[1], tmp_path))
    again = Results(path, {one.name: one.variants})
    assert [again.has(one, part.start) for part in one.parts] == [True, True, False]
    again.add(one, 4, one.run(one.parts[2], tmp_path))
    assert "| a small one | 5 | 5 equal | 14 |  |  | met |" in table([one], again)
    other = attack(variants=7)
    assert not Results(path, {other.name: other.variants}).has(other, 0)


@pytest.mark.parametrize(
    ("result", "found"),
    [
        (Result(memory_mib=40.0, silence_s=2.0, stop_s=2.0), []),
        (Result(memory_mib=41.0), ["41.0 MiB above idle, more than 40"]),
        (Result(silence_s=2.1), ["2.1 s of silence, more than 2"]),
        (Result(stop_s=2.1), ["2.1 s to the end after SIGTERM, more than 2"]),
        (Result(faults=["the service died"]), ["the service died"]),
    ],
)
def test_a_missed_target_is_a_fault_of_an_attack_on_a_service(result: Result, found: list[str]) -> None:
    assert faults_of(attack(alone=True), [result]) == found


def test_every_attack_has_a_name_of_its_own() -> None:
    names = [one.name for one in attacks(1, 1.0)]
    assert len(set(names)) == len(names)
    assert {"lying broker", "invented names", "flipped bits of a database", "mutated bundles, numpy"} <= set(names)


def test_a_child_gives_its_value_or_how_it_ended() -> None:
    assert in_child(lambda: [1, 2]).value == [1, 2]
    assert "ZeroDivisionError" in (in_child(lambda: 1 / 0).fault or "")
    assert in_child(lambda: os.kill(os.getpid(), signal.SIGUSR1)).fault == "it died of SIGUSR1"
    assert in_child(lambda: time.sleep(30), timeout_s=0.3).fault == "no answer within 0.3 s"
    assert in_child(lambda: os._exit(3)).fault == "it ended without an answer"
