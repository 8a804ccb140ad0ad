"""The history table in partitions: conversion, more partitions, and the way back."""

from __future__ import annotations

import threading
import uuid
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest
from sqlalchemy import create_engine, event, inspect, text
from sqlalchemy.exc import DBAPIError

from jobhistory import (
    InvalidInput,
    Job,
    LayoutNotChanged,
    SchemaOutOfDate,
    create_store,
    migrate,
    new_execution_id,
)
from jobhistory.database.partitions import sql
from jobhistory.database.partitions.catalog import read_layout
from jobhistory.database.partitions.cuts import CUT_CONSTRAINT
from jobhistory.database.partitions.leaves import spans
from jobhistory.database.partitions.spans import first_id, moment_of
from jobhistory.partitioning import partition, partitions_of, undo
from jobhistory.rollup_schema import TRIGGERS

NOW = datetime(2026, 11, 28, 12, tzinfo=UTC)
WEEK = timedelta(days=7)
FUNCTIONS = [f"job_history_queue_{name}" for name in ("inserted", "inserted_many", "updated")]


@pytest.fixture
def engine(bare_postgres_url, monkeypatch):
    monkeypatch.setattr(sql, "PAUSE_SECONDS", 0)
    engine = create_engine(bare_postgres_url)
    migrate.upgrade(engine)
    yield engine
    engine.dispose()


@pytest.fixture
def role(engine):
    """A role with a name that needs quotes."""
    name = f'"Role:% {uuid.uuid4().hex[:12]}"'
    run(engine, f"CREATE ROLE {name}")
    yield name
    run(engine, f"DROP OWNED BY {name} CASCADE", f"DROP ROLE {name}")


def run(engine, *statements):
    with engine.begin() as connection:
        for statement in statements:
            sql.run(connection, statement)


def rows(engine, statement):
    with engine.connect() as connection:
        found = connection.exec_driver_sql(statement, execution_options={"no_parameters": True})
        return [tuple(row) for row in found]


def scalar(engine, statement):
    ((value,),) = rows(engine, statement)
    return value


def record(engine, count=3, at=NOW - timedelta(hours=1), schema=None):
    store = create_store(engine, clock=lambda: at, schema=schema)
    ids = {"worker_id": "w", "correlation_id": "c", "task_identifier": "t"}
    return [
        store.record_execution(
            ids | {"job_id": f"{at:%Y%m%d}-{number}", "started_at": at}, status="completed"
        )
        for number in range(count)
    ]


def leaves(engine, schema=None):
    with engine.connect() as connection:
        layout = read_layout(connection, schema)
    return {leaf.name: (leaf.lower, leaf.upper) for leaf in layout.leaves}


def shape(engine):
    """Everything about the history table that a change of the layout must not change."""
    table = "'job_history'::regclass"
    queries = {
        "columns": "SELECT attname, format_type(atttypid, atttypmod), attnotnull, attstorage,"
        " pg_get_expr(adbin, adrelid), col_description(attrelid, attnum), attacl,"
        " array(SELECT o FROM unnest(attoptions) o WHERE o LIKE 'n_distinct%'),"
        " coalesce(attstattarget, -1)"
        " FROM pg_attribute LEFT JOIN pg_attrdef ON adrelid = attrelid AND adnum = attnum"
        f" WHERE attrelid = {table} AND attnum > 0",
        "access": "SELECT privilege.* FROM pg_class, aclexplode(coalesce(relacl,"
        f" acldefault('r', relowner))) AS privilege WHERE oid = {table}",
        "table": "SELECT pg_get_userbyid(relowner), relrowsecurity, relforcerowsecurity,"
        f" relreplident, obj_description(oid, 'pg_class') FROM pg_class WHERE oid = {table}",
        "indexes": "SELECT replace(pg_get_indexdef(indexrelid), ' ONLY ', ' '),"
        f" obj_description(indexrelid, 'pg_class') FROM pg_index WHERE indrelid = {table}",
        "constraints": "SELECT conname, pg_get_constraintdef(oid), convalidated,"
        f" obj_description(oid, 'pg_constraint') FROM pg_constraint WHERE conrelid = {table}"
        f" OR confrelid = {table} AND conparentid = 0",
        "triggers": "SELECT pg_get_triggerdef(oid), tgenabled, obj_description(oid, 'pg_trigger')"
        f" FROM pg_trigger WHERE tgrelid = {table} AND NOT tgisinternal",
        "policies": "SELECT polname, polcmd, polpermissive, polroles, pg_get_expr(polqual,"
        " polrelid), pg_get_expr(polwithcheck, polrelid), obj_description(oid, 'pg_policy')"
        f" FROM pg_policy WHERE polrelid = {table}",
    }
    return {name: sorted(map(repr, rows(engine, query))) for name, query in queries.items()}


