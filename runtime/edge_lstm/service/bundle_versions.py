"""Which bundles a service has run: it refuses an older version than the highest, but may go back to the one before.

The record is text in the state database. A database that is lost or replaced has no memory of versions.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from edge_lstm.bundle.archive import Bundle
from edge_lstm.foundation.errors import BundleError

log = logging.getLogger(__name__)

_MOST_FAILED = 20


@dataclass(frozen=True)
class InstalledBundle:
    """A bundle that ran. `name` is empty where only its id is known."""

    id: str
    name: str = ""
    version: int = 0


@dataclass(frozen=True)
class BundleVersions:
    """The bundle that runs, the one before it, the highest version by name, and those that were given up."""

    now: InstalledBundle | None = None
    before: InstalledBundle | None = None
    highest: Mapping[str, int] = field(default_factory=dict)
    failed: tuple[InstalledBundle, ...] = ()

    @staticmethod
    def from_text(text: str | None, former_id: str | None) -> BundleVersions:
        """The record; `former_id`: of the bundle that ran last, if there is no record."""
        if text is None:
            return BundleVersions(None if former_id is None else InstalledBundle(former_id))
        try:
            facts: Mapping[str, Any] = json.loads(text)
            now, before = (None if facts[key] is None else InstalledBundle(**facts[key]) for key in ("now", "before"))
            failed = tuple(InstalledBundle(**one) for one in facts["failed"])
            return BundleVersions(now, before, dict(facts["highest"]), failed)
        except (ValueError, KeyError, TypeError):  # of a later release
            log.error("the record of bundle versions is not readable, it begins again: %.200s", text)
            return BundleVersions.from_text(None, former_id)

    @property
    def text(self) -> str:
        """The record as text."""
        return json.dumps(asdict(self), sort_keys=True)

    def after(self, bundle: Bundle, allow_downgrade: bool) -> BundleVersions:
        """The record once `bundle` runs. Raises BundleError if it is older than the highest version of its name."""
        new = InstalledBundle(bundle.id, bundle.contract.name, bundle.manifest.version)
        highest = self.highest.get(new.name, 0)
        known = {**self.highest, new.name: max(new.version, highest)}
        if self.now is not None and self.now.id == new.id:
            return BundleVersions(new, self.before, known, self.failed)
        goes_back = self.before is not None and self.before.id == new.id
        if new.version < highest and not goes_back:
            if not allow_downgrade:
                raise BundleError(
                    f"{bundle.source}: expected version {highest} or a later one of {new.name}, "
                    f"found version {new.version}",
                    "export a newer one with --version, or start once with edge-lstm run --allow-downgrade",
                )
            log.warning("older bundle allowed version=%d highest=%d", new.version, highest)
        failed = self.failed
        if goes_back and self.now is not None and self.now.version > new.version:
            log.warning("back to the bundle before, remembered as failed version=%d", self.now.version)
            failed = (self.now, *(one for one in failed if one.id != self.now.id))[:_MOST_FAILED]
        elif new.id in {one.id for one in failed}:
            log.warning("this bundle was given up before version=%d id=%s", new.version, new.id)
        return BundleVersions(new, self.now, known, failed)
