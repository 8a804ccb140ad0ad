"""Follows a history: notices which executions start and end, each change once.

Looks at history are what it relies on, and notifications say when to look, and at what. A look
reads what has started since the last one, again from a little earlier, because transactions commit
in another order than they begin. It reads by id what has not ended. From time to time a thorough
look goes back further, and searches the newest executions for some that were written whole at their
end. It remembers what it has seen for as long as a look may find it again.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import islice
from time import monotonic
from uuid import UUID

from sqlalchemy.exc import SQLAlchemyError

from jobhistory._runtime.clock import before
from jobhistory._runtime.pulse import PULSE
from jobhistory._runtime.wakers import WatchingWaker
from jobhistory.errors import HistoryUnavailable, reason
from jobhistory.following.seen import Seen
from jobhistory.following.source import Listener, Source
from jobhistory.query.criteria import HistoryQuery
from jobhistory.query.cursor import Cursor
from jobhistory.query.marks import Mark, lasting
from jobhistory.schema import HistoryRecord
from jobhistory.typing import Clock

logger = logging.getLogger(__name__)

BATCH_SIZE = 100
"""The maximum number of records in a batch."""

_OVERLAP = timedelta(seconds=5)
_THOROUGH_OVERLAP = timedelta(seconds=60)
_ANNOUNCED_WITHIN = timedelta(seconds=2)
_RUNNING_WINDOW = timedelta(days=1)
_THOROUGH_EACH = 5
_MOST_TOLD = 2_000
_IDS_IN_A_QUERY = 500
_LEAST_PAUSE = 0.1
_LONGEST_PAUSE = 30.0
_LONGEST_DEAFNESS = 60.0

_OUTAGES = (SQLAlchemyError, OSError, HistoryUnavailable)


@dataclass(frozen=True)
class Changes:
    """A batch of what has changed.

    Attributes:
        records: executions that have started or ended, in the order in which they did; at most
            `BATCH_SIZE`.
        unavailable: why history cannot be read; `None` if it can. Such a batch has no records.
    """

    records: list[HistoryRecord]
    unavailable: str | None = None


class Follower:
    """Follows a history. For one thread or task at a time, except `close`.

    Call `begin`, then `wait` and `read` by turns. It holds at most a page of marks, a batch of
    records, and the marks of what it watches or may see again, so a slow reader costs no memory:
    what starts and ends between two of its reads comes once.

    Args:
        now: the clock of the history.
        waker: wakes it; nobody else waits for it.
        since: the time from which changes count; `None` for those after `begin`.
        last: the number of executions to begin with, the newest ones.
        interval: the seconds between two looks.

    Attributes:
        ready: the batch that was read; the caller sets it to `None`.
    """

    def __init__(
        self,
        source: Source,
        query: HistoryQuery,
        now: Clock,
        waker: WatchingWaker,
        *,
        since: datetime | None = None,
        last: int = 0,
        interval: float = 2.0,
    ) -> None:
        self.ready: Changes | None = None
        self.is_closed = False
        self.has_begun = False
        self._source = source
        self._query = query
        self._lasting = lasting(query)
        self._now = now
        self._waker = waker
        self._since = since
        self._last = last
        self._interval = interval
        self._listener: Listener | None = None
        self._may_listen = True
        self._listen_at = 0.0
        self._listen_failures = 0
        self._seen = Seen(now)
        self._told: set[UUID] = set()
        self._are_others = self._is_told = False
        self._due = self._not_before = 0.0
        self._heard_at = monotonic()
        self._stop_checking: Callable[[], None] | None = None
        self._failures = self._looks = 0
        self._look: Iterator[list[HistoryRecord]] | None = None

    # The two halves of a turn, and what comes before and after.

    def begin(self) -> None:
        """Note what there is, without which nobody knows what is new.

        Raises:
            SQLAlchemyError: if history cannot be read; `read` then tries again.
        """
        self._ensure_listening()
        now = self._now()
        start = now if self._since is None else self._since
        low = before(start, _THOROUGH_OVERLAP)
        for page in self._pages(low):
            self._note_earlier(page)
        self._note_earlier(self._source.ended_since(self._lasting, low))
        self._note_earlier(self._source.running(self._lasting, before(start, _RUNNING_WINDOW)))
        self._looked_at = self._searched_at = start
        newest = self._source.newest(self._query, self._last)[::-1] if self._last else []
        for record in newest:
            self._seen.add(Mark.of(record))
        self.ready = Changes(newest)
        self.has_begun = True
        self._note_success()

    def wait(self) -> None:
        """Wait until there may be something to read, or until `close`."""
        while not self.is_closed and self.ready is None and self._look is None:
            self._hear()
            now = monotonic()
            has_news = (self._told or self._are_others) and not self._failures
            at = min(self._due, self._not_before) if has_news else self._due
            if now >= at:
                return
            self._waker.wait(at - now)

    def read(self) -> None:
        """Read a batch into `ready`, if there is one. Outages become batches, too.

        Raises:
            JobHistoryError: if history cannot be read, and waiting does not help.
        """
        if self.is_closed or self.ready is not None:
            return
        try:
            if not self.has_begun:
                self.begin()
                return
            self._look = self._look or self._read()
            batch = next(self._look, None)
        except _OUTAGES as error:
            self._look = None
            self._note_failure(error)
        except BaseException:
            self._look = None
            raise
        else:
            self._note_success()
            if batch is None:
                self._look = None
            else:
                self.ready = Changes(batch)

    def close(self) -> None:
        """End the current wait, and let nothing more be read. Any thread may call it."""
        self.is_closed = True
        self._waker.wake()

    def release(self) -> None:
        """Close the connection that listens. Not while it waits or reads."""
        self._look = None
        self._stop_listening()
        self._waker.close()

    # When to look.

    def _hear(self) -> None:
        self._heard_at = monotonic()
        if self._listener is None:
            return
        try:
            ids, are_others = self._listener.heard()
        except Exception as error:
            logger.info("the connection that listens is lost: %s", reason(error))
            self._stop_listening()
            self._due = 0.0  # to connect again, and to look for what was missed
            self._looks = 0
            return
        if ids or are_others:
            self._is_told = True
        self._told |= ids
        self._are_others = self._are_others or are_others
        if len(self._told) > _MOST_TOLD:
            self._told.clear()
            self._are_others = True

    def _ensure_listening(self) -> None:
        if self._listener is not None or not self._may_listen or monotonic() < self._listen_at:
            return
        try:
            self._listener = self._source.listen(self._waker)
        except Exception as error:  # polling goes on
            self._listen_failures += 1
            logger.info("cannot listen for notifications; polling: %s", reason(error))
            pause = min(self._interval * 2**self._listen_failures, 2 * _LONGEST_PAUSE)
            self._listen_at = monotonic() + pause
            return
        self._listen_failures = 0
        self._may_listen = self._listener is not None
        if self._listener is not None and self._stop_checking is None:
            self._heard_at = monotonic()
            self._stop_checking = PULSE.add(self._check_is_hearing, _LONGEST_DEAFNESS / 2)

    def _check_is_hearing(self) -> None:
        """Break the connection off if nobody takes what it hears, in the thread of the pulse.

        PostgreSQL would keep all notifications of all channels until this one has taken them.
        """
        listener = self._listener
        if listener is not None and monotonic() - self._heard_at > _LONGEST_DEAFNESS:
            listener.break_off()

    def _stop_listening(self) -> None:
        listener, self._listener = self._listener, None
        self._is_told = False
        stop, self._stop_checking = self._stop_checking, None
        if stop is not None:
            stop()
        if listener is not None:
            listener.close()

    def _note_failure(self, error: Exception) -> None:
        self._failures += 1
        pause = min(self._interval * 2 ** (self._failures - 1), _LONGEST_PAUSE)
        self._due = monotonic() + pause
        if self._failures == 1:
            logger.warning("history cannot be read; retrying: %s", reason(error))
            self.ready = Changes([], reason(error))

    def _note_success(self) -> None:
        if self._failures and self.ready is None:
            self.ready = Changes([])  # says that history can be read again
        self._failures = 0

    # What to look at.

    def _read(self) -> Iterator[list[HistoryRecord]]:
        begun = monotonic()
        told = set(islice(self._told, _MOST_TOLD))
        is_due, are_others = begun >= self._due, self._are_others
        for ids in _parts(told):
            yield from self._changed(self._source.marks_of(self._lasting, ids))
            self._told.difference_update(ids)
        self._are_others = False
        took = monotonic() - begun
        if is_due or are_others:
            begun = monotonic()
            if is_due:
                self._ensure_listening()
            yield from self._poll(is_due=is_due)
            took = monotonic() - begun
        # So that it takes no more than a fifth of a connection's time.
        self._not_before = monotonic() + min(max(_LEAST_PAUSE, 4 * took), self._interval)
        if is_due:
            slower = _THOROUGH_EACH if self._is_told else 1
            self._due = monotonic() + slower * self._interval

    def _poll(self, *, is_due: bool) -> Iterator[list[HistoryRecord]]:
        now = self._now()
        is_thorough = is_due and (self._is_told or self._looks % _THOROUGH_EACH == 0)
        is_announced = True
        for marks in self._found(is_thorough=is_thorough):
            for records in self._changed(marks):
                is_announced = is_announced and self._may_be_on_its_way(records, now)
                yield records
        self._looked_at = now
        if is_thorough:
            self._searched_at = now
            self._seen.forget_before(before(now, 2 * _THOROUGH_OVERLAP))
        if is_due:
            self._looks += 1
            self._is_told = self._is_told and is_announced

    def _found(self, *, is_thorough: bool) -> Iterator[list[Mark]]:
        """Yield the marks that a look finds."""
        low = self._seen.since(self._looked_at, _OVERLAP)
        if is_thorough:
            low = self._seen.since(self._searched_at, _THOROUGH_OVERLAP)
        yield from self._pages(low)
        for ids in _parts(list(self._seen.watched)):
            marks = self._source.marks_of(self._lasting, ids)
            self._seen.unwatch(set(ids).difference(mark.id for mark in marks))
            yield marks
        if is_thorough:
            yield self._source.ended_since(self._lasting, low)

    def _may_be_on_its_way(self, records: list[HistoryRecord], now: datetime) -> bool:
        """Return whether these have changed so recently that their announcement may follow."""
        limit = before(now, _ANNOUNCED_WITHIN)
        return all(Mark.of(record).changed_at >= limit for record in records)

    def _pages(self, low: datetime) -> Iterator[list[Mark]]:
        after = None
        while page := self._source.started_since(self._lasting, low, after):
            yield page
            if len(page) < self._source.page_size:
                return
            after = Cursor(page[-1].started_at, page[-1].id)

    def _changed(self, marks: Collection[Mark]) -> Iterator[list[HistoryRecord]]:
        """Yield the records of the marks that are new, and note that they were seen."""
        new = sorted(filter(self._seen.is_new, marks), key=lambda mark: (mark.changed_at, mark.id))
        statuses = self._query.status
        for start in range(0, len(new), BATCH_SIZE):
            some = new[start : start + BATCH_SIZE]
            ids = [mark.id for mark in some if statuses is None or mark.status in statuses]
            records = self._source.records(self._query, ids) if ids else []
            for mark in some:
                self._seen.add(mark)
            marks_of = {record.id: Mark.of(record) for record in records}
            for mark in marks_of.values():  # it may have ended in the meantime
                self._seen.add(mark)
            if records:
                records.sort(key=lambda record: (marks_of[record.id].changed_at, record.id))
                yield records

    def _note_earlier(self, marks: Collection[Mark]) -> None:
        for mark in marks:
            if self._since is None or mark.changed_at < self._since:
                self._seen.add(mark)


def _parts(ids: Collection[UUID]) -> Iterator[list[UUID]]:
    every = list(ids)
    for start in range(0, len(every), _IDS_IN_A_QUERY):
        yield every[start : start + _IDS_IN_A_QUERY]
