"""Restoring archived executions into a table."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import create_engine, inspect, select, text

from jobhistory import Archive, ArchiveError, HistoryRecord, InvalidInput, create_store, migrate
from jobhistory.archive.restored_table import RestoredTable
from jobhistory.execution.ids import new_execution_id
from jobhistory.schema import COLUMN_NAMES
from tests.archived import archive_all
from tests.test_round_trip import rows as any_row

NOW = datetime(2015, 11, 1, 12, tzinfo=UTC)


@pytest.fixture
def archive(tmp_path):
    return Archive(tmp_path / "archive")


@pytest.fixture
def database(database):
    """A database without the tables that tests restore into, which other tests would find."""
    yield database
    with database.engine.begin() as connection:
        for name in ("job_history_restored", "other"):
            connection.execute(text(f"DROP TABLE IF EXISTS {name}"))


def record(store, number, **values):
    defaults = {
        "job_id": number,
        "task_identifier": "t",
        "worker_id": "w",
        "correlation_id": "c",
        "payload": {"n": number},
        "labels": {"tenant": "acme"},
        "started_at": NOW + timedelta(hours=number),
        "execution_time_ms": number,
        "status": "completed",
    }
    return store.record_execution(defaults | values)


def restored(engine, name="job_history_restored"):
    """The restored rows, as the model reads them, in the order of their start."""
    columns = RestoredTable(name)._table.c
    with engine.connect() as connection:
        rows = connection.execute(select(*(columns[name] for name in COLUMN_NAMES)))
        found = [dict(row._mapping) for row in rows]
    return sorted(found, key=lambda row: (row["started_at"], row["id"]))


def in_history(engine):
    with engine.connect() as connection:
        found = [dict(row._mapping) for row in connection.execute(select(HistoryRecord.__table__))]
    return sorted(found, key=lambda row: (row["started_at"], row["id"]))


def test_the_rows_are_those_that_were_archived(database, database_store, archive):
    for number in range(60):
        record(database_store, number)
    before = in_history(database.engine)
    archive_all(database_store, archive)
    assert archive.restore(database_store, batch_size=7) == 60
    assert restored(database.engine) == before
    assert database_store.count().value == 0, "the history itself stays as it is"


@given(rows=st.lists(any_row, min_size=1, max_size=4, unique_by=lambda row: row["id"]))
def test_every_value_comes_back(database, tmp_path_factory, rows):
    archive = Archive(tmp_path_factory.mktemp("archive"))
    store = create_store(database.engine)
    with database.engine.begin() as connection:
        connection.execute(HistoryRecord.__table__.delete())
        connection.execute(HistoryRecord.__table__.insert(), rows)
    before = in_history(database.engine)
    archive_all(store, archive)
    name = f"job_history_restored_{new_execution_id().hex[20:]}"
    assert archive.restore(store, into=name, batch_size=2) == len(rows)
    assert restored(database.engine, name) == before
    with database.engine.begin() as connection:
        connection.execute(text(f"DROP TABLE {name}"))


def test_only_the_window_is_restored_and_both_of_its_ends_belong_to_it(
    database, database_store, archive
):
    for number in range(72):
        record(database_store, number)
    archive_all(database_store, archive)
    window = (NOW + timedelta(hours=10), NOW + timedelta(hours=40))
    assert archive.restore(database_store, *window) == 31
    assert [row["job_id"] for row in restored(database.engine)] == [
        str(number) for number in range(10, 41)
    ]


def test_a_repeated_call_adds_what_is_missing_and_keeps_what_is_there(
    database, database_store, archive
):
    for number in range(30):
        record(database_store, number)
    archive_all(database_store, archive)
    archive.restore(database_store, to=NOW + timedelta(hours=9))
    with database.engine.begin() as connection:
        connection.execute(text("UPDATE job_history_restored SET worker_id = 'changed'"))
    assert archive.restore(database_store) == 20
    assert archive.restore(database_store) == 0
    workers = [row["worker_id"] for row in restored(database.engine)]
    assert workers == ["changed"] * 10 + ["w"] * 20


def test_a_missing_file_is_an_error_once_all_others_are_restored(
    database, database_store, archive, tmp_path
):
    for day in range(3):
        record(database_store, 24 * day)
    archive_all(database_store, archive)
    _, path, _ = sorted((tmp_path / "archive").glob("day=*/*"))
    path.unlink()
    with pytest.raises(ArchiveError) as caught:
        archive.restore(database_store)
    assert f"does not have {path.parent.name}/{path.name}, which its manifest names; " in str(
        caught.value
    )
    assert len(restored(database.engine)) == 2
    # It is of no interest to those who restore other days.
    assert archive.restore(database_store, to=NOW, into="first") == 1
    assert archive.restore(database_store, from_=NOW + timedelta(hours=25), into="last") == 1
    with pytest.raises(ArchiveError, match="does not have"):
        archive.restore(database_store, to=NOW + timedelta(hours=24), into="first")


@pytest.mark.parametrize("killed", ["expire", "purge"])
def test_what_a_killed_call_has_left_is_finished_first(
    database, database_store, archive, tmp_path, killed
):
    for number in range(3):
        record(database_store, number)

    def kill(entry):
        raise KeyboardInterrupt

    killed_archive = Archive(tmp_path / "archive")
    killed_archive.publish = kill
    if killed == "purge":
        archive_all(database_store, archive)
    call = {
        "expire": lambda: archive_all(database_store, killed_archive),
        "purge": lambda: killed_archive.purge(database_store, to=NOW),
    }[killed]
    with pytest.raises(KeyboardInterrupt):
        call()
    assert archive.restore(database_store) == (3 if killed == "expire" else 2)


def test_a_call_that_fails_can_be_repeated(database, database_store, archive):
    for number in range(30):
        record(database_store, number)
    archive_all(database_store, archive)
    seen = []

    def fail_later(count):
        seen.append(count)
        if len(seen) == 2:
            raise ConnectionError

    with pytest.raises(ConnectionError):
        archive.restore(database_store, batch_size=10, progress=fail_later)
    assert len(restored(database.engine)) == seen[-1] < 30
    assert archive.restore(database_store) == 30 - seen[-1]


def test_restored_executions_count_in_no_statistics(database, database_store, archive):
    for number in range(5):
        record(database_store, number)
    archive_all(database_store, archive)
    before = database_store.stats()
    assert before[0].executions == 5
    archive.restore(database_store)
    assert database_store.stats() == before


def test_columns_that_the_app_has_added_to_history_are_in_the_table(
    bare_database, tmp_path, archive
):
    engine = bare_database.engine
    migrate.upgrade(engine)
    with engine.begin() as connection:
        connection.execute(text("ALTER TABLE job_history ADD COLUMN region TEXT"))
    store = create_store(engine)
    record(store, 1)
    archive_all(store, archive)
    archive.restore(store)
    columns = inspect(engine).get_columns("job_history_restored")
    assert [column["name"] for column in columns] == [*COLUMN_NAMES, "region"]


@pytest.mark.parametrize("bare_database", ["postgresql"], indirect=True)
def test_the_table_is_in_the_schema_of_the_history(bare_database, archive):
    migrate.upgrade(bare_database.engine, schema="audit")
    store = create_store(bare_database.engine, schema="audit")
    record(store, 1)
    archive_all(store, archive)
    assert archive.restore(store) == 1
    assert archive.restore(store) == 0
    assert inspect(bare_database.engine).has_table("job_history_restored", schema="audit")


def test_other_drivers_restore_the_same(postgres_database, archive):
    engine = create_engine(postgres_database.url.set(drivername="postgresql+psycopg2"))
    store = create_store(engine)
    for number in range(30):
        record(store, number)
    before = in_history(engine)
    archive_all(store, archive)
    assert archive.restore(store, to=NOW) == 1
    assert archive.restore(store) == 29
    assert restored(engine) == before
    with engine.begin() as connection:
        connection.execute(text("DROP TABLE job_history_restored"))
    engine.dispose()


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("job_history", "would count its executions in the statistics once more"),
        ("JOB_HISTORY", "would count its executions in the statistics once more"),
        ("job_history_ended", "is a table of the library"),
        ("job_history_archive", "is a table of the library"),
        ("", "is not the name of a table"),
        ("audit.restored", "is not the name of a table"),
        ("x; DROP TABLE users", "is not the name of a table"),
        ("x" * 60, "is not the name of a table"),
    ],
)
def test_a_name_that_cannot_be_used_is_refused(database_store, archive, name, why):
    with pytest.raises(InvalidInput, match=why):
        archive.restore(database_store, into=name)


def test_a_table_without_the_columns_of_the_history_is_refused(database, database_store, archive):
    record(database_store, 1)
    archive_all(database_store, archive)
    with database.engine.begin() as connection:
        connection.execute(text("CREATE TABLE other (id TEXT)"))
    with pytest.raises(InvalidInput, match="without the column 'job_id'"):
        archive.restore(database_store, into="other")


def test_a_store_without_a_database_is_refused(archive):
    with pytest.raises(InvalidInput, match="store"):
        archive.restore(create_store())
    with pytest.raises(InvalidInput, match="store"):
        archive.restore("sqlite:///history.db")


def test_a_window_that_ends_before_it_begins_is_refused(database_store, archive):
    with pytest.raises(InvalidInput, match="from_"):
        archive.restore(database_store, NOW, NOW - timedelta(hours=1))


def test_a_window_without_executions_restores_nothing(database, database_store, archive):
    record(database_store, 1)
    archive_all(database_store, archive)
    assert archive.restore(database_store, to=NOW) == 0
    assert restored(database.engine) == []


def cut(data):
    return data[:-9]


def change_a_value(data):
    """Return a file that Arrow reads without an error, unless it compares the checksums."""
    return data.replace(b"request-seven", b"request-eight")


@pytest.mark.parametrize("damage", [cut, change_a_value])
def test_a_damaged_file_is_an_error_that_names_it(database_store, archive, tmp_path, damage):
    record(database_store, 1, correlation_id="request-seven")
    archive_all(database_store, archive)
    path = next((tmp_path / "archive").glob("day=*/*"))
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(ArchiveError) as caught:
        archive.restore(database_store)
    folder = (tmp_path / "archive").as_uri()
    assert str(caught.value).startswith(
        f"the archive {folder} cannot read {path.parent.name}/{path.name}: "
    )
    assert "OSError" not in str(caught.value)


ON_SQLITE = {
    "JSON": "json_object('a', 1)",
    "DATETIME": "'2026-01-02 03:04:05.000006'",
    "DATE": "'2026-01-02'",
    "BOOLEAN": "1",
    "NUMERIC": "1.5",
    "REAL": "0.1",
    "INTEGER": "9007199254740993",
    "TEXT": "''",
    '"CHAR"(32)': "'x'",
    "": "'7'",
}
ON_POSTGRESQL = {
    "json": """'{"a": 1}'""",
    "jsonb": """'{"a": 1e400}'""",
    "uuid": "'00000000-0000-0000-0000-000000000007'",
    "text[]": """array['a', '', null, 'x,"y']""",
    "bytea": r"'\x00ff'",
    "numeric(6, 3)": "1.500",
    "mood": "'sad'",
    "pair": "row(1, 'x')",
    "xml": "NULL",  # a server may be built without it
    "interval": "'1 mon -3 days 04:05:06.7'",
    "timestamp": "'2026-01-02 03:04:05.000006'",
    "date": "'2026-01-02'",
    "time": "'01:02:03'",
    "real": "0.1",
    "double precision": "'nan'",
    "boolean": "false",
    "bit(3)": "B'101'",
    "int4range": "'[1,5)'",
    "char(5)": "'a'",
    "text": r"E'a\n\\.\nb \r\n\"q\",'",
}


def columns_come_back(engine, archive, types, as_text):
    """Restore a value of each type, and NULL, and compare them with those of the history."""
    names = {f'"c: ""{number}"""': type_ for number, type_ in enumerate(types)}
    migrate.upgrade(engine)
    with engine.begin() as connection:
        for name, type_ in names.items():
            connection.exec_driver_sql(f"ALTER TABLE job_history ADD COLUMN {name} {type_}")
    store = create_store(engine)
    record(store, 1)
    record(store, 2)
    select_all = f"SELECT job_id, {', '.join(as_text.format(name) for name in names)} FROM"
    with engine.begin() as connection:
        for name, type_ in names.items():
            connection.exec_driver_sql(
                f"UPDATE job_history SET {name} = {types[type_]} WHERE job_id = '1'"
            )
        query = f"{select_all} job_history ORDER BY job_id"
        before = connection.exec_driver_sql(query).all()
    assert store.expire(archive=archive) == 2
    assert archive.restore(store) == 2
    with engine.begin() as connection:
        query = f"{select_all} job_history_restored ORDER BY job_id"
        assert connection.exec_driver_sql(query).all() == before


