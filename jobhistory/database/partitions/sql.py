"""SQL that changes tables, and the locks that it takes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TypeVar

from sqlalchemy import BigInteger, Connection, Engine, bindparam, text
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.exc import DBAPIError

from jobhistory.database import exclusive
from jobhistory.database.driver_errors import sqlstate
from jobhistory.database.revision import connected
from jobhistory.errors import LayoutNotChanged

T = TypeVar("T")

LOCK_TIMEOUT = "100ms"
"""How long a statement waits for its lock. Everything that comes after it waits as long."""

TRIES = 60
PAUSE_SECONDS = 0.4

_tries: ContextVar[int | None] = ContextVar("_tries", default=None)

_LOCK_NOT_AVAILABLE = "55P03"
_DEADLOCK = "40P01"

_SETTING = text("SELECT current_setting('lock_timeout')")
_SET = text("SELECT set_config('lock_timeout', :value, true)")

_HOLDERS = text("""
SELECT pid, backend_type, application_name, state, xact_start
FROM pg_locks JOIN pg_stat_activity USING (pid)
WHERE relation = ANY(CAST(:oids AS bigint[])) AND granted AND pid <> pg_backend_pid()
    AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
ORDER BY xact_start LIMIT 1
""").bindparams(bindparam("oids", type_=ARRAY(BigInteger)))

_NAMES = text("""
SELECT CAST(CAST(oid AS regclass) AS text) FROM pg_class
WHERE oid = ANY(CAST(:oids AS bigint[])) ORDER BY oid
""").bindparams(bindparam("oids", type_=ARRAY(BigInteger)))


def identifier(*names: str) -> str:
    """Return a name for SQL, always in quotes."""
    return ".".join('"{}"'.format(name.replace('"', '""')) for name in names)


def literal(value: str) -> str:
    """Return a text for SQL."""
    return "'{}'".format(value.replace("'", "''"))


def run(connection: Connection, statement: str) -> None:
    """Execute a statement as it is, whatever signs it contains."""
    connection.exec_driver_sql(statement, execution_options={"no_parameters": True})


def run_all(connection: Connection, statements: Iterable[str]) -> None:
    """Execute statements in one round trip, so that locks are not held for many of them."""
    body = "\n".join(f"EXECUTE {literal(each)};" for each in statements)
    if body:
        run(connection, f"DO {literal(f'BEGIN {body} END')}")


@contextmanager
def trying(times: int) -> Iterator[None]:
    """Let `under_lock` try only so many times, for the block."""
    token = _tries.set(times)
    try:
        yield
    finally:
        _tries.reset(token)


def under_lock(
    bind: Engine | Connection, oids: Sequence[int], work: Callable[[Connection], T]
) -> T:
    """Do work in a transaction that locks tables, and give up its place while others hold them.

    While the transaction waits for a lock, all who come later wait for it. So it waits briefly, and
    tries again after a pause. The work may be repeated.

    Raises:
        LayoutNotChanged: if a lock was not available in many tries.
    """
    tries = _tries.get() or TRIES
    for tried in range(tries):
        try:
            with (
                exclusive.transaction(bind) as connection,
                connection.begin_nested(),
                _waiting_briefly(connection, oids),
            ):
                return work(connection)
        except DBAPIError as error:
            if sqlstate(error) not in (_LOCK_NOT_AVAILABLE, _DEADLOCK):
                raise
        if tried < tries - 1:
            with connected(bind) as connection:
                exclusive.pause(connection, PAUSE_SECONDS)
    with connected(bind) as connection:
        raise LayoutNotChanged(
            f"{_holder(connection, oids)} has kept it locked for too long; "
            "end that, or try again when less is running"
        )


@contextmanager
def _waiting_briefly(connection: Connection, oids: Sequence[int]) -> Iterator[None]:
    before = connection.execute(_SETTING).scalar_one()
    for name in connection.execute(_NAMES, {"oids": list(oids)}).scalars().all():
        # Autovacuum gives way to who waits for a second. Nobody else waits for this lock.
        run(connection, f"LOCK TABLE ONLY {name} IN SHARE UPDATE EXCLUSIVE MODE")
    connection.execute(_SET, {"value": LOCK_TIMEOUT})
    yield
    connection.execute(_SET, {"value": before})


def _holder(connection: Connection, oids: Sequence[int]) -> str:
    row = connection.execute(_HOLDERS, {"oids": list(oids)}).one_or_none()
    if row is None:
        return "another session"
    if row.backend_type != "client backend":
        return f"the {row.backend_type} with pid {row.pid}"
    program = f" ({row.application_name})" if row.application_name else ""
    since = f" since {row.xact_start:%H:%M:%S}" if row.xact_start else ""
    return f"the session with pid {row.pid}{program}, which is {row.state}{since},"
