"""service.toml: what a device's service needs to know, typed and checked whole."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from edge_lstm.codec import InputMapping, OutputMapping
from edge_lstm.config import key, read_toml
from edge_lstm.errors import EdgeLstmError
from edge_lstm.mqtt import parse_address


@dataclass(frozen=True)
class MqttConfig:
    """The broker, and who this service is to it."""

    url: str = key(doc="mqtt://host:port")
    client_id: str = key("edge-lstm", doc="the broker keeps the session under it: one per service")
    session_expiry_s: int = key(604_800, least=0, most=4_294_967_295, doc="how long the broker keeps what was missed")

    def faults(self) -> Iterator[tuple[str, str]]:
        try:
            parse_address(self.url)
        except EdgeLstmError as error:
            yield "url", error.message
        if not self.client_id or any(sign in self.client_id for sign in "/+#"):
            yield "client_id", f'expected a name without / + #, found "{self.client_id}"'


@dataclass(frozen=True)
class ServiceConfig:
    """One service: a bundle, a broker, and what goes in and out. Relative paths start at the file's folder."""

    bundle: str = key(doc="path of the .elstm file")
    mqtt: MqttConfig = key(doc="the broker")
    backend: Literal["litert", "onnx", "tflite-runtime", "numpy"] | None = key(None, doc="none: the first installed")
    scheme: Literal["float32", "int8"] | None = key(None, doc="none: int8 where the bundle has it")
    state: str = key("state.db", doc="path of the database that keeps the streams' states")
    durability: Literal["exactly-once", "at-most-once"] = key(
        "exactly-once", doc="at-most-once: QoS 0, states kept every checkpoint_s and at stop"
    )
    checkpoint_s: float = key(60.0, least=0.1, doc="seconds between commits where durability is at-most-once")
    late: Literal["rewind", "drop"] = key("rewind", doc="what becomes of a reading older than its stream's last one")
    max_rewind: int = key(8, least=1, most=1000, doc="how many samples it may lie back")
    max_streams: int = key(100_000, least=1, doc="streams in memory; the longest idle ones wait in the database")
    history: int = key(10_000, least=0, doc="readings kept for edge-lstm replay --history")
    max_ahead_s: float = key(
        86_400.0,
        least=0,
        doc="a reading further in the future is refused: one wrong clock must not make all that follows late",
    )
    stats_interval_s: float = key(60.0, least=0.1, doc="seconds between messages on the stats topic")
    input: InputMapping = field(default_factory=InputMapping)
    output: OutputMapping = field(default_factory=OutputMapping)


def read_service_config(path: Path) -> ServiceConfig:
    """The service config at `path`. Raises EdgeLstmError that lists every fault."""
    return read_toml(path, ServiceConfig)
