"""Which MQTT client a connection uses: the batching one, or stock paho if the installed paho is unknown."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Sequence

from paho.mqtt.enums import MQTTProtocolVersion

from edge_lstm.foundation.errors import EdgeLstmError
from edge_lstm.mqtt.client.batching_client import REFUSAL, BatchingClient
from edge_lstm.mqtt.client.stock_client import UNKNOWN_PING, Arrival, StockClient
from edge_lstm.mqtt.options import USUALLY_WANTED, ClientKind, Wanted

log = logging.getLogger(__name__)


def make_client(
    kind: ClientKind,
    client_id: str,
    protocol: MQTTProtocolVersion,
    clean: bool,
    on_arrivals: Callable[[Sequence[Arrival]], None],
    on_confirmed: Callable[[Sequence[int]], None],
    on_refused: Callable[[int, int, str], None],
    websocket_path: str | None = None,
    wanted: Wanted = USUALLY_WANTED,
) -> StockClient:
    """A client of that kind; the callbacks are those of `StockClient`.

    Raises EdgeLstmError if the batching client was chosen and does not know the installed paho.
    """
    if kind == "batching" and REFUSAL is not None:
        raise EdgeLstmError(
            f"expected a paho-mqtt that the batching client knows, found one without {REFUSAL}",
            'install paho-mqtt 2.0 to 2.2, or choose client = "stock"',
        )
    batching = kind != "stock" and REFUSAL is None
    if kind == "auto" and REFUSAL is not None:
        _warn_once(f"paho-mqtt is not as the batching client expects, stock paho is used missing={REFUSAL}")
    if not batching and UNKNOWN_PING is not None:
        _warn_once(f"paho-mqtt is unknown, a connection that is not read ends after keepalive_s missing={UNKNOWN_PING}")
    chosen = BatchingClient if batching else StockClient
    return chosen(client_id, protocol, clean, on_arrivals, on_confirmed, on_refused, websocket_path, wanted)


@functools.lru_cache(maxsize=8)
def _warn_once(text: str) -> None:
    log.warning("%s", text)
