"""The store for asyncio: the same methods, awaited."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Iterator, Mapping
from datetime import datetime
from functools import cached_property, partial, wraps
from inspect import iscoroutine
from itertools import islice
from types import TracebackType
from typing import Any, Concatenate, ParamSpec, Self, TypeVar, Unpack, cast

from sqlalchemy import URL, Engine
from sqlalchemy.ext.asyncio import (
    AsyncEngine,
    AsyncSession,
    async_scoped_session,
    async_sessionmaker,
)
from sqlalchemy.orm import Session, scoped_session, sessionmaker
from sqlalchemy.util import greenlet_spawn

from jobhistory._runtime.cancellation import run_to_completion
from jobhistory._runtime.clock import utc_now
from jobhistory._runtime.randomness import random_number
from jobhistory.alerts.alert import Sender
from jobhistory.alerts.sending import AlertCounts, Round
from jobhistory.base_store import AnyCriteria, BaseStore, Internals
from jobhistory.database.access import not_a_session
from jobhistory.database.binds import READING, engine_of
from jobhistory.database.engines import async_engine_from_url, check_dialect, check_prepare
from jobhistory.errors import InvalidInput
from jobhistory.execution.retention import RetentionRule
from jobhistory.following.feeds import AsyncChangeFeed, AsyncFollow, Following
from jobhistory.sanitize.json_values import Limits
from jobhistory.sanitize.secrets import redact_secrets
from jobhistory.schema import HistoryRecord
from jobhistory.store import HistoryStore
from jobhistory.tracking_methods import AsyncTrackingMethods
from jobhistory.typing import Clock, Duration, IterateCriteria, Random, Redact

P = ParamSpec("P")
S = TypeVar("S")
T = TypeVar("T")


def create_async_store(
    bind: Callable[[], AsyncSession] | AsyncEngine | str | URL | None = None,
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
) -> AsyncHistoryStore:
    """Return a new store for asyncio on a database, or without `bind` one in memory only.

    Behind a pooler in transaction mode, such as PgBouncer, asyncpg needs an engine with
    `connect_args={"statement_cache_size": 0, "prepared_statement_cache_size": 0,
    "prepared_statement_name_func": lambda: str(uuid4())}`, or a URL and `prepare=False`. For
    psycopg, see `create_store`.

    Args:
        bind: the app's `AsyncEngine`, or its `async_sessionmaker` or any other callable that
            returns a new `AsyncSession` at each call, which the store never configures or disposes;
            or a URL, from which the store makes an engine that `close()` disposes, with aiosqlite
            or psycopg if the URL names no driver; or `None`.

    The rest is as for `create_store`.
    """
    session_factory: Callable[[], AsyncSession] | None
    owned_engine = None
    if isinstance(bind, AsyncEngine):
        session_factory = async_sessionmaker(bind)
    elif isinstance(bind, (str, URL)):
        owned_engine = async_engine_from_url(bind, prepare=prepare)
        session_factory = async_sessionmaker(owned_engine)
    else:
        _check_factory("bind", bind, "create_store")
        session_factory = bind
    if owned_engine is None:
        check_prepare(prepare)
    engine = engine_of(session_factory)
    if engine is not None:
        check_dialect(engine, "bind")
    return AsyncHistoryStore(
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
    if isinstance(factory, (Engine, sessionmaker, scoped_session)):
        raise InvalidInput(argument, factory, f"is not for asyncio; pass it to {instead}")
    if isinstance(factory, async_scoped_session):
        raise InvalidInput(
            argument,
            factory,
            "would return the session that the app is using; pass its session_factory",
        )
    if factory is not None and not callable(factory):
        raise InvalidInput(
            argument,
            factory,
            "is not an AsyncEngine, a URL, or a callable that returns a new AsyncSession, such as "
            "async_sessionmaker(engine)",
        )


class _SynchronousSessions:
    """Returns the synchronous sessions inside the app's sessions for asyncio."""

    def __init__(self, make_session: Callable[[], AsyncSession]) -> None:
        self._make_session = make_session

    def __call__(self) -> Session:
        session = self._make_session()
        if not isinstance(session, AsyncSession):
            if iscoroutine(session):
                session.close()  # nobody awaits it
            raise InvalidInput(
                "session_factory", self._make_session, not_a_session(session, AsyncSession)
            )
        return session.sync_session

    def __repr__(self) -> str:
        return repr(self._make_session)

    def __getattr__(self, name: str) -> Any:
        # Its configuration, which names its engines before they are used.
        return getattr(self._make_session, name)


