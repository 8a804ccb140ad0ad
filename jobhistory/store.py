"""The store that an app creates: recording, reading, the ring buffer, and maintenance."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Iterable, Mapping
from types import TracebackType
from typing import Any, Self

from sqlalchemy import URL, Engine
from sqlalchemy.orm import Session, scoped_session

from jobhistory._runtime.clock import utc_now
from jobhistory._runtime.durations import parse_retention
from jobhistory._runtime.randomness import random_number
from jobhistory._runtime.ring import RingBuffer
from jobhistory.alert_methods import AlertMethods
from jobhistory.base_store import BaseStore, Internals
from jobhistory.database.access import EngineSessions
from jobhistory.database.binds import engine_of
from jobhistory.database.engines import check_dialect, check_prepare, engine_from_url
from jobhistory.database.sessions import OwnTransactions
from jobhistory.database.statements.outcomes import OutcomeStatements
from jobhistory.errors import InvalidInput, check_count
from jobhistory.execution.labels import read_labels
from jobhistory.execution.retention import Retention, RetentionRule, read_rules
from jobhistory.execution.rows import RowBuilder
from jobhistory.expectation_methods import ExpectationMethods
from jobhistory.following_methods import FollowingMethods
from jobhistory.maintenance_methods import MaintenanceMethods
from jobhistory.memory.history import MemoryHistory
from jobhistory.sanitize.json_values import Limits, Sanitizer
from jobhistory.sanitize.secrets import redact_secrets
from jobhistory.schema import HistoryRecord, plain, record_from
from jobhistory.statistics.keeping import Keeping
from jobhistory.statistics.prometheus import OperationCounter, exposition
from jobhistory.typing import Clock, Duration, Random, Redact


def create_store(
    bind: Callable[[], Session] | Engine | str | URL | None = None,
    *,
    buffer_size: int = 1000,
    history_retention: Duration | None = "30 days",
    retention_rules: Iterable[RetentionRule] | None = None,
    labels: Mapping[str, str] | None = None,
    limits: Limits = Limits(),
    redact: Redact | None = redact_secrets,
    schema: str | None = None,
    clock: Clock = utc_now,
    random: Random = random_number,
    prepare: bool = True,
    hourly_statistics: Duration = "35 days",
    daily_statistics: Duration = "400 days",
    notify: bool = False,
) -> HistoryStore:
    """Return a new store on a database, or without `bind` a store that lives in memory only.

    The call does not connect, and creates no table: `jobhistory.migrate` does.

    A store on the app's engine needs a second connection while the app holds one. With
    `pool_size=1, max_overflow=0` and a session in a transaction, a call waits for `pool_timeout`
    and then raises. A store made from a URL has its own connections. `HistoryStore.in_session` uses
    the connection of the session.

    Behind a pooler in transaction mode, such as PgBouncer, an app's engine with psycopg needs
    `connect_args={"prepare_threshold": None}`. An engine made from a URL needs no setting if the
    pooler reports a process id of its own, as PgBouncer does; otherwise pass `prepare=False`.

    On PostgreSQL with psycopg, a store made from a URL is the fastest: psycopg prepares the
    statements of recording calls and executes them itself. SQLAlchemy's events do not occur for
    these statements, and its log shows them only if it is on when the call is made. An app's engine
    executes everything through SQLAlchemy's Core, and an app's `sessionmaker` through its sessions.
    Pass the `sessionmaker` if events of your sessions matter, such as one that sets a tenant.

    If a session chooses its engine in `get_bind(mapper, clause)`, each transaction calls that once,
    with a SELECT if it only reads and with an UPDATE if it writes, and stays on that engine.

    Args:
        bind: the app's `Engine`, or its `sessionmaker` or any other callable that returns a new
            `Session` at each call, which the store never configures or disposes; or a URL, from
            which the store makes an engine that `close()` disposes, with psycopg 3 if the URL names
            PostgreSQL and no driver; or `None`.
        prepare: whether psycopg prepares statements on connections that the store makes from a URL.

    The other arguments are those of `HistoryStore`.

    Raises:
        InvalidInput: if an argument cannot be used.
        ModuleNotFoundError: if the URL needs a driver that is not installed.
    """
    session_factory: Callable[[], Session] | None
    owned_engine = None
    if isinstance(bind, Engine):
        session_factory = EngineSessions(bind)
    elif isinstance(bind, (str, URL)):
        owned_engine = engine_from_url(bind, prepare=prepare)
        session_factory = EngineSessions(owned_engine, is_ours=True)
    else:
        _check_factory("bind", bind, "create_async_store")
        session_factory = bind
    if owned_engine is None:
        check_prepare(prepare)
    engine = engine_of(session_factory)
    if engine is not None:
        check_dialect(engine, "bind")
        if engine.dialect.is_async:
            raise InvalidInput("bind", bind, "is for asyncio; pass it to create_async_store")
    return HistoryStore(
        session_factory,
        buffer_size=buffer_size,
        history_retention=history_retention,
        retention_rules=retention_rules,
        labels=labels,
        limits=limits,
        redact=redact,
        schema=schema,
        clock=clock,
        random=random,
        owned_engine=owned_engine,
        hourly_statistics=hourly_statistics,
        daily_statistics=daily_statistics,
        notify=notify,
    )


def _check_factory(argument: str, factory: object, instead: str) -> None:
    """Check that a factory may return sessions that nobody else uses, or is `None`."""
    # A caller who has such a value has imported the module. Importing it here may need greenlet.
    asyncio_: Any = sys.modules.get("sqlalchemy.ext.asyncio")
    if asyncio_ is not None and isinstance(
        factory,
        (asyncio_.AsyncEngine, asyncio_.async_sessionmaker, asyncio_.async_scoped_session),
    ):
        raise InvalidInput(argument, factory, f"is for asyncio; pass it to {instead}")
    if isinstance(factory, scoped_session):
        raise InvalidInput(
            argument,
            factory,
            "would return the session that the app is using; pass its session_factory",
        )
    if factory is not None and not callable(factory):
        raise InvalidInput(
            argument,
            factory,
            "is not an Engine, a URL, or a callable that returns a new Session, such as "
            "sessionmaker(engine)",
        )


class HistoryStore(
    BaseStore, ExpectationMethods, AlertMethods, FollowingMethods, MaintenanceMethods
):
    """Records executions in a database, reads them, and keeps the latest ones in memory.

    An app creates one store. Any number of threads may call its methods at the same time. Each
    recording method is one short transaction. Returned records are detached and fully loaded, so
    they need no session and can be passed between threads.

    Database errors are SQLAlchemy's own, except for `SchemaOutOfDate` and `HistoryUnavailable`.
    After an error, nothing of the call is in history or in the ring buffer, unless the connection
    broke during the commit. Outcomes can be repeated safely in that case: if the outcome is already
    recorded, the call returns the existing record. `record_start` needs an `execution_id` for that.

    **A hanging database does not hang jobs.** An engine that `create_store` makes from a URL has
    2 seconds to connect, and a recording call has 2 seconds more; `record_many` and the batches of
    a `Recorder` have 30. When the time is over, the connection is closed, and SQLAlchemy's
    `OperationalError` says that the time limit has passed. The database may still commit what it
    received before. Reading, `expire`, `reap_lost` and migrations have no limit once they are
    connected. Waiting for one of the pool's 15 connections ends after 10 seconds.

    After such a time-out, recording calls raise `HistoryUnavailable` at once for 30 seconds; then
    one of them tries again. This also applies to the app's own engine if a call could not connect,
    or lost its connection, after 2 seconds or more. On the app's own engine, only the driver's
    settings limit the time, so set them: `connect_args={"connect_timeout": 2}` with psycopg or
    psycopg2, `{"timeout": 2, "command_timeout": 2}` with asyncpg, and a small `pool_timeout`. With
    psycopg, `tcp_user_timeout` helps if the network fails, but not if the server is stopped.

    **SQLite.** The recording threads of a process take turns. If another process keeps the database
    busy for longer than the driver's own `timeout`, the transaction is retried: for 5 seconds, or
    for 30 seconds in `expire` and `reap_lost`.

    **Forks.** A forked child can use the store of its parent. It starts with an empty ring buffer
    and its own connections: it drops the pooled connections of its parent without closing them.
    With SQLite, fork only while no thread uses the store, because SQLite does not support it.

    Args:
        session_factory: returns a new session for each transaction; `None` for a history that lives
            in memory only.
        buffer_size: the number of ended executions that the ring buffer keeps.
        history_retention: how long rows are kept: a `timedelta`, a text such as `"30 days"` or
            `"12h"`, or `None` or `"never"` if rows do not expire.
        retention_rules: how long rows are kept by status, task and label. The first rule that
            covers an execution decides; if none does, `history_retention` does. A retention that a
            recording call passes comes before both. Pass the same rules, and the same
            `history_retention`, to each store on a database. `expire` applies changed rules. `None`
            leaves the rules to other stores: `expire` and `reap_lost` then use those applied last.
            An empty list stands for no rules.
        labels: labels of every execution that the store records, such as `{"release": "1.4"}`, with
            names and values as in `Job`. The labels of the job take precedence.
        limits: the maximum size of payload, results, message and stack, in bytes.
        redact: called with a name and the value under it; returns the value to store. It is called
            for keys, attributes, pairs such as headers, and JSON inside text. If it raises, the
            value is redacted. The default rules apply to messages, stacks and other text. `None`
            turns all redaction off.
        schema: the database schema that contains the table; `None` for the connection's default, or
            for the one in the factory's own `schema_translate_map`.
        clock: returns the current time as an aware `datetime`.
        random: returns a random number from 0 up to, and without, 1. `track(record=0.01)` calls it
            once for each execution.
        owned_engine: an engine for `close()` to dispose. `create_store` passes the one that it
            makes from a URL.
        hourly_statistics, daily_statistics: how long `fold` and `expire` keep statistics by hour
            and by day, each a `timedelta` or a text such as `"35 days"`. Those by month are kept
            forever. Of several stores on a database, the shortest time decides.
        notify: whether to tell followers at once what has started and ended, see `follow`. Pass it
            to the stores that record. On PostgreSQL, one connection more per store and process then
            sends at most four notifications a second, after the commit; errors are logged. SQLite
            has no notifications, and a history in memory needs none: there it changes nothing.

    Raises:
        InvalidInput: if an argument cannot be used.
    """

    internals: Internals[MemoryHistory | OwnTransactions]

    _may_send_heartbeats = True

    def __init__(
        self,
        session_factory: Callable[[], Session] | None,
        *,
        buffer_size: int = 1000,
        history_retention: Duration | None = "30 days",
        retention_rules: Iterable[RetentionRule] | None = None,
        labels: Mapping[str, str] | None = None,
        limits: Limits = Limits(),
        redact: Redact | None = redact_secrets,
        schema: str | None = None,
        clock: Clock = utc_now,
        random: Random = random_number,
        owned_engine: Engine | None = None,
        hourly_statistics: Duration = "35 days",
        daily_statistics: Duration = "400 days",
        notify: bool = False,
    ) -> None:
        keeping = Keeping.of(hourly_statistics, daily_statistics)
        check_count(buffer_size, "buffer_size", example=1000)
        _check_factory("session_factory", session_factory, "AsyncHistoryStore")
        sanitizer = Sanitizer(limits, redact)
        default = parse_retention(history_retention, now=clock())
        retention = Retention(default, read_rules(retention_rules, default))
        rows = RowBuilder(
            clock=clock,
            retention=retention,
            sanitizer=sanitizer,
            labels=sanitizer.labels(read_labels({} if labels is None else labels, "labels")),
            random=random,
        )
        self._ring: RingBuffer[dict[str, Any]] = RingBuffer(buffer_size)
        self._history: MemoryHistory | OwnTransactions = (
            MemoryHistory.on(self._ring, retention, rows.now, keeping)
            if session_factory is None
            else OwnTransactions(
                session_factory,
                self._ring,
                schema,
                OutcomeStatements(retention),
                None if retention_rules is None else retention,
                keeping,
                notify=notify,
            )
        )
        internals = Internals(rows, self._history, session_factory)
        BaseStore.__init__(self, internals, asyncio.to_thread)
        ExpectationMethods.__init__(self, rows, self._history)
        AlertMethods.__init__(self, rows, self._history)
        FollowingMethods.__init__(self, rows, self._history)
        MaintenanceMethods.__init__(self, rows, self._history)
        self._owned_engine = owned_engine

    def in_session(self, session: Session | scoped_session[Any]) -> BaseStore:
        """Return a store that records, reads and tracks in the transaction of your session.

        It writes at once and never commits. When the session's transaction commits, the ring buffer
        gets the executions that ended in it. If the transaction, or a savepoint around the write,
        is rolled back, nothing remains, except for failures and cancellations, unless `record_many`
        wrote them: they are recorded again after the end of the session's transaction, as whole
        rows with the same id, on a connection of the session's bind. If that fails, an error is
        logged.

        On PostgreSQL, the store's statements run in a savepoint, so an error in them leaves your
        transaction usable. If the session is in AUTOCOMMIT mode, each call commits at once, and a
        rollback undoes nothing. Like its session, the store is for one thread at a time.

        The store does not notice savepoints that raw SQL makes. A session that is bound to a
        connection in a wider transaction counts as committed when the session commits.

        Raises:
            InvalidInput: if the argument is not a session.
        """
        if isinstance(session, scoped_session):
            session = session()
        if not isinstance(session, Session):
            raise InvalidInput(
                "session",
                session,
                "is not a Session; pass the one that you are using, or pass an AsyncSession to an "
                "AsyncHistoryStore",
            )
        return BaseStore(Internals(self._rows, self._history.in_session(session)))

    def metrics(self, *, recorder: OperationCounter | None = None, max_tasks: int = 200) -> str:
        """Return metrics of all history as text, in the format that Prometheus reads.

        They come from the statistics and from what runs now, so every process returns the same, and
        no restart resets them. Counters and histograms never decrease, also if rows expire, are
        purged, or get a real outcome in place of a presumed one. Without a database, they are of
        this process.

        If something is expected, they also have the deadline of each expectation and what is wrong,
        as `check(dry_run=True)` finds it.

        Args:
            recorder: the `Recorder` or `AsyncRecorder` whose operations to count as well, if any.
            max_tasks: the number of tasks with series of their own. Those that first ran in an
                earlier month come first, then those with a smaller name. The others together are
                the task `_other`. It is also the number of expectations with series of their own.

        Raises:
            InvalidInput: if `max_tasks` is not a whole number from 0 up.
            StatisticsDenied: if the role may not read the statistics, or row-level security applies
                to it. What it can read is not all that ran, so metrics would go up and down.
        """
        check_count(max_tasks, "max_tasks", least=0, example=200)
        counts = None if recorder is None else recorder.counts
        others = self._expectation_metrics(max_tasks)
        return exposition(self._history.measures(), counts, max_tasks, others)

    def observe(self, record: HistoryRecord | Mapping[str, Any]) -> None:
        """Add an ended execution, recorded elsewhere, to the ring buffer, without the database.

        Args:
            record: a record, of which the ring buffer keeps a copy, or a mapping with its fields as
                keys: at least `job_id`, `task_identifier` and `status`, or an `error` in place of
                the status. Other fields get the values that `record_execution` would give them. A
                missing `worker_id` or `correlation_id` becomes an empty text.

        Raises:
            InvalidInput: if a field is missing, unknown or invalid, or the status is not an
                outcome.
        """
        self._history.observe(self._rows.observed(plain(record)))

    def recent(self, n: int | None = None) -> list[HistoryRecord]:
        """Return the last `n` executions that ended in this process, without the database.

        The oldest comes first, in the order in which they were added. Without `n`, return
        everything in the ring buffer.

        Raises:
            InvalidInput: if `n` is not a whole number from 0 up.
        """
        return [record_from(row) for row in self._ring.last(n)]

    def close(self) -> None:
        """Dispose the engine that `create_store` made from a URL; never dispose the app's.

        Notifications that wait are sent, within a second.
        """
        self._history.close()
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
