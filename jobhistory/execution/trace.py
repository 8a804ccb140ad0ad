"""Trace and span ids, which tie executions to the traces of OpenTelemetry."""

from __future__ import annotations

import re
from typing import Any

from jobhistory.errors import InvalidInput

_TRACE_ID = re.compile(r"(?!0+$)[0-9a-f]{32}")
_SPAN_ID = re.compile(r"(?!0+$)[0-9a-f]{16}")


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
