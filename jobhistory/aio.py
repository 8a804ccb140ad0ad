"""The store for asyncio: the same operations, awaited."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Collection, Iterable, Iterator, Mapping
from functools import cached_property
from types import TracebackType
from typing import Any, Self, TypeVar
from uuid import UUID

from sqlalchemy import URL, Engine
from sqlalchemy.ext.asyncio import (
    AsyncEngine,
    AsyncSession,
    async_scoped_session,
    async_sessionmaker,
)
from sqlalchemy.orm import Session, sessionmaker

from jobhistory._runtime.cancellation import run_to_completion
from jobhistory._runtime.clock import utc_now
from jobhistory.base_store import BaseStore, Criteria
from jobhistory.database.binds import READING, engine_of
from jobhistory.database.engines import async_engine_from_url, check_dialect
from jobhistory.errors import InvalidInput
from jobhistory.execution.job import PartialResults
from jobhistory.query.cursor import Page
from jobhistory.query.reports import Count, FailureGroup, TaskStats
from jobhistory.sanitize.json_values import Limits
from jobhistory.sanitize.secrets import redact_secrets
from jobhistory.schema import HistoryRecord
from jobhistory.store import HistoryStore
from jobhistory.tracking import AsyncTracker, TrackOptions
from jobhistory.typing import Clock, Duration, Id, Milliseconds, OnHistoryError, Redact

T = TypeVar("T")


def create_async_store(
    bind: async_sessionmaker[AsyncSession] | AsyncEngine | str | URL | None = None,
    *,
    buffer_size: int = 1000,
    history_retention: Duration | None = "30 days",
    limits: Limits = Limits(),  # noqa: B008 - it is frozen
    redact: Redact | None = redact_secrets,
    schema: str | None = None,
    clock: Clock = utc_now,
) -> AsyncHistoryStore:
    """Make a store for asyncio on a database, or without `bind` one that lives in memory only.

    Args:
        bind: an `async_sessionmaker` or an `AsyncEngine` of the app, which is used and never
            touched; or a URL, for which the store makes an engine that `close()` disposes: with
            aiosqlite on SQLite and psycopg on PostgreSQL, if it names no driver; or `None`.

    Behind a pooler in transaction mode, such as PgBouncer, asyncpg needs an engine with
    `connect_args={"statement_cache_size": 0, "prepared_statement_cache_size": 0,
    "prepared_statement_name_func": lambda: str(uuid4())}`; psycopg is as with `create_store`.

    The other arguments, what is raised and what is left to migrations are as with `create_store`.
    """
    session_factory: async_sessionmaker[AsyncSession] | None
    owned_engine = None
    if bind is None or isinstance(bind, async_sessionmaker):
        session_factory = bind
    elif isinstance(bind, AsyncEngine):
        session_factory = async_sessionmaker(bind)
    elif isinstance(bind, (str, URL)):
        owned_engine = async_engine_from_url(bind)
        session_factory = async_sessionmaker(owned_engine)
    else:
        _refuse_synchronous("bind", bind, "create_store")
        raise InvalidInput(
            "bind",
            bind,
            "is no async_sessionmaker, AsyncEngine or URL; give async_sessionmaker(engine), or "
            "another callable that makes sessions to AsyncHistoryStore",
        )
    engine = engine_of(session_factory)
    if engine is not None:
        check_dialect(engine, "bind")
    store = AsyncHistoryStore(
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


def _refuse_synchronous(argument: str, value: object, instead: str) -> None:
    if isinstance(value, (Engine, sessionmaker)):
        raise InvalidInput(argument, value, f"is not for asyncio; give it to {instead}")


class _SynchronousSessions:
    """Makes the sessions that are inside of an app's sessions for asyncio."""

    def __init__(self, make_session: Callable[[], AsyncSession]) -> None:
        self._make_session = make_session

    def __call__(self) -> Session:
        return self._make_session().sync_session

    def __getattr__(self, name: str) -> Any:
        # What the app's own factory is configured with: its engines are known before they are used.
        return getattr(self._make_session, name)


