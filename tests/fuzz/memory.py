"""The memory of this process."""

from __future__ import annotations

import os
import resource
from pathlib import Path


def rss_mib() -> float:
    """What the process holds in memory now, in MiB."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except OSError:  # not Linux: the peak
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20
