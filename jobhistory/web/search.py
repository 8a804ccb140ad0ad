"""The search box: terms such as `task:send_email status:failed error-contains:"timed out"`.

Each term is an option of the command line without its dashes, and means the same. Only statuses may
be a list with commas; other terms are repeated, and take any text in quotes.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

from jobhistory.errors import InvalidInput
from jobhistory.execution.status import Status
from jobhistory.query.terms import read_label_texts, read_milliseconds, read_uuid

# A name and a value, or a bare value. A quote that is never closed reaches to the end.
_TERM = re.compile(r"""(?s)\s*(?:([a-z][a-z-]*):)?("(?:[^"\\]|\\.)*(?:"|\\?\Z)|[^\s"]\S*)""")
_QUOTED = re.compile(r'(?s)"((?:[^"\\]|\\.)*)(?:"|\\?\Z)')
_ESCAPE = re.compile(r"(?s)\\(.)")
_NAMED = re.compile("[a-z][a-z-]*:")

Terms: TypeAlias = list[tuple[str | None, str]]
"""Names and values; the name of a bare word is `None`."""


@dataclass(frozen=True)
class Term:
    """A term of the search box.

    Attributes:
        criterion: the criterion of a `HistoryQuery`.
        example: a value, for suggestions.
        is_repeatable: whether several values may be given.
        read: returns what the criterion takes, for a text or for a list of texts.
    """

    criterion: str
    example: str
    is_repeatable: bool = False
    read: Callable[[Any, str], Any] = lambda value, argument: value


def _statuses(values: list[str], argument: str) -> list[str]:
    return [STATUS_NAMES.get(each, each) for value in values for each in value.split(",")]


def _whole(text: str, argument: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 10):
        raise InvalidInput(argument, text, "is not a whole number; write it like 2")
    return int(text)


TERMS = {
    "task": Term("task_identifier", "send_email", is_repeatable=True),
    "status": Term("status", "failed", is_repeatable=True, read=_statuses),
    "job-id": Term("job_id", "42"),
    "correlation-id": Term("correlation_id", "request-7"),
    "worker": Term("worker_id", "host-7:4242", is_repeatable=True),
    "worker-prefix": Term("worker_id_starts_with", "host-7:"),
    "min-attempt": Term("min_attempt", "2", read=_whole),
    "label": Term("labels", "tenant=acme", is_repeatable=True, read=read_label_texts),
    "parent-id": Term("parent_id", "0190…", read=read_uuid),
    "trace-id": Term("trace_id", "4bf92f35…"),
    "error-type": Term("error_type", "ValueError"),
    "error-contains": Term("error_contains", '"timed out"'),
    "min-time": Term("min_execution_time_ms", "30s", read=read_milliseconds),
}
"""For each name of a term, what it means. The names are those of the command line's options."""


WINDOW_TERMS = ("since", "until")
"""The names of the terms for the window of time, which override those in the URL."""

STATUS_NAMES = {status.value: status.value for status in Status} | {"running": Status.STARTED.value}
"""For each word for a status, the status."""


def split(text: str) -> Terms:
    """Return the terms of a text. No text fails."""
    return [(match[1], _unquoted(match[2])) for match in _TERM.finditer(text)]


def join(terms: Terms) -> str:
    """Return the text with these terms, which `split` splits into them again."""
    return " ".join(f"{name}:{quoted(value)}" if name else _bare(value) for name, value in terms)


def quoted(value: str) -> str:
    """Return a value as it is written in a term: in quotes if it has to be."""
    if value and not re.search(r'[\s"\\]', value):
        return value
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def unfinished(text: str) -> tuple[str, str | None, str]:
    """Return the term at the end of a text, which may be empty: what precedes it, name, value."""
    terms = list(_TERM.finditer(text))
    if not terms or text[-1].isspace():
        return text, None, ""
    last = terms[-1]
    name, value = last[1], _unquoted(last[2])
    if name is None and _NAMED.fullmatch(value):
        name, value = value[:-1], ""
    return text[: last.start()] + last[0][: -len(last[0].lstrip())], name, value


def term(name: str, value: str) -> str:
    """Return one term as text."""
    return join([(name, value)])


def narrowed(text: str, name: str, value: str) -> str:
    """Return the text with a term in place of others of that name.

    Labels only replace a label of the same name, because an execution has several.
    """

    def subject(term: tuple[str | None, str]) -> Any:
        return (term[0], term[1].partition("=")[0]) if term[0] == "label" else term[0]

    new = (name, value)
    return join([*(each for each in split(text) if subject(each) != subject(new)), new])


def window_of(text: str) -> dict[str, str]:
    """Return the terms of a text for the window of time, by name."""
    return {name: value for name, value in split(text) if name in WINDOW_TERMS}


def criteria_of(text: str) -> dict[str, Any]:
    """Return the criteria that the terms of a text stand for, except those of `window_of`.

    Bare words are one text that an error contains.

    Raises:
        InvalidInput: if a term is unknown, is repeated though it has one value, or has a value that
            cannot be read.
    """
    terms = split(text)
    values: dict[str, list[str]] = {}
    for name, value in terms:
        if name in TERMS:
            values.setdefault(name, []).append(value)
        elif name is not None and name not in WINDOW_TERMS:
            known = ", ".join([*TERMS, *WINDOW_TERMS])
            raise InvalidInput("search", name, f"is not a term; valid terms: {known}")
    bare = " ".join(value for name, value in terms if name is None)
    if bare:
        values.setdefault("error-contains", []).append(bare)
    return {TERMS[name].criterion: _read(name, given) for name, given in values.items()}


def _read(name: str, values: list[str]) -> Any:
    term = TERMS[name]
    if term.is_repeatable:
        return term.read(values, name)
    if len(values) > 1:
        raise InvalidInput(name, values[-1], "is the second value of this term; give only one")
    return term.read(values[0], name)


def _unquoted(value: str) -> str:
    inside = _QUOTED.fullmatch(value)
    return value if inside is None else _ESCAPE.sub(r"\1", inside[1])


def _bare(value: str) -> str:
    # Without quotes, it would be a term.
    return f'"{value}"' if _NAMED.match(value) and quoted(value) == value else quoted(value)
