"""Where a page ended, as text."""

from __future__ import annotations

import base64
import json
import re
import zlib
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any
from uuid import UUID

from jobhistory._runtime.clock import in_utc
from jobhistory.errors import InvalidInput, quoted

if TYPE_CHECKING:
    from jobhistory.schema import HistoryRecord
from jobhistory.query.criteria import HistoryQuery, replace

_LONGEST_CURSOR = 1_000_000  # characters, packed or unpacked


_CURSOR_VERSION = "1"


@dataclass(frozen=True)
class Cursor:
    """Where a page ended: behind which record, in what was asked for."""

    query: HistoryQuery
    started_at: datetime
    id: UUID

    @classmethod
    def behind(cls, record: HistoryRecord, query: HistoryQuery) -> Cursor:
        """Behind a record that the query found."""
        return cls(query, record.started_at, record.id)

    def text(self) -> str:
        """The cursor as text, which URLs and shells take as it is."""
        given = replace(self.query, limit=None)  # as pages of one query may be of any size
        criteria = {name: value for name, value in asdict(given).items() if value is not None}
        content = json.dumps([self.started_at, self.id.hex, criteria], default=datetime.isoformat)
        packed = base64.urlsafe_b64encode(zlib.compress(content.encode(), 9))
        return f"v{_CURSOR_VERSION}.{packed.decode().rstrip('=')}"

    @classmethod
    def read(cls, text: str, argument: str) -> Cursor:
        """The cursor that a text stands for; it may come from anywhere.

        Raises:
            InvalidInput: if it stands for none, or is one of another version of this library.
        """
        parts = re.fullmatch(r"v([0-9]{1,9})\.([\w-]+)", text) if isinstance(text, str) else None
        if parts is None or len(text) > _LONGEST_CURSOR:
            raise _no_cursor(text, argument)
        if parts[1] != _CURSOR_VERSION:
            raise InvalidInput(
                argument,
                text,
                f"is a cursor of version {parts[1]}, and this jobhistory reads those of version "
                f"{_CURSOR_VERSION}; begin anew, without it",
            )
        try:
            # Its checksum tells what was mistyped or cut off; the bound, what was made to harm.
            content = zlib.decompressobj()
            packed = base64.b64decode(parts[2] + "=" * (-len(parts[2]) % 4), "-_", validate=True)
            unpacked = content.decompress(packed, _LONGEST_CURSOR)
            if not content.eof or content.unused_data:
                raise ValueError("there is more, or less, than a cursor")
            started_at, id_, criteria = json.loads(unpacked)
            for name in criteria.keys() & {"from_", "to"}:
                criteria[name] = datetime.fromisoformat(criteria[name])
            query = HistoryQuery(**criteria, limit=None)
            return cls(query, in_utc(datetime.fromisoformat(started_at), argument), UUID(hex=id_))
        except (ValueError, TypeError, AttributeError, RecursionError, zlib.error):
            raise _no_cursor(text, argument) from None

    @classmethod
    def read_for(cls, query: HistoryQuery, text: str, argument: str) -> Cursor:
        """The cursor that a text stands for, as long as it was made for this query.

        Raises:
            InvalidInput: if not, saying what differs.
        """
        cursor = cls.read(text, argument)
        had, has = asdict(cursor.query), asdict(query)
        for name in had:
            if had[name] != has[name] and name != "limit":
                raise InvalidInput(
                    argument,
                    text,
                    f"was made for other criteria: {name} was {_shown(had[name])} and is "
                    f"{_shown(has[name])}; give the same ones, or begin anew, without it",
                )
        return cursor


def _no_cursor(text: str, argument: str) -> InvalidInput:
    return InvalidInput(argument, text, "is no cursor; give the next_cursor of a page as it was")


def _shown(value: Any) -> str:
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, tuple):  # as it may have been given, and without the names of an Enum
        return quoted([str(item) for item in value] if len(value) != 1 else str(value[0]))
    return quoted(value)


@dataclass(frozen=True)
class Page:
    """Some of the records that meet criteria, and where the next ones begin.

    Attributes:
        records: the executions, in the order that was asked for.
        next_cursor: what gives the next page when given as `after`, as text that URLs take as it
            is; `None` on the last page.
    """

    records: list[HistoryRecord]
    next_cursor: str | None
