"""Values as psycopg takes them, for statements that SQLAlchemy does not execute."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from jobhistory.sanitize.json_text import JsonText
from jobhistory.schema import JSON_COLUMNS


def values_for_driver(values: Mapping[str, Any], names: Sequence[str]) -> list[Any]:
    """Return the values with these names, in order; `None` for those that are missing.

    psycopg adapts all of them except for lists and mappings, which become JSON text.
    """
    found = [values.get(name) for name in names]
    for place, name in enumerate(names):
        if name in JSON_COLUMNS:
            value = found[place]
            if value is not None and type(value) is not JsonText:
                found[place] = JsonText.of(value)
    return found
