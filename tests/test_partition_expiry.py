"""Expiry by whole partitions on PostgreSQL."""

from __future__ import annotations

import logging
import threading
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest
from sqlalchemy import create_engine, event, func, insert, select, text
from sqlalchemy.exc import ProgrammingError
from sqlalchemy.orm import sessionmaker

from jobhistory import (
    HistoryRecord,
    LayoutNotChanged,
    RetentionRule,
    Status,
    create_async_store,
    create_store,
)
from jobhistory.database import exclusive, pausing
from jobhistory.database.marks import read_marks
from jobhistory.database.partitions import expiring, extension
from jobhistory.database.partitions.catalog import read_layout
from jobhistory.database.partitions.detached import detached_tables, drop_detached
from jobhistory.database.partitions.spans import first_id
from jobhistory.database.transaction import Purpose
from jobhistory.execution.ids import id_at
from jobhistory.partitioning import partition as partition_history
from jobhistory.partitioning import partitions_of, undo
from jobhistory.rollup_schema import ROLLUP_TABLES
from tests.conftest import async_engine
from tests.facades import Synchronous

MONDAY = datetime(2015, 11, 2, tzinfo=UTC)
WEEK = timedelta(weeks=1)
DAY = timedelta(days=1)
HOUR = timedelta(hours=1)
WEEKS = 5
"""There are partitions for this many weeks from MONDAY, one before them and one after them."""


def week(number):
    return MONDAY + number * WEEK


def partition(connection):
    """Create the history in a schema of its own, in weekly partitions."""
    for table in ROLLUP_TABLES:
        copy = f"(LIKE public.{table.name} INCLUDING ALL)"
        connection.execute(text(f"CREATE TABLE weekly.{table.name} {copy}"))
    connection.execute(
        text(
            "CREATE TABLE weekly.job_history (LIKE public.job_history INCLUDING ALL) "
            "PARTITION BY RANGE (id)"
        )
    )
    starts = [week(number) for number in range(WEEKS + 1)]
    edges = ["MINVALUE", *(f"'{first_id(each)}'" for each in starts), "MAXVALUE"]
    for number, (low, high) in enumerate(pairwise(edges)):
        connection.execute(
            text(
                f"CREATE TABLE weekly.p{number} PARTITION OF weekly.job_history "
                f"FOR VALUES FROM ({low}) TO ({high})"
            )
        )


@pytest.fixture
def layout(postgres_database):
    with postgres_database.engine.begin() as connection:
        connection.execute(text("CREATE SCHEMA weekly"))
        partition(connection)
    yield "weekly"
    with postgres_database.engine.begin() as connection:
        connection.execute(text("DROP SCHEMA weekly CASCADE"))


@pytest.fixture
def engine(layout, postgres_database):
    engine = create_engine(
        postgres_database.url, execution_options={"schema_translate_map": {None: layout}}
    )
    yield engine
    engine.dispose()


@pytest.fixture
def other_engine(engine):
    """Another engine, whose statements the listeners of the first one do not see."""
    other = create_engine(engine.url, execution_options=engine.get_execution_options())
    yield other
    other.dispose()


@pytest.fixture(autouse=True)
def pauses(monkeypatch):
    """The pauses that expiry makes, which take no time."""
    made = []
    monkeypatch.setattr(pausing, "sleep", made.append)
    return made


def store_at(engine, moment, **options):
    return create_store(engine, clock=lambda: moment, **options)


def row(started_at, expires_at, **values):
    id_ = id_at(started_at)
    return {
        "id": id_,
        "job_id": f"{started_at:%m-%d %H:%M:%S.%f}",
        "correlation_id": "c",
        "task_identifier": "t",
        "worker_id": "w",
        "status": Status.COMPLETED,
        "attempt_number": 1,
        "started_at": started_at,
        "expires_at": expires_at,
    } | values


def fill(engine, rows):
    with engine.begin() as connection:
        connection.execute(insert(HistoryRecord.__table__), rows)


def daily(number, retention, count=7):
    """Rows of a week, one a day."""
    starts = [week(number) + each * DAY + HOUR for each in range(count)]
    return [row(start, None if retention is None else start + retention) for start in starts]


