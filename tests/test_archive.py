"""Archiving what `expire` deletes: what is written, what is refused, and what errors leave."""

from __future__ import annotations

import errno
import os
import shutil
import stat
from datetime import UTC, date, datetime, timedelta
from functools import partial
from typing import ClassVar
from uuid import UUID

import fsspec
import pyarrow as pa
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import text, update
from sqlalchemy.orm import sessionmaker

from jobhistory import (
    Archive,
    ArchiveError,
    InvalidInput,
    Job,
    RetentionRule,
    create_store,
    new_execution_id,
)
from jobhistory.archive.parquet import digest_of, read_table
from jobhistory.archive.storage import storage_at
from jobhistory.archive_schema import ARCHIVE
from jobhistory.database.archived_rows import OWN_COLUMNS, Kind
from jobhistory.database.history_id import history_id
from jobhistory.database.transaction import Purpose
from jobhistory.schema import COLUMN_NAMES, COLUMNS, TABLE, values_of
from tests.archives import archived, ids_in, manifest, published, stored

IDS = {"job_id": "1", "worker_id": "w", "correlation_id": "c", "task_identifier": "t"}
START = datetime(2015, 3, 1, 12, 0, tzinfo=UTC)


class Killed(BaseException):
    """The process ends, and nothing is cleaned up."""


def record(store, how_many=3, *, start=START, apart=timedelta(hours=12), **values):
    """Record executions that have expired, and return their ids in order."""
    rows = [
        IDS
        | {"status": "completed", "started_at": start + number * apart}
        | {"id": new_execution_id(start + number * apart)}
        | values
        for number in range(how_many)
    ]
    store.record_many(rows)
    return [row["id"] for row in rows]


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "archive"


@pytest.fixture
def history(database, clock):
    return create_store(database.engine, clock=clock)


def rows_of(folder):
    return [row for path in published(folder) for row in read_table(path.read_bytes()).to_pylist()]


def test_what_has_expired_moves_to_a_file_for_each_day(history, database, folder):
    ids = record(history, 4)
    kept = history.record_start(Job("2", "t"), "w", "c")
    assert history.expire(archive=folder) == 4
    assert stored(database.engine) == [kept.id]
    assert {path.parent.name: ids_in(path) for path in published(folder)} == {
        "day=2015-03-01": ids[:1],
        "day=2015-03-02": ids[1:3],
        "day=2015-03-03": ids[3:],
    }
    assert list((folder / "_pending").iterdir()) == []


def test_a_file_in_place_of_the_folder_is_an_error_before_anything_expires(history, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ArchiveError, match="/file is not a folder; name one"):
        history.expire(archive=tmp_path / "file")


def test_the_manifest_describes_each_file(history, database, folder):
    ids = record(history, 2, apart=timedelta(seconds=1))
    history.expire(archive=Archive(folder))
    (row,) = manifest(database.engine)
    (path,) = published(folder)
    assert row.location == folder.as_uri()
    assert row.file == path.relative_to(folder).as_posix()
    assert (row.day, row.row_count) == (date(2015, 3, 1), 2)
    assert row.byte_count == path.stat().st_size
    assert row.digest == digest_of(read_table(path.read_bytes()).column("id"))
    assert (row.first_started_at, row.last_started_at) == (START, START + timedelta(seconds=1))
    assert (row.pending, ids_in(path)) == (None, ids)
    assert row.published_at >= row.archived_at


def test_batches_are_files(history, database, folder):
    ids = record(history, 7, apart=timedelta(seconds=1))
    assert history.expire(archive=folder, batch_size=3) == 7
    assert sorted(row.row_count for row in manifest(database.engine)) == [1, 3, 3]
    assert sorted(archived(database.engine, folder)) == sorted(ids)


def test_without_expired_rows_nothing_is_written(history, folder):
    assert history.expire(archive=folder) == 0
    assert not folder.exists()


def test_a_dry_run_writes_nothing(history, folder):
    record(history)
    assert history.expire(archive=folder, dry_run=True) == 3
    assert not folder.exists()


def test_the_surplus_of_keep_last_is_archived(database, clock, folder):
    rule = RetentionRule(keep_last=2, task_identifier="t")
    store = create_store(database.engine, clock=clock, retention_rules=[rule])
    ids = record(store, 5)
    assert store.expire(archive=folder) == 3
    assert sorted(archived(database.engine, folder)) == ids[:3]
    assert sorted(stored(database.engine)) == ids[3:]


