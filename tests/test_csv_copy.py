"""Copying CSV into a temporary table, through each driver."""

from __future__ import annotations

import asyncio

import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.ext.asyncio import create_async_engine

from jobhistory.database.csv_copy import copy_csv

ROWS = b'1,"","{""a"": 1}"\n2,,\n'


def copied(connection):
    connection.execute(text("CREATE TEMPORARY TABLE copied (a int, b text, c jsonb)"))
    copy_csv(connection, "copied", ROWS)
    found = connection.execute(text("SELECT a, b, c::text FROM copied ORDER BY a"))
    return [tuple(row) for row in found]


@pytest.mark.parametrize("driver", ["psycopg", "psycopg2"])
def test_rows_are_copied(postgres_database, driver):
    engine = create_engine(postgres_database.url.set(drivername=f"postgresql+{driver}"))
    with engine.connect() as connection:
        assert copied(connection) == [(1, "", '{"a": 1}'), (2, None, None)]
    engine.dispose()


@pytest.mark.parametrize("driver", ["psycopg", "asyncpg"])
def test_rows_are_copied_with_asyncio(postgres_database, driver):
    async def run():
        url = postgres_database.url.set(drivername=f"postgresql+{driver}")
        engine = create_async_engine(url)
        async with engine.connect() as connection:
            found = await connection.run_sync(copied)
        await engine.dispose()
        return found

    assert asyncio.run(run()) == [(1, "", '{"a": 1}'), (2, None, None)]
