"""The recording methods that `Recorder` and `AsyncRecorder` share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, Generic, TypeVar

from jobhistory.execution.batch import Operation
from jobhistory.execution.job import PartialResults
from jobhistory.execution.outcome import ExecutionKey
from jobhistory.execution.rows import RowBuilder
from jobhistory.schema import HistoryRecord, plain
from jobhistory.typing import Duration, Id

R_co = TypeVar("R_co", covariant=True)


class RecordingCalls(ABC, Generic[R_co]):
    """Checks the arguments of each call and turns them into an operation at once. Thread-safe."""

    def __init__(self, rows: RowBuilder) -> None:
        self._rows = rows

    @abstractmethod
    def _accept(self, operation: Operation) -> R_co:
        """Accept an operation when there is room for it."""

    def start(
        self,
        job: Any,
        worker_id: Id,
        correlation_id: Id,
        *,
        history_retention: Duration | None = None,
    ) -> R_co:
        """Do what `HistoryStore.record_start` does, in the background.

        Raises:
            InvalidInput: if an argument cannot be used.
            RecorderFull: if there is no room and the recorder does not wait for it.
            RecorderClosed: if the recorder is closed.
        """
        return self._accept(self._rows.started(job, worker_id, correlation_id, history_retention))

    def completion(
        self, job_id: Id, worker_id: Id, correlation_id: Id, execution_time_ms: float
    ) -> R_co:
        """Do what `HistoryStore.record_completion` does, in the background.

        Raises the errors of `start`.
        """
        key = ExecutionKey.of(job_id, worker_id, correlation_id)
        return self._accept(self._rows.completed(key, execution_time_ms))

    def failure(
        self,
        job_id: Id,
        worker_id: Id,
        correlation_id: Id,
        execution_time_ms: float,
        error: BaseException | str,
    ) -> R_co:
        """Do what `HistoryStore.record_failure` does, in the background.

        Raises the errors of `start`.
        """
        key = ExecutionKey.of(job_id, worker_id, correlation_id)
        return self._accept(self._rows.failed(key, execution_time_ms, error))

    def partial_success(
        self,
        job_id: Id,
        worker_id: Id,
        correlation_id: Id,
        execution_time_ms: float,
        partial_results: PartialResults | Mapping[str, Any],
    ) -> R_co:
        """Do what `HistoryStore.record_partial_success` does, in the background.

        Raises the errors of `start`.
        """
        key = ExecutionKey.of(job_id, worker_id, correlation_id)
        return self._accept(self._rows.partly_succeeded(key, execution_time_ms, partial_results))

    def execution(
        self, execution: HistoryRecord | Mapping[str, Any] | None = None, **fields: Any
    ) -> R_co:
        """Do what `HistoryStore.record_execution` does, in the background.

        Raises the errors of `start`.
        """
        return self._accept(self._rows.ended(plain(execution), fields))
