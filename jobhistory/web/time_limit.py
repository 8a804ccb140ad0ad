"""Calls that nobody waits for longer than a time limit."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import copy_context
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

MOST_THREADS = 20


class TimeLimit:
    """Runs calls in threads of its own, at most 20 at a time, and waits within a time limit.

    A call that takes longer goes on in its thread. Others wait for a free thread, within their
    limit. So calls that hang keep neither the threads of the app nor their callers.

    Args:
        seconds: the time limit, which includes the time until a thread is free.
    """

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._threads = ThreadPoolExecutor(MOST_THREADS, "jobhistory-page")

    def run(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Return what a function returns.

        Raises:
            TimeoutError: if it did not in time.
        """
        future = self._begin(function, *args, **kwargs)
        try:
            return future.result(self.seconds)
        finally:
            future.cancel()  # if no thread was free, it need not begin any more

    async def run_async(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Return what a function returns, as `run` does, without blocking the event loop."""
        future = self._begin(function, *args, **kwargs)
        return await asyncio.wait_for(asyncio.wrap_future(future), self.seconds)

    def _begin(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        context = copy_context()
        return self._threads.submit(lambda: context.run(function, *args, **kwargs))
