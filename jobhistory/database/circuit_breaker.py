"""A circuit breaker, so that after a timeout callers do not wait for a hanging database."""

from __future__ import annotations

from collections.abc import Callable
from threading import RLock
from time import monotonic

from sqlalchemy.exc import DBAPIError, OperationalError

from jobhistory._runtime.fork import register_for_fork
from jobhistory.errors import HistoryUnavailable


class CircuitBreaker:
    """A switch that refuses calls after a timeout, and lets one call through after each pause.

    It is thread-safe. In a forked child, it is closed.

    Args:
        pause: the number of seconds before the next call is let through.
        clock: a function that returns a monotonic time in seconds.

    Attributes:
        is_open: whether calls are refused, except for one after each pause.
    """

    def __init__(self, pause: float = 30, clock: Callable[[], float] = monotonic) -> None:
        self.clock = clock
        self._pause = pause
        self.reset_after_fork()
        register_for_fork(self)

    def reset_after_fork(self) -> None:
        """Close the circuit breaker."""
        self._lock = RLock()  # reentrant, as signal handlers may record
        self.is_open = False
        self._next_try = 0.0
        self._reason = ""
        self._has_refused = False

    def check(self) -> None:
        """Let the call through, or raise.

        Raises:
            HistoryUnavailable: if the circuit breaker is open and the pause is not over.
        """
        with self._lock:
            if not self.is_open:
                return
            left = self._next_try - self.clock()
            if left <= 0:
                # Let this call through. If it never returns, let another through after a pause.
                self._next_try += self._pause - left
                return
            is_repeated, self._has_refused = self._has_refused, True
        raise HistoryUnavailable(self._reason, left, is_repeated)

    def open(self, reason: str) -> None:
        """Refuse calls from now on, because a call timed out."""
        with self._lock:
            self._reason = reason
            self._next_try = self.clock() + self._pause
            self.is_open = True

    def close(self) -> None:
        """Let all calls through, because the database answered one."""
        with self._lock:
            self.is_open = False
            self._has_refused = False


def timed_out(error: Exception, failure: str) -> OperationalError:
    """Return the `OperationalError` for a call that was aborted at its deadline."""
    statement = error.statement if isinstance(error, DBAPIError) else None
    return OperationalError(
        statement, None, TimeoutError(failure), hide_parameters=True, connection_invalidated=True
    )
