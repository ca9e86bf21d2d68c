"""What answers a command: JSON with what changed, in words and numbers, or with the reason of a refusal."""

from __future__ import annotations

import json

from edge_lstm.foundation.times.text import format_time
from edge_lstm.service.feedback.applying import Change
from edge_lstm.service.feedback.commands import CommandError
from edge_lstm.streaming.reading import Command


def taken(command: Command, change: Change, most: float) -> str:
    """The answer to a command that was taken. Factors are relative to the calibrated threshold."""
    facts: dict[str, object] = {"id": command.id, "ok": True, "command": command.kind, "stream": command.stream}
    if change.before is not None and change.after is not None:
        facts["threshold"] = {"before": round(change.before, 6), "after": round(change.after, 6), "most": most}
    if command.kind == "maintenance":
        facts["until"] = format_time(command.facts["until"])
    if command.kind == "recalibrate":
        facts["steps"] = change.steps
    return json.dumps({**facts, "text": _words(command, change)})


def refused(error: CommandError) -> str:
    """The answer to a command that was refused."""
    named = {} if error.command_id is None else {"id": error.command_id}
    return json.dumps({**named, "ok": False, "error": error.message, "hint": error.hint})


def _words(command: Command, change: Change) -> str:
    stream, facts = command.stream, command.facts
    if command.kind == "maintenance":
        until = format_time(facts["until"])
        return f"{stream}: no alarms and nothing learned until {until}; the state goes on"
    if command.kind == "sensor_replaced":
        return f"{stream}: the state restarts, and alarms are calibrated again, after {facts['sensor']} was replaced"
    if command.kind == "recalibrate":
        if facts["readings"]:
            return (
                f"{stream}: begins as a new device at {format_time(facts['from'])}, with {facts['readings']:,} kept "
                f"readings ({change.steps:,} steps)"
            )
        why = "" if facts["reaches"] else f", since the history does not reach {format_time(facts['from'])}"
        return f"{stream}: begins as a new device now{why}"
    if change.before is None or change.after is None:
        return f"{stream}: {_unmoved(command)}"
    also = "; the residuals of the event count as usual" if facts.get("residuals") else ""
    return f"{stream}: threshold {change.after:.3g} times the calibrated one, before {change.before:.3g} times{also}"


def _unmoved(command: Command) -> str:
    if command.kind == "revert":
        return f"the command {command.facts['of']} does not hold any more"
    if command.kind == "false_alarm" and not command.facts["moves"]:
        return "kept as a label only; the event is too long ago to move the threshold"
    if command.facts.get("residuals"):
        return "the threshold stays, the residuals of the event count as usual"
    return "kept as a label; the threshold stays"
