"""Conversion of the callers' arguments into the values of a row, validated and sanitized."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from typing import Any
from uuid import UUID

from jobhistory._runtime.clock import in_utc
from jobhistory._runtime.durations import parse_retention
from jobhistory._runtime.log_tail import LogTail
from jobhistory._runtime.randomness import random_number
from jobhistory.errors import InvalidInput
from jobhistory.execution.ids import (
    check_uuid,
    error_type_text,
    id_at,
    id_text,
    name_text,
    read_execution_id,
)
from jobhistory.execution.job import PartialResults, check_keys, job_fields, partial_fields
from jobhistory.execution.labels import merged_labels, read_labels
from jobhistory.execution.outcome import ExecutionKey, Outcome, Which, elapsed_ms
from jobhistory.execution.retention import Retention
from jobhistory.execution.status import Status, read_status
from jobhistory.execution.times import complete_times, expiry
from jobhistory.execution.trace import (
    read_span_id,
    read_trace_id,
    trace_of,
)
from jobhistory.execution.values import (
    read_attempt_number,
    read_boolean,
    read_milliseconds,
    read_parent_id,
    read_share,
)
from jobhistory.failure import CANCELLATIONS, Failure
from jobhistory.sanitize.json_values import TEXT_ERROR_TYPE, Sanitizer
from jobhistory.sanitize.tracebacks import safe_text
from jobhistory.typing import Clock, Duration, ErrorLike, Id, Milliseconds, Random

_ERROR_COLUMNS = ("error_type", "error_message", "error_stack")
_IDS_THAT_EVENTS_LACK = ("worker_id", "correlation_id")
_REQUIRED = ("job_id", "correlation_id", "task_identifier", "worker_id", "status")


@dataclass(frozen=True)
class RowBuilder:
    """A builder of rows and outcomes, with the clock, the retention and other settings of a store.

    Each method raises `InvalidInput` if an argument is invalid.
    """

    clock: Clock
    retention: Retention
    sanitizer: Sanitizer
    labels: Mapping[str, str] = field(default_factory=dict)
    random: Random = random_number

    def started(
        self,
        job: Any,
        worker_id: Id,
        correlation_id: Id,
        history_retention: Duration | None,
        execution_id: UUID | None = None,
        *,
        parent_id: UUID | None = None,
        traceparent: str | None = None,
    ) -> dict[str, Any]:
        """Return the row of an execution that starts now.

        A retention of `None` means the store's retention for a completion. Columns that few
        executions use are absent, because each one makes the INSERT slower.
        """
        given = job_fields(job)
        key = ExecutionKey.of(given["id"], worker_id, correlation_id, job_id_from="job.id")
        now = self.now()
        kept = None if history_retention is None else parse_retention(history_retention, now=now)
        attempts, run_at = given["attempts"], given["run_at"]
        payload, payload_is_exact = self.sanitizer.payload(given["payload"])
        row = {
            "id": id_at(now)
            if execution_id is None
            else read_execution_id(execution_id, "execution_id", started_at=now),
            "job_id": key.job_id,
            "correlation_id": key.correlation_id,
            "task_identifier": name_text(given["task_identifier"], "job.task_identifier"),
            "worker_id": key.worker_id,
            "status": Status.STARTED,
            "attempt_number": 1
            if attempts is None
            else read_attempt_number(attempts, "job.attempts"),
            "payload": payload,
            "payload_is_exact": payload_is_exact,
            "started_at": now,
            "queue_time_ms": None
            if run_at is None
            else elapsed_ms(in_utc(run_at, "job.run_at"), now),
            "expires_at": expiry(now, kept),
        }
        if given["labels"] is not None or self.labels:
            row["labels"] = self._labels(given["labels"], "job.labels")
        if history_retention is None:
            # That of a completion: changing it would make completions slower.
            row["expires_at"] = self.retention.expiry(row, Status.COMPLETED)
        if parent_id is not None:
            row["parent_id"] = read_parent_id(parent_id, "parent_id")
        trace = trace_of(traceparent, "traceparent")
        if trace is not None:
            row["trace_id"], row["span_id"] = trace
        return row

    def completed(
        self, which: Which, execution_time_ms: Milliseconds | None, result: Any = None
    ) -> Outcome:
        """Return the outcome of an execution that completed."""
        # Without a result, the column stays NULL, and the statement does not mention it.
        results = {} if result is None else {"result": self.sanitizer.results(result)}
        return self._ended(which, Status.COMPLETED, execution_time_ms, **results)

    def failed(
        self,
        which: Which,
        execution_time_ms: Milliseconds | None,
        error: ErrorLike | None,
        will_retry: bool | None = None,
    ) -> Outcome:
        """Return the outcome of an execution that failed with an error."""
        failure = self._failure(error) | _will_retry(will_retry)
        return self._ended(which, Status.FAILED, execution_time_ms, **failure)

    def cancelled(
        self, which: Which, execution_time_ms: Milliseconds | None, reason: str | None
    ) -> Outcome:
        """Return the outcome of an execution that was stopped."""
        if not isinstance(reason, (str, type(None))):
            raise InvalidInput("reason", reason, "is not a text; write it like 'revoked'")
        return self._ended(which, Status.CANCELLED, execution_time_ms, **self._reason(reason))

    def ended_by(
        self,
        error: ErrorLike,
        which: Which,
        execution_time_ms: Milliseconds | None,
        will_retry: bool | None = None,
    ) -> Outcome:
        """Return the outcome of an execution that an error ended: a failure or a cancellation."""
        if isinstance(error, CANCELLATIONS):
            _will_retry(will_retry)
            return self.cancelled(which, execution_time_ms, safe_text(error))
        return self.failed(which, execution_time_ms, error, will_retry)

    def partly_succeeded(
        self,
        which: Which,
        execution_time_ms: Milliseconds | None,
        partial_results: PartialResults | Mapping[str, Any] | None,
    ) -> Outcome:
        """Return the outcome of an execution that succeeded in part."""
        given = partial_fields(partial_results)
        return self._ended(
            which,
            Status.PARTIAL_SUCCESS,
            execution_time_ms,
            # Never NULL: the partial index on failed_steps finds this kind of outcome.
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
        """Return the row of an ended execution that a caller describes by its columns.

        The three ids, the task identifier and the status are required; missing times are derived,
        and other columns default to `None`. A mapping may have the key `error` in place of the
        status and the three error columns.
        """
        given = self._with_error(self._known_fields(execution, fields or {}, argument))
        readers = self._readers
        row: dict[str, Any] = dict.fromkeys(readers)
        for name in _REQUIRED:
            row[name] = readers[name](given.get(name), name)
        for name, value in given.items():
            if value is not None and name not in _REQUIRED and name in readers:
                row[name] = readers[name](value, name)
        if "payload" in given:
            self._set_payload(row, is_stated="payload_is_exact" in given)
        if row["labels"] is None and self.labels:
            row["labels"] = dict(self.labels)
        if not row["status"].is_outcome:
            raise InvalidInput(
                "status", row["status"].value, "is not an outcome; pass one such as 'completed'"
            )
        if row["status"] is Status.FAILED:
            row["error_type"] = row["error_type"] or TEXT_ERROR_TYPE
        else:
            _refuse_error(row)
        if row["result"] is not None and row["status"] is not Status.COMPLETED:
            raise InvalidInput(
                "status", row["status"].value, "cannot be combined with a result; use 'completed'"
            )
        if row["status"] is Status.PARTIAL_SUCCESS and row["failed_steps"] is None:
            row["failed_steps"] = []  # the partial index needs a value
        row["attempt_number"] = 1 if row["attempt_number"] is None else row["attempt_number"]
        complete_times(row, self.now)
        if row["id"] is None:
            row["id"] = id_at(row["started_at"])
        else:
            read_execution_id(row["id"], "id", started_at=row["started_at"])
        if "expires_at" not in given:
            row["expires_at"] = self.retention.expiry(row, row["status"])
        return row

    def with_log_tail(self, outcome: Outcome, log: LogTail) -> Outcome:
        """Return the outcome with the last log lines of its execution, and stop keeping them."""
        log_tail = self.sanitizer.log_tail(log.close(), log.limit)
        return outcome._replace(values=outcome.values | {"log_tail": log_tail})

    def observed(self, record: Mapping[str, Any] | None) -> dict[str, Any]:
        """Return the row of an ended execution that an event describes, as `ended` does.

        Events may lack the ids of the worker and of the correlation. They become an empty text,
        which equals no id.
        """
        given = self._known_fields(record, {}, "record")
        missing = [name for name in _IDS_THAT_EVENTS_LACK if given.get(name) in (None, "")]
        row = self.ended({**given, **dict.fromkeys(missing, "unknown")}, argument="record")
        return row | dict.fromkeys(missing, "")

    def is_chosen(self, share: float | None) -> bool | None:
        """Return whether an execution belongs to a random share of all; `None` without a share."""
        return None if share is None else self.random() < share

    def now(self) -> datetime:
        """Return the current time in UTC.

        Raises:
            InvalidInput: if the clock returns a naive `datetime`.
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
            else read_milliseconds(execution_time_ms, "execution_time_ms")
        )
        return Outcome.of(which, values)

    def _set_payload(self, row: dict[str, Any], *, is_stated: bool) -> None:
        """Sanitize the payload. It is exact unless this changes it or the caller says it is not."""
        row["payload"], is_exact = self.sanitizer.payload(row["payload"])
        # A copy of a record stays inexact, or unknown, even if its payload does not change now.
        row["payload_is_exact"] = row["payload_is_exact"] and is_exact if is_stated else is_exact

    def _failure(self, error: ErrorLike | None) -> dict[str, Any]:
        """Return the columns of a failure."""
        if isinstance(error, Failure):
            stack = None if error.stack is None else self.sanitizer.stack(error.stack)
            kind = error_type_text(error.type, "error.type")
            columns = (kind, self.sanitizer.message(error.message), stack)
        elif isinstance(error, (BaseException, str)):
            columns = self.sanitizer.failure(error)
        else:
            raise InvalidInput(
                "error", type(error), "is not an error; pass an exception, a text or a Failure"
            )
        return dict(zip(_ERROR_COLUMNS, columns, strict=True))

    def _reason(self, reason: str | None) -> dict[str, Any]:
        """Return the columns of a cancellation."""
        return {"error_message": self.sanitizer.message(reason)} if reason else {}

    def _with_error(self, given: Mapping[str, Any]) -> Mapping[str, Any]:
        error, status = given.get("error"), given.get("status")
        if error is None:
            return given
        is_cancelled = isinstance(error, CANCELLATIONS) and status != Status.FAILED
        implied = Status.CANCELLED if is_cancelled else Status.FAILED
        if status not in (None, implied):
            raise InvalidInput("status", status, "cannot be combined with an error; omit it")
        columns = self._reason(safe_text(error)) if is_cancelled else self._failure(error)
        # `_readers` sanitizes these texts a second time, which does not change them.
        return {**given, "status": implied, **columns}

    def _known_fields(
        self, execution: Mapping[str, Any] | None, fields: Mapping[str, Any], argument: str
    ) -> Mapping[str, Any]:
        if execution is None and fields:
            execution = {}
        elif not isinstance(execution, Mapping):
            raise InvalidInput(
                argument, type(execution), "is neither a HistoryRecord nor a mapping of its fields"
            )
        return check_keys({**execution, **fields}, self._keys, argument)

    @cached_property
    def _keys(self) -> dict[str, None]:
        """The keys of a mapping that describes an ended execution, in order."""
        return dict.fromkeys((*self._readers, "error"))

    @cached_property
    def _readers(self) -> dict[str, Callable[[Any, str], Any]]:
        """The functions that validate and sanitize the values of each column."""
        return {
            "id": check_uuid,
            "job_id": id_text,
            "correlation_id": id_text,
            "parent_id": read_parent_id,
            "trace_id": read_trace_id,
            "span_id": read_span_id,
            "task_identifier": name_text,
            "worker_id": id_text,
            "status": read_status,
            "attempt_number": read_attempt_number,
            "labels": self._labels,
            "payload": lambda value, _: value,  # see `_set_payload`
            "payload_is_exact": read_boolean,
            "started_at": in_utc,
            "completed_at": in_utc,
            "queue_time_ms": read_milliseconds,
            "execution_time_ms": read_milliseconds,
            "heartbeat_at": in_utc,
            "progress": read_share,
            "expires_at": in_utc,
            "will_retry": read_boolean,
            "error_type": error_type_text,
            "error_message": self._message,
            "error_stack": self._stack,
            "completed_steps": self._steps,
            "failed_steps": self._steps,
            "retry_from_step": self._message,
            "partial_results": lambda value, _: self.sanitizer.results(value),
            "result": lambda value, _: self.sanitizer.results(value),
            "log_tail": self._stack,
        }

    def _labels(self, value: Any, argument: str) -> dict[str, str] | None:
        """Return the labels of a row, together with those of the store."""
        labels = {} if value is None else self.sanitizer.labels(read_labels(value, argument))
        return merged_labels(self.labels, labels, argument) or None

    def _message(self, value: Any, argument: str) -> str:
        return self.sanitizer.message(value)

    def _stack(self, value: Any, argument: str) -> str:
        return self.sanitizer.stack(value)

    def _steps(self, value: Any, argument: str) -> list[str]:
        if isinstance(value, str) or not isinstance(value, Iterable):
            raise InvalidInput(
                argument, value, "is not a list of texts; write it like ['download', 'parse']"
            )
        return self.sanitizer.steps(value)


def has_id(execution: Mapping[str, Any] | None, fields: Mapping[str, Any]) -> bool:
    """Return whether a caller chose the id of an ended execution."""
    given = (each for each in (execution, fields) if isinstance(each, Mapping))  # checked later
    return any(each.get("id") is not None for each in given)


def _refuse_error(row: Mapping[str, Any]) -> None:
    """Refuse an error of an execution that has not failed.

    The message of a cancelled execution is the reason for the cancellation.
    """
    is_cancelled = row["status"] is Status.CANCELLED
    for name in _ERROR_COLUMNS:
        if row[name] is not None and not (is_cancelled and name == "error_message"):
            raise InvalidInput(
                "status", row["status"].value, "cannot be combined with an error; use 'failed'"
            )
    if row["will_retry"]:
        raise InvalidInput(
            "will_retry", True, f"does not apply to {row['status'].value!r}; leave it out"
        )


def _will_retry(will_retry: bool | None) -> dict[str, Any]:
    return {} if will_retry is None else {"will_retry": read_boolean(will_retry, "will_retry")}


def _unless_none(read: Callable[[Any, str], Any], given: Mapping[str, Any], name: str) -> Any:
    value = given.get(name)
    return None if value is None else read(value, name)
