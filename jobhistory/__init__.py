"""The flight recorder for background jobs in SQLAlchemy apps.

Each name is imported when it is first used: `jobhistory run` starts its command without SQLAlchemy.
"""

from __future__ import annotations

from importlib import import_module
from itertools import chain
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jobhistory import migrate
    from jobhistory.aio import AsyncBaseStore as AsyncBaseStore
    from jobhistory.aio import AsyncHistoryStore as AsyncHistoryStore
    from jobhistory.aio import create_async_store as create_async_store
    from jobhistory.alerts.alert import Alert
    from jobhistory.alerts.mail import EmailAlert
    from jobhistory.alerts.programs import CommandAlert, print_alert
    from jobhistory.alerts.sending import AlertCounts
    from jobhistory.alerts.targets import read_alert_target
    from jobhistory.alerts.webhook import WebhookAlert
    from jobhistory.archive.archive import Archive
    from jobhistory.archive.verified import ArchiveProblem, VerifiedArchive
    from jobhistory.base_store import BaseStore
    from jobhistory.errors import (
        AlertNotSent,
        ArchiveError,
        ExecutionAlreadyFinished,
        ExecutionNotFound,
        HistoryUnavailable,
        InvalidInput,
        JobHistoryError,
        LayoutNotChanged,
        NotReplayable,
        NotWritten,
        RecorderClosed,
        RecorderFull,
        SchemaOutOfDate,
        StatisticsDenied,
        UnsafeExpiry,
    )
    from jobhistory.execution.ids import new_execution_id
    from jobhistory.execution.job import Job, PartialResults
    from jobhistory.execution.retention import RetentionRule
    from jobhistory.execution.rule_file import load_retention_rules
    from jobhistory.execution.status import Status
    from jobhistory.expectations.declarations import DeclaredExpectation
    from jobhistory.expectations.expectation import Expectation
    from jobhistory.expectations.incidents import Incident
    from jobhistory.expectations.inference import Suggestion
    from jobhistory.expectations.toml_file import load_expectations
    from jobhistory.expectations.verdicts import Checked, Problem, Severity, Verdict
    from jobhistory.failure import Cancelled, Failure, TimedOut, WorkerLost
    from jobhistory.following.feeds import AsyncFollow, Follow
    from jobhistory.lifecycle import AsyncExecution, Execution
    from jobhistory.logging_context import LogContext, add_log_context, log_context
    from jobhistory.query.criteria import HistoryQuery
    from jobhistory.query.cursor import Page
    from jobhistory.query.reports import (
        Count,
        FailureGroup,
        Percentiles,
        TaskStats,
        WaitingForPartition,
        WorkerActivity,
    )
    from jobhistory.query.retention import RetentionCoverage
    from jobhistory.recorder import Recorder, RecorderCounts
    from jobhistory.recorder.async_recorder import AsyncRecorder as AsyncRecorder
    from jobhistory.sanitize.json_values import Limits
    from jobhistory.sanitize.secrets import redact_secrets
    from jobhistory.schema import HistoryRecord
    from jobhistory.store import HistoryStore, create_store
    from jobhistory.tracking import AsyncTrackedExecution, TrackedExecution, current_execution

__version__ = "0.1.0.dev0"

__all__ = [
    "Alert",
    "AlertCounts",
    "AlertNotSent",
    "Archive",
    "ArchiveError",
    "ArchiveProblem",
    "AsyncExecution",
    "AsyncFollow",
    "AsyncTrackedExecution",
    "BaseStore",
    "Cancelled",
    "Checked",
    "CommandAlert",
    "Count",
    "DeclaredExpectation",
    "EmailAlert",
    "Execution",
    "ExecutionAlreadyFinished",
    "ExecutionNotFound",
    "Expectation",
    "Failure",
    "FailureGroup",
    "Follow",
    "HistoryQuery",
    "HistoryRecord",
    "HistoryStore",
    "HistoryUnavailable",
    "Incident",
    "InvalidInput",
    "Job",
    "JobHistoryError",
    "LayoutNotChanged",
    "Limits",
    "LogContext",
    "NotReplayable",
    "NotWritten",
    "Page",
    "PartialResults",
    "Percentiles",
    "Problem",
    "Recorder",
    "RecorderClosed",
    "RecorderCounts",
    "RecorderFull",
    "RetentionCoverage",
    "RetentionRule",
    "SchemaOutOfDate",
    "Severity",
    "StatisticsDenied",
    "Status",
    "Suggestion",
    "TaskStats",
    "TimedOut",
    "TrackedExecution",
    "UnsafeExpiry",
    "Verdict",
    "VerifiedArchive",
    "WaitingForPartition",
    "WebhookAlert",
    "WorkerActivity",
    "WorkerLost",
    "add_log_context",
    "create_store",
    "current_execution",
    "load_expectations",
    "load_retention_rules",
    "log_context",
    "migrate",
    "new_execution_id",
    "print_alert",
    "read_alert_target",
    "redact_secrets",
]