def remaining(engine):
    with engine.connect() as connection:
        return connection.scalar(select(func.count()).select_from(HistoryRecord.__table__))


def leaves(engine):
    with engine.connect() as connection:
        found = read_layout(connection, "weekly")
    assert found.leaves[0].lower is None
    assert found.leaves[-1].upper is None
    for one, other in pairwise(found.leaves):
        assert one.upper == other.lower, "no id lacks a partition"
    return found.leaves


def names(engine):
    return [leaf.name for leaf in leaves(engine)]


def tables(engine):
    with engine.connect() as connection:
        return detached_tables(connection, "weekly")


def deletes(engine):
    """The statements that delete rows of history."""
    found = []

    def note(connection, cursor, statement, *_):
        if "DELETE FROM ONLY" in statement and "expired_batch" in statement:
            found.append(statement)

    event.listen(engine, "before_cursor_execute", note)
    return found


def test_partitions_that_are_completely_due_are_dropped(engine):
    fill(engine, [*daily(0, 3 * DAY), *daily(1, 3 * DAY), *daily(2, 3 * DAY)])
    statements = deletes(engine)
    store = store_at(engine, week(2) + 3 * DAY)
    seen = []

    assert store.expire(by_partition=True, dry_run=True) == 14
    assert store.expire(by_partition=True, progress=seen.append) == 14
    assert seen[-1] == 14
    assert names(engine) == ["p0", "p3", "p4", "p5", "p6"]
    assert remaining(engine) == 7
    assert not tables(engine)
    deleted_by_row = [each for each in statements if "p1" in each or "p2" in each]
    assert not deleted_by_row
    assert store.expire(by_partition=True) == 0


def test_partitions_are_dropped_where_none_has_been_created_ahead(engine):
    fill(engine, daily(0, WEEK))
    statements = deletes(engine)

    assert store_at(engine, week(WEEKS + 2)).expire(by_partition=True) == 7

    assert not [each for each in statements if "p1" in each]


def test_rows_wait_until_their_partition_can_be_dropped(engine):
    fill(engine, daily(0, 3 * DAY))
    last = week(0) + 6 * DAY + HOUR + 3 * DAY  # the last one expires
    early = store_at(engine, week(0) + 5 * DAY)

    assert early.expire(by_partition=True) == 0
    waiting = early.waiting_for_partition()
    assert (waiting.count, waiting.until) == (2, last)
    assert early.expire(by_partition=True, dry_run=True) == 0
    assert early.expire(dry_run=True) == 2
    just_before = store_at(engine, last - timedelta(microseconds=1))
    assert just_before.expire(by_partition=True) == 0
    assert just_before.waiting_for_partition().count == 6
    assert store_at(engine, last).expire(by_partition=True) == 7
    assert "p1" not in names(engine)
    assert early.waiting_for_partition().until is None


def test_no_row_waits_longer_than_one_partition_lasts(engine):
    first = week(0) + HOUR
    fill(engine, [row(first, first + HOUR), *daily(0, 6 * DAY)])
    due = first + HOUR

    assert store_at(engine, due + WEEK - HOUR).expire(by_partition=True) == 0
    assert store_at(engine, due + WEEK).expire(by_partition=True) == 3
    assert remaining(engine) == 5
    assert "p1" in names(engine)


def test_without_the_option_rows_go_as_soon_as_they_are_due(engine):
    fill(engine, daily(0, 3 * DAY))

    assert store_at(engine, week(0) + 5 * DAY).expire() == 2
    late = store_at(engine, week(2))
    assert late.expire() == 5
    assert "p1" in names(engine)
    assert late.expire() == 0
    assert "p1" not in names(engine), "it is empty and over"
    assert names(engine) == ["p0", "p3", "p4", "p5", "p6"]


def test_empty_partitions_of_the_time_to_come_stay(engine):
    store_at(engine, MONDAY).expire(by_partition=True)
    assert len(leaves(engine)) == WEEKS + 2
    store_at(engine, week(3)).expire()
    assert names(engine) == ["p0", "p4", "p5", "p6"]


