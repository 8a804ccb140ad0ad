"""The runs of this machine that were killed, which `jobhistory reap` ends."""

from __future__ import annotations

from typing import Any

from jobhistory._runtime.batches import Batches
from jobhistory.cli import run_file
from jobhistory.execution.status import Status
from jobhistory.query.criteria import HistoryQuery
from jobhistory.query.lost import LostQuery
from jobhistory.store import HistoryStore

_AT_ONCE = 1000


def end_killed_runs(store: HistoryStore, **criteria: Any) -> int:
    """Mark the runs as failed that were killed together with their commands; return their number.

    Args:
        criteria: those that the executions must meet as well.
    """
    count, killed = 0, run_file.killed_here()
    if killed:
        internals = store.internals
        query = HistoryQuery(limit=_AT_ONCE, **criteria)
        lost = LostQuery(query, None, None, ids=frozenset(killed))
        batches = Batches("reap_lost", _AT_ONCE, None, None)
        count = internals.history.reap_lost(lost, internals.rows.now(), batches)
    for id_ in killed:
        record = store.get(id_)  # it may be in another database
        if record is not None and record.status != Status.STARTED:
            run_file.forget(id_)
    return count
