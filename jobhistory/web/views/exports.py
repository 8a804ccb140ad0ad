"""Lists as files: all executions that meet the search, as CSV and as JSON lines."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable
from typing import Any

from jobhistory._runtime.plain_json import plain_json
from jobhistory.schema import COLUMN_NAMES, JSON_COLUMNS, HistoryRecord
from jobhistory.web.access import HIDDEN_COLUMNS
from jobhistory.web.asking import Steps, ask
from jobhistory.web.context import Context
from jobhistory.web.http import Answer, redirect
from jobhistory.web.listing import Listing
from jobhistory.web.resolving import resolve
from jobhistory.web.streams import Encode, encoded

# A spreadsheet takes a cell that starts with one of these for a formula, and may run it.
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")


def export_csv(page: Context) -> Steps:
    """Send all executions that meet the search as CSV."""
    names = _columns(page)

    def encode(records: Iterable[HistoryRecord]) -> bytes:
        return _csv([_cell(name, getattr(record, name)) for name in names] for record in records)

    return (yield from _export(page, "csv", "text/csv; charset=utf-8", encode, _csv([names])))


def export_json(page: Context) -> Steps:
    """Send all executions that meet the search as JSON, one object per line."""
    names = _columns(page)

    def encode(records: Iterable[HistoryRecord]) -> bytes:
        rows = ({name: plain_json(getattr(record, name)) for name in names} for record in records)
        return "".join(f"{_json(row)}\n" for row in rows).encode()

    return (yield from _export(page, "jsonl", "application/x-ndjson", encode, b""))


def _export(
    page: Context, kind: str, content_type: str, encode: Encode[HistoryRecord], header: bytes
) -> Steps:
    meaning = yield from resolve(page)
    if meaning is not None:
        return redirect(meaning)
    listing = Listing.of(page)
    disposition = f'attachment; filename="executions-{page.now:%Y%m%dT%H%M%SZ}.{kind}"'
    headers = (("Content-Disposition", disposition),)
    if page.request.method == "HEAD":
        return Answer(iter(()), 200, content_type, headers)
    records = yield ask("iterate", listing.query, reads="all that match, in batches")
    return Answer(encoded(records, encode, header), 200, content_type, headers)


def _columns(page: Context) -> list[str]:
    return [name for name in COLUMN_NAMES if page.shows_payloads or name not in HIDDEN_COLUMNS]


def _csv(rows: Iterable[list[str]]) -> bytes:
    text = io.StringIO(newline="")
    csv.writer(text).writerows(rows)
    return text.getvalue().encode(errors="replace")


def _cell(name: str, value: Any) -> str:
    if value is None:
        return ""
    text = _json(value) if name in JSON_COLUMNS else str(plain_json(value))
    return f"'{text}" if text.startswith(_FORMULA) else text


def _json(value: Any) -> str:
    # What present= returns may be anything.
    return json.dumps(value, default=str)
