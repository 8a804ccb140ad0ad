"""What the state of an execution means, in sentences."""

from __future__ import annotations

from collections.abc import Iterator

from jobhistory.contrib.refusals import refusal, refusal_unless_forced
from jobhistory.execution.outcome import WORKER_LOST
from jobhistory.execution.status import Status
from jobhistory.schema import HistoryRecord


def sentences(record: HistoryRecord) -> Iterator[str]:
    """Yield what the status of an execution alone does not tell."""
    if record.error_type == WORKER_LOST:
        yield (
            "The worker is presumed lost: its process was killed, or nothing was heard from it. If "
            "the real outcome arrives after all, it replaces this one."
        )
    if record.status is Status.FAILED:
        yield (
            "This attempt failed, and the job queue will try the job again."
            if record.will_retry
            else "This failure is final: no other attempt was announced."
        )
    if record.status is Status.PARTIAL_SUCCESS and record.retry_from_step:
        yield f"A retry should begin with the step {record.retry_from_step}."
    if record.status is Status.STARTED and record.heartbeat_at is None:
        yield "It sends no heartbeats, so only its end will tell whether it is alive."


def why_not_replayable(
    record: HistoryRecord, newest: HistoryRecord, *, is_whole: bool
) -> str | None:
    """Return why an execution cannot be replayed; `None` if it probably can be.

    Args:
        newest: the newest execution of the job.
        is_whole: whether the record is the one in history, rather than a part that a viewer sees.
    """
    if is_whole:
        return refusal(record) or refusal_unless_forced(record, newest)
    if not record.payload_is_exact:
        return "its payload is not known to equal the input of the job"
    return None
