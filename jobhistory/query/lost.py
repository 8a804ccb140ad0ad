"""The criteria of executions whose worker is presumed lost."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from jobhistory._runtime.clock import before, in_utc
from jobhistory._runtime.durations import parse_duration
from jobhistory.errors import InvalidInput
from jobhistory.query import criteria
from jobhistory.query.criteria import HistoryQuery
from jobhistory.typing import Duration

_MICROSECOND = timedelta(microseconds=1)


@dataclass(frozen=True)
class LostQuery:
    """A search for started executions whose worker is presumed lost.

    Attributes:
        query: the other criteria; its `limit` is the size of a batch.
        older_than: the least time since the start; `None` for any.
        heartbeat_older_than: the least time since the last heartbeat; `None` for any, also without
            heartbeats.
        heartbeat_before: the latest time of the last heartbeat, once it is known; see `at`.
        ids: the ids of the executions to search; `None` for all.
    """

    query: HistoryQuery
    older_than: timedelta | None
    heartbeat_older_than: timedelta | None
    heartbeat_before: datetime | None = None
    ids: frozenset[UUID] | None = None

    @classmethod
    def of(
        cls,
        older_than: Duration | None,
        heartbeat_older_than: Duration | None,
        started_before: datetime | None,
        **named: Any,
    ) -> LostQuery:
        """Return the search for a caller's arguments.

        Raises:
            InvalidInput: if one of them is invalid, or if all three times are `None`.
        """
        if older_than is None and heartbeat_older_than is None and started_before is None:
            raise InvalidInput(
                "older_than",
                None,
                "is missing; write it like '2h', or pass heartbeat_older_than or started_before",
            )
        to = None
        if started_before is not None:
            to = before(in_utc(started_before, "started_before"), _MICROSECOND)
        return cls(
            HistoryQuery(to=to, **named),
            _duration(older_than, "older_than"),
            _duration(heartbeat_older_than, "heartbeat_older_than"),
        )

    def at(self, now: datetime) -> LostQuery:
        """Return the search with times in place of durations."""
        query, heartbeat_before = self.query, None
        if self.older_than is not None:
            to = before(now, self.older_than)
            query = criteria.replace(query, to=to if query.to is None else min(to, query.to))
        if self.heartbeat_older_than is not None:
            heartbeat_before = before(now, self.heartbeat_older_than)
        return replace(self, query=query, heartbeat_before=heartbeat_before)


def _duration(value: Duration | None, argument: str) -> timedelta | None:
    return None if value is None else parse_duration(value, argument)
