"""Jobs and partial results, as callers pass them."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any

from jobhistory.errors import InvalidInput
from jobhistory.typing import Id


@dataclass(frozen=True)
class Job:
    """A queued unit of work, for callers whose queue has no job object.

    A mapping with these keys, or any object with these attributes, works in its place.

    Args:
        id: the id of the job. Each attempt at the job is a separate execution.
        task_identifier: the kind of work, such as `"send_email"`.
        payload: the job's input. Any value is allowed; the store sanitizes it for JSON.
        attempts: the number of this attempt, as the queue counts attempts.
        run_at: the time at which the job was due; an aware `datetime`.
        labels: up to 16 short texts by name, such as `{"tenant": "acme", "queue": "mail"}`. A name
            has up to 63 lower-case letters, digits and underscores, and begins with a letter; a
            value has up to 255 characters. They are added to the store's labels.
    """

    id: Id
    task_identifier: str
    payload: Any = None
    attempts: int = 1
    run_at: datetime | None = None
    labels: Mapping[str, str] | None = None


_JOB_FIELDS = tuple(field.name for field in fields(Job))


@dataclass(frozen=True, kw_only=True)
class PartialResults:
    """The progress of an execution of which some steps succeeded and others failed.

    Args:
        completed_steps: the names of the completed steps.
        failed_steps: the names of the failed steps.
        retry_from_step: the step at which the next attempt resumes.
        results: the results of the completed steps. Any value is allowed; the store sanitizes it
            for JSON.
    """

    completed_steps: Iterable[str] = ()
    failed_steps: Iterable[str] = ()
    retry_from_step: str | None = None
    results: Any = None


def job_fields(job: Any) -> dict[str, Any]:
    """Return the fields of a `Job`, a mapping, or any object with a job's attributes.

    Missing keys and attributes are `None`.

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
        if name == "payload":  # an unreadable payload must not prevent recording the job
            return f"<payload that {raised}>"
        raise InvalidInput(
            f"job.{name}", type(job), f"{raised} when it was read; pass a loaded object or a Job"
        ) from error


def partial_fields(partial: PartialResults | Mapping[str, Any] | None) -> Mapping[str, Any]:
    """Return the fields of partial results.

    Raises:
        InvalidInput: if the argument is neither a mapping nor a `PartialResults`, or if a mapping
            has an unknown key.
    """
    names = [field.name for field in fields(PartialResults)]
    if isinstance(partial, PartialResults):
        return {name: getattr(partial, name) for name in names}
    if not isinstance(partial, Mapping):
        raise InvalidInput(
            "partial_results",
            type(partial),
            "is neither a mapping nor a PartialResults; pass PartialResults(failed_steps=['pay'])",
        )
    return check_keys(partial, names, "partial_results")


def check_keys(
    given: Mapping[str, Any], known: Collection[str], argument: str
) -> Mapping[str, Any]:
    """Return the mapping, which must have only known keys.

    Raises:
        InvalidInput: if it has an unknown key.
    """
    for key in given:
        if key not in known:
            raise InvalidInput(
                argument, key, f"is not a valid key; the valid keys are {', '.join(known)}"
            )
    return given
