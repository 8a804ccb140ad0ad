"""Expectations in a TOML file."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any

from jobhistory._runtime.toml_tables import load_tables
from jobhistory.expectations.expectation import Expectation
from jobhistory.expectations.inference import Suggestion

_EXAMPLE = "write tables such as [[expectation]] with task_identifier = 'nightly' and every = '1d'"

_NONE = "none"


def load_expectations(path: str | os.PathLike[str]) -> list[Expectation]:
    """Return the expectations of a TOML file, in order: one for each table `[[expectation]]`.

    The keys of a table are the arguments of `Expectation`. TOML has no `None`, so
    `failures_in_a_row = "none"` stands for it.

    Raises:
        InvalidInput: if the file is not TOML, or has an unknown key or a value that cannot be used.
            The message names the file, the number of the table, the key and the value.
        OSError: if the file cannot be read.
    """
    return load_tables(path, "expectation", _EXAMPLE, _expectation)


def written_as_toml(expectation: Expectation) -> str:
    """Return an expectation as the table of a TOML file, which `load_expectations` reads."""
    lines = [f"{key} = {_value(value)}" for key, value in expectation.to_dict().items()]
    return "\n".join(["[[expectation]]", *lines, ""])


def suggestions_as_toml(suggestions: Iterable[Suggestion]) -> str:
    """Return suggested expectations as a TOML file with comments that tell the evidence.

    Tasks without one are comments, which tell the reason.
    """
    return "\n".join(
        f"# {_text(each.task_identifier)}: {each.reason}\n"
        if each.expectation is None
        else f"# {each.reason}\n{written_as_toml(each.expectation)}"
        for each in suggestions
    )


def _expectation(table: dict[str, Any]) -> Expectation:
    if table.get("failures_in_a_row") == _NONE:
        table = table | {"failures_in_a_row": None}
    return Expectation.of(table)


def _value(value: object) -> str:
    if isinstance(value, dict):
        pairs = (f"{_value(key)} = {_value(each)}" for key, each in value.items())
        return f"{{ {', '.join(pairs)} }}"
    value = _NONE if value is None else value
    return _text(value) if isinstance(value, str) else str(value)


def _text(text: str) -> str:
    """Return a basic string of TOML, in which a terminal finds nothing to obey."""
    shown = (
        char if char.isprintable() and char not in '"\\' else f"\\U{ord(char):08x}" for char in text
    )
    return f'"{"".join(shown)}"'
