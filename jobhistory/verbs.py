"""What can be recorded and asked, whatever holds the history and whoever commits."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Protocol

from jobhistory.criteria import HistoryQuery
from jobhistory.errors import InvalidInput
from jobhistory.executions import ExecutionKey, Outcome, PartialResults, RowBuilder
from jobhistory.models import HistoryRecord
from jobhistory.retention import Duration
from jobhistory.texts import Id, id_text

Row = dict[str, Any]


class _History(Protocol):
    """Where executions are written, and found again."""

    def insert(self, row: Row) -> HistoryRecord: ...

    def insert_ended(self, row: Row) -> HistoryRecord: ...

    def insert_many_ended(self, rows: list[Row]) -> None: ...

    def end(self, outcome: Outcome) -> HistoryRecord: ...

    def find(self, query: HistoryQuery) -> list[HistoryRecord]: ...

    def find_with(self, column: str, value: str) -> list[HistoryRecord]: ...


class Verbs:
    """The methods that every kind of store has."""

    def __init__(self, rows: RowBuilder, history: _History) -> None:
        self._rows = rows
        self._history = history

    def record_start(
        self,
        job: Any,
        worker_id: Id,
        correlation_id: Id,
        *,
        history_retention: Duration | None = None,
    ) -> HistoryRecord:
        """Record that a worker has started to execute a job, now.

        Args:
            job: a `Job`, any object with its attributes, or a mapping with its keys: `id`,
                `task_identifier`, and optionally `payload`, `attempts`, `run_at`. The time from
                `run_at` to the start is the record's `queue_time_ms`.
            worker_id: who executes it.
            correlation_id: what ties this execution to others: a request, a trace, a workflow.
            history_retention: how long this row lives; `None` for as long as the store's others.

        Returns:
            The record, with status `started`. The ring buffer gets it when it has ended.

        Raises:
            InvalidInput: if an argument cannot be used. What the payload holds is never a reason.
        """
        return self._history.insert(
            self._rows.started(job, worker_id, correlation_id, history_retention)
        )

    def record_completion(
        self, job_id: Id, worker_id: Id, correlation_id: Id, execution_time_ms: float
    ) -> HistoryRecord:
        """Record that the newest started execution of these ids did its work.

        Args:
            job_id, worker_id, correlation_id: the ids that `record_start` was given.
            execution_time_ms: how long it took, in milliseconds, rounded to whole ones.

        Returns:
            The ended record. If the execution had already ended in the same way, as when a call is
            made again whose answer got lost, that record; the ring buffer is then left alone.

        Raises:
            ExecutionNotFound: if no execution of these ids has started.
            ExecutionAlreadyFinished: if it had ended in another way. Of two callers who race,
                exactly one wins, and this is what the other gets.
            InvalidInput: if an argument cannot be used.
        """
        key = ExecutionKey.of(job_id, worker_id, correlation_id)
        return self._history.end(self._rows.completed(key, execution_time_ms))

    def record_failure(
        self,
        job_id: Id,
        worker_id: Id,
        correlation_id: Id,
        execution_time_ms: float,
        error: BaseException | str,
    ) -> HistoryRecord:
        """Record that the newest started execution of these ids failed, and why.

        Args:
            error: the exception, of which type, text and traceback with its causes are kept, or a
                text, whose type is then `"Error"`.

        The other arguments, what is returned and what is raised are those of `record_completion`.
        """
        key = ExecutionKey.of(job_id, worker_id, correlation_id)
        return self._history.end(self._rows.failed(key, execution_time_ms, error))

    def record_partial_success(
        self,
        job_id: Id,
        worker_id: Id,
        correlation_id: Id,
        execution_time_ms: float,
        partial_results: PartialResults | Mapping[str, Any],
    ) -> HistoryRecord:
        """Record that the newest started execution of these ids succeeded in part.

        Args:
            partial_results: a `PartialResults` or a mapping with its keys: `completed_steps`,
                `failed_steps`, `retry_from_step`, `results`; each may be left out.

        The other arguments, what is returned and what is raised are those of `record_completion`.
        """
        key = ExecutionKey.of(job_id, worker_id, correlation_id)
        return self._history.end(
            self._rows.partly_succeeded(key, execution_time_ms, partial_results)
        )

    def record_execution(
        self, execution: HistoryRecord | Mapping[str, Any] | None = None, **fields: Any
    ) -> HistoryRecord:
        """Record an execution that has ended, in one INSERT, for who learns of it at its end.

        Args:
            execution: a record, or a mapping with its fields as keys: `job_id`, `worker_id`,
                `correlation_id`, `task_identifier` and `status` at least. In place of the status
                and the fields of a failure it may have an `error`, an exception or a text.
            fields: the same by name; they take the place of those of the mapping.

        Returns:
            The record. What was not given of `completed_at`, `started_at` and `expires_at` is now,
            so long before it as `execution_time_ms` says, and as the store's retention says.

        Raises:
            InvalidInput: if a field is missing, unknown or unusable, or the status no outcome.
        """
        return self._history.insert_ended(self._rows.ended(execution, fields))

    def record_many(self, executions: Iterable[HistoryRecord | Mapping[str, Any]]) -> int:
        """Record many executions that have ended, all or none, and say how many they are.

        They are written in one transaction, by the fastest way that the database has: COPY on
        PostgreSQL with psycopg, one INSERT executed many times elsewhere. All are held in memory;
        thousands at a time are a good measure.

        Args:
            executions: each as `record_execution` takes it.

        Raises:
            InvalidInput: if one cannot be used, saying which; nothing is written then.
        """
        rows = []
        for index, execution in enumerate(executions):
            which = f"executions[{index}]"
            try:
                rows.append(self._rows.ended(execution, argument=which))
            except InvalidInput as error:
                argument = (
                    error.argument if error.argument == which else f"{which}.{error.argument}"
                )
                raise InvalidInput(argument, error.value, error.remedy) from None
        self._history.insert_many_ended(rows)
        return len(rows)

    def get_by_job_id(self, job_id: Id) -> list[HistoryRecord]:
        """All executions of a job, newest first."""
        return self._history.find_with("job_id", id_text(job_id, "job_id"))

    def get_by_correlation_id(self, correlation_id: Id) -> list[HistoryRecord]:
        """All executions that a correlation id ties together, newest first."""
        return self._history.find_with("correlation_id", id_text(correlation_id, "correlation_id"))

    def query(
        self, criteria: HistoryQuery | Mapping[str, Any] | None = None, **named: Any
    ) -> list[HistoryRecord]:
        """The executions that meet all criteria, newest first, 100 at the most without a `limit`.

        Criteria are given by name, as a mapping, or as a `HistoryQuery`, which lists them; named
        ones take the place of those of the same name. A mapping may say `"from"` for `from_`.

        Raises:
            InvalidInput: if a criterion is unknown or cannot be read.
        """
        return self._history.find(HistoryQuery.of(criteria, named))
