"""The recording methods that `Recorder` and `AsyncRecorder` share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, Generic, TypeVar, Unpack
from uuid import UUID

from jobhistory.base_store import which_of
from jobhistory.execution.batch import Operation
from jobhistory.execution.job import PartialResults
from jobhistory.execution.rows import RowBuilder
from jobhistory.schema import HistoryRecord, plain
from jobhistory.typing import Duration, ErrorLike, Id, JobLike, Milliseconds, RecordFields

R_co = TypeVar("R_co", covariant=True)


class RecordingCalls(ABC, Generic[R_co]):
    """The recording methods of a store, for a recorder: they write later and return no record.

    Each call checks its arguments and turns them into an operation at once. Thread-safe.
    """

    _rows: RowBuilder

    @abstractmethod
    def _accept(self, operation: Operation) -> R_co:
        """Accept an operation when there is room for it."""

    def record_start(
        self,
        job: JobLike | Mapping[str, Any],
        worker_id: Id,
        correlation_id: Id,
        *,
        history_retention: Duration | None = None,
        execution_id: UUID | None = None,
        parent_id: UUID | None = None,
        traceparent: str | None = None,
    ) -> R_co:
        """Do what `HistoryStore.record_start` does, in the background.

        Raises:
            InvalidInput: if an argument cannot be used.
            RecorderFull: if there is no room and the recorder does not wait for it.
            RecorderClosed: if the recorder is closed.
        """
        row = self._rows.started(
            job,
            worker_id,
            correlation_id,
            history_retention,
            execution_id,
            parent_id=parent_id,
            traceparent=traceparent,
        )
        return self._accept(row)

    def record_completion(
        self,
        job_id: Id | HistoryRecord | None = None,
        worker_id: Id | None = None,
        correlation_id: Id | None = None,
        execution_time_ms: Milliseconds | None = None,
        *,
        result: Any = None,
        execution_id: UUID | None = None,
    ) -> R_co:
        """Do what `HistoryStore.record_completion` does, in the background.

        Raises the errors of `record_start`.
        """
        which = which_of(job_id, worker_id, correlation_id, execution_id)
        return self._accept(self._rows.completed(which, execution_time_ms, result))

    def record_failure(
        self,
        job_id: Id | HistoryRecord | None = None,
        worker_id: Id | None = None,
        correlation_id: Id | None = None,
        execution_time_ms: Milliseconds | None = None,
        error: ErrorLike | None = None,
        *,
        will_retry: bool | None = None,
        execution_id: UUID | None = None,
    ) -> R_co:
        """Do what `HistoryStore.record_failure` does, in the background.

        Raises the errors of `record_start`.
        """
        which = which_of(job_id, worker_id, correlation_id, execution_id)
        return self._accept(self._rows.failed(which, execution_time_ms, error, will_retry))

    def record_partial_success(
        self,
        job_id: Id | HistoryRecord | None = None,
        worker_id: Id | None = None,
        correlation_id: Id | None = None,
        execution_time_ms: Milliseconds | None = None,
        partial_results: PartialResults | Mapping[str, Any] | None = None,
        *,
        execution_id: UUID | None = None,
    ) -> R_co:
        """Do what `HistoryStore.record_partial_success` does, in the background.

        Raises the errors of `record_start`.
        """
        which = which_of(job_id, worker_id, correlation_id, execution_id)
        return self._accept(self._rows.partly_succeeded(which, execution_time_ms, partial_results))

    def record_cancellation(
        self,
        job_id: Id | HistoryRecord | None = None,
        worker_id: Id | None = None,
        correlation_id: Id | None = None,
        execution_time_ms: Milliseconds | None = None,
        *,
        reason: str | None = None,
        execution_id: UUID | None = None,
    ) -> R_co:
        """Do what `HistoryStore.record_cancellation` does, in the background.

        Raises the errors of `record_start`.
        """
        which = which_of(job_id, worker_id, correlation_id, execution_id)
        return self._accept(self._rows.cancelled(which, execution_time_ms, reason))

    def record_execution(
        self,
        /,
        execution: HistoryRecord | Mapping[str, Any] | None = None,
        *,
        execution_id: UUID | None = None,
        **fields: Unpack[RecordFields],
    ) -> R_co:
        """Do what `HistoryStore.record_execution` does, in the background.

        Raises the errors of `record_start`.
        """
        if execution_id is not None:
            fields["id"] = execution_id
        return self._accept(self._rows.ended(plain(execution), fields))
