"""What the bare words of a search mean: an id, a name, a status, or else the text of an error."""

from __future__ import annotations

import re
from collections.abc import Generator
from typing import Any
from uuid import UUID

from jobhistory.errors import InvalidInput
from jobhistory.query.criteria import coerce
from jobhistory.sanitize.truncate import NAME_LENGTH
from jobhistory.web import search
from jobhistory.web.asking import Ask, ask
from jobhistory.web.context import Context
from jobhistory.web.search import TERMS, WINDOW_TERMS

_LONGER_THAN = re.compile(r">=?\s*(\d.*)")
_LABEL = re.compile(r"(?s)[a-z][a-z0-9_]{0,62}=.+")
_TRACE_ID = re.compile("(?!0{32})[0-9a-f]{32}")

_LOOKED_UP = ("job-id", "correlation-id", "task", "worker", "error-type")
"""The terms whose values a bare word may be, those that people paste most often first.

An index finds one execution for each.
"""


def resolve(page: Context) -> Generator[Ask, Any, str | None]:
    """Return the URL for what a search means; `None` if it has explicit terms only.

    The terms of a window of time become parameters of the URL, which its links can change.
    """
    given = search.split(page.search_text)
    terms = [
        _explicit(*term)
        for term in given
        if term[0] not in WINDOW_TERMS and not _has_no_value(*term)
    ]
    known = [term for term in terms if term[0] in TERMS]
    words = " ".join(
        value if name is None else f"{name}:{value}" for name, value in terms if name not in TERMS
    )
    if words.strip():
        meaning = yield from _meaning(words)
        if isinstance(meaning, UUID) and not known:
            return page.link("execution", id=str(meaning))
        if isinstance(meaning, str):
            terms = [*known, (meaning, words)]
        elif not any(name for name, _ in terms if name not in TERMS):
            terms = [*known, ("error-contains", words)]
    else:
        terms = known
    if terms == given:
        return None
    window: dict[str, str | None] = dict(search.window_of(page.search_text))
    return page.this(**window, q=search.join(terms) or None)


def _has_no_value(name: str | None, value: str) -> bool:
    """Return whether a bare word is the name of a term, as suggestions leave it."""
    return name is None and value[-1:] == ":" and value[:-1] in (*TERMS, *WINDOW_TERMS)


def _explicit(name: str | None, value: str) -> tuple[str | None, str]:
    """Return a term in place of a bare word that is a shorthand."""
    if name is not None:
        return name, value
    if value.lower() in search.STATUS_NAMES:
        return "status", search.STATUS_NAMES[value.lower()]
    if _LABEL.fullmatch(value):
        return "label", value
    longer = _LONGER_THAN.fullmatch(value)
    if longer and _can_be_read("min-time", longer[1]):
        return "min-time", longer[1]
    return name, value


def _can_be_read(name: str, value: str) -> bool:
    try:
        TERMS[name].read(value, name)
    except InvalidInput:
        return False
    return True


def _meaning(words: str) -> Generator[Ask, Any, UUID | str | None]:
    """Return the execution with this id, or the name of the term that has these words as value."""
    id_ = _uuid(words)
    if id_ is not None and (yield ask("get", id_, reads="one execution, by its id")):
        return id_
    if len(words) <= NAME_LENGTH:
        for name in _LOOKED_UP:
            query = coerce({TERMS[name].criterion: words, "limit": 1}, {})
            if (yield ask("query", query, reads="at most one execution, by an index")):
                return name
    return "trace-id" if _TRACE_ID.fullmatch(words) else None


def _uuid(text: str) -> UUID | None:
    try:
        return UUID(text)
    except ValueError:
        return None
