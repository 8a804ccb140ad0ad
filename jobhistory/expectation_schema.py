"""The tables of expectations and of incidents."""

from __future__ import annotations

from sqlalchemy import Column, Index, String, Table, Text, text

from jobhistory.sanitize.truncate import NAME_LENGTH
from jobhistory.schema import TABLE, TABLE_NAME, Base, PlainUuid, PortableJSON, UTCDateTime

EXPECTATION = Table(
    f"{TABLE_NAME}_expectation",
    Base.metadata,
    Column("name", String(NAME_LENGTH), primary_key=True),
    Column("task_identifier", String(NAME_LENGTH), nullable=False),
    Column("definition", PortableJSON, nullable=False),
    Column("source", String(NAME_LENGTH)),
    Column("declared_at", UTCDateTime, nullable=False),
    Column("checked_at", UTCDateTime),
)
"""What should be true of tasks.

`definition` has the arguments of an `Expectation`. `source` names where it was imported from, and
`checked_at` is the time of the last check.
"""

INCIDENT = Table(
    f"{TABLE_NAME}_incident",
    Base.metadata,
    Column("id", PlainUuid, primary_key=True),
    Column("expectation", String(NAME_LENGTH), nullable=False),
    Column("task_identifier", String(NAME_LENGTH), nullable=False),
    Column("problem", String(32), nullable=False),
    Column("summary", Text, nullable=False),
    Column("slots", PortableJSON, nullable=False),
    Column("executions", PortableJSON, nullable=False),
    Column("opened_at", UTCDateTime, nullable=False),
    Column("seen_at", UTCDateTime, nullable=False),
    Column("closed_at", UTCDateTime),
    Column("notified", String(8)),
    Column("notified_at", UTCDateTime),
    Column("claimed_until", UTCDateTime),
)
"""Problems that checks have found, as `Incident` describes them.

`notified` is the last news of it that was sent, `opened` or `closed`, and `notified_at` the time.
One sender at a time holds it, up to `claimed_until`.
"""

_open = text("closed_at IS NULL")

Index(
    f"ix_{TABLE_NAME}_incident_open",
    INCIDENT.c.expectation,
    INCIDENT.c.problem,
    unique=True,
    postgresql_where=_open,
    sqlite_where=_open,
)
Index(f"ix_{TABLE_NAME}_incident_opened_at", INCIDENT.c.opened_at)

EXPECTATION_TABLES = (EXPECTATION, INCIDENT)

for _table in EXPECTATION_TABLES:
    _table.add_is_dependent_on(TABLE)
