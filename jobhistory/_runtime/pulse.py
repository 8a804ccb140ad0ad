"""Call functions at intervals from one thread."""

from __future__ import annotations

import logging
from collections.abc import Callable
from heapq import heapify, heappop, heappush
from itertools import count
from threading import Condition, Thread
from time import monotonic

from jobhistory._runtime.fork import register_for_fork

logger = logging.getLogger(__name__)

_MOST_REMOVED = 1000


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
        self._calls: dict[int, tuple[Callable[[], None], float]] = {}
        self._due: list[tuple[float, int]] = []  # may have numbers of functions that were removed
        self._thread: Thread | None = None

    def add(self, call: Callable[[], None], seconds: float) -> Callable[[], None]:
        """Call a function again and again, for the first time after the interval.

        If the thread cannot start, log that; the next call of `add` tries again.

        Returns:
            A function that ends this. A call that has begun may still go on.
        """
        with self._condition:
            number = next(self._numbers)
            self._calls[number] = call, seconds
            if len(self._due) > 2 * len(self._calls) + _MOST_REMOVED:
                self._due = [each for each in self._due if each[1] in self._calls]
                heapify(self._due)
            heappush(self._due, (monotonic() + seconds, number))
            self._ensure_thread()
            self._condition.notify()
        return lambda: self._remove(number)

    def _remove(self, number: int) -> None:
        self._calls.pop(number, None)

    def _ensure_thread(self) -> None:
        if self._thread is not None and self._thread.is_alive():
            return
        thread = Thread(target=self._run, name="jobhistory-heartbeats", daemon=True)
        try:
            thread.start()
        except RuntimeError as error:  # too many threads, or the interpreter is about to end
            logger.error("no heartbeats, because their thread cannot start: %s", error)
        else:
            self._thread = thread

    def _run(self) -> None:
        while True:
            self._beat(self._next())

    def _beat(self, number: int) -> None:
        call, seconds = self._calls.get(number, (None, 0))
        if call is None:
            return
        try:
            call()
        except Exception:
            logger.exception("a heartbeat raised an error")
        with self._condition:
            heappush(self._due, (monotonic() + seconds, number))

    def _next(self) -> int:
        """Wait for the next function that is due."""
        with self._condition:
            while not self._due or self._due[0][0] > monotonic():
                wait = self._due[0][0] - monotonic() if self._due else None
                self._condition.wait(wait)
            return heappop(self._due)[1]


PULSE = Pulse()
"""The thread of this process."""
