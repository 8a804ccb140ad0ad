"""Partitions that `expire` drops as a whole are archived first."""

from __future__ import annotations

import logging
from itertools import count
from threading import Event

import pytest
from sqlalchemy import select, text

from jobhistory import Archive, ArchiveError, InvalidInput
from jobhistory.archive_schema import ARCHIVE
from jobhistory.database import archived_partitions
from jobhistory.database.partitions.detached import detached_tables
from jobhistory.schema import COLUMNS
from tests.archives import archived, check_each_is_somewhere_once, manifest, published
from tests.test_archive_once import Killed, Killer
from tests.test_partition_expiry import (  # the fixtures, too
    DAY,
    WEEK,
    daily,
    engine,
    fill,
    layout,
    pauses,
    remaining,
    store_at,
    week,
)

__all__ = ["engine", "layout", "pauses"]


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "archive"


@pytest.fixture
def history(engine):
    """Three weeks of which every row has expired, and one of which none has."""
    with engine.begin() as connection:
        copy = f"(LIKE public.{ARCHIVE.name} INCLUDING ALL)"
        connection.execute(text(f"CREATE TABLE weekly.{ARCHIVE.name} {copy}"))
    fill(engine, [*daily(0, DAY), *daily(1, DAY, count=9), *daily(3, 52 * WEEK)])
    return engine


def all_ids(engine):
    with engine.connect() as connection:
        return set(connection.execute(select(COLUMNS.id)).scalars())


def detached(engine):
    with engine.connect() as connection:
        return detached_tables(connection, "weekly")


def test_a_partition_is_archived_before_it_is_dropped(history, folder, monkeypatch):
    monkeypatch.setattr(archived_partitions, "_BATCH", 4)
    ids = all_ids(history)
    store = store_at(history, week(4))
    assert store.expire(archive=folder, by_partition=True) == 16
    assert detached(history) == []
    assert remaining(history) == 7
    check_each_is_somewhere_once(history, folder, ids)
    assert len(published(folder)) == len(manifest(history)) >= 14
    assert store.expire(archive=folder, by_partition=True) == 0


def test_a_partition_is_no_table_to_restore_into(history, folder):
    store = store_at(history, week(4))
    assert store.expire(archive=folder) == 16
    with history.connect() as connection:
        leaf = connection.scalar(
            text("SELECT relname FROM pg_class WHERE relispartition AND relkind = 'r' LIMIT 1")
        )
    with pytest.raises(InvalidInput, match=f"'{leaf}' is a part of job_history and would count"):
        Archive(folder).restore(store, into=leaf)
    assert remaining(history) == 7
    assert Archive(folder).restore(store) == 16


def failing(folder):
    """An archive that cannot be written."""

    def fail(name, data):
        raise OSError("no")

    archive = Archive(folder)
    archive.storage.write = fail
    return archive


def test_what_is_detached_is_archived_by_the_next_call(history, folder):
    ids = all_ids(history)
    store = store_at(history, week(4))
    with pytest.raises(ArchiveError):
        store.expire(archive=failing(folder), by_partition=True)
    assert detached(history)
    assert manifest(history) == []
    assert store.expire(archive=folder) == 16
    assert detached(history) == []
    check_each_is_somewhere_once(history, folder, ids)


def test_nobody_drops_what_is_to_be_archived_elsewhere(history, folder, tmp_path, caplog):
    store = store_at(history, week(4))
    with pytest.raises(ArchiveError):
        store.expire(archive=failing(folder), by_partition=True)
    with caplog.at_level(logging.WARNING):
        store.expire()
        store.expire(archive=tmp_path / "other")
    assert len(detached(history)) == 3
    assert folder.as_uri() in caplog.text
    assert store.expire(archive=folder) == 16


def test_it_may_be_killed_before_and_after_each_step(history, folder):
    ids = all_ids(history)
    store = store_at(history, week(4))
    for moment in range(300):
        archive = Archive(folder)
        archive.storage = Killer(archive.storage, moment)
        try:
            store.expire(archive=archive, by_partition=True)
        except Killed:
            with history.connect() as connection:
                still = {
                    id_
                    for table in detached(history)
                    for id_ in connection.execute(text(f"SELECT id FROM {table.sql}")).scalars()
                }
            found = archived(history, folder)
            assert sorted([*found, *still, *all_ids(history)]) == sorted(ids)
            continue
        break
    assert moment > 8
    check_each_is_somewhere_once(history, folder, ids)


@pytest.mark.parametrize(
    ("write", "left"),
    [
        ("DELETE FROM {0} WHERE id IN (SELECT id FROM {0} ORDER BY id LIMIT 1)", 2),
        ("UPDATE {0} SET result = '1' WHERE id IN (SELECT id FROM {0} ORDER BY id LIMIT 1)", 3),
    ],
)
def test_a_table_that_is_written_meanwhile_is_not_dropped(history, folder, write, left):
    ids = all_ids(history)
    store = store_at(history, week(4))

    class Writing(Archive):
        def prepare(self, rows, owner):
            entries = super().prepare(rows, owner)
            for table in detached(history):
                with history.begin() as connection:
                    connection.execute(text(write.format(table.sql)))
            return entries

    store.expire(archive=Writing(folder), by_partition=True)
    assert len(detached(history)) == left
    assert manifest(history) == []
    store.expire(archive=folder)
    assert detached(history) == []
    assert set(archived(history, folder)) <= ids


def test_a_batch_is_read_while_the_one_before_it_is_written(history, folder, monkeypatch):
    monkeypatch.setattr(archived_partitions, "_BATCH", 3)
    ids = all_ids(history)
    reads, second = count(1), Event()
    read_table = archived_partitions.read_table

    def read(*args):
        if next(reads) == 2:
            second.set()
        return read_table(*args)

    class Waiting(Archive):
        def prepare(self, rows, owner):
            assert second.wait(timeout=30), "the first batch is written before the second is read"
            return super().prepare(rows, owner)

    monkeypatch.setattr(archived_partitions, "read_table", read)
    assert store_at(history, week(4)).expire(archive=Waiting(folder), by_partition=True) == 16
    check_each_is_somewhere_once(history, folder, ids)


@pytest.mark.parametrize("broken", ["read_table", "prepare"])
def test_a_batch_that_fails_leaves_no_file_of_those_before_it(history, folder, broken, monkeypatch):
    monkeypatch.setattr(archived_partitions, "_BATCH", 3)
    archive = Archive(folder)
    place = archive if broken == "prepare" else archived_partitions
    original, calls = getattr(place, broken), count(1)

    def fail(*args):
        if next(calls) == 3:
            raise ArchiveError(folder.as_uri(), "is full")
        return original(*args)

    monkeypatch.setattr(place, broken, fail)
    with pytest.raises(ArchiveError, match="is full"):
        store_at(history, week(4)).expire(archive=archive, by_partition=True)
    assert list(folder.rglob("*.parquet")) == []
