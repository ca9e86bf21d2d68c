"""Topics as text and as bytes, converted once each."""

from __future__ import annotations

from sys import getsizeof

from edge_lstm.foundation.errors import EdgeLstmError
from edge_lstm.foundation.limited_dict import LimitedDict


class EncodedTopics(LimitedDict[str, bytes]):
    """Topics to publish to, as bytes. A new one is checked and kept: `topics[topic]`."""

    def __missing__(self, topic: str) -> bytes:
        """Raises EdgeLstmError if MQTT does not allow the topic."""
        try:
            encoded = topic.encode()
        except UnicodeEncodeError:
            encoded = b""
        if not 0 < len(encoded) < 65536 or any(sign in topic for sign in "+#\x00"):
            raise EdgeLstmError(
                f"expected a topic to publish to, found {topic[:80]!r}", "no + # in it, and 65,535 bytes at most"
            )
        return self.remember(topic, encoded, getsizeof(topic) + getsizeof(encoded))


class DecodedTopics(LimitedDict[bytes, str]):
    """Received topics, as text. A new one is kept: `topics[raw]`."""

    def __missing__(self, raw: bytes) -> str:
        """Raises UnicodeDecodeError if the topic is not UTF-8."""
        topic = raw.decode()
        return self.remember(raw, topic, getsizeof(raw) + getsizeof(topic))
