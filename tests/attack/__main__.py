"""`make attack`: every attack at full size, with fixed seeds, and a table of what became of them.

It goes on where an earlier run of the same sizes was interrupted: build/attack/results.jsonl has what is done. It exits
with 1 if anything was silently wrong, if a service died, or if a target was missed.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import dataclasses
import json
import logging
import multiprocessing
import os
import random
import shutil
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from edge_lstm.backends.registry import installed
from tests.attack import services
from tests.attack.bundles import Mutations, peak_mib
from tests.attack.databases import (
    Case,
    Damage,
    Files,
    Played,
    broken_block,
    flipped_bit,
    further,
    prepared_folder,
    run_case,
    torn,
    undisturbed,
    written_by_a_service,
)
from tests.attack.services import Result, Stage
from tests.paths import ROOT

FOLDER = ROOT / "build/attack"
MOST_MIB, MOST_SILENCE_S, MOST_STOP_S = 40.0, 2.0, 2.0
_BAD = ("wrong", "crash", "failed")
_KINDS = ("timed", "arrival")


@dataclasses.dataclass(frozen=True)
class Attack:
    """An attack with its variants, which run in parts."""

    name: str
    variants: int
    run: Callable[[range, Path], Result]  # some of the variants, in a folder of their own
    at_once: int  # variants in a part
    alone: bool = False  # whether it measures a service, so that nothing runs beside it

    @property
    def parts(self) -> list[range]:
        begins = range(0, self.variants, self.at_once)
        return [range(begin, min(begin + self.at_once, self.variants)) for begin in begins]


def on_a_service(
    attack: Callable[[Stage, range], None], settings: str = "", five: bool = True, grid: bool = False
) -> Callable[[range, Path], Result]:
    """The attack on a service of its own."""

    def run(part: range, folder: Path) -> Result:
        bundle = services.grid_bundle(folder / "made.elstm") if grid else services.PUMP
        with Stage(folder / "service", settings, five, bundle) as stage:
            try:
                attack(stage, part)
            except Exception as error:  # noqa: BLE001 - one attack that fails must not end the others
                stage.fault(f"the attack ended: {error!r}")
            return stage.end()

    return run


def names_on_a_small_disk(names: int) -> Callable[[range, Path], Result]:
    def run(part: range, folder: Path) -> Result:
        return services.names_on_a_small_disk(folder, names)

    return run


def on_databases(damage: Damage, tears: bool = False) -> Callable[[range, Path], Result]:
    """Damaged databases of a killed and of a stopped service, with times of the device and of arrival."""

    def run(part: range, folder: Path) -> Result:
        result = Result()
        for kind in _KINDS:
            config = prepared_folder(folder / kind, kind)
            bases = _bases(config, kind, tears)
            for number in part:
                if _KINDS[number % 2] != kind:
                    continue
                chance = random.Random(f"{damage.__name__} {number}")
                files, other, script, right = bases[chance.randrange(len(bases))]
                what, damaged = torn(chance, files, other) if tears else damage(chance, files)
                outcome, why, memory_mib = run_case(config, Case(damaged, script), right)
                result.outcomes[outcome] += 1
                result.memory_mib = max(result.memory_mib, memory_mib)
                if outcome in _BAD:
                    result.faults.append(f"{number}, {kind}, {what}: {why}")
        return result

    return run


_Base = tuple[Files, Files, Sequence[Any], list[Played]]  # files, and after a torn write; messages; what is right


def _bases(config: Path, kind: str, tears: bool) -> list[_Base]:
    written = written_by_a_service(config, kind)
    if tears:
        pairs = [*zip(written.killed[1:], written.killed[2:], strict=False), (written.killed[-1], written.checkpointed)]
    else:
        pairs = [(one, one) for one in (written.killed[3], written.killed[-2], written.stopped)]
    found = []
    for (files, taken), (other, _) in pairs:
        script = further(kind, taken)
        right = [undisturbed(config, Case(one, script)) for one in ([files, other] if tears else [files])]
        found.append((files, other, script, right))
    return found


def on_bundles(backend: str, seed: int) -> Callable[[range, Path], Result]:
    def run(part: range, folder: Path) -> Result:
        result, mutations = Result(), Mutations(backend, seed)
        for number in part:
            outcome, why = mutations.one(number)
            result.outcomes[outcome] += 1
            result.memory_mib = peak_mib()
            if why:
                result.faults.append(why)
        return result

    return run


def attacks(seed: int, share: float) -> list[Attack]:
    """All attacks; `share`: of the variants of those that have thousands."""

    def some(count: int) -> int:
        return max(1, round(count * share))

    alone = {"at_once": 1, "alone": True}
    names = some(1_000_000)
    lies = len([*services.lies()])
    return [
        Attack("lying broker", lies, on_a_service(services.lying_broker), lies, True),
        Attack("lying CONNACK", len(services.LYING_CONNACKS), on_a_service(services.lying_connacks), 20, True),
        Attack("lists of late readings", 1, on_a_service(services.late_readings), **alone),
        Attack("the same, max_rewind 200", 1, on_a_service(services.very_late_readings, "max_rewind = 200"), **alone),
        Attack("readings far apart on a grid", 1, on_a_service(services.far_apart, grid=True), **alone),
        Attack("72 KB of properties", 1, on_a_service(services.many_properties), **alone),
        Attack("4,000 long topics", 1, on_a_service(services.long_topics), **alone),
        Attack("200 MB payload", 1, on_a_service(services.huge_payload), **alone),
        Attack("200 MB payload, MQTT 3.1.1", 1, on_a_service(services.huge_payload, five=False), **alone),
        Attack("overload", 1, on_a_service(lambda stage, part: services.overload(stage, part, 45 * share)), **alone),
        Attack("floods of answers", 1, on_a_service(services.floods), **alone),
        Attack(
            "invented names", 1, on_a_service(lambda stage, part: services.invented_names(stage, part, names)), **alone
        ),
        Attack("names on a disk of 40 MB", 1, names_on_a_small_disk(some(200_000)), **alone),
        Attack("strange names", 1, on_a_service(services.strange_names), **alone),
        Attack("flipped bits of a database", some(1000), on_databases(flipped_bit), 125),
        Attack("torn writes of a database", some(300), on_databases(torn, tears=True), 50),  # type: ignore[arg-type]
        Attack("damaged blocks of a database", some(2000), on_databases(broken_block), 125),
        *(Attack(f"mutated bundles, {one}", some(10_000), on_bundles(one, seed), 250) for one in installed()),
    ]


class Results:
    """What is done, by attack and part; kept in a file, so that an interrupted run goes on."""

    def __init__(self, path: Path, sizes: dict[str, int]) -> None:
        """`sizes`: variants of each attack. Results of other sizes are not used."""
        self._path, self._sizes = path, sizes
        self.by_attack: dict[str, dict[int, Result]] = {name: {} for name in sizes}
        for line in path.read_text().splitlines() if path.exists() else []:
            facts = json.loads(line)
            if sizes.get(facts["attack"]) == facts["variants"]:
                result = Result(**{**facts["result"], "outcomes": Counter(facts["result"]["outcomes"])})
                self.by_attack[facts["attack"]][facts["begin"]] = result

    def add(self, attack: Attack, begin: int, result: Result) -> None:
        self.by_attack[attack.name][begin] = result
        facts = {"attack": attack.name, "variants": attack.variants, "begin": begin}
        with self._path.open("a") as file:
            file.write(json.dumps({**facts, "result": vars(result)}) + "\n")

    def has(self, attack: Attack, begin: int) -> bool:
        return begin in self.by_attack[attack.name]


def faults_of(attack: Attack, found: Sequence[Result]) -> list[str]:
    """What misses a target."""
    faults = [fault for one in found for fault in one.faults]
    if attack.alone:
        for what, value, most in (
            ("MiB above idle", max(one.memory_mib for one in found), MOST_MIB),
            ("s of silence", max(one.silence_s for one in found), MOST_SILENCE_S),
            ("s to the end after SIGTERM", max(one.stop_s for one in found), MOST_STOP_S),
        ):
            if value > most:
                faults.append(f"{value:.1f} {what}, more than {most:g}")
    return faults


def table(all_attacks: Sequence[Attack], results: Results) -> str:
    """The table as Markdown."""
    rows = [
        "| attack | variants | outcome | memory, MiB | silence, s | SIGTERM, s | targets |",
        "|---|---|---|---|---|---|---|",
    ]
    for attack in all_attacks:
        found = [*results.by_attack[attack.name].values()]
        if not found:
            continue
        outcomes: Counter[str] = sum((one.outcomes for one in found), Counter())
        text = ", ".join(
            f"{count:,} {name}" if count > 1 or attack.variants > 1 else name for name, count in outcomes.most_common()
        )
        above = "+" if attack.alone else ""
        memory = f"{above}{max(one.memory_mib for one in found):.0f}"
        silence = f"{max(one.silence_s for one in found):.1f}" if attack.alone else ""
        stop = f"{max(one.stop_s for one in found):.1f}" if attack.alone else ""
        faults = faults_of(attack, found)
        met = "met" if not faults else f"missed ({len(faults)})"
        rows.append(f"| {attack.name} | {attack.variants:,} | {text} | {memory} | {silence} | {stop} | {met} |")
    return "\n".join(rows)


_attacks: list[Attack] = []  # in the processes of the pool, which are forked


def _run_part(at: int, part: range) -> Result:
    folder = FOLDER / f"run-{os.getpid()}-{at}-{part.start}"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    result = _attacks[at].run(part, folder)
    shutil.rmtree(folder, ignore_errors=True)
    return result


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", help="attacks whose name has this text (default: all)")
    parser.add_argument("--share", type=float, default=1.0, help="of the full size (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="(default: %(default)s)")
    parser.add_argument(
        "--jobs", type=int, default=2, help="processes for bundles and databases (default: %(default)s)"
    )
    parser.add_argument("--again", action="store_true", help="forget earlier results (default: go on)")
    arguments = parser.parse_args()
    FOLDER.mkdir(parents=True, exist_ok=True)
    path = FOLDER / f"results-{arguments.seed}.jsonl"
    if arguments.again:
        path.unlink(missing_ok=True)
    _attacks[:] = [one for one in attacks(arguments.seed, arguments.share) if (arguments.only or "") in one.name]
    results = Results(path, {one.name: one.variants for one in _attacks})
    waiting = [
        (at, part) for at, attack in enumerate(_attacks) for part in attack.parts if not results.has(attack, part.start)
    ]
    begun = time.monotonic()
    logging.disable(logging.CRITICAL)  # of the services that write the databases; those that are watched log again

    def note(at: int, part: range, result: Result) -> None:
        results.add(_attacks[at], part.start, result)
        outcomes = ", ".join(f"{count} {name}" for name, count in result.outcomes.items())
        print(
            f"{time.monotonic() - begun:6.0f} s  {_attacks[at].name} {part.start}: {outcomes}",
            file=sys.stderr,
            flush=True,
        )
        for fault in result.faults:
            print(f"          {fault[:1500]}", file=sys.stderr, flush=True)

    for at, part in [one for one in waiting if _attacks[one[0]].alone]:
        note(at, part, _run_part(at, part))
    shared = [one for one in waiting if not _attacks[one[0]].alone]
    forked = multiprocessing.get_context("fork")
    with concurrent.futures.ProcessPoolExecutor(arguments.jobs, forked, max_tasks_per_child=None) as pool:
        running = {pool.submit(_run_part, at, part): (at, part) for at, part in shared}
        for done in concurrent.futures.as_completed(running):
            note(*running[done], done.result())
    found = table(_attacks, results)
    (FOLDER / "table.md").write_text(found + "\n")
    print(found)
    missed = [(one, faults_of(one, [*results.by_attack[one.name].values()])) for one in _attacks]
    for attack, faults in missed:
        for fault in faults[:5]:
            print(f"{attack.name}: {fault[:600]}", file=sys.stderr)
    return 1 if any(faults for _, faults in missed) else 0


if __name__ == "__main__":
    sys.exit(main())
