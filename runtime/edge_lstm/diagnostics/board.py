"""The board: free memory, temperature, and whether it slows down or lacks voltage; unknown where it does not say."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

from edge_lstm.diagnostics.finding import Finding

_NEEDED_MB, _EASY_MB = 80.0, 160.0  # a service takes 50 to 80, bench measures it
_WARM_C, _HOT_C = 75.0, 85.0  # a Raspberry Pi slows down from 80 on, and most from 85 on
# Bits of the Raspberry Pi firmware's get_throttled; the same, 16 higher, say that it was so since the boot.
_LOW_VOLTAGE, _SLOWED = 0x1, 0x2 | 0x4 | 0x8
_SINCE_BOOT = 16
_COOL = "give it a heat sink or a fan, or less to do"
_SUPPLY = "take the supply made for this board, and a short thick cable: low voltage ruins cards"


def board(root: Path = Path("/")) -> Iterator[Finding]:
    """All lines; `root` holds proc/ and sys/."""
    yield memory(root)
    yield temperature(root)
    yield throttling(root)


def memory(root: Path) -> Finding:
    """What the kernel says that a new program could take."""
    try:
        text = (root / "proc/meminfo").read_text(encoding="ascii")
        available_mb = int(re.findall(r"^MemAvailable:\s+(\d+) kB", text, re.MULTILINE)[0]) / 1024
    except (OSError, IndexError):
        return Finding("memory", "unknown", "there is no /proc/meminfo that tells", "measure on Linux")
    found = f"{available_mb:,.0f} MB can be had"
    if available_mb < _NEEDED_MB:
        return Finding("memory", "red", f"{found}, and a service takes up to {_NEEDED_MB:.0f}", "end other programs")
    if available_mb < _EASY_MB:
        return Finding("memory", "amber", f"{found}, little beside a service's 50 to 80", "end other programs, or swap")
    return Finding("memory", "green", found)


def temperature(root: Path) -> Finding:
    """The hottest of the thermal zones."""
    zones = []
    for path in root.glob("sys/class/thermal/thermal_zone*/temp"):
        try:
            zones.append(int(path.read_text(encoding="ascii")) / 1000)
        except (OSError, ValueError):  # a zone whose part is switched off
            continue
    if not zones:
        return Finding("temperature", "unknown", "no sensor shows itself here", "nothing, on a machine without one")
    hottest = max(zones)
    found = f"{hottest:.0f} °C"
    if hottest >= _HOT_C:
        return Finding("temperature", "red", f"{found}: the board slows down, or stops", _COOL)
    if hottest >= _WARM_C:
        return Finding("temperature", "amber", f"{found}, near where boards slow down", _COOL)
    return Finding("temperature", "green", found)


def throttling(root: Path) -> Finding:
    """What a Raspberry Pi's firmware says of voltage and speed; no other board says it in this way."""
    bits = _throttled_bits(root)
    if bits is None:
        remedy = "nothing, on other boards; on a Raspberry Pi: sudo usermod -aG video $USER, so that vcgencmd may ask"
        return Finding("throttling", "unknown", "no Raspberry Pi firmware tells here", remedy)
    before = bits >> _SINCE_BOOT
    if bits & _LOW_VOLTAGE:
        return Finding("throttling", "red", f"the supply's voltage is too low now (0x{bits:x})", _SUPPLY)
    if bits & _SLOWED:
        return Finding("throttling", "amber", f"it is slowed down now (0x{bits:x})", _COOL)
    if before & _LOW_VOLTAGE:
        return Finding("throttling", "amber", f"the supply's voltage was too low since the boot (0x{bits:x})", _SUPPLY)
    if before & _SLOWED:
        return Finding("throttling", "amber", f"it was slowed down since the boot (0x{bits:x})", _COOL)
    return Finding("throttling", "green", "neither slowed down nor short of voltage since the boot")


def _throttled_bits(root: Path) -> int | None:
    for path in sorted(root.glob("sys/devices/platform/soc*/*firmware/get_throttled")):
        try:
            return int(path.read_text(encoding="ascii"), 16)
        except (OSError, ValueError):
            continue
    program = shutil.which("vcgencmd")
    if program is None:
        return None
    try:
        said = subprocess.run([program, "get_throttled"], capture_output=True, text=True, timeout=5).stdout
        return int(said.partition("=")[2], 16)
    except (OSError, ValueError, subprocess.TimeoutExpired):
        return None
