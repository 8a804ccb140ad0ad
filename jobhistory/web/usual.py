"""What is usual for a task: the range of its times, the rank of a run, and when it should end."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from markupsafe import Markup

from jobhistory._runtime.durations import took
from jobhistory.query.reports import Percentiles, TaskStats
from jobhistory.query.usual import Usual, week_before
from jobhistory.schema import HistoryRecord
from jobhistory.web.asking import Ask, ask
from jobhistory.web.charts import range_bar

_KEPT = timedelta(minutes=1)
_MOST_KEPT = 1000


def ask_week(tasks: Sequence[str], until: datetime, now: datetime) -> Ask:
    """Return the question for the statistics of tasks in the week before a time."""
    return ask("stats", week_before(tasks, until, now), reads="statistics of a week")


class UsualTimes:
    """The usual times of tasks, kept for a minute, because parts of a page ask again and again.

    Any number of threads may use it.
    """

    def __init__(self) -> None:
        self._known: dict[str, tuple[datetime, Usual | None]] = {}

    def knows(self, task: str, now: datetime) -> bool:
        """Return whether the usual times of a task were noted less than a minute ago."""
        noted = self._known.get(task)
        return noted is not None and timedelta() <= now - noted[0] < _KEPT

    def note(self, task: str, usual: Usual | None, now: datetime) -> None:
        """Keep the usual times of a task; `None` if they are not known."""
        if len(self._known) > _MOST_KEPT:
            self._known.clear()
        self._known[task] = now, usual

    def of(self, task: str) -> Usual | None:
        """Return the usual times of a task that were noted last."""
        return self._known.get(task, (None, None))[1]


@dataclass(frozen=True)
class Comparison:
    """A time of an execution, next to those of other executions of its task.

    Attributes:
        name: what takes the time.
        milliseconds: the time.
        longer_than: the number of others that took less.
        others: the number of others.
        usual: the usual times; `None` if they are not known.
        has_ended: whether the time is final.
    """

    name: str
    milliseconds: int
    longer_than: int
    others: int
    usual: Usual | None
    has_ended: bool = True

    @classmethod
    def of(
        cls,
        name: str,
        milliseconds: int | None,
        others: Iterable[int | None],
        usual: Usual | None,
        *,
        has_ended: bool = True,
    ) -> Comparison | None:
        """Return the comparison with the times of others; `None` if the time is not known."""
        if milliseconds is None:
            return None
        known = [each for each in others if each is not None]
        shorter = sum(each < milliseconds for each in known)
        return cls(name, milliseconds, shorter, len(known), usual, has_ended)

    @property
    def verdict(self) -> str:
        """How the time compares to the usual ones; empty if these are not known."""
        if self.usual is None:
            return ""
        return self.usual.verdict(self.milliseconds, has_ended=self.has_ended)

    @property
    def rank(self) -> str:
        """Which of the others took less, in words."""
        if not self.others:
            return "no other run to compare with"
        runs = "run" if self.others == 1 else f"{self.others} runs"
        return f"longer than {self.longer_than} of the last {runs} before it"

    @property
    def range(self) -> str:
        """The usual range in words; empty if it is not known."""
        return "" if self.usual is None else f"{took(self.usual.low)} to {took(self.usual.high)}"

    @property
    def bar(self) -> Markup | str:
        """The time on an axis, on which the usual range is shaded; empty if it is not known."""
        if self.usual is None:
            return ""
        return range_bar(self.milliseconds, self.usual.low, self.usual.high)


@dataclass(frozen=True)
class Expectation:
    """When a running execution should end.

    Attributes:
        likely: half of the runs of its task have ended by then.
        latest: nearly all have.
        is_overdue: whether that has passed.
    """

    likely: datetime
    latest: datetime
    is_overdue: bool

    @classmethod
    def of(cls, record: HistoryRecord, usual: Usual | None, now: datetime) -> Expectation | None:
        """Return the expectation for a running execution; `None` if usual times are not known."""
        if usual is None:
            return None
        try:
            likely, latest = (
                record.started_at + timedelta(milliseconds=each)
                for each in (usual.median, usual.high)
            )
        except OverflowError:
            return None
        return cls(likely, latest, now > latest)


def execution_times(stats: TaskStats) -> Percentiles:
    """Return the percentiles of the times to run."""
    return stats.execution_time_ms


def queue_times(stats: TaskStats) -> Percentiles:
    """Return the percentiles of the times in the queue."""
    return stats.queue_time_ms