class _AsyncBaseStore:
    """`BaseStore`, awaited."""

    def __init__(self, verbs: BaseStore, make_session: Callable[[], AsyncSession] | None) -> None:
        self._store_methods = verbs
        self._make_session = make_session
        # Only its run_sync is used: what runs in there makes the sessions that it needs.
        self._greenlets = AsyncSession()

    async def record_start(
        self,
        job: Any,
        worker_id: Id,
        correlation_id: Id,
        *,
        history_retention: Duration | None = None,
        execution_id: UUID | None = None,
    ) -> HistoryRecord:
        """`HistoryStore.record_start`, awaited."""
        return await self._run(
            self._store_methods.record_start,
            job,
            worker_id,
            correlation_id,
            history_retention=history_retention,
            execution_id=execution_id,
        )

    async def record_completion(
        self,
        job_id: Id | HistoryRecord | None = None,
        worker_id: Id | None = None,
        correlation_id: Id | None = None,
        execution_time_ms: Milliseconds | None = None,
        *,
        execution_id: UUID | None = None,
    ) -> HistoryRecord:
        """`HistoryStore.record_completion`, awaited."""
        return await self._run(
            self._store_methods.record_completion,
            job_id,
            worker_id,
            correlation_id,
            execution_time_ms,
            execution_id=execution_id,
        )

    async def record_failure(
        self,
        job_id: Id | HistoryRecord | None = None,
        worker_id: Id | None = None,
        correlation_id: Id | None = None,
        execution_time_ms: Milliseconds | None = None,
        error: BaseException | str | None = None,
        *,
        execution_id: UUID | None = None,
    ) -> HistoryRecord:
        """`HistoryStore.record_failure`, awaited."""
        return await self._run(
            self._store_methods.record_failure,
            job_id,
            worker_id,
            correlation_id,
            execution_time_ms,
            error,
            execution_id=execution_id,
        )

    async def record_partial_success(
        self,
        job_id: Id | HistoryRecord | None = None,
        worker_id: Id | None = None,
        correlation_id: Id | None = None,
        execution_time_ms: Milliseconds | None = None,
        partial_results: PartialResults | Mapping[str, Any] | None = None,
        *,
        execution_id: UUID | None = None,
    ) -> HistoryRecord:
        """`HistoryStore.record_partial_success`, awaited."""
        return await self._run(
            self._store_methods.record_partial_success,
            job_id,
            worker_id,
            correlation_id,
            execution_time_ms,
            partial_results,
            execution_id=execution_id,
        )

    async def record_execution(
        self,
        execution: HistoryRecord | Mapping[str, Any] | None = None,
        *,
        execution_id: UUID | None = None,
        **fields: Any,
    ) -> HistoryRecord:
        """`HistoryStore.record_execution`, awaited."""
        return await self._run(
            self._store_methods.record_execution, execution, execution_id=execution_id, **fields
        )

    async def record_many(self, executions: Iterable[HistoryRecord | Mapping[str, Any]]) -> int:
        """`HistoryStore.record_many`, awaited."""
        return await self._run(self._store_methods.record_many, executions)

    async def get_by_job_id(self, job_id: Id) -> list[HistoryRecord]:
        """`HistoryStore.get_by_job_id`, awaited."""
        return await self._run(self._store_methods.get_by_job_id, job_id)

    async def get_by_correlation_id(self, correlation_id: Id) -> list[HistoryRecord]:
        """`HistoryStore.get_by_correlation_id`, awaited."""
        return await self._run(self._store_methods.get_by_correlation_id, correlation_id)

    async def query(self, criteria: Criteria = None, **named: Any) -> list[HistoryRecord]:
        """`HistoryStore.query`, awaited."""
        return await self._run(self._store_methods.query, criteria, **named)

    async def page(
        self, criteria: Criteria = None, *, after: str | None = None, **named: Any
    ) -> Page:
        """`HistoryStore.page`, awaited."""
        return await self._run(self._store_methods.page, criteria, after=after, **named)

    def iterate(
        self, criteria: Criteria = None, *, batch_size: int = 500, **named: Any
    ) -> AsyncIterator[HistoryRecord]:
        """`HistoryStore.iterate` for `async for`."""
        return self._each(self._store_methods._batches(criteria, batch_size, named))

    async def count(
        self, criteria: Criteria = None, *, cap: int | None = None, **named: Any
    ) -> Count:
        """`HistoryStore.count`, awaited."""
        return await self._run(self._store_methods.count, criteria, cap=cap, **named)

    async def stats(
        self, criteria: Criteria = None, *, bucket: Duration | None = None, **named: Any
    ) -> list[TaskStats]:
        """`HistoryStore.stats`, awaited."""
        return await self._run(self._store_methods.stats, criteria, bucket=bucket, **named)

    async def failures(self, criteria: Criteria = None, **named: Any) -> list[FailureGroup]:
        """`HistoryStore.failures`, awaited."""
        return await self._run(self._store_methods.failures, criteria, **named)

    async def running(self, criteria: Criteria = None, **named: Any) -> list[HistoryRecord]:
        """`HistoryStore.running`, awaited."""
        return await self._run(self._store_methods.running, criteria, **named)

    async def _each(self, batches: Iterator[list[HistoryRecord]]) -> AsyncIterator[HistoryRecord]:
        while batch := await self._run(lambda: next(batches, [])):
            for record in batch:
                yield record

    async def _run(self, operation: Callable[..., T], *args: Any, **named: Any) -> T:
        """Run an operation of the synchronous store; a cancellation lets it clean up first."""
        work = self._in_greenlet(operation, *args, **named)
        return await run_to_completion(work, cancellable=self._can_be_interrupted)

    @cached_property
    def _can_be_interrupted(self) -> bool:
        # SQLite is at work in a thread, which would go on: abandoned, its statement keeps its lock.
        if self._make_session is None:
            return True
        session = self._make_session().sync_session
        return session.get_bind(**READING).dialect.name != "sqlite"

    async def _in_greenlet(self, operation: Callable[..., T], *args: Any, **named: Any) -> T:
        return await self._greenlets.run_sync(lambda _: operation(*args, **named))


