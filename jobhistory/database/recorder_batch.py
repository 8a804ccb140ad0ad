"""Writing the batches of a `Recorder` in a transaction."""

from __future__ import annotations

from jobhistory.database.statements.read import WITH_IDS
from jobhistory.database.statements.write import (
    FINISH_MANY,
    FINISHED_AT,
    INSERT_OR_FINISH,
)
from jobhistory.database.transaction import Transaction
from jobhistory.database.writes import complete, end, insert_many, key_parameters
from jobhistory.errors import ExecutionAlreadyFinished, ExecutionNotFound, InvalidInput
from jobhistory.execution.batch import Batch, BatchResult
from jobhistory.execution.outcome import (
    OUTCOME_COLUMNS,
    ExecutionKey,
    Outcome,
    check_same_job,
)
from jobhistory.schema import HistoryRecord, values_of

_OUTCOME_COLUMNS = frozenset(OUTCOME_COLUMNS)


def write(transaction: Transaction, batch: Batch, *, may_exist: bool) -> BatchResult:
    """Write a batch and return its result.

    With `may_exist`, operations may have been written before. Those that contradict the history are
    refused and the others are written.
    """
    result = BatchResult([row for row in batch.rows if row["status"].is_outcome], [])
    if not may_exist:
        insert_many(transaction, batch.rows)
    elif batch.rows:
        statement = INSERT_OR_FINISH[transaction.dialect]
        transaction.execute(statement, [complete(row) for row in batch.rows])
        _refuse_contradictions(transaction, batch, result)
    if batch.outcomes:
        _write_outcomes(transaction, batch, result, may_exist=may_exist)
    return result


def _refuse_contradictions(transaction: Transaction, batch: Batch, result: BatchResult) -> None:
    """Refuse rows whose execution has another outcome, or whose id belongs to another job."""
    parameters = {"key_ids": [row["id"] for row in batch.rows]}
    records = {record.id: record for record in transaction.find(WITH_IDS, parameters)}
    for row in batch.rows:
        record = records.get(row["id"])
        if record is None:
            continue
        outcome = Outcome(ExecutionKey.of_row(row), row)
        is_outcome = row["status"].is_outcome
        try:
            check_same_job(row, record)
            if not is_outcome:
                continue
            if not outcome.agrees_with(record):
                raise ExecutionAlreadyFinished(record)
            if record.completed_at == outcome.completed_at(record.started_at):
                continue
        except (InvalidInput, ExecutionAlreadyFinished) as refusal:
            result.refused.append((outcome, refusal))
        if is_outcome:
            result.ended.remove(row)


def _write_outcomes(
    transaction: Transaction, batch: Batch, result: BatchResult, *, may_exist: bool
) -> None:
    """Write the outcomes of a batch, and list all ended rows in the order of the batch."""
    inserted = {row["id"] for row in result.ended}
    result.ended.clear()
    known = [outcome for outcome in batch.outcomes if _is_plain(outcome)]
    all_ended = not known or _end_many(transaction, known) == len(known)
    for operation in batch.operations:
        if not isinstance(operation, Outcome):
            if operation["id"] in inserted:
                result.ended.append(operation)
        elif all_ended and _is_plain(operation):
            result.ended.append(operation.ended_row())
        else:
            try:
                record = _end_once(transaction, operation, may_exist=may_exist)
            except (ExecutionNotFound, ExecutionAlreadyFinished) as refusal:
                result.refused.append((operation, refusal))
            else:
                result.ended.extend([] if record is None else [values_of(record)])


def _is_plain(outcome: Outcome) -> bool:
    """Return whether an outcome has a known row and sets no other columns, such as progress."""
    return outcome.row is not None and outcome.values.keys() <= _OUTCOME_COLUMNS


def _end_many(transaction: Transaction, outcomes: list[Outcome]) -> int:
    """End executions by their ids in one statement, and return their number."""
    parameters = []
    for outcome in outcomes:
        row = outcome.ended_row()
        values = {name: row[name] for name in OUTCOME_COLUMNS}
        parameters.append(values | {"key_id": outcome.id})
    count: int = transaction.execute(FINISH_MANY, parameters).rowcount
    return count


def _end_once(
    transaction: Transaction, outcome: Outcome, *, may_exist: bool
) -> HistoryRecord | None:
    """End an execution, unless it already has the same outcome.

    Returns:
        The record if this outcome ended the execution, now or in an earlier attempt; `None` if
        another caller did.
    """
    if may_exist and outcome.row is None:
        at = {"key_completed_at": outcome.values["completed_at"]}
        if records := transaction.find(FINISHED_AT, key_parameters(outcome.key) | at):
            return records[0]
    record, is_new = end(transaction, outcome)
    is_this = record.completed_at == outcome.completed_at(record.started_at)
    return record if is_new or is_this else None