def test_the_few_rows_that_stay_are_copied(engine):
    rows = [row(week(0) + n * HOUR, week(0) + n * HOUR + DAY) for n in range(100)]
    stay = [row(week(0) + HOUR, None), row(week(0) + 2 * HOUR, week(40))]
    fill(engine, [*rows, *stay])
    statements = deletes(engine)

    assert store_at(engine, week(1)).expire(by_partition=True) == 100
    assert names(engine) == ["p0", "job_history_kept_20151109", "p2", "p3", "p4", "p5", "p6"]
    assert remaining(engine) == 2
    assert not tables(engine)
    assert not [each for each in statements if "p1" in each]
    assert store_at(engine, week(40)).expire(by_partition=True) == 1
    assert remaining(engine) == 1


def test_rows_go_in_batches_where_many_stay(engine):
    stay = [row(week(0) + n * HOUR, None) for n in range(3)]
    fill(engine, [*daily(0, DAY), *stay])

    assert store_at(engine, week(0) + 4 * DAY).expire(by_partition=True) == 3
    assert store_at(engine, week(2)).expire(by_partition=True) == 4
    assert remaining(engine) == 3
    assert "p1" in names(engine)


def test_few_rows_that_stay_do_not_make_the_others_go_in_batches(engine):
    rows = [row(week(0) + n * HOUR, week(0) + n * HOUR + 2 * DAY) for n in range(168)]
    fill(engine, [*rows, row(week(0), None)])

    assert store_at(engine, week(0) + 5 * DAY).expire(by_partition=True) == 0
    assert store_at(engine, week(1) + 2 * DAY).expire(by_partition=True) == 168
    assert remaining(engine) == 1


def test_the_current_partition_is_never_dropped(engine):
    fill(engine, daily(0, timedelta(seconds=1), count=2))

    assert store_at(engine, week(0) + 3 * DAY).expire(by_partition=True) == 0
    assert names(engine)[1] == "p1"


def test_the_last_partition_has_no_end_so_its_rows_go_in_batches(engine):
    fill(engine, daily(WEEKS + 3, DAY))

    assert store_at(engine, week(WEEKS + 4)).expire(by_partition=True) == 6
    assert names(engine)[-1] == "p6"


def test_a_first_partition_that_is_due_is_replaced(engine):
    fill(engine, daily(-2, DAY))

    assert store_at(engine, week(0)).expire(by_partition=True) == 7
    assert names(engine) == ["job_history_until_20151102", "p1", "p2", "p3", "p4", "p5", "p6"]
    fill(engine, daily(-2, DAY))
    assert store_at(engine, week(0)).expire(by_partition=True) == 7


def test_the_partition_before_a_dropped_one_keeps_its_rows(engine):
    fill(engine, [*daily(0, None), *daily(1, DAY)])

    assert store_at(engine, week(3)).expire(by_partition=True) == 7
    assert remaining(engine) == 7
    assert names(engine) == ["p0", "p1", "p4", "p5", "p6"]
    fill(engine, daily(1, DAY))  # comes to the partition before
    with engine.connect() as connection:
        assert connection.scalar(text("SELECT count(*) FROM weekly.p1")) == 14
        checks = "SELECT count(*) FROM pg_constraint WHERE conname = 'ck_job_history_partition_cut'"
        assert connection.scalar(text(checks)) == 0


def test_partitions_with_few_rows_are_merged(engine):
    for number in range(4):
        rows = [row(week(number) + n * HOUR, week(number) + n * HOUR + DAY) for n in range(30)]
        fill(engine, [*rows, row(week(number), None)])
        store_at(engine, week(number + 1)).expire(by_partition=True)

    assert remaining(engine) == 4
    assert len(leaves(engine)) == 5, "first, merged, one more, and those to come"
    assert not tables(engine)


def test_an_execution_that_is_started_keeps_its_partition_until_it_expires(engine):
    started = row(week(0) + HOUR, week(6), status=Status.STARTED)
    fill(engine, [*daily(0, DAY), started])

    assert store_at(engine, week(2)).expire(by_partition=True) == 7
    assert remaining(engine) == 1
    assert store_at(engine, week(6)).expire(by_partition=True) == 1


