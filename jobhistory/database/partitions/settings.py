"""What was asked for when the history table was partitioned, in the table of maintenance."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, get_args

from sqlalchemy import Connection, bindparam, text

from jobhistory.database.partitions.spans import Every
from jobhistory.database.partitions.sql import identifier
from jobhistory.database.running_index import escaped
from jobhistory.rollup_schema import STATE

_NAME = "partitions"
_READ = "SELECT value FROM {} WHERE name = :name"
_WRITE = """
INSERT INTO {} AS state (name, value) VALUES (:name, :value)
ON CONFLICT (name) DO UPDATE SET value = excluded.value WHERE state.value <> excluded.value
"""
_DELETE = "DELETE FROM {} WHERE name = :name"


@dataclass(frozen=True)
class Settings:
    """How the history table is partitioned.

    Attributes:
        every: the length of a partition.
        ahead: the number of partitions after the present one that exist ahead of time.
    """

    every: Every
    ahead: int


def read_settings(connection: Connection, schema: str) -> Settings | None:
    """Return the settings; `None` if there are none, or none that this version understands."""
    statement = text(_READ.format(_table(schema))).bindparams(bindparam("name", _NAME))
    value = connection.execute(statement).scalar()
    found = {} if value is None else json.loads(value)
    every: Any = found.get("every")
    ahead: Any = found.get("ahead")
    if every not in get_args(Every) or not isinstance(ahead, int):
        return None
    return Settings(every, ahead)


def write_settings(connection: Connection, schema: str, settings: Settings) -> None:
    """Remember settings, so that `expire` can create partitions, too."""
    value = json.dumps({"every": settings.every, "ahead": settings.ahead})
    connection.execute(text(_WRITE.format(_table(schema))), {"name": _NAME, "value": value})


def forget_settings(connection: Connection, schema: str) -> None:
    """Delete the settings of a table that is not partitioned any more."""
    connection.execute(text(_DELETE.format(_table(schema))), {"name": _NAME})


def _table(schema: str) -> str:
    return escaped(identifier(schema, STATE.name))
