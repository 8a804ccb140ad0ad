"""Deadlines for calls to a database, enforced by the client.

If the server is stopped or the network drops every packet, neither the server's timeouts nor TCP's
help. At the deadline, a thread shuts the connection's socket down. The driver, which is blocked or
waits on an event loop, then sees a lost connection.
"""

from __future__ import annotations

import select
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass
from math import inf
from queue import Empty, SimpleQueue
from threading import RLock, Thread
from time import monotonic
from typing import Any

from jobhistory._runtime.fork import register_for_fork


@dataclass(frozen=True)
class TimeLimits:
    """The time limits of the library, in seconds.

    Attributes:
        connect: for a new connection, unless the URL sets another limit.
        ping: for the test of an idle connection, which is replaced if it does not answer.
        call: for one recording call, from the moment at which it has a connection.
        bulk: for a call that writes many rows, likewise. It restarts after every 10,000 rows.
        busy: for the retries of a recording call or a read while SQLite is busy.
        busy_maintenance: for the retries of a batch of expiry or of the search for lost workers.
    """

    connect: float = 2
    ping: float = 0.5
    call: float = 2
    bulk: float = 30
    busy: float = 5
    busy_maintenance: float = 30


class Deadline:
    """The time by which the database must answer a call.

    Attributes:
        at: the deadline, as a `monotonic()` time.
        failure: the description of the timeout; `None` if there was none.
    """

    __slots__ = ("_seconds", "at", "failure")

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self.at = monotonic() + seconds
        self.failure: str | None = None

    @property
    def has_passed(self) -> bool:
        """Whether the deadline has passed."""
        return monotonic() >= self.at

    def restart(self) -> None:
        """Set the deadline as if the call began now."""
        self.at = monotonic() + self._seconds

    def expire(self) -> None:
        """Set `failure`, because the database did not answer in time."""
        self.failure = (
            f"the database did not answer within the time limit of {self._seconds:g} s; "
            "the connection is closed"
        )


current_deadline: ContextVar[Deadline | None] = ContextVar("jobhistory_deadline", default=None)
"""The deadline of the current recording call, per thread or task."""


@contextmanager
def time_limit(seconds: float) -> Iterator[Deadline]:
    """Limit how long the database may take for each question in the block.

    Engines of the library enforce it. Recording calls in the block have their own limits.
    """
    deadline = Deadline(seconds)
    token = current_deadline.set(deadline)
    try:
        yield deadline
    finally:
        current_deadline.reset(token)


class SocketGuard:
    """A guard that, while it is on, shuts the socket of one connection down at a deadline.

    Only the thread or task that uses the connection turns it on and off.

    Args:
        descriptor: the file descriptor of the socket.
    """

    def __init__(self, descriptor: int) -> None:
        # The driver may close its descriptor at any time, and the system then reuses the number.
        # A duplicate remains valid, and shutdown() acts on the socket that both refer to.
        self._socket = socket.fromfd(descriptor, socket.AF_INET, socket.SOCK_STREAM)
        self._poll: Any = select.poll() if hasattr(select, "poll") else None
        if self._poll is not None:
            self._poll.register(self._socket, select.POLLIN)

    def turn_on(self, deadline: Deadline) -> None:
        """Enforce the deadline from now on."""
        _watchdog.add(self, deadline)

    def turn_off(self) -> None:
        """Stop enforcing the deadline. After this returns, the guard leaves the socket alone."""
        _watchdog.remove(self)

    def is_silent(self) -> bool:
        """Return whether there is nothing to read on the socket, not even its end."""
        if self._socket.fileno() < 0:  # it was shut down just as the answer arrived
            return False
        if self._poll is None:
            return not any(select.select([self._socket], [], [], 0))
        return not self._poll.poll(0)

    def shut_down(self) -> None:
        """Break the connection, and close the duplicate descriptor."""
        with suppress(OSError):  # the server may have closed the connection
            self._socket.shutdown(socket.SHUT_RDWR)
        with suppress(OSError):  # an error would end the watchdog's thread
            self._socket.close()

    def close(self) -> None:
        """Turn the guard off and close the duplicate descriptor. The connection stays usable."""
        self.turn_off()
        self._socket.close()

    def __del__(self) -> None:
        if hasattr(self, "_socket"):  # __init__ fails if no file descriptors are left
            self._socket.close()


class _Watchdog:
    """One thread for all guards of the process. It starts when the first guard is turned on.

    Each recording call turns a guard on and off, so these operations are cheap: usually they take
    no lock and do not wake the thread. While guards are on, the thread wakes by itself at least
    once per second. It publishes its next wake-up in `_wakes_at`, and only a guard with an earlier
    deadline wakes it.
    """

    _LONGEST_SLEEP = 1.0

    def __init__(self) -> None:
        self.reset_after_fork()
        register_for_fork(self)

    def reset_after_fork(self) -> None:
        """Drop all guards and the thread. In a forked child, they belong to the parent."""
        self._guards: dict[SocketGuard, Deadline] = {}
        self._wakes_at = inf
        self._alarm: SimpleQueue[None] = SimpleQueue()  # signal handlers may use it, unlike Event
        self._lock = RLock()  # reentrant, as signal handlers may record
        self._thread: Thread | None = None

    def add(self, guard: SocketGuard, deadline: Deadline) -> None:
        self._guards[guard] = deadline
        if deadline.at < self._wakes_at:
            self._wake()

    def remove(self, guard: SocketGuard) -> None:
        if self._guards.pop(guard, None) is None:
            with self._lock:  # either it was off, or the thread is in _enforce()
                self._guards.pop(guard, None)

    def _wake(self) -> None:
        with self._lock:
            if self._thread is not None:
                self._alarm.put(None)
                return
            self._thread = Thread(target=self._watch, name="jobhistory-deadlines", daemon=True)
            try:
                self._thread.start()
            except RuntimeError:  # no more threads can be started, so this call has no time limit
                self._thread = None

    def _watch(self) -> None:
        while True:
            # Set before reading the guards, because a guard that is added later compares with it.
            self._wakes_at = monotonic() + self._LONGEST_SLEEP
            for guard, deadline in self._guards.copy().items():
                if deadline.has_passed:
                    self._enforce(guard, deadline)
            if guards := self._guards.copy():
                self._wakes_at = min([self._wakes_at, *(each.at for each in guards.values())])
            else:
                self._wakes_at = inf
                if self._guards:  # one was added in between
                    continue
            self._sleep()

    def _enforce(self, guard: SocketGuard, deadline: Deadline) -> None:
        with self._lock:
            if self._guards.pop(guard, None) is None:
                return
            if guard.is_silent():
                deadline.expire()
                guard.shut_down()
            else:  # The answer has arrived. This process is late: its event loop may be blocked.
                deadline.restart()
                self._guards[guard] = deadline

    def _sleep(self) -> None:
        seconds = self._wakes_at - monotonic()
        with suppress(Empty):
            self._alarm.get(timeout=None if seconds == inf else max(0, seconds))


_watchdog = _Watchdog()


def guard_of(driver_connection: Any) -> SocketGuard | None:
    """Return a guard for a driver's connection; `None` if its socket is not accessible."""
    transport = getattr(driver_connection, "_transport", None)  # asyncpg has no public attribute
    try:
        owner = driver_connection if transport is None else transport.get_extra_info("socket")
        return SocketGuard(owner.fileno())
    except Exception:
        return None
