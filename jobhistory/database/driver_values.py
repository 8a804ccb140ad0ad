"""Values as psycopg takes them, for statements that SQLAlchemy does not execute.

psycopg adapts all values of a row, except for lists and mappings.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jobhistory.sanitize.json_text import JsonText
from jobhistory.schema import COLUMN_NAMES, JSON_COLUMNS

_JSON_PLACES = [COLUMN_NAMES.index(name) for name in JSON_COLUMNS]


def for_driver(value: Any) -> JsonText | None:
    """Return a value of a JSON column as text; `None` stays, as SQL NULL."""
    return value if value is None or type(value) is JsonText else JsonText.of(value)


def row_for_driver(row: Mapping[str, Any]) -> list[Any]:
    """Return the values of all columns, in order; `None` for those that are missing."""
    values = list(map(row.get, COLUMN_NAMES))
    for place in _JSON_PLACES:
        values[place] = for_driver(values[place])
    return values
