"""The history table, as SQLAlchemy's declarative ORM sees it."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, TypeVar

from sqlalchemy import (
    JSON,
    BigInteger,
    CheckConstraint,
    ColumnElement,
    DateTime,
    Dialect,
    Enum,
    Index,
    MetaData,
    String,
    Text,
    UnaryExpression,
    Uuid,
    inspect,
    text,
)
from sqlalchemy.dialects import sqlite
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.orm import DeclarativeBase, Mapped, make_transient_to_detached, mapped_column
from sqlalchemy.sql import operators
from sqlalchemy.types import TypeDecorator

from jobhistory.execution.status import Status
from jobhistory.sanitize.truncate import NAME_LENGTH

TABLE_NAME = "job_history"

T = TypeVar("T")


class _JSONText(sqlite.JSON):
    """JSON in a TEXT column: in one that is declared JSON, SQLite turns a lone number into its own.

    That would lose the last digits of a large one.
    """


@compiles(_JSONText, "sqlite")
def _declare_json_text(type_: _JSONText, compiler: Any, **options: Any) -> str:
    return "TEXT"


# SQL NULL where there is nothing: a JSON null would be a value, and would fill partial indexes.
PortableJSON = (
    JSON(none_as_null=True)
    .with_variant(JSONB(none_as_null=True), "postgresql")
    .with_variant(_JSONText(none_as_null=True), "sqlite")
)
"""JSON text on SQLite, `JSONB` on PostgreSQL; Python's `None` is SQL's NULL on both."""


class UTCDateTime(TypeDecorator[datetime]):
    """An aware moment, returned in UTC to the microsecond; a naive one is refused."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Turn an aware moment into what the driver takes."""
        if value is None:
            return None
        if value.utcoffset() is None:
            raise ValueError(f"a naive datetime cannot be stored: {value!r}")
        # SQLite keeps text without an offset, so the offset must be UTC's before it is dropped.
        return value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Turn what the driver returned into an aware moment in UTC."""
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


def _where(column: str) -> dict[str, Any]:
    """The arguments that make an index hold only the rows in which a column has a value."""
    predicate = text(f"{column} IS NOT NULL")
    return {"postgresql_where": predicate, "sqlite_where": predicate}


class Base(DeclarativeBase):
    """The library's own registry and metadata, apart from those of any app."""

    metadata = MetaData(
        naming_convention={
            "pk": "pk_%(table_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
        }
    )


class HistoryRecord(Base):
    """One execution: one attempt at running a job.

    Records that the library returns are detached and fully loaded: they belong to the caller, need
    no session, and may go from thread to thread. All moments are aware, in UTC.

    Attributes:
        id: a UUIDv7, so that rows sort as they were made; with `started_at` a total order.
        job_id, worker_id, correlation_id: the caller's ids, as text.
        task_identifier: what kind of work it was.
        status: a `Status`, equal to its text.
        attempt_number: which attempt at the job it was.
        payload: what the job worked on, as JSON can hold it.
        started_at, completed_at: when it began, and when it ended in any way.
        queue_time_ms: from when it was due to when it began, in milliseconds.
        execution_time_ms: how long it took, in milliseconds.
        error_type, error_message, error_stack: why it failed; failures always have a type.
        completed_steps, failed_steps, retry_from_step, partial_results: of a partial success.
        expires_at: from when on `HistoryStore.expire` deletes it; `None` for never.
    """

    __tablename__ = TABLE_NAME
    # The terminal UPDATE stays heap-only on PostgreSQL as long as no indexed column, those of index
    # predicates included, changes value. So `status` and `completed_at` are in no index: failures
    # are found by `error_type` and partial successes by `failed_steps`, NULL for other outcomes.
    __table_args__ = (
        CheckConstraint(f"status IN ({', '.join(repr(s.value) for s in Status)})", name="status"),
        Index("ix_job_history_expires_at", "expires_at"),
        Index("ix_job_history_started_at", "started_at"),
        Index("ix_job_history_failed_started_at", "started_at", **_where("error_type")),
        Index("ix_job_history_partial_started_at", "started_at", **_where("failed_steps")),
        # Room on each page for the new version of its rows, which heap-only updates need.
        {"postgresql_with": {"fillfactor": 80}},
    )

    id: Mapped[uuid.UUID] = mapped_column(Uuid, primary_key=True)
    job_id: Mapped[str] = mapped_column(String(NAME_LENGTH))
    correlation_id: Mapped[str] = mapped_column(String(NAME_LENGTH))
    task_identifier: Mapped[str] = mapped_column(String(NAME_LENGTH))
    worker_id: Mapped[str] = mapped_column(String(NAME_LENGTH))
    status: Mapped[Status] = mapped_column(
        Enum(
            Status,
            native_enum=False,  # a named type would outlive a downgrade
            length=32,
            values_callable=lambda statuses: [status.value for status in statuses],
        )
    )
    attempt_number: Mapped[int]
    payload: Mapped[Any | None] = mapped_column(PortableJSON)
    started_at: Mapped[datetime] = mapped_column(UTCDateTime)
    completed_at: Mapped[datetime | None] = mapped_column(UTCDateTime)
    queue_time_ms: Mapped[int | None] = mapped_column(BigInteger)
    execution_time_ms: Mapped[int | None] = mapped_column(BigInteger)
    error_type: Mapped[str | None] = mapped_column(String(NAME_LENGTH))
    error_message: Mapped[str | None] = mapped_column(Text)
    error_stack: Mapped[str | None] = mapped_column(Text)
    completed_steps: Mapped[list[str] | None] = mapped_column(PortableJSON)
    failed_steps: Mapped[list[str] | None] = mapped_column(PortableJSON)
    retry_from_step: Mapped[str | None] = mapped_column(Text)
    partial_results: Mapped[Any | None] = mapped_column(PortableJSON)
    expires_at: Mapped[datetime | None] = mapped_column(UTCDateTime)

    def __repr__(self) -> str:
        return (
            f"<HistoryRecord {self.task_identifier} job_id={self.job_id!r} "
            f"status={self.status} started_at={self.started_at}>"
        )


