"""The result of a query in SQL: a table on a terminal, lines with tabs in a pipe."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from datetime import date, datetime
from decimal import Decimal
from math import isfinite
from typing import Any

from jobhistory.cli.output import one_line, print_json, print_tabbed
from jobhistory.cli.screens.screen import Screen
from jobhistory.cli.screens.table import Cell, Column, Table
from jobhistory.cli.screens.units import UNKNOWN

Rows = Iterable[Sequence[Any]]
_LEAST = 10


def print_result(screen: Screen, names: Sequence[str], rows: Rows) -> None:
    """Print rows below the names of their columns, as they arrive if it is not a terminal."""
    if not screen.is_terminal:
        print_tabbed([[one_line(name) for name in names]])
        print_tabbed([one_line(_text(value)) for value in row] for row in rows)
        return
    found = list(rows)
    columns = [
        _column(screen.text(name), len(names) - number, [row[number] for row in found])
        for number, name in enumerate(names)
    ]
    cells = [[Cell(screen.text(_text(value) or UNKNOWN)) for value in row] for row in found]
    Table(columns, cells).print(screen)
    if not found:
        screen.print_note("no rows")


def print_result_json(names: Sequence[str], rows: Rows) -> None:
    """Print one JSON object per row."""
    for row in rows:
        print_json({name: _json(value) for name, value in zip(names, row, strict=True)})


def _column(heading: str, priority: int, values: Sequence[Any]) -> Column:
    known = next((value for value in values if value is not None), None)
    is_number = isinstance(known, (int, float, Decimal)) and not isinstance(known, bool)
    return Column(heading, priority, right=is_number, least=None if is_number else _LEAST)


def _text(value: Any) -> str:
    """Return a value as text: nothing for NULL, JSON for structures, times in UTC as ISO 8601."""
    if value is None:
        return ""
    plain = _plain(value)
    return plain if isinstance(plain, str) else json.dumps(plain, ensure_ascii=False)


def _json(value: Any) -> Any:
    """Return a value as JSON has it, which has neither NaN nor infinity."""
    plain = _plain(value)
    if isinstance(plain, float) and not isfinite(plain):
        return None
    if isinstance(plain, list):
        return [_json(each) for each in plain]
    if isinstance(plain, dict):
        return {key: _json(each) for key, each in plain.items()}
    return plain


def _plain(value: Any) -> Any:
    """Return a value of DuckDB as a value of JSON, or as a number that JSON does not have."""
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, (list, tuple)):
        return [_plain(each) for each in value]
    if isinstance(value, dict):
        return {str(key): _plain(each) for key, each in value.items()}
    if isinstance(value, (date, datetime)):
        return value.isoformat().replace("+00:00", "Z")
    if isinstance(value, Decimal):
        return float(value)
    if isinstance(value, bytes):
        return value.hex()
    return str(value)
