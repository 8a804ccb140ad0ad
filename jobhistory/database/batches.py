"""Long work in short transactions: expiry, and the search for lost workers."""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import datetime, timedelta
from time import monotonic
from typing import Protocol

from sqlalchemy.exc import DBAPIError, IntegrityError

from jobhistory._runtime.durations import parse_duration
from jobhistory.database.driver_errors import sqlstate
from jobhistory.database.statements.expire import BEGINNING, Branch, Deleted, Expiry, Place, Reaped
from jobhistory.errors import check_count, reason
from jobhistory.query.criteria import HistoryQuery
from jobhistory.typing import Duration

logger = logging.getLogger(__name__)

# The classes of the errors that a trigger of the app raises or causes: "triggered data change
# violation", as if it has updated the row; "unhandled user-defined exception"; PL/pgSQL's own.
_REFUSALS = ("27", "45", "P0")
_SHRINK = 4


class History(Protocol):
    """What the batches are made of, with and without a database."""

    def count_expired(self, now: datetime) -> int: ...  # noqa: D102

    def delete_expired(  # noqa: D102
        self, branch: Branch | None, cutoff: datetime, low: Place, batch_size: int
    ) -> Deleted: ...

    def first_expired(  # noqa: D102
        self, branch: Branch | None, cutoff: datetime, low: Place
    ) -> Place | None: ...

    def reap(self, query: HistoryQuery, now: datetime, after: Place) -> Reaped: ...  # noqa: D102


class Batches:
    """Makes batches until there is no more to do, or the time is up."""

    def __init__(
        self,
        name: str,
        size: int,
        time_limit: Duration | None,
        progress: Callable[[int], None] | None,
    ) -> None:
        check_count(size, "batch_size", example=1000)
        self._name = name
        self._limit = timedelta.max
        if time_limit is not None:
            self._limit = parse_duration(time_limit, "time_limit")
        self._progress = progress

    def run(self, do_batch: Callable[[], tuple[int, bool]]) -> int:
        """Call until it says that this was the last batch; return how much all of them did."""
        begun = monotonic()
        total = 0
        while True:
            done, is_last = do_batch()
            total += done
            if self._progress is not None:
                self._progress(total)
            if is_last:
                return total
            if monotonic() - begun >= self._limit.total_seconds():
                logger.warning(
                    "%s() reached its time limit of %s; rows may be left", self._name, self._limit
                )
                return total


class Expiring:
    """Deletes what has expired, branch by branch, and steps over rows that are kept.

    A batch that deletes all that it finds lets the next one begin at the moment at which its last
    row expired. Once rows are kept, that place would not move on where many rows expire at the same
    moment. From then on the place is exact: behind a moment and an id. That is not the rule from
    the beginning, as many rows of one moment would have to be sorted for each batch.
    """

    def __init__(self, history: History, expiry: Expiry, batch_size: int) -> None:
        self._history = history
        self._expiry = expiry
        self._batch_size = self._size = batch_size
        self._branches = list(expiry.branches)
        self._low = BEGINNING
        self._kept = 0
        self._refused = 0
        self._refusal = ""

    def delete_batch(self) -> tuple[int, bool]:
        """Make one batch; return the number of deleted rows, and whether this was the last one."""
        size = self._size
        try:
            batch = self._history.delete_expired(self._branches[0], self._cutoff, self._low, size)
        except DBAPIError as error:
            state = sqlstate(error) or ""
            if not isinstance(error, IntegrityError) and not state.startswith(_REFUSALS):
                raise
            return 0, self._step_back(error)
        self._size = min(self._batch_size, size * _SHRINK)
        if batch.deleted < batch.found and self._low.id is None:
            self._low = self._low.exact()  # and look at those that were kept once more
            return batch.deleted, False
        self._kept += max(0, batch.found - batch.deleted)
        self._low = batch.last or self._low
        return batch.deleted, batch.found < size and self._next_branch()

    def report(self) -> None:
        """Log how many rows were kept, and why that may be."""
        kept = self._kept
        if self._expiry.has_policies and not self._branches:
            # Policies hide rows from a batch that a question may see.
            kept = max(kept, self._history.count_expired(self._cutoff) - self._refused)
        why = []
        if self._refused:
            why.append(
                f"{self._refused} are in use ({self._refusal}): declare foreign keys to "
                "job_history with ON DELETE CASCADE or ON DELETE SET NULL"
            )
        if kept:
            why.append(
                f"a trigger, or row-level security without a policy for UPDATE and DELETE, "
                f"keeps {kept}"
            )
        if why:
            logger.warning(
                "expire() left %d of the expired rows; %s", self._refused + kept, "; ".join(why)
            )

    @property
    def _cutoff(self) -> datetime:
        return self._expiry.cutoff

    def _next_branch(self) -> bool:
        """Go on to the next branch; return whether there is none."""
        del self._branches[0]
        self._low, self._size = BEGINNING, self._batch_size
        return not self._branches

    def _step_back(self, error: DBAPIError) -> bool:
        """Make the next batch smaller, or step over a row that cannot be deleted by itself.

        A row that is refused takes the whole batch with it. So batches get smaller until the row is
        alone in one, and get larger again behind it.
        """
        self._low = self._low.exact()
        if self._size > 1:
            self._size = max(1, self._size // _SHRINK)
            return False
        first = self._history.first_expired(self._branches[0], self._cutoff, self._low)
        if first is None:  # somebody else has deleted it, or holds it locked
            return self._next_branch()
        self._low = first
        self._refused += 1
        self._refusal = self._refusal or reason(error)
        return False


class Reaping:
    """Ends executions whose worker is lost, and steps over those that are kept as they are."""

    def __init__(self, history: History, query: HistoryQuery, now: datetime) -> None:
        self._history = history
        self._query = query
        self._now = now
        self._after = BEGINNING
        self._kept = 0

    def reap_batch(self) -> tuple[int, bool]:
        """Make one batch; return the number of ended rows, and whether this was the last one."""
        reaped = self._history.reap(self._query, self._now, self._after)
        self._after = reaped.last or self._after
        self._kept += reaped.found - len(reaped.rows)
        return len(reaped.rows), reaped.found < (self._query.limit or 0)

    def report(self) -> None:
        """Log how many rows were kept, and why that may be."""
        if self._kept:
            logger.warning(
                "reap_lost() left %d of the lost executions as they are; a trigger keeps them",
                self._kept,
            )
