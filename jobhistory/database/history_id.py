"""The id of a history, which names its files in an archive that several histories share."""

from __future__ import annotations

import json
from typing import Any
from uuid import uuid4

from sqlalchemy import select
from sqlalchemy.dialects import postgresql, sqlite

from jobhistory.database.transaction import Transaction
from jobhistory.rollup_schema import STATE

_NAME = "history_id"
_READ = select(STATE.c.value).where(STATE.c.name == _NAME)
_INSERTS: dict[str, Any] = {
    "postgresql": postgresql.insert(STATE),
    "sqlite": sqlite.insert(STATE),
}
_WRITE = {
    name: insert_.on_conflict_do_nothing(index_elements=[STATE.c.name])
    for name, insert_ in _INSERTS.items()
}


def history_id(transaction: Transaction) -> str:
    """Return the id of the history: 32 hexadecimal digits, made at random when it is first used.

    Each schema has its own. A copy of a database has that of the original.
    """
    found = transaction.execute(_READ).scalar()
    if found is None:
        new = {"name": _NAME, "value": json.dumps(uuid4().hex)}
        transaction.execute(_WRITE[transaction.dialect], new)
        found = transaction.execute(_READ).scalar_one()
    return str(json.loads(found))
