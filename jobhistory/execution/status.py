"""The states of an execution."""

from __future__ import annotations

from enum import StrEnum

from jobhistory.errors import InvalidInput


class Status(StrEnum):
    """Where an execution stands; members equal their text, so `record.status == "failed"` works."""

    STARTED = "started"
    COMPLETED = "completed"
    FAILED = "failed"
    PARTIAL_SUCCESS = "partial_success"

    @property
    def is_outcome(self) -> bool:
        """Whether an execution in this state has ended."""
        return self is not Status.STARTED


def read_status(value: Status | str, argument: str) -> Status:
    """The status that a text names.

    Raises:
        InvalidInput: if it names none.
    """
    try:
        return Status(value)
    except ValueError:
        known = ", ".join(repr(status.value) for status in Status)
        raise InvalidInput(argument, value, f"is not a status; they are {known}") from None
