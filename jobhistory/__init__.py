"""The flight recorder for background jobs in SQLAlchemy apps."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from jobhistory import migrate
from jobhistory.base_store import BaseStore
from jobhistory.errors import (
    ExecutionAlreadyFinished,
    ExecutionNotFound,
    HistoryUnavailable,
    InvalidInput,
    JobHistoryError,
    NotReplayable,
    NotWritten,
    RecorderClosed,
    RecorderFull,
    SchemaOutOfDate,
    UnsafeExpiry,
)
from jobhistory.execution.ids import new_execution_id
from jobhistory.execution.job import Job, PartialResults
from jobhistory.execution.status import Status
from jobhistory.failure import Cancelled, Failure, TimedOut, WorkerLost
from jobhistory.lifecycle import AsyncExecution, Execution
from jobhistory.query.criteria import HistoryQuery
from jobhistory.query.cursor import Page
from jobhistory.query.reports import Count, FailureGroup, Percentiles, TaskStats
from jobhistory.recorder import Recorder, RecorderCounts
from jobhistory.sanitize.json_values import Limits
from jobhistory.sanitize.secrets import redact_secrets
from jobhistory.schema import HistoryRecord
from jobhistory.store import HistoryStore, create_store
from jobhistory.tracking import AsyncTrackedExecution, TrackedExecution, current_execution

if TYPE_CHECKING:
    from jobhistory.aio import AsyncBaseStore as AsyncBaseStore
    from jobhistory.aio import AsyncHistoryStore as AsyncHistoryStore
    from jobhistory.aio import create_async_store as create_async_store
    from jobhistory.recorder.async_recorder import AsyncRecorder as AsyncRecorder

__version__ = "0.1.0.dev0"

__all__ = [
    "AsyncExecution",
    "AsyncTrackedExecution",
    "BaseStore",
    "Cancelled",
    "Count",
    "Execution",
    "ExecutionAlreadyFinished",
    "ExecutionNotFound",
    "Failure",
    "FailureGroup",
    "HistoryQuery",
    "HistoryRecord",
    "HistoryStore",
    "HistoryUnavailable",
    "InvalidInput",
    "Job",
    "JobHistoryError",
    "Limits",
    "NotReplayable",
    "NotWritten",
    "Page",
    "PartialResults",
    "Percentiles",
    "Recorder",
    "RecorderClosed",
    "RecorderCounts",
    "RecorderFull",
    "SchemaOutOfDate",
    "Status",
    "TaskStats",
    "TimedOut",
    "TrackedExecution",
    "UnsafeExpiry",
    "WorkerLost",
    "create_store",
    "current_execution",
    "migrate",
    "new_execution_id",
    "redact_secrets",
]

# Not in __all__: `from jobhistory import *` works without the extra.
_ASYNC = {
    "AsyncBaseStore": "aio",
    "AsyncHistoryStore": "aio",
    "AsyncRecorder": "recorder.async_recorder",
    "create_async_store": "aio",
}


def __getattr__(name: str) -> Any:
    if name not in _ASYNC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        # SQLAlchemy does not require it, and SQLAlchemy 2.0 misses it only at the first call.
        import_module("greenlet")
        module = import_module(f"{__name__}.{_ASYNC[name]}")
    except ImportError as error:
        raise ImportError(
            f"{name} needs greenlet; install it with: pip install 'jobhistory[async]'"
        ) from error
    return getattr(module, name)
