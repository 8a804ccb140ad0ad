"""Pages and outcomes of a history in partitions, relative to a plain one with the same rows."""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from time import perf_counter

from sqlalchemy import URL

from benchmarks.filling import NOW, fill
from benchmarks.hotpath import tracked
from benchmarks.measuring import Table, middle, new_database, new_engine, ratios
from benchmarks.peers import PAYLOAD
from benchmarks.reads import PAGES
from benchmarks.recording import bulk, plain
from jobhistory import HistoryStore, Job, create_store

STARTS = [datetime(2026, 10, 5, tzinfo=UTC) + timedelta(weeks=number) for number in range(5)]
"""The starts of all weekly partitions but the first. The last one is empty at first."""

RETENTION = timedelta(weeks=2)

PLAIN, PARTITIONS = "plain", f"{len(STARTS) + 1} partitions"
LAYOUTS = {PLAIN: [], PARTITIONS: STARTS}
REPEATED = 5
"""How often a page is read in a turn."""

TARGET = 1.1
"""The largest time relative to the plain history."""

Times = dict[str, dict[str, list[float]]]
"""Milliseconds by way and by layout, a figure for each round."""

_numbers = itertools.count()


@contextmanager
def histories(server: URL, rows: int) -> Iterator[dict[str, URL]]:
    """Yield the URLs of two histories with the same rows, by layout."""
    with ExitStack() as stack:
        urls = {
            layout: stack.enter_context(new_database(server, f"layout_{number}"))
            for number, layout in enumerate(LAYOUTS)
        }

        def fill_one(layout: str) -> None:
            with new_engine(urls[layout]) as engine:
                fill(engine, rows, retention=RETENTION, starts=LAYOUTS[layout])

        with ThreadPoolExecutor() as pool:
            list(pool.map(fill_one, LAYOUTS))
        yield urls


def start(store: HistoryStore, count: int) -> None:
    """Call `record_start`."""
    for number in itertools.islice(_numbers, count):
        job = Job(f"start-{number}", "ship_order", PAYLOAD)
        store.record_start(job, "worker-1", f"request-{number}")


def by_record(store: HistoryStore, count: int) -> None:
    """Call `record_start`, and `record_completion` with the record that it returns."""
    for number in itertools.islice(_numbers, count):
        job = Job(f"by-record-{number}", "ship_order", PAYLOAD)
        record = store.record_start(job, "worker-1", f"request-{number}")
        store.record_completion(record, execution_time_ms=5)


def measure(
    urls: dict[str, URL], rounds: int, outcome_rounds: int, pairs: int, many: int
) -> tuple[Times, Times]:
    """Return the milliseconds of pages, and those of recording."""
    begun = perf_counter()

    def clock() -> datetime:  # in the last week with executions
        return NOW - timedelta(hours=12) + timedelta(seconds=perf_counter() - begun)

    with ExitStack() as stack:
        stores = {
            layout: stack.enter_context(create_store(url, clock=clock))
            for layout, url in urls.items()
        }
        newest = {store: store.query(limit=1)[0].id for store in stores.values()}
        pages = PAGES | {"by id": lambda store: store.get(newest[store])}
        outcomes: dict[str, Callable[[HistoryStore], object]] = {
            "record_start": lambda store: start(store, pairs),
            "record_start + record_completion, by the three ids": lambda s: plain(s, pairs),
            "the same, by the record": lambda store: by_record(store, pairs),
            "track around an empty function": lambda store: tracked(store, pairs),
            "record_many": lambda store: bulk(store, many),
        }
        read = _in_turn(stores, pages, rounds, REPEATED, warm_up=2)
        return read, _in_turn(stores, outcomes, outcome_rounds, 1, warm_up=2)


def _in_turn(
    stores: dict[str, HistoryStore],
    ways: dict[str, Callable[[HistoryStore], object]],
    rounds: int,
    repeated: int,
    warm_up: int,
) -> Times:
    times: Times = {way: {layout: [] for layout in stores} for way in ways}
    for number in range(-warm_up, rounds):
        for way, do in ways.items():
            # Each layout is the first one in every other round.
            for layout in sorted(stores, reverse=number % 2 == 0):
                begun = perf_counter()
                for _ in range(repeated):
                    do(stores[layout])
                if number >= 0:
                    times[way][layout].append((perf_counter() - begun) * 1000 / repeated)
    return times


def relative_times(times: Times) -> dict[str, list[float]]:
    """Return the time of each way on partitions relative to the plain history, by round."""
    return {way: ratios(each[PARTITIONS], each[PLAIN]) for way, each in times.items()}


def _lines(times: Times, more: Times, form: str) -> list[list[str]]:
    both = [relative_times(each) for each in (times, more)]
    return [
        [
            way,
            *(f"{statistics.median(each[layout]):{form}}" for layout in (PLAIN, PARTITIONS)),
            *(middle(each[way], ".2f") for each in both),
        ]
        for way, each in times.items()
    ]


def _mean(times: Times) -> str:
    medians = [statistics.median(each) for each in relative_times(times).values()]
    return f"{statistics.geometric_mean(medians):.2f} ({min(medians):.2f} - {max(medians):.2f})"


def _headings(first: str, count: int) -> list[str]:
    return [first, PLAIN, PARTITIONS, "time relative to plain", f"with {count} partitions"]


def report_pages(times: Times, more: Times, count: int, rows: int) -> Table:
    """Return the table of the milliseconds of pages by layout.

    Args:
        more: the times with `count` partitions.
    """
    return Table(
        "Pages on partitions",
        f"Median milliseconds in a history of {rows:,} rows, plain and in weekly partitions, and "
        "the time relative to the plain one: medians over the rounds, with the minimum and "
        "maximum. The last line has the geometric mean, minimum and maximum of these medians. "
        f"The target is at most {TARGET:.2f}.",
        _headings("read", count),
        [
            *_lines(times, more, ",.2f"),
            ["**all**", "", "", *(f"**{_mean(each)}**" for each in (times, more))],
        ],
    )


def report_outcomes(times: Times, more: Times, count: int, pairs: int, many: int) -> Table:
    """Return the table of the milliseconds of recording by layout, as `report_pages`."""
    return Table(
        "Recording on partitions",
        f"Median milliseconds of {pairs} executions, or {many:,} by `record_many`, in the same two "
        "histories, and the time relative to the plain one: medians over the rounds, with the "
        f"minimum and maximum. The target is at most {TARGET:.2f}.",
        _headings("way", count),
        _lines(times, more, ",.1f"),
    )


def beyond(times: Times) -> list[str]:
    """Return the ways whose median misses the target."""
    relative = relative_times(times)
    return [way for way, each in relative.items() if statistics.median(each) > TARGET]
