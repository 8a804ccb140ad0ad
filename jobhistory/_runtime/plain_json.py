"""Values that every JSON encoder accepts."""

from __future__ import annotations

from datetime import datetime
from enum import Enum
from typing import Any
from uuid import UUID


def plain_json(value: Any) -> Any:
    """Return a time, an id or an enum member as a text or a number, and any other value as it is.

    Times are in ISO 8601, with their offset.
    """
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, UUID):
        return str(value)
    return value.value if isinstance(value, Enum) else value
