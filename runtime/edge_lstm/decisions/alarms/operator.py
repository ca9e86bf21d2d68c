"""What an operator said about a stream, in its record: a moved threshold, excused alarms, maintenance.

A move of the threshold is a factor, whose logarithm decays exponentially with the stream's own times. An excused alarm
adds its mean residual to the covariance as a rank one term (Sherman and Morrison 1950), which decays too. Both together
never lower a score to less than 1 / `feedback_most` of what the calibration gives: a fault beyond that is always found.
Neither lowers a score above 1 whose residual is like that of earlier alarms of which at least half were not marked.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from edge_lstm.bundle.contract import Contract
from edge_lstm.decisions.rules import DecisionRules
from edge_lstm.foundation.arrays import Doubles, Flags, Records, Slots

MOVES = 8  # of a stream that can be reverted
EVENTS = 8  # alarms of a stream that a command can name, with the one that goes on
_ALIKE = 0.85  # cosine between whitened residuals
# what only commands change: a rewind of the stream keeps it
COMMAND_FIELDS = ("maintenance", "maintenance_id")
MOVE_FIELDS = ("raised", "raised_at", "is_moved", "move_ids", "move_sizes", "move_times", "move_events", "excused")


class Operator:
    """What the commands to many streams mean for their steps.

    Fields of a record: `maintenance` (from, until; NaN: none). Of a detector's also `raised`, the logarithm of the
    threshold's factor at `raised_at`, and the newest `MOVES` moves: id, size and time, the first step of the alarm
    for which each was made (0: none), and what it excuses. `alarm_*` describe the newest `EVENTS` alarms: first and
    last step, peak of the score, steps, mean residual.
    """

    def __init__(self, rules: DecisionRules) -> None:
        self.is_on = rules.feedback
        self.step = math.log(rules.feedback_step)  # by which a missed alarm lowers the threshold
        self._most, self._half_life_s = rules.feedback_most, rules.feedback_half_life_s

    def maintained(self, current: Records, slots: Slots) -> Flags:
        """(n,): whether the step that was just made is within a maintenance."""
        if not self.is_on:
            return np.zeros(len(slots), np.bool_)
        times, spans = current["time"][slots], current["maintenance"][slots]
        found: Flags = (times > spans[:, 0]) & (times <= spans[:, 1])  # False for NaN
        return found

    def scores(self, current: Records, slots: Slots, smoothed: Doubles, scores: Doubles) -> Doubles:
        """The scores (n,) by the operator's threshold and covariance; smoothed (n, targets): averaged residuals."""
        if not self.is_on or not (moved := np.flatnonzero(current["is_moved"][slots])).size:
            return scores
        chosen, rows, found = slots[moved], smoothed[moved], scores[moved]
        shares = 1.0 / self._factors(current["raised"][chosen], current["time"][chosen], current["raised_at"][chosen])
        for place in np.flatnonzero(current["excused"][chosen].any(axis=(1, 2))).tolist():
            shares[place] *= self._unexcused(current[chosen[place]], rows[place])
        for place in np.flatnonzero((shares < 1) & (found > 1)).tolist():
            if _is_like_an_unmarked_alarm(current[chosen[place]], rows[place]):
                shares[place] = 1.0
        scores = scores.copy()
        scores[moved] = found * np.maximum(shares, 1.0 / self._most)
        return scores

    def factor(self, record: Any, time: float) -> float:
        """The threshold of a stream at a time, relative to the calibrated one."""
        return float(self._factors(record["raised"], time, record["raised_at"]))

    def _factors(self, raised: Any, times: Any, moved_at: Any) -> Doubles:
        found: Doubles = np.exp(raised * np.exp2(-np.abs(times - moved_at) / self._half_life_s))
        return found

    def note_alarms(self, current: Records, slots: Slots, before: Flags, alarms: Flags, scores: Doubles) -> None:
        """Add the step of each stream to its alarm, if it has one. `before`: whether the step before was in alarm.

        scores (n,): by the calibrated threshold.
        """
        if not self.is_on or not alarms.any():
            return
        began = slots[alarms & ~before]
        for name in _EVENT_FIELDS:
            values = current[name][began]
            values[:, 1:] = values[:, :-1]
            values[:, 0] = 0
            current[name][began] = values
        current["alarm_begins"][began, 0] = current["time"][began]
        chosen = slots[alarms]
        current["alarm_ends"][chosen, 0] = current["time"][chosen]
        current["alarm_peaks"][chosen, 0] = np.fmax(current["alarm_peaks"][chosen, 0], scores[alarms])
        steps = current["alarm_steps"][chosen, 0] + 1
        mean = current["alarm_means"][chosen, 0]
        away = current["smoothed"][chosen] - current["center"][chosen]
        current["alarm_steps"][chosen, 0] = steps
        current["alarm_means"][chosen, 0] = mean + (away - mean) / steps[:, None]

    def _left(self, time: float, moved_at: float) -> float:
        """How much is left of a move. Where a clock was set back it decays too, so that it does not stay for years."""
        return math.pow(2.0, -abs(time - moved_at) / self._half_life_s)

    def _unexcused(self, record: Any, smoothed: Doubles) -> float:
        """The distance with the excused alarms in the covariance, relative to that without them.

        With W the inverse Cholesky factor of S, that of S + e e' is (I - a v v') W, v = W e, up to a rotation, with
        a = (1 - (1 + v'v)^-1/2) / v'v.
        """
        if not record["excused"].any():
            return 1.0
        whitening = np.array(record["whitening"])
        away = smoothed - record["center"]
        whole = _length(whitening, away)
        for excused, moved_at in zip(record["excused"], record["move_times"].tolist(), strict=True):
            left = math.sqrt(self._left(float(record["time"]), moved_at))
            white = (whitening * (excused * left)).sum(axis=1)
            size = float((white * white).sum())
            if size > 0:
                shrink = (1.0 - 1.0 / math.sqrt(1.0 + size)) / size
                whitening = whitening - shrink * white[:, None] * (white[:, None] * whitening).sum(axis=0)
        return _length(whitening, away) / whole if whole > 0 else 1.0

    # what commands change

    def move(
        self,
        record: Any,
        number: np.uint64,
        time: float,
        size: float,
        event: float = 0.0,
        excused: Doubles | None = None,
    ) -> None:
        """Move the threshold by the factor exp(size), within the bounds; `excused` (targets,) joins the covariance.

        number: of the command; time: of the stream, and event: of the first step of an alarm, in seconds since 1970.
        """
        most = math.log(self._most)
        now = float(record["raised"]) * self._left(time, float(record["raised_at"]))
        raised = min(max(now + size, -most), most)
        for name in _LISTED:
            values = record[name]
            values[1:] = values[:-1].copy()
        record["move_ids"][0], record["move_sizes"][0], record["move_times"][0] = number, raised - now, time
        record["move_events"][0], record["excused"][0] = event, 0.0 if excused is None else excused
        record["raised"], record["raised_at"], record["is_moved"] = raised, time, True

    def revert(self, record: Any, number: np.uint64, time: float) -> bool:
        """Take back what is left of a move. Returns whether it is among those that the record has."""
        places = np.flatnonzero(record["move_ids"] == number)
        if not places.size:
            return False
        place = int(places[0])
        size, moved_at = float(record["move_sizes"][place]), float(record["move_times"][place])
        now = float(record["raised"]) * self._left(time, float(record["raised_at"]))
        for name in _LISTED:
            values = record[name]
            values[place:-1] = values[place + 1 :].copy()
            values[-1] = 0
        record["raised"], record["raised_at"] = now - size * self._left(time, moved_at), time
        if not record["move_sizes"].any():  # nothing but rounding is left
            record["raised"] = 0.0
        record["is_moved"] = bool(record["raised"] != 0 or record["excused"].any())
        return True

    def to_peak(self, record: Any, event: int, time: float) -> float:
        """The size of the move that raises the threshold to the peak of an alarm; 0: it is there already."""
        now = float(record["raised"]) * self._left(time, float(record["raised_at"]))
        return max(math.log(max(float(record["alarm_peaks"][event]), 1.0)) - now, 0.0)

    def excusable(self, record: Any, event: int, calibrate_steps: int) -> Doubles:
        """(targets,): what the residuals of an alarm add to the covariance, by its share of all steps known usual."""
        steps = float(record["alarm_steps"][event])
        found: Doubles = record["alarm_means"][event] * math.sqrt(steps / (calibrate_steps + steps))
        return found

    def begin_calibration(self, record: Any) -> None:
        """Calibrate the detector again, without what was moved."""
        for name in ("calibrated", "threshold", "alarm", *MOVE_FIELDS, *_EVENT_FIELDS):
            record[name] = 0


