"""Writing the batches of a `Recorder` in a transaction."""

from __future__ import annotations

from datetime import timedelta
from typing import Any
from uuid import UUID

from jobhistory._runtime.clock import utc_now
from jobhistory.database.statements.counted import (
    COUNT,
    FORGET_RECORDERS,
    LAST_COUNTED,
    NOTE_COUNTED,
    NOTE_NEW,
    RECORDER,
)
from jobhistory.database.statements.outcomes import OutcomeStatements
from jobhistory.database.statements.read import WITH_IDS
from jobhistory.database.statements.write import FINISHED_AT
from jobhistory.database.transaction import Transaction
from jobhistory.database.writes import (
    complete,
    end,
    insert_many,
    key_parameters,
    queued,
    row_parameters,
    rows_to_write,
)
from jobhistory.errors import ExecutionAlreadyFinished, ExecutionNotFound, InvalidInput
from jobhistory.execution.batch import Batch, BatchResult, Counted
from jobhistory.execution.ids import new_execution_id
from jobhistory.execution.outcome import (
    OUTCOME_COLUMNS,
    ExecutionKey,
    Outcome,
    check_same_job,
)
from jobhistory.schema import HistoryRecord, values_of

_OUTCOME_COLUMNS = frozenset(OUTCOME_COLUMNS)

_NOTES_KEPT = timedelta(days=90)
"""The age of a recorder whose note is deleted. Ids of recorders sort by their age."""


def write(
    transaction: Transaction,
    batch: Batch,
    statements: OutcomeStatements,
    *,
    may_exist: bool,
) -> BatchResult:
    """Write a batch and return its result.

    With `may_exist`, operations may have been written before. Those that contradict the history are
    refused and the others are written.
    """
    result = BatchResult([row for row in batch.rows if row["status"].is_outcome], [])
    if not may_exist:
        insert_many(transaction, batch.rows)
    elif batch.rows:
        layout = transaction.layout
        statement = statements.insert_or_finish(transaction.dialect, layout.key)
        rows = rows_to_write(transaction, layout, batch.rows)
        if rows:
            transaction.execute(statement, [complete(row) for row in rows])
        _refuse_contradictions(transaction, batch, result)
    if batch.counted:
        _count(transaction, batch.counted, may_exist=may_exist)
        transaction.counted = len(batch.counted)
    if batch.outcomes:
        _write_outcomes(transaction, batch, result, statements, may_exist=may_exist)
    return result


def _count(transaction: Transaction, executions: list[Counted], *, may_exist: bool) -> None:
    """Count executions of which there is no row, each once.

    A retry does not find them. So the number of the last one that each recorder has counted is
    noted in the same transaction.
    """
    last = _last_counted(transaction, executions) if may_exist else {}
    new = []
    for each in executions:
        note = _note_of(each.recorder)
        if each.number > last.get(note, 0):
            last[note] = each.number
            new.append(each)
    if not new:
        return
    transaction.execute(COUNT, [queued(each) for each in new])
    notes = [{"name": name, "value": str(number)} for name, number in last.items()]
    transaction.execute(NOTE_COUNTED[transaction.dialect], notes)
    if any(each.number == 1 for each in new):
        oldest = _note_of(new_execution_id(utc_now() - _NOTES_KEPT))
        transaction.execute(FORGET_RECORDERS, {"oldest": oldest})


def _last_counted(transaction: Transaction, executions: list[Counted]) -> dict[str, int]:
    """Return the notes of the recorders of executions, and lock them."""
    names = sorted({_note_of(each.recorder) for each in executions})
    # This waits for a transaction that counts them at this moment.
    notes = [{"name": name, "value": "0"} for name in names]
    transaction.execute(NOTE_NEW[transaction.dialect], notes)
    found = transaction.execute(LAST_COUNTED, {"names": names})
    return {name: int(number) for name, number in found}


def _note_of(recorder: UUID | None) -> str:
    assert recorder is not None
    return f"{RECORDER}{recorder.hex}"


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
    transaction: Transaction,
    batch: Batch,
    result: BatchResult,
    statements: OutcomeStatements,
    *,
    may_exist: bool,
) -> None:
    """Write the outcomes of a batch, and list all ended rows in the order of the batch."""
    inserted = {row["id"] for row in result.ended}
    result.ended.clear()
    known = [outcome for outcome in batch.outcomes if _is_plain(outcome)]
    all_ended = not known or _end_many(transaction, known, statements) == len(known)
    for operation in batch.operations:
        if not isinstance(operation, Outcome):
            if isinstance(operation, dict) and operation["id"] in inserted:
                result.ended.append(operation)
        elif all_ended and _is_plain(operation):
            result.ended.append(operation.ended_row(statements.retention))
        else:
            try:
                record = _end_once(transaction, operation, statements, may_exist=may_exist)
            except (ExecutionNotFound, ExecutionAlreadyFinished) as refusal:
                result.refused.append((operation, refusal))
            else:
                result.ended.extend([] if record is None else [values_of(record)])


def _is_plain(outcome: Outcome) -> bool:
    """Return whether an outcome has a known row and sets no other columns, such as progress."""
    return outcome.row is not None and outcome.values.keys() <= _OUTCOME_COLUMNS


def _end_many(
    transaction: Transaction, outcomes: list[Outcome], statements: OutcomeStatements
) -> int:
    """End executions by their ids, in one statement without rules, and return their number."""
    parameters: dict[Any, list[dict[str, Any]]] = {}
    for outcome in outcomes:
        row = outcome.ended_row(statements.retention)
        values = {name: row[name] for name in OUTCOME_COLUMNS}
        statement = statements.finish_many[row["status"]]
        parameters.setdefault(statement, []).append(values | row_parameters(row))
    return sum(transaction.execute(each, some).rowcount for each, some in parameters.items())


def _end_once(
    transaction: Transaction,
    outcome: Outcome,
    statements: OutcomeStatements,
    *,
    may_exist: bool,
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
    record, is_new = end(transaction, outcome, statements)
    is_this = record.completed_at == outcome.completed_at(record.started_at)
    return record if is_new or is_this else None
