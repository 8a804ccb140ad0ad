"""The store: every verb, the ring buffer, and what keeps history in order."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Collection, Mapping
from datetime import datetime, timedelta
from types import TracebackType
from typing import Any, Self

from sqlalchemy import URL, Engine
from sqlalchemy.orm import Session, scoped_session, sessionmaker

from jobhistory._runtime.clock import utc_now
from jobhistory._runtime.durations import parse_duration, parse_retention
from jobhistory._runtime.ring import RingBuffer
from jobhistory.base_store import BaseStore
from jobhistory.database.batches import Batches, Expiring, Reaping
from jobhistory.database.binds import engine_of
from jobhistory.database.engines import check_dialect, engine_from_url
from jobhistory.database.sessions import OwnTransactions
from jobhistory.database.statements.expire import BEGINNING
from jobhistory.errors import InvalidInput, check_count
from jobhistory.execution.rows import RowBuilder
from jobhistory.memory.history import MemoryHistory
from jobhistory.query.criteria import HistoryQuery, replace
from jobhistory.sanitize.json_values import Limits, Sanitizer
from jobhistory.sanitize.secrets import redact_secrets
from jobhistory.schema import HistoryRecord, plain, record_from
from jobhistory.tracking import Tracker, TrackOptions
from jobhistory.typing import Clock, Duration, Id, OnHistoryError, Redact


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

    A store on the app's engine takes a second connection from its pool while the app holds one, so
    a pool needs room for both: with `pool_size=1, max_overflow=0` and a session in a transaction, a
    call waits for `pool_timeout` and then raises. A store made from a URL has connections of its
    own, and `joined` uses the one that the session holds.

    Behind a pooler in transaction mode, such as PgBouncer, an app's engine with psycopg needs
    `connect_args={"prepare_threshold": None}`; an engine made from a URL adapts by itself.

    A session may choose its engine in `get_bind(mapper, clause)`: each transaction asks once, with
    a SELECT if it only reads and with an UPDATE if it writes, and then stays on that engine.

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
        _refuse_asyncio("bind", bind, "create_async_store")
        raise InvalidInput(
            "bind",
            bind,
            "is no sessionmaker, Engine or URL; give sessionmaker(engine), or another callable "
            "that makes sessions to HistoryStore",
        )
    engine = engine_of(session_factory)
    if engine is not None:
        check_dialect(engine, "bind")
        if engine.dialect.is_async:
            raise InvalidInput("bind", bind, "is for asyncio; give it to create_async_store")
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


def _refuse_asyncio(argument: str, value: object, instead: str) -> None:
    # Whoever has such a value has imported the module, which needs greenlet.
    asyncio_ = sys.modules.get("sqlalchemy.ext.asyncio")
    if asyncio_ is None:
        return
    if isinstance(value, (asyncio_.AsyncEngine, asyncio_.async_sessionmaker)):
        raise InvalidInput(argument, value, f"is for asyncio; give it to {instead}")


class HistoryStore(BaseStore):
    """Records executions in a database, answers from it, and keeps the last ones in memory.

    One store serves a whole app: every method may be called by any number of threads at once. Each
    recording method is one short transaction of its own, and what it returns is detached: it needs
    no session and may go from thread to thread. Errors of the database are SQLAlchemy's, except for
    `SchemaOutOfDate`; after one, nothing of that call is in history or in the ring buffer, unless
    the connection broke while the commit was on its way. Then the call may be made again: an
    outcome that is already there is returned, not recorded twice.

    **A database that hangs does not hang jobs.** The engine that `create_store` makes from a URL
    gives up after 2 seconds to connect, and a recording call after 2 more; `record_many` and the
    batches of a `Recorder` have 30. The connection is closed then, and SQLAlchemy's
    `OperationalError` says that the time limit has passed. What was sent before may be in history
    all the same. Questions, `expire`, `reap_lost` and migrations have no limit once they are
    connected. A wait for one of the pool's 15 connections ends after 10 seconds.

    After such a time-out, recording calls raise `HistoryUnavailable` at once for 30 seconds; then
    one of them tries again. This holds on the app's own engine too, if a call found no connection,
    or lost it, after 2 seconds or more. There, only the driver's settings limit the time, so set
    them: `connect_args={"connect_timeout": 2}` with psycopg or psycopg2, `{"timeout": 2,
    "command_timeout": 2}` with asyncpg, and a small `pool_timeout`. `tcp_user_timeout` helps with
    psycopg if the network fails, but not against a server that is stopped.

    **SQLite.** The threads of a process that record take turns. If another process keeps the
    database busy beyond the driver's own `timeout`, the transaction is repeated: for 5 seconds, and
    for 30 by `expire` and `reap_lost`.

    A forked child may use the store that its parent made. It begins with an empty ring buffer of
    its own, and with connections of its own: of an engine's pool, the child leaves to the parent
    what is in it, and closes nothing. With SQLite, fork while no thread is using it: its library
    does not survive that.

    Args:
        session_factory: what makes the sessions, one for each transaction; `None` for a history
            that lives in memory only.
        buffer_size: how many ended executions the ring buffer keeps.
        history_retention: how long a row lives: a `timedelta`, a text such as `"30 days"` or
            `"12h"`, or `None` or `"never"` if rows do not expire.
        limits: how many bytes payload, results, message and stack may take.
        redact: takes a name and the value under it, and returns the value to store. It judges keys,
            attributes, pairs such as headers, and JSON in texts; if it raises, the value is
            redacted. Messages, stacks and other text follow the default rules. `None` turns all
            redaction off.
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
        _refuse_asyncio("session_factory", session_factory, "AsyncHistoryStore")
        if isinstance(session_factory, scoped_session):
            raise InvalidInput(
                "session_factory",
                session_factory,
                "would hand out the session in which the app is at work; give its session_factory",
            )
        rows = RowBuilder(
            clock=clock,
            retention=parse_retention(history_retention, now=clock()),
            sanitizer=Sanitizer(limits, redact),
        )
        self._ring: RingBuffer[dict[str, Any]] = RingBuffer(buffer_size)
        self._history: MemoryHistory | OwnTransactions = (
            MemoryHistory(self._ring)
            if session_factory is None
            else OwnTransactions(session_factory, self._ring, schema)
        )
        super().__init__(rows, self._history)
        self._owned_engine: Engine | None = None

    def joined(self, session: Session | scoped_session[Session]) -> JoinedStore:
        """Return a store that records, reads and tracks in the transaction of a session of yours.

        It writes at once and never commits. The ring buffer gets an ended execution when the
        session's transaction commits. If that, or a savepoint around the write, is rolled back,
        nothing is left, except for failures: `record_failure`, `record_execution` and `track`
        record these again, whole and with the same id, when the session's transaction has ended,
        on a connection of the session's own bind. If that fails, an error is logged.

        On PostgreSQL, the store's statements are in a savepoint, so an error in them leaves your
        transaction usable. On a session in AUTOCOMMIT mode, each call commits at once, and a
        rollback undoes nothing. Like its session, the store is for one thread at a time.

        Savepoints that raw SQL makes are not noticed. A session that is bound to a connection in a
        wider transaction counts as committed when the session commits.

        Raises:
            InvalidInput: if it is no session.
        """
        if isinstance(session, scoped_session):
            session = session()
        if not isinstance(session, Session):
            raise InvalidInput(
                "session",
                session,
                "is no Session; give the one you are at work in, or an AsyncSession to an "
                "AsyncHistoryStore",
            )
        return JoinedStore(self._rows, self._history.joined(session))

    def track(
        self,
        job: Any,
        worker_id: Id,
        correlation_id: Id | None = None,
        *,
        on_history_error: OnHistoryError = "log",
        history_retention: Duration | None = None,
    ) -> Tracker:
        """Record the start and the outcome of what runs in it: a block, a function, a coroutine.

        ::

            with store.track(job, "worker-1") as execution:
                ...
                execution.partial_success({"failed_steps": ["upload"]})

            @store.track(lambda order_id: Job(order_id, "ship_order"), "worker-1")
            def ship_order(order_id): ...

        An exception is recorded as a failure and passed on, `KeyboardInterrupt`, `SystemExit` and
        `CancelledError` included. The time is that of a monotonic clock. A function that returns an
        awaitable, such as a coroutine, ends when that has been awaited. A forked child that leaves
        the block of its parent records nothing.

        Args:
            job: as `record_start` takes it; for a function also a callable that makes the job from
                the arguments of the call.
            worker_id: the worker that executes it.
            correlation_id: an id that ties it to others; without one that of the tracked execution
                that it is part of, and if there is none, a new one.
            on_history_error: with `"log"`, an error of the database is logged, and the job runs; a
                start that is missing is recorded with the outcome. With `"raise"` it is raised,
                unless the job itself raises: then that error passes, and the other is logged.
            history_retention: as `record_start` takes it.

        Raises:
            InvalidInput: if an argument cannot be used: at once, when a function is decorated, or
                when the execution starts.
        """
        return Tracker(
            self._rows,
            self._history,
            asyncio.to_thread,
            TrackOptions(job, worker_id, correlation_id, history_retention),
            on_history_error,
        )

    def observe(self, record: HistoryRecord | Mapping[str, Any]) -> None:
        """Put an ended execution that others recorded into the ring buffer; no database is used.

        Args:
            record: a record, of which a copy is kept, or a mapping with its fields as keys:
                `job_id`, `worker_id`, `correlation_id`, `task_identifier` and `status` at least.

        Raises:
            InvalidInput: if a field is missing, unknown or unusable, or the status no outcome.
        """
        self._ring.append(self._rows.ended(plain(record), argument="record"))

    def recent(self, n: int | None = None) -> list[HistoryRecord]:
        """The last `n` executions that ended in this process, oldest first; no database is used.

        They come in the order in which the ring buffer got them. Without `n`, it is all it holds.

        Raises:
            InvalidInput: if `n` is not a count.
        """
        return [record_from(row) for row in self._ring.last(n)]

    def expire(
        self,
        *,
        batch_size: int = 2000,
        time_limit: Duration | None = None,
        dry_run: bool = False,
        progress: Callable[[int], None] | None = None,
    ) -> int:
        """Delete every row whose `expires_at` has passed, oldest first; return the number of rows.

        What counts as passed is fixed at the start, by the store's clock or the database server's,
        whichever is earlier. SQLite's is this machine's clock.

        Each batch is a short transaction of its own: nobody waits for long, and what has been
        deleted stays so if a later batch fails. On PostgreSQL, rows that somebody has locked are
        skipped, so several calls at once share the work. If history is partitioned or has
        inheritance children, they expire one after the other, in the order of their names.

        Rows can be kept by a trigger, by row-level security, or by a foreign key without
        `ON DELETE`. They stay, all others are deleted, and one warning in the log gives their
        number. Each row that a foreign key keeps costs a few more statements.

        A store in memory forgets what has expired, also in its ring buffer.

        Args:
            batch_size: the most rows that one transaction deletes.
            time_limit: stop after the first batch that ends later than this, with a warning in the
                log. At least one batch is made.
            dry_run: only count what would be deleted, including rows that would be kept.
            progress: called after each batch with the number of rows deleted so far.

        Raises:
            InvalidInput: if an argument cannot be used.
            UnsafeExpiry: if a batch would delete more rows than it selected, as happens if the
                table is replaced by a view of partitions. That batch is rolled back.
        """
        batches = Batches("expire", batch_size, time_limit, progress)
        now = self._rows.now()
        if dry_run:
            return self._history.count_expired(now)
        expiring = Expiring(self._history, self._history.plan_expiry(now), batch_size)
        deleted = batches.run(expiring.delete_batch)
        expiring.report()
        return deleted

    def reap_lost(
        self,
        older_than: Duration,
        *,
        task_identifier: str | Collection[str] | None = None,
        worker_id: Id | None = None,
        batch_size: int = 1000,
        time_limit: Duration | None = None,
        progress: Callable[[int], None] | None = None,
    ) -> int:
        """End executions that started long ago and have no outcome, oldest first; return how many.

        They become failures with the error type `jobhistory.WorkerLost` and a message that says
        since when they were started. How long they ran is not known. The ring buffer gets them.
        `older_than` counts back from the store's clock or the database server's, whichever is
        earlier.

        A worker that reports an outcome meanwhile is not waited for, and wins. An outcome that is
        reported later replaces the failure, once. Several calls at once share the work. Rows that
        a trigger keeps as they are stay `started`, and one warning in the log gives their number.

        No index tells started executions apart, so all of history that is older than `older_than`
        is read once, or what the filters leave of it.

        Args:
            older_than: more than the longest job takes: a `timedelta`, or a text such as `"2h"`.
            task_identifier: only executions of this task, or of one of these.
            worker_id: only executions of this worker.
            batch_size, time_limit, progress: as with `expire`.

        Raises:
            InvalidInput: if an argument cannot be used.
        """
        batches = Batches("reap_lost", batch_size, time_limit, progress)
        duration = parse_duration(older_than, "older_than")
        query = HistoryQuery(task_identifier=task_identifier, worker_id=worker_id, limit=batch_size)
        now = self._history.earlier(self._rows.now())
        reaping = Reaping(self._history, replace(query, to=_before(now, duration)), now)
        reaped = batches.run(reaping.reap_batch)
        reaping.report()
        return reaped

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


class JoinedStore(BaseStore):
    """A store whose verbs are part of the caller's transaction: see `HistoryStore.joined`."""

    def track(
        self,
        job: Any,
        worker_id: Id,
        correlation_id: Id | None = None,
        *,
        on_history_error: OnHistoryError = "log",
        history_retention: Duration | None = None,
    ) -> Tracker:
        """Record the start and the outcome of a block or a function, in the caller's transaction.

        A failure is recorded even if it rolls the transaction back. Coroutines need an
        `AsyncSession`. The arguments and what is raised are those of `HistoryStore.track`.
        """
        tracked = TrackOptions(job, worker_id, correlation_id, history_retention)
        return Tracker(self._rows, self._history, None, tracked, on_history_error)


def _before(now: datetime, duration: timedelta) -> datetime:
    try:
        return now - duration
    except OverflowError:  # nothing has started before the year 1
        return BEGINNING.moment
