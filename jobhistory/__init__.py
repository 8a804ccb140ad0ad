"""The flight recorder for background jobs in SQLAlchemy apps."""

from jobhistory import migrate
from jobhistory.criteria import HistoryQuery
from jobhistory.errors import (
    ExecutionAlreadyFinished,
    ExecutionNotFound,
    InvalidInput,
    JobHistoryError,
    SchemaOutOfDate,
)
from jobhistory.executions import Job, PartialResults
from jobhistory.models import HistoryRecord
from jobhistory.sanitize import Limits, redact_secrets
from jobhistory.status import Status
from jobhistory.store import HistoryStore, create_store

__version__ = "0.1.0"

__all__ = [
    "ExecutionAlreadyFinished",
    "ExecutionNotFound",
    "HistoryQuery",
    "HistoryRecord",
    "HistoryStore",
    "InvalidInput",
    "Job",
    "JobHistoryError",
    "Limits",
    "PartialResults",
    "SchemaOutOfDate",
    "Status",
    "create_store",
    "migrate",
    "redact_secrets",
]
