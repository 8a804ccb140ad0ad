"""Other runs of a task: those that run, and those that were killed."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any
from uuid import UUID

from jobhistory.cli import run_file
from jobhistory.cli.lines import say, shortened
from jobhistory.query.overlap import Overlap

if TYPE_CHECKING:
    from jobhistory.schema import HistoryRecord
    from jobhistory.store import HistoryStore

LOST_AFTER = timedelta(minutes=1)
"""How long after its last heartbeat a run counts as lost."""


def start_alone(store: HistoryStore, row: dict[str, Any]) -> HistoryRecord | None:
    """Record a start, unless another execution of the task runs; return that one."""
    internals = store.internals
    row = row | {"heartbeat_at": row["started_at"]}
    claim = internals.history.claim(row, _rivals(row["task_identifier"]), row["started_at"])
    _tell(claim.lost)
    return claim.holder


def end_lost(store: HistoryStore, task: str) -> None:
    """End the executions of a task whose run was killed, and tell of them on standard error."""
    internals = store.internals
    _tell(internals.history.end_lost(_rivals(task), internals.rows.now()))


def why_skipped(store: HistoryStore, holder: HistoryRecord | str) -> str:
    """Return why a run is skipped, as its record says.

    Args:
        holder: the execution that runs, or the id of one on this machine.
    """
    record = store.get(UUID(holder)) if isinstance(holder, str) else holder
    if record is None:  # it began while history could not be reached
        return f"skipped: execution {holder} is running on this machine"
    why = (
        f"skipped: execution {record.id} of worker {record.worker_id} has been running since "
        f"{record.started_at:%Y-%m-%dT%H:%M:%SZ}"
    )
    if record.heartbeat_at is None and run_file.is_running(record) is None:
        why += "; it sends no heartbeats, so 'jobhistory reap' must end it if it is lost"
    return why


def _rivals(task: str) -> Overlap:
    return Overlap(task, run_file.is_running, LOST_AFTER)


def _tell(lost: Sequence[HistoryRecord]) -> None:
    for record in lost:
        run_file.forget(record.id)
    if not lost:
        return
    first = lost[0]
    task, since = shortened(first.task_identifier), f"{first.started_at:%Y-%m-%dT%H:%M:%SZ}"
    if len(lost) == 1:
        say(f"the run of {task} from {since} on {first.worker_id} was lost, and has failed")
    else:
        say(f"{len(lost)} runs of {task} since {since} were lost, and have failed")
