"""Pruning: old statistics by hour and by day are deleted. Those by month are kept forever."""

from __future__ import annotations

from datetime import datetime

from jobhistory.database.expiry import earlier
from jobhistory.database.marks import move_mark, read_marks
from jobhistory.database.statements.pruning import DELETE_OLD
from jobhistory.database.transaction import Purpose, RunsTransactions, Transaction
from jobhistory.statistics.cover import Marks
from jobhistory.statistics.keeping import Keeping
from jobhistory.statistics.spans import Span

_BATCH = 5_000


class Pruning:
    """One call that deletes statistics older than they are kept.

    It deletes what is before the marks that it found, and then moves the marks. So whoever has read
    the marks still finds everything after them, until another call deletes it.
    """

    def __init__(self, history: RunsTransactions, keeping: Keeping, now: datetime) -> None:
        self._history = history
        self._keeping = keeping
        self._now = now
        self._found: Marks | None = None

    def prune_batch(self) -> bool:
        """Delete one batch, or else move the marks; return whether it was the last batch."""
        return self._history.run(Purpose.MAINTAIN_AS_ONE, self._prune)

    def _prune(self, transaction: Transaction) -> bool:
        if self._found is None:
            self._found = read_marks(transaction)
        found = self._found
        for span, kept_from in ((Span.HOUR, found.hours_from), (Span.DAY, found.days_from)):
            if kept_from is not None and _delete(transaction, span, kept_from) == _BATCH:
                return False
        wanted = self._keeping.marks(earlier(transaction, self._now))
        for name in ("hours_from", "days_from"):
            before, mark = getattr(found, name), getattr(wanted, name)
            if mark is not None and (before is None or before < mark):
                move_mark(transaction, name, mark)
        return True


def _delete(transaction: Transaction, span: Span, kept_from: datetime) -> int:
    parameters = {"of_span": span.value, "kept_from": kept_from, "batch_size": _BATCH}
    deleted: int = transaction.execute(DELETE_OLD[transaction.dialect], parameters).rowcount
    return deleted
