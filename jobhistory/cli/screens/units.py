"""Numbers in columns: one unit for all durations of a column, and separators in counts."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

UNKNOWN = "-"


class Unit(NamedTuple):
    """The unit of a column of durations, and how many decimals it shows."""

    name: str
    milliseconds: int
    decimals: int

    def text(self, milliseconds: int | None) -> str:
        """Return a duration in this unit, without its name."""
        if milliseconds is None:
            return UNKNOWN
        return f"{milliseconds / self.milliseconds:,.{self.decimals}f}"


SECONDS = Unit("s", 1000, 3)


def unit_of(durations: Iterable[int | None]) -> Unit:
    """Return the unit in which all these durations, in milliseconds, can be read and compared.

    It is chosen by the longest one, but the shortest one must not vanish in it.
    """
    known = [each for each in durations if each]
    longest, shortest = max(known, default=0), min(known, default=0)
    if longest < 10_000:
        return Unit("ms", 1, 0)
    for unit in (Unit("h", 3_600_000, 1), Unit("min", 60_000, 1)):
        if longest >= 10 * unit.milliseconds and shortest * 10 >= unit.milliseconds:
            return unit
    decimals = 1 if shortest >= 1000 else 2 if shortest >= 100 else 3
    return Unit("s", 1000, decimals)


def count_text(count: int) -> str:
    """Return a number with separators."""
    return f"{count:,}"


def share_text(share: float | None) -> str:
    """Return a share as a percentage."""
    return UNKNOWN if share is None else f"{share:.1%}"
