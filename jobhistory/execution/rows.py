"""From what a caller says of an execution to the values of its row: checked, and fit to store."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cached_property
from typing import Any
from uuid import UUID

from jobhistory._runtime.clock import in_utc
from jobhistory._runtime.durations import parse_retention
from jobhistory.errors import InvalidInput, check_count
from jobhistory.execution.ids import check_uuid, id_at, id_text, name_text, read_execution_id
from jobhistory.execution.job import PartialResults, check_keys, job_fields, partial_fields
from jobhistory.execution.outcome import ExecutionKey, Outcome, Which, elapsed_ms
from jobhistory.execution.status import Status, read_status
from jobhistory.sanitize.json_values import TEXT_ERROR_TYPE, Sanitizer
from jobhistory.typing import Clock, Duration, Id, Milliseconds

_LARGEST_MILLISECONDS = 2**63 - 1
_LARGEST_ATTEMPT = 2**31 - 1
_MILLISECOND = timedelta(milliseconds=1)

_ERROR_COLUMNS = ("error_type", "error_message", "error_stack")
_REQUIRED = frozenset({"job_id", "correlation_id", "task_identifier", "worker_id", "status"})


@dataclass(frozen=True)
class RowBuilder:
    """Builds the values of rows by the clock, the retention and the sanitizer of one store."""

    clock: Clock
    retention: timedelta | None
    sanitizer: Sanitizer

    def started(
        self,
        job: Any,
        worker_id: Id,
        correlation_id: Id,
        history_retention: Duration | None,
        execution_id: UUID | None = None,
    ) -> dict[str, Any]:
        """Return the row of an execution that starts now; a retention of `None` is the store's."""
        given = job_fields(job)
        key = ExecutionKey.of(given["id"], worker_id, correlation_id, job_id_from="job.id")
        now = self.now()
        retention = (
            self.retention
            if history_retention is None
            else parse_retention(history_retention, now=now)
        )
        attempts, run_at = given["attempts"], given["run_at"]
        return {
            "id": id_at(now)
            if execution_id is None
            else read_execution_id(execution_id, "execution_id", started_at=now),
            "job_id": key.job_id,
            "correlation_id": key.correlation_id,
            "task_identifier": name_text(given["task_identifier"], "job.task_identifier"),
            "worker_id": key.worker_id,
            "status": Status.STARTED,
            "attempt_number": 1 if attempts is None else _attempt_number(attempts, "job.attempts"),
            "payload": self.sanitizer.payload(given["payload"]),
            "started_at": now,
            "queue_time_ms": None
            if run_at is None
            else elapsed_ms(in_utc(run_at, "job.run_at"), now),
            "expires_at": _expiry(now, retention),
        }

    def completed(self, which: Which, execution_time_ms: Milliseconds | None) -> Outcome:
        """Return the outcome of an execution that did its work."""
        return self._ended(which, Status.COMPLETED, execution_time_ms)

    def failed(
        self,
        which: Which,
        execution_time_ms: Milliseconds | None,
        error: BaseException | str | None,
    ) -> Outcome:
        """Return the outcome of an execution that failed with an error."""
        return self._ended(which, Status.FAILED, execution_time_ms, **self._failure(error))

    def partly_succeeded(
        self,
        which: Which,
        execution_time_ms: Milliseconds | None,
        partial_results: PartialResults | Mapping[str, Any] | None,
    ) -> Outcome:
        """Return the outcome of an execution of which some steps succeeded."""
        given = partial_fields(partial_results)
        return self._ended(
            which,
            Status.PARTIAL_SUCCESS,
            execution_time_ms,
            # Never NULL, even when empty: it is by failed_steps that the index finds this outcome.
            completed_steps=_unless_none(self._steps, given, "completed_steps") or [],
            failed_steps=_unless_none(self._steps, given, "failed_steps") or [],
            retry_from_step=_unless_none(self._message, given, "retry_from_step"),
            partial_results=self.sanitizer.results(given.get("results")),
        )

    def ended(
        self,
        execution: Mapping[str, Any] | None,
        fields: Mapping[str, Any] | None = None,
        *,
        argument: str = "execution",
    ) -> dict[str, Any]:
        """The row of an ended execution that somebody describes by its columns.

        The ids, the task identifier and the outcome must be there; the rest is derived or empty. A
        mapping may have an `error`, an exception or a text, in place of the columns of a failure.
        """
        given = self._with_error(self._known_fields(execution, fields or {}, argument))
        row: dict[str, Any] = {}
        for name, read in self._readers.items():
            value = given.get(name)
            row[name] = None if value is None and name not in _REQUIRED else read(value, name)
        if not row["status"].is_outcome:
            raise InvalidInput(
                "status", row["status"].value, "is no outcome; give one such as 'completed'"
            )
        if row["status"] is Status.FAILED:
            row["error_type"] = row["error_type"] or TEXT_ERROR_TYPE
        elif not row["error_type"] is row["error_message"] is row["error_stack"] is None:
            raise InvalidInput(
                "status", row["status"].value, "does not go with an error; write it like 'failed'"
            )
        if row["status"] is Status.PARTIAL_SUCCESS and row["failed_steps"] is None:
            row["failed_steps"] = []  # by which partial successes are found
        row["attempt_number"] = 1 if row["attempt_number"] is None else row["attempt_number"]
        self._complete_times(row)
        if row["id"] is None:
            row["id"] = id_at(row["started_at"])
        else:
            read_execution_id(row["id"], "id", started_at=row["started_at"])
        if "expires_at" not in given:
            row["expires_at"] = _expiry(row["started_at"], self.retention)
        return row

    def now(self) -> datetime:
        """The clock's time.

        Raises:
            InvalidInput: if the clock gives a naive one.
        """
        return in_utc(self.clock(), "clock()")

    def _ended(
        self, which: Which, status: Status, execution_time_ms: Milliseconds | None, **values: Any
    ) -> Outcome:
        values["status"] = status
        values["completed_at"] = self.now()
        values["execution_time_ms"] = (
            None
            if execution_time_ms is None
            else _milliseconds(execution_time_ms, "execution_time_ms")
        )
        return Outcome.of(which, values)

    def _complete_times(self, row: dict[str, Any]) -> None:
        """Derive each of start, end and duration from the two others, as far as they are given."""
        started_at, completed_at = row["started_at"], row["completed_at"]
        took = row["execution_time_ms"]
        if started_at is None:
            completed_at = completed_at or self.now()
            started_at = _moved(completed_at, -(took or 0))
        elif completed_at is None:
            completed_at = max(started_at, self.now())
            if took is not None:
                completed_at = _moved(started_at, took)
            else:
                took = elapsed_ms(started_at, completed_at)
        elif completed_at < started_at:
            raise InvalidInput(
                "completed_at",
                completed_at.isoformat(),
                f"is before started_at {started_at.isoformat()!r}; swap the two",
            )
        elif took is None:
            took = elapsed_ms(started_at, completed_at)
        row["started_at"], row["completed_at"] = started_at, completed_at
        row["execution_time_ms"] = took

    def _failure(self, error: BaseException | str | None) -> dict[str, Any]:
        if not isinstance(error, (BaseException, str)):
            raise InvalidInput("error", type(error), "is not an error; give an exception or a text")
        return dict(zip(_ERROR_COLUMNS, self.sanitizer.failure(error), strict=True))

    def _with_error(self, given: Mapping[str, Any]) -> Mapping[str, Any]:
        if given.get("error") is None:
            return given
        if given.get("status") not in (None, Status.FAILED):
            raise InvalidInput("status", given["status"], "does not go with an error; leave it out")
        # The text of an exception is bounded and cleaned already; to do it again changes nothing.
        return {**given, "status": Status.FAILED, **self._failure(given["error"])}

    def _known_fields(
        self, execution: Mapping[str, Any] | None, fields: Mapping[str, Any], argument: str
    ) -> Mapping[str, Any]:
        if execution is None and fields:
            execution = {}
        elif not isinstance(execution, Mapping):
            raise InvalidInput(
                argument, type(execution), "is neither a HistoryRecord nor a mapping of its fields"
            )
        return check_keys({**execution, **fields}, (*self._readers, "error"), argument)

    @cached_property
    def _readers(self) -> dict[str, Callable[[Any, str], Any]]:
        """For each column, how to check a value and make it fit to store."""
        return {
            "id": check_uuid,
            "job_id": id_text,
            "correlation_id": id_text,
            "task_identifier": name_text,
            "worker_id": id_text,
            "status": read_status,
            "attempt_number": _attempt_number,
            "payload": lambda value, _: self.sanitizer.payload(value),
            "started_at": in_utc,
            "completed_at": in_utc,
            "queue_time_ms": _milliseconds,
            "execution_time_ms": _milliseconds,
            "error_type": name_text,
            "error_message": self._message,
            "error_stack": lambda value, _: self.sanitizer.stack(value),
            "completed_steps": self._steps,
            "failed_steps": self._steps,
            "retry_from_step": self._message,
            "partial_results": lambda value, _: self.sanitizer.results(value),
            "expires_at": in_utc,
        }

    def _message(self, value: Any, argument: str) -> str:
        return self.sanitizer.message(value)

    def _steps(self, value: Any, argument: str) -> list[str]:
        if isinstance(value, str) or not isinstance(value, Iterable):
            raise InvalidInput(
                argument, value, "is not a list of texts; write it like ['download', 'parse']"
            )
        return self.sanitizer.steps(value)


