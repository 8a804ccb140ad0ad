"""From what a caller says of an execution to the values of its row: checked, and fit to store."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, fields
from datetime import datetime, timedelta
from functools import cached_property
from typing import Any, NamedTuple
from uuid import UUID

from jobhistory.clock import Clock, in_utc
from jobhistory.errors import InvalidInput, JobHistoryError, check_count
from jobhistory.models import COLUMN_NAMES, HistoryRecord, new_id, values_of
from jobhistory.retention import Duration, parse_retention
from jobhistory.sanitize import TEXT_ERROR_TYPE, Sanitizer
from jobhistory.status import Status, read_status
from jobhistory.texts import Id, id_text, name_text

_LARGEST_MILLISECONDS = 2**63 - 1
_LARGEST_ATTEMPT = 2**31 - 1
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


@dataclass(frozen=True)
class Outcome:
    """How an execution ended: which one, and the values that its row gets.

    Attributes:
        key: the newest started execution of these ids, unless `row` says which one.
        values: by column; what only other kinds of outcome have is not among them.
        row: the started row itself, for those who know it.
    """

    key: ExecutionKey
    values: dict[str, Any]
    row: dict[str, Any] | None = None

    def ended_row(self) -> dict[str, Any]:
        """The whole row, once this outcome is recorded; for an outcome that knows its row."""
        assert self.row is not None
        return self.row | self.values

    def agrees_with(self, record: HistoryRecord) -> bool:
        """Whether a record that has ended says the same, so that this is a call made again."""
        return record.status == self.values["status"] and record.error_type != WORKER_LOST


@dataclass(frozen=True)
class Batch:
    """What a `Recorder` writes at once.

    Attributes:
        rows: new ones; those whose outcome is known, too, are whole.
        outcomes: those of executions whose rows were written before, in order.
    """

    rows: list[dict[str, Any]]
    outcomes: list[Outcome]


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
        self, job: Any, worker_id: Id, correlation_id: Id, history_retention: Duration | None
    ) -> dict[str, Any]:
        """The row of an execution that starts now; a retention of `None` is the store's."""
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
            "id": new_id(),
            "job_id": key.job_id,
            "correlation_id": key.correlation_id,
            "task_identifier": name_text(given["task_identifier"], "job.task_identifier"),
            "worker_id": key.worker_id,
            "status": Status.STARTED,
            "attempt_number": 1 if attempts is None else _attempt_number(attempts, "job.attempts"),
            "payload": self.sanitizer.payload(given["payload"]),
            "started_at": now,
            "queue_time_ms": None if run_at is None else _waited(in_utc(run_at, "job.run_at"), now),
            "expires_at": _expiry(now, retention),
        }

    def completed(self, key: ExecutionKey, execution_time_ms: float) -> Outcome:
        """The outcome of an execution that did its work."""
        return self._ended(key, Status.COMPLETED, execution_time_ms)

    def failed(
        self, key: ExecutionKey, execution_time_ms: float, error: BaseException | str
    ) -> Outcome:
        """The outcome of an execution that failed with an error."""
        return self._ended(key, Status.FAILED, execution_time_ms, **self._failure(error))

    def partly_succeeded(
        self,
        key: ExecutionKey,
        execution_time_ms: float,
        partial_results: PartialResults | Mapping[str, Any],
    ) -> Outcome:
        """The outcome of an execution of which some steps succeeded."""
        given = _partial_fields(partial_results)
        return self._ended(
            key,
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
        row = {
            name: read(given.get(name), name)
            if name in _REQUIRED
            else _unless_none(read, given, name)
            for name, read in self._readers.items()
        }
        if not row["status"].is_outcome:
            raise InvalidInput(
                "status", row["status"].value, "is no outcome; give one such as 'completed'"
            )
        if row["status"] is Status.FAILED and row["error_type"] is None:
            row["error_type"] = TEXT_ERROR_TYPE
        if row["status"] is Status.PARTIAL_SUCCESS and row["failed_steps"] is None:
            row["failed_steps"] = []  # by which partial successes are found
        row["id"] = row["id"] or new_id()
        row["attempt_number"] = 1 if row["attempt_number"] is None else row["attempt_number"]
        row["completed_at"] = row["completed_at"] or self.now()
        if row["started_at"] is None:
            row["started_at"] = _earlier(row["completed_at"], row["execution_time_ms"] or 0)
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
        self, key: ExecutionKey, status: Status, execution_time_ms: float, **values: Any
    ) -> Outcome:
        values["status"] = status
        values["completed_at"] = self.now()
        values["execution_time_ms"] = _milliseconds(execution_time_ms, "execution_time_ms")
        return Outcome(key, values)

    def _failure(self, error: BaseException | str) -> dict[str, Any]:
        if not isinstance(error, (BaseException, str)):
            raise InvalidInput("error", error, "is not an error; give an exception or a text")
        columns = ("error_type", "error_message", "error_stack")
        return dict(zip(columns, self.sanitizer.failure(error), strict=True))

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
    if isinstance(job, Mapping):
        return {name: job.get(name) for name in _JOB_FIELDS}
    return {name: getattr(job, name, None) for name in _JOB_FIELDS}


def _partial_fields(partial: PartialResults | Mapping[str, Any]) -> Mapping[str, Any]:
    names = [field.name for field in fields(PartialResults)]
    if isinstance(partial, PartialResults):
        return {name: getattr(partial, name) for name in names}
    if not isinstance(partial, Mapping):
        raise InvalidInput(
            "partial_results", partial, "is not a mapping or a PartialResults of its own fields"
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
            argument, execution, "is neither a HistoryRecord nor a mapping of its fields"
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
        raise InvalidInput(argument, value, "is not a uuid.UUID; leave it out to get a new one")
    return value


def _attempt_number(value: Any, argument: str) -> int:
    check_count(value, argument, least=0, most=_LARGEST_ATTEMPT, example=1)
    return int(value)


def _milliseconds(value: Any, argument: str) -> int:
    if (
        isinstance(value, (int, float))
        and not isinstance(value, bool)
        and 0 <= value <= _LARGEST_MILLISECONDS
    ):
        return round(value)
    raise InvalidInput(
        argument, value, "is not a duration in milliseconds from 0 up; write it like 1500"
    )


def _waited(run_at: datetime, started_at: datetime) -> int:
    return max(0, round((started_at - run_at) / timedelta(milliseconds=1)))


def _earlier(moment: datetime, milliseconds: int) -> datetime:
    try:
        return moment - timedelta(milliseconds=milliseconds)
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
