"""Each way in which SQLAlchemy's documentation sets up transactions on SQLite."""

from __future__ import annotations

import sqlite3
import sys

from sqlalchemy import URL, Engine, create_engine, event


def plain(url: str | URL) -> Engine:
    return create_engine(url)


def driver_autocommit(url: str | URL) -> Engine:
    return create_engine(url, isolation_level="AUTOCOMMIT")


def begin_event(url: str | URL) -> Engine:
    engine = create_engine(url)

    @event.listens_for(engine, "connect")
    def leave_transactions_to_sqlalchemy(connection, record):
        connection.isolation_level = None

    @event.listens_for(engine, "begin")
    def begin(connection):
        connection.exec_driver_sql("BEGIN")

    return engine


class AlwaysInTransaction(sqlite3.Connection):
    """What `autocommit=False` does from Python 3.12 on, for those before."""

    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **options, isolation_level=None)
        self.execute("BEGIN")

    def commit(self):
        self.execute("COMMIT")
        self.execute("BEGIN")

    def rollback(self):
        self.execute("ROLLBACK")
        self.execute("BEGIN")


def autocommit_false(url: str | URL) -> Engine:
    if sys.version_info >= (3, 12):
        return create_engine(url, connect_args={"autocommit": False})
    return create_engine(url, connect_args={"factory": AlwaysInTransaction})


SQLITE_ENGINES = {
    make.__name__: make for make in (plain, driver_autocommit, begin_event, autocommit_false)
}
