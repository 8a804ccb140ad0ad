"""Restoring archived executions of a window into a table."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from jobhistory.archive.reading import Window, files_between, rows_between
from jobhistory.archive.restored_table import RestoredTable
from jobhistory.archive.storage import Storage
from jobhistory.database.transaction import Purpose, RunsTransactions


def restore(
    history: RunsTransactions,
    storage: Storage,
    table: RestoredTable,
    window: Window,
    batch_size: int,
    progress: Callable[[int], None],
) -> int:
    """Insert the archived executions that started in a window, and return their number.

    Each batch is a transaction. Rows that are there stay, so a call that was interrupted can be
    repeated.
    """
    history.run(Purpose.MAINTAIN_AS_ONE, table.create)
    restored = 0
    for file in files_between(storage, window):
        for rows in rows_between(storage, file, window, batch_size):
            restored += history.run(Purpose.MAINTAIN_AS_ONE, partial(table.insert, rows=rows))
            progress(restored)
    return restored
