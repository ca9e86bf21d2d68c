"""A TCP proxy that can cut, half close, delay or swallow a connection."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from types import TracebackType

from edge_lstm.mqtt.address import Address


class Proxy:
    """Forwards to `target` from a port of its own, within a `with` block. Later connections work again."""

    def __init__(self, target: Address, port: int = 0) -> None:
        """`port`: one that was free, to come back at; 0: any free one."""
        self._target = target
        self._listener = socket.create_server(("127.0.0.1", port))
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)  # so that a stall has an effect soon
        self.address = Address("127.0.0.1", self._listener.getsockname()[1], target.tls, target.path)
        self.connections = 0
        self.delay_s = 0.0  # before each chunk is passed on
        self.cut_after: int | None = None  # bytes to the client, for each connection; then it is cut
        self._flowing = threading.Event()
        self._flowing.set()
        self._swallowing = threading.Event()
        self._pairs: list[tuple[socket.socket, socket.socket]] = []
        self._threads: list[threading.Thread] = []

    def __enter__(self) -> Proxy:
        self._start(self._accept)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.cut()
        self.flow()
        for thread in self._threads:
            thread.join(30)
        for pair in self._pairs:
            for end in pair:
                end.close()

    def cut(self) -> None:
        """Close both directions at once, even inside a packet."""
        for pair in self._pairs:
            for end in pair:
                with contextlib.suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)

    def half_close(self) -> None:
        """Close the direction to the client; what it sends still goes through."""
        for client, _ in self._pairs:
            with contextlib.suppress(OSError):
                client.shutdown(socket.SHUT_WR)

    def swallow(self) -> None:
        """Read everything that current connections send, and pass on nothing: a pulled cable."""
        self._swallowing.set()

    def stall(self) -> None:
        """Read nothing more from clients until `flow`: a broker that is too slow."""
        self._flowing.clear()

    def flow(self) -> None:
        """Continue after `stall`."""
        self._flowing.set()

    def _start(self, target: object, *arguments: object) -> None:
        thread = threading.Thread(target=target, args=arguments, daemon=True)  # type: ignore[arg-type]
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            try:
                broker = socket.create_connection((self._target.host, self._target.port), 5)
            except OSError:
                client.close()
                continue
            broker.settimeout(None)  # the timeout was for connecting; silence is not an error
            self.connections += 1
            self._swallowing = threading.Event()
            self._pairs.append((client, broker))
            self._start(self._forward, client, broker, self._swallowing, None, self._flowing)
            self._start(self._forward, broker, client, self._swallowing, self.cut_after, None)

    def _forward(
        self,
        source: socket.socket,
        target: socket.socket,
        swallowing: threading.Event,
        most: int | None,
        flowing: threading.Event | None,
    ) -> None:
        passed = 0
        while True:
            if flowing is not None:
                flowing.wait()
            try:
                data = source.recv(65536)
                if self.delay_s:
                    time.sleep(self.delay_s)
                if data and not swallowing.is_set():
                    target.sendall(data if most is None else data[: most - passed])
            except OSError:
                data = b""
            passed += len(data)
            if not data or (most is not None and passed >= most):
                for end in (source, target):
                    with contextlib.suppress(OSError):
                        end.shutdown(socket.SHUT_RDWR)
                return
