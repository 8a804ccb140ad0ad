"""Recording for hot paths: calls return at once, and a thread writes in batches."""

from __future__ import annotations

import atexit
import logging
import os
import sqlite3
import sys
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from math import inf
from pathlib import Path
from threading import Condition, Thread
from time import monotonic
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self, cast
from weakref import WeakSet

from sqlalchemy.exc import DataError, IntegrityError

from jobhistory.errors import (
    InvalidInput,
    NotWritten,
    RecorderClosed,
    RecorderFull,
    check_count,
    quoted,
    reason,
)
from jobhistory.executions import Batch, ExecutionKey, Outcome, PartialResults
from jobhistory.forks import renew_in_children
from jobhistory.models import HistoryRecord
from jobhistory.retention import Duration
from jobhistory.spool import Operation, Spool
from jobhistory.status import Status
from jobhistory.store import HistoryStore
from jobhistory.texts import Id

if TYPE_CHECKING:
    from tenacity import RetryCallState, Retrying

logger = logging.getLogger(__name__)

STARTED_LIMIT = 10_000
"""Of how many started executions a recorder remembers the row until their outcome comes."""

AT_EXIT_SECONDS = 10.0
"""How long the end of a process waits for a recorder that was not closed."""

_LONGEST_PAUSE = 5.0
_CLOSING_PAUSE = 0.1

_KEY = ("job_id", "worker_id", "correlation_id")

Row = dict[str, Any]


@dataclass(frozen=True)
class RecorderCounts:
    """How many operations a `Recorder` has had: a start and its outcome are two.

    Attributes:
        accepted: those of calls that returned.
        written: those that are committed in history, whoever had accepted them.
        refused: those that cannot be in history, as the log says of each: an outcome of what has
            not started or has ended otherwise, or a value that the database does not take.
        retried: how often writing a batch was tried again.
        spooled: those that are in the spool now.
        waiting: those in memory that are not written yet.
    """

    accepted: int
    written: int
    refused: int
    retried: int
    spooled: int
    waiting: int


