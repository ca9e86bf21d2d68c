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
from edge_lstm.schemes import Scheme


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
    scheme: Scheme | None = key(None, doc="none: int8 where the bundle has it")
    trust: str | None = key(None, doc="path of a public key: a bundle that it did not sign is refused")
    state: str = key("state.db", doc="path of the database that keeps the streams' states")
    input: InputMapping = field(default_factory=InputMapping)
    output: OutputMapping = field(default_factory=OutputMapping)


def read_service_config(path: Path) -> ServiceConfig:
    """The service config at `path`. Raises EdgeLstmError that lists every fault."""
    return read_toml(path, ServiceConfig)
