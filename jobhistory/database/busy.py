"""Busy SQLite databases: the writers of a process take turns, and busy errors are retried."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from threading import Lock, RLock, get_ident
from time import monotonic

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import DBAPIError

from jobhistory._runtime.fork import register_for_fork
from jobhistory.database.driver_errors import is_busy

LONGEST_PAUSE = 0.01
"""How many seconds to wait before a repetition at most; it only has to differ between writers."""

_IMPATIENT_MILLISECONDS = 20

_NEXT = -1
"""The owner of a turn that was handed over to a thread that does not run yet."""

_NOTHING: AbstractContextManager[None] = nullcontext()


class Wait(AbstractContextManager[None]):
    """The wait of one operation for a busy SQLite database; with others it does nothing.

    The first try is as patient as the connection: 5 seconds, unless the app has set `timeout`. All
    the while SQLite looks every 100 ms whether the database is free; in a crowd of processes some
    never have luck. Therefore later tries look more often.

    Args:
        bind: the engine or connection of the operation.
        seconds: how long the operation is repeated after the first busy error, and how long it
            waits for its turn.
        is_writer: whether the operation writes.
    """

    __slots__ = (
        "_bind",
        "_has_turns",
        "_is_mine",
        "_is_ours",
        "_queue",
        "_seconds",
        "_until",
        "is_patient",
    )

    def __init__(self, bind: Engine | Connection, seconds: float, *, is_writer: bool) -> None:
        self._bind = bind
        self._seconds = seconds
        self._until: float | None = None
        self.is_patient = True
        # On a `Connection`, the transaction is a caller's.
        self._is_ours = bind.dialect.name == "sqlite" and isinstance(bind, Engine)
        # On an event loop nothing may block.
        self._has_turns = self._is_ours and is_writer and not bind.dialect.is_async

    def turn(self) -> AbstractContextManager[object]:
        """Return a block for a transaction: of the writers on one file, one at a time is in it.

        If there is no turn in time, SQLite decides.
        """
        if not self._has_turns:
            return _NOTHING
        self._queue = _turns.queue_of(self._bind.engine)
        return self

    def __enter__(self) -> None:
        seconds = self._seconds if self._until is None else max(0, self._until - monotonic())
        self._is_mine = self._queue.wait(seconds)
        if not self._is_mine:
            self.is_patient = False
        elif self._queue.is_nested:
            # The transaction around this one has the database's lock, and waits for this one.
            self.is_patient = False
            self._until = monotonic()

    def __exit__(self, *_: object) -> None:
        if self._is_mine:
            self._queue.leave()

    @contextmanager
    def impatience(self, connection: Connection) -> Iterator[None]:
        """Let the statements of a later try give up after some milliseconds, on SQLite."""
        before = connection.exec_driver_sql("PRAGMA busy_timeout").scalar_one()
        connection.exec_driver_sql(f"PRAGMA busy_timeout = {_IMPATIENT_MILLISECONDS}").close()
        try:
            yield
        finally:
            connection.exec_driver_sql(f"PRAGMA busy_timeout = {before}").close()

    def goes_on(self, error: DBAPIError) -> bool:
        """Return whether the operation is to be repeated after an error."""
        if not (self._is_ours and is_busy(error)):
            return False
        if self._until is None:
            self._until = monotonic() + self._seconds
            self.is_patient = False
        return monotonic() < self._until


class _Queue:
    """A lock that threads get in the order in which they came: those of Python starve some.

    It is reentrant, as a signal handler or a listener of the app may record within a transaction.
    """

    def __init__(self) -> None:
        self._lock = RLock()
        self._waiting: deque[Lock] = deque()
        self._owner: int | None = None
        self._depth = 0

    def wait(self, seconds: float) -> bool:
        """Return `True` when it is the caller's turn, `False` if the time is up."""
        me = get_ident()
        with self._lock:
            if self._owner in (None, me):
                self._owner = me
                self._depth += 1
                return True
            called = Lock()
            called.acquire()
            self._waiting.append(called)
        is_mine = False
        try:
            is_mine = called.acquire(timeout=seconds)
            if is_mine:
                self._owner = me
        finally:
            if not is_mine:  # the time is up, or a signal handler has raised
                self._give_up(called)
        return is_mine

    @property
    def is_nested(self) -> bool:
        """Whether the caller, whose turn it is, had the turn already."""
        return self._depth > 1

    def _give_up(self, called: Lock) -> None:
        with self._lock:
            if called in self._waiting:
                self._waiting.remove(called)
            else:  # called at the last moment
                self.leave()

    def leave(self) -> None:
        """Let the next one in."""
        with self._lock:
            self._depth -= 1
            if self._depth > 0:
                return
            self._owner = None
            if self._waiting:
                self._owner, self._depth = _NEXT, 1
                self._waiting.popleft().release()


class _Turns:
    """The locks of all SQLite databases of this process."""

    def __init__(self) -> None:
        self.reset_after_fork()
        register_for_fork(self)

    def reset_after_fork(self) -> None:
        """Forget the locks: in a forked child, a thread of the parent may seem to hold them."""
        self._queues: dict[str, _Queue] = {}
        self._names: dict[str | None, str] = {}

    def queue_of(self, engine: Engine) -> _Queue:
        name = self._name_of(engine)
        return self._queues.get(name) or self._queues.setdefault(name, _Queue())

    def _name_of(self, engine: Engine) -> str:
        database = engine.url.database
        if database in (None, "", ":memory:"):  # or the engine's creator knows the file
            return f"pool {id(engine.pool)}"
        name = self._names.get(database)
        if name is None:
            name = self._names[database] = os.path.realpath(database)
        return name


_turns = _Turns()
