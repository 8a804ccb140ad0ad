"""Pages, and the cursors between them."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, fields
from datetime import UTC, datetime, timedelta
from hashlib import blake2b
from struct import Struct
from typing import TYPE_CHECKING, Any
from uuid import UUID
from zlib import crc32

from jobhistory.errors import InvalidInput
from jobhistory.query.criteria import HistoryQuery
from jobhistory.sanitize.truncate import ascii_lower

if TYPE_CHECKING:
    from jobhistory.schema import HistoryRecord

_VERSION = "2"
_TEXT = re.compile(r"v([0-9]{1,9})\.([A-Za-z0-9_-]+)")
# Microseconds, id, digest of the criteria. A checksum of 4 bytes follows: base64 needs no padding
# for 36 bytes, so each bit of the text is significant.
_CONTENT = Struct(">q16s8s")
_CHECKSUM_BYTES = 4
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


@dataclass(frozen=True)
class Cursor:
    """A position in the order of pages: after the record with this start and id."""

    started_at: datetime
    id: UUID

    @classmethod
    def after(cls, record: HistoryRecord) -> Cursor:
        """Return the position after a record."""
        return cls(record.started_at, record.id)

    def to_text(self, query: HistoryQuery) -> str:
        """Return 51 characters that need no quoting in URLs and shells.

        They contain a digest of the criteria, not the criteria themselves.
        """
        content = _CONTENT.pack(_microseconds(self.started_at), self.id.bytes, _digest(query))
        packed = base64.urlsafe_b64encode(content + _checksum(content))
        return f"v{_VERSION}.{packed.decode()}"

    @classmethod
    def from_text(cls, text: str, query: HistoryQuery, argument: str) -> Cursor:
        """Return the position that a text stands for.

        The text may come from anywhere. A checksum detects typing errors, but not forgery: anybody
        can make a cursor for any position.

        Raises:
            InvalidInput: if the text is not a cursor, or is one of another version, or of a query
                with other criteria. The limit and the order of collections do not matter.
        """
        parts = _TEXT.fullmatch(text) if isinstance(text, str) else None
        if parts is None:
            raise _not_a_cursor(text, argument)
        if parts[1] != _VERSION:
            raise InvalidInput(
                argument,
                text,
                f"is a cursor of version {parts[1]}, and this version of jobhistory only reads "
                f"version {_VERSION}; start again from the first page",
            )
        try:
            microseconds, id_, digest = _CONTENT.unpack(_unpacked(parts[2]))
            cursor = cls(_EPOCH + microseconds * _MICROSECOND, UUID(bytes=id_))
        except (ValueError, OverflowError):  # the latter if it was forged
            raise _not_a_cursor(text, argument) from None
        if digest != _digest(query):
            raise InvalidInput(
                argument,
                text,
                "belongs to other criteria; repeat those of its page, or start again from the "
                "first page",
            )
        return cursor


def _unpacked(packed: str) -> bytes:
    content = base64.urlsafe_b64decode(packed)
    content, checksum = content[:-_CHECKSUM_BYTES], content[-_CHECKSUM_BYTES:]
    if len(content) != _CONTENT.size or checksum != _checksum(content):
        raise ValueError("something changed it")
    return content


def _checksum(content: bytes) -> bytes:
    # CRC-32 detects every change within five neighbouring characters.
    return crc32(content).to_bytes(_CHECKSUM_BYTES, "big")


def _microseconds(moment: datetime) -> int:
    return (moment - _EPOCH) // _MICROSECOND


def _digest(query: HistoryQuery) -> bytes:
    """Return 8 bytes that are the same for equivalent criteria, in any process."""
    # Without those that are not given, so that new kinds of criteria leave the digest unchanged.
    criteria = {
        field.name: _canonical(ascii_lower(value) if field.name == "error_contains" else value)
        for field in fields(HistoryQuery)
        if field.name != "limit" and (value := getattr(query, field.name)) is not None
    }
    content = json.dumps(criteria, sort_keys=True)
    return blake2b(content.encode(), digest_size=8).digest()


def _canonical(value: Any) -> Any:
    if isinstance(value, tuple):
        return sorted(value)
    if isinstance(value, UUID):
        return str(value)
    return _microseconds(value) if isinstance(value, datetime) else value


def _not_a_cursor(text: str, argument: str) -> InvalidInput:
    return InvalidInput(
        argument, text, "is not a cursor; give the next_cursor of a page, unchanged"
    )


@dataclass(frozen=True)
class Page:
    """Some of the records that meet criteria, and where the next page starts.

    Iterating over a page yields its records, and `len(page)` is their number.

    Attributes:
        records: the executions, in the order of the query.
        next_cursor: text of about 50 characters; give it as `after`, with the same criteria, to get
            the next page. URLs can contain it unquoted. `None` on the last page.
    """

    records: list[HistoryRecord]
    next_cursor: str | None

    def __iter__(self) -> Iterator[HistoryRecord]:
        return iter(self.records)

    def __len__(self) -> int:
        return len(self.records)

    def to_dict(self) -> dict[str, Any]:
        """Return the records as dicts, and the cursor, for JSON."""
        records = [record.to_dict() for record in self.records]
        return {"records": records, "next_cursor": self.next_cursor}
