"""The Python echoes that benchmarks/stream.py compares: each receives `in/…` and publishes the same to `out/…`.

    python benchmarks/echoes.py KIND PORT QOS WINDOW

It ends at SIGTERM.
"""

from __future__ import annotations

import select
import signal
import sys
from collections.abc import Callable
from typing import Any, Literal

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.subscribeoptions import SubscribeOptions

from edge_lstm.mqtt.address import Address
from edge_lstm.mqtt.connection import MqttConnection
from edge_lstm.mqtt.options import ConnectionOptions

HOST = "127.0.0.1"


def paho_client(port: int, qos: int, window: int) -> paho.Client:
    """Stock paho as in its documentation, with a window that does not limit it."""
    client = paho.Client(CallbackAPIVersion.VERSION2, protocol=MQTTProtocolVersion.MQTTv5, manual_ack=True)
    client.max_inflight_messages_set(window)

    def on_connect(client: paho.Client, *_: Any) -> None:
        client.subscribe("in/#", options=SubscribeOptions(qos=qos))

    def on_message(client: paho.Client, userdata: Any, message: paho.MQTTMessage) -> None:
        client.publish("out" + message.topic[2:], message.payload, qos)
        client.ack(message.mid, message.qos)

    client.on_connect, client.on_message = on_connect, on_message
    client.on_subscribe = lambda client, *_: client.publish("ready", "ready", 1)
    properties = Properties(PacketTypes.CONNECT)
    properties.ReceiveMaximum = 65535
    client.connect(HOST, port, properties=properties)
    return client


def paho_loop_start(port: int, qos: int, window: int) -> None:
    client = paho_client(port, qos, window)
    client.loop_start()
    signal.pause()


def paho_own_loop(port: int, qos: int, window: int) -> None:
    client = paho_client(port, qos, window)
    while True:
        connection: Any = client.socket()
        readable, writable, _ = select.select([connection], [connection] if client.want_write() else [], [], 0.2)
        if readable:
            client.loop_read()
        if writable:
            client.loop_write()
        client.loop_misc()


def connection(kind: Literal["batching", "stock"]) -> Callable[[int, Any, int], None]:
    def run(port: int, qos: Literal[0, 1], window: int) -> None:
        options = ConnectionOptions(qos=qos, receive_maximum=65535, client=kind)
        connection = MqttConnection(Address(HOST, port), topics=["in/#"], options=options)
        connection.open()
        connection.publish("ready", "ready")
        while True:
            messages = connection.poll(0.2)
            if messages:
                connection.publish_many([("out" + message.topic[2:], message.payload) for message in messages], qos=qos)
                connection.acknowledge(messages)

    return run


ECHOES = {
    "paho loop_start": paho_loop_start,
    "paho own loop": paho_own_loop,
    "MqttConnection, stock client": connection("stock"),
    "MqttConnection, batching": connection("batching"),
}

if __name__ == "__main__":
    name, port, qos, window = sys.argv[1], *map(int, sys.argv[2:5])
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    ECHOES[name](port, qos, window)
