"""How many rows a call reads, as the database itself counts them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from sqlalchemy import Connection, Engine, text

_STEPS = 10

_COUNTERS = text("""
    SELECT
        seq_tup_read,
        coalesce(idx_tup_fetch, 0),
        (SELECT coalesce(sum(idx_tup_read), 0) FROM pg_stat_user_indexes AS i
            WHERE i.relid = t.relid),
        (SELECT heap_blks_read + heap_blks_hit + idx_blks_read + idx_blks_hit
            FROM pg_statio_user_tables AS s WHERE s.relid = t.relid)
    FROM pg_stat_user_tables AS t WHERE relname = 'job_history'
""")


@dataclass(frozen=True)
class Reading:
    """What a call read: rows of the table or entries of its indexes, and pages of either.

    An entry that an index scan steps over, because it does not meet a condition, counts as a page
    only.
    """

    rows: int
    pages: int


def postgresql_reading(engine: Engine, watcher: Connection, call: Callable[[], object]) -> Reading:
    """Return what a call reads on PostgreSQL.

    Args:
        engine: the engine that the call uses, which has only one connection.
        watcher: another connection, in AUTOCOMMIT mode.
    """

    def counters() -> tuple[int, ...]:
        # A session keeps its counts for up to a minute, unless it is told to flush them.
        with engine.connect() as connection:
            connection.execute(text("SELECT pg_stat_force_next_flush()"))
        watcher.execute(text("SELECT pg_stat_clear_snapshot()"))
        return tuple(map(int, watcher.execute(_COUNTERS).one()))

    before = counters()
    call()
    scanned, fetched, entries, pages = (
        now - then for now, then in zip(counters(), before, strict=True)
    )
    return Reading(scanned + max(fetched, entries), pages)


def sqlite_steps(engine: Engine, call: Callable[[], object]) -> int:
    """Return how many instructions SQLite's virtual machine executes in a call.

    It takes about ten to step over a row, and sixty to return a whole one.
    """
    steps = 0

    def count() -> int:
        nonlocal steps
        steps += 1
        return 0

    with engine.connect() as connection:
        driver = connection.connection.driver_connection
        assert driver is not None
        driver.set_progress_handler(count, _STEPS)
    call()
    with engine.connect() as connection:
        connection.connection.driver_connection.set_progress_handler(None, _STEPS)
    return steps * _STEPS
