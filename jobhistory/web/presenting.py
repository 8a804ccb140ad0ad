"""What a viewer sees of a record: without hidden columns, and as the app presents it."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field, replace
from inspect import iscoroutinefunction
from types import NoneType
from typing import Any

from jobhistory.errors import InvalidInput
from jobhistory.expectations.declarations import DeclaredExpectation
from jobhistory.expectations.incidents import Incident
from jobhistory.query.cursor import Page
from jobhistory.query.reports import Count, FailureGroup, TaskStats, WorkerActivity
from jobhistory.sanitize.tracebacks import safe_text
from jobhistory.schema import HistoryRecord, record_from, values_of
from jobhistory.web.access import HIDDEN_COLUMNS, Access
from jobhistory.web.http import Request
from jobhistory.web.settings import Present

log = logging.getLogger("jobhistory")

NOT_PRESENTED = "[hidden]"
"""What a viewer sees in place of a value for which `present=` raised an error."""

_TEXTS = ("error_message", "error_stack", "log_tail", "retry_from_step")
_JSON = ("payload", "result", "partial_results", "labels", "completed_steps", "failed_steps")
_WITHOUT_RECORDS = (
    *(NoneType, str, Count, TaskStats, WorkerActivity),
    *(DeclaredExpectation, Incident),
)


def read_present(present: Present | None) -> Present | None:
    """Return the argument `present`.

    Raises:
        InvalidInput: if it is neither a plain function nor `None`.
    """
    if present is not None and (not callable(present) or iscoroutinefunction(present)):
        raise InvalidInput(
            "present",
            present,
            "is not a plain function; pass one that takes a name, a value and a request",
        )
    return present


@dataclass(frozen=True)
class Presenting:
    """Turns answers of the store into what one viewer may see. Nothing else reaches a view."""

    access: Access
    present: Present | None
    request: Request
    failed: set[str] = field(default_factory=set)
    """The columns for which `present=` has raised an error."""

    def of(self, answer: Any) -> Any:
        """Return an answer of the store with its records as the viewer may see them."""
        if isinstance(answer, HistoryRecord):
            return self.record(answer)
        if isinstance(answer, Page):
            return Page([self.record(each) for each in answer.records], answer.next_cursor)
        if isinstance(answer, FailureGroup):
            return self._group(answer)
        if isinstance(answer, Iterator):
            return map(self.record, answer)
        if isinstance(answer, AsyncIterator):
            return (self.record(each) async for each in answer)
        if isinstance(answer, list):
            return [self.of(each) for each in answer]
        if isinstance(answer, _WITHOUT_RECORDS):
            return answer
        raise TypeError(f"it is not known how to present an object of {type(answer)}")

    def record(self, record: HistoryRecord) -> HistoryRecord:
        """Return a copy of a record as the viewer may see it."""
        if self.access is Access.EVERYTHING and self.present is None:
            return record
        values = values_of(record)
        if self.access is not Access.EVERYTHING:
            values |= dict.fromkeys(HIDDEN_COLUMNS)
        if self.present is not None:
            values |= {name: self._text(name, values[name]) for name in _TEXTS}
            values |= {name: self._json(name, values[name]) for name in _JSON}
        return record_from(values, shares_json=True)

    def _group(self, group: FailureGroup) -> FailureGroup:
        message = self._text("error_message", group.message) or ""
        return replace(group, message=message, example=self.record(group.example))

    def _text(self, column: str, value: Any) -> str | None:
        shown = None if value is None else self._value(column, column, value)
        return None if shown is None else _plain_text(shown)

    def _json(self, column: str, value: Any) -> Any:
        try:
            return None if value is None else self._inside(column, column, value)
        except RecursionError:
            return NOT_PRESENTED

    def _inside(self, column: str, name: str, value: Any) -> Any:
        """Present a JSON value, then what it contains, and return it as plain JSON."""
        shown = self._value(column, name, value)
        if isinstance(shown, dict):
            items = ((_plain_text(key), inside) for key, inside in shown.items())
            return {key: self._inside(column, key, inside) for key, inside in items}
        if isinstance(shown, (list, tuple)):
            return [self._inside(column, name, inside) for inside in shown]
        is_plain = shown is None or isinstance(shown, (bool, int, float))
        return shown if is_plain else _plain_text(shown)

    def _value(self, column: str, name: str, value: Any) -> Any:
        if self.present is None:
            return value
        try:
            return self.present(name, value, self.request)
        except Exception as error:
            # The message and the name may be parts of a payload, which no log shows.
            if column not in self.failed:
                self.failed.add(column)
                kind = type(error).__name__
                log.warning("present= raised %s inside %s, where values are hidden", kind, column)
            return NOT_PRESENTED


def _plain_text(value: object) -> str:
    # Templates escape a text itself, but no subclass of it that claims to be HTML.
    return str.__str__(safe_text(value))
