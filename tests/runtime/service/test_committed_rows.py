"""After each batch the disk holds the row of every stream as the table has it."""

from __future__ import annotations

import json
import shutil
import sqlite3
from pathlib import Path

import pytest

from edge_lstm import Bundle, Predictor
from edge_lstm.mqtt.connection import Message
from edge_lstm.service.config import read_service_config
from edge_lstm.service.database.history_reader import read_history
from edge_lstm.service.database.store import Store
from edge_lstm.service.intake.message_reader import message_identity
from edge_lstm.service.service import Service

BATCHES = 16
START = 1_700_000_000


@pytest.fixture
def service(bundle_path: Path, tmp_path: Path) -> Service:
    """A service that never finds its broker: the tests hand it messages."""
    config = tmp_path / "service.toml"
    config.write_text(
        f'bundle = "{bundle_path.name}"\nbackend = "numpy"\nlate = "rewind"\n[mqtt]\nurl = "mqtt://localhost:1"\n'
    )
    return Service(read_service_config(config), tmp_path)


def message(stream: str, minute: int) -> Message:
    payload = json.dumps({"time": START + 60 * minute, "level": minute % 5}).encode()
    return Message(f"sensors/{stream}", payload, minute + 1, 0, 1, False, False)


def rows_after_a_crash(folder: Path, crashed: Path) -> dict[str, bytes]:
    """The rows in a copy of the database's files, made while the service has them open."""
    crashed.mkdir()
    for path in folder.glob("state.db*"):
        shutil.copyfile(path, crashed / path.name)
    with sqlite3.connect(crashed / "state.db") as database:
        rows = dict(database.execute("select stream, row from streams"))
    database.close()
    return rows


def test_after_every_batch_a_crash_leaves_the_rows_of_the_table(service: Service, tmp_path: Path) -> None:
    table = service._predictor.table
    for batch in range(BATCHES):
        streams = [f"tank-{number}" for number in range(4) if (batch + number) % 3]
        service._process([message(stream, batch) for stream in streams])
        found = rows_after_a_crash(tmp_path, tmp_path / f"crash-{batch}")
        assert found == {stream: table.row(stream) for stream in table.names}, f"after batch {batch}"
    assert {stream: int(table.current["step"][table.slot(stream)]) for stream in table.names} == {
        "tank-0": 10,
        "tank-1": 11,
        "tank-2": 11,
        "tank-3": 10,
    }
    service._store.close(0)


@pytest.mark.parametrize("stream", [None, "tank-2"])
def test_a_replay_of_compacted_history_gives_the_rows_of_the_service(
    stream: str | None, service: Service, tmp_path: Path
) -> None:
    for minute in range(0, 600, 5):  # each reading of two comes late, within the bound
        late = [minute + offset for offset in (1, 0, 3, 2, 4)]
        service._process([message(f"tank-{number}", one) for one in late for number in range(4)])
        service._do_what_is_due()
    assert service._store._database.execute("select count(*) > 8 from chunks").fetchone() == (1,)
    table = service._predictor.table
    service._store.close(0)
    bundle = Bundle.open(tmp_path / service.config.bundle)
    readings, rules = read_history(tmp_path / "state.db", bundle.id, stream)
    assert rules is not None
    assert len(readings) == (600 if stream else 2400)
    again = Predictor.of(bundle, "numpy", **rules._asdict())
    again.feed_columns(readings)
    expected = [stream] if stream else [f"tank-{number}" for number in range(4)]
    assert sorted(again.table.names) == expected
    assert [again.table.row(name) for name in expected] == [table.row(name) for name in expected]


def test_after_a_crash_the_log_names_the_batch_that_was_being_processed(
    service: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    service._process([message("tank-0", 0)])
    assert service._store._database.execute("select count(*) from service where key = 'begun'").fetchone() == (0,)
    service._store._database.close()  # as the kernel does for a dead process
    second = Service(service.config, tmp_path)
    assert "ended while it processed" not in caplog.text

    def crash(*arguments: object) -> None:
        second._store._database.close()
        raise SystemExit

    monkeypatch.setattr(second._predictor, "feed_slice", crash)
    suspect = message("tank-0", 1)
    with pytest.raises(SystemExit):
        second._process([suspect])
    third = Service(service.config, tmp_path)
    identity = message_identity(suspect)
    assert f'the service ended while it processed a batch: {{"batch":2,"messages":["{identity}"],' in (
        caplog.text.replace(": [", ":[").replace('": 2, "', '":2,"')
    )
    third._process([suspect])
    assert third._store.begun is None
    third._store.close(2)


def test_a_store_returns_the_row_of_every_batch_when_it_is_opened_again(tmp_path: Path) -> None:
    for batch in range(1, BATCHES + 1):
        store = Store(tmp_path / "state.db", "bundle-1", "layout")
        store.commit(batch, [("a", b"%d" % batch), (f"b{batch}", b"new")], [], 0, [], 0)
        store.close(0)
        again = Store(tmp_path / "state.db", "bundle-1", "layout")
        assert again.row("a") == (b"%d" % batch, "layout")
        assert (again.row(f"b{batch}"), again.count()) == ((b"new", "layout"), batch + 1)
        again.close(0)


def test_a_service_records_the_layout_of_its_own_rows(service: Service, tmp_path: Path) -> None:
    service._store.close(0)
    with sqlite3.connect(tmp_path / "state.db") as database:
        found = database.execute("select description from layouts").fetchall()
    database.close()
    assert found == [(service._predictor.table.layout,)]
