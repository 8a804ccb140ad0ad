"""The options for criteria, one for each, which several commands have in common."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from inspect import Parameter, Signature, signature
from typing import Any, get_type_hints

from jobhistory.cli.options import (
    CorrelationId,
    ErrorContains,
    ErrorType,
    JobId,
    Labels,
    MinAttempt,
    MinTime,
    ParentId,
    Since,
    Statuses,
    Tasks,
    TraceId,
    Until,
    WorkerPrefix,
    Workers,
    read_labels,
    read_milliseconds,
    read_uuid,
    read_window,
)


def takes_criteria(command: Callable[..., None]) -> Callable[..., None]:
    """Decorate a command: its parameter `criteria` becomes an option for each criterion.

    The command gets a dict with all criteria but `limit` and `order`. Those that were not given are
    `None`.
    """
    options = signature(_criteria).parameters
    own = signature(command).parameters
    hints = get_type_hints(command, include_extras=True)
    hints |= get_type_hints(_criteria, include_extras=True)

    @wraps(command)
    def with_options(**given: Any) -> None:
        criteria = _criteria(**{name: given.pop(name) for name in options})
        command(criteria=criteria, **given)

    parameters: list[Parameter] = []
    for name, parameter in own.items():
        parameters += options.values() if name == "criteria" else [parameter]
    # Typer reads the signature. Keyword-only, because required ones may come after others.
    with_options.__signature__ = Signature(  # type: ignore[attr-defined]
        [
            each.replace(kind=Parameter.KEYWORD_ONLY, annotation=hints[each.name])
            for each in parameters
        ]
    )
    with_options.__annotations__ = {each.name: hints[each.name] for each in parameters}
    return with_options


def _criteria(
    since: Since = None,
    until: Until = None,
    task: Tasks = None,
    status: Statuses = None,
    job_id: JobId = None,
    correlation_id: CorrelationId = None,
    worker: Workers = None,
    worker_prefix: WorkerPrefix = None,
    min_attempt: MinAttempt = None,
    label: Labels = None,
    parent_id: ParentId = None,
    trace_id: TraceId = None,
    error_type: ErrorType = None,
    error_contains: ErrorContains = None,
    min_time: MinTime = None,
) -> dict[str, Any]:
    return read_window(since, until) | {
        "task_identifier": task or None,
        "status": status or None,
        "job_id": job_id,
        "correlation_id": correlation_id,
        "worker_id": worker or None,
        "worker_id_starts_with": worker_prefix,
        "min_attempt": min_attempt,
        "labels": read_labels(label),
        "parent_id": read_uuid(parent_id, "--parent-id"),
        "trace_id": trace_id,
        "error_type": error_type,
        "error_contains": error_contains,
        "min_execution_time_ms": read_milliseconds(min_time, "--min-time"),
    }
