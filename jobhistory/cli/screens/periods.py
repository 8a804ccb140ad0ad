"""Charts of runs and failures over time, one character for each period or several of them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from rich.text import Text

from jobhistory._runtime.durations import duration_text
from jobhistory.cli.charts import spark
from jobhistory.cli.screens.cells import moment_text
from jobhistory.cli.screens.screen import Screen
from jobhistory.cli.screens.units import count_text
from jobhistory.query.reports import FIRST_BUCKET, TaskStats

_LABEL = "    failed  "
_LONGEST_SCALE = "  at most 1,000,000"
_LEAST_COLUMNS = 8
_MICROSECOND = timedelta(microseconds=1)


@dataclass(frozen=True)
class Periods:
    """Periods of equal length, one after the other.

    Attributes:
        first: the start of the first one.
        length: the length of each.
        count: the number of periods, from 1 up.
    """

    first: datetime
    length: timedelta
    count: int

    @classmethod
    def of(
        cls,
        from_: datetime | None,
        to: datetime,
        length: timedelta,
        series: Sequence[TaskStats] = (),
    ) -> Periods:
        """Return the periods of a window, and of a series if that has earlier or later ones."""
        begun = [stats.bucket for stats in series if stats.bucket is not None]
        from_ = from_ or min(begun, default=to)
        # A window that ends with a period does not show the next one, unless something is in it.
        first, last = (_begin(each, length) for each in (from_, max(from_, to - _MICROSECOND)))
        first, last = min([first, *begun]), max([first, last, *begun])
        return cls(first, length, (last - first) // length + 1)

    @property
    def end(self) -> datetime:
        """The end of the last period."""
        last = self.first + (self.count - 1) * self.length
        return last + min(self.length, datetime.max.replace(tzinfo=last.tzinfo) - last)


def _begin(moment: datetime, length: timedelta) -> datetime:
    """Return the start of the period that a time is in."""
    return moment - (moment - FIRST_BUCKET) % length


class PeriodCharts:
    """Charts of each task, as wide as the screen permits, and all over the same time."""

    def __init__(self, screen: Screen, series: Sequence[TaskStats], periods: Periods) -> None:
        room = screen.width - len(_LABEL) - len(_LONGEST_SCALE)
        self._per_column = -(-periods.count // max(_LEAST_COLUMNS, room))
        count = -(-periods.count // self._per_column)
        self._screen = screen
        self._periods = periods
        self._runs: defaultdict[str, list[int]] = defaultdict(lambda: [0] * count)
        self._failed: defaultdict[str, list[int]] = defaultdict(lambda: [0] * count)
        for stats in series:
            if stats.bucket is not None:
                number = (stats.bucket - periods.first) // periods.length // self._per_column
                self._runs[stats.task_identifier][number] += stats.executions
                self._failed[stats.task_identifier][number] += stats.final_failures

    @property
    def caption(self) -> str:
        """What the charts show: their time, and what a character stands for."""
        begin, end = (
            moment_text(each, self._screen, "minutes")
            for each in (self._periods.first, self._periods.end)
        )
        zone = self._screen.zone([self._periods.first, self._periods.end])
        length = duration_text(self._per_column * self._periods.length)
        return f"charts: {begin} to {end} ({zone}), {length} per character"

    def lines(self, task: str) -> Iterator[Text]:
        """Yield the charts of a task; one of its failures only if there are any."""
        top = max(self._runs[task])
        yield self._line("    runs    ", self._runs[task], top, "cyan")
        if any(self._failed[task]):
            yield self._line(_LABEL, self._failed[task], top, "red")

    def _line(self, label: str, values: Sequence[int], top: int, style: str) -> Text:
        chart = spark(values, top, ascii_only=self._screen.ascii_only)
        scale = f"  at most {count_text(max(values))}"
        line = Text(label + chart, style).append(scale, "dim")
        line.truncate(self._screen.width)
        return line