def test_every_kind_of_store_archives_or_says_why_not(make_store, folder, request):
    store = make_store()
    store.record_execution(IDS, status="completed", started_at=START)
    kind = request.node.callspec.params["make_store"]
    reasons = {"memory": "needs", "on_citus": "Citus distributes"}
    if why := next((why for part, why in reasons.items() if part in kind), None):
        with pytest.raises(InvalidInput, match=rf"archive .* {why}"):
            store.expire(archive=folder)
        assert store.count().value == 1
        assert not folder.exists()
        return
    assert store.expire(archive=folder) == 1
    assert store.count().value == 0
    (row,) = rows_of(folder)
    assert row["started_at"] == START


def test_sessions_that_share_a_transaction_are_refused(database, clock, folder):
    with database.engine.connect() as connection, connection.begin() as transaction:
        store = create_store(sessionmaker(connection), clock=clock)
        record(store, 1)
        with pytest.raises(InvalidInput, match="needs transactions of its own"):
            store.expire(archive=folder)
        transaction.rollback()
    assert not folder.exists()


moments = st.datetimes(
    datetime(1, 1, 2), datetime(9999, 12, 30), timezones=st.just(UTC)
) | st.sampled_from([START])
texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=16)
documents = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**60), 2**60) | texts,
    lambda inside: st.lists(inside, max_size=3) | st.dictionaries(texts, inside, max_size=3),
    max_leaves=5,
)
_VALUES = {
    Kind.UUID: st.uuids(),
    Kind.TIME: moments,
    Kind.INTEGER: st.integers(-(2**31), 2**31 - 1),
    Kind.FLOAT: st.floats(0, 1),
    Kind.BOOLEAN: st.booleans(),
    Kind.JSON: documents.filter(lambda value: value is not None),
    Kind.TEXT: texts,
}
_ALWAYS = {"id", "started_at", "expires_at", "status"}
_NOT_NULL = {column.name for column in COLUMNS if not column.nullable}
rows = st.fixed_dictionaries(
    {
        column.name: _VALUES[column.kind]
        if column.name in _NOT_NULL
        else st.none() | _VALUES[column.kind]
        for column in OWN_COLUMNS
        if column.name not in _ALWAYS
    }
    | {
        "id": st.uuids(),
        "started_at": moments,
        "status": st.sampled_from(["completed", "failed", "cancelled"]),
    }
)


@given(drawn=st.lists(rows, min_size=1, max_size=5, unique_by=lambda row: row["id"]))
def test_every_value_comes_back(drawn, database, clock, tmp_path_factory):
    folder = tmp_path_factory.mktemp("archive")
    store = create_store(database.engine, clock=clock)
    with database.engine.begin() as connection:
        connection.execute(TABLE.delete())
        for row in drawn:
            connection.execute(TABLE.insert(), row | {"expires_at": START})
    expected = {row.id: values_of(row) for row in store.query(limit=None)}
    assert store.expire(archive=folder) == len(drawn)
    found = {UUID(bytes=row["id"]): row for row in rows_of(folder)}
    assert found.keys() == expected.keys()
    for id_, row in found.items():
        assert tuple(row) == COLUMN_NAMES
        for column in OWN_COLUMNS:
            value, wanted = row[column.name], expected[id_][column.name]
            assert _loaded(column.kind, value) == wanted, column.name


def _loaded(kind, value):
    import json

    if value is None:
        return None
    if kind is Kind.UUID:
        return UUID(bytes=value)
    return json.loads(value) if kind is Kind.JSON else value


def test_a_file_is_sorted_by_start_and_id(history, folder):
    ids = [
        UUID(int=new_execution_id(START).int >> 60 << 60 | 2 << 62 | number)
        for number in (9, 4, 7, 1)
    ]
    for id_, seconds in zip(ids, (0, 5, 5, 2), strict=True):
        moment = START + timedelta(seconds=seconds)
        history.record_many([IDS | {"status": "completed", "id": id_, "started_at": moment}])
    history.expire(archive=folder)
    (path,) = published(folder)
    assert [each.int & 15 for each in ids_in(path)] == [9, 1, 4, 7]


def alter(engine, *changes):
    with engine.begin() as connection:
        for change in changes:
            connection.exec_driver_sql(f"ALTER TABLE job_history {change}".replace("%", "%%"))


