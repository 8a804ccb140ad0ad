"""The history table, as a declarative model of SQLAlchemy's ORM."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any, TypeVar, final

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    ColumnElement,
    DateTime,
    Dialect,
    Enum,
    Float,
    Index,
    MetaData,
    String,
    Text,
    UnaryExpression,
    Uuid,
    event,
    inspect,
    text,
)
from sqlalchemy.dialects import sqlite
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from sqlalchemy.orm.attributes import instance_state
from sqlalchemy.schema import ExecutableDDLElement
from sqlalchemy.sql import operators
from sqlalchemy.types import TypeDecorator

from jobhistory._runtime.plain_json import plain_json
from jobhistory.errors import InvalidInput
from jobhistory.execution.status import Status
from jobhistory.sanitize.json_text import JsonText
from jobhistory.sanitize.truncate import NAME_LENGTH

TABLE_NAME = "job_history"

T = TypeVar("T")


class _JSONText(sqlite.JSON):
    """JSON in a TEXT column.

    A column declared as JSON has numeric affinity on SQLite: a document that is a single number
    would become a number of SQLite, and a large one would lose its last digits.
    """


@compiles(_JSONText, "sqlite")
def _declare_json_text(type_: _JSONText, compiler: Any, **options: Any) -> str:
    return "TEXT"


# JSONB first, because its operators, such as contains(), belong to the column. None is stored as
# SQL NULL, because partial indexes would include a JSON null.
PortableJSON = JSONB(none_as_null=True).with_variant(_JSONText(none_as_null=True), "sqlite")
"""`JSONB` on PostgreSQL and JSON text on SQLite. `None` is stored as SQL NULL on both.

`payload["key"].as_string()` and the other accessors of SQLAlchemy's JSON type work on both.
`contains`, `has_key` and the other operators of `JSONB` work on PostgreSQL only.
"""


class UTCDateTime(TypeDecorator[datetime]):
    """An aware `datetime`, loaded in UTC with microseconds. Naive values raise `ValueError`."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Return an aware value in UTC, for the driver."""
        if value is None:
            return None
        if value.utcoffset() is None:
            raise ValueError(f"a naive datetime cannot be stored: {value!r}")
        # SQLite stores text without an offset, so the value must be in UTC.
        return value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Return the driver's value as an aware value in UTC."""
        if value is None or value.tzinfo is UTC:
            return value
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


class PlainUuid(TypeDecorator[uuid.UUID]):
    """A UUID, loaded as `uuid.UUID` itself.

    asyncpg returns a subclass of its own, which some JSON encoders refuse, and which can be
    unpickled only where asyncpg is installed.
    """

    impl = Uuid
    cache_ok = True

    def result_processor(self, dialect: Dialect, coltype: object) -> Any:
        """Return the function that converts the driver's value; `None` if there is none."""
        if dialect.driver == "asyncpg":
            return _plain_uuid
        return super().result_processor(dialect, coltype)


def _plain_uuid(value: uuid.UUID | None) -> uuid.UUID | None:
    return None if value is None else uuid.UUID(int=value.int)


def _where(column: str) -> dict[str, Any]:
    """Return the arguments for a partial index on the rows in which a column is not NULL."""
    predicate = text(f"{column} IS NOT NULL")
    return {"postgresql_where": predicate, "sqlite_where": predicate}


class Base(DeclarativeBase):
    """A declarative base with a registry and metadata that are separate from the app's."""

    metadata = MetaData(
        naming_convention={
            "pk": "pk_%(table_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
        }
    )