class Recorder:
    """Records executions through a store, in the background and many at once.

    Its methods may be called by any number of threads; they check their arguments, take what is to
    be recorded as it is then, and return. One thread writes it, in the order in which it came, each
    batch in a transaction; an execution whose start and outcome are in one batch is one INSERT. The
    ring buffer of the store gets an execution after the commit. While the database cannot be
    reached, the batch is tried again after pauses that get longer, up to 5 seconds.

    Outcomes can be refused only when they are written: then the log says so, with the job's id. The
    counts tell how many.

    At the end of the process what is left is written, if that takes no more than 10 seconds. A
    forked child begins with an empty recorder of its own; what its parent has accepted stays the
    parent's to write.

    Args:
        store: what to record through. A recorder has a thread of its own, so it takes no
            `AsyncHistoryStore`; one on the same database does as well, and its calls do not wait.
        batch_size: how many operations are written at once at the most.
        max_delay: how many seconds an operation waits for others at the most.
        queue_size: how many operations may wait in memory.
        when_full: what a call does if so many wait: `"block"` until there is room, or `"raise"`
            `RecorderFull`.
        spool: a local file for what cannot be written: while the database is away, what was
            accepted goes there, and what is there when the process ends, in whatever way, is
            written by the next recorder on that path, once. Processes that share a path get files
            of their own beside it. Without one, what is not written when the process ends is lost.

    Raises:
        InvalidInput: if an argument cannot be used.
        ModuleNotFoundError: if tenacity is not installed.
    """

    def __init__(
        self,
        store: HistoryStore,
        *,
        batch_size: int = 500,
        max_delay: float = 0.2,
        queue_size: int = 10_000,
        when_full: Literal["block", "raise"] = "block",
        spool: str | Path | None = None,
    ) -> None:
        if not isinstance(store, HistoryStore):
            raise InvalidInput("store", store, "is no HistoryStore; give create_store(engine)")
        check_count(batch_size, "batch_size", example=500)
        check_count(queue_size, "queue_size", example=10_000)
        if isinstance(max_delay, bool) or not isinstance(max_delay, (int, float)) or max_delay < 0:
            raise InvalidInput("max_delay", max_delay, "is no number of seconds; write it like 0.2")
        if when_full not in ("block", "raise"):
            raise InvalidInput("when_full", when_full, "is neither 'block' nor 'raise'")
        self._store = store
        self._batch_size = batch_size
        self._max_delay = max_delay
        self._queue_size = queue_size
        self._when_full = when_full
        self._spool_path = spool
        self._retrying = _retrying(self._should_stop, self._before_pause, self._pause)
        self._is_closed = False
        self._spool: Spool | None = None
        self.begin_anew()
        renew_in_children(self)
        if spool is not None:
            self._open_spool()
            if self._spooled:
                self._start_thread()

    def begin_anew(self) -> None:
        """Have nothing accepted and no thread, in a forked child; its parent has them."""
        # Kept, as closing it would be to let go of the parent's lock.
        self._parents_spool, self._spool = self._spool, None
        self._condition = Condition()
        self._thread: Thread | None = None
        self._deadline = inf
        self._flushing = 0

        self._started: dict[ExecutionKey, list[Row]] = {}
        self._started_count = 0
        self._queue: deque[Operation] = deque()
        self._in_hand: list[Operation] = []
        self._in_hand_tried = False
        self._last_error: BaseException | None = None

        self._accepted = self._written = self._refused = self._retried = 0
        self._found = self._spooled = 0

    def start(
        self,
        job: Any,
        worker_id: Id,
        correlation_id: Id,
        *,
        history_retention: Duration | None = None,
    ) -> None:
        """`HistoryStore.record_start`, in the background.

        Raises:
            InvalidInput: if an argument cannot be used.
            RecorderFull: if so much waits already, and the recorder was told to raise.
            RecorderClosed: if it is closed.
        """
        self._accept(self._store._rows.started(job, worker_id, correlation_id, history_retention))

    def completion(
        self, job_id: Id, worker_id: Id, correlation_id: Id, execution_time_ms: float
    ) -> None:
        """`HistoryStore.record_completion`, in the background; raises as `start` does."""
        key = ExecutionKey.of(job_id, worker_id, correlation_id)
        self._accept(self._store._rows.completed(key, execution_time_ms))

    def failure(
        self,
        job_id: Id,
        worker_id: Id,
        correlation_id: Id,
        execution_time_ms: float,
        error: BaseException | str,
    ) -> None:
        """`HistoryStore.record_failure`, in the background; raises as `start` does."""
        key = ExecutionKey.of(job_id, worker_id, correlation_id)
        self._accept(self._store._rows.failed(key, execution_time_ms, error))

    def partial_success(
        self,
        job_id: Id,
        worker_id: Id,
        correlation_id: Id,
        execution_time_ms: float,
        partial_results: PartialResults | Mapping[str, Any],
    ) -> None:
        """`HistoryStore.record_partial_success`, in the background; raises as `start` does."""
        key = ExecutionKey.of(job_id, worker_id, correlation_id)
        self._accept(self._store._rows.partly_succeeded(key, execution_time_ms, partial_results))

    def execution(
        self, execution: HistoryRecord | Mapping[str, Any] | None = None, **fields: Any
    ) -> None:
        """`HistoryStore.record_execution`, in the background; raises as `start` does."""
        self._accept(self._store._rows.ended(execution, fields))

    @property
    def counts(self) -> RecorderCounts:
        """How many operations this recorder has had, and what became of them."""
        with self._condition:
            return RecorderCounts(
                accepted=self._accepted,
                written=self._written,
                refused=self._refused,
                retried=self._retried,
                spooled=self._spooled,
                waiting=len(self._queue) + len(self._in_hand),
            )

    def flush(self, timeout: float | None = None) -> None:
        """Wait until all that was accepted before is committed in history, or refused.

        Args:
            timeout: how many seconds at the most; `None` for as long as it takes.

        Raises:
            NotWritten: if it takes longer. What waits is still tried.
        """
        with self._condition:
            wanted = self._accepted
            self._flushing += 1
            self._condition.notify_all()
            try:
                self._condition.wait_for(
                    lambda: self._done >= wanted or self._thread is None, timeout
                )
            finally:
                self._flushing -= 1
            if self._done < wanted:
                raise NotWritten(wanted - self._done, self._last_error)

    def close(self, timeout: float | None = AT_EXIT_SECONDS) -> None:
        """Accept nothing more, write what was accepted, and end the thread.

        With a spool, what cannot be written at once stays there for the next recorder.

        Args:
            timeout: how many seconds to try at the most; `None` for as long as it takes.

        Raises:
            NotWritten: if there is no spool, and something could not be written: it is lost.
        """
        with self._condition:
            if self._is_closed:
                return
            self._is_closed = True
            self._deadline = inf if timeout is None else monotonic() + timeout
            self._condition.notify_all()
            thread = self._thread
        if thread is not None:
            thread.join(timeout)
        self._spool_memory()
        if self._spool is not None and self._thread is None:
            self._spool.close()
        if waiting := self.counts.waiting:
            raise NotWritten(waiting, self._last_error)

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
        with self._condition:
            while len(self._queue) >= self._queue_size and not self._is_closed:
                if self._when_full == "raise":
                    raise RecorderFull(self._queue_size)
                self._condition.wait()
            if self._is_closed:
                raise RecorderClosed
            self._queue.append(self._with_its_row(operation))
            self._accepted += 1
            if self._thread is None:
                self._start_thread()
            elif len(self._queue) in (1, self._batch_size):
                self._condition.notify_all()

    def _with_its_row(self, operation: Operation) -> Operation:
        """Remember a row that has started, and let an outcome know its own."""
        if isinstance(operation, Outcome):
            rows = self._started.get(operation.key)
            if rows is None:
                return operation
            return Outcome(operation.key, operation.values, self._forget(rows, -1))
        if operation["status"] is Status.STARTED:
            key = ExecutionKey(*(operation[name] for name in _KEY))
            self._started.setdefault(key, []).append(operation)
            self._started_count += 1
            if self._started_count > STARTED_LIMIT:  # its outcome will find it by the key
                self._forget(next(iter(self._started.values())), 0)
        return operation

    def _forget(self, rows: list[Row], index: int) -> Row:
        row = rows.pop(index)
        if not rows:
            del self._started[ExecutionKey(*(row[name] for name in _KEY))]
        self._started_count -= 1
        return row

    @property
    def _done(self) -> int:
        """How many of the operations that were accepted are dealt with; those found came first."""
        return self._written + self._refused - self._found

    # What follows is the thread's; only it takes from the queue, and uses the spool.

    def _start_thread(self) -> None:
        self._thread = Thread(target=self._work, name="jobhistory-recorder", daemon=True)
        self._thread.start()
        _close_at_exit(self)

    def _work(self) -> None:
        try:
            if self._spool_path is not None and self._spool is None:
                self._open_spool()
            while self._wait_for_work():
                self._retrying(self._write_first)
        except Exception as error:
            if not self._is_closed:  # else this was the last try
                logger.exception("the recorder's thread has stopped; the next call starts another")
            self._last_error = error
        finally:
            with self._condition:
                self._thread = None
                self._condition.notify_all()

    def _wait_for_work(self) -> bool:
        """Wait for something to write, and a little longer for more of it."""
        with self._condition:
            if not self._spooled:
                self._condition.wait_for(lambda: self._queue or self._in_hand or self._is_closed)
                self._condition.wait_for(
                    lambda: (
                        len(self._queue) >= self._batch_size or self._is_closed or self._flushing
                    ),
                    self._max_delay,
                )
            is_late = self._is_closed and monotonic() >= self._deadline
            return not is_late and bool(self._queue or self._in_hand or self._spooled)

    def _write_first(self) -> None:
        """Write what is first in line: that in the spool, that of the last try, or the queue's."""
        if self._spool is not None and self._spooled:
            self._spool_memory()  # behind what came before it
            numbered = self._spool.first(self._batch_size)
            operations = [operation for _, operation in numbered]
            refused = self._write(operations, again=True)
            self._spool.remove([number for number, _ in numbered])
            self._note(len(operations), refused, was_spooled=True)
            return
        if not self._in_hand:
            self._take()
        again, self._in_hand_tried = self._in_hand_tried, True
        refused = self._write(self._in_hand, again=again)
        self._note(len(self._in_hand), refused)

    def _take(self) -> None:
        with self._condition:
            count = min(self._batch_size, len(self._queue))
            self._in_hand = [self._queue.popleft() for _ in range(count)]
            self._in_hand_tried = False
            self._condition.notify_all()

    def _write(self, operations: list[Operation], *, again: bool) -> int:
        """Write operations; say how many of them were refused."""
        try:
            written = self._store._history.write(_batch(operations), again=again)
        except (DataError, IntegrityError) as error:
            if len(operations) == 1:
                logger.error("refused: %s: %s", _shown(operations[0]), reason(error))
                return 1
            # One of them is what the database does not take; the others are written.
            return sum(self._write([operation], again=True) for operation in operations)
        for outcome, refusal in written.refused:
            logger.error("refused: %s: %s", _shown(outcome), refusal)
        return len(written.refused)

    def _note(self, count: int, refused: int, *, was_spooled: bool = False) -> None:
        with self._condition:
            self._written += count - refused
            self._refused += refused
            if was_spooled:
                self._spooled -= count
            else:
                self._in_hand = []
            self._last_error = None
            self._condition.notify_all()

    def _should_stop(self, state: RetryCallState) -> bool:
        # With a spool, the next recorder tries again.
        is_last_try = self._spool is not None or monotonic() >= self._deadline
        return self._is_closed and is_last_try

    def _before_pause(self, state: RetryCallState) -> None:
        assert state.outcome is not None
        error = cast("BaseException", state.outcome.exception())
        if self._last_error is None:
            logger.warning("history cannot be written, and is tried again: %s", reason(error))
        with self._condition:
            self._retried += 1
            self._last_error = error

    def _pause(self, seconds: float) -> None:
        """Wait before the next try, and keep memory empty meanwhile, if there is a spool."""
        until = monotonic() + seconds
        while (left := until - monotonic()) > 0:
            self._spool_memory()
            with self._condition:
                if self._is_closed:
                    left = min(left, _CLOSING_PAUSE)
                    until = 0
                self._condition.wait(left)

    def _open_spool(self) -> None:
        assert self._spool_path is not None
        spool = Spool(self._spool_path)
        with self._condition:
            self._spool = spool
            self._found = self._spooled = len(spool)

    def _spool_memory(self) -> None:
        """Move all that waits in memory to the spool, if there is one."""
        with self._condition:
            waiting = [*self._in_hand, *self._queue]
        if self._spool is None or not waiting:
            return
        try:
            self._spool.append(waiting)
        except sqlite3.Error as error:  # as when the disk is full
            logger.error("the spool cannot be written; what waits stays in memory: %s", error)
            return
        with self._condition:
            for _ in range(len(waiting) - len(self._in_hand)):
                self._queue.popleft()
            self._in_hand = []
            self._spooled += len(waiting)
            self._condition.notify_all()


