"""What telling followers costs those who record: the same store with and without `notify=True`."""

from __future__ import annotations

import itertools
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager

from sqlalchemy import URL

from benchmarks.measuring import Table, Way, in_turn, middle, new_database, new_engine, ratios
from benchmarks.peers import PAYLOAD
from jobhistory import HistoryStore, Job, create_store, migrate

WRITERS = (1, 16)
_HOW = {"silent": False, "telling": True}

_numbers = itertools.count()


def measure(server: URL, rounds: int, pairs: int) -> dict[int, dict[str, list[float]]]:
    """Return pairs per second by number of writers and way, while `jobhistory tail` listens."""
    with ExitStack() as stack:
        url = stack.enter_context(new_database(server, "notify"))
        engine = stack.enter_context(new_engine(url))
        migrate.upgrade(engine)
        stores = {
            how: stack.enter_context(create_store(url, notify=notify))
            for how, notify in _HOW.items()
        }
        stack.enter_context(_following(url))
        return {
            writers: in_turn(_ways(stores, writers, pairs), rounds, lambda: None)
            for writers in WRITERS
        }


@contextmanager
def _following(url: URL) -> Iterator[None]:
    """Follow the history in another process."""
    shown = url.render_as_string(hide_password=False)
    arguments = [sys.executable, "-m", "jobhistory.cli", "tail", "--json", "--url", shown]
    process = subprocess.Popen(arguments, stdout=subprocess.DEVNULL)
    try:
        yield
    finally:
        process.send_signal(signal.SIGINT)
        process.wait()


def _ways(stores: dict[str, HistoryStore], writers: int, pairs: int) -> list[Way]:
    # Enough for several notifications in each turn.
    count = pairs if writers == 1 else 4 * pairs
    return [(how, _by_writers(store, writers), count) for how, store in stores.items()]


def _by_writers(store: HistoryStore, writers: int) -> Callable[[int], None]:
    def record(count: int) -> None:
        for number in itertools.islice(_numbers, count):
            job = Job(f"job-{number}", "ship_order", PAYLOAD)
            store.record_completion(store.record_start(job, "worker-1", "request-1"))

    def record_all(count: int) -> None:
        with ThreadPoolExecutor(writers) as pool:
            list(pool.map(record, [count // writers] * writers))

    return record_all


def report(speeds: dict[int, dict[str, list[float]]]) -> Table:
    """Return the table."""
    rows = [
        [
            str(writers),
            middle(of["silent"]),
            middle(of["telling"]),
            middle(ratios(of["telling"], of["silent"]), ".2f"),
        ]
        for writers, of in speeds.items()
    ]
    described = (
        "Pairs of `record_start` and `record_completion` per second, on a store from a URL, with "
        "`notify=True` and without, in turn: median (least - most). `jobhistory tail` listens "
        "all the time."
    )
    headings = ["threads that record", "without", "`notify=True`", "ratio"]
    return Table("What notifications cost", described, headings, rows)
