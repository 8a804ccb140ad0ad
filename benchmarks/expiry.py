"""The speed of expiry, and its effect on a process that records at the same time."""

from __future__ import annotations

import itertools
import multiprocessing
import statistics
import time
from contextlib import ExitStack
from datetime import timedelta
from multiprocessing.connection import Connection
from time import perf_counter

from sqlalchemy import URL, text

from benchmarks.filling import NOW, SPAN, fill
from benchmarks.measuring import Table, middle, new_database, new_engine, percentile
from benchmarks.peers import PAYLOAD
from jobhistory import Job, create_store

PAIRS_PER_SECOND = 200
QUIET_SECONDS = 4


def record_steadily(url: URL, pipe: Connection) -> None:
    """Record at a steady pace until a message arrives, then send the times of all calls."""
    calls: list[tuple[float, float]] = []
    with create_store(url) as store:
        due = perf_counter()
        for number in itertools.count():
            if pipe.poll():
                break
            time.sleep(max(0.0, due - perf_counter()))
            due += 1 / PAIRS_PER_SECOND
            ids = (f"live-{number}", "live", f"live-{number}")
            for call in (
                lambda ids=ids: store.record_start(Job(ids[0], "live", PAYLOAD), *ids[1:]),
                lambda ids=ids: store.record_completion(*ids, 5),
            ):
                begun = perf_counter()
                call()
                calls.append((begun, perf_counter()))
    pipe.send(calls)


def measure(
    server: URL, rows: int, rounds: int
) -> tuple[dict[str, list[float]], dict[str, list[float]]]:
    """Return two dicts by way: rows per second by round, and milliseconds of recording calls."""
    ways = ("quiet", "expire()", "one DELETE")
    speeds: dict[str, list[float]] = {way: [] for way in ways[1:]}
    spans: dict[str, list[tuple[float, float]]] = {way: [] for way in ways}
    with ExitStack() as stack:
        url = stack.enter_context(new_database(server, "expiry"))
        engine = stack.enter_context(new_engine(url))
        fill(engine, rows)
        # Each round deletes two equal slices, one per way. One tenth of the rows is left.
        cutoffs = (
            NOW - SPAN + timedelta(days=35) + SPAN * 0.9 * number / (2 * rounds)
            for number in range(1, 2 * rounds + 1)
        )
        ours, theirs = multiprocessing.get_context("spawn").Pipe()
        process = multiprocessing.get_context("spawn").Process(
            target=record_steadily, args=(url, theirs)
        )
        process.start()
        time.sleep(3)  # let the process start
        for _ in range(rounds):
            begun = perf_counter()
            time.sleep(QUIET_SECONDS)
            spans["quiet"].append((begun, perf_counter()))
            for way in ways[1:]:
                cutoff = next(cutoffs)
                begun = perf_counter()
                if way == "expire()":
                    store = create_store(engine, clock=lambda cutoff=cutoff: cutoff)
                    deleted = store.expire()
                else:
                    with engine.connect() as connection:
                        deleted = connection.execute(
                            text("DELETE FROM job_history WHERE expires_at <= :cutoff"),
                            {"cutoff": cutoff},
                        ).rowcount
                spans[way].append((begun, perf_counter()))
                speeds[way].append(deleted / (perf_counter() - begun))
                time.sleep(1)
        ours.send("stop")
        calls = ours.recv()
        process.join()
    latencies = {
        way: [
            (ended - begun) * 1000
            for begun, ended in calls
            if any(begun <= last and ended >= first for first, last in spans[way])
        ]
        for way in ways
    }
    return speeds, latencies


def report(speeds: dict[str, list[float]], latencies: dict[str, list[float]], rows: int) -> Table:
    """Return the table of rows per second and of the latencies of recording."""
    rounds = len(speeds["one DELETE"])
    quiet = percentile(latencies["quiet"], 99)
    return Table(
        "Expiry",
        f"Each way deletes {rows * 0.9 / (2 * rounds):,.0f} of {rows:,} rows at a time, while "
        f"another process records {PAIRS_PER_SECOND} pairs of start and outcome per second. "
        "Its latencies are in milliseconds.",
        ["way", "rows/s", "recording p50", "p99", "p99 / quiet p99", "worst"],
        [
            [
                way,
                middle(speeds[way]) if way in speeds else "",
                f"{statistics.median(figures):.1f}",
                f"{percentile(figures, 99):.1f}",
                f"{percentile(figures, 99) / quiet:.1f}",
                f"{max(figures):.1f}",
            ]
            for way, figures in latencies.items()
        ],
    )