@contextmanager
def before(engine, prefix):
    """Do something just before the first statement that begins with a prefix."""
    actions = []

    def act(connection, cursor, statement, *_):
        if statement.lstrip().startswith(prefix) and actions:
            actions.pop()()

    event.listen(engine, "before_cursor_execute", act)
    yield actions
    event.remove(engine, "before_cursor_execute", act)


@pytest.mark.parametrize("later", [0, 1])
def test_an_insert_between_the_look_and_the_lock_counts(engine, other_engine, later):
    """To the microsecond."""
    now = week(2)
    fill(engine, daily(0, DAY))
    new = row(week(0) + HOUR, now + timedelta(microseconds=later))

    with before(engine, "LOCK TABLE ONLY") as actions:
        actions.append(lambda: fill(other_engine, [new]))
        deleted = store_at(engine, now).expire(by_partition=True)

    assert not actions
    assert deleted == (0 if later else 8)
    assert ("p1" in names(engine)) == bool(later)
    assert remaining(engine) == (8 if later else 0)


def test_a_change_between_the_copy_and_the_swap_is_not_lost(engine, other_engine):
    rows = [row(week(0) + n * HOUR, week(0) + n * HOUR + DAY) for n in range(30)]
    stays = row(week(0), None, status=Status.STARTED)
    fill(engine, [*rows, stays])

    def end():
        with other_engine.begin() as connection:
            connection.execute(text("UPDATE weekly.job_history SET status = 'completed'"))

    with before(engine, "LOCK TABLE ONLY") as actions:
        actions.append(end)
        assert store_at(engine, week(2)).expire(by_partition=True) == 30

    with engine.connect() as connection:
        kept = connection.execute(select(HistoryRecord.id, HistoryRecord.status)).all()
    assert kept == [(stays["id"], "completed")]
    store_at(engine, week(2)).expire(by_partition=True)
    assert not tables(engine), "the copy that was not used is dropped"


def test_a_long_reader_delays_the_drop_and_not_the_writers(engine, caplog, pauses):
    fill(engine, [*daily(0, DAY), *daily(1, None)])
    store = store_at(engine, week(3))
    with engine.connect() as reader:
        reader.execute(select(HistoryRecord.id)).all()
        with caplog.at_level(logging.WARNING, "jobhistory"):
            assert store.expire(by_partition=True) == 0
        assert remaining(engine) == 14
    assert pauses == list(expiring.PAUSES)
    assert caplog.text.count("could not lock the table") == 1
    assert store.expire(by_partition=True) == 7


class Killed(Exception):
    pass


@pytest.mark.parametrize("how", ["exception", "terminated backend"])
def test_what_is_detached_when_the_process_is_killed_is_dropped_later(
    engine, postgres_database, how
):
    fill(engine, [*daily(0, DAY), *daily(1, DAY)])
    store = store_at(engine, week(2) + DAY)

    def kill():
        if how == "exception":
            raise Killed
        with postgres_database.engine.connect() as connection:
            connection.execute(
                text(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                    "WHERE datname = current_database() AND pid <> pg_backend_pid()"
                )
            )

    with before(engine, "DROP TABLE") as actions:
        actions.append(kill)
        with suppress(Killed):
            store.expire(by_partition=True)

    assert remaining(engine) == 0
    assert len(tables(engine)) == 2 - (how != "exception")
    assert store.expire() == (14 if how == "exception" else 7)
    assert not tables(engine)


def test_the_end_of_the_connection_during_the_swap_leaves_everything(engine, postgres_database):
    fill(engine, daily(0, DAY))

    def kill():
        raise Killed

    with before(engine, "DO ") as actions:
        actions.append(kill)
        with pytest.raises(Killed):
            store_at(engine, week(3)).expire(by_partition=True)

    assert "p1" in names(engine)
    assert remaining(engine) == 7


