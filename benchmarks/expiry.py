"""The speed of expiry, and its effect on a process that records at the same time."""

from __future__ import annotations

import statistics
import time
from contextlib import ExitStack
from time import perf_counter

from sqlalchemy import URL, text

from benchmarks.filling import NOW, RETENTION, SPAN, fill
from benchmarks.measuring import Table, middle, new_database, new_engine, percentile
from benchmarks.steady import PAIRS_PER_SECOND, Span, during, recording
from jobhistory import create_store

QUIET_SECONDS = 4


def measure(
    server: URL, rows: int, rounds: int
) -> tuple[dict[str, list[float]], dict[str, list[float]]]:
    """Return two dicts by way: rows per second by round, and milliseconds of recording calls."""
    ways = ("quiet", "expire()", "one DELETE")
    speeds: dict[str, list[float]] = {way: [] for way in ways[1:]}
    spans: dict[str, list[Span]] = {way: [] for way in ways}
    with ExitStack() as stack:
        url = stack.enter_context(new_database(server, "expiry"))
        engine = stack.enter_context(new_engine(url))
        fill(engine, rows)
        # Each round deletes two equal slices, one per way. One tenth of the rows is left.
        cutoffs = (
            NOW - SPAN + RETENTION + SPAN * 0.9 * number / (2 * rounds)
            for number in range(1, 2 * rounds + 1)
        )
        calls = stack.enter_context(recording(url))
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
    return speeds, {way: during(calls, spans[way]) for way in ways}


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
