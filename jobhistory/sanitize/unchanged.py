"""Find out whether sanitizing a value would change it, several times as fast as sanitizing it.

Most payloads are JSON values that contain no secret. They need no copy: they are encoded as they
are.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
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

_MOST_KEYS = 4096  # that are kept


def is_plain(text: str) -> bool:
    """Return whether a text is storable and contains no secret, judged by its characters only.

    Most texts are plain: ids, paths, times, sentences, addresses.
    """
    return _PLAIN.fullmatch(text) is not None and not (
        " " in text and (" -" in text or "earer " in text or "PRIVATE KEY" in text)
    )


class _Rules:
    """What must be true of the keys and texts of a value that stays as it is. Thread-safe."""

    def __init__(self, *, redacts: bool, tuples: bool) -> None:
        self.redacts = redacts
        self.tuples = tuples
        self._plain_keys: set[str] = set()

    def have_plain_keys(self, value: dict[Any, Any]) -> bool:
        """Return whether all keys of a mapping stay as they are."""
        # One call for all keys, because payloads of a task have the same keys.
        return self._plain_keys.issuperset(value) or all(map(self._is_plain_key, value))

    def is_clean(self, text: str) -> bool:
        """Return whether a text that is not plain stays as it is."""
        if storable_text(text) != text:
            return False
        if not self.redacts:
            return True
        # JSON in a text is sanitized as well.
        return text[:1] not in ("{", "[") and redact_text(text) == text

    def _is_plain_key(self, key: Any) -> bool:
        if type(key) is not str or len(key) > NAME_LENGTH or storable_text(key) != key:
            return False
        if self.redacts and (looks_secret(key) or key in _NAMED):
            return False
        if len(self._plain_keys) < _MOST_KEYS:
            self._plain_keys.add(key)
        return True


_RULES = {
    (redacts, tuples): _Rules(redacts=redacts, tuples=tuples)
    for redacts in (False, True)
    for tuples in (False, True)
}


def is_unchanged(value: Any, room: int, *, redacts: bool, tuples: bool = True) -> bool:
    """Return whether sanitizing changes nothing in a value, for sure.

    Args:
        value: any value. Only values that `json` encodes as they are can be unchanged.
        room: the limit of the value's JSON text, in bytes. The caller checks the exact size.
        redacts: whether secrets are redacted, by the default rules.
        tuples: whether the value may contain tuples, which JSON turns into lists.
    """
    return _room_left((value,), room, MAX_DEPTH, _RULES[redacts, tuples]) >= 0


def _room_left(items: Iterable[Any], room: int, depth: int, rules: _Rules) -> int:
    """Return what the items leave of the room, at most; less than 0 if one may be changed."""
    for item in items:
        kind = type(item)
        if kind is str:
            room -= len(item)
            if room < 0 or not (is_plain(item) or rules.is_clean(item)):
                return -1
        elif kind is int:
            if not -SMALL < item < SMALL:
                return -1
        elif kind is dict:
            room -= len(item)
            if room < 0 or depth == 0 or not rules.have_plain_keys(item):
                return -1
            room = _room_left(item.values(), room, depth - 1, rules)
        elif kind is list or (kind is tuple and rules.tuples):
            room -= len(item)
            is_ordinary = not (rules.redacts and item) or _is_ordinary(item)
            if room < 0 or depth == 0 or not is_ordinary:
                return -1
            room = _room_left(item, room, depth - 1, rules)
        elif not (item is None or kind is bool or (kind is float and isfinite(item))):
            return -1
        if room < 0:
            return -1
    return room


def _is_ordinary(items: Sequence[Any]) -> bool:
    """Return whether a list is neither the arguments of a command nor a name and a secret."""
    first = items[0]
    if type(first) is not str:
        return True
    if len(items) == 2 and looks_secret(first):
        return False
    return not any(type(item) is str and item[:1] == "-" for item in items)
