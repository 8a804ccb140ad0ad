"""The retention rules that a database follows, and how changed ones reach the rows."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any
from uuid import UUID

from jobhistory._runtime.clock import utc_now
from jobhistory.database.statements import rules as statements
from jobhistory.database.statements.expire import BEGINNING, Place
from jobhistory.database.transaction import Purpose, RunsTransactions, Transaction
from jobhistory.execution.retention import Retention

_BEGINNING = BEGINNING.exact()


@dataclass(frozen=True)
class Applied:
    """The retention that rows follow, as the database keeps it.

    Attributes:
        retention: the retention of new rows, and of rows up to `after`.
        replaces: the retentions that other rows may follow; empty once `retention` is applied.
        after: the place up to which it is applied.
    """

    retention: Retention
    replaces: tuple[Retention, ...] = ()
    after: Place = _BEGINNING

    def changed_to(self, declared: Retention) -> Applied:
        """Return what to do if a store declares a retention."""
        if declared == self.retention:
            return self
        # A call that was interrupted may have left rows that follow any of these.
        others = dict.fromkeys((self.retention, *self.replaces))
        return Applied(declared, tuple(each for each in others if each != declared))

    def to_text(self) -> str:
        """Return it as JSON text."""
        values: dict[str, Any] = self.retention.to_dict()
        if self.replaces:
            values["replaces"] = [each.to_dict() for each in self.replaces]
            values["after"] = [self.after.moment.isoformat(), str(self.after.id)]
        return json.dumps(values)

    @classmethod
    def from_text(cls, text: str) -> Applied:
        """Return what `to_text` converted."""
        values, now = json.loads(text), utc_now()
        retention = Retention.of(values, now=now)
        if "replaces" not in values:
            return cls(retention)
        moment, id_ = values["after"]
        replaces = tuple(Retention.of(each, now=now) for each in values["replaces"])
        return cls(retention, replaces, Place(datetime.fromisoformat(moment), UUID(id_)))


def read_applied(transaction: Transaction) -> tuple[str | None, Applied | None]:
    """Return the retention that the database keeps, as text and read; `None` if there is none."""
    text = transaction.execute(statements.READ).scalar_one_or_none()
    return text, None if text is None else Applied.from_text(text)


def in_force(applied: Applied | None, declared: Retention | None) -> Applied | None:
    """Return the retention that `expire` follows; `None` if nobody has declared rules.

    Args:
        applied: what the database keeps.
        declared: the retention of the store; `None` if it declares no rules.
    """
    if declared is None:
        return applied
    if applied is None:  # until now, this store kept rows without rules
        applied = Applied(Retention(declared.default))
    return applied.changed_to(declared)


class Applying:
    """Brings the retention of a store to the rows, in batches, in the order of their start.

    Each batch is one transaction, which also moves the place in the database. So an interrupted
    call goes on there, in any process, and simultaneous calls share the work.

    Args:
        declared: the retention of the store; `None` if it declares no rules.

    Attributes:
        retention: the retention that is applied, once `apply_batch` has returned `True`.
    """

    def __init__(
        self, history: RunsTransactions, declared: Retention | None, batch_size: int
    ) -> None:
        self.retention: Retention | None = None
        self._history = history
        self._declared = declared
        self._batch_size = batch_size

    def apply_batch(self) -> bool:
        """Apply the retention to one batch of rows; return whether it is applied to all."""
        if self._history.run(Purpose.MAINTAIN, self._is_applied):
            return True
        return self._history.run(Purpose.MAINTAIN_AS_ONE, self._apply)

    def _is_applied(self, transaction: Transaction) -> bool:
        _, applied = read_applied(transaction)
        wanted = in_force(applied, self._declared)
        self.retention = None if wanted is None else wanted.retention
        return wanted is None or (wanted == applied and not wanted.replaces)

    def _apply(self, transaction: Transaction) -> bool:
        text, applied = read_applied(transaction)
        wanted = in_force(applied, self._declared)
        if wanted is None:
            return True
        last = self._last_of_batch(transaction, wanted)
        follow_up = Applied(wanted.retention) if last is None else replace(wanted, after=last)
        # Before the rows, because whoever moves the place owns the rows up to it.
        if not _replace(transaction, text, follow_up.to_text()):
            return False
        if wanted.replaces:
            _change_rows(transaction, wanted, last)
        return last is None

    def _last_of_batch(self, transaction: Transaction, wanted: Applied) -> Place | None:
        """Return the place of the last row of the next batch; `None` if no row comes after it."""
        if not wanted.replaces:
            return None
        parameters = _parameters("after", wanted.after) | {"skipped": self._batch_size - 1}
        row = transaction.execute(statements.LAST_OF_BATCH, parameters).one_or_none()
        return row and Place(*row)


def _change_rows(transaction: Transaction, wanted: Applied, last: Place | None) -> None:
    """Apply a retention to the rows up to a place, or to all that are left."""
    parameters = _parameters("after", wanted.after)
    if last is not None:
        parameters |= _parameters("last", last)
    statement = statements.apply(wanted.retention, wanted.replaces, up_to=last is not None)
    transaction.execute(statement, parameters)


def _parameters(name: str, place: Place) -> dict[str, Any]:
    return {f"{name}_moment": place.moment, f"{name}_id": place.id}


def _replace(transaction: Transaction, old: str | None, new: str) -> bool:
    """Replace what the database keeps, and return whether it was still `old`."""
    if old is None:
        replaced = transaction.execute(statements.INSERT[transaction.dialect], {"value": new})
    else:
        replaced = transaction.execute(statements.REPLACE, {"old": old, "new": new})
    return replaced.one_or_none() is not None  # the number of inserted rows may be unknown


def numbers_covered(
    transaction: Transaction, applied: Applied, cutoff: datetime
) -> dict[int, tuple[int, int, int]]:
    """Return how many rows each rule covers, and how many `expire` would change and delete.

    The keys are the numbers of the rules, from 0 up, that of the default, and -1 for rows with a
    retention of their own.
    """
    statement = statements.coverage(applied.retention, applied.replaces)
    found: dict[int, tuple[int, int, int]] = {}
    rows = transaction.execute(statement, {"cutoff": cutoff})
    for number, task, count, changed, expired in rows:
        before = found.get(number, (0, 0, 0))
        kept = None if task is None else applied.retention.rules[number].keep_last
        deleted = expired if kept is None else max(0, count - kept)
        found[number] = (before[0] + count, before[1] + changed, before[2] + deleted)
    return found
