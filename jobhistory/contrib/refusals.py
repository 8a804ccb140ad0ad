"""Why an execution cannot be replayed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from jobhistory.contrib.jobs import NOT_REPLAYABLE
from jobhistory.execution.labels import REPLAYED_AT
from jobhistory.execution.status import Status
from jobhistory.sanitize.secrets import REDACTED
from jobhistory.schema import HistoryRecord

_CUT = "[cut, "  # begins every mark in place of what was too large


def refusal(record: HistoryRecord) -> str | None:
    """Return why no job can repeat an execution, whatever its caller wants; `None` if one can."""
    if record.status is Status.STARTED:
        return "it is still running; wait for its end, or call reap_lost if its worker has died"
    why = (record.labels or {}).get(NOT_REPLAYABLE)
    if why is not None:
        return why
    payload = record.payload
    if payload is None:
        return "its arguments were not recorded; set the option payload=True of the adapter"
    if not record.payload_is_exact:
        return _why_inexact(record)
    if not _has_arguments(payload):
        return (
            'its payload is not of the form {"args": [...], "kwargs": {...}}, as adapters record '
            "it by default; enqueue the job yourself"
        )
    return None


def refusal_unless_forced(record: HistoryRecord, newest: HistoryRecord | None) -> str | None:
    """Return why an execution should not be replayed; `None` if it may be.

    Args:
        newest: the newest execution of the same job.
    """
    if record.will_retry:
        return "its job queue will try it again; to enqueue another job all the same, use force"
    if newest is not None and newest.id != record.id:
        return (
            f"the job has a later execution, {newest.id}, with status {newest.status.value!r}; "
            "replay that one, or use force"
        )
    replayed_at = (record.labels or {}).get(REPLAYED_AT)
    if replayed_at is not None:
        return f"it was replayed at {replayed_at}; to replay it again, use force"
    return None


def _has_arguments(payload: Any) -> bool:
    return (
        isinstance(payload, dict)
        and payload.keys() == {"args", "kwargs"}
        and isinstance(payload["args"], list)
        and isinstance(payload["kwargs"], dict)
    )


def _why_inexact(record: HistoryRecord) -> str:
    if record.payload_is_exact is None:
        return "whether its arguments were recorded as they were is unknown; enqueue it yourself"
    texts = list(_texts(record.payload))
    if any(REDACTED in text for text in texts):
        return "its arguments contained secrets, which were redacted; enqueue the job yourself"
    if any(_CUT in text for text in texts):
        return (
            "its arguments were too large and are cut; enqueue the job yourself, and raise "
            "Limits(payload=...) of the store for others"
        )
    return (
        "JSON cannot hold its arguments as they were, or redact() has changed them; enqueue the "
        "job yourself, and pass only texts, numbers, booleans, None, lists and dicts with texts as "
        "keys to others"
    )


def _texts(value: Any) -> Iterator[str]:
    """Yield each text in a JSON value, keys included."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, item in value.items():
            yield key
            yield from _texts(item)
    elif isinstance(value, list):
        for item in value:
            yield from _texts(item)
