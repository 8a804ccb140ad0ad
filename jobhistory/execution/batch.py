"""Batches: the operations that a `Recorder` writes in one transaction."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeAlias
from uuid import UUID

from jobhistory.errors import JobHistoryError
from jobhistory.execution.outcome import Outcome

Operation: TypeAlias = dict[str, Any] | Outcome
"""A new row, or the outcome of an execution."""


@dataclass(frozen=True)
class Batch:
    """The operations that a `Recorder` writes in one transaction.

    Attributes:
        operations: the rows and outcomes, in the order of the calls. If the outcome of a new row
            is in the same batch, one complete row takes the outcome's place.
    """

    operations: list[Operation]

    @classmethod
    def of(cls, operations: Iterable[Operation]) -> Batch:
        """Return a batch of these operations, with each new row merged with its outcome."""
        merged: dict[UUID | int, Operation] = {}
        for place, operation in enumerate(operations):
            if not isinstance(operation, Outcome):
                # A different row with the same id stays separate, so that history can refuse it.
                is_other = merged.get(operation["id"], operation) != operation
                merged[place if is_other else operation["id"]] = operation
            elif operation.row is not None and merged.pop(operation.row["id"], None) is not None:
                merged[operation.row["id"]] = operation.ended_row()
            else:
                merged[place] = operation
        return cls(list(merged.values()))

    @cached_property
    def rows(self) -> list[dict[str, Any]]:
        """The new rows."""
        return [each for each in self.operations if not isinstance(each, Outcome)]

    @cached_property
    def outcomes(self) -> list[Outcome]:
        """The outcomes of executions whose rows are not in this batch."""
        return [each for each in self.operations if isinstance(each, Outcome)]


@dataclass(frozen=True)
class BatchResult:
    """The result of writing a `Batch`.

    Attributes:
        ended: the rows of the executions that this batch ended, in order.
        refused: the outcomes that could not be recorded, each with its error.
    """

    ended: list[dict[str, Any]]
    refused: list[tuple[Outcome, JobHistoryError]]
