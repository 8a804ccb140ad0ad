"""The thread of a `Recorder`: it writes accepted operations, retries, and uses the spool."""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from random import uniform
from threading import RLock, Thread, current_thread
from time import monotonic
from typing import Protocol

from sqlalchemy.exc import DBAPIError

from jobhistory._runtime.at_exit import close_at_exit, forget
from jobhistory._runtime.fork import register_for_fork
from jobhistory.database.driver_errors import is_denied, is_refusal
from jobhistory.errors import InvalidInput, NotWritten, quoted, reason
from jobhistory.execution.batch import Batch, BatchResult, Counted, Operation
from jobhistory.execution.outcome import Outcome
from jobhistory.execution.retention import Retention
from jobhistory.recorder.idle_folding import IdleFolding
from jobhistory.recorder.intake import GivenUp, Intake
from jobhistory.recorder.options import RecorderOptions
from jobhistory.recorder.spool import Spool, keep_open
from jobhistory.recorder.spool_file import is_damage

logger = logging.getLogger("jobhistory.recorder")

_FIRST_PAUSE = 0.1
_LONGEST_PAUSE = 5.0
_CLOSING_PAUSE = 0.1
_SPOOLING_SECONDS = 5.0


class BatchHistory(Protocol):
    """A history that writes the batches of a recorder."""

    def write(
        self, batch: Batch, *, may_exist: bool, before_commit: Callable[[], None]
    ) -> BatchResult:
        """Write a batch and return its result."""
        ...


class NothingCanBeWritten(Exception):
    """The event loop on which batches are written does not run."""

    def __str__(self) -> str:
        return "the event loop of the AsyncRecorder does not run"


