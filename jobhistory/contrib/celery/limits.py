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

_sending: list[Timer] = []


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


def send_again(came: list[int]) -> None:
    """Send this process the soft time limits that came too early for a task, once that runs."""
    for number in came:
        timer = Timer(_SECONDS_UNTIL_THE_TASK_RUNS, os.kill, (os.getpid(), number))
        timer.daemon = True
        _sending.append(timer)
        timer.start()


def forget_limits() -> None:
    """Send none, as the task for which they came has ended. Its child runs one at a time."""
    while _sending:
        _sending.pop().cancel()
