"""How attempts at tasks of Celery end."""

from __future__ import annotations

from typing import Any

from celery.exceptions import Retry, WorkerLostError
from celery.utils.serialization import UnpickleableExceptionWrapper

from jobhistory.contrib.adapter import Recording
from jobhistory.failure import Cancelled, Failure, WorkerLost
from jobhistory.sanitize.tracebacks import safe_text
from jobhistory.typing import ErrorLike

__all__ = ["cause", "end", "lost"]


def end(recording: Recording, raised: BaseException | None, state: str | None, value: Any) -> None:
    """Record how an attempt ended in this process.

    Args:
        recording: the attempt.
        raised: what passes through Celery's code; `None` if Celery has caught it.
        state, value: the state of the task for Celery, and its result or error.
    """
    if _is_exit_by_signal(raised):
        recording.leave()  # the main process knows why it sent that
    elif raised is not None:
        recording.end(cause(raised) if isinstance(raised, Retry) else raised)
    elif state == "RETRY":
        recording.end(cause(value), will_retry=True)
    elif state == "FAILURE":
        recording.end(value, will_retry=False)
    elif state == "REJECTED":
        recording.end(_rejected(value))
    else:
        recording.end(result=value if state == "SUCCESS" else None)


def cause(retry: Any) -> ErrorLike:
    """Return why a task is retried. Celery has replaced an error that cannot be pickled."""
    error: Any = retry if retry.exc is None else retry.exc
    for original in (retry.__cause__, retry.__context__):
        if original is not None and _stands_for(error, original):
            error = original
    cause: ErrorLike = error
    if isinstance(error, UnpickleableExceptionWrapper):
        cause = Failure(f"{error.exc_module}.{error.exc_cls_name}", str(error))
    return cause


def lost(error: ErrorLike) -> ErrorLike:
    """Return the error to record in place of Celery's for a child that was killed."""
    return WorkerLost(str(error)) if isinstance(error, WorkerLostError) else error


def _stands_for(error: Any, original: BaseException) -> bool:
    kind = type(original)
    if isinstance(error, UnpickleableExceptionWrapper):
        return (error.exc_module, error.exc_cls_name) == (kind.__module__, kind.__name__)
    has_been_raised = error.__traceback__ is not None
    return not has_been_raised and isinstance(original, type(error)) and original.args == error.args


def _rejected(reject: Any) -> Cancelled:
    reason = "" if reject.reason is None else f": {safe_text(reject.reason)}"
    return Cancelled(f"rejected{reason}")


def _is_exit_by_signal(error: BaseException | None) -> bool:
    """Return whether billiard ends a child that has got a signal, with 256 minus its number."""
    code = error.code if isinstance(error, SystemExit) else None
    return isinstance(code, int) and -256 < code <= -192