class _NullsFirst(UnaryExpression[datetime]):
    """The order of a column with NULLs first, where an index can have that."""

    inherit_cache = True

    def __init__(self, column: ColumnElement[datetime]) -> None:
        super().__init__(column, modifier=operators.nulls_first_op)


@compiles(_NullsFirst, "sqlite")
def _as_it_is(order: _NullsFirst, compiler: Any, **options: Any) -> str:
    column: str = compiler.process(order.element, **options)
    return column


def _index_executions_of_one(name: str, column: str, **options: Any) -> None:
    """Index the executions that have a value in common, in the order in which they are asked for.

    No other index has that order of `started_at`, though there are no NULLs. For the executions of
    a task that it believes to be frequent, PostgreSQL would else take the index of all executions,
    and read nearly all of history for one that ran long ago.
    """
    columns = HistoryRecord.__table__.c
    Index(name, columns[column], _NullsFirst(columns.started_at), **options)


_index_executions_of_one("ix_job_history_correlation_id_started_at", "correlation_id")
_index_executions_of_one("ix_job_history_job_id_started_at", "job_id")
_index_executions_of_one("ix_job_history_task_identifier_started_at", "task_identifier")
_index_executions_of_one("ix_job_history_worker_id_started_at", "worker_id")
_index_executions_of_one(
    "ix_job_history_error_type_started_at", "error_type", **_where("error_type")
)
_index_executions_of_one(
    "ix_job_history_failed_task_identifier_started_at", "task_identifier", **_where("error_type")
)
_index_executions_of_one(
    "ix_job_history_partial_task_identifier_started_at", "task_identifier", **_where("failed_steps")
)

TABLE: Any = HistoryRecord.__table__
COLUMNS = TABLE.c

COLUMN_NAMES = tuple(column.key for column in inspect(HistoryRecord).column_attrs)
"""The fields of a record, in the order of the table."""

_NO_VALUES = dict.fromkeys(COLUMN_NAMES)
_JSON_COLUMNS = frozenset({"payload", "completed_steps", "failed_steps", "partial_results"})


def record_from(values: Mapping[str, Any], *, shares_json: bool = False) -> HistoryRecord:
    """Return a record of these values, as if it had been loaded and its session closed.

    Columns that are not among the values are `None`.

    Args:
        shares_json: whether the record may share mutable values with these, which nobody else has.
    """
    record = HistoryRecord()
    # One by one they would be noted as changes, only to be forgotten by the last line.
    vars(record).update(_NO_VALUES | dict(values))
    if not shares_json:
        _own_json(vars(record))
    make_transient_to_detached(record)
    return record


def values_of(record: HistoryRecord) -> dict[str, Any]:
    """The values of all columns, sharing nothing mutable with the record."""
    loaded = vars(record)  # SQLAlchemy's attributes read it, too, and take their time
    values = {
        name: loaded[name] if name in loaded else getattr(record, name) for name in COLUMN_NAMES
    }
    _own_json(values)
    return values


def plain(execution: HistoryRecord | T) -> dict[str, Any] | T:
    """Return the values of a record; anything else as it is."""
    return values_of(execution) if isinstance(execution, HistoryRecord) else execution


def _own_json(values: dict[str, Any]) -> None:
    for name in _JSON_COLUMNS:
        values[name] = _copied(values[name])


def _copied(value: Any) -> Any:
    """A copy of JSON, which is faster than one of anything."""
    if isinstance(value, dict):
        return {key: _copied(inside) for key, inside in value.items()}
    if isinstance(value, list):
        return [_copied(inside) for inside in value]
    return value
