"""Keys of messages that have no column in a recording: each is said once, and counted by device."""

from __future__ import annotations

import logging
from collections import Counter

log = logging.getLogger(__name__)

_MOST = 1000  # keys, devices of a key, and topics: strangers can make up any number of them
_FIRST, _EVERY = 3, 100  # messages of a topic that are examined


class UnrecordedKeys:
    """Which keys were not recorded, and of how many devices."""

    def __init__(self) -> None:
        self._devices: dict[str, set[str]] = {}  # by key
        self._seen: Counter[str] = Counter()  # messages by topic

    def is_due(self, topic: str) -> bool:
        """Whether this message of the topic is to be examined: the first ones, then one in a hundred."""
        if topic not in self._seen and len(self._seen) >= _MOST:
            return False
        self._seen[topic] += 1
        return self._seen[topic] <= _FIRST or self._seen[topic] % _EVERY == 0

    def add(self, key: str, device: str, reason: str) -> None:
        """Count the device, and log the first one of each key."""
        if key not in self._devices:
            if len(self._devices) >= _MOST:
                return
            self._devices[key] = set()
            log.warning("key not recorded, %s key=%s device=%s", reason, key, device)
        if len(self._devices[key]) < _MOST:
            self._devices[key].add(device)

    def summary(self) -> str:
        """Like "temperature of 3 devices, power of 1 device"; empty if everything was recorded."""
        counts = sorted(((len(devices), key) for key, devices in self._devices.items()), reverse=True)
        shown = [f"{key} of {count} device{'' if count == 1 else 's'}" for count, key in counts[:5]]
        more = [f"{len(counts) - 5} more keys"] if len(counts) > 5 else []
        return ", ".join([*shown, *more])
