"""What can go wrong, each kind also the built-in it is a case of.

::

    JobHistoryError                 everything below
    ├── InvalidInput                also ValueError: an argument cannot be used
    ├── ExecutionNotFound           also LookupError: no such execution has started
    ├── ExecutionAlreadyFinished    also RuntimeError: it ended otherwise before
    ├── SchemaOutOfDate             also RuntimeError: the table is missing, old or changed
    ├── UnsafeExpiry                also RuntimeError: the rows of a batch are not identifiable
    ├── HistoryUnavailable          also ConnectionError: the database did not answer a moment ago
    ├── RecorderFull                also queue.Full: more waits to be written than may
    ├── RecorderClosed              also RuntimeError: it takes nothing any more
    └── NotWritten                  also TimeoutError: a Recorder needs longer than it was given

Errors of the database itself (lost connections, time-outs, locks) stay SQLAlchemy's own.
"""

from __future__ import annotations

import queue
import re
import reprlib
from typing import TYPE_CHECKING, Any
from uuid import UUID

if TYPE_CHECKING:
    from jobhistory.schema import HistoryRecord

_QUOTED_DRIVER_ERROR = re.compile(r": \(\w+(?:\.\w+)+\) ")

_short = reprlib.Repr()
_short.maxstring = _short.maxother = _short.maxlong = 120


def quoted(value: object) -> str:
    """The value as an error message shows it: its repr, some 120 characters at the most."""
    try:
        return _short.repr(value)
    except Exception:  # a repr may raise anything: an integer of 5,000 digits does
        return f"<{type(value).__name__} that has no repr>"


def reason(error: BaseException) -> str:
    """Return what went wrong in one line, without the values of any row.

    SQLAlchemy adds the statement and its parameters to a driver's message; PostgreSQL adds details
    and a context, which quote the row.
    """
    shown: Any = getattr(error, "orig", None) or error
    # Some of SQLAlchemy's own messages quote a driver's error with its statement and parameters.
    text = _QUOTED_DRIVER_ERROR.split(_primary_message(shown) or str(shown), maxsplit=1)[0]
    return " ".join(text.split()) or type(shown).__name__


def hide_values(error: Any) -> None:
    """Remove the values of rows from the text of an error of SQLAlchemy's and of its causes.

    What PostgreSQL said stays in the attributes of the driver's error, such as `orig.diag`.
    """
    error.hide_parameters = True
    primary = _primary_message(error.orig)
    if primary is not None:
        error.args = (error.args[0].replace(str(error.orig), primary), *error.args[1:])
        error.orig.args = (primary,)
        if hasattr(error.orig.__cause__, "sqlstate"):
            error.orig.__cause__.detail = None  # asyncpg's


def _primary_message(error: Any) -> str | None:
    """Return PostgreSQL's message without details, `None` if the error is another one."""
    # psycopg and psycopg2 keep the parts of the message; asyncpg does so in the cause.
    message = getattr(getattr(error, "diag", None), "message_primary", None)
    if message is None and hasattr(error.__cause__, "sqlstate"):
        message = getattr(error.__cause__, "message", None)
    return message if isinstance(message, str) else None


class JobHistoryError(Exception):
    """Base class of every error that this library defines."""


class InvalidInput(JobHistoryError, ValueError):
    """An argument cannot be used; the message quotes its value and shows a good one.

    Attributes:
        argument: the argument's name, as the caller writes it.
        value: what was given for it.
        remedy: what would have been right.
    """

    def __init__(self, argument: str, value: object, remedy: str) -> None:
        super().__init__(argument, value, remedy)
        self.argument = argument
        self.value = value
        self.remedy = remedy

    def __str__(self) -> str:
        return f"{self.argument} {quoted(self.value)} {self.remedy}"


class ExecutionNotFound(JobHistoryError, LookupError):
    """No such execution has started, or it has expired since, so it cannot end.

    Attributes:
        job_id, worker_id, correlation_id: the ids that were looked for, as text; `None` if the
            execution was named by its own id.
        execution_id: that id; `None` if the execution was named by the other three.
    """

    def __init__(
        self,
        job_id: str | None,
        worker_id: str | None,
        correlation_id: str | None,
        execution_id: UUID | None = None,
    ) -> None:
        super().__init__(job_id, worker_id, correlation_id, execution_id)
        self.job_id = job_id
        self.worker_id = worker_id
        self.correlation_id = correlation_id
        self.execution_id = execution_id

    def __str__(self) -> str:
        if self.execution_id is not None:
            return (
                f"there is no execution {self.execution_id}, or it has expired; call record_start "
                "with this execution_id first, or record_execution, which needs no start"
            )
        return (
            f"no execution has started with job_id {quoted(self.job_id)}, "
            f"worker_id {quoted(self.worker_id)} and correlation_id {quoted(self.correlation_id)}, "
            "or it has expired; call record_start first, with the same three ids"
        )


class ExecutionAlreadyFinished(JobHistoryError, RuntimeError):
    """The execution ended before, with another outcome, and history keeps the first.

    Attributes:
        record: the `HistoryRecord` as it stands in history.
    """

    def __init__(self, record: HistoryRecord) -> None:
        super().__init__(record)
        self.record = record

    def __str__(self) -> str:
        return (
            f"the execution of job {quoted(self.record.job_id)} has already ended "
            f"as {self.record.status.value!r}; an outcome is recorded once"
        )