@final
class HistoryRecord(Base):
    """One execution, that is, one attempt at a job.

    Records that the library returns are detached and fully loaded. They need no session, and it is
    safe to pass them between threads. All times are aware and in UTC.

    Attributes:
        id: the execution id, a UUIDv7. Records are ordered by `started_at` and then by `id`.
        job_id, worker_id, correlation_id: the caller's ids, as text.
        parent_id: the id of the execution that started this one.
        trace_id, span_id: the ids of the span in which it started, as lower-case hexadecimal text.
        task_identifier: the kind of work.
        status: a `Status`, which equals its text.
        attempt_number: the number of this attempt at the job, as the queue counts attempts.
        labels: short texts by name, such as `{"tenant": "acme"}`.
        payload: the job's input, sanitized for JSON.
        payload_is_exact: whether `payload` equals the job's input; `None` if that is unknown.
        started_at: the start.
        completed_at: the end, whatever the outcome; `None` until then.
        queue_time_ms: the milliseconds from the time at which the job was due to the start.
        execution_time_ms: the duration in milliseconds.
        heartbeat_at: the last sign of life of a running execution that sends any.
        progress: the share of the work that is done, from 0 to 1.
        expires_at: the time from which `HistoryStore.expire` deletes the row; `None` means never.
        will_retry: whether the job will be tried again after this failure.
        error_type, error_message, error_stack: the reason for a failure. Failures always have an
            `error_type`; other executions have none. A cancelled execution may have a message.
        completed_steps, failed_steps, retry_from_step, partial_results: the progress of a partial
            success.
        result: the result of a completion, sanitized for JSON.
        log_tail: the last lines that the execution logged.
    """

    __tablename__ = TABLE_NAME
    # On PostgreSQL, the UPDATE of an outcome is heap-only if it changes no column that an index or
    # its predicate uses. Hence no index uses `status` or `completed_at`. Instead, indexes find
    # failures by `error_type`, and partial successes by `failed_steps`, which are NULL otherwise.
    __table_args__ = (
        CheckConstraint(f"status IN ({', '.join(repr(s.value) for s in Status)})", name="status"),
        Index("ix_job_history_expires_at", "expires_at"),
    )

    id: Mapped[uuid.UUID] = mapped_column(PlainUuid, primary_key=True)
    job_id: Mapped[str] = mapped_column(String(NAME_LENGTH))
    correlation_id: Mapped[str] = mapped_column(String(NAME_LENGTH))
    parent_id: Mapped[uuid.UUID | None] = mapped_column(PlainUuid)
    trace_id: Mapped[str | None] = mapped_column(String(32))
    span_id: Mapped[str | None] = mapped_column(String(16))
    task_identifier: Mapped[str] = mapped_column(String(NAME_LENGTH))
    worker_id: Mapped[str] = mapped_column(String(NAME_LENGTH))
    status: Mapped[Status] = mapped_column(
        Enum(
            Status,
            native_enum=False,  # a downgrade that drops the table would leave a named type behind
            length=32,
            values_callable=lambda statuses: [status.value for status in statuses],
        )
    )
    attempt_number: Mapped[int]
    labels: Mapped[dict[str, str] | None] = mapped_column(PortableJSON)
    payload: Mapped[Any | None] = mapped_column(PortableJSON)
    payload_is_exact: Mapped[bool | None] = mapped_column(Boolean)
    started_at: Mapped[datetime] = mapped_column(UTCDateTime)
    completed_at: Mapped[datetime | None] = mapped_column(UTCDateTime)
    queue_time_ms: Mapped[int | None] = mapped_column(BigInteger)
    execution_time_ms: Mapped[int | None] = mapped_column(BigInteger)
    heartbeat_at: Mapped[datetime | None] = mapped_column(UTCDateTime)
    progress: Mapped[float | None] = mapped_column(Float)
    expires_at: Mapped[datetime | None] = mapped_column(UTCDateTime)
    will_retry: Mapped[bool | None] = mapped_column(Boolean)
    error_type: Mapped[str | None] = mapped_column(String(NAME_LENGTH))
    error_message: Mapped[str | None] = mapped_column(Text)
    error_stack: Mapped[str | None] = mapped_column(Text)
    completed_steps: Mapped[list[str] | None] = mapped_column(PortableJSON)
    failed_steps: Mapped[list[str] | None] = mapped_column(PortableJSON)
    retry_from_step: Mapped[str | None] = mapped_column(Text)
    partial_results: Mapped[Any | None] = mapped_column(PortableJSON)
    result: Mapped[Any | None] = mapped_column(PortableJSON)
    log_tail: Mapped[str | None] = mapped_column(Text)

    def __init_subclass__(cls, **options: Any) -> None:
        # SQLAlchemy would add the subclass's columns to this table, which every store shares.
        raise InvalidInput(
            "class",
            cls.__name__,
            "cannot extend HistoryRecord; store short values as labels, such as "
            "Job(..., labels={'tenant': 'acme'}), or relate a table of your own to it by "
            "ForeignKey(HistoryRecord.id, ondelete='CASCADE')",
        )

    def to_dict(self) -> dict[str, Any]:
        """Return all fields, as `json.dumps`, FastAPI and Flask's `jsonify` accept them.

        Ids and times are texts; times are in ISO 8601, with their offset. The result is a copy.
        """
        return {name: plain_json(value) for name, value in values_of(self).items()}

    def __repr__(self) -> str:
        return (
            f"<HistoryRecord {self.task_identifier} job_id={self.job_id!r} "
            f"status={self.status} started_at={self.started_at}>"
        )


class _NullsFirst(UnaryExpression[datetime]):
    """A column with `NULLS FIRST`, which SQLite does not allow in an index and omits."""

    inherit_cache = True

    def __init__(self, column: ColumnElement[datetime]) -> None:
        super().__init__(column, modifier=operators.nulls_first_op)


@compiles(_NullsFirst, "sqlite")
def _omit_nulls_first(order: _NullsFirst, compiler: Any, **options: Any) -> str:
    column: str = compiler.process(order.element, **options)
    return column


