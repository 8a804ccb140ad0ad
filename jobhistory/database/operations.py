"""Every verb once, as a function of a session: it neither begins, nor commits, nor closes it.

The sessions are the library's own: nobody else's objects are in them.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, Engine, Select
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from jobhistory._runtime.clock import utc_now
from jobhistory.database import binds
from jobhistory.database import postgresql_copy as pg_copy
from jobhistory.database.deadlines import current_deadline
from jobhistory.database.driver_errors import is_missing_object, sqlstate
from jobhistory.database.functions import FINGERPRINT
from jobhistory.database.statements import expire as maintenance
from jobhistory.database.statements.expire import Branch, Deleted, Expiry, Place, Reaped
from jobhistory.database.statements.read import WITH_IDS, count_of
from jobhistory.database.statements.reap import reap_statements
from jobhistory.database.statements.reports import failures_of, stats_of
from jobhistory.database.statements.write import (
    FINISH,
    FINISH_BY_ID,
    FINISH_MANY,
    FINISHED,
    FINISHED_AT,
    FINISHED_BY_ID,
    INSERT,
    INSERT_NEW,
    INSERT_OR_FINISH,
    REPLACE_LOST,
)
from jobhistory.errors import (
    ExecutionAlreadyFinished,
    ExecutionNotFound,
    InvalidInput,
    UnsafeExpiry,
)
from jobhistory.execution.batch import Batch, BatchResult
from jobhistory.execution.outcome import (
    OUTCOME_COLUMNS,
    ExecutionKey,
    Outcome,
    check_same_job,
    is_lost,
    not_found,
)
from jobhistory.query.criteria import HistoryQuery
from jobhistory.query.reports import FIRST_BUCKET, Count, FailureGroup, Percentiles, TaskStats
from jobhistory.sanitize.fingerprint import fingerprint
from jobhistory.schema import (
    COLUMN_NAMES,
    COLUMNS,
    TABLE_NAME,
    HistoryRecord,
    record_from,
    values_of,
)

_OPTIONS = "jobhistory.execution_options"
_CONNECTION = "jobhistory.connection"

# No separate round trip. A higher level would only add conflicts to what we do.
_TRANSACTION = {"isolation_level": "READ COMMITTED"}

_MOST_ROWS = 10_000
"""How many rows a statement inserts at most: the time limit of a call is for these."""

_OTHER_OUTCOME_COLUMNS = [
    name for name in OUTCOME_COLUMNS if name not in ("completed_at", "execution_time_ms")
]


def prepare(
    session: Session,
    options: dict[str, Any],
    bind: binds.Bind | None = None,
    *,
    as_one: bool = False,
) -> Session:
    """Set what all statements of an operation have in common, and return the session.

    Args:
        options: the execution options of the statements.
        bind: the engine or connection that the statements run on, for a session with a choice.
        as_one: make the statements one transaction of the database, also if the engine is in
            AUTOCOMMIT mode. PostgreSQL engines that the library makes are, as that saves round
            trips for single rows.
    """
    # SQLAlchemy 2.1 has options of the session, too.
    session.info[_OPTIONS] = {**getattr(session, "execution_options", {}), **options}
    if bind is not None:
        # A connection is in a transaction already.
        is_free = as_one and isinstance(bind, Engine)
        is_postgresql = bind.dialect.name == "postgresql"
        session.info[_CONNECTION] = connection = session.connection(
            bind_arguments={"bind": bind},
            execution_options=_TRANSACTION if is_free and is_postgresql else None,
        )
        if is_free and not is_postgresql:
            _begin_unless_begun(connection)
    return session


def _begin_unless_begun(connection: Connection) -> None:
    """Begin a transaction on SQLite, if neither its driver nor a listener of the app does so.

    The driver's commit and rollback end it. To change the mode and back would lose the app's.
    """
    driver_connection: Any = connection.connection.driver_connection
    if driver_connection.isolation_level is None and not driver_connection.in_transaction:
        connection.exec_driver_sql("BEGIN")


def insert(session: Session, row: dict[str, Any], *, may_exist: bool = False) -> HistoryRecord:
    """Write a new row, and return its record.

    With `may_exist`, the row with its id may be there, and is returned then as it is.

    Raises:
        InvalidInput: if that is of another job or task.
    """
    if not may_exist:
        _execute(session, INSERT, row)
        return record_from(row, shares_json=True)
    dialect = _connection(session).dialect.name
    if _execute(session, INSERT_NEW[dialect], row).rowcount == 1:
        return record_from(row, shares_json=True)
    return _with_id_of(session, row)


def insert_or_end(session: Session, row: dict[str, Any]) -> tuple[HistoryRecord, bool]:
    """Write the row of an ended execution, or its outcome into the started row with its id.

    Return the record, and whether it was written now. It was written before if the execution had
    ended with the same outcome.

    Raises:
        ExecutionAlreadyFinished: if the execution has ended with another outcome.
        InvalidInput: if the row with its id is of another job or task.
    """
    dialect = _connection(session).dialect.name
    statement = INSERT_OR_FINISH[dialect].returning(*COLUMNS)
    written = _execute(session, statement, _complete(row)).mappings().one_or_none()
    if written is not None:
        return record_from(written, shares_json=True), True
    record = _with_id_of(session, row)
    if record.status != row["status"]:
        raise ExecutionAlreadyFinished(record)
    return record, False


def _with_id_of(session: Session, row: dict[str, Any]) -> HistoryRecord:
    """Return the record with a row's id, which must be of the same job and task."""
    records = find(session, WITH_IDS, {"key_ids": [row["id"]]})
    if not records:  # it has just expired
        raise ExecutionNotFound(None, None, None, execution_id=row["id"])
    check_same_job(row, records[0])
    return records[0]


