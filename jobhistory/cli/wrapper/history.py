"""The record of an attempt, written by a thread while the command runs."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import AbstractContextManager, suppress
from threading import Event, Thread
from typing import TYPE_CHECKING, Any, NamedTuple

from jobhistory._runtime.clock import utc_now
from jobhistory.cli.lines import say, shortened
from jobhistory.cli.wrapper.attempt import Attempt
from jobhistory.cli.wrapper.command import Ended
from jobhistory.cli.wrapper.options import RunOptions
from jobhistory.errors import InvalidInput, JobHistoryError, reason

if TYPE_CHECKING:
    from jobhistory.cli.run_file import RunFile
    from jobhistory.execution.retention import RetentionRule
    from jobhistory.store import HistoryStore

HEARTBEAT_SECONDS = 10.0
"""The time between heartbeats of a run that others must not overlap."""

_REASON_LENGTH = 100


class Result(NamedTuple):
    """What history gets at the end of an attempt."""

    ended: Ended
    will_retry: bool
    log_tail: str | None


class Recording:
    """Records one attempt. Its thread imports what that takes, which is slow.

    It records the start, and later the outcome. If the command has ended before the thread is
    ready, or history cannot be reached until then, it records both at once. It also ends the
    earlier executions of the task that were killed, and tells of them.

    Args:
        rules: the retention rules, if any.
    """

    def __init__(
        self, options: RunOptions, rules: Sequence[RetentionRule] | None, attempt: Attempt
    ) -> None:
        self._options = options
        self._rules = rules
        self._attempt = attempt
        self._result: Result | None = None
        self._has_ended = Event()
        self._problem: str | None = None
        self._thread = Thread(target=self._record, daemon=True)
        self._pid: int | None = None
        self._file: RunFile | None = None
        self._has_start = self._has_looked_back = self._has_declared = False

    def claim(self) -> str | None:
        """Record the start before the command starts, unless another run of its task runs.

        Return why this one is skipped, if it is. Without history, only the runs of this machine are
        known, and standard error says so.
        """
        here = None
        with suppress(OSError):
            self._open_file()
            here = None if self._file is None else self._file.begin_alone()
        try:
            from jobhistory.cli.wrapper import overlap

            with self._store(clock=lambda: self._attempt.started_at) as store:
                holder = here or overlap.start_alone(store, self._start_row(store))
                self._has_looked_back = True
                if holder is not None:
                    return overlap.why_skipped(store, holder)
        except Exception as error:
            if here is not None:
                return f"skipped: execution {here} is running on this machine"
            say(
                f"{shortened(self._attempt.job['task_identifier'])} may overlap with runs on other "
                f"machines, because history cannot be reached: {_reason(error)}"
            )
        else:
            self._has_start = True
        return None

    def skip(self, why: str) -> str | None:
        """Record that the attempt was skipped; return why that failed, if it did."""
        self._remove_file()
        fields = {"status": "cancelled", "error_message": why, "execution_time_ms": 0}
        try:
            self._record_whole(fields)
        except Exception as error:
            return _reason(error)
        return None

    def begin(self, pid: int | None) -> None:
        """Begin to record, while a process runs the command; `None` if it could not be started."""
        self._pid = pid
        self._name_command()
        self._thread.start()

    def end(self, result: Result) -> str | None:
        """Record how the attempt ended; return why that failed, if it did."""
        self._result = result
        self._has_ended.set()
        self._thread.join()
        return self._problem

    def _record(self) -> None:
        # Recording must not stop the command. What fails now is tried again at its end.
        with suppress(Exception):
            prepare()
            has_tried = self._options.no_overlap
            if self._options.record == "all" and not has_tried and not self._has_ended.is_set():
                self._open_file()
                self._name_command()
                self._keep_alive()
        seconds = HEARTBEAT_SECONDS if self._options.no_overlap else None
        while not self._has_ended.wait(seconds):
            with suppress(Exception):
                self._keep_alive()
        assert self._result is not None
        try:
            self._record_end(self._result)
        except Exception as error:
            self._problem = _reason(error)
            if self._file is not None:
                self._file.close()
        else:
            self._remove_file()

    def _keep_alive(self) -> None:
        """Send a heartbeat; before that, record the start unless it is recorded."""
        with self._store(clock=lambda: self._attempt.started_at) as store:
            history = store.internals.history
            if not self._has_start:
                history.insert(self._start_row(store), may_exist=True)
                self._has_start = True
                self._look_back(store)
                self._declare(store)
            elif self._options.no_overlap:
                from jobhistory.execution.ids import id_text

                job_id = id_text(self._attempt.job["job_id"], "job_id")
                beat = {"heartbeat_at": utc_now()}
                history.heartbeat(self._attempt.execution_id, job_id, beat)

    def _start_row(self, store: HistoryStore) -> dict[str, Any]:
        from jobhistory.execution.job import Job

        attempt, job = self._attempt, self._attempt.job
        return store.internals.rows.started(
            Job(
                job["job_id"],
                job["task_identifier"],
                payload=job["payload"],
                attempts=attempt.number,
                labels=job["labels"],
            ),
            job["worker_id"],
            job["correlation_id"],
            None,
            attempt.execution_id,
            parent_id=attempt.origin.parent_id,
            traceparent=attempt.origin.traceparent,
        )

    def _record_end(self, result: Result) -> None:
        ended = result.ended
        fields: dict[str, Any] = {
            "execution_time_ms": ended.milliseconds,
            "log_tail": result.log_tail,
        }
        if ended.error is None:
            fields["status"] = "completed"
        else:
            fields |= {"error": ended.error, "will_retry": result.will_retry or None}
        self._record_whole(fields)

    def _record_whole(self, fields: dict[str, Any]) -> None:
        """Record the attempt with its outcome, or its outcome only if its start is recorded."""
        attempt, record = self._attempt, self._options.record
        known = {
            **attempt.job,
            "attempt_number": attempt.number,
            "parent_id": attempt.origin.parent_id,
            "started_at": attempt.started_at,
        }
        if attempt.origin.trace is not None:
            known |= attempt.origin.trace._asdict()
        with self._store() as store:
            store.record_execution(
                known | fields,
                execution_id=attempt.execution_id if record == "all" else None,
                record=record,
            )
            self._look_back(store)
            try:
                self._declare(store)
            except Exception as error:
                task = shortened(self._attempt.job["task_identifier"])
                say(f"the schedule of {task} is not declared: {_reason(error)}")

    def _declare(self, store: HistoryStore) -> None:
        """Declare once what --expect says."""
        if self._options.expect is None or self._has_declared:
            return
        from jobhistory.cli.wrapper.expecting import declare

        task = self._attempt.job["task_identifier"]
        declare(store, task, self._options.expect, self._options.grace)
        self._has_declared = True

    def _look_back(self, store: HistoryStore) -> None:
        """End the runs of the task that were killed, once, and tell of them."""
        if self._has_looked_back:
            return
        self._has_looked_back = True
        from jobhistory.cli.wrapper import overlap

        with suppress(Exception):  # the next run tries again
            overlap.end_lost(store, self._attempt.job["task_identifier"])

    def _open_file(self) -> None:
        """Let others see that this run has a process, if that is possible."""
        if self._file is not None:
            return
        with suppress(OSError, ModuleNotFoundError):
            from jobhistory.cli.run_file import RunFile

            options, task = self._options, self._attempt.job["task_identifier"]
            self._file = RunFile(self._attempt.execution_id, options.url, options.schema, task)

    def _name_command(self) -> None:
        if self._file is not None and self._pid is not None:
            with suppress(OSError):
                self._file.name_command(self._pid)

    def _remove_file(self) -> None:
        if self._file is not None:
            with suppress(OSError):
                self._file.remove()

    def _store(self, **options: Any) -> AbstractContextManager[HistoryStore]:
        """Open a store. The command may run for hours, and holds no connection meanwhile."""
        from jobhistory.cli.database import open_store
        from jobhistory.sanitize.json_values import Limits

        limits = Limits()
        if self._options.capture is not None:
            limits = Limits(stack=max(limits.stack, self._options.capture))
        return open_store(
            self._options.url,
            self._options.schema,
            history_retention=self._options.retention,
            retention_rules=self._rules,
            limits=limits,
            **options,
        )


def prepare() -> None:
    """Import what recording takes, which is slow. What fails now, fails again when it is used."""
    with suppress(Exception):
        from jobhistory.cli import database  # noqa: F401


def _reason(error: Exception) -> str:
    if isinstance(error, InvalidInput):
        with suppress(ModuleNotFoundError):  # without the extra `cli`
            from jobhistory.cli.options import as_typed

            error = as_typed(error, sys.argv)
        return str(error)
    why = reason(error)
    # The library's own errors end with the remedy, so they are not cut.
    return why if isinstance(error, JobHistoryError) else shortened(why, _REASON_LENGTH)
