"""Iterators over the changes of a history, for threads and for asyncio."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import suppress
from datetime import datetime
from threading import Lock
from types import TracebackType
from typing import Any, Protocol, Self

from sqlalchemy.util import greenlet_spawn

from jobhistory._runtime.cancellation import run_to_completion
from jobhistory._runtime.clock import in_utc
from jobhistory._runtime.durations import parse_duration
from jobhistory._runtime.wakers import LoopWaker, SelectingWaker, WatchingWaker
from jobhistory.errors import InvalidInput, check_count
from jobhistory.following.follower import Changes, Follower
from jobhistory.following.source import Source
from jobhistory.query.criteria import HistoryQuery, coerce
from jobhistory.schema import HistoryRecord
from jobhistory.typing import Clock, Duration


class Followable(Protocol):
    """The history of a store, as `following` needs it."""

    def changes(self) -> Source:
        """Return the history as a source of changes."""
        ...


class Following:
    """What to follow, and how; it makes followers.

    Args:
        history: that of the store.
        now: the clock of the store.
        criteria, named: as for `iterate`.
        since, last, interval: as for `HistoryStore.follow`.

    Raises:
        InvalidInput: if an argument cannot be used.
    """

    def __init__(
        self,
        history: Followable,
        now: Clock,
        criteria: HistoryQuery | Mapping[str, Any] | None,
        named: Mapping[str, Any],
        *,
        since: datetime | None = None,
        last: int = 0,
        interval: Duration = "2s",
    ) -> None:
        self._history = history
        self._now = now
        self._query = coerce(criteria, named, without=("limit", "order"))
        check_count(last, "last", least=0, example=10)
        if since is not None and last:
            raise InvalidInput("last", last, "has no effect with since; leave one of them out")
        self._since = None if since is None else in_utc(since, "since")
        self._last = last
        self._interval = parse_duration(interval, "interval").total_seconds()

    def source(self) -> Source:
        """Return the history as a source of changes."""
        return self._history.changes()

    def follower(self, source: Source, waker: WatchingWaker) -> Follower:
        """Return a new follower."""
        return Follower(
            source,
            self._query,
            self._now,
            waker,
            since=self._since,
            last=self._last,
            interval=self._interval,
        )


class HasInternals(Protocol):
    """A store, for threads or for asyncio."""

    @property
    def internals(self) -> Any:
        """Its parts."""
        ...


def change_feed(
    store: HasInternals, criteria: HistoryQuery | Mapping[str, Any] | None = None, **options: Any
) -> ChangeFeed:
    """Return the changes of a store for threads, in batches; arguments are those of `follow`.

    It may be made while history cannot be read. A process needs only one: pass what it yields on
    to those who wait, through queues of limited size.
    """
    return ChangeFeed(_following(store, criteria, options))


def async_change_feed(
    store: HasInternals, criteria: HistoryQuery | Mapping[str, Any] | None = None, **options: Any
) -> AsyncChangeFeed:
    """Return the same for a store for asyncio."""
    return AsyncChangeFeed(_following(store, criteria, options))


def _following(
    store: HasInternals, criteria: HistoryQuery | Mapping[str, Any] | None, options: dict[str, Any]
) -> Following:
    how = {name: options.pop(name) for name in ("since", "last", "interval") if name in options}
    internals = store.internals
    return Following(internals.history, internals.rows.now, criteria, options, **how)


class ChangeFeed:
    """An iterator over batches of changes, which also tells when history cannot be read.

    The first batch comes at once. It has the `last` executions, or none. An outage is a batch with
    `unavailable`, and the first batch after it, which may have no records, tells that it is over.
    It reads only when it is asked for a batch, so a slow reader costs no memory. Such a reader
    misses nothing, but an execution that starts and ends in the meantime comes once.

    For one thread at a time, except `close`, which any thread may call. It holds one connection
    that listens, if notifications are available; each look uses one of the pool.
    """

    def __init__(self, following: Following) -> None:
        self._follower = following.follower(following.source(), SelectingWaker())
        self._lock = Lock()
        self._is_released = False

    def begin(self) -> None:
        """Begin now, and not with the first batch.

        Raises:
            SQLAlchemyError: if history cannot be read.
        """
        try:
            with self._lock:
                self._follower.begin()
        except BaseException:
            self.close()
            raise

    def __iter__(self) -> Iterator[Changes]:
        return self

    def __next__(self) -> Changes:
        """Wait for a batch.

        Raises:
            StopIteration: after `close`.
            JobHistoryError: if history cannot be read, and waiting does not help, because the
                table is missing or outdated.
        """
        try:
            with self._lock:
                return self._next()
        finally:
            if self._follower.is_closed:  # maybe by a thread that could not release it
                self.close()

    def _next(self) -> Changes:
        follower = self._follower
        while not follower.is_closed:
            if follower.ready is not None:
                changes, follower.ready = follower.ready, None
                return changes
            follower.wait()
            follower.read()
        raise StopIteration

    def close(self) -> None:
        """End, also the wait of another thread, and close the connection that listens.

        A statement that another thread executes goes on to its end.
        """
        self._follower.close()
        if self._lock.acquire(blocking=False):  # otherwise, the thread that has it will do this
            try:
                if not self._is_released:
                    self._is_released = True
                    self._follower.release()
            finally:
                self._lock.release()


class AsyncChangeFeed:
    """`ChangeFeed` for asyncio, for one task at a time. A wait can be cancelled; nothing is lost.

    It begins with the first batch, or in `begin`.
    """

    def __init__(self, following: Following) -> None:
        self._following = following
        self._source = following.source()
        self._follower: Follower | None = None
        self._is_closed = self._is_busy = False

    async def begin(self) -> None:
        """Begin now. The errors are those of `ChangeFeed.begin`."""
        if self._is_closed or (follower := self._made()).has_begun:
            return
        try:
            await self._run(follower.begin)
        except BaseException:
            await self.close()
            raise

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Changes:
        """Wait for a batch; the errors are those of `ChangeFeed`."""
        self._is_busy = True
        try:
            while not self._is_closed:
                follower = self._made()
                if follower.ready is not None:
                    changes, follower.ready = follower.ready, None
                    return changes
                await greenlet_spawn(follower.wait)
                await self._run(follower.read)
        finally:
            self._is_busy = False
            if self._is_closed:  # maybe by a task that could not release it
                await self.close()
        raise StopAsyncIteration

    async def close(self) -> None:
        """End, also the wait of another task, and close the connection that listens."""
        self._is_closed = True
        follower = self._follower
        if follower is None:
            return
        follower.close()
        if not self._is_busy:
            self._follower = None
            await run_to_completion(greenlet_spawn(follower.release), cancellable=False)

    def _made(self) -> Follower:
        if self._follower is None:
            self._follower = self._following.follower(self._source, LoopWaker())
        return self._follower

    async def _run(self, operation: Any) -> None:
        # SQLite's statements cannot be interrupted.
        cancellable = self._source.is_interruptible
        await run_to_completion(greenlet_spawn(operation), cancellable=cancellable)


class Follow:
    """An iterator over executions that start and end; `HistoryStore.follow` returns it.

    For one thread at a time, except `close`, which any thread may call. Use it in a `with` block,
    or close it, so that the connection that listens does not stay open.
    """

    def __init__(self, feed: ChangeFeed) -> None:
        self._feed = feed
        self._records: deque[HistoryRecord] = deque()
        feed.begin()

    def __iter__(self) -> Iterator[HistoryRecord]:
        return self

    def __next__(self) -> HistoryRecord:
        """Wait for the next change."""
        while not self._records:
            self._records.extend(next(self._feed).records)
        return self._records.popleft()

    def close(self) -> None:
        """Stop following. A thread that waits for a change stops iterating within moments."""
        self._feed.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __del__(self) -> None:
        if hasattr(self, "_feed"):
            with suppress(Exception):
                self.close()


class AsyncFollow:
    """An asynchronous iterator over executions that start and end.

    `AsyncHistoryStore.follow` returns it. For one task at a time. Use it in an `async with` block,
    or close it. It begins at the start of that block or, without one, with the first iteration.
    """

    def __init__(self, feed: AsyncChangeFeed) -> None:
        self._feed = feed
        self._records: deque[HistoryRecord] = deque()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> HistoryRecord:
        """Wait for the next change."""
        while not self._records:
            await self._feed.begin()
            self._records.extend((await anext(self._feed)).records)
        return self._records.popleft()

    async def close(self) -> None:
        """Stop following. A task that waits for a change stops iterating."""
        await self._feed.close()

    async def __aenter__(self) -> Self:
        await self._feed.begin()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()
