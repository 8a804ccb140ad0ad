"""What monitoring plugins print, by the guidelines of Nagios: a state, details, and numbers."""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import timedelta
from typing import Any, NoReturn, TextIO, TypeVar

import typer
from sqlalchemy.exc import SQLAlchemyError

from jobhistory.cli.help import Command
from jobhistory.cli.options import as_typed
from jobhistory.cli.output import one_line
from jobhistory.errors import InvalidInput, JobHistoryError, reason
from jobhistory.expectations.verdicts import Checked, Problem, Severity

T = TypeVar("T")

UNKNOWN = 3
"""The exit status of a plugin that cannot tell."""

_WORDS = "jobhistory.words"
_NOTHING: Mapping[str, Any] = {}
_FOR_PEOPLE = (None, "nagios")
_WIDTH = 80
_SEPARATOR = ", "
_SECOND = timedelta(seconds=1)


class Plugin(Command):
    """A command whose errors are the state UNKNOWN, as monitoring expects it of plugins."""

    def make_context(self, info_name: Any, args: list[str], *others: Any, **options: Any) -> Any:
        """Read the command line."""
        words = [*args]  # Typer takes the words from the list
        make = super().make_context
        context = _or_unknown(lambda: make(info_name, args, *others, **options), words)
        context.meta[_WORDS] = words
        return context

    def invoke(self, ctx: Any) -> Any:
        """Run the command."""
        if sys.stdout is None and not ctx.params.get("quiet"):
            exit_unknown("standard output is closed; open it, or add --quiet")
        invoke = super().invoke
        return _or_unknown(lambda: invoke(ctx), ctx.meta[_WORDS], ctx.params)


def worst_severity(checks: Sequence[Checked]) -> Severity:
    """Return how bad the worst problem is."""
    return max(
        (each.severity for each in checks), key=lambda each: each.exit_status, default=Severity.OK
    )


def plugin_lines(checks: Sequence[Checked]) -> Iterator[str]:
    """Yield the output of a plugin: a summary, the problems, and numbers for graphs.

    The numbers come last, because the first line should not exceed 80 characters. No text contains
    a pipe, which separates them.
    """
    yield _summary(checks)
    for checked in checks:
        for verdict in checked.verdicts:
            state = "OVER" if verdict.is_over else verdict.severity.name
            name, words = checked.expectation.name, verdict.problem.words
            notes = [
                f"{label} {text}"
                for label, text in (
                    ("owner", checked.expectation.owner),
                    ("runbook", checked.expectation.runbook),
                )
                if text is not None
            ]
            yield plain(f"{state} {name} {words}: {'; '.join([verdict.summary, *notes])}")
    paused = sum(each.is_paused for each in checks)
    yield f"{len(checks)} checked, {paused} paused | {' '.join(_numbers(checks))}"


def plain(text: str) -> str:
    """Return a text as one line in which nothing separates numbers."""
    return one_line(text).replace("|", "\\x7c")


def _summary(checks: Sequence[Checked]) -> str:
    severity = worst_severity(checks)
    bad = [each for each in checks if each.severity is not Severity.OK]
    if not bad:
        tasks = "1 task is" if len(checks) == 1 else f"{len(checks)} tasks are"
        return f"{severity.name} - {tasks} as expected"
    verb = "has a problem" if len(bad) == 1 else "have problems"
    tasks = "task" if len(checks) == 1 else "tasks"
    beginning = f"{severity.name} - {len(bad)} of {len(checks)} {tasks} {verb}: "
    bad.sort(key=lambda each: -each.severity.exit_status)
    return beginning + _fitting([_named(each) for each in bad], _WIDTH - len(beginning))


def _named(checked: Checked) -> str:
    return f"{plain(checked.expectation.name)} {checked.verdicts[0].problem.words}"


def _fitting(texts: Sequence[str], width: int) -> str:
    """Return as many texts as fit, and the number of the others."""
    for count in range(len(texts), 0, -1):
        rest = [f"{len(texts) - count} more"] if count < len(texts) else []
        line = _SEPARATOR.join([*texts[:count], *rest])
        if len(line) <= width:
            return line
    rest_of_line = f"{_SEPARATOR}{len(texts) - 1} more" if len(texts) > 1 else ""
    return f"{texts[0][: width - len(rest_of_line) - 3]}...{rest_of_line}"


def _numbers(checks: Sequence[Checked]) -> Iterator[str]:
    """Yield each number as name=value;warning;critical;least;most."""
    bad = sum(each.severity is not Severity.OK for each in checks)
    found = Counter(
        verdict.problem for checked in checks for verdict in checked.verdicts if not verdict.is_over
    )
    yield f"problems={bad};0;;0;{len(checks)}"
    for problem in Problem:
        limits = ";0" if problem.severity is Severity.CRITICAL else "0;"
        yield f"{problem.value}={found[problem]};{limits};0"
    ages = [
        checked.checked_at - checked.last_success
        for checked in checks
        if checked.last_success is not None
    ]
    if ages:
        yield f"oldest_success={max(0, max(ages) // _SECOND)}s;;;0"


def exit_unknown(message: str, *, on_stderr: bool = False) -> NoReturn:
    """Print why the state is unknown, on one line, and exit.

    Args:
        on_stderr: whether a program reads standard output, and could not read the line. It also
            goes there if standard output is closed or full.
    """
    line = f"UNKNOWN - {plain(message)}"
    if on_stderr or not _is_printed(line, sys.stdout):
        _is_printed(line, sys.stderr)
    raise typer.Exit(UNKNOWN)


def _is_printed(line: str, stream: TextIO | None) -> bool:
    """Print a line, and return whether that was possible."""
    if stream is None:  # the caller closed it
        return False
    try:
        print(line, file=stream, flush=True)
    except OSError:
        if stream is sys.stdout:  # or Python would write again at exit, and change the status
            sys.stdout = open(os.devnull, "w")  # noqa: SIM115
        return False
    return True


def _or_unknown(
    function: Callable[[], T], words: Sequence[str], given: Mapping[str, Any] = _NOTHING
) -> T:
    """Return the result of a function, or print what is wrong as the state UNKNOWN, and exit."""
    try:
        return function()
    except Exception as error:
        message = _message(error, words)
        if message is None:
            raise
    exit_unknown(message, on_stderr=given.get("json") or given.get("format_") not in _FOR_PEOPLE)


def _message(error: Exception, words: Sequence[str]) -> str | None:
    """Return the message of an error of the user or of the database; `None` if it is another."""
    if isinstance(error, InvalidInput):
        return str(as_typed(error, words))
    message = getattr(error, "format_message", None)
    if message is not None:  # Typer's error, whose classes differ between its versions
        return str(message())
    if isinstance(error, BrokenPipeError):
        return None
    if isinstance(error, (JobHistoryError, SQLAlchemyError, ModuleNotFoundError, OSError)):
        return reason(error) + "".join(f"; {note}" for note in getattr(error, "__notes__", ()))
    return None