class AsyncHistoryStore(_AsyncBaseStore):
    """`HistoryStore` for asyncio: the same methods with the same effects, awaited.

    It is for the tasks of one event loop. `observe` and `recent`, which use no database, are
    awaited like the others. A call whose task is cancelled leaves no connection checked out and no
    transaction open, and what it wrote is there as a whole, in history and in the ring buffer, or
    not at all; but for a commit that was on its way, which may be in history only. On SQLite, whose
    statements cannot be interrupted, it ends as if it were not cancelled, and raises then.

    Args:
        session_factory: what makes the sessions, one for each transaction; `None` for a history
            that lives in memory only.

    The other arguments and what is raised are those of `HistoryStore`.
    """

    def __init__(
        self,
        session_factory: Callable[[], AsyncSession] | None,
        *,
        buffer_size: int = 1000,
        history_retention: Duration | None = "30 days",
        limits: Limits = Limits(),  # noqa: B008 - it is frozen
        redact: Redact | None = redact_secrets,
        schema: str | None = None,
        clock: Clock = utc_now,
    ) -> None:
        if isinstance(session_factory, async_scoped_session):
            raise InvalidInput(
                "session_factory",
                session_factory,
                "would hand out the session in which the app is at work; give its session_factory",
            )
        _refuse_synchronous("session_factory", session_factory, "HistoryStore")
        self._store = HistoryStore(
            None if session_factory is None else _SynchronousSessions(session_factory),
            buffer_size=buffer_size,
            history_retention=history_retention,
            limits=limits,
            redact=redact,
            schema=schema,
            clock=clock,
        )
        super().__init__(self._store, session_factory)
        self._owned_engine: AsyncEngine | None = None

    def joined(
        self, session: AsyncSession | async_scoped_session[AsyncSession]
    ) -> AsyncJoinedStore:
        """`HistoryStore.joined` for an `AsyncSession`; not awaited, but what it returns is."""
        if isinstance(session, async_scoped_session):
            session = session()
        if not isinstance(session, AsyncSession):
            raise InvalidInput(
                "session",
                session,
                "is no AsyncSession; give the one you are at work in, or a Session to a "
                "HistoryStore",
            )
        return AsyncJoinedStore(self._store.joined(session.sync_session), self._make_session)

    def track(
        self,
        job: Any,
        worker_id: Id,
        correlation_id: Id | None = None,
        *,
        on_history_error: OnHistoryError = "log",
        history_retention: Duration | None = None,
    ) -> AsyncTracker:
        """`HistoryStore.track` for `async with`, and to decorate coroutines.

        If its task is cancelled, what was begun to be recorded is still recorded first.
        """
        return AsyncTracker(
            self._store._rows,
            self._store._history,
            self._in_greenlet,
            TrackOptions(job, worker_id, correlation_id, history_retention),
            on_history_error,
        )

    async def observe(self, record: HistoryRecord | Mapping[str, Any]) -> None:
        """`HistoryStore.observe`, to be awaited like the others."""
        self._store.observe(record)

    async def recent(self, n: int | None = None) -> list[HistoryRecord]:
        """`HistoryStore.recent`, to be awaited like the others."""
        return self._store.recent(n)

    async def expire(
        self,
        *,
        batch_size: int = 2000,
        time_limit: Duration | None = None,
        dry_run: bool = False,
        progress: Callable[[int], None] | None = None,
    ) -> int:
        """`HistoryStore.expire`, awaited."""
        return await self._run(
            self._store.expire,
            batch_size=batch_size,
            time_limit=time_limit,
            dry_run=dry_run,
            progress=progress,
        )

    async def reap_lost(
        self,
        older_than: Duration,
        *,
        task_identifier: str | Collection[str] | None = None,
        worker_id: Id | None = None,
        batch_size: int = 1000,
        time_limit: Duration | None = None,
        progress: Callable[[int], None] | None = None,
    ) -> int:
        """`HistoryStore.reap_lost`, awaited."""
        return await self._run(
            self._store.reap_lost,
            older_than,
            task_identifier=task_identifier,
            worker_id=worker_id,
            batch_size=batch_size,
            time_limit=time_limit,
            progress=progress,
        )

    async def close(self) -> None:
        """Dispose the engine that `create_async_store` made from a URL; others are left alone."""
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


class AsyncJoinedStore(_AsyncBaseStore):
    """A store whose verbs are part of the caller's transaction: see `AsyncHistoryStore.joined`."""

    def track(
        self,
        job: Any,
        worker_id: Id,
        correlation_id: Id | None = None,
        *,
        on_history_error: OnHistoryError = "log",
        history_retention: Duration | None = None,
    ) -> AsyncTracker:
        """`JoinedStore.track` for `async with`, and to decorate coroutines."""
        return AsyncTracker(
            self._store_methods._rows,
            self._store_methods._history,
            self._in_greenlet,
            TrackOptions(job, worker_id, correlation_id, history_retention),
            on_history_error,
        )
