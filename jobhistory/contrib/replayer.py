"""One replay: check an execution, claim it, and enqueue its job."""

from __future__ import annotations

import logging
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from dataclasses import replace as with_values
from typing import Any
from uuid import UUID

from jobhistory.base_store import Internals
from jobhistory.contrib.jobs import Carried, Replay
from jobhistory.contrib.refusals import refusal, refusal_unless_forced
from jobhistory.errors import ExecutionNotFound, InvalidInput, NotReplayable, reason
from jobhistory.execution.labels import REPLAYED_AT
from jobhistory.query.criteria import HistoryQuery
from jobhistory.schema import HistoryRecord, record_from, values_of

logger = logging.getLogger("jobhistory.contrib")

_MOST_TRIES = 5
"""The label may change between two statements, but not each time: then it cannot be written."""


@dataclass(frozen=True)
class Replayed:
    """An execution whose job was enqueued again.

    Args:
        record: the execution. It has the label `replayed_at`, except in a dry run.
        job_id: the id of the new job; `None` in a dry run.
    """

    record: HistoryRecord
    job_id: str | None


class Replayer:
    """Replays one execution after the other. It blocks, and is not thread-safe.

    Args:
        enqueue: enqueues a job and returns its id.
        force, dry_run: as for `replay`.
    """

    def __init__(
        self,
        internals: Internals[Any],
        enqueue: Callable[[Replay], str],
        *,
        force: bool,
        dry_run: bool,
    ) -> None:
        self._history = internals.history
        self._rows = internals.rows
        self._enqueue = enqueue
        self._force = force
        self._dry_run = dry_run
        self._new_jobs: set[str] = set()

    def replay(self, execution_id: UUID) -> Replayed:
        """Replay the execution with an id; see the function `replay`."""
        if not isinstance(execution_id, UUID):
            raise InvalidInput(
                "execution_id", execution_id, "is not a uuid.UUID; pass the id of a record"
            )
        record = self._get(execution_id)
        claim = self._claim(record, None if self._force else self._newest(record))
        return self._enqueue_claimed(claim)

    def take(self, record: HistoryRecord) -> Replayed | NotReplayable | None:
        """Replay an execution that meets the criteria; return `None` to leave it out."""
        if record.will_retry or record.job_id in self._new_jobs:
            return None
        newest = self._newest(record)
        if newest is None or newest.id != record.id:
            return None
        try:
            return self._take(record, newest)
        except ExecutionNotFound:  # it has just expired
            return None

    def replay_or_refuse(self, execution_id: UUID) -> Replayed | NotReplayable:
        """Do what `replay` does, but return the error if it cannot be replayed or enqueued."""
        record = self._get(execution_id)
        return self._take(record, None if self._force else self._newest(record))

    def _take(
        self, record: HistoryRecord, newest: HistoryRecord | None
    ) -> Replayed | NotReplayable:
        try:
            claim = self._claim(record, newest)
        except NotReplayable as refused:
            return refused
        try:
            return self._enqueue_claimed(claim)
        except Exception as error:
            # The error is the framework's, and may quote the URL of the broker.
            why = self._rows.sanitizer.message(reason(error))
            failed = NotReplayable(record, f"it cannot be enqueued: {why}")
            failed.__cause__ = error
            return failed

    def _claim(self, record: HistoryRecord, newest: HistoryRecord | None) -> _Claim:
        """Check whether an execution can be replayed, and label it so that no other call does.

        Raises:
            NotReplayable: if it cannot.
            ExecutionNotFound: if it has just been deleted.
        """
        for _ in range(_MOST_TRIES):
            why_not = refusal(record)
            if why_not is None and not self._force:
                why_not = refusal_unless_forced(record, newest)
            if why_not is not None:
                raise NotReplayable(record, why_not)
            claim = _Claim(record, self._rows.now().isoformat())
            if self._dry_run or self._label(record, claim.before, claim.replayed_at):
                return claim
            record = self._get(record.id)  # another call was faster
        raise NotReplayable(
            record,
            f"its label {REPLAYED_AT} cannot be written; check that the database role may update "
            "the row, and that its outcome is committed",
        )

    def _enqueue_claimed(self, claim: _Claim) -> Replayed:
        if self._dry_run:
            return Replayed(claim.record, None)
        try:
            job_id = self._enqueue(_replay_of(claim.record))
        except Exception:
            self._release(claim)
            raise
        self._new_jobs.add(job_id)
        return Replayed(claim.labelled_record, job_id)

    def _release(self, claim: _Claim) -> None:
        try:
            self._label(claim.record, claim.replayed_at, claim.before)
        except Exception as error:
            logger.error(
                "the execution %s was not replayed, but its label %s could not be removed: %s",
                claim.record.id,
                REPLAYED_AT,
                reason(error),
            )

    def _label(self, record: HistoryRecord, old: str | None, new: str | None) -> bool:
        exchange = self._history.exchange_label
        return bool(exchange(record.id, record.job_id, REPLAYED_AT, old, new))

    def _get(self, id_: UUID) -> HistoryRecord:
        record: HistoryRecord | None = self._history.get(id_)
        if record is None:
            raise ExecutionNotFound(None, None, None, execution_id=id_)
        return record

    def _newest(self, record: HistoryRecord) -> HistoryRecord | None:
        # Two frameworks may use the same ids for jobs of different tasks.
        of_job = HistoryQuery(job_id=record.job_id, task_identifier=record.task_identifier, limit=1)
        return next(iter(self._history.find(of_job)), None)


@dataclass(frozen=True)
class _Claim:
    """An execution that this call replays, and no other one.

    Args:
        replayed_at: the label that says so.
    """

    record: HistoryRecord
    replayed_at: str

    @property
    def before(self) -> str | None:
        """The label of an earlier replay."""
        return (self.record.labels or {}).get(REPLAYED_AT)

    @property
    def labelled_record(self) -> HistoryRecord:
        """The record with the label."""
        labels = {**(self.record.labels or {}), REPLAYED_AT: self.replayed_at}
        return record_from(values_of(self.record) | {"labels": labels})


def _replay_of(record: HistoryRecord) -> Replay:
    payload: Any = deepcopy(record.payload)  # an app may add its own keywords
    return Replay(
        task_identifier=record.task_identifier,
        args=payload["args"],
        kwargs=payload["kwargs"],
        correlation_id=record.correlation_id,
        queue=(record.labels or {}).get("queue"),
        carried=with_values(
            Carried.now(), correlation_id=record.correlation_id, replay_of=record.id
        ),
    )