def changes(engine, before):
    """The differences between a shape and that of the table now."""
    after = shape(engine)
    return {
        name: sorted({*before[name]} ^ {*after[name]})
        for name in before
        if before[name] != after[name]
    }


def decorate(engine, role):
    """What apps do to a table."""
    run(
        engine,
        "CREATE TABLE tenants (name text PRIMARY KEY)",
        "INSERT INTO tenants VALUES ('acme')",
        "ALTER TABLE job_history ADD COLUMN tenant text DEFAULT 'acme' REFERENCES tenants,"
        ' ADD COLUMN "Odd:% name" text COLLATE "C" DEFAULT \'100%\','
        " ADD COLUMN twice int GENERATED ALWAYS AS (attempt_number * 2) STORED,"
        " ADD CONSTRAINT odd CHECK (\"Odd:% name\" <> ''),"
        " ALTER COLUMN payload SET STORAGE EXTERNAL,"
        " ALTER COLUMN job_id SET STATISTICS 500, ALTER COLUMN job_id SET (n_distinct = -0.5),"
        " REPLICA IDENTITY FULL",
        "CREATE INDEX \"ix:% mine\" ON job_history (lower(tenant)) WHERE tenant <> '%'",
        "CREATE UNIQUE INDEX ix_unique ON job_history (job_id, id) INCLUDE (tenant)",
        "CREATE INDEX ix_with_a_name_that_is_nearly_as_long_as_a_name_can_be_in_this"
        " ON job_history (tenant)",
        "CREATE STATISTICS pair ON job_id, worker_id FROM job_history",
        "CREATE FUNCTION nothing() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END'",
        "CREATE TRIGGER mine BEFORE INSERT ON job_history FOR EACH ROW"
        " WHEN (NEW.tenant <> '%') EXECUTE FUNCTION nothing('a:b')",
        "CREATE TRIGGER disabled AFTER UPDATE ON job_history FOR EACH ROW"
        " EXECUTE FUNCTION nothing()",
        "ALTER TABLE job_history DISABLE TRIGGER disabled",
        "CREATE TRIGGER always AFTER DELETE ON job_history FOR EACH STATEMENT"
        " EXECUTE FUNCTION nothing()",
        "ALTER TABLE job_history ENABLE ALWAYS TRIGGER always",
        "CREATE TABLE notes (of uuid REFERENCES job_history ON DELETE CASCADE, note text)",
        f"GRANT SELECT, INSERT ON job_history TO {role}",
        f"GRANT UPDATE ON job_history TO {role} WITH GRANT OPTION",
        f"GRANT REFERENCES (id) ON job_history TO {role}",
        "GRANT SELECT (job_id) ON job_history TO PUBLIC",
        "ALTER TABLE job_history ENABLE ROW LEVEL SECURITY",
        f"CREATE POLICY mine ON job_history FOR SELECT TO {role} USING (tenant <> '%')",
        "CREATE POLICY theirs ON job_history AS RESTRICTIVE USING (true) WITH CHECK (true)",
        "COMMENT ON TABLE job_history IS 'what''s run'",
        "COMMENT ON COLUMN job_history.tenant IS 'a:b'",
        "COMMENT ON INDEX ix_unique IS 'an index'",
        "COMMENT ON CONSTRAINT odd ON job_history IS 'a check'",
        "COMMENT ON CONSTRAINT pk_job_history ON job_history IS 'a key'",
        "COMMENT ON TRIGGER mine ON job_history IS 'a trigger'",
        "COMMENT ON POLICY mine ON job_history IS 'a policy'",
    )


