"""One attempt at a command, as history and the command itself know it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

from jobhistory.errors import InvalidInput
from jobhistory.execution.ids import new_execution_id
from jobhistory.execution.trace import Trace, read_traceparent

EXECUTION_ID = "JOBHISTORY_EXECUTION_ID"
"""The variable with the id of the execution that runs the command, its parent's for others."""

TRACEPARENT = "TRACEPARENT"
"""The variable with the trace and the span of the caller, as OpenTelemetry's tools write it."""


_COERCED_LOCALES = ("C.UTF-8", "C.utf8", "UTF-8")


class Origin(NamedTuple):
    """Where a run comes from, as its environment tells.

    Attributes:
        parent_id: the execution that started it, if any.
        trace: its trace, and the span that started it, if any.
        traceparent: the text of the trace and the span; `None` if there is none.
    """

    parent_id: UUID | None
    trace: Trace | None
    traceparent: str | None

    @classmethod
    def of(cls, environment: Mapping[str, str]) -> Origin:
        """Return the origin. What cannot be read was not written for us, and is ignored."""
        parent_id, trace, traceparent = None, None, environment.get(TRACEPARENT)
        with suppress(ValueError):
            parent_id = UUID(environment.get(EXECUTION_ID, ""))
        try:
            trace = read_traceparent(traceparent, TRACEPARENT)
        except InvalidInput:
            traceparent = None
        return cls(parent_id, trace, traceparent)

    def traceparent_of(self, span_id: str) -> str | None:
        """Return the text that passes the trace on from a span; `None` if there is no trace."""
        if self.trace is None or self.traceparent is None:
            return None
        flags = self.traceparent.split("-")[3]
        return f"00-{self.trace.trace_id}-{span_id}-{flags}"


class Attempt(NamedTuple):
    """One attempt.

    Attributes:
        number: its number, from 1.
        execution_id: its id. Only if all runs are recorded, it will be in history.
        started_at: when the command started.
        job: the fields of a record that all attempts share.
        origin: where the run comes from.
    """

    number: int
    execution_id: UUID
    started_at: datetime
    job: Mapping[str, Any]
    origin: Origin

    @classmethod
    def at(
        cls, started_at: datetime, number: int, job: Mapping[str, Any], origin: Origin
    ) -> Attempt:
        """Return an attempt that starts at a time."""
        return cls(number, new_execution_id(started_at), started_at, job, origin)

    def environment(self, *, is_in_history: bool) -> dict[str, str]:
        """Return the environment of the command.

        The id of its span consists of the last 16 digits of the execution id.
        """
        environment = _callers_environment()
        if is_in_history:
            environment[EXECUTION_ID] = str(self.execution_id)
            if traceparent := self.origin.traceparent_of(self.execution_id.hex[-16:]):
                environment[TRACEPARENT] = traceparent
        return environment


def _callers_environment() -> dict[str, str]:
    """Return the environment as the caller passed it.

    In the locale "C", Python sets LC_CTYPE for itself. The command would behave otherwise.
    """
    environment = dict(os.environ)
    if environment.get("LC_CTYPE") in _COERCED_LOCALES:
        with suppress(OSError), open("/proc/self/environ", "rb") as variables:
            if b"\0LC_CTYPE=" not in b"\0" + variables.read():
                del environment["LC_CTYPE"]
    return environment