class SchemaOutOfDate(JobHistoryError, RuntimeError):
    """The history table is not the one that this version of the library reads and writes.

    Attributes:
        current: the revision of the table, `None` if it has none.
        head: the revision that this version needs.
        differences: how the table differs from the model, such as `"column x is missing"`.
    """

    def __init__(self, current: str | None, head: str, differences: tuple[str, ...] = ()) -> None:
        super().__init__(current, head, differences)
        self.current = current
        self.head = head
        self.differences = differences

    def __str__(self) -> str:
        differences = "; ".join(self.differences)
        if differences and self.current == self.head:
            return (
                f"the history table is damaged: {differences}; "
                "repair it with the statements that 'jobhistory db sql' prints"
            )
        if differences and self.current is None:
            return (
                "something other than 'jobhistory db upgrade' made the history table, and it is "
                f"not up to date: {differences}; upgrade it with the tool that made it, or repair "
                "it with the statements that 'jobhistory db sql' prints"
            )
        if differences:
            return (
                f"the history table is at revision {self.current}, which no longer exists: save "
                "the rows that you need, drop the tables job_history and "
                "job_history_alembic_version, and run 'jobhistory db upgrade'"
            )
        if self.current is None:
            return (
                "this database has no history table; create it with 'jobhistory db upgrade' "
                "or jobhistory.migrate.upgrade(engine)"
            )
        # The ids end in numbers padded with zeros, so they compare as texts.
        if self.current > self.head:
            return (
                f"the history table is at revision {self.current}, newer than the {self.head} "
                "of this version of jobhistory; upgrade with 'pip install --upgrade jobhistory'"
            )
        return (
            f"the history table is at revision {self.current} and not at {self.head}; upgrade it "
            "with 'jobhistory db upgrade' or jobhistory.migrate.upgrade(engine)"
        )


class HistoryUnavailable(JobHistoryError, ConnectionError):
    """The database did not answer a moment ago, so a recording call does not wait for it now.

    Attributes:
        reason: why the last call failed that did wait.
        retry_after: the number of seconds until a call waits again.
        is_repeated: `False` for the first of these errors since the database answered last, `True`
            for those that follow.
    """

    def __init__(self, reason: str, retry_after: float, is_repeated: bool) -> None:
        super().__init__(reason, retry_after, is_repeated)
        self.reason = reason
        self.retry_after = retry_after
        self.is_repeated = is_repeated

    def __str__(self) -> str:
        return (
            f"history is unavailable: {self.reason}; nothing is recorded for another "
            f"{self.retry_after:.0f} s, then a call tries again; check the database, or record "
            "through a Recorder, which writes later what it cannot write now"
        )


class UnsafeExpiry(JobHistoryError, RuntimeError):
    """A batch of `expire` deleted more rows than it selected, so the database rolled it back."""

    def __str__(self) -> str:
        return (
            "expire() rolled back a batch that deleted more rows than it had selected, as happens "
            "if 'job_history' is a view of partitions or a foreign table; make 'job_history' the "
            "name of the table itself"
        )


class RecorderFull(JobHistoryError, queue.Full):
    """A `Recorder` has no room for an operation, and does not wait for room.

    Attributes:
        waiting: the number of operations that wait to be written.
        waiting_bytes: about how much memory they take.
    """

    def __init__(self, waiting: int, waiting_bytes: int) -> None:
        super().__init__(waiting, waiting_bytes)
        self.waiting = waiting
        self.waiting_bytes = waiting_bytes

    def __str__(self) -> str:
        return (
            f"{self.waiting:,} operations ({self.waiting_bytes:,} bytes) wait to be written, as "
            "many as queue_size and queue_bytes allow; this one was not accepted"
        )


class RecorderClosed(JobHistoryError, RuntimeError):
    """A `Recorder` is closed, and takes nothing any more."""

    def __str__(self) -> str:
        return "the recorder is closed; this operation was not accepted"


class NotWritten(JobHistoryError, TimeoutError):
    """A `Recorder` could not write in time what it had accepted.

    After `flush`, it goes on trying. After `close`, the operations are lost.

    Attributes:
        waiting: the number of operations that are not written.
        cause: the last error, `None` if there was none.
        in_doubt: the number of other operations whose commit has begun and may still succeed.
    """

    def __init__(self, waiting: int, cause: BaseException | None = None, in_doubt: int = 0) -> None:
        super().__init__(waiting, cause, in_doubt)
        self.waiting = waiting
        self.cause = cause
        self.in_doubt = in_doubt

    def __str__(self) -> str:
        doubt = f"; the commit of {self.in_doubt} more has begun" if self.in_doubt else ""
        because = "" if self.cause is None else f", because: {reason(self.cause)}"
        return f"{self.waiting} operations are not written{doubt}{because}"


def check_count(
    value: int, argument: str, *, least: int = 1, most: int = 2**63 - 1, example: int = 100
) -> None:
    """Refuse what is not a whole number in a range.

    Raises:
        InvalidInput: naming the argument, quoting the value, showing a good one.
    """
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise InvalidInput(
            argument, value, f"is not a whole number from {least} up; write it like {example}"
        )
