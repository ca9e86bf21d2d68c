"""Opens a copy of a state database with its service config, and reads its content as plain values."""

from __future__ import annotations

import dataclasses
import json
import math
import shutil
import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge_lstm import Bundle, Predictor
from edge_lstm.foundation.config import read_toml
from edge_lstm.service.codecs import message_codecs
from edge_lstm.service.config import ServiceConfig
from edge_lstm.service.database.history_reader import read_history
from edge_lstm.service.database.spans import SteppingRules
from edge_lstm.service.database.store import Store
from edge_lstm.streaming.stream_table import StreamTable

WRITTEN = Path(__file__).parent / "fixtures/written_by_0_1_0"
STATES = ("anomaly", "rewind", "outbox", "classify", "estimate")
# Another CPU's BLAS may round differently; values near zero are compared in the units of the mill, which are around 10.
RELATIVE, ABSOLUTE = 1e-5, 1e-6


@dataclass(frozen=True)
class Message:
    """One MQTT message to the service, and the time of its arrival (seconds since 1970)."""

    topic: str
    payload: str
    arrival: float


class Opened:
    """A copy of a state database, opened by Store and Predictor as the service does it."""

    def __init__(self, folder: Path, database: Path) -> None:
        """`folder`: that of service.toml; `database`: the copy."""
        self.config = read_toml(folder / "service.toml", ServiceConfig)
        self.bundle = Bundle.open(folder / self.config.bundle)
        self.readings, rules = read_history(database, self.bundle.id)
        assert rules is not None, f"expected a span of {self.bundle.id} in {database}, found none"
        self.rules: SteppingRules = rules
        with sqlite3.connect(database) as connection:
            self.streams = [name for (name,) in connection.execute("select stream from streams order by stream")]
            self.filters = [name for (name,) in connection.execute("select filter from subscribed order by filter")]
        connection.close()
        layout = StreamTable(self.bundle.contract).layout
        self.store = Store(database, self.bundle.id, layout, self.config.history, rules=rules)
        self.last_batch, self.unsent, self.unacknowledged = self.store.load()
        self.predictor = Predictor.of(
            self.bundle, self.config.backend, self.config.scheme, **rules._asdict(), fetch=self.store.row
        )
        self._decoder, self._encoder, self._deadband = message_codecs(self.config, self.bundle)

    def close(self) -> None:
        self.store.close(0)

    def contents(self) -> dict[str, Any]:
        """All that the database holds, as JSON can write it."""
        return {
            "bundle": self.bundle.id,
            "rules": self.rules._asdict(),
            "last_batch": self.last_batch,
            "subscribed": self.filters,
            "unsent": [
                {"batch": batch, "messages": [{"topic": topic, "payload": payload.decode()} for topic, payload in sent]}
                for batch, sent in self.unsent
            ],
            "unacknowledged": sorted(self.unacknowledged),
            "history": [plain(reading._asdict()) for reading in self.readings],
            "streams": {stream: self._stream(stream) for stream in self.streams},
        }

    def _stream(self, stream: str) -> dict[str, Any]:
        table = self.predictor.table
        slot = table.slot(stream)
        found = {
            "now": self._present(table.current[slot]),
            "joining": plain(table.partial_values[slot]),
            "said": plain(table.last_published[slot]),
        }
        if self.bundle.contract.sampling.grid:
            found["filling"] = _fields(table.open_interval[slot])
        if self.bundle.contract.alarm is not None:
            calibrated = int(table.current["calibrated"][slot])
            kept = calibrated if calibrated < table.calibration.shape[1] else 0
            found["residuals"] = {"count": calibrated, "kept": plain(table.calibration[slot, :kept])}
        if self.rules.max_rewind:
            length = int(table.trail_length[slot])
            found["trail"] = [_fields(entry) for entry in table.trail[slot, :length]]
            found["anchor"] = self._present(table.snapshot_old[slot]) if length else None
            found["middle"] = self._present(table.snapshot_mid[slot]) if length > self.rules.max_rewind else None
        if self.rules.window:
            found["seen"] = [number for number in table.seen[slot].tolist() if number]
        return found

    def _present(self, present: np.void) -> dict[str, Any]:
        """The current record of a stream, its state tensors by their names in the contract."""
        fields = _fields(present)
        names = [state.name for state in self.bundle.contract.states]
        states = {name: fields.pop(f"state{index}") for index, name in enumerate(names)}
        return {**fields, "states": states}

    def feed(self, messages: Sequence[Message]) -> list[dict[str, Any]]:
        """The messages that the service publishes after these, each processed as a batch of its own."""
        published = []
        for message in messages:
            readings = self._decoder.readings(message.topic, message.payload.encode(), {}, message.arrival)
            steps = self.predictor.feed_columns(readings)
            if steps is None:
                continue
            if self._deadband is not None:
                steps = steps.at(self._deadband.moved(steps, self.predictor.table))
            published += [
                {"topic": topic, "payload": json.loads(payload)} for topic, payload in self._encoder.messages(steps)
            ]
        return published


def open_copy(name: str, folder: Path) -> Opened:
    """The state database of that name, copied into `folder` first: the fixture never changes."""
    copy = folder / "state.db"
    shutil.copyfile(WRITTEN / "states" / name / "state.db", copy)
    return Opened(WRITTEN / "states" / name, copy)


def further(facts: Mapping[str, Any]) -> list[Message]:
    """The further messages that a file contents.json lists."""
    return [Message(**message) for message in facts["further"]]


def plain(value: Any) -> Any:
    """A value as JSON can write it: NaN is null, infinity a text, a float the shortest that reads back equal."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return plain(dataclasses.asdict(value))
    if isinstance(value, Mapping):
        return {str(name): plain(item) for name, item in value.items()}
    if isinstance(value, np.ndarray):
        return plain(value.tolist())
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None if math.isnan(value) else str(value)
    return value


def assert_holds(found: Any, recorded: Any, where: str = "", *, rounded: bool = False) -> None:
    """Every recorded key and value is found, values exactly; a later version may add keys and change none.

    With `rounded`, floats may differ by RELATIVE or ABSOLUTE, whichever is more.
    """
    if isinstance(recorded, dict):
        assert isinstance(found, dict), f"{where}: expected a table, found {found!r}"
        for name, value in recorded.items():
            assert name in found, f"{where}.{name}: expected {value!r}, found no such key"
            assert_holds(found[name], value, f"{where}.{name}", rounded=rounded)
    elif isinstance(recorded, list):
        assert isinstance(found, list), f"{where}: expected a list, found {found!r}"
        assert len(found) == len(recorded), f"{where}: expected {len(recorded)} items, found {len(found)}"
        for index, (one, expected) in enumerate(zip(found, recorded, strict=True)):
            assert_holds(one, expected, f"{where}[{index}]", rounded=rounded)
    elif rounded and isinstance(recorded, float):
        assert found == pytest.approx(recorded, rel=RELATIVE, abs=ABSOLUTE), where
    else:
        assert type(found) is type(recorded), f"{where}: expected {recorded!r}, found {found!r}"
        assert found == recorded, f"{where}: expected {recorded!r}, found {found!r}"


def _fields(record: np.void) -> dict[str, Any]:
    assert record.dtype.names is not None
    return {name: plain(record[name].tolist()) for name in record.dtype.names}
