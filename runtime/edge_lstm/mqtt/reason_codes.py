"""Why a broker refuses a message or ends a connection: MQTT 5, 2.4."""

from __future__ import annotations

PACKET_TOO_LARGE = 0x95
UNSPECIFIED = 0x80

_TEXTS = {
    UNSPECIFIED: "Unspecified error",
    0x83: "Implementation specific error",
    0x87: "Not authorized",
    0x90: "Topic Name invalid",
    0x91: "Packet identifier in use",
    PACKET_TOO_LARGE: "Packet too large",
    0x97: "Quota exceeded",
    0x99: "Payload format invalid",
}

# A DISCONNECT packet with one of these is about a message that was sent.
ABOUT_A_MESSAGE = (0x87, 0x90, PACKET_TOO_LARGE, 0x97, 0x99, 0x9A)  # 0x9A: retained messages are not supported

# These are about the connection: the broker stops, is busy, names another one, or the client id connected again.
ABOUT_THE_CONNECTION = (0x00, 0x89, 0x8B, 0x8D, 0x8E, 0x98, 0x9C, 0x9D, 0x9F, 0xA0)


def reason_text(code: int) -> str:
    """The reason in words. mosquitto also sends codes that the standard does not allow in this packet."""
    return _TEXTS.get(code, f"reason code {code}")
