"""The errors of the library. Each is also a built-in error.

::

    JobHistoryError                 the base class of all others
    ├── InvalidInput                also ValueError: an argument cannot be used
    ├── ExecutionNotFound           also LookupError: the execution has not started, or has expired
    ├── ExecutionAlreadyFinished    also RuntimeError: the execution has another outcome
    ├── NotReplayable               also RuntimeError: a job cannot be enqueued again
    ├── SchemaOutOfDate             also RuntimeError: the table is missing, outdated or changed
    ├── LayoutNotChanged            also RuntimeError: a table cannot be partitioned, or not now
    ├── UnsafeExpiry                also RuntimeError: a batch deleted more than it selected
    ├── StatisticsDenied            also PermissionError: the role may not read statistics
    ├── HistoryUnavailable          also ConnectionError: the database has just timed out
    ├── ArchiveError                also OSError: an archive cannot be written or read
    ├── AlertNotSent                also OSError: a receiver has not accepted an alert
    ├── RecorderFull                also queue.Full: the queue of a Recorder is full
    ├── RecorderClosed              also RuntimeError: the Recorder is closed
    └── NotWritten                  also TimeoutError: a Recorder could not write in time

Errors of the database, such as lost connections, time-outs and locks, are SQLAlchemy's own.
"""

from __future__ import annotations

import queue
import re
import reprlib
from typing import TYPE_CHECKING, Any
from uuid import UUID

from jobhistory._runtime.shell import quoted_for_shell
from jobhistory._runtime.url_passwords import redact_urls

if TYPE_CHECKING:
    from jobhistory.schema import HistoryRecord

_QUOTED_DRIVER_ERROR = re.compile(r": \(\w+(?:\.\w+)+\) ")

_NO_LIMIT = 2**31 - 1  # what a database holds limits nobody


class _Short(reprlib.Repr):
    def repr_str(self, x: str, level: int) -> str:
        return super().repr_str(redact_urls(x), level)

    def repr_instance(self, x: object, level: int) -> str:
        try:
            text = redact_urls(repr(x))  # before it is cut, so that no part of a password is left
        except Exception:  # a repr may raise anything
            return super().repr_instance(x, level)
        if len(text) <= self.maxother:
            return text
        half = (self.maxother - len("...")) // 2
        return f"{text[:half]}...{text[-half:]}"


_short = _Short()
_short.maxstring = _short.maxother = _short.maxlong = 120


def quoted(value: object) -> str:
    """Return a value as error messages show it: its repr, cut to about 120 characters.

    URLs in it have no passwords.
    """
    try:
        return _short.repr(value)
    except Exception:  # a repr may raise anything, and that of an integer of 5,000 digits does
        return f"<{type(value).__name__} that has no repr>"


def reason(error: BaseException) -> str:
    """Return the message of an error in one line, without the values of any row.

    SQLAlchemy adds the statement and its parameters to the driver's message. PostgreSQL adds
    details and a context, which quote the row.
    """
    shown: Any = getattr(error, "orig", None) or error
    # Some of SQLAlchemy's own messages quote the driver's error, statement and parameters.
    text = _QUOTED_DRIVER_ERROR.split(_primary_message(shown) or str(shown), maxsplit=1)[0]
    return " ".join(text.split()) or type(shown).__name__


def hide_values(error: Any) -> None:
    """Remove the values of rows from the text of a SQLAlchemy error and of its causes.

    PostgreSQL's details remain in the attributes of the driver's error, such as `orig.diag`.
    """
    error.hide_parameters = True
    primary = _primary_message(error.orig)
    if primary is not None:
        error.args = (error.args[0].replace(str(error.orig), primary), *error.args[1:])
        error.orig.args = (primary,)
        if hasattr(error.orig.__cause__, "sqlstate"):
            error.orig.__cause__.detail = None  # asyncpg's


def _primary_message(error: Any) -> str | None:
    """Return PostgreSQL's message without details; `None` if the error is not PostgreSQL's."""
    # psycopg and psycopg2 have the parts of the message in `diag`, asyncpg has them in the cause.
    message = getattr(getattr(error, "diag", None), "message_primary", None)
    if message is None and hasattr(error.__cause__, "sqlstate"):
        message = getattr(error.__cause__, "message", None)
    return message if isinstance(message, str) else None


class JobHistoryError(Exception):
    """The base class of all errors that this library defines."""


