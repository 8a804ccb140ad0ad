"""The flight recorder for background jobs in SQLAlchemy apps."""

from jobhistory import migrate
from jobhistory.aio import AsyncHistoryStore, AsyncJoinedStore, create_async_store
from jobhistory.criteria import HistoryQuery
from jobhistory.errors import (
    ExecutionAlreadyFinished,
    ExecutionNotFound,
    InvalidInput,
    JobHistoryError,
    NotWritten,
    RecorderClosed,
    RecorderFull,
    SchemaOutOfDate,
)
from jobhistory.executions import Job, PartialResults
from jobhistory.models import HistoryRecord
from jobhistory.sanitize import Limits, redact_secrets
from jobhistory.status import Status
from jobhistory.store import HistoryStore, JoinedStore, create_store
from jobhistory.tracking import TrackedExecution, current_execution

__version__ = "0.1.0"

__all__ = [
    "AsyncHistoryStore",
    "AsyncJoinedStore",
    "ExecutionAlreadyFinished",
    "ExecutionNotFound",
    "HistoryQuery",
    "HistoryRecord",
    "HistoryStore",
    "InvalidInput",
    "Job",
    "JobHistoryError",
    "JoinedStore",
    "Limits",
    "NotWritten",
    "PartialResults",
    "RecorderClosed",
    "RecorderFull",
    "SchemaOutOfDate",
    "Status",
    "TrackedExecution",
    "create_async_store",
    "create_store",
    "current_execution",
    "migrate",
    "redact_secrets",
]
