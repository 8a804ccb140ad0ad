"""Find out whether a value that is stored as JSON comes back as it was."""

from __future__ import annotations

from contextlib import suppress
from math import copysign
from types import NoneType
from typing import Any

_SCALARS = frozenset({str, int, bool, NoneType})
_FIRST_WHOLE = 1e16
"""From here on, Python writes floats with an exponent, and JSONB returns them as integers."""


def is_exact(value: Any, plain: Any) -> bool:
    """Return whether either database returns a value as it is: equal, and of the same types.

    Args:
        value: any value.
        plain: the JSON value that is stored in its place; the same object if sanitizing changes
            nothing in it, except that tuples become lists.
    """
    with suppress(Exception):  # another thread may be changing the value
        return _keeps_types(value) if plain is value else _is_same(value, plain)
    return False


def _keeps_types(value: Any) -> bool:
    """Return whether JSON keeps the types in a value that is made of JSON values and tuples."""
    kind = type(value)
    if kind is dict:
        value = value.values()
    elif kind is not list:
        return kind in _SCALARS or (kind is float and _is_kept(value))
    for item in value:  # four times as fast as all() with a generator
        kind = type(item)
        if kind is float:
            if not _is_kept(item):
                return False
        elif kind not in _SCALARS and not _keeps_types(item):
            return False
    return True


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
    return 0 < number < _FIRST_WHOLE or (
        abs(number) < _FIRST_WHOLE and (number != 0 or copysign(1, number) > 0)
    )
