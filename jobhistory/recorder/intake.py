"""The operations that a `Recorder` has accepted, shared by its callers and its thread."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from math import inf
from threading import Condition
from time import monotonic

from jobhistory.errors import NotWritten, RecorderClosed, RecorderFull
from jobhistory.execution.batch import Counted, Operation
from jobhistory.execution.ids import new_execution_id
from jobhistory.recorder.backlog import Backlog, StartedRows, memory_of
from jobhistory.recorder.options import RecorderOptions

MOST_STARTED = 10_000
"""The number of started rows that a recorder keeps in memory until their outcomes come."""


@dataclass(frozen=True)
class RecorderCounts:
    """The numbers of operations of a `Recorder`. A start and its outcome are two operations.

    Attributes:
        accepted: operations of calls that returned.
        written: operations committed in history, including those that an earlier recorder on the
            same spool accepted.
        refused: operations that cannot be in history. The log names each of them: an outcome of an
            execution that has not started or has another outcome, a value that the database
            refuses, or an unreadable row of the spool.
        retried: retries of batches.
        spooled: operations that are in the spool now.
        waiting: operations in memory that are not written yet.
    """

    accepted: int
    written: int
    refused: int
    retried: int
    spooled: int
    waiting: int


class GivenUp(Exception):
    """The recorder is closed, and its thread must not write anything more."""


class Intake:
    """Accepts operations from any thread or task, hands them to the writer, and counts.

    Thread-safe: `condition` guards all attributes. It is never held while a database or a file is
    used.

    Args:
        ensure_thread: starts the writer's thread unless it runs, and returns whether it runs.
            Called with the condition held.
    """

    def __init__(
        self, options: RecorderOptions, ensure_thread: Callable[[], bool], *, is_closed: bool
    ) -> None:
        self.condition = Condition()
        self.is_closed = is_closed
        self.is_given_up = False
        self.has_thread = False
        self.deadline = inf
        self.last_error: BaseException | None = None
        self.spooled = 0

        self._id = new_execution_id()
        self._counted = 0
        self._options = options
        self._ensure_thread = ensure_thread
        self._futures: list[tuple[asyncio.AbstractEventLoop, asyncio.Future[None]]] = []
        self._backlog = Backlog(options.queue_size, options.queue_bytes)
        self._started = StartedRows(MOST_STARTED, options.queue_bytes)
        self._is_room_wanted = False
        self._flushing = 0
        self._tried = 0  # the number of first operations that may be in history already
        self._one_by_one = 0  # the number of first operations to write one by one
        self._in_flight = self._committing = 0  # operations of the backlog
        self._accepted = self._written = self._refused = self._retried = 0
        self._found = 0

    # For callers.

    def accept(self, operation: Operation) -> None:
        """Accept an operation. If there is no room, wait or raise, as `when_full` says."""
        size = memory_of(operation)
        with self.condition:
            while not self._offer(operation, size):
                self.condition.wait()

    async def accept_async(self, operation: Operation) -> None:
        """Do what `accept` does, without blocking the event loop."""
        size = memory_of(operation)
        while True:
            with self.condition:
                if self._offer(operation, size):
                    return
                change = self._next_change()
            await change

    def flush(self, timeout: float | None) -> None:
        """Wait until everything accepted so far is written or refused."""
        with self.condition:
            wanted = self._begin_flush()
            try:
                self.condition.wait_for(lambda: self._is_flushed(wanted), timeout)
            finally:
                self._end_flush()
            self._raise_not_written(wanted)

    async def flush_async(self, timeout: float | None) -> None:
        """Do what `flush` does, without blocking the event loop."""
        with self.condition:
            wanted = self._begin_flush()
        try:
            with suppress(TimeoutError):
                async with asyncio.timeout(timeout):
                    while True:
                        with self.condition:
                            if self._is_flushed(wanted):
                                return self._raise_not_written(wanted)
                            change = self._next_change()
                        await change
            with self.condition:
                self._raise_not_written(wanted)
        finally:
            with self.condition:
                self._end_flush()

    @property
    def counts(self) -> RecorderCounts:
        """The current counts."""
        with self.condition:
            return RecorderCounts(
                accepted=self._accepted,
                written=self._written,
                refused=self._refused,
                retried=self._retried,
                spooled=self.spooled,
                waiting=len(self._backlog),
            )

    def _offer(self, operation: Operation, size: int) -> bool:
        """Accept an operation if there is room, and return whether there was."""
        if self.is_closed:
            raise RecorderClosed
        # First, so that no one waits for a thread that has ended.
        has_thread = self.has_thread or self._ensure_thread()
        backlog, options = self._backlog, self._options
        if not backlog.has_room(size):
            if options.when_full == "raise" or not has_thread:
                raise RecorderFull(len(backlog), backlog.bytes)
            self._is_room_wanted = True
            self._notify()
            return False
        if isinstance(operation, Counted):
            self._counted += 1
            operation = replace(operation, recorder=self._id, number=self._counted)
        bytes_before = backlog.bytes
        backlog.add(*self._started.joined(operation, size))
        self._accepted += 1
        count = len(backlog)
        if count in (1, options.batch_size) or bytes_before < options.batch_bytes <= backlog.bytes:
            self._notify()
        return True

    def _begin_flush(self) -> int:
        self._flushing += 1
        self._notify()
        return self._accepted

    def _end_flush(self) -> None:
        self._flushing -= 1

    def _is_flushed(self, wanted: int) -> bool:
        return self._done >= wanted or not self._ensure_thread()

    def _raise_not_written(self, wanted: int) -> None:
        if self._done < wanted:
            raise NotWritten(wanted - self._done, self.last_error)

    @property
    def _done(self) -> int:
        """The number of accepted operations that are written or refused.

        Operations found in the spool came before them, and do not count.
        """
        return self._written + self._refused - self._found

    def _notify(self) -> None:
        """Wake every thread and task that waits for a change."""
        self.condition.notify_all()
        futures, self._futures = self._futures, []
        for loop, future in futures:
            with suppress(RuntimeError):  # the loop is closed
                loop.call_soon_threadsafe(_resolve, future)

    def _next_change(self) -> asyncio.Future[None]:
        loop = asyncio.get_running_loop()
        future = loop.create_future()
        self._futures.append((loop, future))
        return future

    # For the writer.

    @property
    def has_work(self) -> bool:
        """Whether an operation waits to be written."""
        return bool(self._backlog or self.spooled) and not self.is_given_up

    def close(self, timeout: float | None) -> None:
        """Stop accepting operations."""
        with self.condition:
            self.is_closed = True
            self.deadline = inf if timeout is None else monotonic() + timeout
            self._notify()

    def give_up(self) -> None:
        """Stop all writing: from now on, methods of the writer's thread raise `GivenUp`."""
        with self.condition:
            self.is_given_up = True
            self._notify()

    def note_thread_end(self) -> None:
        """Wake everyone who waits for the thread."""
        self.has_thread = False
        self._notify()

    def raise_if_lost(self) -> None:
        """Raise `NotWritten` if accepted operations are not written. Call it after `give_up`."""
        with self.condition:
            in_doubt = self._committing
            lost = len(self._backlog) - in_doubt
            if lost or in_doubt:
                raise NotWritten(lost, self.last_error, in_doubt)

    def is_idle(self, seconds: float) -> bool:
        """Wait until there is work or the recorder closes; return whether neither came in time."""
        with self.condition:
            return not self.condition.wait_for(
                lambda: self.spooled or self._backlog or self.is_closed, seconds
            )

    def wait_for_work(self) -> bool:
        """Wait until a batch is due, and return whether there is something to write."""
        with self.condition:
            if not self.spooled:
                self.condition.wait_for(lambda: self._backlog or self.is_closed)
                self.condition.wait_for(self._is_due, self._options.max_delay)
            is_late = self.is_closed and monotonic() >= self.deadline
            return self.has_work and not is_late

    @property
    def most(self) -> int:
        """The maximum number of operations in the next batch."""
        return 1 if self._one_by_one else self._options.batch_size

    def first(self) -> tuple[list[Operation], bool]:
        """Return the first batch in memory, and whether it may be in history already."""
        with self.condition:
            is_again = self._tried > 0
            most = min(self.most, self._tried or self.most)
            operations = self._backlog.first(most, self._options.batch_bytes)
            self._tried = max(self._tried, len(operations))
            self._in_flight = len(operations)
            return operations, is_again

    def all(self) -> list[Operation]:
        """Return all operations that wait in memory."""
        with self.condition:
            return self._backlog.all()

    def before_commit(self) -> None:
        """Raise `GivenUp` if the transaction must not be committed."""
        with self.condition:
            if self.is_given_up:
                raise GivenUp
            self._committing = self._in_flight

    def split(self, count: int) -> None:
        """Write the first operations one by one, because the database refuses one of them."""
        with self.condition:
            if not self.is_given_up:
                self._committing = 0
            self._one_by_one = count

    def note_written(self, count: int, refused: int, *, was_spooled: bool) -> None:
        """Count the first operations as written or refused."""
        with self.condition:
            if self.is_given_up and not (self._committing or was_spooled):
                raise GivenUp
            if was_spooled:
                self.spooled -= count
            else:
                self._backlog.drop(count)
                self._tried = max(0, self._tried - count)
            self._committing = self._in_flight = 0
            self._one_by_one = max(0, self._one_by_one - count)
            self._written += count - refused
            self._refused += refused
            self.last_error = None
            self._is_room_wanted = False
            self._notify()

    def note_failure(self, error: BaseException, *, is_last: bool) -> bool:
        """Count a retry unless this try was the last; return whether the previous try succeeded."""
        with self.condition:
            if self.is_given_up:
                raise GivenUp
            is_first = self.last_error is None
            self.last_error = error
            self._committing = self._in_flight = 0
            self._retried += not is_last
            return is_first

    def note_spooled(self, count: int) -> None:
        """Count the first operations in memory as moved to the spool."""
        with self.condition:
            self._backlog.drop(count)
            self._tried = self._committing = self._in_flight = 0
            self.spooled += count
            self._notify()

    def set_spooled(self, count: int) -> None:
        """Set the number of operations in the spool, which adoption or damage may have changed."""
        with self.condition:
            change = count - self.spooled
            self.spooled = count
            self._found += max(0, change)
            self._refused -= min(0, change)
            self._notify()

    def _is_due(self) -> bool:
        return bool(
            self.is_closed
            or self._flushing
            or self._is_room_wanted
            or self._tried
            or self._is_batch_full()
        )

    def _is_batch_full(self) -> bool:
        return (
            len(self._backlog) >= self._options.batch_size
            or self._backlog.bytes >= self._options.batch_bytes
        )


def _resolve(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