def test_columns_of_the_app_come_back_on_sqlite(tmp_path, archive):
    engine = create_engine(f"sqlite:///{tmp_path}/history.db")
    columns_come_back(engine, archive, ON_SQLITE, "typeof({0}), quote({0})")
    engine.dispose()


@pytest.mark.filterwarnings("ignore:Did not recognize type")  # SQLAlchemy's, of the composite
@pytest.mark.parametrize("driver", ["psycopg", "psycopg2"])
@pytest.mark.parametrize("bare_database", ["postgresql"], indirect=True)
def test_columns_of_the_app_come_back_with_each_driver(bare_database, archive, driver):
    engine = create_engine(bare_database.engine.url.set(drivername=f"postgresql+{driver}"))
    with engine.begin() as connection:
        connection.execute(text("CREATE TYPE mood AS ENUM ('happy', 'sad')"))
        connection.execute(text("CREATE TYPE pair AS (x int, y text)"))
    columns_come_back(engine, archive, ON_POSTGRESQL, "{0}::text")
    engine.dispose()


@pytest.mark.parametrize("key", [None, "(job_id)", "(id, job_id)", "(id) WHERE attempt_number > 1"])
def test_a_table_in_which_an_id_may_be_twice_is_refused(database, database_store, archive, key):
    record(database_store, 1)
    archive_all(database_store, archive)
    with database.engine.begin() as connection:
        connection.execute(text("CREATE TABLE other AS SELECT * FROM job_history WHERE 1 = 0"))
        if key is not None:
            connection.execute(text(f"CREATE UNIQUE INDEX other_key ON other {key}"))
    with pytest.raises(InvalidInput, match="without a primary key or unique index on id alone"):
        archive.restore(database_store, into="other")


def test_a_unique_index_on_the_id_is_enough(database, database_store, archive):
    record(database_store, 1)
    archive_all(database_store, archive)
    with database.engine.begin() as connection:
        connection.execute(text("CREATE TABLE other AS SELECT * FROM job_history WHERE 1 = 0"))
        connection.execute(text("CREATE UNIQUE INDEX other_key ON other (id)"))
    assert archive.restore(database_store, into="other") == 1
    assert archive.restore(database_store, into="other") == 0
