"""Which start of a task meets which slot of its schedule."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

LONGEST_EARLINESS = timedelta(seconds=30)
"""How much earlier than due a task may start, if the slots are not close together."""


@dataclass(frozen=True)
class Matches:
    """Slots, in order, and the starts that meet them.

    Attributes:
        met: pairs of a slot and its start.
        waiting: the slots after the last one that is met.
        skipped: slots without a start before the last one that is met.
    """

    met: tuple[tuple[datetime, datetime], ...] = ()
    waiting: tuple[datetime, ...] = ()
    skipped: tuple[datetime, ...] = ()

    def overdue(self, grace: timedelta, now: datetime) -> tuple[datetime, ...]:
        """Return the last slots, if no start has followed and it is too late for one."""
        return tuple(slot for slot in self.waiting if slot + grace < now)

    def missed(self, grace: timedelta, now: datetime) -> tuple[datetime, ...]:
        """Return all slots without a start for which it is too late."""
        return tuple(slot for slot in (*self.skipped, *self.waiting) if slot + grace < now)


def match(
    slots: Sequence[datetime],
    starts: Sequence[datetime],
    grace: timedelta,
    counted: Iterable[datetime] = (),
) -> Matches:
    """Return which slots are met. Each start meets at most one slot, whatever starts later.

    It is the first of these that is free: the slot before it, within its grace period; the slot
    after it, if the start is only a little early, because clocks differ; an older slot within its
    grace period; the slot before it, so late as the start may be. So a start after an outage meets
    the slot that it belongs to, and a second start soon after may make up for a slot that was
    missed.

    Args:
        slots, starts: times, oldest first. The slots go on for the longest earliness from now.
        counted: for each hour in which starts are counted but not known one by one, the last of
            them. The slots of the hour up to then are met.
    """
    taken: dict[int, datetime] = {}
    for start in starts:
        number = next((each for each in _choices(slots, start, grace) if each not in taken), None)
        if number is not None:
            taken[number] = start
    for end in counted:
        hour = end.replace(minute=0, second=0, microsecond=0)
        for number in range(bisect_left(slots, hour), bisect_right(slots, end)):
            taken.setdefault(number, slots[number])
    after = max(taken, default=-1)
    return Matches(
        tuple((slots[number], taken[number]) for number in sorted(taken)),
        tuple(slots[after + 1 :]),
        tuple(slot for number, slot in enumerate(slots[:after]) if number not in taken),
    )


def _choices(slots: Sequence[datetime], start: datetime, grace: timedelta) -> Iterator[int]:
    """Yield the numbers of the slots that a start may meet, the most likely one first."""
    after = bisect_right(slots, start)
    in_time = bisect_left(slots, start - grace)
    if after > in_time:
        yield after - 1
    if after < len(slots) and slots[after] - start <= _earliness(slots, after):
        yield after
    yield from range(after - 2, in_time - 1, -1)
    if after:
        yield after - 1


def _earliness(slots: Sequence[datetime], number: int) -> timedelta:
    """Return how much too early a start for a slot may be."""
    if not number:
        return LONGEST_EARLINESS
    return min(LONGEST_EARLINESS, (slots[number] - slots[number - 1]) / 2)
