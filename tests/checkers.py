"""A checker whose history is known in advance, including what is yet to happen."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable
from datetime import datetime
from operator import attrgetter

from jobhistory.execution.ids import new_execution_id
from jobhistory.execution.status import Status
from jobhistory.expectations.expectation import Expectation
from jobhistory.expectations.facts import SEARCHED, Facts, Run, number_of_runs
from jobhistory.expectations.judging import judge
from jobhistory.expectations.verdicts import Checked

_started_at = attrgetter("started_at")
_SUCCESSES = (Status.COMPLETED, Status.PARTIAL_SUCCESS)


def completed(started_at: datetime, completed_at: datetime) -> Run:
    """Return a run that completes."""
    took = int((completed_at - started_at).total_seconds() * 1000)
    id_ = new_execution_id(started_at)
    return Run(id_, started_at, Status.COMPLETED, completed_at, took, 1, None)


class Checker:
    """Checks one expectation. At each time, it sees of history what has happened by then."""

    def __init__(
        self, expectation: Expectation, runs: Iterable[Run], declared_at: datetime
    ) -> None:
        self.expectation = expectation
        self.declared_at = declared_at
        self.checked_at: datetime | None = None
        self._runs = sorted(runs, key=_started_at)

    def check(self, now: datetime) -> Checked:
        """Return the verdicts at a time, which is not before that of the last check."""
        checked = judge(self.expectation, self.facts(now), now)
        self.checked_at = now
        return checked

    def facts(self, now: datetime) -> Facts:
        """Return what history knows at a time."""
        number = number_of_runs(self.expectation, self.declared_at, self.checked_at, now)
        begun = bisect_right(self._runs, now, key=_started_at)
        seen = [_as_of(run, now) for run in self._runs[max(0, begun - SEARCHED) : begun]][::-1]
        successes = [
            run.completed_at for run in seen if run.status in _SUCCESSES and run.completed_at
        ]
        return Facts(
            declared_at=self.declared_at,
            checked_at=self.checked_at,
            runs=tuple(seen[:number]),
            searched_from=seen[:number][-1].started_at if begun > number else None,
            running=tuple(run for run in seen if not run.is_ended),
            last_start=seen[0].started_at if seen else None,
            last_success=max(successes, default=None),
        )


def _as_of(run: Run, now: datetime) -> Run:
    if run.completed_at is None or run.completed_at <= now:
        return run
    return Run(run.id, run.started_at, Status.STARTED, None, None, run.attempt_number, None)
