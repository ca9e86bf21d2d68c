"""The limit of stream names and slices: where a batch is cut changes no count, no name and no prediction."""

from __future__ import annotations

import json
import random
import sqlite3
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from edge_lstm import Bundle, Predictor
from edge_lstm.messages.encoder import encode_prediction
from edge_lstm.mqtt.client.received import Message
from edge_lstm.recordings.replay import replay
from edge_lstm.service.database.history_reader import read_parts
from tests.hostile.costly_messages import Link, message, opened, reading

MOST = 6
KILLS = 8
BAD = 666.0


@pytest.fixture
def config(bundle_path: Path) -> Path:
    path = bundle_path.parent / "service.toml"
    path.write_text(
        f'bundle = "{bundle_path.name}"\nbackend = "numpy"\nmqtt.url = "mqtt://none"\nmax_stream_names = {MOST}\n'
        "history = 10000\n"
    )
    return path


def flood(count: int, devices: int) -> list[tuple[str, dict[str, float]]]:
    """Twelve readings of each device, and then of devices as many as of invented names."""
    rng, sent = random.Random(1), defaultdict[str, int](int)
    found = []
    for number in range(count):
        name = f"pump-{rng.randrange(devices)}" if rng.random() < 0.5 else f"x{rng.randrange(40)}"
        if number < 12 * devices:
            name = f"pump-{number % devices}"
        sent[name] += 1
        found.append((name, reading(60 * sent[name], sent[name] % 7)))
    return found


def single(readings: Sequence[tuple[str, dict[str, float]]]) -> list[Message]:
    return [message(number + 1, f"sensors/{name}", facts) for number, (name, facts) in enumerate(readings)]


def names_of(config: Path) -> list[tuple[str, int, int]]:
    """Names, how many readings they had (at most ten), and how many are stored; in the order of their marks."""
    with sqlite3.connect(config.parent / "state.db") as database:
        rows = database.execute("select stream, young & 15, readings from streams order by young, stream").fetchall()
    database.close()
    return rows


def by_stream(published: Sequence[bytes]) -> dict[str, list[dict[str, Any]]]:
    found: dict[str, list[dict[str, Any]]] = {}
    for payload in published:
        facts = json.loads(payload)
        found.setdefault(facts["stream"], []).append(facts)
    return found


@pytest.mark.parametrize("devices", [MOST - 2, MOST])
def test_where_a_batch_is_cut_changes_no_name_and_no_count(
    config: Path, monkeypatch: pytest.MonkeyPatch, devices: int
) -> None:
    """With as many devices as names, invented ones are refused; else they push out one another."""
    seen = []
    for most_steps in (2000, 2):
        monkeypatch.setattr("edge_lstm.service.processing.processor.MOST_STEPS", most_steps)
        link = Link(single(flood(250, devices)))
        service = opened(config, link)
        service.run()
        assert link.acknowledged == list(range(1, 251))
        totals = service.figures.totals()
        counts = {name: totals[name] for name in ("names_refused", "names_forgotten", "predictions", "refused")}
        seen.append((counts, names_of(config), by_stream(link.published)))
        (config.parent / "state.db").unlink()
    counts, names, _ = seen[0]
    assert (counts["names_forgotten"] > 20, counts["names_refused"] > 20) == (devices < MOST, devices == MOST)
    assert len(names) == MOST
    assert seen[1] == seen[0]


def test_a_name_whose_message_is_set_aside_takes_no_place(config: Path) -> None:
    good = single([(f"pump-{n % 3}", reading(60 * n, 1.0)) for n in range(30)])
    bad = message(31, "sensors/new", reading(0, BAD))
    link = Link([*good, bad, message(32, "sensors/other", reading(0, 1.0))])
    service = opened(config, link)
    feed = service._predictor.feed_slice

    def feed_slice(readings: Sequence[Any], *rest: Any) -> Any:
        result = feed(readings, *rest)
        if any(BAD in one.values.values() for one in readings):
            raise IndexError("row 7")
        return result

    service._predictor.feed_slice = feed_slice  # type: ignore[method-assign]
    service.run()
    assert (len(link.acknowledged), service.figures.totals()["set_aside"]) == (32, 1)
    assert service._names.count == 4
    assert {name: mark & 15 for name, mark in service._names._marks.items()} == {"other": 1}
    assert [name for name, *_ in names_of(config)] == ["pump-0", "pump-1", "pump-2", "other"]


class KilledError(BaseException):
    """Ends the service where a kill would end its process."""


def test_a_list_that_is_cut_where_names_are_forgotten_goes_on_after_kills(config: Path, bundle_path: Path) -> None:
    """Killed after each commit in turn: what was published is that of a service that is never killed."""
    config.write_text(config.read_text() + 'input.topic = "sensors/#"\ninput.stream = "device"\n')
    rows = [{"device": name, **facts} for name, facts in flood(120, MOST - 2)]
    whole = [message(1, "sensors/list", rows), message(2, "sensors/list", {"device": "pump-0", **reading(9000)})]
    undisturbed = Link(whole)
    opened(config, undisturbed).run()
    expected, names = by_stream(undisturbed.published), names_of(config)
    (config.parent / "state.db").unlink()
    published: list[bytes] = []
    for number in range(KILLS + 1):
        link = Link([one._replace(repeated=number > 0) for one in whole])
        service = opened(config, link)
        if number == KILLS:
            service.run()
        else:
            commit = service._store.commit

            def committed(*arguments: Any, commit: Any = commit, **more: Any) -> None:
                commit(*arguments, **more)
                raise KilledError

            service._store.commit = committed  # type: ignore[method-assign]
            with pytest.raises(KilledError):
                service.run()
            assert len(service._slices.progress) == 1
            service._store._database.close()
        published += link.published
    assert link.acknowledged == [1, 2]
    assert by_stream([*dict.fromkeys(published)]) == expected  # what is not confirmed goes out again, unchanged
    assert names_of(config) == names
    bundle = Bundle.open(bundle_path)
    predictor = Predictor.of(bundle, "numpy", max_rewind=8)
    replayed: dict[str, dict[str, Any]] = {}
    for part in read_parts(config.parent / "state.db", bundle.id):
        for stream in predictor.table.names & {one.stream for one in part.before}:
            predictor.table.evict(stream)
        for one in replay(predictor, part.readings, part.batches):
            replayed[one.stream] = json.loads(encode_prediction(one, bundle.id))
    assert {name: replayed[name] for name, *_ in names} == {name: expected[name][-1] for name, *_ in names}
