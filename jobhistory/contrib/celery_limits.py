"""How Celery stops tasks, also while history is written."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from signal import getsignal, signal
from threading import Timer, current_thread, main_thread

from billiard.pool import SIG_SOFT_TIMEOUT, soft_timeout_sighandler
from celery.exceptions import Reject, SoftTimeLimitExceeded, TimeLimitExceeded

try:  # greenlets of gevent and eventlet are stopped with it
    from greenlet import GreenletExit
except ImportError:
    CANCELLATIONS: tuple[type[BaseException], ...] = (Reject,)
else:
    CANCELLATIONS = (Reject, GreenletExit)

_SECONDS_UNTIL_THE_TASK_RUNS = 0.1


def time_limits() -> tuple[type[BaseException], ...]:
    """Return the exceptions for time limits."""
    gevent = sys.modules.get("gevent")  # whose pool lets its own exception pass through the task
    return SoftTimeLimitExceeded, TimeLimitExceeded, *([gevent.Timeout] if gevent else [])


@contextmanager
def soft_limit_deferred() -> Iterator[list[int]]:
    """Do not let a soft time limit interrupt the block. Yield a list that gets its signal.

    Celery swallows what the receivers of its signals raise. If the limit interrupted one, the task
    would go on without it. The block must be short. It has no effect except in the main thread of a
    child that billiard has forked.
    """
    came: list[int] = []
    number = SIG_SOFT_TIMEOUT  # None where there are no soft limits
    if (
        number is None
        or current_thread() is not main_thread()
        or getsignal(number) is not soft_timeout_sighandler
    ):
        yield came
        return
    signal(number, lambda received, _: came.append(received))
    try:
        yield came
    finally:
        signal(number, soft_timeout_sighandler)


def send_again(came: list[int]) -> Timer | None:
    """Send this process a soft time limit that came too early for the task, as soon as that runs.

    Cancel the timer that it returns when the task ends.
    """
    if not came:
        return None
    timer = Timer(_SECONDS_UNTIL_THE_TASK_RUNS, os.kill, (os.getpid(), came[0]))
    timer.daemon = True
    timer.start()
    return timer