_LISTED = ("move_ids", "move_sizes", "move_times", "move_events", "excused")  # the newest first
_EVENT_FIELDS = ("alarm_begins", "alarm_ends", "alarm_peaks", "alarm_steps", "alarm_means")  # the newest first


def _is_like_an_unmarked_alarm(record: Any, smoothed: Doubles) -> bool:
    """Whether of the former alarms with a similar residual at least half were not marked as false; False: no such.

    With one target all residuals are similar, and say nothing about the kind of an alarm: False.
    """
    if len(smoothed) < 2:
        return False
    first = 1 if record["alarm"] else 0  # the alarm that goes on is none
    whitening = record["whitening"]
    white = (whitening * (smoothed - record["center"])).sum(axis=1)
    means = (whitening * record["alarm_means"][first:, None, :]).sum(axis=2)
    lengths = np.sqrt((means * means).sum(axis=1) * float((white * white).sum()))
    alike = (means * white).sum(axis=1) > _ALIKE * lengths  # False for no alarm
    marked = np.isin(record["alarm_begins"][first:], record["move_events"])
    return bool(alike.any()) and 2 * int((alike & marked).sum()) <= int(alike.sum())


def _length(whitening: Doubles, away: Doubles) -> float:
    white = (whitening * away).sum(axis=1)
    return math.sqrt(float((white * white).sum()))


def record_fields(contract: Contract, rules: DecisionRules) -> list[tuple[str, str, tuple[int, ...]]]:
    """The fields (name, type, shape) of a stream's record for what an operator said."""
    if not rules.feedback:
        return []
    fields: list[tuple[str, str, tuple[int, ...]]] = [("maintenance", "f8", (2,)), ("maintenance_id", "u8", ())]
    if contract.alarm is None:
        return fields
    size = len(contract.targets)
    return [
        *fields,
        ("raised", "f8", ()),
        ("raised_at", "f8", ()),
        ("is_moved", "?", ()),
        ("move_ids", "u8", (MOVES,)),
        ("move_sizes", "f8", (MOVES,)),
        ("move_times", "f8", (MOVES,)),
        ("move_events", "f8", (MOVES,)),
        ("excused", "f8", (MOVES, size)),
        ("alarm_begins", "f8", (EVENTS,)),
        ("alarm_ends", "f8", (EVENTS,)),
        ("alarm_peaks", "f8", (EVENTS,)),
        ("alarm_steps", "f8", (EVENTS,)),
        ("alarm_means", "f8", (EVENTS, size)),
    ]


def start_values(rules: DecisionRules) -> dict[str, float]:
    """Start values of these fields other than 0."""
    return {"maintenance": math.nan} if rules.feedback else {}