def test_columns_of_the_app_are_archived(history, database, folder):
    added = {"tenant": "text", "cost": "numeric(9, 2)", '"odd: ""name"""': "integer"}
    alter(database.engine, *(f"ADD COLUMN {name} {type_}" for name, type_ in added.items()))
    try:
        record(history, 1)
        with database.engine.begin() as connection:
            connection.execute(text("UPDATE job_history SET tenant = 'acme', cost = 1.25"))
        history.expire(archive=folder)
    finally:
        alter(database.engine, *(f"DROP COLUMN {name}" for name in added))
    (row,) = rows_of(folder)
    assert (row["tenant"], row["cost"], row['odd: "name"']) == ("acme", "1.25", None)


def archived_value(history, database, folder, type_, value):
    """Archive a row whose column of the app has a value; return what the archive has."""
    record(history, 1)
    alter(database.engine, f"ADD COLUMN odd {type_}")
    try:
        with database.engine.begin() as connection:
            connection.execute(text(f"UPDATE job_history SET odd = {value}"))
        assert history.expire(archive=folder) == 1
    finally:
        alter(database.engine, "DROP COLUMN odd")
    (row,) = rows_of(folder)
    return row["odd"]


@pytest.mark.parametrize("type_", ["timestamptz", "timestamp", "date"])
@pytest.mark.parametrize("value", ["infinity", "0044-03-15 BC", "12026-03-15"])
def test_no_time_of_the_app_is_too_odd(postgres_database, clock, folder, type_, value):
    store = create_store(postgres_database.engine, clock=clock)
    found = archived_value(store, postgres_database, folder, type_, f"'{value}'")
    assert found.startswith(value.split()[0])


def test_binary_values_of_the_app_are_hexadecimal(database, history, folder):
    if database.engine.dialect.name == "sqlite":
        assert archived_value(history, database, folder, "blob", "x'00ff'") == "00FF"
    else:
        assert archived_value(history, database, folder, "bytea", "'\\x00ff'") == "\\x00ff"


def test_a_value_that_cannot_be_archived_is_an_error_of_the_archive(history, folder, monkeypatch):
    def fail(rows):
        raise pa.ArrowInvalid("In CSV column: SECRET")

    record(history, 1)
    monkeypatch.setattr("jobhistory.archive.conversion.table_of", fail)
    with pytest.raises(ArchiveError, match="cannot convert the rows: ArrowInvalid"):
        history.expire(archive=folder)


def test_a_column_that_is_added_meanwhile_is_archived(history, database, folder):
    record(history, 6, apart=timedelta(seconds=1))
    archive = Changing(folder)

    def change():
        # It changes no row, so their versions stay.
        alter(database.engine, "ADD COLUMN note text DEFAULT 'important'")

    archive.happens = change
    try:
        assert history.expire(archive=archive, batch_size=2) == 6
    finally:
        alter(database.engine, "DROP COLUMN note")
    assert [row["note"] for row in rows_of(folder)] == ["important"] * 6


class Changing(Archive):
    """An archive during whose preparation something happens, once."""

    def prepare(self, rows, owner):
        entries = super().prepare(rows, owner)
        happens, self.happens = self.happens, lambda: None
        happens()
        return entries


def test_a_row_that_changes_meanwhile_is_archived_as_it_is_then(history, database, folder):
    ids = record(history, 3)
    archive = Changing(folder)

    def change():
        with database.engine.begin() as connection:
            changed = update(TABLE).where(COLUMNS.id == ids[1])
            connection.execute(changed.values(result={"changed": True}))

    archive.happens = change
    assert history.expire(archive=archive) == 3
    results = {UUID(bytes=row["id"]): row["result"] for row in rows_of(folder)}
    assert results.keys() == set(ids)
    assert results[ids[1]] is not None
    assert results[ids[0]] is None
    assert list((folder / "_pending").iterdir()) == []


def test_a_row_whose_retention_grows_meanwhile_stays(history, database, folder):
    ids = record(history, 3)
    archive = Changing(folder)

    def change():
        with database.engine.begin() as connection:
            connection.execute(update(TABLE).where(COLUMNS.id == ids[1]).values(expires_at=None))

    archive.happens = change
    assert history.expire(archive=archive) == 2
    assert stored(database.engine) == [ids[1]]
    assert sorted(archived(database.engine, folder)) == [ids[0], ids[2]]


def test_only_its_user_can_read_the_files(history, folder):
    record(history, 1)
    old = os.umask(0)
    try:
        history.expire(archive=folder)
    finally:
        os.umask(old)
    (path,) = published(folder)
    modes = [stat.S_IMODE(each.stat().st_mode) for each in (path, path.parent, folder)]
    assert modes == [0o600, 0o700, 0o700]


