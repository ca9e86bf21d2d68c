"""The socket of a TLS connection. Its import loads OpenSSL, which most services do not need."""

from __future__ import annotations

import ssl


class TlsSocket(ssl.SSLSocket):
    """Closes itself if the handshake fails; paho leaves that to the garbage collector."""

    def do_handshake(self, block: bool = False) -> None:
        try:
            super().do_handshake(block)
        except OSError:
            self.close()
            raise
