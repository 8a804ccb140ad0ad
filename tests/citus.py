"""Databases on a cluster of Citus, if the tests are told of one."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import URL, NullPool, create_engine, make_url, text

from jobhistory import migrate
from jobhistory.distribution import distribute

URL_VARIABLE = "JOBHISTORY_TEST_CITUS_URL"
"""The URL of a database on the coordinator that knows the workers, as a superuser.

The same user must be able to connect to each worker, by the name that the coordinator knows.
"""

IS_GIVEN = URL_VARIABLE in os.environ


def run(url: URL, *statements: str) -> list[tuple[Any, ...]]:
    """Execute statements outside of a transaction, and return the rows of the last one."""
    engine = create_engine(url, isolation_level="AUTOCOMMIT", poolclass=NullPool)
    rows: list[tuple[Any, ...]] = []
    with engine.connect() as connection:
        for statement in statements:
            result = connection.execute(text(statement))
            rows = [tuple(row) for row in result] if result.returns_rows else []
    return rows


@contextmanager
def new_citus_database() -> Iterator[URL]:
    """Make a database on every node, with an empty history that is distributed; drop it later."""
    given = make_url(os.environ[URL_VARIABLE]).set(drivername="postgresql+psycopg")
    name = f"jobhistory_test_{uuid.uuid4().hex[:12]}"
    known = "FROM pg_dist_node WHERE noderole = 'primary'"
    nodes = run(given, f"SELECT nodename, nodeport, groupid = 0 {known} ORDER BY groupid")
    workers = [given.set(host=host, port=port) for host, port, is_main in nodes if not is_main]
    servers = [*workers, given]
    url = given.set(database=name)
    try:
        with _turn(given):
            for server in servers:
                run(server, f"CREATE DATABASE {name} TEMPLATE template0 ENCODING 'UTF8'")
                run(server.set(database=name), "CREATE EXTENSION citus")
            # A few shards show what many do, and each takes a connection to its worker.
            run(url, f"ALTER DATABASE {name} SET citus.shard_count = 4")
            for host, port, is_main in nodes:
                add = "citus_set_coordinator_host" if is_main else "citus_add_node"
                run(url, f"SELECT {add}('{host}', {port})")
        engine = create_engine(url)
        migrate.upgrade(engine)
        distribute(engine)
        engine.dispose()
        yield url
    finally:
        with _turn(given):
            for server in reversed(servers):
                run(server, f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")


@contextmanager
def _turn(given: URL) -> Iterator[None]:
    """Exclude other processes of the tests: nodes that are added at once disturb each other."""
    engine = create_engine(given, isolation_level="AUTOCOMMIT", poolclass=NullPool)
    with engine.connect() as connection:
        connection.execute(text("SELECT pg_advisory_lock(17)"))
        yield
