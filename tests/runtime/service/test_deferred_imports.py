"""Modules that load at their first use; each test checks a process of its own."""

from __future__ import annotations

import subprocess
import sys

BEFORE = "import sys\nfrom edge_lstm.service.deferred_imports import defer_rarely_used\ndefer_rarely_used()\n"


def output_of(program: str) -> list[str]:
    done = subprocess.run([sys.executable, "-c", BEFORE + program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.split("\n")[:-1]


def test_the_mqtt_connection_loads_no_openssl_http_or_email() -> None:
    program = (
        "import edge_lstm.mqtt.connection, edge_lstm.service.reports.refusal, edge_lstm.service.service\n"
        "import edge_lstm.service.config\n"
        "print(*{name.split('.')[0] for name in sys.modules} & {'_ssl', 'http', 'email'})"
    )
    assert output_of(program) == [""]


def test_blocked_sockets_load_no_openssl() -> None:
    program = (
        "import socket\n"
        "from edge_lstm.mqtt.client.stock_client import StockClient\n"
        "from paho.mqtt.enums import MQTTProtocolVersion\n"
        "client = StockClient('', MQTTProtocolVersion.MQTTv5, True, print, print, print)\n"
        "client._sock, other = socket.socketpair()\n"
        "client._sock.setblocking(False)\n"
        "def blocks(call, argument):\n"
        "    while True:\n"
        "        try:\n"
        "            call(argument)\n"
        "        except BlockingIOError:\n"
        "            return True\n"
        "print(blocks(client._sock_recv, 10), blocks(client._sock_send, bytes(1 << 16)), '_ssl' in sys.modules)"
    )
    assert output_of(program) == ["True True False"]


def test_a_deferred_module_is_the_real_one_after_first_use() -> None:
    program = (
        "import ssl, hashlib, urllib.request\n"
        "import paho.mqtt.client as paho\n"
        "print('_ssl' in sys.modules, hasattr(ssl, '__file__'), ssl.__spec__.name)\n"
        "print(issubclass(ssl.SSLWantReadError, OSError))\n"
        "ssl.create_default_context()\n"
        "true = sys.modules['ssl']\n"
        "print('_ssl' in sys.modules, true is not paho.ssl, ssl.__file__ == true.__file__)\n"
        "print(paho.ssl.SSLWantReadError is true.SSLWantReadError, issubclass(ssl.SSLError, OSError))\n"
        "print(hashlib.sha1(b'').hexdigest()[:4], callable(urllib.request.getproxies))"
    )
    assert output_of(program) == ["False False ssl", "False", "True True True", "True True", "da39 True"]


def test_a_loaded_module_is_not_deferred() -> None:
    program = (
        "del sys.modules['ssl']\nimport ssl\nssl.SSLContext\ndefer_rarely_used()\nprint(sys.modules['ssl'] is ssl)"
    )
    assert output_of(program) == ["True"]


def test_digests_equal_those_of_hashlib() -> None:
    program = (
        "from edge_lstm.foundation.hashing import blake2b, sha256\n"
        "print('_hashlib' in sys.modules and 'numpy.random' not in sys.modules)\n"
        "del sys.modules['hashlib']\n"
        "import hashlib\n"
        "for data in (b'', b'a', bytes(range(256)) * 999):\n"
        "    assert sha256(data).hexdigest() == hashlib.sha256(data).hexdigest()\n"
        "    assert blake2b(data, digest_size=8).digest() == hashlib.blake2b(data, digest_size=8).digest()\n"
    )
    assert output_of(program) == ["False"]
