"""Who may see what."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from enum import Enum
from typing import Any, Literal, TypeAlias

from jobhistory.errors import InvalidInput
from jobhistory.web.http import Request


class Access(Enum):
    """What a viewer may see."""

    NOTHING = "nothing"
    WITHOUT_PAYLOADS = "without payloads"
    """Everything except payloads, results, partial results and log tails."""
    EVERYTHING = "everything"


Granted: TypeAlias = Access | bool
"""The decision of a callback: `True` stands for everything, and `False` for nothing."""

AccessCallback: TypeAlias = Callable[[Request], Granted | Awaitable[Granted]]
"""Decides what the viewer who sent a request may see. Only an ASGI app can await it."""

HIDDEN_COLUMNS = ("payload", "result", "partial_results", "log_tail")
"""The columns that a viewer without payloads does not see."""


def read_access(access: AccessCallback | Literal["open"] | None) -> AccessCallback:
    """Return the callback for the argument `access`.

    Raises:
        InvalidInput: if it is neither a callable, nor `"open"`, nor `None`.
    """
    if access is None:
        return lambda request: Access.NOTHING
    if access == "open":
        return lambda request: Access.EVERYTHING
    if not callable(access):
        raise InvalidInput(
            "access", access, "is not a callable; pass a function of a request, or 'open'"
        )
    return access


def granted(answer: Any) -> Access:
    """Return what the answer of a callback stands for. Whatever is not understood is nothing."""
    if isinstance(answer, Access):
        return answer
    return Access.EVERYTHING if answer is True else Access.NOTHING
