"""The `Recorder`, for threads and for asyncio."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Collection, Coroutine
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self
from urllib.parse import unquote

from jobhistory.database import binds
from jobhistory.errors import InvalidInput, check_count
from jobhistory.execution.batch import Operation
from jobhistory.recorder.at_exit import AT_EXIT_SECONDS
from jobhistory.recorder.calls import RecordingCalls
from jobhistory.recorder.intake import RecorderCounts, RecorderOptions
from jobhistory.recorder.writer import Writer
from jobhistory.store import HistoryStore

_MIB = 1024 * 1024


class Recorder(RecordingCalls[None]):
    """Records executions through a store, in the background and in batches.

    Any number of threads may call its methods at the same time. Each call checks and copies its
    arguments, and returns. A thread of the recorder writes the operations in the order of the
    calls, each batch in one transaction. If a batch contains the start and the outcome of an
    execution, it writes them as one INSERT. After the commit, the ring buffer of the store gets the
    ended executions, in the order of the calls. While the database is unavailable, the recorder
    retries after pauses of up to 5 seconds.

    History can refuse an outcome only when it is written. Then the log names the job's id and the
    reason, and `counts.refused` increases.

    At the end of the process, the recorder writes what is left, for up to 10 seconds. A forked
    child starts with an empty recorder; its parent writes what the parent accepted.

    In asyncio, use `AsyncRecorder`, because a full `Recorder` would block the event loop.

    Args:
        store: the store to record through. A recorder has its own thread, so it takes no
            `AsyncHistoryStore`; make a `HistoryStore` on the same database.
        batch_size: the maximum number of operations in one transaction.
        batch_bytes: about how much memory the operations of one transaction may take, in bytes. A
            larger operation gets its own transaction.
        max_delay: the number of seconds for which an operation waits for others to join its batch.
        queue_size: the maximum number of operations that wait in memory, including the batch that
            is being written.
        queue_bytes: about how much memory these operations may take, in bytes. Started rows, which
            are kept until their outcomes come, may take as much again. The oldest are dropped
            first; their outcomes find them in history by their ids.
        when_full: what a call does if there is no room: `"block"` waits for room, and `"raise"`
            raises `RecorderFull` and accepts nothing.
        spool: a local file for operations that cannot be written. While the database is
            unavailable, accepted operations move there. Whatever is left in it when the process
            ends, even if it is killed, the next recorder with this path writes, once. If several
            processes share a path, each of the others uses a file beside it: the path and a number.
            Files have mode 0600, and missing folders are created with mode 0700. Without a spool,
            operations that wait when the process ends are lost.

    Raises:
        InvalidInput: if an argument cannot be used. A spool must be a new file or the spool of an
            earlier recorder. No other file is changed or removed.
    """

    def __init__(
        self,
        store: HistoryStore,
        *,
        batch_size: int = 500,
        batch_bytes: int = 8 * _MIB,
        max_delay: float = 0.2,
        queue_size: int = 10_000,
        queue_bytes: int = 64 * _MIB,
        when_full: Literal["block", "raise"] = "block",
        spool: str | os.PathLike[str] | None = None,
    ) -> None:
        if not isinstance(store, HistoryStore):
            raise InvalidInput("store", store, "is not a HistoryStore; pass create_store(engine)")
        check_count(batch_size, "batch_size", example=500)
        check_count(batch_bytes, "batch_bytes", example=8 * _MIB)
        check_count(queue_size, "queue_size", example=10_000)
        check_count(queue_bytes, "queue_bytes", example=64 * _MIB)
        if isinstance(max_delay, bool) or not isinstance(max_delay, (int, float)) or max_delay < 0:
            raise InvalidInput(
                "max_delay", max_delay, "is not a duration in seconds; write it like 0.2"
            )
        if when_full not in ("block", "raise"):
            raise InvalidInput("when_full", when_full, "is neither 'block' nor 'raise'")
        super().__init__(store.internals.rows)
        self._store = store
        # Absolute, because the current folder may change.
        path = None if spool is None else Path(os.path.abspath(spool))
        avoid = () if path is None else _database_files(store)
        if path is not None and Path(os.path.realpath(path)) in map(_real, avoid):
            raise InvalidInput("spool", str(spool), "is the store's own database; name a new file")
        self._writer = Writer(
            store.internals.history,
            RecorderOptions(
                batch_size=batch_size,
                batch_bytes=batch_bytes,
                max_delay=max_delay,
                queue_size=queue_size,
                queue_bytes=queue_bytes,
                when_full=when_full,
                spool=path,
                avoid=avoid,
            ),
        )

    @property
    def counts(self) -> RecorderCounts:
        """The numbers of operations that are accepted, written, refused, spooled and waiting."""
        return self._writer.intake.counts

    def flush(self, timeout: float | None = None) -> None:
        """Wait until everything accepted before this call is committed in history or refused.

        Args:
            timeout: the maximum number of seconds; `None` for no limit.

        Raises:
            NotWritten: if it takes longer. The recorder keeps trying.
        """
        self._writer.intake.flush(timeout)

    def close(self, timeout: float | None = AT_EXIT_SECONDS) -> None:
        """Stop accepting operations, write those that were accepted, and end the thread.

        With a spool, operations that cannot be written stay there for the next recorder, even if
        this call is interrupted, for example by Ctrl-C.

        Args:
            timeout: the maximum number of seconds; `None` for no limit.

        Raises:
            NotWritten: if operations are neither written nor in the spool. They are lost. If the
                database has begun to commit a batch and has not answered, its result is unknown:
                the error counts the operations of that batch as `in_doubt`.
        """
        self._writer.close(timeout)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _accept(self, operation: Operation) -> None:
        self._writer.intake.accept(operation)


class AsyncRecorder(RecordingCalls[Coroutine[Any, Any, None]]):
    """The methods of a `Recorder`, awaited: waiting never blocks the event loop.

    ::

        async with AsyncRecorder(Recorder(create_store(engine))) as recorder:
            await recorder.start(job, "worker-1", "request-1")

    Any number of tasks may use it, in any event loop. A call checks its arguments at once, and must
    be awaited. If its task is cancelled while it waits for room, nothing is accepted.

    Args:
        recorder: the recorder that does the work. Threads may use it at the same time.
    """

    def __init__(self, recorder: Recorder) -> None:
        if not isinstance(recorder, Recorder):
            raise InvalidInput("recorder", recorder, "is not a Recorder; pass Recorder(store)")
        super().__init__(recorder._store.internals.rows)
        self._recorder = recorder

    @property
    def counts(self) -> RecorderCounts:
        """The counts of the recorder."""
        return self._recorder.counts

    async def flush(self, timeout: float | None = None) -> None:
        """Do what `Recorder.flush` does, without blocking the event loop."""
        await self._recorder._writer.intake.flush_async(timeout)

    async def close(self, timeout: float | None = AT_EXIT_SECONDS) -> None:
        """Do what `Recorder.close` does. If the task is cancelled, closing goes on in a thread."""
        await asyncio.to_thread(self._recorder.close, timeout)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    def _accept(self, operation: Operation) -> Coroutine[Any, Any, None]:
        return self._recorder._writer.intake.accept_async(operation)


def _database_files(store: HistoryStore) -> Collection[Path]:
    """Return the files of an SQLite database; none for other databases."""
    session_factory = store.internals.session_factory
    if session_factory is None:
        return ()
    with session_factory() as session:
        engine = session.get_bind(**binds.WRITING).engine
    if engine.dialect.name != "sqlite":
        return ()
    (name, *_), _ = engine.dialect.create_connect_args(engine.url)
    if name.startswith("file:"):
        name = unquote(name.removeprefix("file:").partition("?")[0])
        name = name.removeprefix("//localhost").removeprefix("//")
    if name in ("", ":memory:"):
        return ()
    file = os.path.abspath(name)
    return [Path(f"{file}{suffix}") for suffix in ("", "-journal", "-wal", "-shm")]


def _real(path: Path) -> Path:
    return Path(os.path.realpath(path))
