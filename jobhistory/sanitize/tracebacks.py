"""Texts of objects and errors whose own code may raise: values, types of errors, tracebacks."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from typing import Any

from jobhistory.sanitize.truncate import truncate_name


def safe_text(value: object) -> str:
    """Return the text of a value; if its code raises, a text that says so."""
    return value if isinstance(value, str) else _safely(str, value)


def texts_of_error(error: BaseException) -> tuple[str, str, str]:
    """Return the type, the message and the traceback of an error.

    The type is the name of its class, with the module unless that is `builtins`. The traceback is
    that of the error and of its causes, as Python prints it.
    """
    stack = _safely(_format_traceback, error)
    kind = _safely(_qualified_name, type(error))
    return truncate_name(kind), _safely(str, error), stack


def unshowable(value: object, error: Exception) -> str:
    """Return a text for a value whose own code raised an error."""
    return truncate_name(f"<{type(value).__name__} that raised {type(error).__name__}>")


def _safely(show: Callable[[Any], str], value: object) -> str:
    try:
        return str.__str__(show(value))
    except Exception as error:
        return unshowable(value, error)


def _qualified_name(kind: type) -> str:
    module = kind.__module__
    return kind.__qualname__ if module == "builtins" else f"{module}.{kind.__qualname__}"


def _format_traceback(error: BaseException) -> str:
    return "".join(traceback.format_exception(error))