def test_a_live_table_becomes_the_first_partition(engine):
    records = record(engine)

    partitioned = partition(engine, now=NOW)

    assert str(partitioned) == "partitioned by week, 6 partitions, until 2026-12-28"
    assert (partitioned.created, partitioned.warnings) == (6, ())
    found = leaves(engine)
    assert list(found) == [
        "job_history_p_first",
        "job_history_p20261130",
        "job_history_p20261207",
        "job_history_p20261214",
        "job_history_p20261221",
        "job_history_p_last",
    ]
    ends = [upper for _, upper in found.values()]
    assert [moment_of(end) for end in ends[:-1]] == [
        datetime(2026, 11, 30, tzinfo=UTC) + number * WEEK for number in range(5)
    ]
    assert [lower for lower, _ in found.values()] == [None, *ends[:-1]]
    assert ends[-1] is None
    assert scalar(engine, "SELECT count(*) FROM job_history_p_first") == len(records)
    assert migrate.check(engine) == ()


def test_nothing_but_the_layout_changes_there_and_back(engine, role):
    decorate(engine, role)
    records = record(engine)
    run(engine, f"INSERT INTO notes VALUES ('{records[0].id}', 'a note')")
    before = shape(engine)
    additions = migrate.check(engine)

    partition(engine, now=NOW)

    assert changes(engine, before) == {}
    assert migrate.check(engine) == additions
    later = record(engine, at=NOW + WEEK)
    run(engine, f"INSERT INTO notes VALUES ('{later[0].id}', 'another')")
    every = rows(engine, "SELECT * FROM job_history ORDER BY id")

    undo(engine)

    assert changes(engine, before) == {}
    assert migrate.check(engine) == additions
    assert rows(engine, "SELECT * FROM job_history ORDER BY id") == every
    assert scalar(engine, "SELECT count(*) FROM notes") == 2
    assert rows(engine, "SELECT relname FROM pg_class WHERE relname LIKE '%\\_p\\_%'") == []
    partition(engine, now=NOW)
    assert changes(engine, before) == {}


def test_partitions_have_the_storage_and_the_access_of_the_table(engine, role):
    run(
        engine,
        f"ALTER DEFAULT PRIVILEGES GRANT ALL ON TABLES TO {role}",
        "ALTER TABLE job_history SET (autovacuum_vacuum_scale_factor = 0.05,"
        " toast.autovacuum_enabled = false)",
    )
    decorate(engine, role)

    partition(engine, now=NOW)
    partition(engine, ahead=6, now=NOW)

    privileges = (
        "(SELECT array_agg(CAST(item AS text) ORDER BY CAST(item AS text)) FROM unnest({}) AS item)"
    )
    settings = rows(
        engine,
        "SELECT DISTINCT (SELECT array_agg(option ORDER BY option) FROM unnest(leaf.reloptions)"
        f" AS option), toast.reloptions, {privileges.format('leaf.relacl')}, leaf.relrowsecurity,"
        " leaf.relreplident, (SELECT array_agg(polname ORDER BY polname) FROM pg_policy"
        " WHERE polrelid = leaf.oid) FROM pg_inherits JOIN pg_class leaf ON leaf.oid = inhrelid"
        " JOIN pg_class toast ON toast.oid = leaf.reltoastrelid"
        " WHERE inhparent = 'job_history'::regclass",
    )
    ((options, toast, acl, *others),) = settings
    assert options == ["autovacuum_vacuum_scale_factor=0.05", "fillfactor=80"]
    assert toast == ["autovacuum_enabled=false"]
    history = "FROM pg_class WHERE relname = 'job_history'"
    assert acl == scalar(engine, f"SELECT {privileges.format('relacl')} {history}")
    assert others == [True, "f", ["mine", "theirs"]]


def test_everything_works_on_partitions(engine):
    partition(engine, now=NOW)
    store = create_store(engine, clock=lambda: NOW)

    with store.track(Job("1", "t"), "w", "c"):
        pass
    store.record_many(
        [
            {
                "job_id": str(week),
                "worker_id": "w",
                "correlation_id": "c",
                "task_identifier": "t",
                "status": "failed",
                "error": ValueError("no"),
                "started_at": NOW + week * WEEK,
            }
            for week in range(-20, 20)
        ]
    )
    assert store.count().value == 41
    assert store.get_by_job_id("19")[0].status == "failed"
    assert store.fold() == 41
    assert store.purge({"status": "failed"}) == 40


