"""The frames of a WebSocket (RFC 6455): their payload is handed on as it comes, and the answers to pings are masked.

paho collects a frame before the next one begins, and copies what it has at every read. A frame may be as large as the
broker likes.
"""

from __future__ import annotations

from typing import Any

_CONTINUATION, _BINARY, _CLOSE, _PING = 0x0, 0x2, 0x8, 0x9
_CONTROL = 0x8  # this bit is set in the opcodes of control frames
_MASKED = 0x80
_LENGTH_BYTES = {126: 2, 127: 8}
_MOST_CONTROL = 125  # bytes of a control frame (5.5)


def read_and_write_frames(connection: Any) -> None:
    """Replace how paho's wrapper of a WebSocket reads frames. Any other socket stays as it is."""
    make_frame = getattr(connection, "_create_frame", None)
    if make_frame is None or not hasattr(connection, "_recv_impl"):
        return
    # a client has to mask every frame (5.1): paho does not mask its pongs, and servers end the connection over it
    connection._create_frame = lambda opcode, data, do_masking=1: make_frame(opcode, bytearray(data), 1)
    connection._recv_impl = _Frames(connection).read


class _Frames:
    """The frames that one connection receives."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection
        self._head = b""  # of a frame, while it is not complete
        self._opcode = 0
        self._left = 0  # bytes of the frame's payload that have not come yet
        self._control = b""  # the payload of a control frame, while it is not complete

    def read(self, most: int) -> bytes:
        """At most `most` bytes of payload; b"" if the peer has closed.

        Raises BlockingIOError where no payload is there, and OSError for a frame that is not allowed.
        """
        if not self._left:
            self._read_head()
        if self._opcode & _CONTROL:
            self._read_control()
        elif self._left:
            data = self._take(min(most, self._left))
            self._left -= len(data)
            return data
        raise BlockingIOError

    def _take(self, count: int) -> bytes:
        """At most `count` bytes from the socket. Raises ConnectionAbortedError where the peer has closed."""
        data: bytes = self._connection._socket.recv(count)
        if not data:
            raise ConnectionAbortedError
        return data

    def _read_head(self) -> None:
        """Read the head of the next frame (5.2)."""
        while len(self._head) < (size := self._head_size()):
            self._head += self._take(size - len(self._head))
        first, second, *_ = head = self._head
        self._head, self._opcode = b"", first & 0x0F
        self._left = int.from_bytes(head[2:], "big") if len(head) > 2 else second
        if second & _MASKED or self._opcode not in (_CONTINUATION, _BINARY, _CLOSE, _PING, _PING + 1):
            raise ConnectionAbortedError("a frame that a server must not send")
        if self._opcode & _CONTROL and self._left > _MOST_CONTROL:
            raise ConnectionAbortedError("a control frame that is too long")

    def _head_size(self) -> int:
        """Bytes of the head, as far as it is known."""
        return 2 + (_LENGTH_BYTES.get(self._head[1], 0) if len(self._head) > 1 else 0)

    def _read_control(self) -> None:
        """Read a ping, pong or close; answer it once it is complete (5.5)."""
        if self._left:
            data = self._take(self._left)
            self._control, self._left = self._control + data, self._left - len(data)
        if self._left:
            return
        data, self._control = self._control, b""
        if self._opcode in (_CLOSE, _PING):
            answer = _CLOSE if self._opcode == _CLOSE else _PING + 1
            self._connection._socket.send(self._connection._create_frame(answer, data))
