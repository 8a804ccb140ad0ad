"""How whole buckets of statistics, and rows at the edges, cover a window of time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import NamedTuple

from jobhistory.statistics.spans import Span

_RESOLUTION = timedelta(microseconds=1)


class Window(NamedTuple):
    """The time from a moment until before another one; `None` stands for no limit."""

    from_: datetime | None
    before: datetime | None

    def holds(self, moment: datetime) -> bool:
        """Return whether a time is in the window."""
        return (self.from_ is None or moment >= self.from_) and (
            self.before is None or moment < self.before
        )


class Marks(NamedTuple):
    """The times from which everything is kept; `None` if it always has been.

    Attributes:
        hours_from: hours are kept from here on.
        days_from: days are kept from here on. Months are kept forever.
        rows_from: no row of an execution that started here or later has been deleted.
    """

    hours_from: datetime | None = None
    days_from: datetime | None = None
    rows_from: datetime | None = None


NO_MARKS = Marks()
"""The marks of a history in which everything has been kept so far."""


@dataclass(frozen=True)
class Cover:
    """Whole buckets without a gap between them, and edges on either side.

    Attributes:
        whole: the time of all whole buckets.
        buckets: a span, and the time of its whole buckets, in order of time.
        edges: the rest of the window, where only rows tell what ran.
        is_wider: whether the whole buckets extend beyond the window.
    """

    whole: Window
    buckets: tuple[tuple[Span, Window], ...]
    edges: tuple[Window, ...]
    is_wider: bool

    @property
    def hours_of_edges(self) -> tuple[Window, ...]:
        """The hours at the edges, each from its beginning."""
        return tuple(
            edge if edge.from_ is None else edge._replace(from_=Span.HOUR.start(edge.from_))
            for edge in self.edges
        )


EVERYTHING = Cover(
    whole=Window(None, None),
    buckets=((Span.MONTH, Window(None, None)),),
    edges=(),
    is_wider=False,
)
"""How buckets cover all time."""


def spans_within(bucket: timedelta | None) -> tuple[Span, ...]:
    """Return the spans of which each bucket of a series consists, shortest first.

    A series begins at midnight on a Monday in UTC, so months are never part of one.
    """
    if bucket is None:
        return (Span.HOUR, Span.DAY, Span.MONTH)
    if not bucket % timedelta(days=1):
        return (Span.HOUR, Span.DAY)
    return () if bucket % timedelta(hours=1) else (Span.HOUR,)


def cover(
    from_: datetime | None,
    to: datetime | None,
    *,
    now: datetime,
    spans: tuple[Span, ...],
    marks: Marks = NO_MARKS,
    needs_no_rows: bool = False,
) -> Cover | None:
    """Return how whole buckets cover a window; `None` if none fits into it, and all rows are there.

    A window that ends now or later has no end, because nothing starts in the future. If the rows
    or the short buckets at one of its ends are gone, it becomes wider.

    Args:
        from_, to: the first and the last moment of the window.
        spans: the spans of the buckets that may be used, shortest first.
        needs_no_rows: whether the window becomes as wide as whole buckets need.
    """
    end = None if to is None or to >= now else to + _RESOLUTION
    try:
        return _covered(Window(from_, end), spans, marks, needs_no_rows) if spans else None
    except OverflowError:  # the bucket ends after the year 9999
        return None


def _covered(
    window: Window, spans: tuple[Span, ...], marks: Marks, needs_no_rows: bool
) -> Cover | None:
    kept = _Kept(spans, marks)
    edges = []
    begin, end = window
    oldest = kept.oldest
    if oldest is not None and (begin is None or begin < oldest):
        edges.append(Window(begin, oldest))
        begin = oldest
    left = None if begin is None else _ceil(kept.shortest(begin), begin)
    right = None if end is None else kept.shortest(end).start(end)
    if begin and end and left is not None and right is not None and left >= right:
        if begin >= end or not (needs_no_rows or kept.lacks_rows(begin)):
            return None
        whole = Window(kept.shortest(begin).start(begin), _ceil(kept.shortest(end), end))
        return Cover(whole, tuple(_buckets(spans, whole)), tuple(edges), is_wider=True)
    is_wider = False
    if begin is not None and left is not None and begin < left:
        if needs_no_rows or kept.lacks_rows(begin):
            left, is_wider = kept.shortest(begin).start(begin), True
        else:
            edges.append(Window(begin, left))
    if end is not None and right is not None and right < end:
        if needs_no_rows or kept.lacks_rows(right):
            right, is_wider = _ceil(kept.shortest(end), end), True
        else:
            edges.append(Window(right, end))
    whole = Window(left, right)
    return Cover(whole, tuple(_buckets(spans, whole)), tuple(edges), is_wider)


class _Kept(NamedTuple):
    """What is kept of the spans that may be used."""

    spans: tuple[Span, ...]
    marks: Marks

    @property
    def oldest(self) -> datetime | None:
        """The time from which buckets are kept; `None` if there is no limit."""
        return self._from[self.spans[-1]]

    def shortest(self, moment: datetime) -> Span:
        """Return the shortest span whose buckets are kept at a time."""
        for span in self.spans:
            begin = self._from[span]
            if begin is None or moment >= begin:
                return span
        return self.spans[-1]

    def lacks_rows(self, moment: datetime) -> bool:
        """Return whether only whole buckets tell what ran since a time."""
        rows_from = self.marks.rows_from
        is_gone = rows_from is not None and moment < rows_from
        return is_gone or self.shortest(moment) is not Span.HOUR

    @property
    def _from(self) -> dict[Span, datetime | None]:
        hours, days, _ = self.marks
        # Aligned, so that each bucket consists of whole buckets of any shorter span.
        return {
            Span.HOUR: None if hours is None else _ceil(Span.DAY, hours),
            Span.DAY: None if days is None else _ceil(Span.MONTH, days),
            Span.MONTH: None,
        }


def _buckets(spans: tuple[Span, ...], whole: Window) -> Iterator[tuple[Span, Window]]:
    """Yield the longest buckets in a window without ragged ends, and shorter ones beside them."""
    *shorter, longest = spans
    begin, end = whole
    left = None if begin is None else _ceil(longest, begin)
    right = None if end is None else longest.start(end)
    if left is not None and right is not None and left >= right:
        if shorter:
            yield from _buckets(tuple(shorter), whole)
        return
    if begin != left:
        yield from _buckets(tuple(shorter), Window(begin, left))
    yield longest, Window(left, right)
    if right != end:
        yield from _buckets(tuple(shorter), Window(right, end))


def _ceil(span: Span, moment: datetime) -> datetime:
    """Return the start of the first bucket that begins at a time or later."""
    start = span.start(moment)
    return start if start == moment else span.next(start)
