"""From received messages to readings that may step."""
