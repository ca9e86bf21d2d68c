"""The purpose of a bundle: its version, the devices that may run it, and the day after which none may.

The manifest has it, so a signature covers it.
"""

from __future__ import annotations

import datetime
import fnmatch
import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from edge_lstm.foundation.errors import BundleError
from edge_lstm.foundation.text import is_printable

log = logging.getLogger(__name__)

MOST_VERSION = 10**15
_MOST_DEVICES = 1000
_HINT = "ask who made it for a bundle that is meant for this device"


@dataclass(frozen=True)
class Purpose:
    """What a bundle is for; the defaults mean: any device, no last day, no version."""

    version: int = 0  # rises with each bundle of the same name
    devices: tuple[str, ...] = ()  # client ids, or patterns like pump-*; empty: all
    expires: str | None = None  # the last day, like 2027-12-31 (UTC)

    def faults(self) -> Iterator[tuple[str, str]]:
        """(key, message) of each value that is not valid."""
        if not 0 <= self.version <= MOST_VERSION:
            yield "version", f"expected a number from 0 to {MOST_VERSION}, found {self.version}"
        if len(self.devices) > _MOST_DEVICES:
            yield "devices", f"expected at most {_MOST_DEVICES} devices, found {len(self.devices)}"
        if not all(device and is_printable(device) for device in self.devices):
            yield "devices", "expected names without control characters, found others"
        if self.expires is not None and _end_of(self.expires) is None:
            yield "expires", f'expected a day like 2027-12-31, found "{self.expires}"'

    def require(
        self, source: str, device: str, knows_time: Callable[[], bool], now: Callable[[], float] = time.time
    ) -> None:
        """Raise BundleError if the bundle is not for this `device` (a client id), or if its time is over.

        `knows_time`: whether the clock is known to be right. Otherwise the day is not judged, which is logged.
        """
        if self.devices and not any(fnmatch.fnmatchcase(device, pattern) for pattern in self.devices):
            raise BundleError(
                f"{source}: expected a bundle for {device}, found one for {', '.join(self.devices[:5])}", _HINT
            )
        end = None if self.expires is None else _end_of(self.expires)
        if end is None:
            return
        if not knows_time():
            log.warning("bundle not checked for its last day, the clock is not synchronized expires=%s", self.expires)
        elif now() >= end:
            raise BundleError(
                f"{source}: expected a bundle that is still valid, found one that expired after {self.expires}",
                "export and sign a newer one",
            )


def _end_of(day: str) -> float | None:
    """The end of the day, in seconds since 1970; None: it is no day."""
    if len(day) != len("2027-12-31"):
        return None
    try:
        begin = datetime.datetime.strptime(day, "%Y-%m-%d").replace(tzinfo=datetime.timezone.utc)
        return (begin + datetime.timedelta(days=1)).timestamp()
    except (ValueError, OverflowError):
        return None
