"""Links to other tools: templates of URLs, filled in with fields of a record."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from string import Formatter
from typing import Any
from urllib.parse import quote

from jobhistory._runtime.plain_json import plain_json
from jobhistory.errors import InvalidInput
from jobhistory.schema import HistoryRecord

_RECORD_FIELDS = (
    "id",
    "job_id",
    "task_identifier",
    "worker_id",
    "correlation_id",
    "parent_id",
    "trace_id",
    "span_id",
    "started_at",
    "completed_at",
)
_SOURCE_FIELDS = ("file", "line")
_LABEL = re.compile(r"labels\.([a-z][a-z0-9_]{0,62})")
# The host must be known, or a label could lead to any site.
_START = re.compile(r"https?://[^/?#\s{}]+(?:[/?#]|\Z)")
_EXAMPLE = "write it like 'https://traces.example.com/{trace_id}'"

Find = Callable[[str], Any]
"""Returns the value of a field; `None` if there is none."""


@dataclass(frozen=True)
class Links:
    """Templates of URLs to other tools, with fields of a record in braces.

    For example, `trace_url="https://traces.example.com/{trace_id}"`. The fields are `id`, `job_id`,
    `task_identifier`, `worker_id`, `correlation_id`, `parent_id`, `trace_id`, `span_id`,
    `started_at`, `completed_at`, and `labels.NAME`, such as `{labels.tenant}`. Values are quoted
    for URLs, and times are in ISO 8601. A link is left out where the record lacks one of the
    fields. Only `http` and `https` URLs are accepted, without a field in the name of the host.

    Attributes:
        trace_url: the trace of an execution.
        logs_url: the logs of an execution.
        source_url: the source of a line in a traceback. Its fields are `{file}`, in which slashes
            stay, and `{line}`.

    Raises:
        InvalidInput: if a template is not one.
    """

    trace_url: str | None = None
    logs_url: str | None = None
    source_url: str | None = None

    def __post_init__(self) -> None:
        for each in fields(self):
            template = getattr(self, each.name)
            if template is not None:
                known = _SOURCE_FIELDS if each.name == "source_url" else _RECORD_FIELDS
                _check(template, each.name, known)

    def trace(self, record: HistoryRecord) -> str | None:
        """Return the URL of the trace of an execution; `None` if there is none."""
        return _filled(self.trace_url, lambda name: _field(record, name))

    def logs(self, record: HistoryRecord) -> str | None:
        """Return the URL of the logs of an execution; `None` if there is none."""
        return _filled(self.logs_url, lambda name: _field(record, name))

    def source(self, file: str, line: int) -> str | None:
        """Return the URL of a line of source; `None` if there is none."""
        values = {"file": file.replace("\\", "/"), "line": line}
        return _filled(self.source_url, values.get, safe="/")


def _check(template: Any, argument: str, known: tuple[str, ...]) -> None:
    if not isinstance(template, str):
        raise InvalidInput(argument, template, f"is not a text; {_EXAMPLE}")
    try:
        parts = list(Formatter().parse(template))
    except ValueError as error:
        raise InvalidInput(argument, template, f"is not a template: {error}") from None
    if not _START.match(template):
        raise InvalidInput(
            argument, template, f"does not start with 'https://' and the name of a host; {_EXAMPLE}"
        )
    for _, name, format_, conversion in parts:
        is_label = known is _RECORD_FIELDS and _LABEL.fullmatch(name or "")
        if format_ or conversion or not (name is None or name in known or is_label):
            labels = ", labels.NAME" if known is _RECORD_FIELDS else ""
            raise InvalidInput(
                argument,
                template,
                f"has the field {{{name}}}, which is not known or has a format; the fields are "
                f"{', '.join(known)}{labels}",
            )


def _filled(template: str | None, find: Find, safe: str = "") -> str | None:
    if template is None:
        return None
    url = ""
    for literal, name, _, _ in Formatter().parse(template):
        url += literal
        if name is not None:
            value = find(name)
            if value is None or value == "":
                return None
            url += quote(str(value), safe=safe, errors="replace")
    return url


def _field(record: HistoryRecord, name: str) -> Any:
    label = _LABEL.fullmatch(name)
    if label is None:
        return plain_json(getattr(record, name))
    # What present= returns may be anything.
    value = record.labels.get(label[1]) if isinstance(record.labels, Mapping) else None
    return value if isinstance(value, str) else None
