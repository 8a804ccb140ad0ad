"""Write the batches of a recorder's thread on the event loop of an app."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import wait
from functools import partial
from inspect import CORO_CREATED, getcoroutinestate

from sqlalchemy.util import greenlet_spawn

from jobhistory.execution.batch import Batch, BatchResult
from jobhistory.recorder.writer import BatchHistory, NothingCanBeWritten

_SECONDS = 0.5


class OnEventLoop:
    """A history whose batches are written on an event loop, because its engine belongs to it.

    Attributes:
        loop: the event loop that used the recorder last; `None` before the first use.
    """

    def __init__(self, history: BatchHistory) -> None:
        self.loop: asyncio.AbstractEventLoop | None = None
        self._history = history

    def write(
        self, batch: Batch, *, may_exist: bool, before_commit: Callable[[], None]
    ) -> BatchResult:
        """Write a batch on the event loop, and wait for the result. For the recorder's thread.

        Raises:
            NothingCanBeWritten: if the event loop has ended, or does not run yet.
        """
        loop = self.loop
        if loop is None or not loop.is_running():
            raise NothingCanBeWritten
        write = partial(
            self._history.write, batch, may_exist=may_exist, before_commit=before_commit
        )
        work = greenlet_spawn(write)
        try:
            future = asyncio.run_coroutine_threadsafe(work, loop)
        except RuntimeError:  # it was closed just now
            work.close()
            raise NothingCanBeWritten from None
        # A loop that stops leaves the future pending.
        while not wait([future], _SECONDS).done:
            if not loop.is_running():
                future.cancel()
                if getcoroutinestate(work) == CORO_CREATED:
                    work.close()  # or Python would warn that it was never awaited
                raise NothingCanBeWritten
        return future.result()
