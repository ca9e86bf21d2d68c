"""Spans of batches: which bundle stepped the readings, and by which rules."""

from __future__ import annotations

import json
import logging
import sqlite3
from typing import Any, NamedTuple

from edge_lstm.decisions.rules import DecisionRules
from edge_lstm.foundation.errors import EdgeLstmError
from edge_lstm.service.database.checksums import span_checksum

log = logging.getLogger(__name__)

_AFTER_ALL_BATCHES = 1 << 62  # later than any batch
_UNKNOWN = ""  # no bundle has this name
_DECISIONS = "decision_rules"
_RELEASE = "release"  # beside the rules of a span: the release that stepped its readings; left out since 0.2.0


class SteppingRules(NamedTuple):
    """How late and repeated readings are stepped (arguments of `Predictor`). A replay uses those of the service.

    A database stores them by name. A field needs a default, which databases from before it have.
    """

    max_rewind: int = 0
    window: int = 0
    join_within_s: float | None = None
    max_steps: int = 0
    decision_rules: DecisionRules = DecisionRules()


class Span(NamedTuple):
    """Batches from `since` to before `until`, and their rules: (first batch, rules), the latest first.

    There are no rules if the bundle never ran. Release 0.1.0 stepped the batches before `former_until`.
    """

    since: int = 0
    until: int = _AFTER_ALL_BATCHES
    rules: tuple[tuple[int, SteppingRules], ...] = ()
    former_until: int = 0


def rules_text(rules: SteppingRules, release: str | None = None) -> str:
    """The rules as JSON, by name. `release`: the one that stepped by them; None: this one."""
    return json.dumps({**_by_names(rules), **({} if release is None else {_RELEASE: release})})


def _by_names(rules: SteppingRules) -> dict[str, Any]:
    return {**rules._asdict(), _DECISIONS: rules.decision_rules._asdict()}


def rules_of(text: str) -> SteppingRules:
    """The rules of `rules_text`. Raises EdgeLstmError if they are damaged or have one that is unknown here."""
    found = _by_name(text)
    if found is not None:
        found.pop(_RELEASE, None)
    else:
        raise EdgeLstmError(
            f"expected stepping rules as JSON in the state database, found {text!r}",
            "replay a recording instead; the table spans of the database is damaged",
        )
    decided = found.pop(_DECISIONS, {})
    unknown = sorted({*found} - {*SteppingRules._fields} | {*decided} - {*DecisionRules._fields})
    if unknown:
        known = ", ".join([*SteppingRules._fields, *DecisionRules._fields])
        raise EdgeLstmError(
            f"expected stepping rules among {known}, found {', '.join(unknown)}",
            "run the later edge-lstm that wrote the state database",
        )
    return SteppingRules(**found, decision_rules=DecisionRules(**decided))


def begin_span(database: sqlite3.Connection, first: int, bundle: str, rules: SteppingRules) -> None:
    """Record that batches from `first` on are stepped by this bundle and these rules."""
    last = database.execute("select since, bundle, rules, checksum from spans order by since desc limit 1").fetchone()
    if last is None and first > 1:  # each start records one
        log.error("history damaged, it is not known which bundle stepped the batches before %d", first)
    is_ours = last is not None and last[1] == bundle and _is_right(*last)
    stored = _by_name(last[2]) if is_ours else None
    if stored is None or _with_defaults(stored) != _by_names(rules):
        text = rules_text(rules)
        row = (first, bundle, text, span_checksum(first, bundle, text))
        database.execute("insert or replace into spans values (?, ?, ?, ?)", row)


def _with_defaults(stored: dict[str, Any]) -> dict[str, Any]:
    """Stored rules by name, with those that were added after they were written."""
    former = _by_names(SteppingRules())
    return {**former, **stored, _DECISIONS: {**former[_DECISIONS], **stored.get(_DECISIONS, {})}}


def _is_right(since: object, bundle: object, rules: object, kept: object) -> bool:
    return span_checksum(since, bundle, rules) == kept


def _by_name(text: str) -> dict[str, Any] | None:
    """None if the text is damaged."""
    try:
        found = json.loads(text)
    except ValueError:
        return None
    return found if isinstance(found, dict) else None


def last_span(database: sqlite3.Connection, form: int, bundle: str) -> Span:
    """The last time that the bundle ran, in a database of this form."""
    since = until = end = _AFTER_ALL_BATCHES
    rules: list[tuple[int, SteppingRules]] = []
    former_until = 0
    for begun, of_bundle, *stored in database.execute("select * from spans order by since desc"):
        if form > 1 and not _is_right(begun, of_bundle, *stored):
            log.warning("history damaged, it is not known which bundle stepped the batches from %s on", begun)
            of_bundle = _UNKNOWN
        if of_bundle == bundle:
            is_former = form <= 1 or _RELEASE in (_by_name(stored[0]) or {})
            former_until = former_until or (end if is_former else 0)
            since = end = begun
            rules.append((begun, rules_of(stored[0]) if form > 1 else SteppingRules(*stored)))
        elif not rules:
            until = end = begun
        else:
            break
    return Span(since, until, tuple(rules), former_until) if rules else Span()
