"""Tables of the columns that `--columns` names."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from jobhistory.cli.output import iso_text, one_line, print_tabbed
from jobhistory.cli.screens.cells import (
    id_column,
    moment_cell,
    moment_column,
    number_column,
    status_cell,
)
from jobhistory.cli.screens.screen import Screen
from jobhistory.cli.screens.table import Cell, Column, Table
from jobhistory.cli.screens.units import UNKNOWN, unit_of
from jobhistory.errors import InvalidInput
from jobhistory.execution.status import Status
from jobhistory.schema import COLUMN_NAMES, HistoryRecord

_LABEL = "labels."
_ERRORS = ("error_type", "error_message", "error_stack")
_MILLISECONDS = "_ms"
_LEAST, _LEAST_ERROR = 10, 20


def check_columns(names: Sequence[str], *, json: bool) -> None:
    """Check that `--columns` names fields of records or labels.

    Raises:
        InvalidInput: if a name is unknown, or if the output is JSON, which has all fields.
    """
    if names and json:
        raise InvalidInput(
            "--columns", ",".join(names), "does not go with --json, which has all of them"
        )
    for name in names:
        is_label = name.startswith(_LABEL) and name != _LABEL
        if name not in COLUMN_NAMES and not is_label:
            valid = ", ".join(COLUMN_NAMES)
            raise InvalidInput("--columns", name, f"is not one of {valid}, labels.NAME")


def print_chosen_texts(records: Iterable[HistoryRecord], names: Sequence[str]) -> None:
    """Print records as they arrive, one tab-separated line each, below the names of the columns."""
    print_tabbed([[one_line(name) for name in names]])
    print_tabbed([_text(_value(record, name)) for name in names] for record in records)


def print_chosen(screen: Screen, records: Sequence[HistoryRecord], names: Sequence[str]) -> None:
    """Print one line per record, with these columns; the first ones give way last."""
    if not screen.is_terminal:
        print_chosen_texts(records, names)
    elif not records:
        screen.print("no executions")
    else:
        columns, cells = [], []
        for number, name in enumerate(names):
            values = [_value(record, name) for record in records]
            column, column_cells = _column(screen, name, len(names) - number, values)
            columns.append(column)
            cells.append(column_cells)
        if names[-1] in _ERRORS:
            columns[-1] = Column(columns[-1].heading, moves_below=True)
        Table(columns, list(zip(*cells, strict=True))).print(screen)


def _value(record: HistoryRecord, name: str) -> Any:
    if name.startswith(_LABEL):
        return (record.labels or {}).get(name.removeprefix(_LABEL))
    return getattr(record, name)


def _text(value: Any) -> str:
    """Return a value for a pipe: nothing for none, JSON for structures, times as ISO 8601."""
    if isinstance(value, datetime):
        return iso_text(value, timespec="milliseconds")
    if isinstance(value, (dict, list, bool)):
        return one_line(json.dumps(value, ensure_ascii=False))
    return "" if value is None else one_line(str(value))


def _column(
    screen: Screen, name: str, priority: int, values: Sequence[Any]
) -> tuple[Column, list[Cell]]:
    """Return a column and its cells, as suits the values."""
    known = [value for value in values if value is not None]
    heading = screen.text(name if name.startswith(_LABEL) else name.upper().replace("_", " "))
    if name.endswith(_MILLISECONDS):
        unit = unit_of(values)
        column = number_column(f"{heading.removesuffix(' MS')} ({unit.name})", priority)
        return column, [Cell(unit.text(value)) for value in values]
    if known and isinstance(known[0], datetime):
        cells = [moment_cell(value, screen) if value else Cell(UNKNOWN) for value in values]
        return moment_column(heading, priority, known, screen), cells
    if name == "status":
        return Column(heading, priority), [status_cell(Status(value)) for value in values]
    if name in _ERRORS:
        errors = [Cell(screen.text(_text(value)), "red") for value in values]
        return Column(heading, len(COLUMN_NAMES) + priority, least=_LEAST_ERROR), errors
    cells = [Cell(screen.text(_text(value) or UNKNOWN)) for value in values]
    if known and isinstance(known[0], (int, float)):
        return number_column(heading, priority), cells
    is_id = name.endswith("_id") or (bool(known) and isinstance(known[0], UUID))
    return id_column(heading, priority) if is_id else Column(heading, priority, least=_LEAST), cells
