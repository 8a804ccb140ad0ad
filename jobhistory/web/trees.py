"""JSON values as trees that open and close without a script."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from markupsafe import Markup

from jobhistory.sanitize.tracebacks import safe_text

MOST_VALUES = 500
"""The number of values that a tree shows."""

_DEEPEST = 20
_LONGEST_TEXT = 2000
_OPEN_LEVELS = 4
_OPEN_ITEMS = 20
_NO_NAME = Markup()


def tree(value: Any) -> Markup:
    """Return a JSON value as HTML: nested lists, of which the outer ones are open.

    It is bounded in size and depth, and says what it leaves out.
    """
    return _Writer().write(value, 0)


class _Writer:
    def __init__(self) -> None:
        self._left = MOST_VALUES

    def write(self, value: Any, depth: int, name: Markup = _NO_NAME) -> Markup:
        self._left -= 1
        if isinstance(value, dict):
            items: Iterable[tuple[Any, Any]] = value.items()
            return self._container(items, len(value), ("key", "keys"), "{}", depth, name)
        if isinstance(value, (list, tuple)):
            return self._container(
                enumerate(value), len(value), ("item", "items"), "[]", depth, name
            )
        return name + _scalar(value)

    def _container(
        self,
        items: Iterable[tuple[Any, Any]],
        size: int,
        words: tuple[str, str],
        empty: str,
        depth: int,
        name: Markup,
    ) -> Markup:
        if not size:
            return Markup('{}<span class="json-empty">{}</span>').format(name, empty)
        count = f"{size:,} {words[size != 1]}"
        if depth >= _DEEPEST:
            return Markup('{}<span class="quiet">{}, nested too deep to be shown</span>').format(
                name, count
            )
        opened = Markup(" open") if depth < _OPEN_LEVELS and size <= _OPEN_ITEMS else ""
        return Markup(
            '<details{}><summary>{}<span class="quiet">{}</span></summary><ul>{}</ul></details>'
        ).format(opened, name, count, Markup().join(self._items(items, size, depth)))

    def _items(self, items: Iterable[tuple[Any, Any]], size: int, depth: int) -> Iterable[Markup]:
        for number, (key, value) in enumerate(items):
            if self._left <= 0:
                more = f"{size - number:,} more, which this page does not show"
                yield Markup('<li class="quiet">{}</li>').format(more)
                return
            name = Markup('<span class="json-key">{}</span>: ').format(_cut(safe_text(key)))
            yield Markup("<li>{}</li>").format(self.write(value, depth + 1, name))


def _scalar(value: Any) -> Markup:
    if isinstance(value, str):
        kind, text = "json-text", json.dumps(_cut(value), ensure_ascii=False)
    elif value is None or isinstance(value, bool):
        kind, text = "json-constant", json.dumps(value)
    else:
        kind, text = "json-constant", _cut(safe_text(value))
    return Markup('<span class="{}">{}</span>').format(kind, text)


def _cut(text: str) -> str:
    if len(text) <= _LONGEST_TEXT:
        return text
    return f"{text[:_LONGEST_TEXT]}… [{len(text) - _LONGEST_TEXT:,} more characters]"
