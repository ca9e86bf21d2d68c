"""A message that raises or kills is set aside; the others are stepped once, and the service lives."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from edge_lstm import Reading
from edge_lstm.foundation.errors import EdgeLstmError
from edge_lstm.mqtt.client.received import Message
from edge_lstm.service.processing.suspects import DEATHS, boot_id
from edge_lstm.service.service import Service
from tests.hostile.costly_messages import Link, message, opened, reading

BAD = 666.0


@pytest.fixture
def config(bundle_path: Path) -> Path:
    path = bundle_path.parent / "service.toml"
    path.write_text(f'bundle = "{bundle_path.name}"\nbackend = "numpy"\nmqtt.url = "mqtt://none"\n')
    return path


def raising(service: Service, error: Callable[[], BaseException]) -> None:
    """The service's backend raises at a reading of the value BAD, after it has stepped it."""
    feed = service._predictor.feed_slice

    def feed_slice(readings: Sequence[Reading], *rest: Any) -> Any:
        result = feed(readings, *rest)
        if any(BAD in one.values.values() for one in readings):
            raise error()
        return result

    service._predictor.feed_slice = feed_slice  # type: ignore[method-assign]


def batch(bad: Sequence[int] = (), first: int = 1, count: int = 12) -> list[Message]:
    """Messages of three streams; those of the numbers `bad` raise."""
    return [
        message(n, f"sensors/s{n % 3}", reading(60 * n, BAD if n in bad else n % 5))
        for n in range(first, first + count)
    ]


def steps_of(link: Link) -> list[tuple[str, int]]:
    facts = [json.loads(payload) for payload in link.published]
    return sorted((one["stream"], one["step"]) for one in facts)