def has_id(execution: Mapping[str, Any] | None, fields: Mapping[str, Any]) -> bool:
    """Return whether a caller chose the id of an execution that has ended."""
    return any(given is not None and given.get("id") is not None for given in (execution, fields))


def _unless_none(read: Callable[[Any, str], Any], given: Mapping[str, Any], name: str) -> Any:
    value = given.get(name)
    return None if value is None else read(value, name)


def _attempt_number(value: Any, argument: str) -> int:
    check_count(value, argument, least=0, most=_LARGEST_ATTEMPT, example=1)
    return int(value)


def _milliseconds(value: Any, argument: str) -> int:
    if type(value) is int and 0 <= value <= _LARGEST_MILLISECONDS:
        return value
    milliseconds = value / _MILLISECOND if isinstance(value, timedelta) else value
    # Clocks that are a little apart give a little less than nothing.
    if (
        isinstance(milliseconds, (int, float))
        and not isinstance(milliseconds, bool)
        and -1 < milliseconds <= _LARGEST_MILLISECONDS
    ):
        return max(0, round(milliseconds))
    raise InvalidInput(
        argument, value, "is not a duration in milliseconds from 0 up; write it like 1500"
    )


def _moved(moment: datetime, milliseconds: int) -> datetime:
    try:
        return moment + timedelta(milliseconds=milliseconds)
    except OverflowError:  # it cannot have taken so long
        return moment


def _expiry(started_at: datetime, retention: timedelta | None) -> datetime | None:
    if retention is None:
        return None
    try:
        return started_at + retention
    except OverflowError:
        raise InvalidInput(
            "history_retention",
            str(retention),
            "is longer than dates reach; write it like '30 days'",
        ) from None