def test_executions_are_counted_once_when_their_rows_move(engine):
    partition(engine, now=NOW)
    record(engine, count=2)
    record(engine, count=3, at=NOW + WEEK)

    undo(engine)

    assert scalar(engine, "SELECT count(*) FROM job_history_ended") == 5
    assert scalar(engine, "SELECT count(*) FROM job_history") == 5
    assert not partitions_of(engine).count


def test_it_is_idempotent_and_creates_the_next_partitions(engine):
    partition(engine, now=NOW)
    before = leaves(engine)

    assert partition(engine, now=NOW).created == 0
    assert leaves(engine) == before
    later = partition(engine, now=NOW + WEEK)

    assert later.created == 1
    assert str(later) == "partitioned by week, 7 partitions, until 2027-01-04"
    assert list(leaves(engine))[-2:] == ["job_history_p20261228", "job_history_p_last"]


@pytest.mark.parametrize(
    ("every", "ahead", "until"),
    [("day", 3, "2026-12-02"), ("week", 1, "2026-12-07"), ("month", 2, "2027-02-01")],
)
def test_partitions_are_days_weeks_or_months(engine, every, ahead, until):
    assert str(partition(engine, every=every, ahead=ahead, now=NOW)).endswith(f"until {until}")
    for later in (0.3, 0.5, 1, 3):
        partition(engine, every=every, ahead=ahead, now=NOW + later * WEEK)
    ends = [upper for _, upper in leaves(engine).values()]
    assert [lower for lower, _ in leaves(engine).values()] == [None, *ends[:-1]]
    assert ends[-1] is None


def test_the_length_can_change(engine):
    partition(engine, every="month", ahead=1, now=NOW)
    partition(engine, every="day", ahead=40, now=NOW)

    names = list(leaves(engine))
    assert names[:4] == [
        "job_history_p_first",
        "job_history_p20261201",
        "job_history_p20270101",
        "job_history_p20270102",
    ]
    assert partitions_of(engine, now=NOW).every == "day"


def test_rows_in_the_last_partition_stay_where_they_are(engine):
    """Nobody has created partitions for months, so executions have reached the last one."""
    decorate_keys(engine)
    partition(engine, now=NOW)
    late = NOW + 20 * WEEK
    (first, *_) = record(engine, at=late)
    run(engine, f"INSERT INTO notes VALUES ('{first.id}')")
    assert partitions_of(engine, now=late).warnings == (
        "executions have reached the last partition, which has no end",
    )

    partitioned = partition(engine, now=late)

    assert partitioned.warnings == ()
    assert partitioned.until == datetime(2027, 5, 17, tzinfo=UTC)
    assert scalar(engine, "SELECT count(*) FROM job_history_p20261228") == 3
    assert rows(engine, "SELECT * FROM job_history_p_last") == []
    ends = [upper for _, upper in leaves(engine).values()]
    assert [lower for lower, _ in leaves(engine).values()] == [None, *ends[:-1]]
    assert scalar(
        engine,
        "SELECT bool_and(convalidated) FROM pg_constraint WHERE contype = 'f' AND conparentid = 0",
    )
    assert (
        scalar(engine, f"SELECT count(*) FROM pg_constraint WHERE conname = '{CUT_CONSTRAINT}'")
        == 0
    )
    with pytest.raises(DBAPIError, match="violates foreign key"):
        run(engine, f"INSERT INTO notes VALUES ('{uuid.uuid4()}')")


def decorate_keys(engine):
    run(engine, "CREATE TABLE notes (of uuid REFERENCES job_history ON DELETE CASCADE)")


def test_an_execution_that_reaches_the_last_partition_meanwhile_is_no_problem(engine):
    partition(engine, now=NOW)
    late = NOW + 10 * WEEK
    intruders = [late]

    @event.listens_for(engine, "before_cursor_execute")
    def intrude(connection, cursor, statement, *_):
        if "DETACH PARTITION" in statement and intruders:
            other = create_engine(engine.url)
            record(other, at=intruders.pop())
            other.dispose()

    assert partition(engine, now=late).warnings == ()
    assert scalar(engine, "SELECT count(*) FROM job_history") == 3


