"""What a follower has seen, in memory of limited size."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime, timedelta
from typing import NamedTuple
from uuid import UUID

from jobhistory._runtime.clock import before
from jobhistory.execution.status import Status
from jobhistory.query.marks import Mark
from jobhistory.typing import Clock

_MOST_WATCHED = 10_000
_MOST_SEEN = 100_000


class _State(NamedTuple):
    status: Status
    completed_at: datetime | None
    changed_at: datetime
    seen_at: datetime


class Seen:
    """Remembers the last state of executions for as long as a look may find them again.

    Attributes:
        watched: the ids of those that may still change, the earliest first.
    """

    def __init__(self, now: Clock) -> None:
        self.watched: dict[UUID, None] = {}
        self._now = now
        self._states: dict[UUID, _State] = {}
        self._forgotten: datetime | None = None

    def __len__(self) -> int:
        return len(self._states)

    def is_new(self, mark: Mark) -> bool:
        """Return whether an execution has started or ended since it was last seen."""
        state = self._states.get(mark.id)
        if state is None:
            return True
        if mark.status is Status.STARTED:  # from a follower of the database that is behind
            return False
        return (state.status, state.completed_at) != (mark.status, mark.completed_at)

    def add(self, mark: Mark) -> None:
        """Remember the state of an execution, and watch it if it may change."""
        self._states.pop(mark.id, None)  # so that it becomes the last one
        state = _State(mark.status, mark.completed_at, mark.changed_at, self._now())
        self._states[mark.id] = state
        if mark.may_change:
            self.watched[mark.id] = None
            if len(self.watched) > _MOST_WATCHED:
                del self.watched[next(iter(self.watched))]
        else:
            self.watched.pop(mark.id, None)
        if len(self._states) > _MOST_SEEN:
            self._forget_oldest()

    def unwatch(self, ids: Collection[UUID]) -> None:
        """Watch these no more, because their rows were deleted."""
        for id_ in ids:
            self.watched.pop(id_, None)

    def forget_before(self, moment: datetime) -> None:
        """Forget what changed and was seen before that, except what is watched."""
        for id_, state in list(self._states.items()):
            if max(state.changed_at, state.seen_at) < moment and id_ not in self.watched:
                del self._states[id_]

    def since(self, moment: datetime, overlap: timedelta) -> datetime:
        """Return the time from which to look: so long before the moment, but after what is lost."""
        start = before(moment, overlap)
        if self._forgotten is None:
            return start
        return max(start, self._forgotten + timedelta.resolution)

    def _forget_oldest(self) -> None:
        """Forget one that a look might find again, so let looks start after it."""
        while (id_ := next(iter(self._states))) in self.watched:
            self._states[id_] = self._states.pop(id_)
        at = self._states.pop(id_).changed_at
        self._forgotten = at if self._forgotten is None else max(self._forgotten, at)