class Writer:
    """Writes the operations of its intake, in a thread, and folds while there are none.

    Thread-safe. One lock guards the spool, another one the intake. Code that needs both takes the
    lock of the spool first.

    Args:
        retention: that of the store.
    """

    def __init__(
        self,
        history: BatchHistory,
        options: RecorderOptions,
        retention: Retention,
        fold: Callable[[int], bool] | None = None,
    ) -> None:
        self._history = history
        self._retention = retention
        self._idle_folding = IdleFolding(fold)
        self._options = options
        self._spool: Spool | None = None
        self._reset(is_closed=False)
        register_for_fork(self)
        if options.spool is not None:
            self._open_spool()
            with self.intake.condition:
                if self.intake.has_work:
                    self._ensure_thread()

    def reset_after_fork(self) -> None:
        """Start empty, in a forked child. The parent keeps its operations."""
        if self._spool is not None:
            keep_open(self._spool)
            self._spool = None
        self._reset(is_closed=self.intake.is_closed)

    def _reset(self, *, is_closed: bool) -> None:
        self.intake = Intake(self._options, self._ensure_thread, is_closed=is_closed)
        self._thread: Thread | None = None
        self._is_ended = False
        self._spool_lock = RLock()
        self._is_spool_failing = False
        self._damaged: list[Path] = []

    def close(self, timeout: float | None) -> None:
        """Stop accepting operations, write those that were accepted, and end the thread."""
        if self._is_ended:
            return
        intake = self.intake
        intake.close(timeout)
        with intake.condition:
            is_alone = intake.has_work and not self._ensure_thread()
        try:
            if is_alone:  # no thread can start, for example at the end of the process
                self._work()
            with intake.condition:
                intake.condition.wait_for(
                    lambda: self._thread is None or intake.is_given_up, timeout
                )
        except BaseException:  # such as KeyboardInterrupt
            self._save()
            raise
        self._give_up()

    def _save(self) -> None:
        """Put what is left into the spool, or log it, before an interrupted `close` ends."""
        if self._options.spool is not None:
            with suppress(NotWritten):
                self._give_up()
        if waiting := self.intake.counts.waiting:
            logger.error(
                "close() of the recorder was interrupted; %d operations are not written yet, and "
                "are lost if the process ends now",
                waiting,
            )

    def _give_up(self) -> None:
        """Stop writing, and put what is left into the spool.

        Raises:
            NotWritten: if operations are left.
        """
        self.intake.give_up()
        if self._options.spool is not None and self._spool_lock.acquire(timeout=_SPOOLING_SECONDS):
            try:
                self._move_to_spool()
                self._close_spool()
            finally:
                self._spool_lock.release()
        self._is_ended = True
        forget(self)
        self.intake.raise_if_lost()

    def _ensure_thread(self) -> bool:
        if self._thread is not None:
            return True
        if self.intake.is_given_up:
            return False
        close_at_exit(self)
        thread = Thread(target=self._work, name="jobhistory-recorder", daemon=True)
        try:
            thread.start()
        except RuntimeError as error:  # too many threads, or the interpreter is about to end
            if self.intake.last_error is None:
                logger.error("the recorder's thread cannot start; each call tries again: %s", error)
            self.intake.last_error = error
            return False
        self._thread = thread  # in time, because the thread needs the lock to end
        self.intake.has_thread = True
        return True

    def _work(self) -> None:
        failures = 0
        try:
            with self._using_spool():
                self._has_spool()  # a forked child has no spool yet
            while self._wait_for_work():
                try:
                    if failures:
                        self._pause(failures)
                    self._write_first()
                    failures = 0
                except GivenUp:
                    raise
                except Exception as error:
                    failures += 1
                    if self._was_last_try(error):
                        return
        except GivenUp:
            return
        finally:
            with self.intake.condition:
                if self._thread is current_thread():
                    self._thread = None
                    self.intake.note_thread_end()

    def _wait_for_work(self) -> bool:
        """Fold when nothing comes, and return whether there is something to write."""
        folding = self._idle_folding
        while folding.is_wanted and self.intake.is_idle(folding.seconds):
            folding.fold()
        return self.intake.wait_for_work()

    def _was_last_try(self, error: Exception) -> bool:
        """Note a failure, and return whether the thread must end."""
        # With a spool, the next recorder tries again.
        has_spool = self._options.spool is not None and not self._is_spool_failing
        # No loop starts again while a process ends.
        is_over = isinstance(error, NothingCanBeWritten)
        is_late = has_spool or is_over or monotonic() >= self.intake.deadline
        is_last = self.intake.is_closed and is_late
        if self.intake.note_failure(error, is_last=is_last) and not is_last:
            logger.warning("history cannot be written; retrying: %s", reason(error))
        return is_last

    def _pause(self, failures: int) -> None:
        """Wait before the next retry. With a spool, move waiting operations there meanwhile."""
        longest = min(_LONGEST_PAUSE, _FIRST_PAUSE * 2 ** min(failures - 1, 10))
        until = monotonic() + uniform(0, longest)  # noqa: S311 - it protects nothing
        while (left := until - monotonic()) > 0:
            with self._using_spool():
                self._move_to_spool()
            with self.intake.condition:
                if self.intake.is_closed:
                    left = min(left, _CLOSING_PAUSE)
                    until = 0
                self.intake.condition.wait(left)

    def _write_first(self) -> None:
        """Write the first batch: from the spool, or from memory if the spool is empty."""
        if self.intake.spooled:
            self._write_spooled()
            return
        operations, is_again = self.intake.first()
        refused = self._write(operations, may_exist=is_again)
        if refused is not None:
            self.intake.note_written(len(operations), refused, was_spooled=False)
            self._idle_folding.note_written()

    def _write_spooled(self) -> None:
        with self._using_spool():
            spool = self._spool or self._open_spool()
            self._move_to_spool()  # after the operations that came before
            stretch = spool.first(self.intake.most, self._options.batch_bytes)
            if not len(stretch):
                self.intake.set_spooled(len(spool))
                return
        refused = self._write(stretch.operations, may_exist=True)
        if refused is None:
            return
        with self._using_spool():
            spool.remove(stretch)
        refused += len(stretch.unreadable)
        self.intake.note_written(len(stretch), refused, was_spooled=True)
        self._idle_folding.note_written()

    def _write(self, operations: list[Operation], *, may_exist: bool) -> int | None:
        """Write operations; return the number refused, or `None` to write them one by one."""
        try:
            written = self._history.write(
                Batch.of(operations, self._retention),
                may_exist=may_exist,
                before_commit=self.intake.before_commit,
            )
        except DBAPIError as error:
            if not is_refusal(error) and not _is_uncountable(error, operations):
                raise
            # A row may be in history already, which only the second try expects.
            if len(operations) > 1 or not may_exist:
                self.intake.split(len(operations))
                return None
            logger.error("refused: %s: %s", _shown(operations[0]), reason(error))
            return 1
        for outcome, refusal in written.refused:
            logger.error("refused: %s: %s", _shown(outcome), refusal)
        return len(written.refused)

    # The spool.

    @contextmanager
    def _using_spool(self) -> Iterator[None]:
        """Hold the spool's lock. If its file is found to be damaged, set it aside and raise."""
        with self._spool_lock:
            if self.intake.is_given_up:
                raise GivenUp
            try:
                yield
            except sqlite3.Error as error:
                if self._spool is not None and is_damage(error):
                    spool, self._spool = self._spool, None
                    self._damaged.append(spool.set_aside())
                    logger.error(
                        "the spool %s is damaged; it was renamed to %s",
                        spool.file,
                        self._damaged[-1],
                    )
                raise

    def _open_spool(self) -> Spool:
        assert self._options.spool is not None
        self._spool = Spool(
            self._options.spool, avoid=self._options.avoid, damaged=tuple(self._damaged)
        )
        self._damaged.clear()
        self.intake.set_spooled(len(self._spool))
        return self._spool

    def _has_spool(self) -> bool:
        """Return whether there is an open spool; open it first if necessary."""
        if self._spool is None and self._options.spool is not None:
            try:
                self._open_spool()
            except InvalidInput as error:
                self._note_spool_failure(error)
        return self._spool is not None

    def _note_spool_failure(self, error: Exception) -> None:
        if not self._is_spool_failing:
            logger.error("the spool cannot be used; operations stay in memory: %s", error)
        self._is_spool_failing = True

    def _move_to_spool(self) -> None:
        """Move all operations that wait in memory to the spool, if there is one."""
        waiting = self.intake.all()
        if self._options.spool is None or not waiting:
            return
        try:
            if not self._has_spool():
                return
            assert self._spool is not None
            self._spool.append(waiting)
        except sqlite3.Error as error:  # for example, the disk is full
            if is_damage(error):
                raise
            self._note_spool_failure(error)
            return
        self._is_spool_failing = False
        self.intake.note_spooled(len(waiting))

    def _close_spool(self) -> None:
        spool, self._spool = self._spool, None
        if spool is not None:
            try:
                spool.close()
            except (sqlite3.Error, OSError) as error:
                logger.error("the spool %s cannot be closed: %s", spool.file, error)


def _is_uncountable(error: DBAPIError, operations: list[Operation]) -> bool:
    """Return whether the role may not count executions, which must not keep others waiting."""
    return is_denied(error) and any(isinstance(each, Counted) for each in operations)


def _shown(operation: Operation) -> str:
    if isinstance(operation, Outcome):
        status, job_id = operation.values["status"], quoted(operation.key.job_id)
        if not status.is_outcome:
            return f"start of job {job_id}"
        return f"outcome {status.value} of job {job_id}"
    if isinstance(operation, Counted):
        return f"count of an execution of {quoted(operation.values['task_identifier'])}"
    return f"execution of job {quoted(operation['job_id'])}"