def test_missing_partitions_are_created(engine):
    partition(engine, now=NOW)
    run(engine, "DROP TABLE job_history_p_first, job_history_p20261214, job_history_p_last")
    assert partitions_of(engine, now=NOW).warnings == (
        "executions that start before 2026-11-30 have no partition, and are refused",
        "executions that start from 2026-12-14 to 2026-12-21 have no partition, and are refused",
        "executions that start from 2026-12-28 on have no partition, and are refused",
    )

    assert partition(engine, now=NOW).warnings == ()

    assert str(partitions_of(engine, now=NOW)).endswith("6 partitions, until 2026-12-28")
    assert record(engine, at=NOW - 100 * WEEK)
    assert record(engine, at=NOW + 100 * WEEK)


def test_a_name_that_is_taken_gets_a_number(engine):
    run(engine, "CREATE TABLE job_history_p20261207 (kept int)")
    partition(engine, now=NOW)
    assert "job_history_p20261207_2" in leaves(engine)


def test_an_interrupted_detach_is_finished(engine, caplog):
    partition(engine, now=NOW)
    record(engine)
    with engine.connect() as reader, engine.connect() as detaching:
        reader.execute(text("SELECT count(*) FROM job_history"))
        detaching = detaching.execution_options(isolation_level="AUTOCOMMIT")
        detaching.execute(text("SET lock_timeout = '50ms'"))
        with pytest.raises(DBAPIError, match="lock timeout"):
            sql.run(
                detaching,
                "ALTER TABLE job_history DETACH PARTITION job_history_p_first CONCURRENTLY",
            )
        detaching.execute(text("RESET lock_timeout"))
    assert partitions_of(engine, now=NOW).warnings == (
        '"public"."job_history_p_first" is half detached, which hides its executions',
    )

    partitioned = partition(engine, now=NOW)

    assert partitioned.warnings == ()
    assert "job_history_p_first_2" in leaves(engine)
    assert scalar(engine, "SELECT count(*) FROM job_history_p_first") == 3
    assert '"public"."job_history_p_first" is detached from job_history' in caplog.text


def test_writers_lose_nothing(engine):
    written, stop = [], threading.Event()

    def write():
        store = create_store(engine)
        while not stop.is_set():
            execution_id = new_execution_id()
            job = Job(str(execution_id), "t")
            store.record_start(job, "w", "c", execution_id=execution_id)
            store.record_completion(job.id, "w", "c", 5)
            written.append(execution_id)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for _ in range(3):
            partition(engine)
            partition(engine, ahead=8)
            undo(engine)
    finally:
        stop.set()
        writer.join()

    assert written
    found = {
        each for (each,) in rows(engine, "SELECT id FROM job_history WHERE status = 'completed'")
    }
    assert found == set(written)
    assert scalar(engine, "SELECT count(*) FROM job_history_ended") == len(written)


def test_a_lock_of_others_is_named_and_the_table_works_as_before(engine, monkeypatch, caplog):
    monkeypatch.setattr(sql, "TRIES", 2)
    monkeypatch.setattr(sql, "LOCK_TIMEOUT", "10ms")
    record(engine)
    before = shape(engine)
    with engine.connect() as other:
        other.execute(text("SET application_name = 'report'"))
        other.execute(text("SELECT count(*) FROM job_history"))
        pid = other.scalar(text("SELECT pg_backend_pid()"))
        with pytest.raises(
            LayoutNotChanged, match=rf"pid {pid} \(report\), which is idle in trans"
        ):
            partition(engine, now=NOW)
    assert caplog.messages == [], "there is nothing to undo, so it waits for no lock once more"
    assert changes(engine, before) == {}
    assert partition(engine, now=NOW).count == 6


def test_it_tries_again_until_it_gets_the_lock(engine, monkeypatch):
    monkeypatch.setattr(sql, "LOCK_TIMEOUT", "10ms")
    other = engine.connect()
    other.execute(text("SELECT count(*) FROM job_history"))

    @event.listens_for(engine, "handle_error")
    def give_way(context):
        other.rollback()

    assert partition(engine, now=NOW).count == 6
    other.close()


