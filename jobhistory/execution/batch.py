"""Batches: the operations that a `Recorder` writes in one transaction."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Self, TypeAlias
from uuid import UUID

from jobhistory.errors import JobHistoryError
from jobhistory.execution.outcome import Outcome
from jobhistory.execution.retention import Retention

_COUNTED_COLUMNS = (
    "task_identifier",
    "status",
    "started_at",
    "completed_at",
    "queue_time_ms",
    "execution_time_ms",
)


@dataclass(frozen=True)
class Counted:
    """An ended execution that statistics count, but that has no row in the history.

    Attributes:
        values: what statistics need of it, by the column of the history.
        recorder: the id of the recorder that has accepted it, if any.
        number: its place among those that the recorder has accepted, from 1.
    """

    values: dict[str, Any]
    recorder: UUID | None = None
    number: int = 0

    @classmethod
    def of(cls, row: Mapping[str, Any]) -> Self:
        """Return what statistics need of the row of an ended execution."""
        return cls({name: row[name] for name in _COUNTED_COLUMNS})


Operation: TypeAlias = dict[str, Any] | Outcome | Counted
"""A new row, the outcome of an execution, or an execution that is only counted."""


@dataclass(frozen=True)
class Batch:
    """The operations that a `Recorder` writes in one transaction.

    Attributes:
        operations: the rows, outcomes and counted executions, in the order of the calls. If the
            outcome of a new row is in the same batch, one complete row takes the outcome's place.
    """

    operations: list[Operation]

    @classmethod
    def of(cls, operations: Iterable[Operation], retention: Retention) -> Batch:
        """Return a batch of these operations, with each new row merged with its outcome.

        Args:
            retention: that of the store, which decides how long the merged rows are kept.
        """
        merged: dict[UUID | int, Operation] = {}
        for place, operation in enumerate(operations):
            if isinstance(operation, Counted):
                merged[place] = operation
            elif not isinstance(operation, Outcome):
                # A different row with the same id stays separate, so that history can refuse it.
                is_other = merged.get(operation["id"], operation) != operation
                merged[place if is_other else operation["id"]] = operation
            elif operation.row is not None and merged.pop(operation.row["id"], None) is not None:
                merged[operation.row["id"]] = operation.ended_row(retention)
            else:
                merged[place] = operation
        return cls(list(merged.values()))

    @cached_property
    def rows(self) -> list[dict[str, Any]]:
        """The new rows."""
        return [each for each in self.operations if isinstance(each, dict)]

    @cached_property
    def outcomes(self) -> list[Outcome]:
        """The outcomes of executions whose rows are not in this batch."""
        return [each for each in self.operations if isinstance(each, Outcome)]

    @cached_property
    def counted(self) -> list[Counted]:
        """The executions that are only counted."""
        return [each for each in self.operations if isinstance(each, Counted)]


@dataclass(frozen=True)
class BatchResult:
    """The result of writing a `Batch`.

    Attributes:
        ended: the rows of the executions that this batch ended, in order.
        refused: the outcomes that could not be recorded, each with its error.
    """

    ended: list[dict[str, Any]]
    refused: list[tuple[Outcome, JobHistoryError]]