def test_several_at_once_share_the_work(engine):
    fill(engine, [each for number in range(4) for each in daily(number, DAY)])
    store = store_at(engine, week(5))
    results = []
    threads = [
        threading.Thread(target=lambda: results.append(store.expire(by_partition=True)))
        for _ in range(4)
    ]
    for each in threads:
        each.start()
    for each in threads:
        each.join()

    assert store.expire(by_partition=True) + sum(results) == 28
    assert remaining(engine) == 0
    assert names(engine) == ["p0", "p6"]


def test_statistics_know_which_rows_are_deleted(engine):
    fill(engine, daily(0, DAY))
    store = store_at(engine, week(3))
    history = store.internals.history

    store.expire(by_partition=True)
    assert history.run(Purpose.READ, read_marks).rows_from == week(0) + 6 * DAY + 2 * HOUR


def test_rules_with_keep_last_hold(engine):
    fill(engine, [*daily(0, None), *daily(1, None)])
    rule = RetentionRule(task_identifier="t", keep_last=7)
    store = store_at(engine, week(3), history_retention="never", retention_rules=[rule])

    assert store.expire(by_partition=True) == 7
    assert store.expire(by_partition=True) == 0
    assert remaining(engine) == 7
    assert names(engine) == ["p0", "p2", "p4", "p5", "p6"]


@pytest.mark.parametrize(
    "obstacle", ["role", "key", "key of a partition", "trigger", "policies", "publication"]
)
def test_rows_go_in_batches_where_partitions_cannot_be_dropped(engine, caplog, obstacle):
    fill(engine, [*daily(0, DAY), *daily(1, None)])
    sql = {
        "role": [
            "CREATE ROLE expiring_app",
            "GRANT USAGE ON SCHEMA weekly TO expiring_app",
            "GRANT SELECT, INSERT, UPDATE, DELETE ON weekly.job_history TO expiring_app",
            "GRANT SELECT, INSERT, UPDATE, DELETE ON weekly.job_history_state TO expiring_app",
        ],
        "key": [
            "CREATE TABLE weekly.app (execution uuid REFERENCES weekly.job_history "
            "ON DELETE CASCADE)",
            "INSERT INTO weekly.app SELECT id FROM weekly.job_history",
        ],
        "key of a partition": [
            "CREATE TABLE weekly.app (execution uuid REFERENCES weekly.p1 ON DELETE CASCADE)",
            "INSERT INTO weekly.app SELECT id FROM weekly.p1",
        ],
        "trigger": [
            "CREATE TABLE weekly.audit (id uuid)",
            "CREATE FUNCTION weekly.audited() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
            "INSERT INTO weekly.audit VALUES (OLD.id); RETURN OLD; END $$",
            "CREATE TRIGGER audited AFTER DELETE ON weekly.job_history "
            "FOR EACH ROW EXECUTE FUNCTION weekly.audited()",
        ],
        "policies": [
            "ALTER TABLE weekly.job_history ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY",
        ],
        "publication": [
            "CREATE PUBLICATION sent FOR TABLE weekly.job_history",
        ],
    }[obstacle]
    with engine.begin() as connection:
        for statement in sql:
            connection.execute(text(statement))
    if obstacle == "role":
        event.listen(
            engine, "connect", lambda c, _: c.execute("SET ROLE expiring_app") and c.commit()
        )
        engine.dispose()
    try:
        store = store_at(engine, week(3))
        assert store.waiting_for_partition().count == 0
        if obstacle == "policies":  # which do not hold for a superuser
            assert store.expire(by_partition=True) == 7
            return
        assert store.expire(by_partition=True) == 7
        assert "p1" in names(engine)
        assert "expire() deletes rows in batches, because" in caplog.text
    finally:
        with engine.begin() as connection:
            connection.execute(text("DROP PUBLICATION IF EXISTS sent"))
        if obstacle == "role":
            with engine.begin() as connection:
                connection.execute(text("RESET ROLE"))
                connection.execute(text("DROP OWNED BY expiring_app"))
                connection.execute(text("DROP ROLE expiring_app"))
    if obstacle.startswith("key"):
        with engine.connect() as connection:
            left = connection.scalar(text("SELECT count(*) FROM weekly.app"))
        assert left == (7 if obstacle == "key" else 0), "the references are gone, too"


