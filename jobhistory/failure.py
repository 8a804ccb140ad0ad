"""Why executions end: failures without an exception object, and errors that callers can raise."""

from __future__ import annotations

import asyncio
from concurrent.futures import CancelledError
from dataclasses import dataclass


@dataclass(frozen=True)
class Failure:
    """A failure, for frameworks that report it without an exception object.

    Pass it wherever an error is accepted.

    Args:
        type: the type of the error, such as `"ValueError"` or `"shop.errors.OutOfStock"`.
        message: the message. The store redacts it and limits its size, like that of an exception.
        stack: the traceback; `None` if there is none.
    """

    type: str
    message: str
    stack: str | None = None


class WorkerLost(RuntimeError):
    """The worker is presumed lost: its process was killed, or nothing was heard from it.

    Record a failure with this error if you find out that a worker is gone. It is a presumption, as
    with `reap_lost`: if a real outcome arrives after all, it replaces this failure, once. Do not
    use it for errors of the job itself.
    """

    __module__ = "jobhistory"  # which is part of the stored type


class TimedOut(TimeoutError):
    """The execution exceeded a time limit that the caller or the framework set for it.

    Record a failure with this error. An error of a network or a database is its own exception.
    """

    __module__ = "jobhistory"


class Cancelled(Exception):
    """The execution was stopped on purpose. The message is the reason.

    Raise it inside `track`, or pass it as the error to `end` or `record_execution`: the status is
    then `cancelled`, as it is after `asyncio.CancelledError`.
    """

    __module__ = "jobhistory"


def timed_out(error: BaseException) -> TimedOut:
    """Return the error to record for a framework's exception for a time limit."""
    name = type(error).__name__
    try:
        text = str(error)
    except Exception:  # it may belong to the user
        text = ""
    # Those of billiard have their own name in the text.
    timed_out = TimedOut(text if text.startswith(name) else f"{name}: {text}" if text else name)
    timed_out.__cause__ = error  # so that its traceback is stored, too
    return timed_out


CANCELLATIONS = (Cancelled, asyncio.CancelledError, CancelledError)
"""The exceptions that end an execution as cancelled."""
