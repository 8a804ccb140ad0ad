"""JSON text, which rows hold in place of values, so that each value is encoded only once."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

encode: Callable[[Any], str] = json.JSONEncoder(ensure_ascii=False, check_circular=False).encode
"""Return a JSON value as text with minimal escapes. Its length in UTF-8 counts for the limits."""


class JsonText(str):
    """A JSON value as text. It is immutable, so rows, batches and the ring buffer can share it."""

    __slots__ = ()

    @classmethod
    def of(cls, value: Any) -> JsonText:
        """Return a JSON value as text."""
        return cls(encode(value))

    @property
    def value(self) -> Any:
        """The JSON value: a new object each time."""
        return json.loads(self)


def decoded(value: Any) -> Any:
    """Return the value of a `JsonText`, or any other value unchanged."""
    return value.value if type(value) is JsonText else value
