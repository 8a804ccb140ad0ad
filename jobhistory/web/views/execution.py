"""One execution: what is known of it, and how it compares to others."""

from __future__ import annotations

import json
from collections.abc import Generator, Sequence
from http import HTTPStatus
from typing import Any
from uuid import UUID

from jobhistory._runtime.plain_json import plain_json
from jobhistory.execution.status import Status
from jobhistory.execution.tracebacks import parts_of
from jobhistory.query.criteria import HistoryQuery
from jobhistory.query.reports import TaskStats
from jobhistory.query.usual import Usual, elapsed_ms
from jobhistory.schema import COLUMN_NAMES, HistoryRecord
from jobhistory.web.access import HIDDEN_COLUMNS
from jobhistory.web.asking import Ask, Steps, ask
from jobhistory.web.context import Context
from jobhistory.web.errors import Refused, not_found
from jobhistory.web.explaining import sentences, why_not_replayable
from jobhistory.web.http import Answer
from jobhistory.web.trees import tree
from jobhistory.web.usual import Comparison, Expectation, ask_week, execution_times, queue_times
from jobhistory.web.waterfall import waterfall

_MOST_ATTEMPTS = 20
_MOST_CORRELATED = 200
_LAST_RUNS = 200
_TREES = ("payload", "result", "partial_results")


def execution(page: Context) -> Steps:
    """Show one execution, which the URL names."""
    record = yield from _named(page)
    attempts = yield ask(
        "get_by_job_id", record.job_id, limit=_MOST_ATTEMPTS, reads="one page, from an index"
    )
    correlated = yield ask(
        "get_by_correlation_id",
        record.correlation_id,
        limit=_MOST_CORRELATED,
        reads="one page, from an index",
    )
    comparisons, expectation = yield from _compared(page, record)
    parts = parts_of(record.error_stack or "")
    rows = waterfall(_with(correlated, record), page.now)
    return page.render(
        "execution.html",
        record=record,
        sentences=list(sentences(record)),
        attempts=sorted(_with(attempts, record), key=lambda each: (each.started_at, each.id)),
        has_more_attempts=len(attempts) == _MOST_ATTEMPTS,
        rows=rows if len(rows) > 1 else [],
        has_more_rows=len(correlated) == _MOST_CORRELATED,
        comparisons=comparisons,
        expectation=expectation,
        elapsed=elapsed_ms(record, page.now),
        parts_of_stack=parts,
        has_own_frames=any(part.is_own for part in parts),
        steps=_steps(record),
        trees=[(name, _tree(record, name)) for name in _TREES],
        trace_url=page.settings.links.trace(record),
        logs_url=page.settings.links.logs(record),
        refusal=_refusal(page, record, attempts),
    )


def execution_json(page: Context) -> Steps:
    """Send all of one execution as JSON."""
    record = yield from _named(page)
    names = [name for name in COLUMN_NAMES if page.shows_payloads or name not in HIDDEN_COLUMNS]
    row = {name: plain_json(getattr(record, name)) for name in names}
    # What present= returns may be anything.
    body = json.dumps(row, default=str, indent=2).encode()
    disposition = ("Content-Disposition", f'attachment; filename="execution-{record.id}.json"')
    return Answer(body, 200, "application/json", (disposition,))


def _named(page: Context) -> Generator[Ask, Any, HistoryRecord]:
    text = (page.request.parameter("id") or "").strip()
    try:
        id_ = UUID(text)
    except ValueError:
        raise Refused(
            HTTPStatus.BAD_REQUEST,
            "Name an execution by its id, as in "
            "execution?id=01965b20-0000-7000-8000-000000000000; lists of executions link to them.",
        ) from None
    record: HistoryRecord | None = yield ask("get", id_, reads="one execution, by its id")
    if record is None:
        raise not_found(f"There is no execution with the id {id_}, or it has expired.")
    return record


def _compared(
    page: Context, record: HistoryRecord
) -> Generator[Ask, Any, tuple[list[Comparison], Expectation | None]]:
    """Return how the times of an execution compare to those of its task, and when it should end."""
    task, start = record.task_identifier, record.started_at
    found: list[TaskStats] = yield ask_week([task], start, page.now)
    last: list[HistoryRecord] = yield ask(
        "query",
        HistoryQuery(task_identifier=task, to=start, limit=_LAST_RUNS + 1),
        reads="one page, from an index",
    )
    others = [each for each in last if each.id != record.id][:_LAST_RUNS]
    stats = found[0] if found else None
    took = Usual.of(stats, execution_times)
    is_running = record.status is Status.STARTED
    run_time = elapsed_ms(record, page.now) if is_running else record.execution_time_ms
    comparisons = [
        Comparison.of(
            "Time to run",
            run_time,
            (each.execution_time_ms for each in others),
            took,
            has_ended=not is_running,
        ),
        Comparison.of(
            "Time in the queue",
            record.queue_time_ms,
            (each.queue_time_ms for each in others),
            Usual.of(stats, queue_times),
        ),
    ]
    expectation = Expectation.of(record, took, page.now) if is_running else None
    return [each for each in comparisons if each], expectation


def _with(records: Sequence[HistoryRecord], record: HistoryRecord) -> list[HistoryRecord]:
    """Return the records and, if it is not among them, one more."""
    return [*(each for each in records if each.id != record.id), record]


def _steps(record: HistoryRecord) -> list[tuple[str, Any]]:
    """Return the steps of an execution, each after a word for how it ended."""
    found: list[tuple[str, Any]] = []
    for word, steps in (("completed", record.completed_steps), ("failed", record.failed_steps)):
        # What present= returns may be anything.
        found += [(word, step) for step in (steps if isinstance(steps, list) else [steps])]
    return [(word, step) for word, step in found if step is not None]


def _tree(record: HistoryRecord, name: str) -> Any:
    value = getattr(record, name)
    return None if value is None else tree(value)


def _refusal(page: Context, record: HistoryRecord, attempts: Sequence[HistoryRecord]) -> str | None:
    """Return why an execution cannot be replayed; `None` if it probably can be."""
    newest = attempts[0] if attempts else record
    is_whole = page.shows_payloads and page.settings.present is None
    return why_not_replayable(record, newest, is_whole=is_whole)
