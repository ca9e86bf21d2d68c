"""The power rails that a board measures itself, read from the kernel's hwmon; empty on most boards."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

# Rails that carry the power of the whole board; the other rails are parts of it.
_WHOLE = ("VDD_IN", "POM_5V_IN", "VIN", "VIN_SYS")
_MICRO, _MILLI = 1e-6, 1e-3


@dataclass(frozen=True)
class Rail:
    """One measured supply. `watts` reads it; it raises OSError or ValueError where there is no value now."""

    name: str
    watts: Callable[[], float]


def rails(root: Path = Path("/")) -> list[Rail]:
    """The rails whose sum is the power of the board: its input where that is measured, else all. `root` holds sys/.

    An INA3221 gives voltage and current of three channels (in1_label, in1_input in mV, curr1_input in mA). Other chips
    give power (power1_input in µW). NVIDIA's older kernels give milliwatts (in_power0_input, rail_name_0).
    """
    found = [
        *_channels(root.glob("sys/class/hwmon/hwmon*")),
        *_tegra_channels(root.glob("sys/bus/i2c/drivers/ina3221x/*/iio:device*")),
    ]
    whole = [rail for rail in found if rail.name in _WHOLE]
    return whole[:1] or found


def power_w(measured: Iterable[Rail]) -> float | None:
    """The present sum of the rails in watts; None where one of them has no value."""
    try:
        return sum(rail.watts() for rail in measured)
    except (OSError, ValueError):
        return None


def _channels(devices: Iterable[Path]) -> Iterable[Rail]:
    for device in sorted(devices):
        chip = _text(device / "name") or device.name
        for watts in sorted(device.glob("power*_input")):
            number = watts.name.removeprefix("power").removesuffix("_input")
            yield _power_rail(_text(device / f"power{number}_label") or chip, watts, _MICRO)
        for amperes in sorted(device.glob("curr*_input")):
            number = amperes.name.removeprefix("curr").removesuffix("_input")
            volts, label = device / f"in{number}_input", _text(device / f"in{number}_label")
            # a channel without a label is not connected; the fourth current is the sum of the others
            if volts.exists() and label and label != "NC" and "sum" not in label.lower():
                yield _voltage_times_current(label, volts, amperes)


def _tegra_channels(devices: Iterable[Path]) -> Iterable[Rail]:
    for device in sorted(devices):
        for watts in sorted(device.glob("in_power*_input")):
            number = watts.name.removeprefix("in_power").removesuffix("_input")
            yield _power_rail(_text(device / f"rail_name_{number}") or f"rail {number}", watts, _MILLI)


def _power_rail(name: str, path: Path, unit: float) -> Rail:
    return Rail(name, lambda: _number(path) * unit)


def _voltage_times_current(name: str, volts: Path, amperes: Path) -> Rail:
    return Rail(name, lambda: _number(volts) * _MILLI * _number(amperes) * _MILLI)


def _number(path: Path) -> float:
    return float(path.read_text(encoding="ascii"))


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        return ""