def insert_many(session: Session, rows: list[dict[str, Any]]) -> None:
    """Write new rows, by the fastest way that the database has."""
    if not rows:
        return
    connection = _connection(session)
    options = _options(session)
    copies = connection.dialect.driver == "psycopg" and pg_copy.is_allowed(connection, options)
    for first in range(0, len(rows), _MOST_ROWS):
        some = rows[first : first + _MOST_ROWS]
        if copies:
            pg_copy.copy_rows(connection, some, options)
        else:
            _execute(session, INSERT, [_complete(row) for row in some])
        if (deadline := current_deadline.get()) is not None:
            deadline.restart()  # the database answers


def end(session: Session, outcome: Outcome) -> tuple[HistoryRecord, bool]:
    """Write how an execution ended; return its record, and whether it was written now.

    It was written before if a caller retries what had been committed: the outcome is the same.

    Raises:
        ExecutionNotFound: if no execution of that key has started.
        ExecutionAlreadyFinished: if it has ended with another outcome.
    """
    values = _outcome_parameters(outcome)
    if outcome.id is not None:
        statement, ended_statement = FINISH_BY_ID, FINISHED_BY_ID
        ids = {"key_id": outcome.id}
    else:
        statement, ended_statement = FINISH, FINISHED
        ids = _key_parameters(outcome)
    row = _execute(session, statement, ids | values).mappings().one_or_none()
    if row is not None:
        return record_from(row, shares_json=True), True
    record = _only(find(session, ended_statement, ids), outcome)
    if is_lost(record):
        ids = {"key_id": record.id}
        values = dict.fromkeys(_OTHER_OUTCOME_COLUMNS) | values
        row = _execute(session, REPLACE_LOST, ids | values).mappings().one_or_none()
        if row is not None:
            return record_from(row, shares_json=True), True
        # Another outcome has just replaced it.
        record = _only(find(session, FINISHED_BY_ID, ids), outcome)
    if not outcome.agrees_with(record):
        raise ExecutionAlreadyFinished(record)
    return record, False