def test_rows_go_in_batches_if_sessions_share_a_transaction(engine):
    fill(engine, daily(0, DAY))
    with engine.connect() as connection:
        outer = connection.begin()
        sessions = sessionmaker(connection, join_transaction_mode="create_savepoint")
        store = create_store(sessions, clock=lambda: week(3))
        assert store.expire(by_partition=True) == 7
        assert store.waiting_for_partition().count == 0
        outer.rollback()
    assert "p1" in names(engine)
    assert remaining(engine) == 7


def test_isolation_of_the_app_does_not_hide_an_insert(engine, other_engine):
    now = week(2)
    fill(engine, daily(0, DAY))
    strict = engine.execution_options(isolation_level="SERIALIZABLE")

    with before(engine, "LOCK TABLE ONLY") as actions:
        actions.append(lambda: fill(other_engine, [row(week(0) + HOUR, None)]))
        assert store_at(strict, now).expire(by_partition=True) == 0
    assert not actions
    assert remaining(engine) == 8


def test_a_table_that_waits_for_an_archive_is_left_to_it(engine, caplog):
    fill(engine, [*daily(0, DAY)])
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE weekly.other (id int)"))
    store = store_at(engine, week(3))

    class Archive:
        archive = "file:///archive: %s{x}'"

        def dispose(self, history, table):
            raise Killed

    history = store.internals.history
    archiving = expiring.PartitionExpiry(history, lambda _: week(3), True, Archive())
    with pytest.raises(Killed):
        list(archiving.steps())
    table, *empty = tables(engine)
    assert (table.name, table.archive) == ("p1", Archive.archive)
    assert [each.archive for each in empty] == [None, None]

    assert store.expire(by_partition=True) == 0
    assert "expire() leaves p1" in caplog.text
    assert tables(engine) == [table]
    assert history.run(Purpose.MAINTAIN_AS_ONE, lambda each: drop_detached(each, table)) == 7
    assert history.run(Purpose.MAINTAIN_AS_ONE, lambda each: drop_detached(each, table)) == 0


@pytest.fixture
def converted(postgres_database):
    """A live table that became partitions, with a week ahead."""
    partition_history(postgres_database.engine, ahead=1, now=MONDAY)
    yield postgres_database.engine
    undo(postgres_database.engine)


def test_partitions_ahead_are_created_first(converted):
    fill(converted, daily(0, DAY))
    until = partitions_of(converted).until

    assert store_at(converted, MONDAY).expire() == 0
    assert partitions_of(converted).until == until
    assert store_at(converted, until).expire(by_partition=True) == 7
    assert partitions_of(converted).until == until + 2 * WEEK
    assert store_at(converted, until + 9 * WEEK).expire(by_partition=True) == 0
    assert partitions_of(converted).until == until + 11 * WEEK
    fill(converted, daily(1, DAY))
    assert store_at(converted, until + 9 * WEEK).expire(by_partition=True) == 7


def test_rows_expire_even_if_partitions_cannot_be_created(converted, monkeypatch, caplog):
    fill(converted, daily(0, DAY))

    def fail(*_):
        raise LayoutNotChanged("others keep it locked")

    monkeypatch.setattr(extension, "extend", fail)
    assert store_at(converted, week(9)).expire() == 7
    assert "could not create the next partitions" in caplog.text


def test_a_store_for_asyncio_drops_partitions(database_of_async_store, engine):
    fill(engine, [*daily(0, DAY), *daily(1, 30 * DAY)])
    store = database_of_async_store(week(3))
    with before(engine, "LOCK TABLE ONLY"):
        assert store.expire(by_partition=True, dry_run=True) == 7
        assert store.expire(by_partition=True) == 7
        assert store.waiting_for_partition().count == 0
    assert names(engine) == ["p0", "p2", "p4", "p5", "p6"]


@pytest.fixture(params=["psycopg", "asyncpg"])
def database_of_async_store(request, postgres_database, layout, event_loop_thread):
    options = {"execution_options": {"schema_translate_map": {None: layout}}}
    with async_engine(postgres_database, event_loop_thread.run, request.param, **options) as bind:
        yield lambda moment: Synchronous(
            create_async_store(bind, clock=lambda: moment), event_loop_thread
        )