def _batch(operations: Iterable[Operation]) -> Batch:
    """What to write: a row whose outcome is there as well has it already."""
    rows: dict[Any, Row] = {}
    outcomes = []
    for operation in operations:
        if not isinstance(operation, Outcome):
            rows[operation["id"]] = operation
        elif operation.row is not None and operation.row["id"] in rows:
            del rows[operation.row["id"]]  # to take its place in the order of outcomes
            rows[operation.row["id"]] = operation.ended_row()
        else:
            outcomes.append(operation)
    return Batch(list(rows.values()), outcomes)


def _shown(operation: Operation) -> str:
    if isinstance(operation, Outcome):
        return f"outcome {operation.values['status'].value} of job {quoted(operation.key.job_id)}"
    return f"execution of job {quoted(operation['job_id'])}"


def _retrying(
    stop: Callable[[RetryCallState], bool],
    before_pause: Callable[[RetryCallState], None],
    pause: Callable[[float], None],
) -> Retrying:
    try:
        from tenacity import Retrying, wait_random_exponential
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "Recorder needs tenacity; install it with: pip install 'jobhistory[recorder]'",
            name=error.name,
        ) from error
    return Retrying(
        wait=wait_random_exponential(multiplier=0.1, max=_LONGEST_PAUSE),
        stop=stop,
        before_sleep=before_pause,
        sleep=pause,
        reraise=True,
    )


_to_close: WeakSet[Recorder] = WeakSet()
_finalizing_process: int | None = None


def _close_at_exit(recorder: Recorder) -> None:
    global _finalizing_process
    _to_close.add(recorder)
    # The children of multiprocessing end without calling what atexit knows.
    util = sys.modules.get("multiprocessing.util")
    if util is not None and _finalizing_process != os.getpid():
        util.Finalize(None, _close_all, exitpriority=10)
        _finalizing_process = os.getpid()


@atexit.register
def _close_all() -> None:
    for recorder in list(_to_close):
        try:
            recorder.close()
        except NotWritten as error:
            logger.error("at the end of the process %s; they are lost", error)
