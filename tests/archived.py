"""Histories that are archived as a whole, for the tests of what reads archives."""

from __future__ import annotations

from datetime import datetime
from functools import partial

from sqlalchemy import delete

from jobhistory.database import manifest
from jobhistory.database.archived_rows import OWN_COLUMNS, RawRows
from jobhistory.database.history_id import history_id
from jobhistory.database.transaction import Purpose
from jobhistory.sanitize.json_text import encode
from jobhistory.schema import COLUMN_NAMES, JSON_COLUMNS, TABLE, values_of


def archive_all(store, archive):
    """Archive all rows of a history, in a file for each day; return the entries."""
    rows = [_raw(values_of(record)) for record in store.iterate(order="oldest")]
    history = store.internals.history
    owner = history.run(Purpose.MAINTAIN_AS_ONE, history_id)
    entries = archive.prepare(RawRows(columns=OWN_COLUMNS, values=rows), owner)

    def commit(transaction):
        transaction.execute(delete(TABLE))
        manifest.enter(transaction, entries)

    if entries:
        history.run(Purpose.MAINTAIN_AS_ONE, commit)
    for entry in entries:
        archive.publish(entry)
        note = partial(manifest.note_published, entry=entry, at=archive.now())
        history.run(Purpose.MAINTAIN, note)
    return entries


def _raw(values):
    for name in JSON_COLUMNS:
        values[name] = None if values[name] is None else encode(values[name])
    for name, value in values.items():
        if isinstance(value, datetime):
            values[name] = value.replace(tzinfo=None)
        if name in ("id", "parent_id") and value is not None:
            values[name] = value.hex
    return [values[name] for name in COLUMN_NAMES]
