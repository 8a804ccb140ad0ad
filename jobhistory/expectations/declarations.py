"""Expectations that were declared, and are checked."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from jobhistory._runtime.plain_json import plain_json
from jobhistory.expectations.expectation import Expectation


@dataclass(frozen=True)
class DeclaredExpectation:
    """An expectation that was declared.

    Attributes:
        expectation: what is expected.
        source: where it was imported from, such as `"crontab:/etc/crontab"`; `None` if code or a
            person declared it.
        declared_at: when it was declared, or its schedule last changed. Nothing is expected before.
        checked_at: the time of the last check; `None` if there was none.
    """

    expectation: Expectation
    source: str | None
    declared_at: datetime
    checked_at: datetime | None = None

    def changed_to(self, wanted: DeclaredExpectation) -> DeclaredExpectation:
        """Return what to store if it is declared again. It starts over if its schedule changes.

        A pause stays unless the new expectation has one, as an app that declares it at each start
        knows nothing of it.
        """
        paused, wanted_expectation = self.expectation.paused_until, wanted.expectation
        if paused is not None and wanted_expectation.paused_until is None:
            values = wanted_expectation.to_dict() | {"paused_until": paused}
            wanted = replace(wanted, expectation=Expectation.of(values))
        if self.expectation.schedule != wanted.expectation.schedule:
            return wanted
        return replace(wanted, declared_at=self.declared_at, checked_at=self.checked_at)

    def to_dict(self) -> dict[str, Any]:
        """Return all fields, for JSON."""
        return self.expectation.to_dict() | {
            "name": self.expectation.name,
            "source": self.source,
            "declared_at": plain_json(self.declared_at),
            "checked_at": plain_json(self.checked_at),
        }
