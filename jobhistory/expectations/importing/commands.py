"""The runs that `jobhistory run` records in a command, as a shell reads it."""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import takewhile
from typing import TypeAlias

from jobhistory.errors import InvalidInput
from jobhistory.sanitize.truncate import storable_text

_OPERATORS = frozenset("();<>|&")
_COMPUTED = ("$", "`")
_WRAPPERS = {
    "chronic": ("", 0),
    "env": ("uC", 0),
    "exec": ("a", 0),
    "ionice": ("cn", 0),
    "nice": ("n", 0),
    "nohup": ("", 0),
    "setsid": ("", 0),
    "sudo": ("ughp", 0),
    "time": ("fo", 0),
    "flock": ("wEc", 1),
    "timeout": ("ks", 1),
}
"""Commands that run another one: their options with a value, and the number of their arguments."""


@dataclass(frozen=True)
class ExpectedRun:
    """What one `jobhistory run` records.

    Attributes:
        task: the task.
        labels: the labels that it gives to each execution.
        declares: whether it declares its own expectation.
    """

    task: str
    labels: Mapping[str, str] = field(default_factory=dict)
    declares: bool = False


ReadRun: TypeAlias = Callable[[Sequence[str]], ExpectedRun]
"""Reads the words after `jobhistory run`. It raises InvalidInput if the command would refuse them.

The command line has the function, because only it knows the options.
"""


def runs_of_shell(command: str, read: ReadRun) -> list[ExpectedRun]:
    """Return what a shell command records, in order.

    Raises:
        InvalidInput: if the shell could not read it, if `jobhistory run` would refuse its options,
            or if the name of a task is computed when it runs.
    """
    lexer = shlex.shlex(command, posix=True, punctuation_chars=True)
    lexer.whitespace_split = True
    lexer.commenters = ""  # a # inside a word is none
    try:
        words = [*lexer]
    except ValueError as error:
        raise InvalidInput("command", command, f"is no shell command ({error})") from None
    return [*_runs(words, read)]


def runs_of_words(words: Sequence[str], read: ReadRun) -> list[ExpectedRun]:
    """Return what a command of these words records. Raise as `runs_of_shell` does."""
    return [*_runs(words, read)]


def recorded_line(command: str) -> str:
    """Return a shell command with `jobhistory run` in front of it."""
    task = shlex.quote(name_of(command))
    is_plain = not any(each in command for each in (*_OPERATORS, *_COMPUTED, "=", "\\", "*", "~"))
    wrapped = command if is_plain else f"sh -c {shlex.quote(command)}"
    return f"jobhistory run --task {task} -- {wrapped}"


def name_of(command: str) -> str:
    """Return the name of the command that a shell command is about."""
    try:
        words = shlex.split(command)
    except ValueError:
        words = command.split()
    words = [*_unwrapped(words)] or words
    name = os.path.basename(words[0].rstrip("/;")) if words else ""
    is_computed = any(mark in name for mark in _COMPUTED)
    is_known = storable_text(name) == name and not _is_operator(name) and not is_computed
    return name if name and is_known else "job"


def _runs(words: Sequence[str], read: ReadRun) -> Iterator[ExpectedRun]:
    for place, word in enumerate(words):
        if _begins_run(words, place):
            options = [*takewhile(lambda each: not _is_operator(each), words[place + 2 :])]
            run = read(options)
            if any(mark in text for text in (run.task, *run.labels.values()) for mark in _COMPUTED):
                raise InvalidInput(
                    "--task", run.task, "is computed when the job runs; declare the task by hand"
                )
            yield run
        elif _is_script(words, place):
            yield from runs_of_shell(word, read)


def _begins_run(words: Sequence[str], place: int) -> bool:
    if words[place + 1 : place + 2] != ["run"]:
        return False
    name = os.path.basename(words[place])
    is_module = name == "jobhistory.cli" and place > 0 and words[place - 1] == "-m"
    return name == "jobhistory" or is_module


def _is_script(words: Sequence[str], place: int) -> bool:
    """Return whether a word is a script for another shell, as in `sh -c 'jobhistory run ...'`."""
    option = words[place - 1] if place else ""
    is_option = option.startswith("-") and option.endswith("c") and not option.startswith("--")
    return "jobhistory" in words[place] and " " in words[place] and is_option


def _is_operator(word: str) -> bool:
    return bool(word) and _OPERATORS.issuperset(word)


def _unwrapped(words: Sequence[str]) -> Iterator[str]:
    """Yield the words without what comes before the command: variables, `cd`, and wrappers."""
    left = [*words]
    while left:
        first = left[0]
        if first == "cd" and "&&" in left:
            left = left[left.index("&&") + 1 :]
        elif "=" in first and not first.startswith(("=", "/", "-")):
            left = left[1:]
        elif os.path.basename(first) in _WRAPPERS:
            with_value, arguments = _WRAPPERS[os.path.basename(first)]
            left = _after_options(left[1:], with_value)[arguments:]
        else:
            break
    yield from left


def _after_options(words: list[str], with_value: str) -> list[str]:
    place = 0
    while place < len(words) and words[place].startswith("-"):
        option = words[place]
        has_next = len(option) == 2 and option[1] in with_value
        place += 2 if has_next else 1
    return words[place:]
