"""Outcomes: the execution that ended, and the values that its row gets."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias
from uuid import UUID

from jobhistory.errors import ExecutionNotFound, InvalidInput, quoted
from jobhistory.execution.ids import check_uuid, id_text
from jobhistory.execution.status import Status
from jobhistory.typing import Id

if TYPE_CHECKING:
    from jobhistory.execution.retention import Retention
    from jobhistory.schema import HistoryRecord

_MILLISECOND = timedelta(milliseconds=1)


WORKER_LOST = "jobhistory.WorkerLost"
"""The error type of executions whose worker is presumed lost."""


SURVIVE_ROLLBACK = frozenset({Status.FAILED, Status.CANCELLED})
"""The outcomes that are recorded again if the caller's transaction is rolled back.

The exception that ends such an execution usually rolls the transaction back as well.
"""


OUTCOME_COLUMNS = (
    "status",
    "completed_at",
    "execution_time_ms",
    "will_retry",
    "error_type",
    "error_message",
    "error_stack",
    "completed_steps",
    "failed_steps",
    "retry_from_step",
    "partial_results",
    "result",
    "log_tail",
)
"""The columns that an outcome sets. The others keep the values from the start."""


class ExecutionKey(NamedTuple):
    """The three ids that an outcome uses to find its execution."""

    job_id: str
    worker_id: str
    correlation_id: str

    @classmethod
    def of(
        cls, job_id: Id, worker_id: Id, correlation_id: Id, *, job_id_from: str = "job_id"
    ) -> ExecutionKey:
        """Return the key made of these ids.

        Raises:
            InvalidInput: if one of them is not a valid id.
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

Which: TypeAlias = ExecutionKey | UUID | dict[str, Any]
"""The execution that an outcome ends: its three ids, its execution id, or its started row."""


class Outcome(NamedTuple):
    """The end of an execution.

    Attributes:
        key: the three ids. The outcome ends the newest started execution with these ids, unless
            `row` or `execution_id` is set.
        values: the new values by column, including `completed_at` and `execution_time_ms`. An
            `execution_time_ms` of `None` stands for the time since the start. Columns that belong
            to other kinds of outcome are absent.
        row: the started row, if the caller knows it.
        execution_id: the execution's id, if the caller knows only the id.
    """

    key: ExecutionKey
    values: dict[str, Any]
    row: dict[str, Any] | None = None
    execution_id: UUID | None = None

    @classmethod
    def of(cls, which: Which, values: dict[str, Any]) -> Outcome:
        """Return the outcome of the execution that a caller names."""
        if isinstance(which, ExecutionKey):
            return cls(which, values)
        if isinstance(which, UUID):
            return cls(_NO_KEY, values, execution_id=which)
        return cls(ExecutionKey.of_row(which), values, which)

    @property
    def id(self) -> UUID | None:
        """The id of the execution that this outcome ends; `None` if it is unknown."""
        return self.execution_id if self.row is None else self.row["id"]

    def completed_at(self, started_at: datetime) -> datetime:
        """Return the time of this outcome, or `started_at` if that is later."""
        moment: datetime = self.values["completed_at"]
        return max(moment, started_at)

    def ended_row(self, retention: Retention) -> dict[str, Any]:
        """Return the complete row with this outcome, kept as its store does. Requires `row`."""
        assert self.row is not None
        row: dict[str, Any] = self.row | dict.fromkeys(OUTCOME_COLUMNS) | self.values
        row["completed_at"] = self.completed_at(row["started_at"])
        if row["execution_time_ms"] is None:
            row["execution_time_ms"] = elapsed_ms(row["started_at"], row["completed_at"])
        if retention.rules:
            row["expires_at"] = retention.expiry_after(self.row, row["status"])
        return row

    def agrees_with(self, record: HistoryRecord) -> bool:
        """Return whether an ended record already has this status, as after a repeated call."""
        return bool(record.status == self.values["status"])

    def replaces(self, record: HistoryRecord) -> bool:
        """Return whether it takes the place of a presumed outcome: that of a lost worker."""
        return is_lost(record) and self.values.get("error_type") != WORKER_LOST


def which_execution(
    job_id: Id | None,
    worker_id: Id | None,
    correlation_id: Id | None,
    execution_id: UUID | None,
    row: dict[str, Any] | None = None,
) -> Which:
    """Return the execution that a caller identifies by three ids, by an execution id or by a row.

    Raises:
        InvalidInput: if an id is invalid, or if the caller combines several of these ways.
    """
    given = {"worker_id": worker_id, "correlation_id": correlation_id}
    if row is not None:
        _refuse_others(given | {"execution_id": execution_id}, "a record")
        check_uuid(row["id"], "record.id")
        return row
    if execution_id is not None:
        _refuse_others({"job_id": job_id} | given, "an execution_id")
        return check_uuid(execution_id, "execution_id")
    return ExecutionKey.of(job_id, worker_id, correlation_id)  # type: ignore[arg-type]


def _refuse_others(given: Mapping[str, Any], way: str) -> None:
    for name, value in given.items():
        if value is not None:
            raise InvalidInput(name, value, f"cannot be combined with {way}; omit one of them")


def not_found(outcome: Outcome) -> ExecutionNotFound:
    """Return the error for an outcome whose execution is not in the history."""
    if outcome.id is not None:
        return ExecutionNotFound(None, None, None, outcome.id)
    return ExecutionNotFound(*outcome.key)


def check_same_job(row: Mapping[str, Any], record: HistoryRecord) -> None:
    """Check that a row and the existing record with its id belong to the same job and task.

    Raises:
        InvalidInput: if they do not.
    """
    if (row["job_id"], row["task_identifier"]) != (record.job_id, record.task_identifier):
        raise InvalidInput(
            "execution_id",
            row["id"],
            f"belongs to an execution of job {quoted(record.job_id)} "
            f"and task {quoted(record.task_identifier)}; create another with new_execution_id()",
        )


def is_lost(record: HistoryRecord) -> bool:
    """Return whether an execution was marked as failed because its worker was presumed lost."""
    return bool(record.status == Status.FAILED and record.error_type == WORKER_LOST)


def lost_message(since: str, *, by_heartbeat: bool) -> str:
    """Return the error message for a lost worker.

    Args:
        since: the time of the last heartbeat, or of the start, as text.
        by_heartbeat: whether the heartbeats stopped.
    """
    sign = "no heartbeat since" if by_heartbeat else "no outcome since it started at"
    return f"{sign} {since}; its worker is presumed lost"


def lost_outcome(row: Mapping[str, Any], now: datetime, by_heartbeat: bool) -> dict[str, Any]:
    """Return the outcome of an execution whose worker is presumed lost, by column."""
    since = row["heartbeat_at" if by_heartbeat else "started_at"]
    text = since.isoformat(timespec="seconds")[:19] + "Z"
    return {
        "status": Status.FAILED,
        "completed_at": now,
        "error_type": WORKER_LOST,
        "error_message": lost_message(text, by_heartbeat=by_heartbeat),
    }


def elapsed_ms(start: datetime, end: datetime) -> int:
    """Return the whole milliseconds from start to end; 0 if the end is before the start."""
    return max(0, round((end - start) / _MILLISECOND))