_MODULES = {
    "alerts.alert": ["Alert"],
    "alerts.mail": ["EmailAlert"],
    "alerts.programs": ["CommandAlert", "print_alert"],
    "alerts.sending": ["AlertCounts"],
    "alerts.targets": ["read_alert_target"],
    "alerts.webhook": ["WebhookAlert"],
    "archive.archive": ["Archive"],
    "archive.verified": ["ArchiveProblem", "VerifiedArchive"],
    "base_store": ["BaseStore"],
    "errors": [
        "AlertNotSent",
        "ArchiveError",
        "ExecutionAlreadyFinished",
        "ExecutionNotFound",
        "HistoryUnavailable",
        "InvalidInput",
        "JobHistoryError",
        "LayoutNotChanged",
        "NotReplayable",
        "NotWritten",
        "RecorderClosed",
        "RecorderFull",
        "SchemaOutOfDate",
        "StatisticsDenied",
        "UnsafeExpiry",
    ],
    "execution.ids": ["new_execution_id"],
    "execution.job": ["Job", "PartialResults"],
    "execution.retention": ["RetentionRule"],
    "execution.rule_file": ["load_retention_rules"],
    "execution.status": ["Status"],
    "expectations.declarations": ["DeclaredExpectation"],
    "expectations.expectation": ["Expectation"],
    "expectations.incidents": ["Incident"],
    "expectations.inference": ["Suggestion"],
    "expectations.toml_file": ["load_expectations"],
    "expectations.verdicts": ["Checked", "Problem", "Severity", "Verdict"],
    "failure": ["Cancelled", "Failure", "TimedOut", "WorkerLost"],
    "following.feeds": ["AsyncFollow", "Follow"],
    "lifecycle": ["AsyncExecution", "Execution"],
    "logging_context": ["LogContext", "add_log_context", "log_context"],
    "query.criteria": ["HistoryQuery"],
    "query.cursor": ["Page"],
    "query.reports": [
        "Count",
        "FailureGroup",
        "Percentiles",
        "TaskStats",
        "WaitingForPartition",
        "WorkerActivity",
    ],
    "query.retention": ["RetentionCoverage"],
    "recorder": ["Recorder", "RecorderCounts"],
    "sanitize.json_values": ["Limits"],
    "sanitize.secrets": ["redact_secrets"],
    "schema": ["HistoryRecord"],
    "store": ["HistoryStore", "create_store"],
    "tracking": ["AsyncTrackedExecution", "TrackedExecution", "current_execution"],
}
"""For each module, the names above that it defines; `migrate` is a module itself."""

# Not in __all__: `from jobhistory import *` works without the extra.
_ASYNC_MODULES = {
    "aio": ["AsyncBaseStore", "AsyncHistoryStore", "create_async_store"],
    "recorder.async_recorder": ["AsyncRecorder"],
}

if not TYPE_CHECKING:  # type checkers would accept every name

    def __getattr__(name: str) -> Any:
        value = globals()[name] = _imported(name)
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, *chain.from_iterable(_ASYNC_MODULES.values())})


def _imported(name: str) -> Any:
    if name == "migrate":
        return import_module("jobhistory.migrate")
    for module, names in _MODULES.items():
        if name in names:
            return getattr(import_module(f"jobhistory.{module}"), name)
    for module, names in _ASYNC_MODULES.items():
        if name in names:
            return _imported_with_greenlet(module, name)
    raise AttributeError(f"module 'jobhistory' has no attribute {name!r}")


def _imported_with_greenlet(module: str, name: str) -> Any:
    try:
        # SQLAlchemy does not require it, and SQLAlchemy 2.0 misses it only at the first call.
        import_module("greenlet")
        return getattr(import_module(f"jobhistory.{module}"), name)
    except ImportError as error:
        raise ImportError(
            f"{name} needs greenlet; install it with: pip install 'jobhistory[async]'"
        ) from error