class InvalidInput(JobHistoryError, ValueError):
    """An argument cannot be used. The message quotes its value, if any, and shows a valid one.

    Attributes:
        argument: the name of the argument, as the caller writes it.
        value: the value that was passed.
        remedy: what is wrong, and what to pass instead.
    """

    def __init__(self, argument: str, value: object, remedy: str) -> None:
        super().__init__(argument, value, remedy)
        self.argument = argument
        self.value = value
        self.remedy = remedy

    def __str__(self) -> str:
        quote = "" if self.remedy.startswith("is missing") else f" {quoted(self.value)}"
        return f"{self.argument}{quote} {self.remedy}"


class ExecutionNotFound(JobHistoryError, LookupError):
    """An outcome has no execution: it has not started, or it has expired.

    Attributes:
        job_id, worker_id, correlation_id: the ids of the outcome, as text; `None` if it has an
            `execution_id`.
        execution_id: the id of the execution; `None` if the outcome has the other three ids.
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
                f"there is no execution {self.execution_id}, or it has expired; to record an "
                "outcome, call record_start with this execution_id first, or call "
                "record_execution, which needs no start"
            )
        return (
            f"no execution has started with job_id {quoted(self.job_id)}, "
            f"worker_id {quoted(self.worker_id)} and correlation_id {quoted(self.correlation_id)}, "
            "or it has expired; call record_start first, with the same three ids"
        )


class ExecutionAlreadyFinished(JobHistoryError, RuntimeError):
    """The execution already has another outcome. History keeps the first one.

    Attributes:
        record: the `HistoryRecord` that is in history.
    """

    def __init__(self, record: HistoryRecord) -> None:
        super().__init__(record)
        self.record = record

    def __str__(self) -> str:
        return (
            f"the execution of job {quoted(self.record.job_id)} has already ended "
            f"as {self.record.status.value!r}; history keeps the first outcome"
        )


class NotReplayable(JobHistoryError, RuntimeError):
    """A job cannot be enqueued again.

    Attributes:
        record: the `HistoryRecord` of the execution.
        reason: why not, and what to do about it.
    """

    def __init__(self, record: HistoryRecord, reason: str) -> None:
        super().__init__(record, reason)
        self.record = record
        self.reason = reason

    def __str__(self) -> str:
        return (
            f"the execution {self.record.id} of job {quoted(self.record.job_id)} cannot be "
            f"replayed: {self.reason}"
        )


class SchemaOutOfDate(JobHistoryError, RuntimeError):
    """The history table is not the one that this version of the library needs.

    Attributes:
        current: the revision of the table; `None` if it has none.
        head: the revision that this version of the library needs.
        differences: how the table differs from the model, such as `"column x is missing"`.
        schema: the schema of the table; `None` if the database chooses it.
    """

    def __init__(
        self,
        current: str | None,
        head: str,
        differences: tuple[str, ...] = (),
        schema: str | None = None,
    ) -> None:
        super().__init__(current, head, differences, schema)
        self.current = current
        self.head = head
        self.differences = differences
        self.schema = schema

    def __str__(self) -> str:
        differences = "; ".join(self.differences)
        table = f"the history table{self._place}"
        upgrade = self._command("db upgrade")
        if differences and self.current == self.head:
            return (
                f"{table} is damaged: {differences}; "
                f"repair it with the statements that {self._command('db sql')} prints"
            )
        if differences and self.current is None:
            return (
                f"{table} was not made by {upgrade}, and is not up to date: "
                f"{differences}; upgrade it with the tool that made it, or repair it with the "
                f"statements that {self._command('db sql')} prints"
            )
        if differences:
            return (
                f"{table} is at revision {self.current}, which no longer exists: save "
                "the rows that you need, drop all tables whose names begin with job_history, and "
                f"run {upgrade}"
            )
        call = "engine" if self.schema is None else f"engine, schema={quoted(self.schema)}"
        remedy = f"{upgrade} or jobhistory.migrate.upgrade({call})"
        if self.current is None:
            return f"this database has no history table{self._place}; create it with {remedy}"
        # Revision ids end in numbers padded with zeros, so they compare as texts.
        if self.current > self.head:
            return (
                f"{table} is at revision {self.current}, which is newer than the "
                f"{self.head} of this version of jobhistory; upgrade the library with "
                "'pip install --upgrade jobhistory'"
            )
        return (
            f"{table} is at revision {self.current}, but this version of jobhistory "
            f"needs {self.head}; upgrade the table with {remedy}"
        )

    @property
    def _place(self) -> str:
        return "" if self.schema is None else f" in schema {quoted(self.schema)}"

    def _command(self, command: str) -> str:
        if self.schema is None:
            return f"'jobhistory {command}'"
        schema = quoted_for_shell(redact_urls(self.schema))
        return f"'jobhistory {command} --schema {schema}'"


class LayoutNotChanged(JobHistoryError, RuntimeError):
    """The history table cannot be partitioned, or not now. It works as before.

    Attributes:
        reason: why not, and what to do about it.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason

    def __str__(self) -> str:
        return f"the layout of job_history is not changed: {self.reason}"


