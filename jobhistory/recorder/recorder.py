"""The `Recorder`: it records through a store, in the background and in batches."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from types import TracebackType
from typing import Any, Generic, Literal, Self, TypeVar
from uuid import UUID

from jobhistory._runtime.at_exit import AT_EXIT_SECONDS
from jobhistory.errors import InvalidInput
from jobhistory.execution.batch import Counted, Operation
from jobhistory.execution.outcome import Outcome
from jobhistory.recorder.intake import RecorderCounts
from jobhistory.recorder.options import MIB, RecorderOptions
from jobhistory.recorder.writer import Writer
from jobhistory.recording_methods import RecordingMethods
from jobhistory.store import HistoryStore
from jobhistory.tracking_methods import TrackingMethods

R_co = TypeVar("R_co", covariant=True)


class Recorder(RecordingMethods[None], TrackingMethods):
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

    `begin` and `track` record in the background, too. Their errors of history are `RecorderFull`
    and `RecorderClosed`. Heartbeats are written at once, through the store.

    Args:
        store: the store to record through.
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

    Attributes:
        store: the store that it records through.

    Raises:
        InvalidInput: if an argument cannot be used. A spool must be a new file or the spool of an
            earlier recorder. No other file is changed or removed.
    """

    def __init__(
        self,
        store: HistoryStore,
        *,
        batch_size: int = 500,
        batch_bytes: int = 8 * MIB,
        max_delay: float = 0.2,
        queue_size: int = 10_000,
        queue_bytes: int = 64 * MIB,
        when_full: Literal["block", "raise"] = "block",
        spool: str | os.PathLike[str] | None = None,
    ) -> None:
        if not isinstance(store, HistoryStore):
            raise InvalidInput("store", store, "is not a HistoryStore; pass create_store(engine)")
        self.store = store
        self._writer = Writer(
            store.internals.history,
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
            fold=store.internals.history.fold_once,
        )
        rows = store.internals.rows
        accepting = AcceptingTracked(self._accept, store.internals.history.heartbeat)
        RecordingMethods.__init__(self, rows, accepting)
        TrackingMethods.__init__(self, rows, accepting, asyncio.to_thread)

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
        self._writer.intake.accept(operation)  # a forked child has another intake


class Accepting(Generic[R_co]):
    """Where the methods of a recorder record: its queue."""

    def __init__(self, accept: Callable[[Operation], R_co]) -> None:
        self._accept = accept

    def insert(self, row: dict[str, Any], *, may_exist: bool = False) -> R_co:
        """Accept a new row."""
        return self._accept(row)

    def insert_ended(self, row: dict[str, Any], *, may_exist: bool = False) -> R_co:
        """Accept the row of an ended execution."""
        return self._accept(row)

    def count_only(self, row: dict[str, Any]) -> R_co:
        """Accept an ended execution that is only counted."""
        return self._accept(Counted.of(row))

    def end(self, outcome: Outcome) -> R_co:
        """Accept an outcome."""
        return self._accept(outcome)


class AcceptingTracked(Accepting[None]):
    """Where a recorder's `begin` and `track` record: its queue.

    Heartbeats do not wait in it, because late ones say nothing. At most one a second is written.
    """

    def __init__(
        self,
        accept: Callable[[Operation], None],
        write_heartbeat: Callable[[UUID, str, dict[str, Any]], bool],
    ) -> None:
        super().__init__(accept)
        self.heartbeat = write_heartbeat
