"""What the word at the cursor may become, for the completion of shells."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from threading import Thread
from typing import Any, NamedTuple

from jobhistory._runtime.clock import utc_now
from jobhistory.cli.database import history_file
from jobhistory.cli.help import first_sentence
from jobhistory.database.engines import engine_from_url
from jobhistory.execution.status import Status
from jobhistory.query.terms import in_list
from jobhistory.schema import COLUMN_NAMES, HistoryRecord
from jobhistory.store import HistoryStore, create_store

SECONDS = 1.0
"""How long the database may take. After that, nothing is completed from history."""

_RECENT = 200
_LISTS = ("--task", "--worker", "--status", "--label", "--columns")
_LAST_COMMA = re.compile(r"(?s)(.*(?<!\\),)?(.*)")

_FIXED: dict[str, Iterable[str]] = {
    "--status": [each.value for each in Status],
    "--since": ("today", "yesterday", "10m", "1h", "24h", "7d", "30d", "monday"),
    "--until": ("now", "today", "yesterday", "10m", "1h", "24h", "7d"),
    "--bucket": ("1h", "1d"),
    "--record": ("all", "failures"),
    "--columns": COLUMN_NAMES,
    "REVISION": ("head", "base"),
    "SHELL": ("bash", "zsh", "fish"),
}
"""The values of options, and of arguments by their names in the help."""


class Candidate(NamedTuple):
    """What the word may become, and what that is."""

    word: str
    help: str = ""


@dataclass
class _Place:
    """Where the cursor is: in which command, and in the value of which option.

    Attributes:
        command: the command.
        parameter: the option whose value is at the cursor; `None` if none is.
        given: the values of options before.
        is_over: whether all further words belong to another command.
    """

    command: Any
    parameter: Any = None
    given: dict[str, str] = field(default_factory=dict)
    is_over: bool = False


def split_line(line: str) -> list[str]:
    """Return the words of a line up to the cursor; the last one, at the cursor, may be empty."""
    lexer = shlex.shlex(line, posix=True)
    lexer.whitespace_split, lexer.commenters = True, ""
    words: list[str] = []
    try:
        words.extend(lexer)
    except ValueError:  # a quote or an escape that is not closed yet
        return [*words, lexer.token]
    # A space after a backslash belongs to the word.
    is_between = not line or (line[-1].isspace() and not line.endswith("\\ "))
    return [*words, ""] if is_between or not words else words


def candidates(root: Any, words: list[str]) -> list[Candidate]:
    """Return what the last word may become, for a command line without the name of the program."""
    *before, typed = words
    place = _place_after(root, before)
    if place.is_over:
        return []
    name, equals, value = typed.partition("=")
    option = _options(place.command).get(name)
    if place.parameter is not None:
        found = _values(root, place, place.parameter, typed)
    elif typed.startswith("-") and equals and option is not None:
        values = _values(root, place, option, value)
        found = [each._replace(word=f"{name}={each.word}") for each in values]
    elif typed.startswith("-"):
        found = [Candidate(name, each.help) for name, each in _options(place.command).items()]
    elif hasattr(place.command, "commands"):
        found = _commands(place.command)
    else:
        arguments = [p for p in place.command.params if p.param_type_name == "argument"]
        found = [] if not arguments else _values(root, place, arguments[0], typed)
    return [
        each
        for each in dict.fromkeys(found)
        if each.word.startswith(typed) and each.word.isprintable()
    ]


def _place_after(root: Any, words: Iterable[str]) -> _Place:
    place, waiting = _Place(root), 0
    for word in words:
        if place.parameter is not None and waiting:
            place.given[place.parameter.opts[0]] = word
            waiting -= 1
            place.parameter = place.parameter if waiting else None
        elif word == "--":
            place.is_over = True
        elif word.startswith("-"):
            name, equals, value = word.partition("=")
            option = _options(place.command).get(name)
            if option is not None and equals:
                place.given[option.opts[0]] = value
            elif option is not None and not option.is_flag:
                place.parameter, waiting = option, option.nargs
        elif word in getattr(place.command, "commands", ()):
            place.command = place.command.commands[word]
        elif place.command.name == "run":
            place.is_over = True
    return place


def _options(command: Any) -> dict[str, Any]:
    return {
        name: each
        for each in command.params
        if each.param_type_name == "option" and not each.hidden
        for name in each.opts
    }


def _commands(group: Any) -> list[Candidate]:
    return [
        Candidate(name, first_sentence(each))
        for name, each in group.commands.items()
        if not each.hidden
    ]


def _values(root: Any, place: _Place, parameter: Any, typed: str) -> list[Candidate]:
    name = parameter.opts[0] if parameter.param_type_name == "option" else parameter.metavar
    if name == "COMMAND":
        return _commands(root)
    listed = ""
    if name in _LISTS:
        match = _LAST_COMMA.fullmatch(typed)
        listed = (match[1] or "") if match else ""
    values = list(_FIXED.get(name, ()))
    if name in _FROM_HISTORY:
        values = _ask(_FROM_HISTORY[name], place.given)
    if name in _LISTS:
        values = [listed + in_list(each) for each in values]
    return [Candidate(each) for each in values]


def _tasks(store: HistoryStore) -> Iterator[str]:
    # From midnight on, statistics by day answer.
    midnight = utc_now().replace(hour=0, minute=0, second=0, microsecond=0)
    stats = store.stats({"from_": midnight - timedelta(days=7)})
    yield from (each.task_identifier for each in sorted(stats, key=lambda each: -each.executions))


def _of_recent(values: Callable[[HistoryRecord], Iterable[str]]) -> Any:
    def ask(store: HistoryStore) -> Iterator[str]:
        for record in store.query(limit=_RECENT):
            yield from values(record)

    return ask


def _error_types(store: HistoryStore) -> Iterator[str]:
    for record in store.query(status="failed", limit=_RECENT):
        yield str(record.error_type)


_FROM_HISTORY: dict[str, Callable[[HistoryStore], Iterable[str]]] = {
    "--task": _tasks,
    "--worker": _of_recent(lambda record: [record.worker_id]),
    "--label": _of_recent(lambda each: [f"{k}={v}" for k, v in (each.labels or {}).items()]),
    "--job-id": _of_recent(lambda record: [record.job_id]),
    "ID": _of_recent(lambda record: [record.job_id]),
    "--error-type": _error_types,
}


def _ask(question: Callable[[HistoryStore], Iterable[str]], given: dict[str, str]) -> list[str]:
    """Return the answer of the database; nothing if it has none in time, or is not there."""
    found: list[str] = []

    def read() -> None:
        with suppress(Exception):
            variable = os.environ.get("JOBHISTORY_URL")
            url = given.get("--url") or variable or f"sqlite:///{history_file()}"
            schema = given.get("--schema") or os.environ.get("JOBHISTORY_SCHEMA")
            engine = engine_from_url(url)
            if engine.dialect.name == "sqlite" and not Path(engine.url.database or "").exists():
                return  # to connect would create it
            found.extend(question(create_store(engine, schema=schema or None)))
            engine.dispose()

    # A driver that waits for a server cannot be interrupted, but the process need not wait for it.
    thread = Thread(target=read, daemon=True)
    thread.start()
    thread.join(SECONDS)
    return list(dict.fromkeys(found))
