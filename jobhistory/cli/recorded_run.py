"""The run of a command and its record in history."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime
from functools import partial

from jobhistory.cli import child, output
from jobhistory.errors import ExecutionNotFound, JobHistoryError, reason
from jobhistory.execution.job import Job
from jobhistory.store import HistoryStore

_NAME_LENGTH = 40
_REASON_LENGTH = 120


@dataclass(frozen=True)
class RecordedRun:
    """One run of a command that is recorded in history.

    Attributes:
        job: the job, with the command as its payload.
        worker_id, correlation_id: the other ids of the execution.
        open_store: opens a store. The command may run for hours, and holds no connection meanwhile.
        started_at: when the run started.
    """

    job: Job
    worker_id: str
    correlation_id: str
    open_store: Callable[[], AbstractContextManager[HistoryStore]]
    started_at: datetime

    def execute(self, command: list[str]) -> int:
        """Run the command and return its exit status.

        If history cannot be written, the command still runs, and standard error says what was not
        recorded.
        """
        with child.held_signals() as mask:
            name = f"{_shortened(self.job.task_identifier)} (job {_shortened(str(self.job.id))})"
            problem = _attempt(self._record_start)
            if problem:
                output.say(f"not recorded: the start of {name}, retried at its end: {problem}")
            ended = child.run_command(command, mask)
            if ended.exit_status in (126, 127) and isinstance(ended.error, OSError):
                output.say(f"{command[0]}: {ended.error.strerror}")
            problem_at_end = _attempt(partial(self._record_end, ended))
            if problem_at_end:
                why = "" if problem_at_end == problem else f": {problem_at_end}"
                output.say(
                    f"not recorded: {name}, started {self.started_at:%Y-%m-%dT%H:%M:%SZ}, "
                    f"ran {output.took(round(ended.milliseconds))}, "
                    f"exit status {ended.exit_status}{why}"
                )
        return ended.exit_status

    def _record_start(self) -> None:
        with self.open_store() as store:
            store.record_start(self.job, self.worker_id, self.correlation_id)

    def _record_end(self, ended: child.Ended) -> None:
        try:
            self._record_outcome(ended)
        except ExecutionNotFound:  # the database was unavailable at the start
            self._record_whole(ended)

    def _record_outcome(self, ended: child.Ended) -> None:
        key = (str(self.job.id), self.worker_id, self.correlation_id)
        with self.open_store() as store:
            if ended.error is None:
                store.record_completion(*key, ended.milliseconds)
            else:
                store.record_failure(*key, ended.milliseconds, ended.error)

    def _record_whole(self, ended: child.Ended) -> None:
        outcome = {"status": "completed"} if ended.error is None else {"error": ended.error}
        with self.open_store() as store:
            store.record_execution(
                outcome,
                job_id=self.job.id,
                worker_id=self.worker_id,
                correlation_id=self.correlation_id,
                task_identifier=self.job.task_identifier,
                payload=self.job.payload,
                started_at=self.started_at,
                execution_time_ms=ended.milliseconds,
            )


def _attempt(record: Callable[[], None]) -> str | None:
    """Write to history; return the reason if that fails."""
    try:
        record()
    except Exception as error:  # recording must not stop the command
        why = reason(error)
        # The library's own errors end with the remedy, so they are not cut.
        return why if isinstance(error, JobHistoryError) else _shortened(why, _REASON_LENGTH)
    return None


def _shortened(text: str, length: int = _NAME_LENGTH) -> str:
    return text if len(text) <= length else f"{text[: length - 3]}..."
