"""Parses values as devices write them (numbers, numeric texts, switches, words) to floats; NaN is a missing value."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Collection, Mapping, Sequence

from edge_lstm.foundation.numbers import FLOAT32_MAX, NUMBER_WORDS, same_unit, without_thousands, without_unit
from edge_lstm.messages.formats.payloads import PayloadError, shown

_LONGEST = 60  # characters of a number


class ValueParser:
    """Parses one value: what a message holds under `name` to a float, NaN if it is missing."""

    def __init__(
        self,
        name: str,
        *,
        scale: float = 1.0,
        offset: float = 0.0,
        least: float | None = None,
        most: float | None = None,
        ignore: Collection[float] = (),
        words: Mapping[str, float] | None = None,
        decimal_comma: bool = False,
        categories: Sequence[str] = (),
        unit: str = "",
    ) -> None:
        """The result is the number times `scale` plus `offset`, missing outside of `least` to `most`.

        `ignore`: numbers in a message that mean a missing value. `words` (lower case): the numbers of texts. With
        `categories` the result is the index of the text among them; any other text is missing. `unit` may follow the
        number in a text (`strip`: any unit).
        """
        self._name = name
        self._scale, self._offset = scale, offset
        self._least = -math.inf if least is None else least
        self._most = math.inf if most is None else most
        self._ignore = frozenset(ignore)
        self._words = {**NUMBER_WORDS, **(words or {})}
        self._decimal_comma, self._unit = decimal_comma, unit
        self._categories = {text.strip().lower(): float(place) for place, text in enumerate(categories)}
        # whether a float or an int is its own result, so that a caller may skip the call
        self.plain = (scale, offset, least, most) == (1.0, 0.0, None, None) and not self._ignore and not categories

    def read(self, found: object, unit: object = None) -> float:
        """The number, or NaN. `unit`: the unit that the message gives for it, if any.

        Raises PayloadError if `found` is neither a number nor known as a missing value, or if it has another unit.
        """
        if isinstance(unit, str) and self._unit not in ("", "strip") and not same_unit(unit, self._unit):
            raise PayloadError(
                f'expected "{self._name}" in {self._unit}, found it in {shown(unit)}: convert it with scale and offset '
                "in [input.values]"
            )
        if self._categories:
            if isinstance(found, float) and found.is_integer():
                found = int(found)  # 1.0 in a recording is the text 1
            known = isinstance(found, (str, int))
            return self._categories.get(str(found).strip().lower(), math.nan) if known else math.nan
        number = self._number(found)
        if math.isnan(number) or number in self._ignore:
            return math.nan
        if self.plain:
            scaled = number
        else:
            scaled = number * self._scale + self._offset
            if not self._least <= scaled <= self._most and abs(number) <= FLOAT32_MAX:
                return math.nan
        if abs(scaled) <= FLOAT32_MAX:
            return scaled
        raise PayloadError(f'expected a number under "{self._name}" that float32 holds, found {shown(found)}')

    def _number(self, found: object) -> float:
        if isinstance(found, (int, float)):  # true and false are 1 and 0
            try:
                return float(found)
            except OverflowError:
                return math.inf
        if found is None:
            return math.nan
        if isinstance(found, str) and len(found) <= _LONGEST:
            text = found.strip()
            if (meant := self._words.get(text.lower())) is not None:
                return meant
            with contextlib.suppress(ValueError):
                return float(self._with_point(text))
            with contextlib.suppress(ValueError):
                return self._number_in(text.replace("\u2212", "-"))
        raise PayloadError(f'expected a number under "{self._name}", found {shown(found)}{self._hint(found)}')

    def _number_in(self, text: str) -> float:
        """The number in a text that has a unit or separators of thousands. Raises ValueError."""
        number = without_unit(text, self._unit) or text
        plain = without_thousands(number, decimal_comma=self._decimal_comma)
        return float(self._with_point(number if plain is None else plain))

    def _hint(self, found: object) -> str:
        if not isinstance(found, str) or len(found) > _LONGEST or without_unit(found, "strip") is None:
            return ""
        expected = f"in {self._unit}, or " if self._unit else ""
        return f': expected it {expected}with the key unit in [input.values], which may be "strip"'

    def _with_point(self, text: str) -> str:
        if "_" in text:
            raise ValueError  # digit grouping of Python, which no device writes
        if not self._decimal_comma:
            return text
        if "." in text:
            raise ValueError  # 1.234 may mean a thousand here
        return text.replace(",", ".")
