"""The engines behind a session factory: which one a statement runs on, and after a fork."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import Any
from weakref import WeakKeyDictionary

from sqlalchemy import Connection, Dialect, Engine, Pool, QueuePool, inspect, select, update
from sqlalchemy.exc import UnboundExecutionError
from sqlalchemy.orm import Session

from jobhistory._runtime.fork import register_for_fork
from jobhistory.database.engines import check_dialect
from jobhistory.schema import HistoryRecord

Bind = Engine | Connection

# What `Session.get_bind` is given for an ORM statement: sessions that route look at both.
READING: dict[str, Any] = {"mapper": inspect(HistoryRecord), "clause": select(HistoryRecord)}
"""The arguments of `Session.get_bind` for a transaction that only reads."""

WRITING: dict[str, Any] = {"mapper": inspect(HistoryRecord), "clause": update(HistoryRecord)}
"""The arguments of `Session.get_bind` for a transaction that writes.

SQLAlchemy's routing example sends only flushes, UPDATE and DELETE to the leader, so this is an
UPDATE whatever the transaction does.
"""

_owners: WeakKeyDictionary[Dialect, int] = WeakKeyDictionary()
"""The process whose connections an engine's pool holds.

The key is the engine's dialect: engines that differ only in their options share it and the pool.
"""

_parents_pools: list[Pool] = []
"""In a forked child: the pools of the parent, which the child neither uses nor closes."""


def engine_of(session_factory: object) -> Engine | None:
    """Return the engine that a sessionmaker is bound to; `None` if only its sessions know."""
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
    """The engines of a session factory; a forked child leaves their connections to its parent.

    Two kinds of engines are known when the process forks: those that a sessionmaker is configured
    with, and those that were used. Any other engine that a child comes across may hold connections
    of the parent, so the child leaves these to the parent when it uses the engine first.
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
        """Return what the session runs statements on, once it is safe to use in this process.

        Raises:
            InvalidInput: if it is a database that the library does not support.
        """
        bind = session.get_bind(**arguments)
        if bind.dialect not in self._used:
            check_dialect(bind.engine, "session_factory")
            _take_over(bind.engine, self._made_in)
            self._used[bind.dialect] = bind.engine
        return bind

    def reset_after_fork(self) -> None:
        """Leave the parent's connections to the parent, in a forked child."""
        for engine in (*_configured(self._session_factory), *self._used.values()):
            _take_over(engine, self._made_in)


def _take_over(engine: Engine, made_in: int) -> None:
    """Make sure that the connections in an engine's pool are those of this process."""
    this = os.getpid()
    if _owners.setdefault(engine.dialect, made_in) == this:
        return
    _owners[engine.dialect] = this
    pool = engine.pool
    # A pool of one connection holds a database in memory, which the child has a copy of.
    if isinstance(pool, QueuePool):
        _parents_pools.append(pool)  # or its connections were closed as garbage
        engine.dispose(close=False)


def _configured(session_factory: object) -> Iterator[Engine]:
    options = getattr(session_factory, "kw", {})
    for bind in (options.get("bind"), *(options.get("binds") or {}).values()):
        if bind is not None:
            yield _synchronous(bind).engine


def _synchronous(bind: Any) -> Any:
    """Return what is inside of an `AsyncEngine` or `AsyncConnection`; others as they are."""
    for inner in ("sync_connection", "sync_engine"):
        if getattr(bind, inner, None) is not None:
            return getattr(bind, inner)
    return bind
