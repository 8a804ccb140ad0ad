"""Convert operations to JSON text and back, for the rows of a spool."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Boolean, Enum, Float, Integer, String

from jobhistory.execution.batch import Counted, Operation
from jobhistory.execution.outcome import ExecutionKey, Outcome
from jobhistory.execution.status import Status
from jobhistory.sanitize.json_text import JsonText, decoded
from jobhistory.schema import HistoryRecord, PlainUuid, UTCDateTime

_TABLE = HistoryRecord.__table__
_REQUIRED_IN_ROWS = frozenset(column.name for column in _TABLE.c if not column.nullable)
_REQUIRED_IN_OUTCOMES = frozenset({"status", "completed_at"})
_REQUIRED_IN_COUNTED = frozenset({"task_identifier", "status", "started_at"})


class UnreadableError(Exception):
    """The text is not an operation. The message says why, without quoting the text."""


def to_text(operation: Operation) -> str:
    """Return an operation as JSON text."""
    body: dict[str, Any]
    if isinstance(operation, Outcome):
        body = {
            "key": operation.key,
            "values": _plain(operation.values),
            "row": None if operation.row is None else _plain(operation.row),
            "execution_id": operation.execution_id,
        }
    elif isinstance(operation, Counted):
        body = {
            "counted": operation.values,
            "recorder": operation.recorder,
            "number": operation.number,
        }
    else:
        body = {"row": _plain(operation)}
    return json.dumps(body, default=str)


def _plain(values: dict[str, Any]) -> dict[str, Any]:
    return {name: decoded(value) for name, value in values.items()}


def from_text(text: object) -> Operation:
    """Return the operation that `to_text` converted.

    Raises:
        UnreadableError: if the text is anything else.
    """
    try:
        if not isinstance(text, bytes):
            raise UnreadableError("it is not text")
        body = json.loads(text)
        if not isinstance(body, dict):
            raise UnreadableError("it is not a JSON object")
        if "counted" in body:
            return _counted(body)
        if "key" not in body:
            return _values(body.get("row"), _REQUIRED_IN_ROWS)
        return Outcome(
            _key(body["key"]),
            _values(body.get("values"), _REQUIRED_IN_OUTCOMES),
            None if body.get("row") is None else _values(body["row"], _REQUIRED_IN_ROWS),
            _value("id", body.get("execution_id"), is_required=False),
        )
    except (
        ValueError,
        RecursionError,
    ) as error:  # their messages quote the text
        raise UnreadableError("it is not JSON text") from error


def _counted(body: dict[str, Any]) -> Counted:
    values = _values(body["counted"], _REQUIRED_IN_COUNTED)
    try:
        return Counted(values, UUID(body["recorder"]), _integer(body["number"]))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UnreadableError("it has no number") from error


def _key(ids: object) -> ExecutionKey:
    if not isinstance(ids, list) or len(ids) != 3 or not all(isinstance(id_, str) for id_ in ids):
        raise UnreadableError("its key is not three texts")
    return ExecutionKey(*ids)


def _values(values: object, required: frozenset[str]) -> dict[str, Any]:
    if not isinstance(values, Mapping):
        raise UnreadableError("it has no values")
    if missing := required - values.keys():
        raise UnreadableError(f"it has no {min(missing)}")
    if values.keys() - _READERS.keys():
        raise UnreadableError("it has a column that the table does not have")
    return {
        name: _value(name, value, is_required=name in required) for name, value in values.items()
    }


def _value(name: str, value: Any, *, is_required: bool) -> Any:
    if value is None and not is_required:
        return None
    try:
        return _READERS[name](value)
    except (TypeError, ValueError, AttributeError) as error:
        raise UnreadableError(f"its {name} cannot be read") from error


def _integer(value: object) -> int:
    if not isinstance(value, int):
        raise TypeError
    return value


def _boolean(value: object) -> bool:
    if not isinstance(value, bool):
        raise TypeError
    return value


def _number(value: object) -> float:
    if not isinstance(value, (int, float)):
        raise TypeError
    return value


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError
    return value


def _moment(value: str) -> datetime:
    moment = datetime.fromisoformat(value)
    if moment.utcoffset() is None:
        raise ValueError
    return moment


def _json(value: Any) -> Any:
    return value if isinstance(value, list) else JsonText.of(value)


def _reader(type_: Any) -> Callable[[Any], Any]:
    if isinstance(type_, Enum):  # a subclass of String
        return Status
    readers: dict[type, Callable[[Any], Any]] = {
        PlainUuid: UUID,
        UTCDateTime: _moment,
        String: _text,
        Integer: _integer,
        Boolean: _boolean,
        Float: _number,
    }
    return next((read for kind, read in readers.items() if isinstance(type_, kind)), _json)


_READERS = {column.name: _reader(column.type) for column in _TABLE.c}
