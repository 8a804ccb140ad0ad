"""Type aliases for arguments, for annotations in apps."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any, Literal, TypeAlias
from uuid import UUID

Id: TypeAlias = str | UUID | int
"""The id of a job, a worker or a correlation. Stored and returned as text."""

Duration: TypeAlias = timedelta | str
"""A length of time: a `timedelta`, or text such as `"30 days"`, `"12h"`, `"1 week 2 days"`."""

Milliseconds: TypeAlias = float | timedelta
"""A duration in milliseconds, or a `timedelta`. Stored as whole milliseconds."""

Clock: TypeAlias = Callable[[], datetime]
"""A function that returns the current time as an aware `datetime`."""

Redact: TypeAlias = Callable[[str, Any], Any]
"""A function that takes a name and its value, and returns the value to store."""

OnHistoryError: TypeAlias = Literal["log", "raise"]
"""The reaction of `track` to a database error: log it, or raise it."""

Order: TypeAlias = Literal["newest", "oldest"]
"""The order of executions by start: the newest first, or the oldest first."""
