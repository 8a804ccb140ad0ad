"""All that a history knows of a task, from its first execution on."""

from __future__ import annotations

from datetime import UTC, datetime

from jobhistory.statistics.measures import Measures
from jobhistory.statistics.spans import Span

_LATEST = datetime.max.replace(tzinfo=UTC)


class TaskMeasures:
    """The measures of all executions of a task, also of those whose rows are gone.

    Attributes:
        since: the start of the month, in UTC, in which the first execution started.
        ended: the measures of the executions that have ended.
        running: the number of executions that run.
        running_since: the first of their starts; `None` if none runs.
    """

    __slots__ = ("ended", "running", "running_since", "since")

    def __init__(self) -> None:
        self.since = _LATEST
        self.ended = Measures()
        self.running = 0
        self.running_since: datetime | None = None

    def see_start(self, at: datetime) -> None:
        """Take note of the start of an execution, or of a bucket of executions."""
        self.since = min(self.since, Span.MONTH.start(at))

    def add_running(self, number: int, first: datetime, last: datetime) -> None:
        """Add executions that run, with the first and the last of their starts."""
        self._add_running(number, first)
        self.see_start(first)
        self.ended.see("last_started_at", last)

    def add(self, other: TaskMeasures) -> None:
        """Add the measures of another task."""
        self.ended.add(other.ended)
        self._add_running(other.running, other.running_since)

    def _add_running(self, number: int, since: datetime | None) -> None:
        self.running += number
        known = [each for each in (self.running_since, since) if each is not None]
        self.running_since = min(known, default=None)