@pytest.mark.parametrize(
    "step", ["ADD CONSTRAINT", "VALIDATE CONSTRAINT", "CREATE TABLE", "ANALYZE"]
)
def test_a_conversion_that_is_killed_can_be_repeated(engine, step):
    decorate_keys(engine)
    records = record(engine)
    run(engine, f"INSERT INTO notes VALUES ('{records[0].id}')")
    killed = create_engine(engine.url)

    @event.listens_for(killed, "before_cursor_execute")
    def kill(connection, cursor, statement, *_):
        if step in statement:
            event.remove(killed, "before_cursor_execute", kill)
            pid = cursor.connection.info.backend_pid
            run(engine, f"SELECT pg_terminate_backend({pid}, 10000)")

    with pytest.raises(DBAPIError):
        partition(killed, now=NOW)
    killed.dispose()

    assert (
        scalar(engine, f"SELECT count(*) FROM pg_constraint WHERE conname = '{CUT_CONSTRAINT}'")
        == 0
    )
    record(engine, count=1, at=NOW + 10 * WEEK)
    partition(engine, now=NOW if step == "ANALYZE" else NOW + 10 * WEEK)
    assert scalar(engine, "SELECT count(*) FROM job_history") == 4
    assert migrate.check(engine) == ()
    assert scalar(
        engine,
        "SELECT bool_and(convalidated) FROM pg_constraint WHERE contype = 'f' AND conparentid = 0",
    )


def test_a_constraint_that_was_left_behind_is_reported_and_dropped(engine):
    """A process that was killed has no chance to drop it."""
    leave = f"ADD CONSTRAINT {CUT_CONSTRAINT} CHECK (id < '{first_id(NOW)}') NOT VALID"
    run(engine, f"ALTER TABLE job_history {leave}")
    assert partitions_of(engine, now=NOW).warnings == (
        "job_history will refuse new executions: a change was interrupted",
    )
    undo(engine)
    assert record(engine, at=NOW + WEEK)

    partition(engine, now=NOW)
    run(engine, f"ALTER TABLE job_history_p_last {leave}")
    assert "will refuse" in partitions_of(engine, now=NOW).warnings[0]
    assert partition(engine, now=NOW).warnings == ()
    assert record(engine, at=NOW + 100 * WEEK)


OBSTACLES = {
    "view seen": "CREATE VIEW seen AS SELECT id FROM job_history",
    "materialized view seen": "CREATE MATERIALIZED VIEW seen AS SELECT id FROM job_history",
    "rule r on table job_history": "CREATE RULE r AS ON DELETE TO job_history DO ALSO NOTHING",
    "function of_row": "CREATE FUNCTION of_row(job_history) RETURNS int LANGUAGE sql AS 'SELECT 1'",
    "job_history in publication p": "CREATE PUBLICATION p FOR TABLE job_history",
    "publication p would publish its partitions": "CREATE PUBLICATION p FOR ALL TABLES",
    "child inherits from it": "CREATE TABLE child () INHERITS (job_history)",
    "column number is an identity": "ALTER TABLE job_history"
    " ADD COLUMN number int GENERATED BY DEFAULT AS IDENTITY",
    "sequence job_history_n_seq": "ALTER TABLE job_history ADD COLUMN n serial",
    "index one is unique without": "CREATE UNIQUE INDEX one ON job_history (job_id)",
    "index two is unique without": "CREATE UNIQUE INDEX two ON job_history (job_id) INCLUDE (id)",
    "constraint x excludes": "ALTER TABLE job_history"
    " ADD CONSTRAINT x EXCLUDE USING btree (id WITH =)",
    "constraint c is NO INHERIT": "ALTER TABLE job_history"
    " ADD CONSTRAINT c CHECK (attempt_number > 0) NO INHERIT",
    "constraint c is not valid": "ALTER TABLE job_history"
    " ADD CONSTRAINT c CHECK (attempt_number > 0) NOT VALID",
    "constraint c refers to the table itself": "ALTER TABLE job_history"
    " ADD CONSTRAINT c FOREIGN KEY (parent_id) REFERENCES job_history",
    "trigger t is FOR EACH ROW": "CREATE FUNCTION nothing() RETURNS trigger LANGUAGE plpgsql"
    " AS 'BEGIN RETURN NULL; END'; CREATE TRIGGER t AFTER UPDATE ON job_history"
    " REFERENCING NEW TABLE AS changed FOR EACH ROW EXECUTE FUNCTION nothing()",
    "replica identity": "ALTER TABLE job_history REPLICA IDENTITY USING INDEX pk_job_history",
    "not a permanent table": "ALTER TABLE job_history SET UNLOGGED",
    "partitioned table": "CREATE TABLE notes (of uuid REFERENCES job_history)"
    " PARTITION BY HASH (of)",
}


