"""Find out whether a value that is stored as JSON comes back as it was."""

from __future__ import annotations

from contextlib import suppress
from math import copysign
from types import NoneType
from typing import Any

_SCALARS = frozenset({str, int, bool, NoneType})
_FIRST_WHOLE = 1e16
"""From here on, Python writes floats with an exponent, and JSONB returns them as integers."""


def keeps_floats(value: Any, text: str) -> bool:
    """Return whether either database keeps the floats in a JSON value.

    Args:
        value: the value, without tuples.
        text: the value as JSON text, which a search reads several times as fast as a walk.
    """
    return ("e+" not in text and "-0.0" not in text) or is_exact(value, value)


def is_exact(value: Any, plain: Any) -> bool:
    """Return whether either database returns a value as it is: equal, and of the same types.

    Args:
        value: any value.
        plain: the JSON value that is stored in its place.
    """
    with suppress(Exception):  # another thread may be changing the value
        return _is_same(value, plain)
    return False


def _is_same(value: Any, plain: Any) -> bool:
    """Return whether a value equals the JSON value that is stored, in all parts and types."""
    kind = type(value)
    if kind is not type(plain):
        return False
    if kind is float:
        return bool(value == plain) and _is_kept(value)
    if kind is dict:
        return len(value) == len(plain) and all(
            type(key) is str and key in plain and _is_same(item, plain[key])
            for key, item in value.items()
        )
    if kind is list:
        return len(value) == len(plain) and all(map(_is_same, value, plain))
    return kind in _SCALARS and bool(value == plain)


def _is_kept(number: float) -> bool:
    """Return whether JSONB keeps a float. It keeps decimals, which have no negative zero."""
    return abs(number) < _FIRST_WHOLE and (number != 0 or copysign(1, number) > 0)
