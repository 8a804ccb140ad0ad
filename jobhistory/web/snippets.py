"""How to ask the same question elsewhere: on the command line, in Python, and in SQL."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import fields
from datetime import datetime, timedelta
from enum import Enum
from functools import cached_property
from typing import Any
from uuid import UUID

from jobhistory._runtime.shell import quoted_for_shell
from jobhistory.aio import AsyncHistoryStore
from jobhistory.base_store import BaseStore, Internals
from jobhistory.database.written_sql import WrittenSql, dialect_of
from jobhistory.query.criteria import HistoryQuery, coerce
from jobhistory.query.reports import parse_bucket
from jobhistory.query.terms import in_list
from jobhistory.store import HistoryStore
from jobhistory.web.asking import Ask
from jobhistory.web.search import TERMS

_OPTIONS = {"from_": "--since", "to": "--until", "limit": "--limit"} | {
    term.criterion: f"--{name}" for name, term in TERMS.items()
}
_WINDOW = {"from_", "to"}
_WHO = {"task_identifier", "worker_id"}
_LIST = {*_OPTIONS, "order"}
_COMMANDS: dict[str, tuple[str, set[str]]] = {
    "query": ("list", _LIST),
    "page": ("list", _LIST | {"after"}),
    "iterate": ("list --all", _LIST - {"limit"}),
    "get_by_job_id": ("list", _LIST),
    "get_by_correlation_id": ("list", _LIST),
    "running": ("running", _WHO | {"from_", "limit"}),
    "stats": ("stats", _WINDOW | _WHO | {"bucket", "exact"}),
    "failure_groups": ("failures", _WINDOW | _WHO | {"error_type", "error_contains", "limit"}),
    "workers": ("workers", _WINDOW | _WHO | {"worker_id_starts_with", "limit"}),
}
"""For each method, the command for it, and what it has options for."""

_RECENT = ("stats", "failure_groups", "workers")
"""The methods whose commands read a short time by default."""

_UNWRITTEN = ("known_for",)
"""Options that commands do without: the same groups are in the answer."""

_EVER = "0001-01-01"
_DEFAULTS = HistoryQuery()
_IMPORTS = {
    "datetime.": "from datetime import datetime",
    "timedelta(": "from datetime import timedelta",
    "UUID(": "from uuid import UUID",
    "HistoryQuery(": "from jobhistory import HistoryQuery",
}


class SnippetWriter:
    """Writes questions to a store as text to copy."""

    def __init__(self, store: HistoryStore | AsyncHistoryStore) -> None:
        self._store = store
        self._is_async = isinstance(store, AsyncHistoryStore)

    @property
    def has_sql(self) -> bool:
        """Whether the store has a database."""
        return self._dialect is not None

    def command(self, ask: Ask) -> str | None:
        """Return the command of `jobhistory` for a question; `None` if none asks this."""
        command = command_for(ask)
        if command is None or self._schema is None:
            return command
        return f"{command} --schema {quoted_for_shell(self._schema)}"

    def python(self, ask: Ask) -> str:
        """Return Python code for a question, in which `store` is the store."""
        return python_for(ask, is_async=self._is_async)

    def sql(self, ask: Ask) -> str | None:
        """Return SQL for a question; `None` if there is none. It takes milliseconds."""
        if self._dialect is None or ask.method not in (*_COMMANDS, "get", "count"):
            return None
        internals: Internals[Any] = self._store.internals
        history: Any = WrittenSql(self._dialect, self._schema)
        # A store translates its methods into questions to its history.
        store = BaseStore(Internals(internals.rows, history))
        answer = getattr(store, ask.method)(*ask.arguments, **ask.options)
        if isinstance(answer, Iterator):
            next(answer, None)
        text: str | None = history.text
        return text

    @property
    def _schema(self) -> str | None:
        history: Any = self._store.internals.history
        schema: str | None = getattr(history, "schema", None)  # memory has none
        return schema

    @cached_property
    def _dialect(self) -> str | None:
        return dialect_of(self._store.internals.session_factory)


def command_for(ask: Ask) -> str | None:
    """Return the command of `jobhistory` for a question; `None` if none asks this."""
    if ask.method not in _COMMANDS:
        return None
    command, known = _COMMANDS[ask.method]
    given = _given(ask)
    if ask.method in _RECENT:
        given = {"from_": _EVER} | given
    words = ["jobhistory", *command.split()]
    if command == "list" and _query(ask).limit is None:
        words.append("--all")
    for name, value in given.items():
        written = _as_options(name, value) if name in known else None
        if written is None:
            return None
        words += written
    return " ".join(map(quoted_for_shell, words))


def python_for(ask: Ask, *, is_async: bool = False) -> str:
    """Return Python code for a question, in which `store` is the store."""
    arguments = [_as_python(each) for each in ask.arguments]
    arguments += [
        f"{name}={_as_python(value)}" for name, value in ask.options.items() if value is not None
    ]
    awaited = "await " if is_async and ask.method != "iterate" else ""
    code = f"{awaited}store.{ask.method}({', '.join(arguments)})"
    imports = [line for used, line in _IMPORTS.items() if used in code]
    return "\n".join([*imports, "", code]) if imports else code


def _query(ask: Ask) -> HistoryQuery:
    """Return all criteria of a question."""
    names = {each.name for each in fields(HistoryQuery)}
    named = {name: value for name, value in ask.options.items() if name in names}
    if ask.method.startswith("get_by_"):
        named = {"limit": None} | named | {ask.method.removeprefix("get_by_"): ask.arguments[0]}
        return coerce(None, named)
    return coerce(ask.arguments[0] if ask.arguments else None, named)


def _given(ask: Ask) -> dict[str, Any]:
    """Return the criteria and options of a question that are not the defaults."""
    query, default = vars(_query(ask)), vars(_DEFAULTS)
    given = {name: value for name, value in query.items() if value != default[name]}
    others = {
        name: value
        for name, value in ask.options.items()
        if value and name not in query and name not in _UNWRITTEN
    }
    return given | others


def _as_options(name: str, value: Any) -> list[str] | None:
    """Return the words of the options for a criterion; `None` if there are none."""
    if name == "order":
        return ["--oldest"] if value == "oldest" else []
    if name == "exact":
        return ["--exact"]
    if value is None:
        return []
    if name == "bucket":
        value = f"{_seconds(parse_bucket(value))}s"
    if name == "min_execution_time_ms":
        value = f"{value // 1000}.{value % 1000:03}s" if value else ()
    texts = (
        [in_list(_as_word(each)) for each in value]
        if isinstance(value, tuple)
        else [_as_word(value)]
    )
    option = _OPTIONS.get(name, f"--{name}")
    return [word for text in texts for word in (option, text)] or None


def _seconds(length: timedelta | None) -> int:
    return (length or timedelta(0)) // timedelta(seconds=1)


def _as_word(value: Any) -> str:
    if isinstance(value, datetime):
        return value.isoformat().replace("+00:00", "Z")
    if isinstance(value, tuple):  # a label
        return "=".join(value)
    return str(value.value if isinstance(value, Enum) else value)


def _as_python(value: Any) -> str:
    """Return an expression with this value."""
    if isinstance(value, HistoryQuery):
        default = vars(_DEFAULTS)
        given = {name: each for name, each in vars(value).items() if each != default[name]}
        if given.get("labels"):
            given["labels"] = dict(given["labels"])
        return f"HistoryQuery({_named(given.items())})"
    if isinstance(value, datetime):
        return f"datetime.fromisoformat({value.isoformat()!r})"
    if isinstance(value, timedelta):
        return f"timedelta(seconds={value.total_seconds():g})"
    if isinstance(value, UUID):
        return f"UUID({str(value)!r})"
    if isinstance(value, Enum):
        return repr(value.value)
    if isinstance(value, tuple) and len(value) == 1:
        return _as_python(value[0])
    if isinstance(value, tuple):
        return f"[{', '.join(map(_as_python, value))}]"
    return repr(value)


def _named(values: Iterable[tuple[str, Any]]) -> str:
    return ", ".join(f"{name}={_as_python(value)}" for name, value in values)
