"""Statistics of a history in memory, which outlive its rows."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping
from datetime import datetime
from typing import Any, NamedTuple, TypeAlias

from jobhistory.statistics.cover import NO_MARKS, Cover, Marks
from jobhistory.statistics.ended import Ended
from jobhistory.statistics.keeping import Keeping
from jobhistory.statistics.measures import COUNTS, Measures, Times
from jobhistory.statistics.spans import Span
from jobhistory.typing import Clock

QUEUE_LIMIT = 1000
"""The number of executions that are counted one by one before they are folded."""

BUCKETS_LIMIT = 20_000
"""The maximum number of hours of all tasks, and of their days. The oldest go first.

A bucket takes about 1,400 bytes.
"""

_Key: TypeAlias = tuple[str, datetime]
_Stored: TypeAlias = tuple[int, int | None, bytes]


class _Bucket(NamedTuple):
    """Measures in a form that takes little memory."""

    counts: tuple[int, ...]
    last: tuple[datetime | None, ...]
    execution_time: _Stored
    queue_time: _Stored

    @classmethod
    def of(cls, measures: Measures) -> _Bucket:
        return cls(
            tuple(measures.counts.values()),
            tuple(measures.last.values()),
            _stored(measures.execution_time),
            _stored(measures.queue_time),
        )

    def measures(self) -> Measures:
        measures = Measures()
        measures.counts = dict(zip(measures.counts, self.counts, strict=True))
        measures.last = dict(zip(measures.last, self.last, strict=True))
        measures.execution_time.add_stored(*self.execution_time)
        measures.queue_time.add_stored(*self.queue_time)
        measures.is_exact = False
        return measures


class Rollups:
    """The queue of executions that have ended, and what is folded of them.

    It is not thread-safe: hold the lock of the rows.

    Attributes:
        queue: the executions that are not folded yet.
        marks: the times from which everything is kept.
    """

    def __init__(self, clock: Clock, keeping: Keeping) -> None:
        self._clock = clock
        self._keeping = keeping
        self.queue: list[Ended] = []
        self.marks: Marks = NO_MARKS
        self._buckets: dict[Span, dict[_Key, _Bucket]] = {span: {} for span in Span}

    def add(self, executions: Iterable[Ended]) -> None:
        """Count executions."""
        self.queue += executions
        if len(self.queue) >= QUEUE_LIMIT:
            self.fold()

    def lose(self, row: Mapping[str, Any]) -> None:
        """Take note of a row that is no longer in memory."""
        rows_from = self.marks.rows_from
        if rows_from is None or row["started_at"] >= rows_from:
            start = Span.HOUR.start(row["started_at"])
            self.marks = self.marks._replace(rows_from=Span.HOUR.next(start))

    def fold(self) -> None:
        """Add the queue to the buckets, and forget old buckets."""
        measured: defaultdict[_Key, Measures] = defaultdict(Measures)
        for each in self.queue:
            measured[each.task_identifier, Span.HOUR.start(each.started_at)].count(each)
        for (task, hour), measures in measured.items():
            for span, buckets in self._buckets.items():
                key = (task, span.start(hour))
                bucket = buckets[key].measures() if key in buckets else Measures()
                bucket.add(measures)
                buckets[key] = _Bucket.of(bucket)
        self.queue = []
        self._prune()

    def read(
        self, cover: Cover, tasks: Collection[str] | None
    ) -> Iterator[tuple[str, datetime, Measures]]:
        """Yield the task, the start and the measures of each bucket in a cover."""
        for span, window in cover.buckets:
            for (task, start), bucket in self._buckets[span].items():
                if window.holds(start) and (tasks is None or task in tasks):
                    yield task, start, bucket.measures()

    def counted_hours(self, task: str) -> tuple[datetime, ...]:
        """Return the last start in each hour that has executions of a task without a row."""
        place = COUNTS.index("unstored")
        last = (
            bucket.measures().last["last_started_at"]
            for (name, _), bucket in self._buckets[Span.HOUR].items()
            if name == task and bucket.counts[place] > 0
        )
        return tuple(at for at in last if at is not None)

    def holds_unstored(self, cover: Cover, tasks: Collection[str] | None) -> bool:
        """Return whether the hours at the edges of a cover hold executions without a row."""
        hours = cover.hours_of_edges

        def is_asked(task: str, moment: datetime) -> bool:
            return (tasks is None or task in tasks) and any(hour.holds(moment) for hour in hours)

        place = COUNTS.index("unstored")
        return any(
            bucket.counts[place] > 0 and is_asked(*key)
            for key, bucket in self._buckets[Span.HOUR].items()
        ) or any(
            not each.is_stored and is_asked(each.task_identifier, each.started_at)
            for each in self.queue
        )

    def _prune(self) -> None:
        wanted = self._keeping.marks(self._clock())
        self.marks = self.marks._replace(
            hours_from=self._keep(
                Span.HOUR, Span.DAY, _later(self.marks.hours_from, wanted.hours_from)
            ),
            days_from=self._keep(
                Span.DAY, Span.MONTH, _later(self.marks.days_from, wanted.days_from)
            ),
        )

    def _keep(self, span: Span, unit: Span, mark: datetime | None) -> datetime | None:
        """Forget the buckets that started before a time, and return it.

        If there are too many, it is the start of a later unit.
        """
        buckets = self._buckets[span]
        if len(buckets) > BUCKETS_LIMIT:
            begun = sorted(start for _, start in buckets)
            enough = unit.next(unit.start(begun[len(begun) - BUCKETS_LIMIT]))
            mark = enough if mark is None else max(mark, enough)
        if mark is not None:
            for key in [key for key in buckets if key[1] < mark]:
                del buckets[key]
        return mark


def _stored(times: Times) -> _Stored:
    return times.sum, times.max, times.histogram.to_bytes()


def _later(mark: datetime | None, other: datetime | None) -> datetime | None:
    """Return the later of two marks, because a mark never moves back."""
    known = [each for each in (mark, other) if each is not None]
    return max(known, default=None)