def _index_by_start(name: str, column: str | None = None, only: str | None = None) -> None:
    """Index executions by `started_at` and `id`, the order of pages.

    Args:
        column: the column that comes before these, if any.
        only: the column that is not NULL in the rows of a partial index.
    """
    columns = HistoryRecord.__table__.c
    # `started_at` is never NULL. But if two indexes differ in where they put NULL, PostgreSQL
    # cannot use the one of all executions in place of the one of failures, and the one of a task's
    # executions in place of that of its failures. It could, and would read all executions if it
    # estimated that most are failures.
    tells_apart = (column is None) != (only is None)
    started_at = _NullsFirst(columns.started_at) if tells_apart else columns.started_at
    options = {} if only is None else _where(only)
    leading = [] if column is None else [columns[column]]
    Index(name, *leading, started_at, columns.id, **options)


_index_by_start("ix_job_history_started_at")
_index_by_start("ix_job_history_failed_started_at", only="error_type")
_index_by_start("ix_job_history_partial_started_at", only="failed_steps")
for _column in ("correlation_id", "job_id", "task_identifier", "worker_id"):
    _index_by_start(f"ix_job_history_{_column}_started_at", _column)
_index_by_start("ix_job_history_error_type_started_at", "error_type", "error_type")
_index_by_start("ix_job_history_failed_task_identifier_started_at", "task_identifier", "error_type")
_index_by_start(
    "ix_job_history_partial_task_identifier_started_at", "task_identifier", "failed_steps"
)

RUNNING_ON_SQLITE = "ix_job_history_running"
"""The name of an index that only SQLite has. `running` and `reap_lost` use it."""

Index(
    RUNNING_ON_SQLITE,
    HistoryRecord.started_at,
    HistoryRecord.id,
    sqlite_where=text("status = 'started'"),
).ddl_if(dialect="sqlite")  # on PostgreSQL, outcomes would not be heap-only any more

TABLE: Any = HistoryRecord.__table__
COLUMNS = TABLE.c


class _SetFillfactor(ExecutableDDLElement):
    """Leaves room on each page for the new versions of rows, which heap-only updates need.

    It is a separate statement, because tables have no option for it in SQLAlchemy 2.0.
    """


@compiles(_SetFillfactor)
def _alter_fillfactor(ddl: _SetFillfactor, compiler: Any, **options: Any) -> str:
    return f"ALTER TABLE {compiler.preparer.format_table(ddl.target)} SET (fillfactor = 80)"


event.listen(
    TABLE, "after_create", _SetFillfactor().execute_if(dialect="postgresql"), propagate=True
)

COLUMN_NAMES = tuple(column.key for column in inspect(HistoryRecord).column_attrs)
"""The names of a record's fields, in the order of the table's columns."""

_MAPPER = inspect(HistoryRecord)
_NO_VALUES = dict.fromkeys(COLUMN_NAMES)
JSON_COLUMNS = frozenset(column.key for column in COLUMNS if isinstance(column.type, JSONB))
"""The names of the columns that hold JSON."""


def record_from(values: Mapping[str, Any], *, shares_json: bool = False) -> HistoryRecord:
    """Return a detached, fully loaded record with these values.

    Columns without a value are `None`.

    Args:
        values: values by column. JSON text is decoded.
        shares_json: whether the record may share mutable values with `values` instead of copying
            them. Only safe if no other code uses them.
    """
    record = loaded_record((_NO_VALUES | dict(values)).items())
    loaded = vars(record)
    for name in JSON_COLUMNS:
        value = loaded[name]
        if type(value) is JsonText:
            loaded[name] = value.value
        elif value is not None and not shares_json:
            loaded[name] = _copied(value)
    return record


def loaded_record(values: Iterable[tuple[str, Any]]) -> HistoryRecord:
    """Return a detached record with the values of all columns, which it keeps as they are."""
    # As SQLAlchemy loads objects. The constructor and setattr() would track each value as a change.
    record: HistoryRecord = _MAPPER.class_manager.new_instance()
    loaded = vars(record)
    loaded.update(values)
    # All that make_transient_to_detached() does if every column has a value.
    instance_state(record).key = _MAPPER.identity_key_from_primary_key((loaded["id"],))
    return record


def values_of(record: HistoryRecord) -> dict[str, Any]:
    """Return the values of all columns, with copies of the mutable ones."""
    loaded = vars(record)  # faster than SQLAlchemy's attributes, which read the same dict
    try:
        values = {name: loaded[name] for name in COLUMN_NAMES}
    except KeyError:  # a record of the app's session may have unloaded columns
        values = {name: getattr(record, name) for name in COLUMN_NAMES}
    for name in JSON_COLUMNS:
        if values[name] is not None:
            values[name] = _copied(values[name])
    return values


def plain(execution: HistoryRecord | T) -> dict[str, Any] | T:
    """Return the values of a record, or any other argument unchanged."""
    return values_of(execution) if isinstance(execution, HistoryRecord) else execution


def _copied(value: Any) -> Any:
    """Return a copy of a JSON value, faster than `copy.deepcopy` would."""
    if isinstance(value, dict):
        return {key: _copied(inside) for key, inside in value.items()}
    if isinstance(value, list):
        return [_copied(inside) for inside in value]
    return value
