"""Find out whether sanitizing a value would change it, several times as fast as sanitizing it.

Most payloads are JSON values that contain no secret. They need no copy: they are encoded as they
are.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import lru_cache
from math import isfinite
from typing import Any

from jobhistory.sanitize.secret_names import looks_secret
from jobhistory.sanitize.secrets import redact_text
from jobhistory.sanitize.truncate import NAME_LENGTH, storable_text

MAX_DEPTH = 64
"""The maximum depth of nested values, because `json.dumps` and JSON parsers recurse."""

SMALL = 2**63
"""An integer below it needs no check."""

# No rule of redaction applies to a text without these characters, unless it has one of `_WORDS`.
_PLAIN = re.compile(
    r"(?!-)[^'\"=:%{\[\0\ud800-\udfff]*+|[\d:.TZ+\- ]*+|[a-z][a-z0-9+]*+://[\w./\-]*+", re.ASCII
)

# A mapping with one of these keys may have a secret under it, named by another key.
_NAMED = frozenset(["input", "value", "Value"])


def is_plain(text: str) -> bool:
    """Return whether a text is storable and contains no secret, judged by its characters only.

    Most texts are plain: ids, paths, times, sentences, addresses.
    """
    return _PLAIN.fullmatch(text) is not None and not (
        " " in text and (" -" in text or "earer " in text)
    )


@lru_cache(maxsize=4096)  # payloads of a task have the same keys
def _is_plain_key(key: str) -> bool:
    return _is_storable(key) and not looks_secret(key) and key not in _NAMED


@lru_cache(maxsize=4096)
def _is_storable(text: str) -> bool:
    return len(text) <= NAME_LENGTH and storable_text(text) == text


def is_unchanged(value: Any, room: int, *, redacts: bool) -> bool:
    """Return whether sanitizing changes nothing in a value, for sure.

    Args:
        value: any value. Only values that `json` encodes as they are can be unchanged.
        room: the limit of the value's JSON text, in bytes. The caller checks the exact size.
        redacts: whether secrets are redacted, by the default rules.
    """
    return _room_left(value, room, MAX_DEPTH, _is_plain_key if redacts else _is_storable) >= 0


def _room_left(value: Any, room: int, depth: int, is_key: Callable[[str], bool]) -> int:
    """Return what the value leaves of the room, at most; less than 0 if it may be changed."""
    kind = type(value)
    if kind is str:
        if len(value) <= room and (is_plain(value) or _is_clean(value, is_key)):
            return room - len(value)
        return -1
    if value is None or kind is bool or (kind is int and -SMALL < value < SMALL):
        return room
    if kind is dict:
        room -= len(value)
        if depth == 0:
            return -1
        for key, item in value.items():
            if room < 0 or type(key) is not str or not is_key(key):
                return -1
            room = _room_left(item, room, depth - 1, is_key)
        return room
    if kind is list or kind is tuple:
        room -= len(value)
        if depth == 0 or (is_key is _is_plain_key and value and not _is_ordinary(value)):
            return -1
        for item in value:
            if room < 0:
                return -1
            room = _room_left(item, room, depth - 1, is_key)
        return room
    return room if kind is float and isfinite(value) else -1


def _is_clean(text: str, is_key: Callable[[str], bool]) -> bool:
    """Return whether a text that is not plain stays as it is."""
    if storable_text(text) != text:
        return False
    if is_key is _is_storable:  # nothing is redacted
        return True
    # JSON in a text is sanitized as well.
    return text[:1] not in ("{", "[") and redact_text(text) == text


def _is_ordinary(items: Sequence[Any]) -> bool:
    """Return whether a list is neither the arguments of a command nor a name and a secret."""
    first = items[0]
    if type(first) is not str:
        return True
    if len(items) == 2 and looks_secret(first):
        return False
    return not any(type(item) is str and item[:1] == "-" for item in items)