def _awaited(
    method: Callable[Concatenate[S, P], T],
) -> Callable[Concatenate[AsyncBaseStore, P], Coroutine[Any, Any, T]]:
    """Return a method that awaits the same method of the synchronous store inside.

    It has the same arguments, type of result and documentation.
    """

    @wraps(method)
    async def awaited(self: AsyncBaseStore, /, *args: P.args, **named: P.kwargs) -> T:
        return await self._run(partial(method, cast("S", self._store), *args, **named))

    return awaited


class AsyncBaseStore(AsyncTrackingMethods):
    """`BaseStore` for asyncio: records, reads and tracks in the caller's transaction.

    `AsyncHistoryStore.in_session` returns one. The methods are those of `BaseStore`, awaited. Like
    its session, it is for one task at a time.
    """

    _may_send_heartbeats = False

    def __init__(self, store: BaseStore, make_session: Callable[[], Session] | None) -> None:
        super().__init__(store.internals.rows, store.internals.history)
        self._store = store
        self._make_session = make_session

    @property
    def internals(self) -> Internals[Any]:
        """The parts of the synchronous store inside, for other modules of this package."""
        return self._store.internals

    record_start = _awaited(BaseStore.record_start)
    record_completion = _awaited(BaseStore.record_completion)
    record_failure = _awaited(BaseStore.record_failure)
    record_partial_success = _awaited(BaseStore.record_partial_success)
    record_cancellation = _awaited(BaseStore.record_cancellation)
    record_execution = _awaited(BaseStore.record_execution)
    record_many = _awaited(BaseStore.record_many)
    get = _awaited(BaseStore.get)
    get_by_job_id = _awaited(BaseStore.get_by_job_id)
    get_by_correlation_id = _awaited(BaseStore.get_by_correlation_id)
    query = _awaited(BaseStore.query)
    page = _awaited(BaseStore.page)
    count = _awaited(BaseStore.count)
    stats = _awaited(BaseStore.stats)
    failure_groups = _awaited(BaseStore.failure_groups)
    running = _awaited(BaseStore.running)
    workers = _awaited(BaseStore.workers)

    def iterate(
        self,
        /,
        criteria: AnyCriteria = None,
        *,
        batch_size: int = 500,
        **named: Unpack[IterateCriteria],
    ) -> AsyncIterator[HistoryRecord]:
        """Return an iterator over all executions that meet all criteria, in bounded memory.

        It is for `async for`, and the call itself is not awaited. It reads in batches. Each batch
        has its own short transaction, unless the store is in yours; no connection is held between
        batches. As with pages, executions that are recorded or deleted in the meantime may or may
        not appear.

        Args:
            criteria, named: as for `query`, except `limit`: stop iterating when you have enough.
            batch_size: the number of records to read, and to hold in memory, at a time.

        Raises:
            InvalidInput: if a criterion or the batch size is invalid. The call itself raises it.
        """
        records = self._store.iterate(criteria, batch_size=batch_size, **named)
        return self._in_batches(records, batch_size)

    async def _in_batches(
        self, records: Iterator[HistoryRecord], batch_size: int
    ) -> AsyncIterator[HistoryRecord]:
        while batch := await self._run(lambda: list(islice(records, batch_size))):
            for record in batch:
                yield record

    async def _run(self, operation: Callable[[], T]) -> T:
        """Run an operation of the synchronous store; if cancelled, let it clean up first."""
        cancellable = self._can_be_interrupted
        # `run_sync` of an AsyncSession calls greenlet_spawn, too, but needs a session.
        return await run_to_completion(greenlet_spawn(operation), cancellable=cancellable)

    @cached_property
    def _can_be_interrupted(self) -> bool:
        # aiosqlite works in a thread that would go on: an abandoned statement keeps its lock.
        if self._make_session is None:
            return True
        session = self._make_session()
        return session.get_bind(**READING).dialect.name != "sqlite"