def test_columns_of_the_app_may_have_any_name(engine):
    with engine.begin() as connection:
        for name in ("address", "version", "stays", "moment"):
            connection.execute(text(f"ALTER TABLE weekly.job_history ADD {name} text DEFAULT 'x'"))
    due = [row(week(0) + n * HOUR, week(0) + n * HOUR + DAY) for n in range(100)]
    fill(engine, [*due, row(week(0) + HOUR, None)])

    assert store_at(engine, week(1)).expire(by_partition=True) == 100
    assert remaining(engine) == 1


def killed_before_the_drop(engine):
    """Detach the partition of the first week, but do not drop it."""

    def kill():
        raise Killed

    fill(engine, daily(0, DAY))
    with before(engine, "DROP TABLE") as actions:
        actions.append(kill)
        with pytest.raises(Killed):
            store_at(engine, week(3)).expire(by_partition=True)
    return next(table for table in tables(engine) if table.name == "p1")


def test_a_detached_table_that_becomes_history_again_stays(engine):
    table = killed_before_the_drop(engine)
    with engine.begin() as connection:
        connection.execute(text("DROP TABLE weekly.job_history"))
        connection.execute(text(f"ALTER TABLE weekly.{table.name} RENAME TO job_history"))
    fill(engine, [row(week(0), None)])

    assert store_at(engine, week(3)).expire() == 7
    assert remaining(engine) == 1


def test_a_detached_table_in_which_a_row_lives_again_stays(engine, caplog):
    table = killed_before_the_drop(engine)
    rows = f"weekly.{table.name}"
    with engine.begin() as connection:
        connection.execute(
            text(f"UPDATE {rows} SET expires_at = NULL WHERE ctid = (SELECT min(ctid) FROM {rows})")
        )

    assert store_at(engine, week(3)).expire() == 0
    assert f"leaves {table.name}: not all of its rows have expired" in caplog.text
    assert tables(engine) == [table]


def test_a_swap_that_is_given_up_leaves_no_check(engine):
    fill(engine, [row(week(-1), None), *daily(0, DAY)])
    other_week = f"id >= '{first_id(week(3))}' AND id < '{first_id(week(4))}'"
    with engine.connect() as reader:
        reader.execute(text(f"SELECT FROM weekly.job_history WHERE {other_week}"))
        assert store_at(engine, week(3)).expire(by_partition=True) == 0
    with engine.connect() as connection:
        checks = (
            "SELECT count(*) FROM pg_constraint WHERE contype = 'c' AND conname NOT LIKE '%status'"
        )
        assert connection.scalar(text(f"{checks} AND connamespace = 'weekly'::regnamespace")) == 0
    assert store_at(engine, week(3)).expire(by_partition=True) == 7


def test_an_error_because_of_a_partition_leaves_the_others_to_batches(engine, monkeypatch, caplog):
    def fail(*_, **__):
        raise ProgrammingError("SELECT", None, Exception("it is gone"))

    monkeypatch.setattr(expiring.survivors, "copy_survivors", fail)
    few_stay = [row(week(0) + n * HOUR, week(0) + n * HOUR + DAY) for n in range(100)]
    many_stay = [*daily(1, DAY), *daily(1, None)]
    fill(engine, [*few_stay, row(week(0) + HOUR, None), *many_stay])

    assert store_at(engine, week(3)).expire(by_partition=True) == 7
    assert "leaves its partitions to the next call: it is gone" in caplog.text


def test_a_reader_delays_the_creation_of_partitions_and_not_expire(converted, monkeypatch, caplog):
    paused = []
    monkeypatch.setattr(exclusive, "pause", lambda _, seconds: paused.append(seconds))
    fill(converted, daily(0, DAY))
    with converted.connect() as reader:
        reader.execute(select(HistoryRecord.id)).all()
        assert store_at(converted, week(9)).expire() == 7
    assert len(paused) == len(expiring.PAUSES)
    assert "could not create the next partitions" in caplog.text