@pytest.mark.parametrize(("reason", "statement"), OBSTACLES.items(), ids=OBSTACLES)
def test_what_cannot_move_is_named_and_nothing_changes(engine, reason, statement):
    run(engine, statement)
    before = shape(engine)
    with pytest.raises(LayoutNotChanged) as caught:
        partition(engine, now=NOW)
    assert reason in str(caught.value)
    assert changes(engine, before) == {}


def test_a_publication_of_all_tables_may_publish_partitions_as_the_table(engine):
    run(
        engine,
        "CREATE PUBLICATION p FOR ALL TABLES WITH (publish_via_partition_root = true)",
    )
    assert partition(engine, now=NOW).count
    with pytest.raises(LayoutNotChanged, match="publication p would publish rows that move as new"):
        undo(engine)
    run(engine, "DROP PUBLICATION p")
    undo(engine)


def test_ids_in_a_far_future_are_refused(engine):
    record(engine, at=NOW + 60 * WEEK)
    with pytest.raises(LayoutNotChanged, match="has a time in 2028"):
        partition(engine, now=NOW)


def test_executions_in_the_near_future_move_the_cut(engine):
    record(engine, at=NOW + 3 * WEEK)
    assert list(leaves_after(engine))[:2] == ["job_history_p_first", "job_history_p20261221"]


def leaves_after(engine):
    partition(engine, now=NOW)
    return leaves(engine)


def test_another_layout_is_refused(engine):
    run(
        engine,
        "ALTER TABLE job_history RENAME TO old",
        "CREATE TABLE job_history (LIKE old) PARTITION BY HASH (id)",
    )
    for change in (partition, undo):
        with pytest.raises(LayoutNotChanged, match="in another way than by RANGE"):
            change(engine)


def test_a_table_without_partitions_by_hand_gets_them(engine):
    run(
        engine,
        "ALTER TABLE job_history RENAME TO old",
        "CREATE TABLE job_history (LIKE old INCLUDING ALL) PARTITION BY RANGE (id)",
    )
    assert str(partition(engine, now=NOW)) == "partitioned by week, 6 partitions, until 2026-12-28"


def test_other_databases_and_missing_tables_are_refused(bare_database):
    expected = LayoutNotChanged if bare_database.name == "sqlite" else SchemaOutOfDate
    for change in (partition, undo):
        with pytest.raises(expected):
            change(bare_database.engine)


@pytest.mark.parametrize("arguments", [{"every": "year"}, {"ahead": 0}, {"ahead": "4"}])
def test_arguments_that_cannot_be_used_are_named(engine, arguments):
    (name,) = arguments
    with pytest.raises(InvalidInput, match=name):
        partition(engine, **arguments)


def test_a_role_that_does_not_own_the_table_is_refused(engine, role):
    run(engine, f"GRANT SELECT ON ALL TABLES IN SCHEMA public TO {role}")
    with engine.connect() as connection:
        sql.run(connection, f"SET ROLE {role}")
        with pytest.raises(LayoutNotChanged, match="it is owned by postgres; use that role"):
            partition(connection, now=NOW)
    partition(engine, now=NOW)
    with engine.connect() as connection:
        sql.run(connection, f"SET ROLE {role}")
        with pytest.raises(LayoutNotChanged, match="this role does not own"):
            partition(connection, now=NOW)


def test_a_member_of_the_owner_leaves_everything_to_the_owner(engine, role):
    member = f"member_{uuid.uuid4().hex[:8]}"
    run(
        engine,
        f"CREATE ROLE {member} IN ROLE {role}",
        f"GRANT ALL ON SCHEMA public TO {role}",
        f"GRANT ALL ON ALL TABLES IN SCHEMA public TO {role}",
        f"ALTER TABLE job_history OWNER TO {role}",
        *(f"GRANT EXECUTE ON FUNCTION {each}() TO {role}" for each in FUNCTIONS),
    )
    try:
        with engine.begin() as connection:
            sql.run(connection, f"SET LOCAL ROLE {member}")
            partition(connection, now=NOW)
        owners = rows(
            engine,
            "SELECT DISTINCT quote_ident(pg_get_userbyid(relowner)) FROM pg_class"
            " WHERE relname LIKE 'job_history_p%' AND relkind = 'r'",
        )
        assert owners == [(role,)]
    finally:
        run(engine, f"DROP OWNED BY {member}", f"DROP ROLE {member}")


