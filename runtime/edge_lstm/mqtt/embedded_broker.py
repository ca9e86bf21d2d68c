"""An MQTT broker in a child process, on loopback only: for demos, tests and a first try without mosquitto.

It wraps iotcore (rumqttd), which keeps nothing on disk. In production use a durable broker, such as mosquitto with
persistence.
"""

from __future__ import annotations

import socket
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Any

from edge_lstm.foundation.errors import EdgeLstmError
from edge_lstm.mqtt.address import Address

_HOST = "127.0.0.1"
# By default iotcore listens on every interface. MQTT 5 and 3.1.1 need a port each.
_CONFIG = """
id = 0
[router]
id = 0
max_connections = 1000
max_outgoing_packet_count = 200
max_segment_size = 104857600
max_segment_count = 10
[v5.1]
name = "mqtt5"
listen = "{host}:{port}"
next_connection_delay_ms = 1
[v5.1.connections]
connection_timeout_ms = 60000
max_payload_size = 1048576
max_inflight_count = 100
[v4.1]
name = "mqtt311"
listen = "{host}:{port_311}"
next_connection_delay_ms = 1
[v4.1.connections]
connection_timeout_ms = 60000
max_payload_size = 1048576
max_inflight_count = 100
"""


class EmbeddedBroker:
    """A broker that runs until the end of the `with` block, or until `stop`. Its child process ends with this one."""

    def __init__(self, port: int | None = None) -> None:
        """MQTT 5 on `port` and MQTT 3.1.1 on the next one (None: on free ports).

        Raises EdgeLstmError if iotcore is not installed or a port is taken.
        """
        try:
            import iotcore
        except ImportError:
            raise EdgeLstmError(
                "expected the package iotcore for the embedded broker, found it is not installed here",
                "run pip install 'edge-lstm[broker]', or use another broker",
            ) from None
        first, second = (port, port + 1) if port is not None else _free_ports()
        self.address = Address(_HOST, first)
        self.address_311 = Address(_HOST, second)
        self._folder = tempfile.TemporaryDirectory(prefix="edge-lstm-broker-")
        config = Path(self._folder.name) / "broker.toml"
        config.write_text(_CONFIG.format(host=_HOST, port=first, port_311=second))
        self._broker: Any = iotcore.Broker(config_path=str(config))
        try:
            self._broker.start()
        except (OSError, RuntimeError) as error:
            self._folder.cleanup()
            raise EdgeLstmError(
                f"expected to listen on {_HOST}, ports {first} and {second}, found: {error}",
                "name another port with --port",
            ) from None

    @property
    def running(self) -> bool:
        return bool(self._broker.is_running)

    def stop(self) -> None:
        """End the child process and free its ports."""
        self._broker.stop()
        self._folder.cleanup()

    def __enter__(self) -> EmbeddedBroker:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()


def _free_ports() -> tuple[int, int]:
    with socket.socket() as first, socket.socket() as second:
        first.bind((_HOST, 0))
        second.bind((_HOST, 0))
        return first.getsockname()[1], second.getsockname()[1]
