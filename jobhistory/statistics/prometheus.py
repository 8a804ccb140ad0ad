"""Metrics in the text format of Prometheus, from the statistics of all history."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from typing import NamedTuple, Protocol, TypeAlias

from jobhistory.statistics.ever import TaskMeasures
from jobhistory.statistics.measures import Measures, Times

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
"""The content type of the text."""

OTHER = "_other"
"""The value of the label `task` that stands for all tasks without series of their own."""

LIMITS_MS = (
    *(10, 50, 100, 250, 500),
    *(1_000, 2_500, 5_000, 10_000, 30_000),
    *(60_000, 300_000, 900_000, 3_600_000, 14_400_000, 86_400_000),
)
"""The upper limits of the buckets of histograms, in milliseconds: from 10 ms to a day."""

_LE = (*(f"{limit / 1000:g}" for limit in LIMITS_MS), "+Inf")

_LAST = {
    "start": ("last_started_at", "an execution started"),
    "success": ("last_completed_at", "an execution completed"),
    "failure": ("last_failed_at", "an execution failed, will be retried, or was presumed lost"),
}

Sample: TypeAlias = tuple[str, Mapping[str, str], float]
"""The end of a name, labels, and a value."""


class OperationCounts(Protocol):
    """The numbers of operations of a recorder."""

    @property
    def accepted(self) -> int:
        """Operations of calls that returned."""
        ...

    @property
    def written(self) -> int:
        """Operations committed in history."""
        ...

    @property
    def refused(self) -> int:
        """Operations that cannot be in history."""
        ...

    @property
    def spooled(self) -> int:
        """Operations in the spool."""
        ...

    @property
    def waiting(self) -> int:
        """Operations in memory that are not written yet."""
        ...


class OperationCounter(Protocol):
    """What has the counts of its operations: a recorder."""

    @property
    def counts(self) -> OperationCounts:
        """The numbers of operations."""
        ...


class Family(NamedTuple):
    """A metric, with the text that describes it, and its samples."""

    name: str
    kind: str
    about: str
    samples: Iterable[Sample]

    def lines(self) -> Iterator[str]:
        """Yield the lines of the metric."""
        yield f"# HELP {self.name} {self.about}"
        yield f"# TYPE {self.name} {self.kind}"
        for end, labels, value in self.samples:
            named = ",".join(f'{name}="{_escaped(text)}"' for name, text in labels.items())
            yield f"{self.name}{end}{{{named}}} {value}" if named else f"{self.name}{end} {value}"


def exposition(
    measured: Mapping[str, TaskMeasures],
    counts: OperationCounts | None,
    max_tasks: int,
    others: Iterable[Family] = (),
) -> str:
    """Return all metrics as text.

    The counters and histograms of a task never decrease, whatever happens to its rows: executions
    that are presumed lost have a gauge of their own, because their real outcome may still come.

    Args:
        measured: what is known of each task.
        counts: those of a recorder, if there is one.
        max_tasks: the number of tasks with series of their own.
        others: metrics that are not of executions.
    """
    tasks = limited(measured, max_tasks)
    families = [
        *_counters(tasks),
        _histogram("execution_duration", "How long ended executions ran.", tasks),
        _histogram("queue_time", "How long ended executions waited in a queue.", tasks),
        *_gauges(tasks),
        *(() if counts is None else _of_recorder(counts)),
        *others,
    ]
    return text_of(families)


def text_of(families: Iterable[Family]) -> str:
    """Return metrics as text."""
    return "".join(f"{line}\n" for family in families for line in family.lines())


def limited(measured: Mapping[str, TaskMeasures], max_tasks: int) -> dict[str, TaskMeasures]:
    """Return the tasks with series of their own, and all others as one.

    Those that first ran in an earlier month come first, then those with a smaller name. So a task
    keeps its series when others appear, except for tasks of the same month.
    """
    by_age = sorted((each.since, task) for task, each in measured.items() if task != OTHER)
    own = sorted(task for _, task in by_age[:max_tasks])
    found = {task: measured[task] for task in own}
    rest = measured.keys() - found.keys()
    if rest:
        found[OTHER] = TaskMeasures()
        for task in rest:
            found[OTHER].add(measured[task])
    return found


def outcomes_of(ended: Measures) -> dict[str, int]:
    """Return the numbers of executions by the label `status`. None of them ever decreases."""
    counts = ended.counts
    retried = counts["retried"] - counts["lost_retried"]
    return {
        "completed": counts["completed"],
        "failed": counts["failed"] - counts["lost"] - retried,
        "retried": retried,
        "partial_success": counts["partial_success"],
        "cancelled": counts["cancelled"],
    }


def _counters(tasks: Mapping[str, TaskMeasures]) -> Iterator[Family]:
    yield Family(
        "jobhistory_executions_total",
        "counter",
        "Ended executions. A failed attempt that will be tried again is retried, not failed.",
        (
            ("", {"task": task, "status": status}, number)
            for task, each in tasks.items()
            for status, number in outcomes_of(each.ended).items()
        ),
    )


def _histogram(times: str, about: str, tasks: Mapping[str, TaskMeasures]) -> Family:
    name = "execution_time" if times == "execution_duration" else times
    return Family(
        f"jobhistory_{times}_seconds",
        "histogram",
        f"{about} The limits of buckets are exact to 2 %.",
        (
            sample
            for task, each in tasks.items()
            for sample in _samples_of(task, getattr(each.ended, name))
        ),
    )


def _samples_of(task: str, times: Times) -> Iterator[Sample]:
    # Always from the histogram, so that a time stays in its bucket when it is folded.
    number = times.histogram.count
    if number:
        reached = [*times.histogram.counts_up_to(LIMITS_MS), number]
        for limit, count in zip(_LE, reached, strict=True):
            yield "_bucket", {"task": task, "le": limit}, count
        yield "_sum", {"task": task}, times.sum / 1000
        yield "_count", {"task": task}, number


def _gauges(tasks: Mapping[str, TaskMeasures]) -> Iterator[Family]:
    yield Family(
        "jobhistory_running",
        "gauge",
        "Executions that have started and not ended.",
        (("", {"task": task}, each.running) for task, each in tasks.items()),
    )
    yield Family(
        "jobhistory_running_since_timestamp_seconds",
        "gauge",
        "When the execution started that has run longest of those that run.",
        _times([(task, each.running_since) for task, each in tasks.items()]),
    )
    yield Family(
        "jobhistory_lost",
        "gauge",
        "Executions whose worker is presumed lost. A real outcome may still replace this.",
        (("", {"task": task}, each.ended.counts["lost"]) for task, each in tasks.items()),
    )
    for event, (name, happened) in _LAST.items():
        yield Family(
            f"jobhistory_last_{event}_timestamp_seconds",
            "gauge",
            f"When {happened} most recently.",
            # A list, because the name changes before the text is made.
            _times([(task, each.ended.last[name]) for task, each in tasks.items()]),
        )


def _times(known: Iterable[tuple[str, datetime | None]]) -> Iterator[Sample]:
    for task, at in known:
        if at is not None:
            yield "", {"task": task}, at.timestamp()


def _of_recorder(counts: OperationCounts) -> Iterator[Family]:
    for name, kind, number, about in (
        ("accepted_total", "counter", counts.accepted, "that the recorder accepted"),
        ("written_total", "counter", counts.written, "that are committed in history"),
        ("refused_total", "counter", counts.refused, "that history refused"),
        ("waiting", "gauge", counts.waiting, "that wait in memory to be written"),
        ("spooled", "gauge", counts.spooled, "that wait in the spool to be written"),
    ):
        about = f"Operations of this process {about}."
        yield Family(f"jobhistory_recorder_{name}", kind, about, [("", {}, number)])


def _escaped(value: str) -> str:
    """Return the value of a label on one line, in characters that UTF-8 can encode."""
    text = value.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")
    return text.encode("utf-8", "xmlcharrefreplace").decode()
