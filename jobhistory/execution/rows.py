"""From what a caller says of an execution to the values of its row: checked, and fit to store."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, fields
from datetime import datetime, timedelta
from functools import cached_property
from typing import Any, NamedTuple, TypeAlias
from uuid import UUID

from jobhistory._runtime.clock import Clock, in_utc
from jobhistory._runtime.durations import Duration, parse_retention
from jobhistory.errors import (
    ExecutionNotFound,
    InvalidInput,
    JobHistoryError,
    check_count,
    quoted,
)
from jobhistory.execution.ids import id_at, read_execution_id
from jobhistory.execution.status import Status, read_status
from jobhistory.sanitize.json_values import TEXT_ERROR_TYPE, Sanitizer
from jobhistory.sanitize.truncate import Id, id_text, name_text
from jobhistory.schema import COLUMN_NAMES, HistoryRecord, values_of

_LARGEST_MILLISECONDS = 2**63 - 1
_LARGEST_ATTEMPT = 2**31 - 1
_MILLISECOND = timedelta(milliseconds=1)

Milliseconds: TypeAlias = float | timedelta
"""A duration in milliseconds, or a `timedelta`; stored as whole milliseconds."""

WORKER_LOST = "jobhistory.WorkerLost"
"""The error type of executions whose worker is taken for lost."""

OUTCOME_COLUMNS = (
    "status",
    "completed_at",
    "execution_time_ms",
    "error_type",
    "error_message",
    "error_stack",
    "completed_steps",
    "failed_steps",
    "retry_from_step",
    "partial_results",
)
"""The columns that an outcome fills; the others stay as the start wrote them."""

_ERROR_COLUMNS = ("error_type", "error_message", "error_stack")
_ENDED_FIELDS = dict.fromkeys((*COLUMN_NAMES, "error"))
_REQUIRED = frozenset({"job_id", "correlation_id", "task_identifier", "worker_id", "status"})


@dataclass(frozen=True)
class Job:
    """A unit of work that somebody queued, for callers who have no such object of their own.

    Args:
        id: the job's id; an execution is an attempt at it.
        task_identifier: what kind of work it is, such as `"send_email"`.
        payload: what it works on; anything, as it is made fit for JSON.
        attempts: which attempt this is, counted by the queue.
        run_at: when it was due; an aware `datetime`.
    """

    id: Id
    task_identifier: str
    payload: Any = None
    attempts: int = 1
    run_at: datetime | None = None


_JOB_FIELDS = tuple(field.name for field in fields(Job))


@dataclass(frozen=True, kw_only=True)
class PartialResults:
    """How far an execution came that succeeded in part.

    Args:
        completed_steps: the names of the steps that are done.
        failed_steps: the names of those that failed.
        retry_from_step: the step to start at next time.
        results: what the completed steps brought; anything, as it is made fit for JSON.
    """

    completed_steps: Iterable[str] = ()
    failed_steps: Iterable[str] = ()
    retry_from_step: str | None = None
    results: Any = None


class ExecutionKey(NamedTuple):
    """The three ids by which an outcome finds the execution that it ends."""

    job_id: str
    worker_id: str
    correlation_id: str

    @classmethod
    def of(
        cls, job_id: Id, worker_id: Id, correlation_id: Id, *, job_id_from: str = "job_id"
    ) -> ExecutionKey:
        """The key of these ids.

        Raises:
            InvalidInput: if one of them cannot be an id.
        """
        return cls(
            id_text(job_id, job_id_from),
            id_text(worker_id, "worker_id"),
            id_text(correlation_id, "correlation_id"),
        )

    @classmethod
    def of_row(cls, row: Mapping[str, Any]) -> ExecutionKey:
        """Return the key of a row."""
        return cls(*(row[name] for name in cls._fields))


_NO_KEY = ExecutionKey("", "", "")


class Outcome(NamedTuple):
    """How an execution ended: which one, and the values that its row gets.

    Attributes:
        key: the newest started execution with these ids, unless `row` or `execution_id` names one.
        values: by column, `completed_at` and `execution_time_ms` among them. A time of `None` is
            the time since the start. Columns of other kinds of outcome are missing.
        row: the started row, if the caller knows it.
        execution_id: the id of the row, if the caller knows that alone.
    """

    key: ExecutionKey
    values: dict[str, Any]
    row: dict[str, Any] | None = None
    execution_id: UUID | None = None

    @property
    def id(self) -> UUID | None:
        """The id of the row that this outcome ends, if it is known."""
        return self.execution_id if self.row is None else self.row["id"]

    def completed_at(self, started_at: datetime) -> datetime:
        """Return the end of an execution that started then: never before its start."""
        moment: datetime = self.values["completed_at"]
        return max(moment, started_at)

    def ended_row(self) -> dict[str, Any]:
        """Return the whole row with this outcome; only for an outcome that knows its row."""
        assert self.row is not None
        row = self.row | dict.fromkeys(OUTCOME_COLUMNS) | self.values
        row["completed_at"] = self.completed_at(row["started_at"])
        if row["execution_time_ms"] is None:
            row["execution_time_ms"] = elapsed_ms(row["started_at"], row["completed_at"])
        return row

    def agrees_with(self, record: HistoryRecord) -> bool:
        """Return whether an ended record has the same outcome, as after a repeated call."""
        return bool(record.status == self.values["status"])


Operation: TypeAlias = dict[str, Any] | Outcome
"""A new row, or the outcome of an execution."""


@dataclass(frozen=True)
class Batch:
    """What a `Recorder` writes in one transaction.

    Attributes:
        operations: in the order of the calls. A row whose outcome is in the same batch is whole,
            and has the outcome's place.
    """

    operations: list[Operation]

    @classmethod
    def of(cls, operations: Iterable[Operation]) -> Batch:
        """Merge the rows and their outcomes."""
        merged: dict[UUID | int, Operation] = {}
        for place, operation in enumerate(operations):
            if not isinstance(operation, Outcome):
                # A second row with an id is one that history may refuse, unless it is a replay.
                is_other = merged.get(operation["id"], operation) != operation
                merged[place if is_other else operation["id"]] = operation
            elif operation.row is not None and merged.pop(operation.row["id"], None) is not None:
                merged[operation.row["id"]] = operation.ended_row()
            else:
                merged[place] = operation
        return cls(list(merged.values()))

    @cached_property
    def rows(self) -> list[dict[str, Any]]:
        """The new rows."""
        return [each for each in self.operations if not isinstance(each, Outcome)]

    @cached_property
    def outcomes(self) -> list[Outcome]:
        """The outcomes of executions whose rows were written before."""
        return [each for each in self.operations if isinstance(each, Outcome)]


@dataclass(frozen=True)
class Written:
    """What has become of a `Batch`.

    Attributes:
        ended: the rows that have an outcome now, in order.
        refused: the outcomes that could not be recorded, and why.
    """

    ended: list[dict[str, Any]]
    refused: list[tuple[Outcome, JobHistoryError]]


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
        given = _fields_of(job)
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
        given = _partial_fields(partial_results)
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
        execution: HistoryRecord | Mapping[str, Any] | None,
        fields: Mapping[str, Any] | None = None,
        *,
        argument: str = "execution",
    ) -> dict[str, Any]:
        """The row of an ended execution that somebody describes by its columns.

        The ids, the task identifier and the outcome must be there; the rest is derived or empty. A
        mapping may have an `error`, an exception or a text, in place of the columns of a failure.
        """
        given = self._with_error(_known_columns(execution, fields or {}, argument))
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
        if isinstance(which, ExecutionKey):
            return Outcome(which, values)
        if isinstance(which, UUID):
            return Outcome(_NO_KEY, values, execution_id=which)
        return Outcome(ExecutionKey.of_row(which), values, which)

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

    @cached_property
    def _readers(self) -> dict[str, Callable[[Any, str], Any]]:
        """For each column, how to check a value and make it fit to store."""
        return {
            "id": _uuid,
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


Which: TypeAlias = ExecutionKey | UUID | dict[str, Any]
"""Which execution an outcome ends: by its three ids, by its own id, or by its started row."""


def which_execution(
    job_id: Id | HistoryRecord | None,
    worker_id: Id | None,
    correlation_id: Id | None,
    execution_id: UUID | None,
) -> Which:
    """Return which execution a caller names: by three ids, by a record, or by an execution id.

    Raises:
        InvalidInput: if an id cannot be one, or the caller names an execution in two ways.
    """
    given = {"job_id": job_id, "worker_id": worker_id, "correlation_id": correlation_id}
    way = "a record" if isinstance(job_id, HistoryRecord) else "an execution_id"
    if isinstance(job_id, HistoryRecord):
        del given["job_id"]
        given["execution_id"] = execution_id
    elif execution_id is None:
        return ExecutionKey.of(job_id, worker_id, correlation_id)  # type: ignore[arg-type]
    for name, value in given.items():
        if value is not None:
            raise InvalidInput(name, value, f"does not go with {way}; leave one of them out")
    if isinstance(job_id, HistoryRecord):
        _uuid(job_id.id, "record.id")
        return values_of(job_id)
    return _uuid(execution_id, "execution_id")


def has_id(execution: HistoryRecord | Mapping[str, Any] | None, fields: Mapping[str, Any]) -> bool:
    """Return whether a caller chose the id of an execution that has ended."""
    if fields.get("id") is not None:
        return True
    if isinstance(execution, HistoryRecord):
        return execution.id is not None
    return isinstance(execution, Mapping) and execution.get("id") is not None


def not_found(outcome: Outcome) -> ExecutionNotFound:
    """Return the error for an outcome of an execution that is not in history."""
    if outcome.id is not None:
        return ExecutionNotFound(None, None, None, outcome.id)
    return ExecutionNotFound(*outcome.key)


def check_same_job(row: Mapping[str, Any], record: HistoryRecord) -> None:
    """Refuse a row whose id is that of another job's execution.

    Raises:
        InvalidInput: if the record with the row's id is of another job or task.
    """
    if (row["job_id"], row["task_identifier"]) != (record.job_id, record.task_identifier):
        raise InvalidInput(
            "execution_id",
            row["id"],
            f"is that of an execution of job {quoted(record.job_id)} "
            f"and task {quoted(record.task_identifier)}; make one with new_execution_id()",
        )


def is_lost(record: HistoryRecord) -> bool:
    """Return whether an execution was presumed to have ended, as its worker seemed lost."""
    return bool(record.status == Status.FAILED and record.error_type == WORKER_LOST)


def lost_message(since: str) -> str:
    """Why an execution is taken for lost that started at a moment, given as text."""
    return f"no outcome since it started at {since}; its worker is taken for lost"


def lost(started_at: datetime, now: datetime) -> dict[str, Any]:
    """The outcome of an execution that is taken for lost, by column."""
    return {
        "status": Status.FAILED,
        "completed_at": now,
        "error_type": WORKER_LOST,
        "error_message": lost_message(started_at.isoformat(timespec="seconds")[:19] + "Z"),
    }


def _unless_none(read: Callable[[Any, str], Any], given: Mapping[str, Any], name: str) -> Any:
    value = given.get(name)
    return None if value is None else read(value, name)


def _fields_of(job: Any) -> dict[str, Any]:
    if type(job) is Job:
        return vars(job)
    if isinstance(job, Mapping):
        _only_known(job, _JOB_FIELDS, "job")
        return {name: job.get(name) for name in _JOB_FIELDS}
    return {name: _attribute(job, name) for name in _JOB_FIELDS}


def _attribute(job: Any, name: str) -> Any:
    try:
        return getattr(job, name, None)
    except Exception as error:
        raised = f"raised {type(error).__name__}"
        if name == "payload":  # whatever it is, it is no reason not to record the job
            return f"<payload that {raised}>"
        raise InvalidInput(
            f"job.{name}", type(job), f"{raised} when it was read; give a loaded object or a Job"
        ) from error


def _partial_fields(partial: PartialResults | Mapping[str, Any] | None) -> Mapping[str, Any]:
    names = [field.name for field in fields(PartialResults)]
    if isinstance(partial, PartialResults):
        return {name: getattr(partial, name) for name in names}
    if not isinstance(partial, Mapping):
        raise InvalidInput(
            "partial_results", type(partial), "is neither a mapping nor a PartialResults"
        )
    return _only_known(partial, names, "partial_results")


def _known_columns(
    execution: HistoryRecord | Mapping[str, Any] | None, fields: Mapping[str, Any], argument: str
) -> Mapping[str, Any]:
    if isinstance(execution, HistoryRecord):
        given: Mapping[str, Any] = values_of(execution)
    elif isinstance(execution, Mapping):
        given = execution
    elif execution is None and fields:
        given = {}
    else:
        raise InvalidInput(
            argument, type(execution), "is neither a HistoryRecord nor a mapping of its fields"
        )
    return _only_known({**given, **fields}, _ENDED_FIELDS, argument)


def _only_known(
    given: Mapping[str, Any], known: Collection[str], argument: str
) -> Mapping[str, Any]:
    for key in given:
        if key not in known:
            raise InvalidInput(
                argument, key, f"is not one of its keys; they are {', '.join(known)}"
            )
    return given


def _uuid(value: Any, argument: str) -> UUID:
    if not isinstance(value, UUID):
        raise InvalidInput(argument, value, "is not a uuid.UUID; make one with new_execution_id()")
    return value


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


def elapsed_ms(start: datetime, end: datetime) -> int:
    """Return the whole milliseconds between two moments; 0 if the end is the earlier one."""
    return max(0, round((end - start) / _MILLISECOND))


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
