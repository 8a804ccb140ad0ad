"""Call functions at intervals from one thread."""

from __future__ import annotations

import logging
from collections.abc import Callable
from heapq import heappop, heappush
from itertools import count
from threading import Condition, Thread
from time import monotonic
from typing import NamedTuple

from jobhistory._runtime.fork import register_for_fork

logger = logging.getLogger(__name__)


class _Beat(NamedTuple):
    due: float
    number: int  # no two are equal, so the functions are never compared
    seconds: float
    call: Callable[[], None]


class Pulse:
    """Calls functions at intervals, one after the other, from one daemon thread. Thread-safe.

    The thread starts with the first function. A forked child starts without functions and thread.
    """

    def __init__(self) -> None:
        self._numbers = count()
        self.reset_after_fork()
        register_for_fork(self)

    def reset_after_fork(self) -> None:
        """Forget all functions and the thread of the parent."""
        self._condition = Condition()
        self._beats: list[_Beat] = []
        self._wanted: set[int] = set()
        self._thread: Thread | None = None

    def add(self, call: Callable[[], None], seconds: float) -> Callable[[], None]:
        """Call a function again and again, for the first time after the interval.

        Returns:
            A function that ends this. A call that has begun may still go on.
        """
        with self._condition:
            number = next(self._numbers)
            self._wanted.add(number)
            heappush(self._beats, _Beat(monotonic() + seconds, number, seconds, call))
            if self._thread is None:
                self._thread = Thread(target=self._run, name="jobhistory-heartbeats", daemon=True)
                self._thread.start()
            self._condition.notify()
        return lambda: self._wanted.discard(number)

    def _run(self) -> None:
        while True:
            beat = self._next()
            if beat.number not in self._wanted:
                continue
            try:
                beat.call()
            except Exception:
                logger.exception("a heartbeat raised an error")
            with self._condition:
                heappush(self._beats, beat._replace(due=monotonic() + beat.seconds))

    def _next(self) -> _Beat:
        """Wait for the next function that is due."""
        with self._condition:
            while not self._beats or self._beats[0].due > monotonic():
                wait = self._beats[0].due - monotonic() if self._beats else None
                self._condition.wait(wait)
            return heappop(self._beats)


PULSE = Pulse()
"""The thread of this process."""
