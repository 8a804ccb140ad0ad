"""Retries of the library's own transactions: after conflicts, and while SQLite is busy."""

from __future__ import annotations

from math import inf
from time import monotonic

from sqlalchemy.exc import DBAPIError

from jobhistory.database import busy
from jobhistory.database.deadlines import current_deadline
from jobhistory.database.driver_errors import is_conflict, is_outdated_plan
from jobhistory.database.layout import forget_outdated
from jobhistory.typing import Random

MOST_ATTEMPTS = 10
"""How often an operation runs if it meets a conflict each time."""

FIRST_PAUSE = 0.005
"""The maximum pause after the first conflict, in seconds. After the n-th one, it is n * n times as
long."""


class Retries:
    """The retries of one operation. Each of them is a whole new transaction.

    A conflict is a serialization failure or a deadlock: the database has rolled the transaction
    back, and says so. So it may run again. If it is not known whether a commit has succeeded, as
    after a lost connection, nothing is repeated. A statement that does not fit the layout of the
    table runs once more if the layout was read before.

    Pauses are random, so that sessions that conflicted do not collide again.

    Args:
        random: returns random numbers from 0 up to, and without, 1.
    """

    __slots__ = ("_attempts", "_has_new_layout", "_random", "_until")

    def __init__(self, random: Random) -> None:
        self._random = random
        self._attempts = 0
        self._has_new_layout = False
        self._until = inf

    def pause_after(self, error: DBAPIError, wait: busy.Wait) -> float | None:
        """Return the seconds to wait before the next attempt; `None` if there should be none.

        No attempt after a conflict begins later than the time limit of the call.
        """
        if wait.should_retry(error):
            longest = busy.LONGEST_PAUSE
        elif wait.is_own and (is_conflict(error) or _is_without_plan(error)):
            self._attempts += 1
            if self._attempts == 1 and (deadline := current_deadline.get()) is not None:
                self._until = deadline.at  # fixed, as each attempt has a deadline of its own
            longest = FIRST_PAUSE * self._attempts**2
            if self._attempts == MOST_ATTEMPTS or monotonic() + longest > self._until:
                return None
        elif self._may_have_new_layout(error, wait):
            longest = 0
        else:
            return None
        return longest * self._random()

    def _may_have_new_layout(self, error: DBAPIError, wait: busy.Wait) -> bool:
        """Return whether the layout of the table that the operation went by is to be read again."""
        is_outdated = forget_outdated(wait.dialect, error)
        may_retry = is_outdated and wait.is_own and not self._has_new_layout
        self._has_new_layout = self._has_new_layout or is_outdated
        return may_retry


def _is_without_plan(error: DBAPIError) -> bool:
    """Return whether a prepared statement was outdated, and its connection has been closed."""
    return is_outdated_plan(error) and error.connection_invalidated
