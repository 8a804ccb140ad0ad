"""Which started executions of a task still run, and which ones have lost their worker."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, NamedTuple

from jobhistory._runtime.clock import before
from jobhistory.execution.status import Status
from jobhistory.query.criteria import HistoryQuery
from jobhistory.query.lost import LostQuery

if TYPE_CHECKING:
    from jobhistory.schema import HistoryRecord

AT_ONCE = 100
"""The maximum number of started executions that are read at a time."""


class Claim(NamedTuple):
    """The result of an attempt to start an execution while no other one of its task runs.

    Attributes:
        holder: the execution that runs, so that the new one has not started; `None` if it has.
        lost: the earlier executions of the task that were marked as lost.
    """

    holder: HistoryRecord | None
    lost: list[HistoryRecord]


@dataclass(frozen=True)
class Overlap:
    """How to tell which started executions of a task still run.

    An execution is lost if its processes have ended. If nobody can know that here, it is lost if
    its heartbeats have stopped. Without heartbeats, it counts as running.

    Attributes:
        task_identifier: the task.
        is_running: returns whether a process of an execution runs; `None` if nobody can know here.
            It is called inside of a transaction, so it must not take long.
        heartbeat_older_than: how long ago the last heartbeat of a lost execution is at least.
    """

    task_identifier: str
    is_running: Callable[[HistoryRecord], bool | None]
    heartbeat_older_than: timedelta

    @property
    def query(self) -> HistoryQuery:
        """The criteria of the executions to judge: the oldest ones that have not ended."""
        return HistoryQuery(
            task_identifier=(self.task_identifier,),
            status=(Status.STARTED,),
            order="oldest",
            limit=AT_ONCE,
        )

    def lost_among(self, records: Iterable[HistoryRecord], now: datetime) -> list[LostQuery]:
        """Return the searches that find those of these started executions that are lost."""
        heartbeat_before = before(now, self.heartbeat_older_than)
        ended, silent = set(), set()
        for record in records:
            is_running = self.is_running(record)
            beat = record.heartbeat_at
            if is_running is False:
                ended.add(record.id)
            elif is_running is None and beat is not None and beat <= heartbeat_before:
                silent.add(record.id)
        found = LostQuery(self.query, None, None, ids=frozenset(ended))
        stopped = LostQuery(self.query, None, None, heartbeat_before, ids=frozenset(silent))
        return [lost for lost in (found, stopped) if lost.ids]

    def cleared(
        self,
        find: Callable[[], list[HistoryRecord]],
        end: Callable[[list[HistoryRecord]], list[HistoryRecord]],
    ) -> Claim:
        """End all executions that are lost; return them, and one that runs, if any.

        Args:
            find: returns the records of `query`.
            end: ends those of these records that are lost, and returns them.
        """
        lost: list[HistoryRecord] = []
        while True:
            found = find()
            ended = end(found)
            lost += ended
            ids = {record.id for record in ended}
            running = [record for record in found if record.id not in ids]
            if running or len(found) < AT_ONCE:
                return Claim(next(iter(running), None), lost)
