"""Dropping partitions, and converting a table to them and back, next to processes that record."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from time import perf_counter

from sqlalchemy import URL, create_engine, text

from benchmarks.measuring import Table, middle, new_engine, percentile, ratios
from benchmarks.partitions import PARTITIONS, PLAIN, RETENTION, STARTS
from benchmarks.steady import PAIRS_PER_SECOND, during, recording
from jobhistory import create_store, partitioning

DUE = STARTS[:3]
"""The ends of the partitions to drop, one in each round. All executions before have expired."""

WRITERS = 2
CONVERSION, UNDO = "partition", "undo"


@dataclass
class Beside:
    """What was measured next to processes that record, a figure for each round.

    Attributes:
        seconds: how long it took.
        removed: how many rows it removed.
        quiet, busy: the milliseconds of the recording calls before it, and during it.
    """

    seconds: list[float] = field(default_factory=list)
    removed: list[int] = field(default_factory=list)
    quiet: list[list[float]] = field(default_factory=list)
    busy: list[list[float]] = field(default_factory=list)

    def run(
        self, url: URL, remove: Callable[[], int], quiet_seconds: float, writers: int = 1
    ) -> None:
        """Measure a function once, which returns a number of rows."""
        with ExitStack() as stack:
            recorded = [stack.enter_context(recording(url)) for _ in range(writers)]
            begun = perf_counter()
            time.sleep(quiet_seconds)
            quiet = (begun, perf_counter())
            self.removed.append(remove())
            busy = (quiet[1], perf_counter())
            time.sleep(0.5)  # for calls that still wait
        calls = [call for each in recorded for call in each]
        self.seconds.append(busy[1] - busy[0])
        self.quiet.append(during(calls, [quiet]))
        self.busy.append(during(calls, [busy]))

    @property
    def speeds(self) -> list[float]:
        """The rows that it removed per second."""
        return ratios(self.removed, self.seconds)


def measure_conversion(url: URL, rounds: int, quiet_seconds: float) -> dict[str, Beside]:
    """Partition a plain history and undo that, in turn; return what each did."""
    ways = {CONVERSION: Beside(), UNDO: Beside()}
    engine = create_engine(url)
    actions: dict[str, Callable[[], int]] = {
        CONVERSION: lambda: partitioning.partition(engine, every="week", ahead=4).count,
        UNDO: lambda: partitioning.undo(engine) or 0,
    }
    for _ in range(rounds):
        for way, do in actions.items():
            ways[way].run(url, do, quiet_seconds, WRITERS)
    engine.dispose()
    with new_engine(url) as engine, engine.connect() as connection:
        connection.execute(text("VACUUM (ANALYZE) job_history"))
    return ways


def create_ahead(url: URL) -> int:
    """Create the partitions of the next four weeks; return the number of all partitions."""
    engine = create_engine(url)
    count = partitioning.partition(engine, every="week", ahead=4).count
    engine.dispose()
    return count


def measure_expiry(urls: dict[str, URL], rounds: int, quiet_seconds: float) -> dict[str, Beside]:
    """Remove a week in each round, by rows and by partition; return what each did, by layout."""
    ways = {layout: Beside() for layout in urls}
    for due in DUE[:rounds]:
        for layout, url in urls.items():
            with create_store(url, clock=lambda due=due: due + RETENTION) as store:
                expire = partial(store.expire, by_partition=layout != PLAIN)
                ways[layout].run(url, expire, quiet_seconds)
    return ways


def report_conversion(ways: dict[str, Beside], rows: int) -> Table:
    """Return the table of how long writers wait for a conversion."""
    return Table(
        "From a plain table to partitions, and back",
        f"Partitioning a live table of {rows:,} rows by week, and undoing it, in turn, while "
        f"{WRITERS} other processes record {PAIRS_PER_SECOND} pairs of start and outcome per "
        "second each. Seconds in all, and the milliseconds of the calls that record: medians over "
        "the rounds, with the minimum and maximum. The target for the worst call of the conversion "
        "is less than 250 ms.",
        ["way", "seconds", "quiet p99", "quiet worst", "p99", "worst"],
        [
            [
                way,
                middle(each.seconds, ",.2f"),
                *(
                    middle([of(calls) for calls in times], ",.1f")
                    for times in (each.quiet, each.busy)
                    for of in (partial(percentile, percent=99), max)
                ),
            ]
            for way, each in ways.items()
        ],
    )


def report_expiry(ways: dict[str, Beside], rows: int) -> Table:
    """Return the table of rows per second and of the latencies of recording."""
    titles = {PLAIN: "batches of rows: `expire()`", PARTITIONS: "`expire(by_partition=True)`"}
    return Table(
        "Expiry by partition",
        f"Each way removes the executions of {len(DUE)} weeks of a history of {rows:,} rows, a "
        f"week at a time, in turn, while another process records {PAIRS_PER_SECOND} pairs of start "
        "and outcome per second. Its latencies are in milliseconds: p50, p99 and the worst of the "
        "calls of all rounds, and p99 relative to the quiet seconds before. The targets of "
        "`by_partition` are 2,000,000 rows per second, and at most 2 times the quiet p99.",
        [
            "way",
            "rows/s",
            "relative",
            "quiet p50",
            "quiet p99",
            "p50",
            "p99",
            "p99 / quiet",
            "worst",
        ],
        [
            [
                titles[layout],
                middle(each.speeds),
                middle(ratios(each.speeds, ways[PLAIN].speeds), ",.1f"),
                *_figures(_all(each.quiet))[:2],
                *_figures(_all(each.busy))[:2],
                f"{percentile(_all(each.busy), 99) / percentile(_all(each.quiet), 99):.1f}",
                f"{max(_all(each.busy)):.1f}",
            ]
            for layout, each in ways.items()
        ],
    )


def _all(rounds: Sequence[Sequence[float]]) -> list[float]:
    return [figure for each in rounds for figure in each]


def _figures(calls: Sequence[float]) -> list[str]:
    return [f"{statistics.median(calls):.1f}", f"{percentile(calls, 99):.1f}"]
