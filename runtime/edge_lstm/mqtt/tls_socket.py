"""The socket of a TLS connection, in a room of its own: to import it loads OpenSSL, which most services never need."""

from __future__ import annotations

import ssl


class SelfClosingSocket(ssl.SSLSocket):
    """Closes itself where the handshake fails; paho leaves that to the garbage collector."""

    def do_handshake(self, block: bool = False) -> None:
        try:
            super().do_handshake(block)
        except OSError:
            self.close()
            raise
