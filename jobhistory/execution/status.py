"""The states of an execution."""

from __future__ import annotations

from enum import StrEnum

from jobhistory.errors import InvalidInput


class Status(StrEnum):
    """The state of an execution. Members equal their text: `record.status == "failed"` works."""

    STARTED = "started"
    COMPLETED = "completed"
    FAILED = "failed"
    PARTIAL_SUCCESS = "partial_success"
    CANCELLED = "cancelled"

    @property
    def is_outcome(self) -> bool:
        """Whether an execution in this state has ended."""
        return self is not Status.STARTED


def read_status(value: Status | str, argument: str) -> Status:
    """Return the status with this text.

    Raises:
        InvalidInput: if there is no such status.
    """
    try:
        return Status(value)
    except ValueError:
        known = ", ".join(repr(status.value) for status in Status)
        raise InvalidInput(argument, value, f"is not a status; use one of {known}") from None