def _only(records: list[HistoryRecord], outcome: Outcome) -> HistoryRecord:
    if not records:
        raise not_found(outcome)
    return records[0]


def write(session: Session, batch: Batch, *, may_exist: bool) -> BatchResult:
    """Write a batch; with `may_exist`, one that may have been written before.

    What cannot be recorded because of what history holds is refused; the rest is written.
    """
    written = BatchResult([row for row in batch.rows if row["status"].is_outcome], [])
    if may_exist:
        _insert_or_end(session, batch.rows)
        _sort_out_those_ended_otherwise(session, written)
    else:
        insert_many(session, batch.rows)
    if batch.outcomes:
        _write_outcomes(session, batch, written, may_exist=may_exist)
    return written


def _write_outcomes(
    session: Session, batch: Batch, written: BatchResult, *, may_exist: bool
) -> None:
    """Write the outcomes of a batch, and put all that has ended in the order of the batch."""
    inserted = {row["id"] for row in written.ended}
    written.ended.clear()
    known = [outcome for outcome in batch.outcomes if outcome.row is not None]
    all_ended = not known or _end_many(session, known) == len(known)
    for operation in batch.operations:
        if not isinstance(operation, Outcome):
            if operation["id"] in inserted:
                written.ended.append(operation)
        elif operation.row is not None and all_ended:
            written.ended.append(operation.ended_row())
        else:
            try:
                record = _end_once(session, operation, may_exist=may_exist)
            except (ExecutionNotFound, ExecutionAlreadyFinished) as refusal:
                written.refused.append((operation, refusal))
            else:
                written.ended.extend([] if record is None else [values_of(record)])


def reap(session: Session, query: HistoryQuery, now: datetime, after: Place) -> Reaped:
    """End one batch of started executions behind a place as lost, in their order.

    Executions that others hold locked are not found. Those that were found and not ended are kept
    by a trigger or by row-level security.
    """
    place = after.exact()
    parameters = {"after_started_at": place.moment, "after_id": place.id}
    find, end = reap_statements(query, _connection(session).dialect.name)
    if end is None:
        rows = _execute(session, find, parameters | {"now": now}).mappings().all()
        ended = [{name: row[name] for name in COLUMN_NAMES} for row in rows if row["id"]]
    else:
        rows = _execute(session, find, parameters).mappings().all()
        found = _execute(session, end, parameters | {"now": now}).mappings()
        ended = [dict(row) for row in found]
    last = Place(rows[-1]["lost_since"], rows[-1]["lost_id"]) if rows else None
    return Reaped(len(rows), ended, last)


def find(
    session: Session, statement: Select[HistoryRecord], parameters: dict[str, Any] | None = None
) -> list[HistoryRecord]:
    """The records that a statement selects, in its order."""
    with _loading(session) as loading:
        records = list(loading.scalars(statement, parameters, execution_options=_options(session)))
        loading.expunge_all()  # before the commit, which might expire them
    return records


def count(session: Session, query: HistoryQuery, cap: int | None) -> Count:
    """How many executions meet the criteria; see `count_of`."""
    return Count.up_to(_execute(session, count_of(query, cap), None).scalar_one(), cap)


def stats(session: Session, query: HistoryQuery, bucket: timedelta | None) -> list[TaskStats]:
    """The statistics of each task, and each bucket of time if there is one, in this order."""
    dialect = _connection(session).dialect.name
    rows = _execute(session, stats_of(query, bucket, dialect), None)
    values: list[tuple[Any, ...]] = [
        (*row[:7], Percentiles(*row[7:11]), Percentiles(*row[11:15]), *row[15:]) for row in rows
    ]
    found = [TaskStats(*each) for each in values]
    # Not by the database: each sorts text in its own way.
    return sorted(found, key=lambda stats: (stats.task_identifier, stats.bucket or FIRST_BUCKET))


