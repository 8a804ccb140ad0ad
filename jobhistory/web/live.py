"""Live updates: one reader of changes per process tells any number of viewers.

An event carries no data. It says that something in a view may have changed, and the page asks for
the part that shows it. So a viewer whose connection was lost misses and repeats nothing.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing, contextmanager, suppress
from dataclasses import dataclass

from jobhistory.aio import AsyncHistoryStore
from jobhistory.errors import JobHistoryError, reason
from jobhistory.following.feeds import async_change_feed, change_feed
from jobhistory.following.follower import Changes
from jobhistory.query.criteria import HistoryQuery
from jobhistory.query.matching import matches
from jobhistory.store import HistoryStore

logger = logging.getLogger("jobhistory")


async def changes_of(store: HistoryStore | AsyncHistoryStore) -> AsyncGenerator[Changes, None]:
    """Follow the history of a store: with a thread, or in a task if the store is for asyncio."""
    if isinstance(store, AsyncHistoryStore):
        feed = async_change_feed(store)
        try:
            async for changes in feed:
                yield changes
        finally:
            await feed.close()
        return
    waiting = change_feed(store)
    # A thread of its own, because it waits most of the time.
    executor = ThreadPoolExecutor(1, "jobhistory-web")
    try:
        loop = asyncio.get_running_loop()
        batch: Changes | None
        while batch := await loop.run_in_executor(executor, lambda: next(waiting, None)):
            yield batch
    finally:
        waiting.close()
        executor.shutdown(wait=False)


@dataclass(frozen=True)
class Pace:
    """Times in seconds.

    Attributes:
        between: the least time between two events for a viewer.
        silence: the time without events after which a viewer gets a comment, so that no proxy ends
            the request.
        request: the time after which a request ends. The browser sends another one, and access is
            decided again.
    """

    between: float = 2.0
    silence: float = 15.0
    request: float = 600.0


class Viewer:
    """What a viewer has to be told. It takes no more memory, however slowly the viewer reads."""

    def __init__(self, query: HistoryQuery) -> None:
        self._query = query
        self._has_news = asyncio.Event()

    def tell(self, changes: Changes) -> None:
        """Note that executions have changed, or that history was or is unavailable."""
        if not changes.records or any(
            matches(vars(record), self._query) for record in changes.records
        ):
            self._has_news.set()

    async def wait(self, seconds: float) -> bool:
        """Wait for news, and return whether there are any."""
        with suppress(TimeoutError):
            await asyncio.wait_for(self._has_news.wait(), seconds)
        has_news = self._has_news.is_set()
        self._has_news.clear()
        return has_news


class Feed:
    """Reads changes while there are viewers, and tells them. It is for one event loop.

    Args:
        changes: returns an iterator over batches of changes.
    """

    def __init__(self, changes: Callable[[], AsyncGenerator[Changes, None]]) -> None:
        self._changes = changes
        self._viewers: set[Viewer] = set()
        self._reader: asyncio.Task[None] | None = None

    @contextmanager
    def viewer(self, query: HistoryQuery) -> Iterator[Viewer]:
        """Add a viewer of some executions for the time of the block."""
        viewer = Viewer(query)
        self._viewers.add(viewer)
        if self._reader is None or self._reader.done():
            self._reader = asyncio.get_running_loop().create_task(self._read())
        try:
            yield viewer
        finally:
            self._viewers.discard(viewer)
            if not self._viewers and self._reader is not None:
                self._reader.cancel()
                self._reader = None

    async def _read(self) -> None:
        try:
            async with aclosing(self._changes()) as batches:
                async for changes in batches:
                    for viewer in self._viewers:
                        viewer.tell(changes)
        except JobHistoryError as error:
            logger.warning("live updates end until there is a new viewer: %s", reason(error))


async def events(feed: Feed, query: HistoryQuery, pace: Pace = Pace()) -> AsyncIterator[bytes]:
    """Yield the server-sent events for a viewer.

    The first one comes at once, because something may have changed since the page was made, or
    while the connection was lost.
    """
    ends = asyncio.get_running_loop().time() + pace.request
    with feed.viewer(query) as viewer:
        viewer.tell(Changes([]))
        yield b"retry: 2000\n\n"
        while asyncio.get_running_loop().time() < ends:
            if await viewer.wait(pace.silence):
                yield b"event: changed\ndata:\n\n"
                await asyncio.sleep(pace.between)
            else:
                yield b":\n\n"
