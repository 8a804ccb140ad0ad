"""Do something once a session's transaction has committed, and undo it if that never happens."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from sqlalchemy import event
from sqlalchemy.orm import Session, SessionTransaction

_KEY = "jobhistory.after_commit"

Action = Callable[[], None]


@dataclass(frozen=True)
class _Waiting:
    on_commit: Action
    on_rollback: Action


def after_commit(session: Session, on_commit: Action, on_rollback: Action = lambda: None) -> None:
    """Call one of two functions when the outermost transaction of a session has ended.

    `on_commit` is called once it has committed, `on_rollback` if it or the innermost savepoint that
    is open now is rolled back. They are called in the order of these calls, rollbacks in reverse.
    """
    if _KEY not in session.info:
        session.info[_KEY] = _Transactions(session)
    transactions: _Transactions = session.info[_KEY]
    transactions.add(_Waiting(on_commit, on_rollback))


class _Transactions:
    """What waits for the end of each open transaction and savepoint of one session."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._waiting: dict[SessionTransaction, list[_Waiting]] = {}
        event.listen(session, "after_commit", self._after_commit)
        event.listen(session, "after_transaction_end", self._after_end)

    def add(self, waiting: _Waiting) -> None:
        self._waiting.setdefault(self._innermost(), []).append(waiting)

    def _innermost(self) -> SessionTransaction:
        session = self._session
        # Any use of a session begins its transaction, and so does this one.
        return session.get_nested_transaction() or session.get_transaction() or session.begin()

    def _after_commit(self, session: Session) -> None:
        # Not at the transaction's end: closing the connection, in between, may fail.
        transaction = self._innermost()
        waiting = self._waiting.pop(transaction, [])
        if transaction.nested:
            self._waiting.setdefault(_enclosing(transaction), []).extend(waiting)
        else:
            for each in waiting:
                each.on_commit()

    def _after_end(self, session: Session, transaction: SessionTransaction) -> None:
        # What has committed is not here any more.
        for each in reversed(self._waiting.pop(transaction, [])):
            each.on_rollback()


def _enclosing(savepoint: SessionTransaction) -> SessionTransaction:
    transaction = savepoint.parent
    # A flush opens a level of its own, which neither commits nor rolls back by itself.
    while transaction is not None and not transaction.nested and transaction.parent is not None:
        transaction = transaction.parent
    assert transaction is not None
    return transaction
