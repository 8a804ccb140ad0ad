"""What a check reads from history about a task: a bounded number of its executions."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime
from uuid import UUID

from jobhistory.execution.status import Status
from jobhistory.expectations.expectation import Expectation
from jobhistory.expectations.schedule import MOST_SLOTS

FEWEST_RUNS = 100
"""The number of executions that a check reads at least, the newest ones."""

SEARCHED = 1000
"""The number of executions, the newest ones, among which a check searches for running ones and for
a success."""


@dataclass(frozen=True)
class Run:
    """What a check needs to know of an execution."""

    id: UUID
    started_at: datetime
    status: Status
    completed_at: datetime | None
    execution_time_ms: int | None
    attempt_number: int | None
    will_retry: bool | None

    @property
    def is_ended(self) -> bool:
        """Whether it has ended."""
        return self.status is not Status.STARTED

    @property
    def is_final_failure(self) -> bool:
        """Whether it failed, and is not to be tried again."""
        return self.status is Status.FAILED and not self.will_retry

    @property
    def is_final(self) -> bool:
        """Whether its outcome tells if the task works: not if it was cancelled or is retried."""
        return self.status in (Status.COMPLETED, Status.PARTIAL_SUCCESS) or self.is_final_failure

    @property
    def is_first_attempt(self) -> bool:
        """Whether it is not a repetition."""
        return self.attempt_number is None or self.attempt_number <= 1


@dataclass(frozen=True)
class Facts:
    """What history knows about the task of an expectation.

    Attributes:
        declared_at: when the expectation was declared. Nothing was expected before.
        checked_at: the time of the last check; `None` if there was none.
        runs: the newest executions, newest first.
        searched_from: when the oldest execution of the task started that was looked at; `None` if
            that were all in history.
        running: executions that have not ended, newest first.
        rows_from: no execution that started since has been deleted; `None` if none was at all, or
            if the task has never started.
        last_start, last_success: from executions and statistics, so also if its row is gone.
        counted: for each hour in which statistics count executions without a row, its last start.
    """

    declared_at: datetime
    checked_at: datetime | None = None
    runs: tuple[Run, ...] = ()
    searched_from: datetime | None = None
    running: tuple[Run, ...] = ()
    rows_from: datetime | None = None
    last_start: datetime | None = None
    last_success: datetime | None = None
    counted: tuple[datetime, ...] = ()

    def until(self, moment: datetime) -> Facts:
        """Return these facts without what seems to have started later, by a wrong clock."""
        if self.last_start is None or self.last_start <= moment:
            return self
        runs = tuple(run for run in self.runs if run.started_at <= moment)
        return replace(
            self,
            runs=runs,
            running=tuple(run for run in self.running if run.started_at <= moment),
            last_start=runs[0].started_at if runs else None,
            counted=tuple(end for end in self.counted if end <= moment),
        )


def number_of_runs(
    expectation: Expectation, declared_at: datetime, checked_at: datetime | None, now: datetime
) -> int:
    """Return how many executions to read, so that none since the last check is missing."""
    schedule = expectation.schedule
    if schedule is None:
        return FEWEST_RUNS
    since = (checked_at or declared_at) - expectation.grace
    return FEWEST_RUNS + min(MOST_SLOTS, len(schedule.slots((), since, now)))
