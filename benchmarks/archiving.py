"""The speed of archiving expired executions, and how many bytes they take."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from pathlib import Path
from time import perf_counter

from sqlalchemy import URL, text

from benchmarks.filling import NOW, fill
from benchmarks.measuring import Table, middle, new_database, new_engine, ratios
from benchmarks.partitions import PLAIN, RETENTION
from jobhistory import Archive, HistoryStore, create_store

BY_ROWS = "expire(archive=...), batches of rows"
BY_PARTITION = "expire(archive=..., by_partition=True)"
VERIFY, RESTORE = "Archive.verify", "Archive.restore"
WAYS = (BY_ROWS, BY_PARTITION, VERIFY, RESTORE)
TARGETS = {BY_ROWS: "at least 200,000", BY_PARTITION: "at least 200,000"}

REPEATED, VARIED = "32 digits, repeated 8 times", "256 random digits"

_BYTES = """
SELECT coalesce(
    (SELECT sum(pg_total_relation_size(relid)) FROM pg_partition_tree('job_history')),
    pg_total_relation_size('job_history')
)
"""


@dataclass
class Speed:
    """The speed of a way.

    Attributes:
        rows, seconds: how many rows it went through, and how long that took, for each round.
    """

    rows: list[int] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)

    def measure(self, do: Callable[[], int]) -> None:
        """Measure a function once, which returns a number of rows."""
        begun = perf_counter()
        self.rows.append(do())
        self.seconds.append(perf_counter() - begun)


@dataclass(frozen=True)
class Size:
    """The bytes of a row: in the table with its indexes, and in the files of the archive."""

    in_table: float
    in_files: float


def measure(
    urls: dict[str, URL], dues: Sequence[datetime], in_table: float
) -> tuple[dict[str, Speed], Size]:
    """Archive weeks of each history; then verify the archives, and restore them into a table.

    Args:
        dues: the ends of the weeks. All executions before them have expired.
        in_table: the bytes of a row in the table.
    """
    speeds = {way: Speed() for way in WAYS}
    with ExitStack() as stack:
        folders = {layout: stack.enter_context(tempfile.TemporaryDirectory()) for layout in urls}
        for due in dues:
            for layout, url in urls.items():
                with create_store(url, clock=lambda due=due: due + RETENTION) as store:
                    way = BY_ROWS if layout == PLAIN else BY_PARTITION
                    speeds[way].measure(
                        lambda store=store, layout=layout: store.expire(
                            archive=folders[layout], by_partition=layout != PLAIN
                        )
                    )
        archived = sum(speeds[BY_ROWS].rows)
        size = Size(in_table, bytes_of_files(folders[PLAIN]) / archived)
        for layout, url in urls.items():
            with create_store(url) as store:
                archive = Archive(folders[layout])
                speeds[VERIFY].measure(partial(_verified, archive, store))
                speeds[RESTORE].measure(partial(archive.restore, store))
    return speeds, size


def _verified(archive: Archive, store: HistoryStore) -> int:
    found = archive.verify(store)
    assert found.ok
    return found.rows


def measure_varied(server: URL, rows: int) -> Size:
    """Archive a history whose payloads hardly compress; return the bytes of a row."""
    with new_database(server, "varied") as url, tempfile.TemporaryDirectory() as folder:
        with new_engine(url) as engine:
            fill(engine, rows, retention=RETENTION, is_varied=True)
        in_table = bytes_of_table(url) / rows
        with create_store(url, clock=lambda: NOW + RETENTION) as store:
            archived = store.expire(archive=folder)
        return Size(in_table, bytes_of_files(folder) / archived)


def bytes_of_table(url: URL) -> int:
    """Return the bytes of the history table, its partitions, and their indexes."""
    with new_engine(url) as engine, engine.connect() as connection:
        return int(connection.execute(text(_BYTES)).scalar_one())


def bytes_of_files(folder: str) -> int:
    """Return the bytes of the files of an archive."""
    return sum(file.stat().st_size for file in Path(folder).rglob("*.parquet"))


def report(speeds: dict[str, Speed], rows: int) -> Table:
    """Return the table of the rows per second of each way."""
    return Table(
        "Archive",
        "Executions per second, end to end: the first two archive the executions of weeks of two "
        f"histories of {rows:,} rows, a week at a time, in turn; the others then read what each "
        "has archived. Medians, with the minimum and maximum. The files are on the same disk.",
        ["way", "executions at a time", "executions/s", "target"],
        [
            [
                way,
                middle(each.rows),
                middle(ratios(each.rows, each.seconds)),
                TARGETS.get(way, ""),
            ]
            for way, each in speeds.items()
        ],
    )


def report_sizes(sizes: dict[str, Size]) -> Table:
    """Return the table of the bytes of a row by the kind of payload."""
    return Table(
        "Size of an archive",
        "Bytes per execution: in the table with its indexes, and in the files. The payload holds "
        "some text, and hexadecimal digits. The target is less than a fifth.",
        ["payload", "in the table", "in the archive", "archive / table"],
        [
            [
                payload,
                f"{size.in_table:,.0f}",
                f"{size.in_files:,.0f}",
                f"{size.in_files / size.in_table:.2f}",
            ]
            for payload, size in sizes.items()
        ],
    )
