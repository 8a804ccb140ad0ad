"""Deadlines for the calls to a database, enforced by the client.

A stopped server or a network that drops every packet answers nothing, so the server's own time-outs
and those of TCP do not help. At the deadline a thread shuts the connection's socket down. The
driver that waits for an answer, blocked or on an event loop, then sees a lost connection.
"""

from __future__ import annotations

import select
import socket
from contextlib import suppress
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
    """How long the library waits for a database, in seconds.

    Attributes:
        connect: for a new connection, unless the URL sets its own limit.
        ping: for the test of an idle connection, which is replaced if it does not answer.
        pool: for a free connection of the pool. If the database hangs, the limits of the calls that
            hold them come first.
        call: for one recording call, once it has a connection.
        bulk: for many rows at once, in the same way; it starts over every 10,000 rows.
        busy: how long a recording call or a question is repeated while SQLite is busy.
        busy_maintenance: the same for a batch of expiry, or of the search for lost workers.
    """

    connect: float = 2
    ping: float = 0.5
    pool: float = 10
    call: float = 2
    bulk: float = 30
    busy: float = 5
    busy_maintenance: float = 30


class Deadline:
    """The moment by which a call needs its answer.

    Attributes:
        at: the moment, as a `monotonic()` time.
        failure: what did not happen in time; `None` as long as nothing did.
    """

    __slots__ = ("_seconds", "at", "failure")

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self.at = monotonic() + seconds
        self.failure: str | None = None

    @property
    def has_passed(self) -> bool:
        """Whether the moment is over."""
        return monotonic() >= self.at

    def restart(self) -> None:
        """Let the time begin now."""
        self.at = monotonic() + self._seconds

    def expire(self) -> None:
        """Note that there was no answer in time."""
        self.failure = (
            f"the database did not answer within the time limit of {self._seconds:g} s; "
            "the connection is closed"
        )


current_deadline: ContextVar[Deadline | None] = ContextVar("jobhistory_deadline", default=None)
"""The deadline of the recording call that the thread or the task is in."""


class SocketGuard:
    """Shuts the socket of one connection down when a deadline passes while the guard is on.

    Its methods are for the thread or the task that uses the connection.

    Args:
        descriptor: the file descriptor of the socket.
    """

    def __init__(self, descriptor: int) -> None:
        # The driver may close its descriptor at any time, and the system gives the number to the
        # next file. This duplicate stays what it is. shutdown() acts on the socket, not on it.
        self._socket = socket.fromfd(descriptor, socket.AF_INET, socket.SOCK_STREAM)
        self._poll: Any = select.poll() if hasattr(select, "poll") else None
        if self._poll is not None:
            self._poll.register(self._socket, select.POLLIN)

    def turn_on(self, deadline: Deadline) -> None:
        """Wait for the deadline."""
        _watchdog.add(self, deadline)

    def turn_off(self) -> None:
        """Wait for nothing; once this returns, the socket is not shut down any more."""
        _watchdog.remove(self)

    def is_silent(self) -> bool:
        """Return whether the server has sent nothing since its last answer, not even an end."""
        if self._socket.fileno() < 0:  # it was shut down as the answer came
            return False
        if self._poll is None:
            return not any(select.select([self._socket], [], [], 0))
        return not self._poll.poll(0)

    def shut_down(self) -> None:
        """Break the connection, and forget it."""
        with suppress(OSError):  # the server may have closed it
            self._socket.shutdown(socket.SHUT_RDWR)
        with suppress(OSError):  # else the watchdog's thread would end
            self._socket.close()

    def close(self) -> None:
        """Forget the connection, which stays as it is."""
        self.turn_off()
        self._socket.close()

    def __del__(self) -> None:
        if hasattr(self, "_socket"):  # not if the system had no descriptor left
            self._socket.close()


class _Watchdog:
    """One thread for all guards of the process; it starts with the first one that is turned on.

    Each recording call turns a guard on and off, so neither takes a lock or wakes the thread. The
    thread wakes by itself while calls are being made. It publishes when; only a guard whose
    deadline is earlier wakes it.
    """

    _LONGEST_SLEEP = 1.0

    def __init__(self) -> None:
        self.reset_after_fork()
        register_for_fork(self)

    def reset_after_fork(self) -> None:
        """Guard nothing, without a thread; in a forked child the connections are the parent's."""
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
            with self._lock:  # it was off, or the thread is looking at it
                self._guards.pop(guard, None)

    def _wake(self) -> None:
        with self._lock:
            if self._thread is not None:
                self._alarm.put(None)
                return
            self._thread = Thread(target=self._watch, name="jobhistory-deadlines", daemon=True)
            try:
                self._thread.start()
            except RuntimeError:  # the system has no thread left: this call has no limit
                self._thread = None

    def _watch(self) -> None:
        while True:
            # Before the look at the guards: one that comes later compares with this.
            self._wakes_at = monotonic() + self._LONGEST_SLEEP
            for guard, deadline in self._guards.copy().items():
                if deadline.has_passed:
                    self._enforce(guard, deadline)
            if guards := self._guards.copy():
                self._wakes_at = min([self._wakes_at, *(each.at for each in guards.values())])
            else:
                self._wakes_at = inf
                if self._guards:  # one came in between
                    continue
            self._sleep()

    def _enforce(self, guard: SocketGuard, deadline: Deadline) -> None:
        with self._lock:
            if self._guards.pop(guard, None) is None:
                return
            if guard.is_silent():
                deadline.expire()
                guard.shut_down()
            else:  # The answer is there. This process is late, as if its event loop is blocked.
                deadline.restart()
                self._guards[guard] = deadline

    def _sleep(self) -> None:
        seconds = self._wakes_at - monotonic()
        with suppress(Empty):
            self._alarm.get(timeout=None if seconds == inf else max(0, seconds))


_watchdog = _Watchdog()


def guard_of(driver_connection: Any) -> SocketGuard | None:
    """Return a guard for a driver's connection; `None` if it has no socket or shows none."""
    transport = getattr(driver_connection, "_transport", None)  # asyncpg has no public way
    try:
        owner = driver_connection if transport is None else transport.get_extra_info("socket")
        return SocketGuard(owner.fileno())
    except Exception:
        return None
