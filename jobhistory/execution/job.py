"""What a caller says of a job."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any

from jobhistory.errors import InvalidInput
from jobhistory.typing import Id


@dataclass(frozen=True)
class Job:
    """A unit of work that somebody queued, for callers who have no such object of their own.

    Args:
        id: the job's id; an execution is an attempt at it.
        task_identifier: what kind of work it is, such as `"send_email"`.
        payload: what it works on; anything, as it is made fit for JSON.
        attempts: which attempt this is, counted by the queue.
        run_at: when it was due; an aware `datetime`.
    """

    id: Id
    task_identifier: str
    payload: Any = None
    attempts: int = 1
    run_at: datetime | None = None


_JOB_FIELDS = tuple(field.name for field in fields(Job))


@dataclass(frozen=True, kw_only=True)
class PartialResults:
    """How far an execution came that succeeded in part.

    Args:
        completed_steps: the names of the steps that are done.
        failed_steps: the names of those that failed.
        retry_from_step: the step to start at next time.
        results: what the completed steps brought; anything, as it is made fit for JSON.
    """

    completed_steps: Iterable[str] = ()
    failed_steps: Iterable[str] = ()
    retry_from_step: str | None = None
    results: Any = None


def job_fields(job: Any) -> dict[str, Any]:
    """Return the fields of a job: of a `Job`, a mapping, or any object with its attributes.

    Raises:
        InvalidInput: if a mapping has an unknown key, or an attribute cannot be read.
    """
    if type(job) is Job:
        return vars(job)
    if isinstance(job, Mapping):
        check_keys(job, _JOB_FIELDS, "job")
        return {name: job.get(name) for name in _JOB_FIELDS}
    return {name: _attribute(job, name) for name in _JOB_FIELDS}


def _attribute(job: Any, name: str) -> Any:
    try:
        return getattr(job, name, None)
    except Exception as error:
        raised = f"raised {type(error).__name__}"
        if name == "payload":  # whatever it is, it is no reason not to record the job
            return f"<payload that {raised}>"
        raise InvalidInput(
            f"job.{name}", type(job), f"{raised} when it was read; give a loaded object or a Job"
        ) from error


def partial_fields(partial: PartialResults | Mapping[str, Any] | None) -> Mapping[str, Any]:
    """Return the fields of partial results.

    Raises:
        InvalidInput: if they are no partial results, or a mapping has an unknown key.
    """
    names = [field.name for field in fields(PartialResults)]
    if isinstance(partial, PartialResults):
        return {name: getattr(partial, name) for name in names}
    if not isinstance(partial, Mapping):
        raise InvalidInput(
            "partial_results", type(partial), "is neither a mapping nor a PartialResults"
        )
    return check_keys(partial, names, "partial_results")


def check_keys(
    given: Mapping[str, Any], known: Collection[str], argument: str
) -> Mapping[str, Any]:
    """Return a mapping that has only known keys.

    Raises:
        InvalidInput: if it has another key.
    """
    for key in given:
        if key not in known:
            raise InvalidInput(
                argument, key, f"is not one of its keys; they are {', '.join(known)}"
            )
    return given