def failures(session: Session, query: HistoryQuery) -> list[FailureGroup]:
    """The kinds of failures, the most frequent first."""
    connection = _connection(session)
    # SQLite has no regular expressions of its own. Once, as it would refuse to replace the function
    # while another statement of the connection is at work.
    if connection.dialect.name == "sqlite" and FINGERPRINT not in connection.info:
        connection.connection.create_function(FINGERPRINT, 1, fingerprint, deterministic=True)
        connection.info[FINGERPRINT] = True
    statement = failures_of(query)
    with _loading(session) as loading:
        rows = loading.execute(statement, execution_options=_options(session))
        groups = [FailureGroup(*row) for row in rows]
        loading.expunge_all()
    return groups


def earlier(session: Session, now: datetime) -> datetime:
    """Return the earlier of a moment and the clock of the database, so that a wrong clock is safe.

    SQLite's clock is that of this machine.
    """
    if _connection(session).dialect.name != "postgresql":
        return min(now, utc_now())
    moment: datetime = _execute(session, maintenance.EARLIER, {"now": now}).scalar_one()
    return moment


def plan_expiry(session: Session, now: datetime) -> Expiry:
    """Return what to delete from, and up to which moment."""
    if _connection(session).dialect.name != "postgresql":
        return Expiry(earlier(session, now))
    parameters = {"now": now, "name": _qualified_name(session)}
    return maintenance.expiry_of(_execute(session, maintenance.TREE, parameters).all())


def count_expired(session: Session, now: datetime) -> int:
    """Return the number of rows that have expired."""
    parameters = {"cutoff": earlier(session, now)}
    count: int = _execute(session, maintenance.COUNT_EXPIRED, parameters).scalar_one()
    return count


def delete_expired(
    session: Session, branch: Branch | None, cutoff: datetime, low: Place, batch_size: int
) -> Deleted:
    """Delete one batch of a branch from a place on, oldest first.

    Rows that others hold locked are not found. Rows that were found and not deleted are kept by a
    trigger or by row-level security, or were being updated at that moment.

    Raises:
        UnsafeExpiry: if it would have deleted more rows than it found; then it deletes none.
    """
    is_exact = low.id is not None
    parameters = _batch(low, cutoff, batch_size)
    if _connection(session).dialect.name != "postgresql":
        found, *last = _execute(session, maintenance.find_expired(exact=is_exact), parameters).one()
        delete = maintenance.delete_found(exact=is_exact)
        deleted = _execute(session, delete, parameters).rowcount if found else 0
    else:
        statement = maintenance.delete_expired(branch, exact=is_exact)
        try:
            found, deleted, *last = _execute(session, statement, parameters, branch).one()
        except DBAPIError as error:
            if sqlstate(error) == maintenance.GUARD_STATE:
                raise UnsafeExpiry from error
            if branch is None or branch.parent is None or not is_missing_object(error):
                raise
            return Deleted(0, 0, None)  # somebody has just dropped the partition
    return Deleted(found, deleted, Place(*last) if found else None)


def first_expired(
    session: Session, branch: Branch | None, cutoff: datetime, low: Place
) -> Place | None:
    """Return the place of the first row that a batch would delete."""
    statement = maintenance.first_expired(branch)
    row = _execute(session, statement, _batch(low.exact(), cutoff, 1), branch).one_or_none()
    return row and Place(*row)


def _batch(low: Place, cutoff: datetime, batch_size: int) -> dict[str, Any]:
    exact = {} if low.id is None else {"low_id": low.id}
    return exact | {"low_moment": low.moment, "cutoff": cutoff, "batch_size": batch_size}


def _qualified_name(session: Session) -> str:
    """Return the name of our table as the connection's SQL has it."""
    connection, schema = place_of(session)
    quote = connection.dialect.identifier_preparer.quote
    return ".".join(quote(each) for each in (schema, TABLE_NAME) if each is not None)


