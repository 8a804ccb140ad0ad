"""Busy SQLite databases: turns for the writers of a process, and retries after busy errors."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from threading import Lock, RLock, get_ident
from time import monotonic

from sqlalchemy import Connection, Dialect, Engine
from sqlalchemy.exc import DBAPIError

from jobhistory._runtime.fork import register_for_fork
from jobhistory.database.driver_errors import is_busy

LONGEST_PAUSE = 0.01
"""The maximum pause before a retry, in seconds. Random pauses keep writers from colliding again."""

_IMPATIENT_MILLISECONDS = 20

_NEXT = -1
"""The owner of a turn that has been passed to a thread that is not running yet."""

_NOTHING: AbstractContextManager[None] = nullcontext()


class Wait(AbstractContextManager[None]):
    """The wait of one operation for a busy SQLite database. Other databases are unaffected.

    The first try waits as long as the connection allows: 5 seconds, unless the app sets `timeout`.
    SQLite polls the lock only every 100 ms, so among many processes some never get it. Therefore
    later tries fail after 20 ms and are repeated after a short random pause.

    Args:
        bind: the engine or connection of the operation.
        seconds: the time limit for retries after the first busy error, and for the wait for a turn.
        is_writer: whether the operation writes.

    Attributes:
        is_own: whether the transaction is the library's own, and not that of a caller.
        is_patient: whether the next try waits as long as the connection allows.
    """

    __slots__ = (
        "_bind",
        "_has_turns",
        "_is_mine",
        "_is_own_sqlite",
        "_queue",
        "_seconds",
        "_until",
        "is_own",
        "is_patient",
    )

    def __init__(self, bind: Engine | Connection, seconds: float, *, is_writer: bool) -> None:
        self._bind = bind
        self._seconds = seconds
        self._until: float | None = None
        self.is_patient = True
        # On a `Connection`, the transaction belongs to the caller.
        self.is_own = isinstance(bind, Engine)
        self._is_own_sqlite = self.is_own and bind.dialect.name == "sqlite"
        # On an event loop, waiting for a turn would block.
        self._has_turns = self._is_own_sqlite and is_writer and not bind.dialect.is_async

    @property
    def dialect(self) -> Dialect:
        """The dialect of the database."""
        return self._bind.dialect

    def turn(self) -> AbstractContextManager[object]:
        """Return a context manager for a transaction, which admits one writer per file at a time.

        If the turn does not come in time, the transaction runs anyway and relies on SQLite's lock.
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
            # The enclosing transaction holds the lock and waits for this one, so waiting is futile.
            self.is_patient = False
            self._until = monotonic()

    def __exit__(self, *_: object) -> None:
        if self._is_mine:
            self._queue.leave()

    @contextmanager
    def impatience(self, connection: Connection) -> Iterator[None]:
        """Shorten the busy timeout of the connection to 20 ms, and restore it at the end."""
        before = connection.exec_driver_sql("PRAGMA busy_timeout").scalar_one()
        connection.exec_driver_sql(f"PRAGMA busy_timeout = {_IMPATIENT_MILLISECONDS}").close()
        try:
            yield
        finally:
            connection.exec_driver_sql(f"PRAGMA busy_timeout = {before}").close()

    def should_retry(self, error: DBAPIError) -> bool:
        """Return whether the operation should be retried after an error."""
        if not (self._is_own_sqlite and is_busy(error)):
            return False
        if self._until is None:
            self._until = monotonic() + self._seconds
            self.is_patient = False
        return monotonic() < self._until


class _Queue:
    """A fair lock: threads acquire it in the order of their calls. Python's locks starve some.

    It is reentrant, because a signal handler or a listener of the app may record within a
    transaction.
    """

    def __init__(self) -> None:
        self._lock = RLock()
        self._waiting: deque[Lock] = deque()
        self._owner: int | None = None
        self._depth = 0

    def wait(self, seconds: float) -> bool:
        """Wait for the caller's turn; return whether it came in time."""
        me = get_ident()
        with self._lock:
            if self._owner in (None, me):
                self._owner = me
                self._depth += 1
                return True
            turn = Lock()
            turn.acquire()
            self._waiting.append(turn)
        is_mine = False
        try:
            is_mine = turn.acquire(timeout=seconds)
            if is_mine:
                self._owner = me
        finally:
            if not is_mine:  # after the time limit, or an exception of a signal handler
                self._give_up(turn)
        return is_mine

    @property
    def is_nested(self) -> bool:
        """Whether the caller already had the turn when it asked for it."""
        return self._depth > 1

    def _give_up(self, turn: Lock) -> None:
        with self._lock:
            if turn in self._waiting:
                self._waiting.remove(turn)
            else:  # the turn came after the time limit
                self.leave()

    def leave(self) -> None:
        """End the caller's turn, and pass it to the next thread."""
        with self._lock:
            self._depth -= 1
            if self._depth > 0:
                return
            self._owner = None
            if self._waiting:
                self._owner, self._depth = _NEXT, 1
                self._waiting.popleft().release()


class _Turns:
    """The queues of all SQLite databases of this process."""

    def __init__(self) -> None:
        self.reset_after_fork()
        register_for_fork(self)

    def reset_after_fork(self) -> None:
        """Drop all queues. In a forked child, a thread of the parent may appear to own a turn."""
        self._queues: dict[str, _Queue] = {}
        self._names: dict[str | None, str] = {}

    def queue_of(self, engine: Engine) -> _Queue:
        name = self._name_of(engine)
        return self._queues.get(name) or self._queues.setdefault(name, _Queue())

    def _name_of(self, engine: Engine) -> str:
        database = engine.url.database
        if database in (None, "", ":memory:"):  # in memory, or a file that only `creator` knows
            return f"pool {id(engine.pool)}"
        name = self._names.get(database)
        if name is None:
            name = self._names[database] = os.path.realpath(database)
        return name


_turns = _Turns()
