"""Make any value storable as JSON. Nothing here raises because of a value.

Three things happen to a value before any SQL: what JSON or PostgreSQL cannot store becomes text,
secrets are redacted, and what is too large is cut, with a mark that gives the original size.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Collection, Iterable, Mapping, Set
from contextlib import suppress
from dataclasses import dataclass, fields
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from functools import lru_cache
from itertools import islice
from numbers import Integral, Real
from os import PathLike
from typing import Any
from uuid import UUID

from sqlalchemy import Row

from jobhistory.errors import check_count
from jobhistory.sanitize.attributes import attributes_of
from jobhistory.sanitize.exactness import is_exact, keeps_floats
from jobhistory.sanitize.json_text import JsonText, encode
from jobhistory.sanitize.secret_names import looks_secret
from jobhistory.sanitize.secrets import REDACTED, redact_arguments, redact_secrets, redact_text
from jobhistory.sanitize.tracebacks import safe_text, texts_of_error, unshowable
from jobhistory.sanitize.truncate import (
    NAME_LENGTH,
    byte_length,
    storable_text,
    truncate_name,
    truncate_text,
)
from jobhistory.sanitize.unchanged import MAX_DEPTH, SMALL, is_plain, is_unchanged
from jobhistory.typing import Redact

TEXT_ERROR_TYPE = "Error"

_MAX_INTEGER_BITS = 2048  # Python may refuse to print or parse integers of more than 640 digits
_NAMES = frozenset(["field", "header", "key", "name", "option", "parameter", "variable"]).union(
    ["Field", "Header", "Key", "Name", "Option", "Parameter", "Variable"]
)
_LONGEST_LOG = 64 * 1024**2  # more than the largest tail
_LABELS_LIMIT = 64 * 1024  # more than 16 labels take
_SMALLEST_LIMIT = 1024  # room for a mark at every level of nesting


@dataclass(frozen=True, kw_only=True)
class Limits:
    """The maximum size of each part of a record, in bytes of UTF-8. Longer values are cut.

    For payload, results and lists of steps, the size is that of the JSON text. Each limit must be
    at least 1024.
    """

    payload: int = 64 * 1024
    results: int = 64 * 1024
    message: int = 64 * 1024
    stack: int = 64 * 1024

    def __post_init__(self) -> None:
        for limit in fields(self):
            size = getattr(self, limit.name)
            check_count(size, f"limits.{limit.name}", least=_SMALLEST_LIMIT, example=65536)


_storable_key = lru_cache(maxsize=4096)(storable_text)


@dataclass(frozen=True)
class Sanitizer:
    """Makes values storable, with the limits and the redaction of one store. Thread-safe."""

    limits: Limits
    redact: Redact | None
    """Called for each name and value: in mappings, objects, pairs, and JSON in texts. The default
    rules apply to other text. With `None`, nothing is redacted."""

    def payload(self, value: Any) -> tuple[JsonText | None, bool]:
        """Return a job's payload as the text of a JSON value, and whether it comes back as it was.

        The text is `None` for SQL NULL.
        """
        return self._encoded(value, self.limits.payload)

    def results(self, value: Any) -> JsonText | None:
        """Return results as the text of a JSON value; `None` for SQL NULL."""
        return self._encoded(value, self.limits.results)[0]

    def labels(self, labels: dict[str, str]) -> dict[str, str]:
        """Return labels with secrets redacted, and no value longer than a label may be."""
        redacted: dict[str, Any] = self.walked(labels, _LABELS_LIMIT)
        return {name: truncate_name(safe_text(value)) for name, value in redacted.items()}

    def steps(self, steps: Iterable[Any]) -> list[str]:
        """Return the names of steps as texts."""
        names: list[str] = self.walked([safe_text(step) for step in steps], self.limits.results)
        return names

    def message(self, value: Any) -> str:
        """Return the text of any value, cut at the end."""
        text = value if isinstance(value, str) else safe_text(value)
        return _Walk(self.redact, self.limits.message).text(text)

    def stack(self, text: Any) -> str:
        """Return the text of a stack, cut in the middle, because both ends show what failed."""
        text = text if isinstance(text, str) else safe_text(text)
        return _Walk(self.redact, self.limits.stack).text(text, keep_tail=True)

    def log_tail(self, lines: list[str], limit: int) -> str | None:
        """Return log lines as text, as many of the last ones as fit into `limit` bytes."""
        text = _Walk(self.redact, _LONGEST_LOG).text("\n".join(lines))
        kept: list[str] = []
        room = limit
        for line in reversed(text.split("\n")):
            room -= byte_length(line) + 1
            if room < -1 and kept:
                break
            kept.append(line)
        tail = "\n".join(reversed(kept))
        return truncate_text(tail, limit, keep_tail=True) if tail else None

    def failure(self, error: BaseException | str) -> tuple[str, str, str | None]:
        """Return the type, message and stack of an error. A text has no stack."""
        if isinstance(error, str):
            return TEXT_ERROR_TYPE, self.message(error), None
        kind, message, stack = texts_of_error(error)
        return kind, self.message(message), self.stack(stack)

    def _encoded(self, value: Any, limit: int) -> tuple[JsonText | None, bool]:
        """Return a value as JSON text within the limit, and whether it comes back as it was.

        The value is encoded as it is if that is safe.
        """
        if value is None:
            return None, True
        redacts = self.redact is not None
        if not redacts or self.redact is redact_secrets:
            with suppress(Exception):  # another thread may be changing the value
                for tuples in (False, True):
                    if is_unchanged(value, limit, redacts=redacts, tuples=tuples):
                        text = JsonText.of(value)
                        if byte_length(text) > limit:
                            break
                        return text, not tuples and keeps_floats(value, text)
        plain = self.walked(value, limit)
        return (None if plain is None else JsonText.of(plain)), is_exact(value, plain)

    def walked(self, value: Any, limit: int) -> Any:
        """Return a value as a JSON value whose text is within the limit."""
        # If the whole value is too large, halve the allowance of each text and collection until it
        # fits. So small values beside a large one stay. In the end only marks are left, which fit.
        allowance = limit
        while allowance:
            plain = _Walk(self.redact, allowance).plain(value)
            if byte_length(encode(plain)) <= limit:
                return plain
            allowance //= 2
        return f"[cut, more than {limit} bytes]"


class _Walk:
    """One pass over a value, with an allowance in bytes for each of its texts and collections.

    An item takes at least two bytes, so the pass visits no more items than could fit. That limits
    its time, however large the value is.
    """

    def __init__(self, redact: Redact | None, allowance: int) -> None:
        self._redact = redact
        self._allowance = allowance
        self._most_items = allowance // 2
        self._items_left = allowance
        self._open: set[int] = set()

    def plain(self, value: Any) -> Any:
        """Return the value as a JSON value."""
        # The fast path for most values. It excludes their subclasses.
        kind = type(value)
        if kind is str:
            if len(value) <= self._allowance and value.isascii() and is_plain(value):
                return value
            return self.text(value)
        if value is None or kind is bool or (kind is int and -SMALL < value < SMALL):
            return value
        try:
            if kind is dict:
                return self._inside(value, len(value), lambda: self._object(value.items()))
            if kind is list:
                return self._inside(value, len(value), lambda: self._list(value))
            return self._plain(value)
        except Exception as error:  # code of the value's own class may raise anything
            return unshowable(value, error)

    def text(self, text: str, *, keep_tail: bool = False) -> str:
        """Return the text, redacted and cut."""
        if len(text) <= self._allowance:
            cleaned = self._clean(text)
            length = len(cleaned) if cleaned.isascii() else byte_length(cleaned)
            if length <= self._allowance:
                return cleaned
        return truncate_text(text, self._allowance, keep_tail=keep_tail, clean=self._clean)

    def _clean(self, text: str) -> str:
        if not text.isascii() or "\0" in text:  # as few texts are
            text = storable_text(text)
        if self._redact is None or not text:
            return text
        if text[0] in "{[" and text[-1] in "]}":
            with suppress(ValueError, RecursionError):
                value = json.loads(text)
                plain = self.plain(value)
                return text if plain == value else encode(plain)
        return redact_text(text)

    def _plain(self, value: Any) -> Any:
        match value:
            case None | bool():
                return value
            case Enum():
                return self.plain(value.value)
            case str():
                return self.text(str.__str__(value))
            case Integral():
                number = int(value)
                return number if number.bit_length() <= _MAX_INTEGER_BITS else hex(number)
            case Real():
                return _plain_float(float(value))
            case bytes() | bytearray() | memoryview():
                return self._bytes_text(memoryview(value))
            case datetime() | date() | time():
                return truncate_text(value.isoformat(), self._allowance)
            case timedelta() | Decimal() | UUID():
                return truncate_text(str(value), self._allowance)
            case PathLike():
                return self.text(str(value))
            case Mapping():
                return self._inside(value, len(value), lambda: self._object(value.items()))
            case tuple() if names := getattr(type(value), "_fields", None):  # a NamedTuple
                pairs = list(zip(names, value, strict=False))
                return self._inside(value, len(pairs), lambda: self._object(pairs))
            case Row():
                return self.plain(value._mapping)
            case Collection():
                return self._inside(value, len(value), lambda: self._list(value))
        attributes = attributes_of(value)
        if attributes:
            return self._inside(value, len(attributes), lambda: self._object(attributes.items()))
        return self.text(repr(value))

    def _inside(self, value: Any, size: int, walk: Callable[[], Any]) -> Any:
        """Walk into a mapping or collection, unless it contains itself or is nested too deeply."""
        if id(value) in self._open:
            return "[circular]"
        if len(self._open) >= MAX_DEPTH:
            return f"[cut, nested deeper than {MAX_DEPTH}]"
        if self._items_left <= 0:
            return f"[cut, {size} items]"
        self._items_left -= min(size, self._most_items)
        self._open.add(id(value))
        try:
            return walk()
        finally:
            self._open.remove(id(value))

    def _object(self, pairs: Collection[tuple[Any, Any]]) -> dict[str, Any]:
        plain: dict[str, Any] = {}
        by_default = self._redact is redact_secrets
        for key, item in islice(pairs, self._most_items):
            name = self._key(key)
            if name in plain:  # 1 and "1" are two keys in Python, and one in JSON
                name = f"{name} [{len(plain)}]"
            if by_default:  # saves a call for each key
                plain[name] = REDACTED if looks_secret(name) else self.plain(item)
            else:
                plain[name] = self.plain(self._redacted(name, item))
        if "value" in plain or "Value" in plain:
            self._redact_named(plain)
        if "input" in plain and isinstance(plain.get("loc"), list):
            for name in plain["loc"]:  # an item of pydantic's ValidationError.errors()
                if isinstance(name, str):
                    self._redact_item(plain, "input", name)
        if len(pairs) > self._most_items:
            plain["..."] = f"[cut, {len(pairs)} keys]"
        return plain

    def _redact_named(self, plain: dict[str, Any]) -> None:
        """Redact the value in a mapping such as `{"name": "DB_PASSWORD", "value": "..."}`."""
        for value in plain.keys() & {"value", "Value"}:
            for name in plain.keys() & _NAMES:
                if isinstance(plain[name], str):
                    self._redact_item(plain, value, plain[name])

    def _redact_item(self, plain: Any, place: Any, name: str) -> None:
        """Redact an item of a mapping or list under a name that is not its key."""
        redacted = self._redacted(name, plain[place])
        if redacted is not plain[place]:
            plain[place] = self.plain(redacted)

    def _list(self, items: Collection[Any]) -> list[Any]:
        plain = [self.plain(item) for item in islice(items, self._most_items)]
        if isinstance(items, Set):  # the same set always gives the same list
            plain.sort(key=encode)
        elif plain and type(plain[0]) is str and self._redact is not None:
            if len(plain) == 2:  # such as ("Authorization", "Bearer ...")
                self._redact_item(plain, 1, plain[0])
            if any(type(item) is str and item[:1] == "-" for item in plain):
                plain = redact_arguments(plain)
        if len(items) > self._most_items:
            plain.append(f"... [cut, {len(items)} items]")
        return plain

    def _key(self, key: Any) -> str:
        if type(key) is str and len(key) <= NAME_LENGTH <= self._allowance // 4:
            return _storable_key(key)
        plain = self.plain(key)
        return truncate_name(plain if isinstance(plain, str) else encode(plain))

    def _redacted(self, name: str, value: Any) -> Any:
        if self._redact is None:
            return value
        try:
            return self._redact(name, value)
        except Exception:  # a value that `redact` cannot judge may be a secret
            return REDACTED

    def _bytes_text(self, view: memoryview) -> str:
        if view.nbytes <= self._allowance:
            return self.text(view.tobytes().decode(errors="backslashreplace"))
        head = view.cast("B")[: self._allowance].tobytes().decode(errors="backslashreplace")
        return self._clean(head[: self._allowance]) + f"... [cut, {view.nbytes} bytes]"


def _plain_float(number: float) -> float | str:
    if math.isfinite(number):
        return number
    return "NaN" if math.isnan(number) else "Infinity" if number > 0 else "-Infinity"
