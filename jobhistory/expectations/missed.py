"""Runs that did not happen, for lists of those that did."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Self

from jobhistory._runtime.clock import before
from jobhistory.expectations.incidents import Incident
from jobhistory.expectations.verdicts import Problem
from jobhistory.query.criteria import HistoryQuery, replace
from jobhistory.query.cursor import Cursor, Page

if TYPE_CHECKING:
    from jobhistory.schema import HistoryRecord

_WITHOUT_START = (Problem.MISSED, Problem.NEVER_RAN)
_MOST_INCIDENTS = 1000
_INSTANT = timedelta(microseconds=1)
_FOUND_WITHIN = timedelta(days=7)
_LATEST = datetime.max.replace(tzinfo=UTC) - _FOUND_WITHIN


@dataclass(frozen=True)
class MissedRun:
    """A run that was due and did not start.

    Attributes:
        due_at: when it was due.
        task_identifier: the task.
        incident: the incident that tells of it.
    """

    due_at: datetime
    task_identifier: str
    incident: Incident


@dataclass(frozen=True)
class MissedTime:
    """The time in which to look for missed runs.

    Attributes:
        after: when it begins; a run due right then is left out. `None` for the beginning.
        until: when it ends; a run due right then is included.
        task_identifier: the tasks; `None` for all.
    """

    after: datetime | None
    until: datetime
    task_identifier: tuple[str, ...] | None = None

    @classmethod
    def of_page(
        cls, query: HistoryQuery, page: Page, after: str | None, now: datetime
    ) -> Self | None:
        """Return the time that a page of a list covers, so that each missed run is on one page.

        It is `None` if the criteria are about what only executions have, such as a worker.

        Args:
            query: the criteria of the list, with an order.
            page: the page.
            after: the cursor of the page.
        """
        known = HistoryQuery(from_=query.from_, to=query.to, task_identifier=query.task_identifier)
        if known != replace(query, order=known.order, limit=known.limit):
            return None
        start = None if after is None else Cursor.from_text(after, query, "after").started_at
        end = page.records[-1].started_at if page.next_cursor else None
        first, last = (start, end) if query.order == "oldest" else (end, start)
        if first is None and query.from_ is not None:
            first = before(query.from_, _INSTANT)
        return cls(first, last or query.to or now, query.task_identifier)

    @property
    def criteria(self) -> dict[str, Any]:
        """The arguments of `store.incidents` that find what tells of the missed runs.

        Incidents open after the runs were due: within a week, if checks run as often.
        """
        return {
            "from_": self.after,
            "to": None if self.until > _LATEST else self.until + _FOUND_WITHIN,
            "task_identifier": self.task_identifier,
            "problem": _WITHOUT_START,
            "limit": _MOST_INCIDENTS,
        }

    def missed_runs(self, incidents: Iterable[Incident], *, most: int = 100) -> list[MissedRun]:
        """Return the runs that were missed in this time, newest first; at most the newest ones."""
        found = {
            (slot, incident.expectation): MissedRun(slot, incident.task_identifier, incident)
            for incident in incidents
            for slot in incident.slots
            if (self.after is None or slot > self.after) and slot <= self.until
        }
        newest = sorted(found, reverse=True)[:most]
        return [found[key] for key in newest]


def among(
    records: Iterable[HistoryRecord], missed: Iterable[MissedRun], *, order: str | None
) -> list[HistoryRecord | MissedRun]:
    """Return executions and missed runs in the order of a list."""
    return sorted([*records, *missed], key=_moment, reverse=order != "oldest")


def _moment(entry: HistoryRecord | MissedRun) -> datetime:
    return entry.due_at if isinstance(entry, MissedRun) else entry.started_at