def test_it_works_in_the_transaction_of_a_caller(engine):
    decorate_keys(engine)
    record(engine)
    before = shape(engine)
    with engine.connect() as connection:
        partition(connection, now=NOW)
        assert connection.scalar(text("SHOW lock_timeout")) == "0"
        undo(connection)
        partition(connection, now=NOW)
        connection.rollback()
    assert not partitions_of(engine).count
    with engine.begin() as connection:
        partition(connection, now=NOW)
    assert changes(engine, before) == {}
    assert len(leaves(engine)) == 6


def test_a_schema_may_have_any_name(engine):
    schema = 'odd:% "Name"'
    migrate.upgrade(engine, schema=schema)
    record(engine, schema=schema)

    partition(engine, schema=schema, now=NOW)
    partition(engine, schema=schema, now=NOW + WEEK)
    record(engine, schema=schema, at=NOW + 100 * WEEK)
    partition(engine, schema=schema, now=NOW + 100 * WEEK)

    assert partitions_of(engine, schema=schema, now=NOW + 100 * WEEK).warnings == ()
    assert migrate.check(engine, schema=schema) == ()
    undo(engine, schema=schema)
    assert migrate.check(engine, schema=schema) == ()
    assert create_store(engine, schema=schema).count().value == 6
    assert not partitions_of(engine).count


def test_migrations_work_on_partitions(engine):
    record(engine)
    partition(engine, now=NOW)
    for revision in ("jobhistory_0015", "jobhistory_0013", "jobhistory_0011"):
        migrate.downgrade(engine, revision)
        assert migrate.current(engine) == revision
    migrate.upgrade(engine)
    assert migrate.check(engine) == ()
    assert migrate.missing_grants(engine) == ()
    assert scalar(engine, "SELECT count(*) FROM job_history") == 3
    assert str(partitions_of(engine, now=NOW)) == (
        "partitioned by ranges of ids, 6 partitions, until 2026-12-28"
    )
    migrate.downgrade(engine, "base")
    assert inspect(engine).get_table_names() == ["job_history_alembic_version"]


def test_partitions_that_another_tool_made_are_adopted(engine):
    partition(engine, now=NOW)
    run(engine, "DROP TABLE job_history_alembic_version")
    migrate.upgrade(engine)
    assert migrate.check(engine) == ()


def test_maintenance_analyzes_the_table_itself(engine):
    partition(engine, now=NOW)
    record(engine)
    migrate.maintain(engine)
    assert scalar(engine, "SELECT reltuples FROM pg_class WHERE relname = 'job_history'") == 3


def test_triggers_are_on_every_partition_once(engine):
    partition(engine, now=NOW)
    assert migrate.check(engine) == ()
    run(engine, "DROP TRIGGER job_history_updated ON job_history")
    with pytest.raises(SchemaOutOfDate, match="trigger job_history_updated is missing"):
        migrate.check(engine)
    assert "job_history_updated" in TRIGGERS["postgresql"]


def test_an_execution_with_any_id_is_found(engine):
    """Nothing relies on the time in an id."""
    partition(engine, now=NOW)
    store = create_store(engine, clock=lambda: NOW)
    for id_ in (uuid.UUID(int=0), new_execution_id(NOW + 1000 * WEEK), uuid.uuid4()):
        run(
            engine,
            "INSERT INTO job_history (id, job_id, correlation_id, task_identifier, worker_id,"
            " status, attempt_number, started_at)"
            f" VALUES ('{id_}', 'j', 'c', 't', 'w', 'started', 1, '{NOW}')",
        )
        assert store.get(id_).job_id == "j"
    assert len(store.get_by_job_id("j")) == 3
    assert len(store.query(from_=NOW, to=NOW + timedelta(hours=1))) == 3


def test_after_years_without_a_call_the_first_new_partition_is_wide():
    start, end = NOW, NOW + 300 * WEEK
    found = spans(start, end, "week")
    assert len(found) < 80
    assert (found[0].lower, found[-1].upper) == (first_id(start), first_id(end))
    assert all(one.upper == other.lower for one, other in pairwise(found))
