"""The SQL that counts ended executions of which the history has no row."""

from __future__ import annotations

from typing import Any

from sqlalchemy import bindparam, delete, false, insert, select
from sqlalchemy.dialects import postgresql, sqlite

from jobhistory.rollup_schema import ENDED, STATE

COUNT = insert(ENDED).values(is_stored=false())
"""Queues an ended execution for the statistics."""

RECORDER = "recorder "
"""The beginning of the names in the state under which recorders note what they have counted."""

LAST_COUNTED = (
    select(STATE.c.name, STATE.c.value)
    .where(STATE.c.name.in_(bindparam("names", expanding=True)))
    .with_for_update()
)
"""Selects and locks the notes of recorders, with the given `names`."""

FORGET_RECORDERS = delete(STATE).where(
    STATE.c.name.startswith(RECORDER), STATE.c.name < bindparam("oldest")
)
"""Deletes the notes of recorders that are older than the one with the name `oldest`."""


_INSERTS: dict[str, Any] = {
    "postgresql": postgresql.insert(STATE),
    "sqlite": sqlite.insert(STATE),
}

NOTE_NEW = {
    name: insert_.on_conflict_do_nothing(index_elements=[STATE.c.name])
    for name, insert_ in _INSERTS.items()
}
"""By dialect: writes the note of a recorder, unless there is one."""

NOTE_COUNTED = {
    name: insert_.on_conflict_do_update(
        index_elements=[STATE.c.name], set_={"value": insert_.excluded.value}
    )
    for name, insert_ in _INSERTS.items()
}
"""By dialect: writes the note of a recorder, in place of the one that there is."""