def place_of(session: Session) -> tuple[Connection, str | None]:
    """Return the connection of an operation, and the schema that holds the table there."""
    connection = _connection(session)
    options = {**connection.get_execution_options(), **_options(session)}
    return connection, (options.get("schema_translate_map") or {}).get(None)


def _insert_or_end(session: Session, rows: list[dict[str, Any]]) -> None:
    if rows:
        dialect = _connection(session).dialect
        statement = INSERT_OR_FINISH[dialect.name]
        _execute(session, statement, [_complete(row) for row in rows])


def _sort_out_those_ended_otherwise(session: Session, written: BatchResult) -> None:
    """Refuse the rows whose execution had another outcome, or whose id another job has."""
    parameters = {"key_ids": [row["id"] for row in written.ended]}
    records = {record.id: record for record in find(session, WITH_IDS, parameters)}
    for row in list(written.ended):
        record = records.get(row["id"])
        if record is None:
            continue
        outcome = Outcome(ExecutionKey.of_row(row), row)
        try:
            check_same_job(row, record)
            if not outcome.agrees_with(record):
                raise ExecutionAlreadyFinished(record)
            if record.completed_at == outcome.completed_at(record.started_at):
                continue
        except (InvalidInput, ExecutionAlreadyFinished) as refusal:
            written.refused.append((outcome, refusal))
        written.ended.remove(row)


def _end_many(session: Session, outcomes: list[Outcome]) -> int:
    """End executions by their ids, in one go; say how many that were."""
    parameters = []
    for outcome in outcomes:
        row = outcome.ended_row()
        values = {name: row[name] for name in OUTCOME_COLUMNS}
        parameters.append(values | {"key_id": outcome.id})
    count: int = _execute(session, FINISH_MANY, parameters).rowcount
    return count


def _end_once(session: Session, outcome: Outcome, *, may_exist: bool) -> HistoryRecord | None:
    """End an execution, unless it was this very outcome that ended it or, earlier, its twin.

    Returns:
        The record; `None` if somebody else had recorded the same.
    """
    if may_exist and outcome.row is None:
        at = {"key_completed_at": outcome.values["completed_at"]}
        if records := find(session, FINISHED_AT, _key_parameters(outcome) | at):
            return records[0]
    record, is_new = end(session, outcome)
    is_this = record.completed_at == outcome.completed_at(record.started_at)
    return record if is_new or is_this else None


def _complete(row: dict[str, Any]) -> dict[str, Any]:
    # When a statement is executed many times, drivers want the same parameters each time.
    return {name: row.get(name) for name in COLUMN_NAMES}


def _outcome_parameters(outcome: Outcome) -> dict[str, Any]:
    values = dict(outcome.values)
    values["ended_at"] = values.pop("completed_at")
    values["took_ms"] = values.pop("execution_time_ms")
    return values


def _key_parameters(outcome: Outcome) -> dict[str, Any]:
    key = outcome.key
    return {
        "key_job_id": key.job_id,
        "key_worker_id": key.worker_id,
        "key_correlation_id": key.correlation_id,
    }


@contextmanager
def _loading(session: Session) -> Iterator[Session]:
    """Give a session that loads records over the operation's connection."""
    if not binds.routes(session):
        yield session
        return
    # Such a session would choose an engine anew, perhaps a follower that lacks what we just wrote.
    with Session(_connection(session), join_transaction_mode="rollback_only") as on_connection:
        yield on_connection


def _options(session: Session) -> dict[str, Any]:
    options: dict[str, Any] = session.info.get(_OPTIONS, {})
    return options


def _connection(session: Session) -> Connection:
    return session.info.get(_CONNECTION) or session.connection()


def _execute(
    session: Session, statement: Any, parameters: Any, branch: Branch | None = None
) -> Any:
    options = _options(session)
    if branch is not None:  # its name is the database's own, which no map may translate
        options = {**options, "schema_translate_map": {}}
    return _connection(session).execute(statement, parameters, execution_options=options)
