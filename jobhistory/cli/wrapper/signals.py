"""Signals for this process, which are passed on to its command."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from time import monotonic, sleep
from typing import NamedTuple

ENDING = {signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM}
"""The signals by which somebody asks the command to end."""

FORWARDED = ENDING | {signal.SIGUSR1, signal.SIGUSR2}
_WATCHED = FORWARDED | {signal.SIGCHLD, signal.SIGCONT, signal.SIGWINCH}
_JOB_CONTROL = {signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU}
_POLL_SECONDS = 0.05  # where the system has no wait with a time limit


class Received(NamedTuple):
    """A signal.

    Attributes:
        number: its number.
        is_from_terminal: whether the kernel sent it on behalf of a terminal.
    """

    number: int
    is_from_terminal: bool


class Signals:
    """The signals that this process takes one by one, while it holds them.

    Attributes:
        mask: the signals that were blocked before, and are blocked in the command.
        ending: the first signal that asked the command to end; `None` if there was none.
    """

    def __init__(self, mask: set[int]) -> None:
        self.mask = mask
        self.ending: int | None = None
        self._watched = set(_WATCHED)

    def next(self, deadline: float | None = None) -> Received | None:
        """Wait for the next signal and return it; `None` at the deadline, a monotonic time."""
        received = _next(self._watched, deadline)
        if received is not None and received.number in ENDING and self.ending is None:
            self.ending = received.number
        return received

    def wait(self, seconds: float) -> None:
        """Wait, but not longer than until a signal asks to end."""
        deadline = monotonic() + seconds
        while self.ending is None and self.next(deadline) is not None:
            pass

    @contextmanager
    def of_job_control(self) -> Iterator[None]:
        """Hold those of job control, too, for a command that has a terminal of its own.

        Otherwise, they stop this process together with the command.
        """
        before = signal.pthread_sigmask(signal.SIG_BLOCK, _JOB_CONTROL)
        self._watched.add(signal.SIGTSTP)
        try:
            yield
        finally:
            self._watched.remove(signal.SIGTSTP)
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

    @staticmethod
    def are_pending() -> bool:
        """Return whether a signal that asks to end waits to be taken."""
        return bool(signal.sigpending() & ENDING)


@contextmanager
def held_signals() -> Iterator[Signals]:
    """Block the signals that would end this process, so that they can be passed on.

    On exit, those that nobody took are dropped: they were for the command.
    """
    # Without a handler, some systems drop SIGCHLD even while it is blocked.
    handler = signal.signal(signal.SIGCHLD, lambda *_: None)
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _WATCHED)
    try:
        yield Signals(before)
    finally:
        while pending := signal.sigpending() & _WATCHED:
            signal.sigwait(pending)
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        signal.signal(signal.SIGCHLD, handler)


def stop_this_job() -> None:
    """Stop this process, and those that its shell started with it, until the shell continues it."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTSTP})
    # To the group: other processes of the same pipeline stop as well, as they do at Ctrl-Z.
    os.killpg(0, signal.SIGTSTP)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTSTP})


def _next(watched: set[signal.Signals], deadline: float | None) -> Received | None:
    if sys.platform != "linux":
        while deadline is not None and not signal.sigpending() & watched:
            if monotonic() >= deadline:
                return None
            sleep(_POLL_SECONDS)
        return Received(signal.sigwait(watched), False)
    if deadline is None:
        info = signal.sigwaitinfo(watched)
    else:
        found = signal.sigtimedwait(watched, max(0.0, deadline - monotonic()))
        if found is None:
            return None
        info = found
    return Received(info.si_signo, info.si_code > 0)
