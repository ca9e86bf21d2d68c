"""A server on loopback that serves one client at a time, for brokers that tests play themselves."""

from __future__ import annotations

import abc
import contextlib
import socket
import threading
from types import TracebackType
from typing import TypeVar

from edge_lstm.mqtt.address import Address

Server = TypeVar("Server", bound="OneClientServer")


class OneClientServer(abc.ABC):
    """It runs within a `with` block. A subclass answers each client in `answer`, until that returns or raises."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = Address("127.0.0.1", self._listener.getsockname()[1])
        self._client: socket.socket | None = None
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def __enter__(self: Server) -> Server:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.cut()
        self._thread.join(30)

    def cut(self) -> None:
        """End the present connection."""
        client = self._client
        if client is not None:
            with contextlib.suppress(OSError):
                client.shutdown(socket.SHUT_RDWR)

    @abc.abstractmethod
    def answer(self, client: socket.socket) -> None:
        """Serve one client until its connection ends."""

    def _serve(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            self._client = client
            with client, contextlib.suppress(OSError, IndexError):
                self.answer(client)
