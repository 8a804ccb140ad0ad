"""Values as psycopg takes them, for statements that SQLAlchemy does not execute.

psycopg adapts all values of a row, except for lists and mappings.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from jobhistory.sanitize.json_text import JsonText
from jobhistory.schema import JSON_COLUMNS


def for_driver(value: Any) -> JsonText | None:
    """Return a value of a JSON column as text; `None` stays, as SQL NULL."""
    return value if value is None or type(value) is JsonText else JsonText.of(value)


def values_for_driver(values: Mapping[str, Any], names: Sequence[str]) -> list[Any]:
    """Return the values with these names, in order; `None` for those that are missing."""
    found = [values.get(name) for name in names]
    for place, name in enumerate(names):
        if name in JSON_COLUMNS:
            found[place] = for_driver(found[place])
    return found