@pytest.fixture
def faulty():
    """A file system in memory, some of whose operations fail."""
    name = "jobhistory-faulty"

    class Faulty(MemoryFileSystem):
        protocol = name
        store: ClassVar[dict] = {}
        pseudo_dirs: ClassVar[list] = [""]
        fails: ClassVar[set] = set()

        def _maybe(self, operation):
            if operation in self.fails:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "key=SECRET")

        def pipe_file(self, path, value, **options):
            self._maybe("write")
            return super().pipe_file(path, value, **options)

        def cat_file(self, path, *arguments, **options):
            self._maybe("read")
            data = super().cat_file(path, *arguments, **options)
            return data[:-9] if "damage" in self.fails else data

        def cp_file(self, path1, path2, **options):
            self._maybe("copy")
            return super().cp_file(path1, path2, **options)

        def rm_file(self, path):
            self._maybe("delete")
            return super().rm_file(path)

    fsspec.register_implementation(name, Faulty, clobber=True)
    return Faulty


def contents(location):
    storage = storage_at(location)
    return [
        id_
        for file in storage.files()
        for id_ in (
            UUID(bytes=each) for each in read_table(storage.read(file)).column("id").to_pylist()
        )
    ]


@pytest.mark.parametrize("fails", ["write", "read", "damage", "copy", "delete"])
def test_after_an_error_of_the_storage_nothing_is_lost(history, database, faulty, fails):
    ids = record(history, 3)
    url = "jobhistory-faulty://user:SECRET@bucket/archive?key=SECRET"
    faulty.fails = {fails}
    with pytest.raises(ArchiveError) as raised:
        history.expire(archive=url)
    assert "SECRET" not in str(raised.value)
    assert raised.value.location == "jobhistory-faulty://bucket/archive"
    is_committed = fails in ("copy", "delete")
    assert stored(database.engine) == ([] if is_committed else sorted(ids))
    assert bool(manifest(database.engine)) == is_committed

    faulty.fails = set()
    assert history.expire(archive=url) == (0 if is_committed else 3)
    assert sorted(contents(url)) == ids
    assert {row.location for row in manifest(database.engine)} == {raised.value.location}
    assert all(row.published_at for row in manifest(database.engine))


def test_a_full_disk_deletes_nothing(history, database, folder, monkeypatch):
    ids = record(history, 3)

    def fsync(descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    (folder / "_pending").mkdir(parents=True)
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fsync)
        with pytest.raises(ArchiveError, match="No space left on device"):
            history.expire(archive=folder)
    assert sorted(stored(database.engine)) == ids
    assert published(folder) == []
    assert list((folder / "_pending").iterdir()) == []


def test_an_error_leaves_no_file_of_an_earlier_day(history, folder):
    record(history, 3)
    archive = Archive(folder)
    write = archive.storage.write
    days = []

    def fail(name, data):
        days.append(name)
        if len(days) == 2:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        write(name, data)

    archive.storage.write = fail
    with pytest.raises(ArchiveError):
        history.expire(archive=archive)
    assert list((folder / "_pending").iterdir()) == []


def test_abandoned_files_are_deleted_after_a_day(history, clock, folder):
    owner = history.internals.history.run(Purpose.MAINTAIN_AS_ONE, history_id)
    abandoned = Archive(folder, clock=clock)
    plain = f"{new_execution_id(clock()).hex}.parquet"
    name = f"{owner}-{plain}"
    others = ["README", plain, f"{'0' * 32}-{plain}"]
    for each in (name, *others):
        abandoned.storage.write(each, memoryview(b"x"))
    later = partial(Archive, folder)
    history.expire(archive=later(clock=lambda: clock() + timedelta(hours=23)))
    assert abandoned.storage.pending() == sorted([name, *others])
    history.expire(archive=later(clock=lambda: clock() + timedelta(hours=25)))
    assert abandoned.storage.pending() == sorted(others)


def archive_until_committed(store, archive):
    """Archive, and be killed before a file is published."""

    def kill(entry):
        raise Killed

    archive.publish = kill
    with pytest.raises(Killed):
        store.expire(archive=archive)


def test_files_that_another_database_has_committed_stay(
    history, database, clock, folder, migrated_sqlite, tmp_path
):
    ids = record(history, 1)
    archive_until_committed(history, Archive(folder, clock=clock))
    later = Archive(folder, clock=lambda: clock() + timedelta(days=3))
    path = shutil.copy(migrated_sqlite, tmp_path / "other.db")
    with create_store(f"sqlite:///{path}", clock=clock) as other:
        other_ids = record(other, 1, start=START + timedelta(days=1))
        assert other.expire(archive=later) == 1
    history.expire(archive=later)
    assert [ids_in(path) for path in published(folder)] == [ids, other_ids]


