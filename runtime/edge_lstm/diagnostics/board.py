"""Checks of the board: free memory, temperature, throttling and supply voltage."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

from edge_lstm.diagnostics.finding import Finding

_NEEDED_MB, _AMPLE_MB = 80.0, 160.0  # a service needs 50 to 80; bench measures it
_WARM_C, _HOT_C = 75.0, 85.0  # a Raspberry Pi slows down from 80 on, and more from 85 on
# Bits of get_throttled of the Raspberry Pi firmware. The same bits, 16 places higher: it happened since the boot.
_LOW_VOLTAGE, _SLOWED = 0x1, 0x2 | 0x4 | 0x8
_SINCE_BOOT = 16
_COOL = "add a heat sink or a fan, or reduce the load"
_SUPPLY = "use the power supply made for this board, and a short thick cable: low voltage damages cards"


def board(root: Path = Path("/")) -> Iterator[Finding]:
    """All findings; `root` holds proc/ and sys/."""
    yield memory(root)
    yield temperature(root)
    yield throttling(root)


def memory(root: Path) -> Finding:
    """The memory that the kernel reports as available to a new program."""
    try:
        text = (root / "proc/meminfo").read_text(encoding="ascii")
        available_mb = int(re.findall(r"^MemAvailable:\s+(\d+) kB", text, re.MULTILINE)[0]) / 1024
    except (OSError, IndexError):
        return Finding("memory", "unknown", "there is no /proc/meminfo", "measure on Linux")
    found = f"{available_mb:,.0f} MB available"
    if available_mb < _NEEDED_MB:
        return Finding("memory", "red", f"{found}, and a service needs up to {_NEEDED_MB:.0f}", "stop other programs")
    if available_mb < _AMPLE_MB:
        return Finding(
            "memory", "amber", f"{found}, little above the 50 to 80 MB of a service", "stop other programs, or add swap"
        )
    return Finding("memory", "green", found)


def temperature(root: Path) -> Finding:
    """The highest temperature of the thermal zones."""
    zones = []
    for path in root.glob("sys/class/thermal/thermal_zone*/temp"):
        try:
            zones.append(int(path.read_text(encoding="ascii")) / 1000)
        except (OSError, ValueError):  # a zone of a device that is switched off
            continue
    if not zones:
        return Finding(
            "temperature", "unknown", "no temperature sensor found", "nothing to do on a machine without one"
        )
    hottest = max(zones)
    found = f"{hottest:.0f} °C"
    if hottest >= _HOT_C:
        return Finding("temperature", "red", f"{found}: the board slows down or stops", _COOL)
    if hottest >= _WARM_C:
        return Finding("temperature", "amber", f"{found}, close to where boards slow down", _COOL)
    return Finding("temperature", "green", found)


def throttling(root: Path) -> Finding:
    """Low voltage and throttling, as the firmware of a Raspberry Pi reports them; unknown on other boards."""
    bits = _throttled_bits(root)
    if bits is None:
        remedy = "nothing to do on other boards; on a Raspberry Pi: sudo usermod -aG video $USER, which vcgencmd needs"
        return Finding("throttling", "unknown", "no Raspberry Pi firmware found", remedy)
    before = bits >> _SINCE_BOOT
    if bits & _LOW_VOLTAGE:
        return Finding("throttling", "red", f"the supply voltage is too low now (0x{bits:x})", _SUPPLY)
    if bits & _SLOWED:
        return Finding("throttling", "amber", f"the processor is slowed down now (0x{bits:x})", _COOL)
    if before & _LOW_VOLTAGE:
        return Finding("throttling", "amber", f"the supply voltage was too low since the boot (0x{bits:x})", _SUPPLY)
    if before & _SLOWED:
        return Finding("throttling", "amber", f"the processor was slowed down since the boot (0x{bits:x})", _COOL)
    return Finding("throttling", "green", "no low voltage and no throttling since the boot")


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
