"""Reports that follow from statistics, in every kind of history."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from typing import NamedTuple, TypeAlias

from jobhistory.query.criteria import HistoryQuery, replace
from jobhistory.query.reports import FIRST_BUCKET, PERCENTILES, Percentiles, TaskStats
from jobhistory.statistics.cover import Cover, Marks, cover, spans_within
from jobhistory.statistics.measures import Measures, Times

Key: TypeAlias = tuple[str, datetime | None]
"""A task and, in a series, the start of a bucket."""

_ALL = HistoryQuery()


class Question(NamedTuple):
    """A question that statistics may answer without reading all rows.

    Attributes:
        query: the criteria.
        bucket: the length of a bucket of a series.
        now: the current time.
    """

    query: HistoryQuery
    bucket: timedelta | None
    now: datetime

    def cover(self, marks: Marks, *, needs_no_rows: bool = False) -> Cover | None:
        """Return how whole buckets cover the window; `None` if none fits into it."""
        return cover(
            self.query.from_,
            self.query.to,
            now=self.now,
            spans=spans_within(self.bucket),
            marks=marks,
            needs_no_rows=needs_no_rows,
        )

    @property
    def may_be_covered(self) -> bool:
        """Whether buckets may cover the window."""
        return bool(spans_within(self.bucket))

    def key_of(self, task: str, moment: datetime | None) -> Key:
        """Return the task and the start of the bucket that contains a time."""
        if self.bucket is None or moment is None:
            return (task, None)
        return (task, moment - (moment - FIRST_BUCKET) % self.bucket)


def is_of_known(query: HistoryQuery, *also: str) -> bool:
    """Return whether the criteria are those that statistics know: the window, tasks, and `also`."""
    known = ("from_", "to", "task_identifier", "order", "limit", *also)
    return query == replace(_ALL, **{name: getattr(query, name) for name in known})


def stats_of(
    question: Question,
    marks: Marks,
    read: Callable[[Cover], Mapping[Key, Measures]],
    holds_unstored: Callable[[Cover], bool],
) -> list[TaskStats] | None:
    """Return the statistics of each task and bucket; `None` if only rows can answer.

    Args:
        question: the question.
        marks: the times from which everything is kept.
        read: returns what is in a cover.
        holds_unstored: returns whether the hours at the edges of a cover hold executions that were
            never stored.
    """
    covered = _covered(question, marks, holds_unstored)
    if covered is None:
        return None
    found = read(covered)
    return [
        _task_stats(key, measures, is_wider=covered.is_wider)
        for key, measures in sorted(found.items(), key=_by_name_and_time)
        if measures.executions > 0
    ]


def count_of(
    question: Question,
    marks: Marks,
    read: Callable[[Cover], int],
    holds_unstored: Callable[[Cover], bool],
) -> int | None:
    """Return the number of executions; `None` if only rows can answer.

    Args:
        question, marks, holds_unstored: as for `stats_of`.
        read: returns the number of executions in a cover.
    """
    covered = _covered(question, marks, holds_unstored)
    return None if covered is None else read(covered)


def _covered(
    question: Question, marks: Marks, holds_unstored: Callable[[Cover], bool]
) -> Cover | None:
    covered = question.cover(marks)
    # Without rows, only whole buckets count executions that were never stored.
    if covered is not None and covered.edges and holds_unstored(covered):
        return question.cover(marks, needs_no_rows=True) or covered
    return covered


def _by_name_and_time(item: tuple[Key, Measures]) -> tuple[str, datetime]:
    (task, bucket), _ = item
    return task, bucket or FIRST_BUCKET


def _task_stats(key: Key, measures: Measures, *, is_wider: bool) -> TaskStats:
    counts, last = measures.counts, measures.last
    last_start = last["last_started_at"]
    assert last_start is not None  # as something started
    return TaskStats(
        *key,
        executions=measures.executions,
        started=measures.started,
        completed=counts["completed"],
        failed=counts["failed"],
        partial_success=counts["partial_success"],
        cancelled=counts["cancelled"],
        final_failures=counts["failed"] - counts["retried"],
        lost=counts["lost"],
        execution_time_ms=_percentiles(measures.execution_time),
        queue_time_ms=_percentiles(measures.queue_time),
        last_start=last_start,
        last_success=last["last_completed_at"],
        last_failure=last["last_failed_at"],
        is_exact=measures.is_exact and not is_wider,
    )


def _percentiles(times: Times) -> Percentiles:
    p5, p50, p95, p99 = times.percentiles(PERCENTILES)
    return Percentiles(p5, p50, p95, p99, times.max)