class AsyncHistoryStore(AsyncBaseStore):
    """`HistoryStore` for asyncio: the same methods with the same effects, awaited.

    It is for the tasks of one event loop. `observe` and `recent` do not use the database, and are
    not awaited.

    If the task of a call is cancelled, no connection stays checked out and no transaction open.
    What the call writes is either complete, in history and in the ring buffer, or missing, with one
    exception: if the commit has begun, it may be in history only. SQLite's statements cannot be
    interrupted, so there the call finishes first, and then raises `CancelledError`.

    Args:
        session_factory: returns a new `AsyncSession` for each transaction; `None` for a history
            that lives in memory only.

    The other arguments and the errors are those of `HistoryStore`.
    """

    _may_send_heartbeats = True

    def __init__(
        self,
        session_factory: Callable[[], AsyncSession] | None,
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
        owned_engine: AsyncEngine | None = None,
        hourly_statistics: Duration = "35 days",
        daily_statistics: Duration = "400 days",
        notify: bool = False,
    ) -> None:
        _check_factory("session_factory", session_factory, "HistoryStore")
        make_session = None if session_factory is None else _SynchronousSessions(session_factory)
        store = HistoryStore(
            make_session,
            buffer_size=buffer_size,
            history_retention=history_retention,
            retention_rules=retention_rules,
            labels=labels,
            limits=limits,
            redact=redact,
            schema=schema,
            clock=clock,
            random=random,
            hourly_statistics=hourly_statistics,
            daily_statistics=daily_statistics,
            notify=notify,
        )
        super().__init__(store, make_session)
        self._store: HistoryStore = store
        self._owned_engine = owned_engine

    def in_session(self, session: AsyncSession | async_scoped_session[Any]) -> AsyncBaseStore:
        """Return a store that records, reads and tracks in the transaction of your `AsyncSession`.

        The call itself is not awaited. The rest is as for `HistoryStore.in_session`.
        """
        if isinstance(session, async_scoped_session):
            session = session()
        if not isinstance(session, AsyncSession):
            raise InvalidInput(
                "session",
                session,
                "is not an AsyncSession; pass the one that you are using, or pass a Session to a "
                "HistoryStore",
            )
        return AsyncBaseStore(self._store.in_session(session.sync_session), self._make_session)

    def follow(
        self,
        /,
        criteria: AnyCriteria = None,
        *,
        since: datetime | None = None,
        last: int = 0,
        interval: Duration = "2s",
        **named: Unpack[IterateCriteria],
    ) -> AsyncFollow:
        """Return an asynchronous iterator over executions as they start and as they end.

        It is for `async for`, and the call itself is not awaited. Use it in an `async with` block,
        which ends it: it begins at the start of the block or, without one, with the first
        iteration, which then raises the errors of a history that cannot be read. The rest is as for
        `HistoryStore.follow`.
        """
        internals = self._store.internals
        following = Following(
            internals.history,
            internals.rows.now,
            criteria,
            named,
            since=since,
            last=last,
            interval=interval,
        )
        return AsyncFollow(AsyncChangeFeed(following))

    def observe(self, record: HistoryRecord | Mapping[str, Any]) -> None:
        """Add an ended execution, recorded elsewhere, to the ring buffer, without the database.

        It is not awaited. The arguments and errors are those of `HistoryStore.observe`.
        """
        self._store.observe(record)

    def recent(self, n: int | None = None) -> list[HistoryRecord]:
        """Return the last `n` executions that ended in this process, without the database.

        It is not awaited. The oldest comes first, in the order in which they were added. Without
        `n`, return everything in the ring buffer.

        Raises:
            InvalidInput: if `n` is not a whole number from 0 up.
        """
        return self._store.recent(n)

    expect = _awaited(HistoryStore.expect)
    expectations = _awaited(HistoryStore.expectations)
    remove_expectation = _awaited(HistoryStore.remove_expectation)
    check = _awaited(HistoryStore.check)
    incidents = _awaited(HistoryStore.incidents)
    suggest_expectations = _awaited(HistoryStore.suggest_expectations)

    async def send_alerts(
        self,
        *senders: Sender,
        page_url: str | None = None,
        limit: int = 20,
        time_limit: Duration = "10s",
    ) -> AlertCounts:
        """Send what is new about incidents to all receivers, and return what was sent.

        The senders are plain functions, called in threads; the event loop goes on meanwhile. If the
        task of the call is cancelled while it sends, it finishes that first. The rest is as for
        `HistoryStore.send_alerts`.
        """
        internals = self._store.internals
        round_ = Round(internals.history, internals.rows.now, senders, page_url, limit, time_limit)

        async def send() -> AlertCounts:
            await asyncio.to_thread(round_.send)
            return await self._run(round_.settle)

        await self._run(round_.claim)
        # What was sent must be noted, or it would be sent again.
        return await run_to_completion(send(), cancellable=False)

    metrics = _awaited(HistoryStore.metrics)
    expire = _awaited(HistoryStore.expire)
    waiting_for_partition = _awaited(HistoryStore.waiting_for_partition)
    fold = _awaited(HistoryStore.fold)
    retention = _awaited(HistoryStore.retention)
    recount = _awaited(HistoryStore.recount)
    purge = _awaited(HistoryStore.purge)
    reap_lost = _awaited(HistoryStore.reap_lost)

    async def close(self) -> None:
        """Dispose the engine that `create_async_store` made from a URL; never dispose the app's.

        Notifications that wait are sent, within a second.
        """
        await self._run(self._store.close)
        if self._owned_engine is not None:
            await self._owned_engine.dispose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()
