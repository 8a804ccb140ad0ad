"""Trace and span ids, which tie executions to the traces of OpenTelemetry."""

from __future__ import annotations

import re
import sys
from typing import Any, NamedTuple

from jobhistory.errors import InvalidInput

# A later version may append fields. Version ff is invalid.
_TRACEPARENT = re.compile(
    r"(?!ff)(?P<version>[0-9a-f]{2})-(?P<trace_id>(?!0+-)[0-9a-f]{32})-"
    r"(?P<span_id>(?!0+-)[0-9a-f]{16})-[0-9a-f]{2}(?P<more>-[!-~]*)?"
)
_TRACE_ID = re.compile(r"(?!0+$)[0-9a-f]{32}")
_SPAN_ID = re.compile(r"(?!0+$)[0-9a-f]{16}")


class Trace(NamedTuple):
    """The trace and the span in which an execution started."""

    trace_id: str
    span_id: str


def read_traceparent(value: Any, argument: str) -> Trace:
    """Return the ids in a `traceparent`, as the Trace Context specification of the W3C defines it.

    Raises:
        InvalidInput: if it has another format.
    """
    found = _TRACEPARENT.fullmatch(value) if isinstance(value, str) else None
    if found is None or (found["version"] == "00" and found["more"]):
        raise InvalidInput(
            argument,
            value,
            "is not a traceparent; write it like "
            "'00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01'",
        )
    return Trace(found["trace_id"], found["span_id"])


def trace_of(traceparent: str | None, argument: str) -> Trace | None:
    """Return the ids in a `traceparent`, or without one those of OpenTelemetry's current span.

    Raises:
        InvalidInput: if it has another format.
    """
    return current_trace() if traceparent is None else read_traceparent(traceparent, argument)


def current_trace() -> Trace | None:
    """Return the ids of OpenTelemetry's current span; `None` if there is none.

    The call imports nothing: an app that has not imported OpenTelemetry has no spans.
    """
    telemetry = sys.modules.get("opentelemetry.trace")
    if telemetry is None:
        return None
    try:
        span = telemetry.get_current_span().get_span_context()
        trace = Trace(f"{span.trace_id:032x}", f"{span.span_id:016x}")
    except Exception:  # such as an import that has not finished; a trace is not worth an error
        return None
    # The ids are zero if there is no span. A tracer of the app may have longer ones.
    is_valid = _TRACE_ID.fullmatch(trace.trace_id) and _SPAN_ID.fullmatch(trace.span_id)
    return trace if is_valid else None


def read_trace_id(value: Any, argument: str) -> str:
    """Return the id of a trace.

    Raises:
        InvalidInput: if it is not a text of 32 lower-case hexadecimal digits, or is all zeros.
    """
    if not isinstance(value, str) or not _TRACE_ID.fullmatch(value):
        raise InvalidInput(
            argument,
            value,
            "is not a trace id: 32 lower-case hexadecimal digits, not all of them 0; write it like "
            "'4bf92f3577b34da6a3ce929d0e0e4736'",
        )
    return value


def read_span_id(value: Any, argument: str) -> str:
    """Return the id of a span.

    Raises:
        InvalidInput: if it is not a text of 16 lower-case hexadecimal digits, or is all zeros.
    """
    if not isinstance(value, str) or not _SPAN_ID.fullmatch(value):
        raise InvalidInput(
            argument,
            value,
            "is not a span id: 16 lower-case hexadecimal digits, not all of them 0; write it like "
            "'00f067aa0ba902b7'",
        )
    return value
