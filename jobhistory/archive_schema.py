"""The manifest of archives: which files hold the rows that were archived."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Date, Index, String, Table, Text, text

from jobhistory.schema import TABLE, TABLE_NAME, Base, UTCDateTime

RESTORED_NAME = f"{TABLE_NAME}_restored"
"""The table into which `archive restore` writes, unless it is told another one."""

ARCHIVE = Table(
    f"{TABLE_NAME}_archive",
    Base.metadata,
    Column("location", Text, primary_key=True),
    Column("file", Text, primary_key=True),
    Column("day", Date, nullable=False),
    Column("row_count", BigInteger, nullable=False),
    Column("byte_count", BigInteger, nullable=False),
    Column("digest", String(64), nullable=False),
    Column("file_digest", String(64), nullable=False),
    Column("first_started_at", UTCDateTime),
    Column("last_started_at", UTCDateTime),
    Column("archived_at", UTCDateTime, nullable=False),
    Column("pending", Text),
    Column("published_at", UTCDateTime),
)
"""The files of archives.

`location` is the URL of an archive, without credentials, and `file` the path of a file below it.
The row that names a file is written in the transaction that deletes the rows which the file holds.
`digest` is the SHA-256 of the sorted ids, in hexadecimal, and `file_digest` that of the file.

`pending` is the name of a file in `_pending/` that is still to be published as `file`. If there is
none, `published_at` says when it was published; if that is also NULL, the file is to be deleted.
"""

_unpublished = text("published_at IS NULL")

Index(
    f"ix_{TABLE_NAME}_archive_unpublished",
    ARCHIVE.c.location,
    postgresql_where=_unpublished,
    sqlite_where=_unpublished,
)

ARCHIVE_TABLES = (ARCHIVE,)

for _table in ARCHIVE_TABLES:
    _table.add_is_dependent_on(TABLE)
