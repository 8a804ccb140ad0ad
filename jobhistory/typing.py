"""The types of arguments, for annotations in apps."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any, Literal, TypeAlias
from uuid import UUID

Id: TypeAlias = str | UUID | int
"""What identifies a job, a worker or a correlation. Stored and returned as its text."""

Duration: TypeAlias = timedelta | str
"""A length of time: a `timedelta`, or text such as `"30 days"`, `"12h"`, `"1 week 2 days"`."""

Milliseconds: TypeAlias = float | timedelta
"""A duration in milliseconds, or a `timedelta`. Stored as whole milliseconds."""

Clock: TypeAlias = Callable[[], datetime]
"""Returns the current time as an aware `datetime`."""

Redact: TypeAlias = Callable[[str, Any], Any]
"""Takes a name and the value under it; returns the value to store."""

OnHistoryError: TypeAlias = Literal["log", "raise"]
"""What `track` does with an error of the database."""

Order: TypeAlias = Literal["newest", "oldest"]
"""Which executions come first: those that started last, or those that started first."""
