"""The state of an execution, without its contents, by which followers notice changes."""

from __future__ import annotations

from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

from jobhistory.execution.outcome import WORKER_LOST
from jobhistory.execution.status import Status
from jobhistory.query.criteria import HistoryQuery, replace


class Mark(NamedTuple):
    """How far an execution is.

    Attributes:
        is_lost: whether its worker is presumed lost, so that a real outcome may follow.
    """

    id: UUID
    started_at: datetime
    status: Status
    completed_at: datetime | None
    is_lost: bool

    @classmethod
    def of(cls, execution: Any) -> Mark:
        """Return the mark of a record, or of a row with its attributes."""
        return cls(
            execution.id,
            execution.started_at,
            execution.status,
            execution.completed_at,
            execution.error_type == WORKER_LOST,
        )

    @property
    def changed_at(self) -> datetime:
        """The time of its last change: the end or, until then, the start."""
        return self.started_at if self.completed_at is None else self.completed_at

    @property
    def may_change(self) -> bool:
        """Whether an outcome may follow."""
        return self.status is Status.STARTED or self.is_lost


def lasting(query: HistoryQuery) -> HistoryQuery:
    """Return the criteria that an execution meets from its start to its end, or never."""
    return replace(
        query, status=None, error_type=None, error_contains=None, min_execution_time_ms=None
    )
