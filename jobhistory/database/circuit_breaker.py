"""A circuit breaker: after a timeout, callers do not wait for a database that hangs."""

from __future__ import annotations

from collections.abc import Callable
from threading import RLock
from time import monotonic

from sqlalchemy.exc import DBAPIError, OperationalError

from jobhistory._runtime.fork import register_for_fork
from jobhistory.errors import HistoryUnavailable


class CircuitBreaker:
    """Refuses calls for a while after a timeout, and then lets single calls try again.

    It is thread-safe, and closed in a forked child.

    Args:
        pause: how many seconds it refuses calls before it lets one through.
        clock: returns the time in seconds; it never goes back.

    Attributes:
        is_open: whether calls are refused, except for single ones.
    """

    def __init__(self, pause: float = 30, clock: Callable[[], float] = monotonic) -> None:
        self.clock = clock
        self._pause = pause
        self.reset_after_fork()
        register_for_fork(self)

    def reset_after_fork(self) -> None:
        """Let all calls through."""
        self._lock = RLock()  # reentrant, as signal handlers may record
        self.is_open = False
        self._next_try = 0.0
        self._reason = ""
        self._has_refused = False

    def check(self) -> None:
        """Let a call through, or refuse it.

        Raises:
            HistoryUnavailable: if no call may try now.
        """
        with self._lock:
            if not self.is_open:
                return
            left = self._next_try - self.clock()
            if left <= 0:
                # This call tries. If it never returns, another call tries after the next pause.
                self._next_try += self._pause - left
                return
            is_repeated, self._has_refused = self._has_refused, True
        raise HistoryUnavailable(self._reason, left, is_repeated)

    def open(self, reason: str) -> None:
        """Refuse calls from now on, as one got no answer in time."""
        with self._lock:
            self._reason = reason
            self._next_try = self.clock() + self._pause
            self.is_open = True

    def close(self) -> None:
        """Let all calls through: one got an answer."""
        with self._lock:
            self.is_open = False
            self._has_refused = False


def timed_out(error: Exception, failure: str) -> OperationalError:
    """Return SQLAlchemy's error for a call that was cut off at its deadline."""
    statement = error.statement if isinstance(error, DBAPIError) else None
    return OperationalError(
        statement, None, TimeoutError(failure), hide_parameters=True, connection_invalidated=True
    )
