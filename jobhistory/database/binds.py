"""The engines of a session factory: the choice of one for a statement, and forks."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

from sqlalchemy import Connection, Dialect, Engine, Pool, QueuePool, inspect, select, update
from sqlalchemy.exc import UnboundExecutionError
from sqlalchemy.orm import Session

from jobhistory._runtime.fork import register_for_fork
from jobhistory.database.engines import check_dialect
from jobhistory.schema import HistoryRecord

Bind = Engine | Connection
B = TypeVar("B", Engine, Connection, Bind)

# The arguments that SQLAlchemy passes for an ORM statement. A session that routes may use both.
READING: dict[str, Any] = {"mapper": inspect(HistoryRecord), "clause": select(HistoryRecord)}
"""The arguments of `Session.get_bind` for a transaction that only reads."""

WRITING: dict[str, Any] = {"mapper": inspect(HistoryRecord), "clause": update(HistoryRecord)}
"""The arguments of `Session.get_bind` for a transaction that writes.

The clause is an UPDATE whatever the transaction does, because the routing example in SQLAlchemy's
documentation sends only flushes, UPDATE and DELETE to the leader.
"""

_owners: WeakKeyDictionary[Dialect, int] = WeakKeyDictionary()
"""The ids of the processes that own the connections in the engines' pools.

The keys are the engines' dialects. Engines that differ only in execution options share their
dialect and their pool.
"""

_parents_pools: list[Pool] = []
"""The parent's pools in a forked child, which neither uses nor closes them."""


def engine_of(session_factory: object) -> Engine | None:
    """Return the engine to which a sessionmaker is bound; `None` if only its sessions know it."""
    options = getattr(session_factory, "kw", None)
    if options is None:
        return None
    session_class: Any = getattr(session_factory, "class_", Session)
    session_class = getattr(session_class, "sync_session_class", session_class)
    session_class = options.get("sync_session_class") or session_class
    if session_class.get_bind is not Session.get_bind:
        return None
    binds = {key: _synchronous(bind) for key, bind in (options.get("binds") or {}).items()}
    with Session(_synchronous(options.get("bind")), binds=binds) as session:
        try:
            return session.get_bind(**WRITING).engine
        except UnboundExecutionError:
            return None


class Engines:
    """The engines of a session factory. A forked child drops inherited connections unclosed.

    At a fork, the known engines are those of the sessionmaker's configuration and those already
    used. Any other engine may also hold connections of the parent, so the child drops these
    connections when it first uses the engine.
    """

    def __init__(self, session_factory: Callable[[], Session]) -> None:
        self._session_factory = session_factory
        self._made_in = os.getpid()
        self._used: dict[Dialect, Engine] = {}
        engine = engine_of(session_factory)
        if engine is not None:
            check_dialect(engine, "session_factory")
        register_for_fork(self)

    def bind_of(self, session: Session, arguments: dict[str, Any]) -> Bind:
        """Return the session's engine or connection, after making it safe for this process.

        Raises:
            InvalidInput: if the library does not support its database.
        """
        return self.made_safe(session.get_bind(**arguments))

    def made_safe(self, bind: B) -> B:
        """Return an engine or connection, after making it safe for this process.

        Raises:
            InvalidInput: if the library does not support its database.
        """
        if bind.dialect not in self._used:
            check_dialect(bind.engine, "session_factory")
            _take_over(bind.engine, self._made_in)
            self._used[bind.dialect] = bind.engine
        return bind

    def reset_after_fork(self) -> None:
        """Drop the connections of the parent, without closing them."""
        for engine in (*_configured(self._session_factory), *self._used.values()):
            _take_over(engine, self._made_in)


def _take_over(engine: Engine, made_in: int) -> None:
    """Give an engine an empty pool, if another process owns the connections in its pool."""
    this = os.getpid()
    if _owners.setdefault(engine.dialect, made_in) == this:
        return
    _owners[engine.dialect] = this
    pool = engine.pool
    # A pool of a single connection holds a database in memory, of which the child has a copy.
    if isinstance(pool, QueuePool):
        _parents_pools.append(pool)  # garbage collection would close its connections
        engine.dispose(close=False)


def _configured(session_factory: object) -> Iterator[Engine]:
    options = getattr(session_factory, "kw", {})
    for bind in (options.get("bind"), *(options.get("binds") or {}).values()):
        if bind is not None:
            yield _synchronous(bind).engine


def _synchronous(bind: Any) -> Any:
    """Return the synchronous object inside an asyncio one, or any other bind unchanged."""
    for inner in ("sync_connection", "sync_engine"):
        if getattr(bind, inner, None) is not None:
            return getattr(bind, inner)
    return bind
