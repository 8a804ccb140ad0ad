"""Cells and columns that several screens have."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta

from jobhistory._runtime.ages import relative, relative_in_words
from jobhistory.cli.screens.screen import Screen
from jobhistory.cli.screens.shorten import cut_middle
from jobhistory.cli.screens.table import Cell, Column
from jobhistory.execution.status import Status
from jobhistory.schema import HistoryRecord

STYLES = {
    Status.STARTED: "cyan",
    Status.COMPLETED: "green",
    Status.FAILED: "bold red",
    Status.PARTIAL_SUCCESS: "yellow",
    Status.CANCELLED: "magenta",
}
_SHORTER_STATUS = {Status.PARTIAL_SUCCESS: ("partial",)}
_HAS_NO_YEAR = timedelta(days=300)
_LEAST, _MOST = 10, 60


def name_column(heading: str, priority: int, least: int = _LEAST) -> Column:
    """Return a column of names, such as those of tasks, whose beginnings matter."""
    return Column(heading, priority, least=least, most=_MOST)


def id_column(heading: str, priority: int) -> Column:
    """Return a column of ids, both ends of which matter."""
    return Column(heading, priority, least=_LEAST, most=_MOST, cut=cut_middle)


def number_column(heading: str, priority: int) -> Column:
    """Return a column of numbers."""
    return Column(heading, priority, right=True)


def moment_column(
    heading: str, priority: int, moments: Iterable[datetime | None], screen: Screen
) -> Column:
    """Return a column of times, with their zone in its heading."""
    return Column(f"{heading} ({screen.zone(moments)})", priority)


def moment_cell(moment: datetime, screen: Screen) -> Cell:
    """Return a time in the zone of the screen; the shorter one has no seconds."""
    local = screen.local(moment)
    is_near = abs(screen.now - moment) < _HAS_NO_YEAR
    shorter = f"{local:%d %b %H:%M}" if is_near else local.date().isoformat()
    return Cell(moment_text(moment, screen), shorter=(shorter,))


def moment_text(moment: datetime, screen: Screen, timespec: str = "seconds") -> str:
    """Return a time in the zone of the screen, without the name of the zone."""
    return screen.local(moment).replace(tzinfo=None).isoformat(sep=" ", timespec=timespec)


def age_cell(moment: datetime, screen: Screen) -> Cell:
    """Return for how long a time has passed, in words."""
    words = relative_in_words(moment, screen.now)
    return Cell(words, "dim", (relative(moment, screen.now),))


def status_cell(status: Status) -> Cell:
    """Return a status in its color."""
    return Cell(status.value, STYLES[status], _SHORTER_STATUS.get(status, ()))


def error_text(record: HistoryRecord) -> str:
    """Return the type and the message of a failure, or the reason for a cancellation."""
    lines = (record.error_message or "").strip().splitlines()
    return ": ".join([*filter(None, [record.error_type]), *lines[:1]])


def counted(count: int, noun: str) -> str:
    """Return a number with a noun, such as `"1 task"` or `"1,200 tasks"`."""
    return f"{count:,} {noun}{'s' * (count != 1)}"