def test_committed_files_survive_a_move_of_the_archive(history, database, clock, folder, tmp_path):
    ids = record(history, 1)
    archive_until_committed(history, Archive(folder, clock=clock))
    moved = shutil.move(folder, tmp_path / "moved")
    later = Archive(moved, clock=lambda: clock() + timedelta(days=3))
    history.expire(archive=later)
    with database.engine.begin() as connection:
        connection.execute(update(ARCHIVE).values(location=later.location))
    history.expire(archive=later)
    assert [ids_in(path) for path in published(moved)] == [ids]
    assert list((moved / "_pending").iterdir()) == []


def test_a_link_may_get_another_target(history, clock, folder, tmp_path):
    ids = record(history, 1)
    (tmp_path / "first").mkdir()
    folder.symlink_to(tmp_path / "first")
    archive_until_committed(history, Archive(folder, clock=clock))
    (tmp_path / "first").rename(tmp_path / "second")
    folder.unlink()
    folder.symlink_to(tmp_path / "second")
    history.expire(archive=Archive(folder, clock=lambda: clock() + timedelta(days=3)))
    assert [ids_in(path) for path in published(folder)] == [ids]


def test_a_batch_that_takes_too_long_is_not_committed(history, database, clock, folder):
    ids = record(history, 3)
    archive = Changing(folder, clock=clock)
    archive.happens = lambda: clock.advance(hours=13)
    with pytest.raises(ArchiveError, match="longer than 12:00:00"):
        history.expire(archive=archive)
    assert sorted(stored(database.engine)) == ids
    assert manifest(database.engine) == []


@pytest.mark.parametrize("url", ["", " ", 3, b"x", "file://elsewhere/x", "nosuch://x", "a\0b"])
def test_what_is_not_a_place_is_refused(url):
    with pytest.raises(InvalidInput, match="archive"):
        Archive(url)


@pytest.mark.parametrize(
    ("url", "location"),
    [
        ("memory://user:password@a/b/?c=d", "memory://a/b"),
        ("file:///var/lib/x y", "file:///var/lib/x%20y"),
        ("/var/lib/../x", "file:///var/x"),
    ],
)
def test_a_location_has_no_credentials_and_one_form(url, location):
    assert Archive(url).location == location
    assert "password" not in repr(Archive(url))


def test_rows_that_a_trigger_keeps_are_not_archived(postgres_database, clock, folder, caplog):
    engine = postgres_database.engine
    store = create_store(engine, clock=clock)
    ids = record(store, 6)
    with engine.begin() as connection:
        connection.execute(
            text(
                "CREATE FUNCTION keep() RETURNS trigger LANGUAGE plpgsql AS "
                "$$ BEGIN RETURN NULL; END $$"
            )
        )
        connection.execute(
            text(
                "CREATE TRIGGER keep BEFORE DELETE ON job_history FOR EACH ROW "
                f"WHEN (OLD.id = '{ids[2]}') EXECUTE FUNCTION keep()"
            )
        )
    try:
        assert store.expire(archive=folder) == 5
    finally:
        with engine.begin() as connection:
            connection.execute(text("DROP FUNCTION keep CASCADE"))
    assert stored(engine) == [ids[2]]
    assert sorted(archived(engine, folder)) == [*ids[:2], *ids[3:]]
    assert "1 are kept by a trigger" in caplog.text


def test_locked_rows_are_skipped(postgres_database, clock, folder):
    engine = postgres_database.engine
    store = create_store(engine, clock=clock)
    ids = record(store, 3)
    with engine.begin() as other:
        other.execute(text(f"SELECT FROM job_history WHERE id = '{ids[0]}' FOR UPDATE"))
        assert store.expire(archive=folder) == 2
    assert store.expire(archive=folder) == 1
    assert sorted(archived(engine, folder)) == ids


def test_a_batch_too_large_for_memory_is_made_smaller(history, database, folder, monkeypatch):
    ids = record(history, 8, payload={"text": "x" * 4000})
    monkeypatch.setattr("jobhistory.database.archive_reading.MOST_BYTES", 10_000)
    assert history.expire(archive=folder, batch_size=8) == 8
    assert sorted(archived(database.engine, folder)) == sorted(ids)
    monkeypatch.setattr("jobhistory.database.archive_reading.MOST_BYTES", 10)
    record(history, 2)
    assert history.expire(archive=folder, batch_size=8) == 2
