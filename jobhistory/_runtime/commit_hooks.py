"""Call functions when a caller's transaction commits or rolls back."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

from sqlalchemy import Connection, event
from sqlalchemy.exc import UnboundExecutionError
from sqlalchemy.orm import Session, SessionTransaction

from jobhistory.errors import reason

logger = logging.getLogger(__name__)

_KEY = "jobhistory.commit_hooks"

Action = Callable[[], None]


@dataclass(frozen=True)
class PendingWrite:
    """A write in a caller's transaction.

    Attributes:
        on_commit: called after the outermost transaction has committed.
        on_rollback: called after it, or a savepoint around the write, has been rolled back.
        is_committed: asks the database. Called after the transaction if no event tells the outcome.
    """

    on_commit: Action
    on_rollback: Action
    is_committed: Callable[[], bool]


class CommitHooks:
    """Follows the transactions of one session, one after the other. For the session's thread.

    It notices savepoints of the session and of its connection, but not those of raw SQL. SQLAlchemy
    reports a commit before it happens, and a listener of the app may raise before its success is
    reported. So if a commit was tried and not confirmed, the database is asked. A session that is
    bound to a connection in a wider transaction counts as committed when it commits.
    """

    @classmethod
    def of(cls, session: Session) -> CommitHooks:
        """Return the hooks of a session; make them at the first call."""
        hooks: CommitHooks | None = session.info.get(_KEY)
        if hooks is None:
            hooks = session.info[_KEY] = cls(session)
        return hooks

    def __init__(self, session: Session) -> None:
        self._session = session
        self._remembered: dict[Any, Any] = {}
        self._remembered_in: SessionTransaction | None = None
        self._reset()
        event.listen(session, "after_commit", self._after_commit, insert=True)
        event.listen(session, "after_rollback", self._after_rollback)
        event.listen(session, "after_transaction_end", self._after_end)

    def _reset(self) -> None:
        self._writes: list[tuple[frozenset[str], PendingWrite]] = []
        self._at_end: list[Callable[[], object]] = []
        self._connection: Connection | None = None
        self._is_commit_tried = False

    def add(self, connection: Connection | None, write: PendingWrite) -> None:
        """Follow a write that was just made on the session's connection.

        Without a connection, only the session's outermost transaction counts.
        """
        savepoints: frozenset[str] = frozenset()
        if connection is not None:
            self._follow(connection)
            savepoints = frozenset(_open_savepoints(connection))
        self._writes.append((savepoints, write))

    def at_end(self, action: Callable[[], object]) -> None:
        """Call an action after the session's transaction has ended and freed its connection."""
        # When a session closes, its connection's transaction ends later than its own.
        if self._session.in_transaction() or self._connection is not None:
            self._at_end.append(action)
        else:
            _quietly(action)

    def remember(self, *keys: Any, value: Any) -> None:
        """Keep a value under keys. The first call in a later transaction drops it."""
        transaction = self._session.get_transaction()
        if transaction is not self._remembered_in:
            self._remembered, self._remembered_in = {}, transaction
        self._remembered |= dict.fromkeys(keys, value)

    def recall(self, key: Any) -> Any:
        """Return the value that was last remembered under a key; `None` if there is none."""
        return self._remembered.get(key)

    def connection(self, **bind_arguments: Any) -> Connection | None:
        """Return the connection of the session's transaction; `None` if it has no database.

        Raises:
            InvalidRequestError: if the transaction has failed and must be rolled back first.
        """
        try:
            return self._session.connection(bind_arguments=bind_arguments)
        except UnboundExecutionError:
            if not self._session.in_transaction():
                self._session.begin()
            return None

    def _follow(self, connection: Connection) -> None:
        if self._connection is connection:
            return
        self._connection = connection
        for name, listener in self._listeners():
            event.listen(connection, name, listener)

    def _listeners(self) -> tuple[tuple[str, Callable[..., None]], ...]:
        return (
            ("commit", self._before_commit),
            ("rollback", self._on_rollback),
            ("rollback_savepoint", self._on_rollback_to),
        )

    def _leave(self, connection: Connection | None) -> None:
        """Stop following a connection that outlives the session's transaction."""
        if connection is not None and not connection.closed:
            for name, listener in self._listeners():
                event.remove(connection, name, listener)

    def _before_commit(self, connection: Connection) -> None:
        self._is_commit_tried = True

    def _on_rollback(self, connection: Connection) -> None:
        self._undo(lambda savepoints: True)

    def _on_rollback_to(self, connection: Connection, name: str, context: None) -> None:
        self._undo(lambda savepoints: name in savepoints)

    def _undo(self, is_undone: Callable[[frozenset[str]], bool]) -> None:
        undone = [write for savepoints, write in self._writes if is_undone(savepoints)]
        self._writes = [each for each in self._writes if not is_undone(each[0])]
        for write in reversed(undone):
            write.on_rollback()

    def _after_commit(self, session: Session) -> None:
        if not session.in_nested_transaction():
            for write in self._take():
                write.on_commit()

    def _after_rollback(self, session: Session) -> None:
        if not session.in_nested_transaction():
            self._undo(lambda savepoints: True)

    def _after_end(self, session: Session, transaction: SessionTransaction) -> None:
        if transaction.parent is not None:
            return
        for write in self._take():
            _quietly(partial(_settle, write, self._is_commit_tried))
        actions = self._at_end
        self._leave(self._connection)
        self._reset()
        for action in actions:
            _quietly(action)

    def _take(self) -> list[PendingWrite]:
        writes = [write for _, write in self._writes]
        self._writes = []
        return writes


def _open_savepoints(connection: Connection) -> Iterator[str]:
    """Yield the names of the open savepoints. SQLAlchemy has no public attribute for them."""
    savepoint: Any = connection.get_nested_transaction()
    while savepoint is not None:
        yield savepoint._savepoint
        savepoint = savepoint._previous_nested


def _settle(write: PendingWrite, is_commit_tried: bool) -> None:
    if is_commit_tried and write.is_committed():
        write.on_commit()
    else:
        write.on_rollback()


def _quietly(action: Callable[[], object]) -> None:
    """Call an action, and log its errors: the app is ending its transaction, and must not fail."""
    try:
        action()
    except Exception as error:
        logger.error("not recorded after the end of the caller's transaction: %s", reason(error))
