"""How far the service had come when it last published its statistics: the broker keeps them, whatever the disk does.

A state database that was rolled back as a whole (an older copy put back, a lost write-ahead log, a disk that drops what
was written) is a valid database, and nothing in it shows that. Its last batch is older than the published one.
"""

from __future__ import annotations

import contextlib
import json
import time

from edge_lstm.foundation.errors import EdgeLstmError
from edge_lstm.mqtt.address import Address
from edge_lstm.mqtt.connection import MqttConnection
from edge_lstm.mqtt.options import ConnectionOptions

BATCH = "batch"  # in the statistics: number of the last committed batch
_TIMEOUT_S = 1.0  # to connect, and again for the answer
_MOST = 1 << 53  # what JSON keeps exactly; no service comes that far


def published_batch(address: Address, options: ConnectionOptions, topic: str) -> int | None:
    """The batch in the retained statistics on `topic`; None: there are none, or the broker does not let us read them.

    It takes a connection of its own, since a subscription of the service's session would stay there.
    """
    connection = MqttConnection(address, topics=[topic], options=options)
    found = None
    with contextlib.suppress(EdgeLstmError), contextlib.closing(connection):
        connection.open(_TIMEOUT_S)
        deadline = time.monotonic() + _TIMEOUT_S
        quiet = False
        while found is None and not quiet and time.monotonic() < deadline:
            messages = connection.poll(0.1)
            connection.acknowledge(messages)
            quiet = connection.granted is not None and not messages
            found = next((batch for one in messages if (batch := _batch_in(one.payload)) is not None), None)
    return found


def _batch_in(payload: bytes) -> int | None:
    try:
        batch = json.loads(payload)[BATCH]
    except (ValueError, KeyError, TypeError, RecursionError):
        return None  # of an earlier release, or of a stranger
    return batch if isinstance(batch, int) and 0 < batch < _MOST else None
