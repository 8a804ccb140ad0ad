"""The store: each verb in a transaction of its own, and the ring buffer after its commit."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from time import monotonic
from types import TracebackType
from typing import Any, Concatenate, ParamSpec, Self, TypeVar

from sqlalchemy import URL, Engine
from sqlalchemy.exc import OperationalError, ProgrammingError, SQLAlchemyError
from sqlalchemy.orm import Session, scoped_session, sessionmaker

from jobhistory import migrate, operations, statements
from jobhistory.clock import Clock, utc_now
from jobhistory.criteria import HistoryQuery
from jobhistory.engines import engine_from_url
from jobhistory.errors import InvalidInput, SchemaOutOfDate, check_count
from jobhistory.executions import ExecutionKey, Outcome, PartialResults, RowBuilder
from jobhistory.memory import MemoryHistory
from jobhistory.models import HistoryRecord, detached, values_of
from jobhistory.retention import Duration, parse_duration, parse_retention
from jobhistory.ring import RingBuffer
from jobhistory.sanitize import Limits, Redact, Sanitizer, redact_secrets
from jobhistory.texts import Id, id_text

logger = logging.getLogger(__name__)

P = ParamSpec("P")
T = TypeVar("T")


def create_store(
    bind: sessionmaker[Session] | Engine | str | URL | None = None,
    *,
    buffer_size: int = 1000,
    history_retention: Duration | None = "30 days",
    limits: Limits = Limits(),  # noqa: B008 - it is frozen
    redact: Redact | None = redact_secrets,
    schema: str | None = None,
    clock: Clock = utc_now,
) -> HistoryStore:
    """Make a store on a database, or without `bind` one that lives in memory only.

    Args:
        bind: a `sessionmaker` or an `Engine` of the app, which is used and never touched; or a URL,
            for which the store makes an engine that `close()` disposes; or `None`.

    The other arguments are those of `HistoryStore`. No table is created: `jobhistory.migrate` does.

    Raises:
        InvalidInput: if an argument cannot be used.
        ModuleNotFoundError: if the database of a URL needs a driver that is not installed.
    """
    session_factory: sessionmaker[Session] | None
    owned_engine = None
    if bind is None or isinstance(bind, sessionmaker):
        session_factory = bind
    elif isinstance(bind, Engine):
        session_factory = sessionmaker(bind)
    elif isinstance(bind, (str, URL)):
        owned_engine = engine_from_url(bind)
        session_factory = sessionmaker(owned_engine)
    else:
        raise InvalidInput(
            "bind", bind, "is no sessionmaker, Engine or URL; give sessionmaker(engine)"
        )
    store = HistoryStore(
        session_factory,
        buffer_size=buffer_size,
        history_retention=history_retention,
        limits=limits,
        redact=redact,
        schema=schema,
        clock=clock,
    )
    store._owned_engine = owned_engine
    return store


class HistoryStore:
    """Records executions in a database, answers from it, and keeps the last ones in memory.

    One store serves a whole app: every method may be called by any number of threads at once. Each
    recording method is one short transaction of its own, and what it returns is detached: it needs
    no session and may go from thread to thread. Errors of the database are SQLAlchemy's, except for
    `SchemaOutOfDate`; after one, nothing of that call is in history or in the ring buffer, unless
    the connection broke while the commit was on its way. Then the call may be made again: an
    outcome that is already there is returned, not recorded twice.

    Args:
        session_factory: what makes the sessions, one for each transaction; `None` for a history
            that lives in memory only.
        buffer_size: how many ended executions the ring buffer keeps.
        history_retention: how long a row lives: a `timedelta`, a text such as `"30 days"` or
            `"12h"`, or `None` or `"never"` if rows do not expire.
        limits: how many bytes payload, results, message and stack may take.
        redact: given a key and the value under it, what to store for the value; `None` stores all.
            If it raises, the value is redacted.
        schema: the database schema that holds the table; `None` for the connection's default, or
            for the one of the factory's own `schema_translate_map`.
        clock: says what time it is, as an aware `datetime`.

    Raises:
        InvalidInput: if an argument cannot be used.
    """

    def __init__(
        self,
        session_factory: Callable[[], Session] | None,
        *,
        buffer_size: int = 1000,
        history_retention: Duration | None = "30 days",
        limits: Limits = Limits(),  # noqa: B008 - it is frozen
        redact: Redact | None = redact_secrets,
        schema: str | None = None,
        clock: Clock = utc_now,
    ) -> None:
        check_count(buffer_size, "buffer_size", example=1000)
        if isinstance(session_factory, scoped_session):
            raise InvalidInput(
                "session_factory",
                session_factory,
                "would hand out the session in which the app is at work; give its session_factory",
            )
        self._rows = RowBuilder(
            clock=clock,
            retention=parse_retention(history_retention, now=clock()),
            sanitizer=Sanitizer(limits, redact),
        )
        self._ring: RingBuffer[dict[str, Any]] = RingBuffer(buffer_size)
        self._history = (
            MemoryHistory(self._ring)
            if session_factory is None
            else _Database(session_factory, self._ring, schema)
        )
        self._owned_engine: Engine | None = None

    def record_start(
        self,
        job: Any,
        worker_id: Id,
        correlation_id: Id,
        *,
        history_retention: Duration | None = None,
    ) -> HistoryRecord:
        """Record that a worker has started to execute a job, now.

        Args:
            job: a `Job`, any object with its attributes, or a mapping with its keys: `id`,
                `task_identifier`, and optionally `payload`, `attempts`, `run_at`. The time from
                `run_at` to the start is the record's `queue_time_ms`.
            worker_id: who executes it.
            correlation_id: what ties this execution to others: a request, a trace, a workflow.
            history_retention: how long this row lives; `None` for as long as the store's others.

        Returns:
            The record, with status `started`. The ring buffer gets it when it has ended.

        Raises:
            InvalidInput: if an argument cannot be used. What the payload holds is never a reason.
        """
        return self._history.insert(
            self._rows.started(job, worker_id, correlation_id, history_retention)
        )

    def record_completion(
        self, job_id: Id, worker_id: Id, correlation_id: Id, execution_time_ms: float
    ) -> HistoryRecord:
        """Record that the newest started execution of these ids did its work.

        Args:
            job_id, worker_id, correlation_id: the ids that `record_start` was given.
            execution_time_ms: how long it took, in milliseconds, rounded to whole ones.

        Returns:
            The ended record. If the execution had already ended in the same way, as when a call is
            made again whose answer got lost, that record; the ring buffer is then left alone.

        Raises:
            ExecutionNotFound: if no execution of these ids has started.
            ExecutionAlreadyFinished: if it had ended in another way. Of two callers who race,
                exactly one wins, and this is what the other gets.
            InvalidInput: if an argument cannot be used.
        """
        key = ExecutionKey.of(job_id, worker_id, correlation_id)
        return self._history.end(self._rows.completed(key, execution_time_ms))

    def record_failure(
        self,
        job_id: Id,
        worker_id: Id,
        correlation_id: Id,
        execution_time_ms: float,
        error: BaseException | str,
    ) -> HistoryRecord:
        """Record that the newest started execution of these ids failed, and why.

        Args:
            error: the exception, of which type, text and traceback with its causes are kept, or a
                text, whose type is then `"Error"`.

        The other arguments, what is returned and what is raised are those of `record_completion`.
        """
        key = ExecutionKey.of(job_id, worker_id, correlation_id)
        return self._history.end(self._rows.failed(key, execution_time_ms, error))

    def record_partial_success(
        self,
        job_id: Id,
        worker_id: Id,
        correlation_id: Id,
        execution_time_ms: float,
        partial_results: PartialResults | Mapping[str, Any],
    ) -> HistoryRecord:
        """Record that the newest started execution of these ids succeeded in part.

        Args:
            partial_results: a `PartialResults` or a mapping with its keys: `completed_steps`,
                `failed_steps`, `retry_from_step`, `results`; each may be left out.

        The other arguments, what is returned and what is raised are those of `record_completion`.
        """
        key = ExecutionKey.of(job_id, worker_id, correlation_id)
        return self._history.end(
            self._rows.partly_succeeded(key, execution_time_ms, partial_results)
        )

    def observe(self, record: HistoryRecord | Mapping[str, Any]) -> None:
        """Put an ended execution that others recorded into the ring buffer; no database is used.

        Args:
            record: a record, of which a copy is kept, or a mapping with its fields as keys:
                `job_id`, `worker_id`, `correlation_id`, `task_identifier` and `status` at least.

        Raises:
            InvalidInput: if a field is missing, unknown or unusable, or the status no outcome.
        """
        self._ring.append(self._rows.observed(record))

    def recent(self, n: int | None = None) -> list[HistoryRecord]:
        """The last `n` executions that ended in this process, oldest first; no database is used.

        They come in the order in which the ring buffer got them. Without `n`, it is all it holds.

        Raises:
            InvalidInput: if `n` is not a count.
        """
        return [detached(row) for row in self._ring.last(n)]

    def get_by_job_id(self, job_id: Id) -> list[HistoryRecord]:
        """All executions of a job, newest first."""
        return self._history.find_with("job_id", id_text(job_id, "job_id"))

    def get_by_correlation_id(self, correlation_id: Id) -> list[HistoryRecord]:
        """All executions that a correlation id ties together, newest first."""
        return self._history.find_with("correlation_id", id_text(correlation_id, "correlation_id"))

    def query(
        self, criteria: HistoryQuery | Mapping[str, Any] | None = None, **named: Any
    ) -> list[HistoryRecord]:
        """The executions that meet all criteria, newest first, 100 at the most without a `limit`.

        Criteria are given by name, as a mapping, or as a `HistoryQuery`, which lists them; named
        ones take the place of those of the same name. A mapping may say `"from"` for `from_`.

        Raises:
            InvalidInput: if a criterion is unknown or cannot be read.
        """
        return self._history.find(HistoryQuery.of(criteria, named))

    def expire(
        self,
        *,
        batch_size: int = 1000,
        time_limit: Duration | None = None,
        dry_run: bool = False,
        progress: Callable[[int], None] | None = None,
    ) -> int:
        """Delete every row whose `expires_at` has passed, oldest first, and say how many they were.

        What counts as passed is fixed at the start. Each batch is a short transaction of its own:
        nobody waits for long, and what has been deleted stays so if a later batch fails. On
        PostgreSQL a row that somebody has locked is skipped, so several calls at once share the
        work. A store in memory forgets what has expired, in its ring buffer, too.

        Args:
            batch_size: how many rows one transaction deletes at the most.
            time_limit: stop before the batch that would begin after so long, with a warning in the
                log. The first batch is always made.
            dry_run: only count what would be deleted.
            progress: called after each batch with how many have been deleted so far.

        Raises:
            InvalidInput: if an argument cannot be used.
        """
        check_count(batch_size, "batch_size", example=1000)
        limit = timedelta.max if time_limit is None else parse_duration(time_limit, "time_limit")
        cutoff = self._rows.now()
        if dry_run:
            return self._history.count_expired(cutoff)
        begun = monotonic()
        total, low_water = 0, statements.LONG_AGO
        while True:
            # The mark spares each batch the dead rows that the ones before it left in the index.
            deleted, low_water = self._history.delete_expired(cutoff, low_water, batch_size)
            total += deleted
            if progress is not None:
                progress(total)
            if deleted < batch_size:
                return total
            if monotonic() - begun >= limit.total_seconds():
                logger.warning("expire() reached its time limit of %s; rows may be left", limit)
                return total

    def close(self) -> None:
        """Dispose the engine that `create_store` made from a URL; others are left alone."""
        if self._owned_engine is not None:
            self._owned_engine.dispose()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


class _Database:
    """Each of the `operations` in a session and a transaction of its own."""

    def __init__(
        self,
        session_factory: Callable[[], Session],
        ring: RingBuffer[dict[str, Any]],
        schema: str | None,
    ) -> None:
        self._session_factory = session_factory
        self._ring = ring
        self._schema = schema

    def insert(self, row: dict[str, Any]) -> HistoryRecord:
        return self._run(operations.insert, row)

    def end(self, outcome: Outcome) -> HistoryRecord:
        record, is_new = self._run(operations.end, outcome)
        if is_new:
            self._ring.append(values_of(record))
        return record

    def find(self, query: HistoryQuery) -> list[HistoryRecord]:
        return self._run(operations.find, statements.records_of(query))

    def find_with(self, column: str, value: str) -> list[HistoryRecord]:
        return self._run(operations.find, statements.records_with(column, value))

    def count_expired(self, cutoff: datetime) -> int:
        return self._run(operations.count_expired, cutoff)

    def delete_expired(
        self, cutoff: datetime, low_water: datetime, batch_size: int
    ) -> tuple[int, datetime]:
        return self._run(operations.delete_expired, cutoff, low_water, batch_size)

    def _run(
        self, verb: Callable[Concatenate[Session, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        try:
            with self._session_factory() as session, session.begin():
                self._choose_schema(session)
                return verb(session, *args, **kwargs)
        except (ProgrammingError, OperationalError) as error:
            # Looked into only now, so that the schema costs nothing as long as it is right. An
            # error without a statement is one of connecting.
            if error.statement is not None and not error.connection_invalidated:
                self._refuse_wrong_schema(error)
            raise

    def _choose_schema(self, session: Session) -> None:
        if self._schema is not None:
            session.connection(
                bind_arguments={"mapper": HistoryRecord},
                execution_options={"schema_translate_map": {None: self._schema}},
            )

    def _refuse_wrong_schema(self, error: Exception) -> None:
        try:
            with self._session_factory() as session, session.begin():
                self._choose_schema(session)
                connection = session.connection(bind_arguments={"mapper": HistoryRecord})
                translated = connection.get_execution_options().get("schema_translate_map") or {}
                revision = migrate.current(connection, schema=translated.get(None))
        except SQLAlchemyError:  # then the first error is the one to hear of
            return
        if revision != migrate.HEAD:
            raise SchemaOutOfDate(revision, migrate.HEAD) from error
