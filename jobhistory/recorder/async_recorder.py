"""The `AsyncRecorder`: the `Recorder` for asyncio, on a store for asyncio or for threads."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Coroutine
from contextlib import suppress
from functools import partial
from types import TracebackType
from typing import Any, Literal, Self

from sqlalchemy.util import await_only

from jobhistory._runtime.at_exit import AT_EXIT_SECONDS
from jobhistory.aio import AsyncHistoryStore
from jobhistory.errors import InvalidInput
from jobhistory.execution.batch import Operation
from jobhistory.recorder.event_loop import OnEventLoop
from jobhistory.recorder.intake import RecorderCounts
from jobhistory.recorder.options import MIB, RecorderOptions
from jobhistory.recorder.recorder import Accepting, AcceptingTracked
from jobhistory.recorder.writer import Writer
from jobhistory.recording_methods import RecordingMethods
from jobhistory.store import HistoryStore
from jobhistory.tracking_methods import AsyncTrackingMethods


class AsyncRecorder(RecordingMethods[Coroutine[Any, Any, None]], AsyncTrackingMethods):
    """The `Recorder` for asyncio: its methods are awaited, and never block the event loop.

    ::

        async with AsyncRecorder(create_async_store(engine)) as recorder:
            await recorder.record_start(job, "worker-1", "request-1")

    Any number of tasks of one event loop may use it. A call checks its arguments at once, and must
    be awaited. If its task is cancelled while it waits for room, nothing is accepted.

    With an `AsyncHistoryStore`, batches are written by the event loop, where the app's engine is at
    home. So close the recorder before the loop ends: what is left then can only go to the spool, or
    is lost. With a `HistoryStore`, a thread writes them, until the process ends.

    Args:
        store: the store to record through: an `AsyncHistoryStore` or a `HistoryStore`.

    Attributes:
        store: the store that it records through.

    The other arguments and the errors are those of `Recorder`.
    """

    def __init__(
        self,
        store: AsyncHistoryStore | HistoryStore,
        *,
        batch_size: int = 500,
        batch_bytes: int = 8 * MIB,
        max_delay: float = 0.2,
        queue_size: int = 10_000,
        queue_bytes: int = 64 * MIB,
        when_full: Literal["block", "raise"] = "block",
        spool: str | os.PathLike[str] | None = None,
    ) -> None:
        if not isinstance(store, (AsyncHistoryStore, HistoryStore)):
            raise InvalidInput(
                "store", store, "is not an AsyncHistoryStore; pass create_async_store(engine)"
            )
        self.store = store
        history = store.internals.history
        self._loop = OnEventLoop(history) if isinstance(store, AsyncHistoryStore) else None
        with suppress(RuntimeError):  # it may be made before the event loop runs
            self._note_loop()
        self._writer = Writer(
            self._loop or history,
            RecorderOptions.checked(
                store.internals.session_factory,
                batch_size=batch_size,
                batch_bytes=batch_bytes,
                max_delay=max_delay,
                queue_size=queue_size,
                queue_bytes=queue_bytes,
                when_full=when_full,
                spool=spool,
            ),
            store.internals.rows.retention,
            # On the event loop it would keep the tasks of the app waiting.
            fold=history.fold_once if self._loop is None else None,
        )
        heartbeat: Callable[..., bool] = history.heartbeat
        if self._loop is None:  # its driver would block the event loop
            heartbeat = partial(_in_thread, history.heartbeat)
        rows = store.internals.rows
        RecordingMethods.__init__(self, rows, Accepting(self._accept))
        AsyncTrackingMethods.__init__(
            self,
            rows,
            AcceptingTracked(lambda operation: await_only(self._accept(operation)), heartbeat),
        )

    @property
    def counts(self) -> RecorderCounts:
        """The numbers of operations that are accepted, written, refused, spooled and waiting."""
        return self._writer.intake.counts

    async def flush(self, timeout: float | None = None) -> None:
        """Do what `Recorder.flush` does, without blocking the event loop."""
        self._note_loop()
        await self._writer.intake.flush_async(timeout)

    async def close(self, timeout: float | None = AT_EXIT_SECONDS) -> None:
        """Do what `Recorder.close` does. If the task is cancelled, closing goes on in a thread."""
        self._note_loop()
        await asyncio.to_thread(self._writer.close, timeout)

    async def __aenter__(self) -> Self:
        self._note_loop()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    async def _accept(self, operation: Operation) -> None:
        self._note_loop()
        await self._writer.intake.accept_async(operation)

    def _note_loop(self) -> None:
        if self._loop is not None:
            self._loop.loop = asyncio.get_running_loop()


def _in_thread(function: Callable[..., bool], *arguments: Any) -> bool:
    return bool(await_only(asyncio.to_thread(function, *arguments)))
