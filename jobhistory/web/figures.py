"""Figures of statistics: a chart, what its colors mean, and the table behind it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import datetime, timedelta
from typing import Any

from markupsafe import Markup

from jobhistory._runtime.ages import relative
from jobhistory._runtime.durations import duration_text, took
from jobhistory.execution.status import Status
from jobhistory.query.reports import Percentiles, TaskStats
from jobhistory.query.usual import Usual, elapsed_ms
from jobhistory.schema import HistoryRecord
from jobhistory.web.charts import Line, Place, Run, lines, run_bars, stacked_bars
from jobhistory.web.context import Context
from jobhistory.web.rendering import STATUS_WORDS
from jobhistory.web.search import join
from jobhistory.web.timeline import LONGEST, Tick, Timeline
from jobhistory.web.times import exact

_PERCENTILES = ("p50", "p95", "p99")
_STACKED = (
    Status.FAILED,
    Status.PARTIAL_SUCCESS,
    Status.CANCELLED,
    Status.COMPLETED,
    Status.STARTED,
)
"""Failures stand on the axis, where their heights compare."""


@dataclass(frozen=True)
class Counts:
    """The number of executions: all of them, and by status.

    Attributes:
        retried: the failures after which the job was to be tried again.
    """

    executions: int = 0
    started: int = 0
    completed: int = 0
    failed: int = 0
    partial_success: int = 0
    cancelled: int = 0
    final_failures: int = 0

    @classmethod
    def of(cls, stats: Iterable[TaskStats]) -> Counts:
        """Return the sums of statistics."""
        known = list(stats)
        return cls(*(sum(getattr(each, field.name) for each in known) for field in fields(cls)))

    @property
    def retried(self) -> int:
        """The number of failures after which the job was to be tried again."""
        return self.failed - self.final_failures

    @property
    def failure_rate(self) -> float | None:
        """The share of final failures, as that of `TaskStats`."""
        counted = self.completed + self.partial_success + self.final_failures
        return self.final_failures / counted if counted else None


@dataclass(frozen=True)
class Figure:
    """A chart with its caption, its legend, and the same as a table.

    Attributes:
        caption: what it shows.
        chart: the SVG.
        legend: the class and the name of each color.
        columns: the names of the columns.
        rows: for each row, its cells; the first one is its name.
        note: how to read it.
    """

    caption: str
    chart: Markup
    legend: Sequence[tuple[str, str]]
    columns: Sequence[str]
    rows: Sequence[Sequence[Any]]
    note: str = ""


@dataclass(frozen=True)
class Series:
    """Statistics over time, for one task or for several, as one viewer sees them.

    Attributes:
        page: the context of the viewer.
        timeline: the buckets.
        stats: the statistics of each bucket; none in buckets in which nothing started.
        task: the task to which links lead; `None` for all tasks.
    """

    page: Context
    timeline: Timeline
    stats: Sequence[TaskStats]
    task: str | None = None

    def runs(self) -> Figure:
        """Return the figure of runs by status."""
        total = Counts.of(self.stats)
        statuses = [status for status in _STACKED if getattr(total, status.value)]
        names = {status.value: STATUS_WORDS[status] for status in statuses}
        label = f"{total.executions:,} runs over time, {total.failed:,} of them failed."
        return self._counted("Runs", names, label)

    def failures(self) -> Figure:
        """Return the figure of failures: final ones, and those after which a job was retried."""
        total = Counts.of(self.stats)
        names = {"final_failures": "final", "retried": "retried"}
        label = f"{total.failed:,} failures over time."
        return self._counted("Failures", names, label, ("status", "failed"))

    def _counted(
        self, caption: str, names: Mapping[str, str], label: str, *terms: tuple[str, str]
    ) -> Figure:
        """Return a figure of bars, which consist of counts with these names.

        Its links lead to the executions that meet the terms.
        """
        by_bucket: dict[datetime | None, list[TaskStats]] = {}
        for each in self.stats:
            by_bucket.setdefault(each.bucket, []).append(each)
        counts = [Counts.of(by_bucket.get(start, ())) for start in self.timeline.buckets]
        parts = {name: [getattr(each, name) for each in counts] for name in names}
        texts = [_counts_text(each, names) or f"no {caption.lower()}" for each in counts]
        places = self._places(texts, *terms)
        chart = stacked_bars(places, parts, self._ticks(), label)
        cells = [[f"{getattr(each, name):,}" for name in names] for each in counts]
        legend, columns = list(names.items()), list(names.values())
        return self._figure(caption, chart, legend, columns, cells, places)

    def times(self, caption: str, times: Callable[[TaskStats], Percentiles]) -> Figure:
        """Return the figure of percentiles of times; the statistics must be those of one task."""
        by_bucket = {each.bucket: times(each) for each in self.stats}
        nothing = Percentiles(*(None for _ in fields(Percentiles)))
        found = [by_bucket.get(start, nothing) for start in self.timeline.buckets]
        drawn = [Line(name, [getattr(each, name) for each in found]) for name in _PERCENTILES]
        cells = [[took(getattr(each, name)) for name in _PERCENTILES] for each in found]
        texts = [
            ", ".join(f"{name} {text}" for name, text in zip(_PERCENTILES, row, strict=True))
            if each.max is not None
            else "no times"
            for row, each in zip(cells, found, strict=True)
        ]
        greatest = max((each.max for each in found if each.max is not None), default=None)
        label = f"{caption}: percentiles over time; the greatest time is {took(greatest)}."
        places = self._places(texts)
        chart = lines(places, drawn, self._ticks(), label)
        legend = [(name, name) for name in _PERCENTILES]
        return self._figure(caption, chart, legend, _PERCENTILES, cells, places)

    def _figure(
        self,
        caption: str,
        chart: Markup,
        legend: Sequence[tuple[str, str]],
        columns: Sequence[str],
        cells: Sequence[Sequence[str]],
        places: Sequence[Place],
    ) -> Figure:
        starts = self.timeline.buckets
        rows = [
            (Markup('<a href="{}">{}</a>').format(place.href, self._name(start)), *row)
            for start, place, row in zip(starts, places, cells, strict=True)
        ]
        first = f"From ({duration_text(self.timeline.bucket)})"
        weeks = LONGEST // timedelta(weeks=1)
        note = f"Only the last {weeks} weeks of the window." if self.timeline.is_clipped else ""
        return Figure(caption, chart, legend, [first, *columns], rows, note)

    def _places(self, texts: Sequence[str], *terms: tuple[str, str]) -> list[Place]:
        return [
            Place(f"{self._name(start)}: {text}", self._link(start, *terms))
            for start, text in zip(self.timeline.buckets, texts, strict=True)
        ]

    def _ticks(self) -> list[Tick]:
        return self.timeline.ticks(self.page.zone)

    def _name(self, start: datetime) -> str:
        return exact(start, self.page.zone, "minutes")

    def _link(self, start: datetime, *terms: tuple[str, str]) -> str:
        """Return the URL of the executions that started in a bucket and meet the terms."""
        last = start + self.timeline.bucket - timedelta(microseconds=1)
        window = {"since": _url_time(start), "until": _url_time(last)}
        return executions_link(self.page, self.task, *terms, **window)


def executions_link(
    page: Context, task: str | None, *more: tuple[str, str], **window: str | None
) -> str:
    """Return the URL of the executions of a task that meet more terms, in a window."""
    terms: list[tuple[str | None, str]] = [] if task is None else [("task", task)]
    return page.link("", q=join([*terms, *more]) or None, **window)


def last_runs(page: Context, records: Sequence[HistoryRecord], usual: Usual | None) -> Figure:
    """Return the figure of the last runs of a task, which are given newest first."""
    shown = [_run(page, record, usual) for record in reversed(records)]
    runs = [run for run, _ in shown]
    unusual = sum(run.is_unusual for run in runs)
    label = (
        f"The last {len(runs)} runs, the newest at the right; {unusual} outside the usual range."
    )
    kinds = {run.kind for run in runs}
    legend = [(each.value, STATUS_WORDS[each]) for each in _STACKED if each.value in kinds]
    columns = ("Started", "Status", "Took", "Compared to other runs")
    oldest, newest = (relative(records[place].started_at, page.now) for place in (-1, 0))
    usual_range = None if usual is None else (usual.low, usual.high)
    chart = run_bars(runs, usual_range, (oldest, newest), label)
    caption = "Last run" if len(runs) == 1 else f"Last {len(runs)} runs"
    return Figure(caption, chart, legend, columns, [row for _, row in shown], _note(usual))


def _note(usual: Usual | None) -> str:
    if usual is None:
        return ""
    return (
        f"Runs usually take {took(usual.low)} to {took(usual.high)}, the shaded range. "
        "Those that took less or more have a dot."
    )


def _run(page: Context, record: HistoryRecord, usual: Usual | None) -> tuple[Run, tuple[Any, ...]]:
    """Return the bar of a run, and its row in the table."""
    link = page.link("execution", id=str(record.id))
    start, word = exact(record.started_at, page.zone), STATUS_WORDS[record.status]
    is_running = record.status is Status.STARTED
    time = elapsed_ms(record, page.now) if is_running else record.execution_time_ms
    verdict = ""
    if usual is not None and time is not None:
        verdict = usual.verdict(time, has_ended=not is_running)
    title = f"{start}: {word}, {took(time)}{', ' if verdict else ''}{verdict}"
    is_unusual = verdict not in ("", "as usual")
    bar = Run(record.status.value, time or 0, Place(title, link), is_unusual)
    row = Markup('<a href="{}">{}</a>').format(link, start), word, took(time), verdict or "-"
    return bar, row


def _counts_text(counts: Counts, names: Mapping[str, str]) -> str:
    numbers = {word: getattr(counts, name) for name, word in names.items()}
    return ", ".join(f"{number:,} {word}" for word, number in numbers.items() if number)


def _url_time(moment: datetime) -> str:
    return moment.isoformat().replace("+00:00", "Z")