def test_a_message_that_raises_is_set_aside_and_the_others_are_stepped_once(config: Path) -> None:
    link = Link(batch(bad=[5]))
    service = opened(config, link)
    raising(service, lambda: IndexError("row 7"))
    service.run()
    assert link.acknowledged == list(range(1, 13))
    assert steps_of(link) == sorted((f"s{n % 3}", 1 + (n - 1) // 3 - (n in (8, 11))) for n in range(1, 13) if n != 5)
    (report,) = link.reports
    assert (report["topic"], report["set_aside"]) == ("sensors/s2", 1)
    assert report["error"] == "message set aside: it raised IndexError: row 7"
    assert service.figures.totals()["set_aside"] == 1
    assert service.figures.totals()["predictions"] == 11
    with sqlite3.connect(config.parent / "state.db") as database:
        assert database.execute("select reason from poison").fetchall() == [("it raised IndexError: row 7",)]
    database.close()


def test_a_message_that_raises_when_it_is_read_is_set_aside(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    link = Link(batch(count=3))
    service = opened(config, link)
    decode = service._reader._decoder.readings

    def readings(topic: str, *rest: Any) -> Any:
        if topic == "sensors/s2":
            raise RecursionError
        return decode(topic, *rest)

    monkeypatch.setattr(service._reader._decoder, "readings", readings)
    service.run()
    assert link.acknowledged == [1, 2, 3]
    assert steps_of(link) == [("s0", 1), ("s1", 1)]
    assert [one["error"] for one in link.reports] == ["message set aside: it raised RecursionError: "]


def test_a_fault_that_hits_every_message_ends_the_service_and_acknowledges_few(config: Path) -> None:
    """As a backend that is broken: then no message is the cause."""
    link = Link(batch(bad=range(1, 61), count=60))
    service = opened(config, link)
    raising(service, lambda: IndexError("row 7"))
    with pytest.raises(IndexError):
        service.run()
    assert len(link.acknowledged) <= 20


def test_a_damaged_database_is_nobodys_fault(config: Path) -> None:
    link = Link(batch(bad=[5]))
    service = opened(config, link)
    raising(service, lambda: EdgeLstmError("expected to read states, found: malformed"))
    with pytest.raises(EdgeLstmError, match="malformed"):
        service.run()
    assert link.acknowledged == []


class KilledError(BaseException):
    """Ends the service where a kill would end its process."""


def died(config: Path, messages: Sequence[Message], killed: bool = True) -> Link:
    """A service that gets these messages, and is killed at BAD; what it did until then."""
    link = Link(messages)
    service = opened(config, link)
    raising(service, KilledError)
    if killed:
        with pytest.raises(KilledError):
            service.run()
        service._store._database.close()  # as the kernel does for a dead process
    else:
        service.run()
    return link


def again(messages: Sequence[Message], done: Sequence[int]) -> list[Message]:
    return [one._replace(repeated=True) for one in messages if one.packet_id not in done]


def test_a_message_that_kills_alone_twice_is_set_aside_and_others_lose_nothing(config: Path) -> None:
    messages, deaths = batch(bad=[5]), 0
    done: list[int] = []
    while deaths < 2 + DEATHS:
        link = died(config, again(messages, done))
        done += link.acknowledged
        deaths += 1
    assert set(done) <= {1, 2, 3, 4}
    link = died(config, again(messages, done), killed=False)
    assert sorted(done + link.acknowledged) == list(range(1, 13))
    (report,) = link.reports
    assert (
        report["error"] == f"message set aside: the service ended {DEATHS} times while it processed this message alone"
    )
    assert died(config, batch(first=20), killed=False).acknowledged == list(range(20, 32))


def test_a_power_cut_sets_no_message_aside(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The machine starts again each time: the death of the process is not the message's doing."""
    assert boot_id()
    messages = batch(bad=[5])
    for number in range(8):
        monkeypatch.setattr("edge_lstm.service.processing.suspects.boot_id", lambda number=number: f"boot {number}")
        died(config, again(messages, []))
    assert died(config, [*again(messages, [5])], killed=False).reports == []


def test_a_kill_at_a_commit_sets_no_message_aside(config: Path) -> None:
    """As by the watchdog while the disk hangs."""
    messages = batch()
    for _ in range(8):
        service = opened(config, Link(again(messages, [])))

        def killed(*arguments: object, **options: object) -> None:
            raise KilledError

        service._store.commit = killed  # type: ignore[method-assign, assignment]
        with pytest.raises(KilledError):
            service.run()
        service._store._database.close()
    link = Link(again(messages, []))
    opened(config, link).run()
    assert (len(link.acknowledged), link.reports, steps_of(link)[-1]) == (12, [], ("s2", 4))


def test_acknowledgements_that_are_held_back_keep_the_identities_of_their_messages(
    config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A message of another stream is committed long before the one that came before it may be acknowledged."""
    monkeypatch.setattr("edge_lstm.service.processing.processor.MOST_STEPS", 10)
    config.write_text(config.read_text() + 'input.time_from = "arrival"\n')
    long = message(1, "sensors/a", [{"level": n % 5} for n in range(100)])
    short = message(2, "sensors/b", {"level": 1})
    link = Link([])
    service = opened(config, link)
    link.service = None  # which would end it when no more messages come
    service._receive([])
    service._process([long])
    service._process([short])
    for _ in range(3):
        service._outbox.take_confirmations()
        link.poll(0)  # all is confirmed
        service._outbox.take_confirmations()
        service._deliver(service._processor.go_on())
    assert "b" in service._predictor.table.names
    assert link.acknowledged == []
    assert service._outbox._held == 2
    link.connection_count = 2  # a new connection: both come again
    service._receive([])
    assert (service._outbox._held, len(service._slices)) == (None, 0)
    service._store._database.close()
    link = Link([long._replace(repeated=True), short._replace(repeated=True)])
    later = opened(config, link)
    later.run()
    assert link.acknowledged == [1, 2]
    assert later.figures.totals()["repeated"] == 1
    assert later.figures.totals()["predictions"] == 100 - 4 * 10


def test_a_damaged_message_in_the_table_of_poison_stops_no_service(
    config: Path, caplog: pytest.LogCaptureFixture
) -> None:
    service = opened(config, Link([]))
    for content in (b"", b"\x02\0\0\0\xff\xff\xff\x7f\0\0\0\0", b"\x02\0\0\0\x01\0\0\0\0\0\0\0\xff"):
        service._store.set_aside_message(content, "it raised")
    service._store.close(0)
    link = Link(batch())
    opened(config, link).run()
    assert len(link.acknowledged) == 12
    assert "set aside is damaged" in caplog.text