class HistoryUnavailable(JobHistoryError, ConnectionError):
    """The database has just timed out, so recording calls do not wait for it now.

    Attributes:
        reason: why the call that waited failed.
        retry_after: the number of seconds until a call tries again.
        is_repeated: `False` for the first of these errors since the database last answered, `True`
            for the others.
    """

    def __init__(self, reason: str, retry_after: float, is_repeated: bool) -> None:
        super().__init__(reason, retry_after, is_repeated)
        self.reason = reason
        self.retry_after = retry_after
        self.is_repeated = is_repeated

    def __str__(self) -> str:
        return (
            f"history is unavailable: {self.reason}; the next try is in "
            f"{self.retry_after:.0f} s, and nothing is recorded until then; check the database, or "
            "use a Recorder, which retries in the background"
        )


class StatisticsDenied(JobHistoryError, PermissionError):
    """The role of the connection may not read the statistics of all executions, or there are none.

    Attributes:
        is_distributed: whether Citus distributes the history table, so that there are none.
    """

    def __init__(self, *, is_distributed: bool = False) -> None:
        super().__init__()
        self.is_distributed = is_distributed

    def __str__(self) -> str:
        if self.is_distributed:
            return (
                "there are no statistics of all executions, from which metrics are computed: Citus "
                "distributes job_history, and does not execute the triggers that would feed them"
            )
        return (
            "this role may not read the statistics of all executions, from which metrics are "
            "computed: grant SELECT on job_history_ended, job_history_rollup and "
            "job_history_state, and use a role to which row-level security does not apply"
        )


class UnsafeExpiry(JobHistoryError, RuntimeError):
    """A batch of `expire` deleted more rows than it selected, so the database rolled it back."""

    def __str__(self) -> str:
        return (
            "expire() rolled back a batch that deleted more rows than it had selected, as happens "
            "if 'job_history' is a view of partitions or a foreign table; 'job_history' must be "
            "the table itself"
        )


class ArchiveError(JobHistoryError, OSError):
    """An archive cannot be written or read. The message contains no credentials.

    Nothing is lost. What `expire` has not archived is still in the table, and the next call with
    the same archive publishes what is archived but not published.

    Attributes:
        location: the URL of the archive, without credentials.
        reason: why.
    """

    def __init__(self, location: str, reason: str) -> None:
        super().__init__(location, reason)
        self.location = location
        self.reason = reason

    def __str__(self) -> str:
        return f"the archive {self.location} {self.reason}"


class AlertNotSent(JobHistoryError, OSError):
    """A receiver has not accepted an alert. The message contains no secret, such as a URL.

    Attributes:
        receiver: the kind of the receiver, and its host or command.
        reason: why.
    """

    def __init__(self, receiver: str, reason: str) -> None:
        super().__init__(receiver, reason)
        self.receiver = receiver
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.receiver} {self.reason}"


class RecorderFull(JobHistoryError, queue.Full):
    """The queue of a `Recorder` is full, so it did not accept an operation.

    Attributes:
        waiting: the number of operations that wait to be written.
        waiting_bytes: about how much memory they take, in bytes.
    """

    def __init__(self, waiting: int, waiting_bytes: int) -> None:
        super().__init__(waiting, waiting_bytes)
        self.waiting = waiting
        self.waiting_bytes = waiting_bytes

    def __str__(self) -> str:
        return (
            f"the queue is full: {self.waiting:,} operations ({self.waiting_bytes:,} bytes) wait "
            "to be written; this one was not accepted; raise queue_size or queue_bytes, or slow "
            "down"
        )


class RecorderClosed(JobHistoryError, RuntimeError):
    """A `Recorder` is closed, so it did not accept an operation."""

    def __str__(self) -> str:
        return "the recorder is closed; this operation was not accepted; make a new Recorder"


class NotWritten(JobHistoryError, TimeoutError):
    """A `Recorder` could not write its operations in time.

    After `flush`, it keeps trying. After `close`, the operations are lost.

    Attributes:
        waiting: the number of operations that are not written.
        cause: the last error; `None` if there was none.
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
    """Check that an argument is a whole number in a range.

    Raises:
        InvalidInput: if it is not.
    """
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        is_bounded = most < _NO_LIMIT or (isinstance(value, int) and value > most)
        end = f"to {most}" if is_bounded else "up"
        raise InvalidInput(
            argument, value, f"is not a whole number from {least} {end}; write it like {example}"
        )
