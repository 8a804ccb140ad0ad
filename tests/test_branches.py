"""Expiry and reaping where history is a tree: partitioned, or with inheritance children."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import create_engine, event, insert, select, text

from jobhistory import HistoryRecord, RetentionRule, Status, UnsafeExpiry, create_store
from jobhistory.rollup_schema import ROLLUP_TABLES

NOW = datetime(2015, 11, 1, tzinfo=UTC)
DUE, LIVE = 40, 90

COPY = "CREATE TABLE tree.job_history (LIKE public.job_history INCLUDING ALL)"
# Another key than the one of the id must hold the columns by which the table is partitioned.
WITHOUT_KEY = COPY.replace(")", " EXCLUDING INDEXES)")

LAYOUTS = {
    "plain": [COPY],
    "range of ids": [
        f"{COPY} PARTITION BY RANGE (id)",
        "CREATE TABLE tree.old PARTITION OF tree.job_history FOR VALUES FROM (MINVALUE) "
        "TO ('00000000-0001-0000-0000-000000000000')",
        "CREATE TABLE tree.new PARTITION OF tree.job_history FOR VALUES "
        "FROM ('00000000-0001-0000-0000-000000000000') TO (MAXVALUE)",
    ],
    "range of time": [
        f"{WITHOUT_KEY} PARTITION BY RANGE (started_at)",
        "CREATE TABLE tree.old PARTITION OF tree.job_history FOR VALUES FROM (MINVALUE) "
        "TO ('2015-10-31')",
        "CREATE TABLE tree.new PARTITION OF tree.job_history DEFAULT",
    ],
    "hash, then list": [
        f"{WITHOUT_KEY} PARTITION BY HASH (job_id)",
        'CREATE TABLE tree."half 1" PARTITION OF tree.job_history '
        "FOR VALUES WITH (MODULUS 2, REMAINDER 0) PARTITION BY LIST (status)",
        "CREATE TABLE tree.half_2 PARTITION OF tree.job_history "
        "FOR VALUES WITH (MODULUS 2, REMAINDER 1)",
        """CREATE TABLE tree.completed PARTITION OF tree."half 1" FOR VALUES IN ('completed')""",
        'CREATE TABLE tree.others PARTITION OF tree."half 1" DEFAULT',
    ],
    "inheritance": [
        COPY,
        "CREATE TABLE tree.old () INHERITS (tree.job_history)",
        "CREATE TABLE tree.new () INHERITS (tree.job_history)",
        "CREATE TABLE tree.newest () INHERITS (tree.new, tree.old)",
    ],
}
TREES = [layout for layout in LAYOUTS if layout != "plain"]


@pytest.fixture
def layout():
    return "range of ids"


@pytest.fixture
def engine(layout, postgres_database):
    """An engine on a schema in which history has a layout, which the app's own SQL made."""
    with postgres_database.engine.begin() as connection:
        connection.execute(text("CREATE SCHEMA tree"))
        for table in ROLLUP_TABLES:
            copy = f"(LIKE public.{table.name} INCLUDING ALL)"
            connection.execute(text(f"CREATE TABLE tree.{table.name} {copy}"))
        for statement in LAYOUTS[layout]:
            connection.execute(text(statement))
    engine = create_engine(
        postgres_database.url, execution_options={"schema_translate_map": {None: "tree"}}
    )
    yield engine
    engine.dispose()
    with postgres_database.engine.begin() as connection:
        connection.execute(text("DROP SCHEMA tree CASCADE"))


@pytest.fixture
def store(engine):
    return create_store(engine, clock=lambda: NOW)


def row(number, *, due, status=None):
    return {
        # Ids of due rows are smaller than those of live ones.
        "id": uuid.UUID(int=(0 if due else 1 << 80) + number),
        "job_id": f"{'due' if due else 'live'}-{number}",
        "correlation_id": "c",
        "task_identifier": "t",
        "worker_id": "w",
        "status": status or (Status.COMPLETED if due else Status.FAILED),
        "error_type": None if due else "E",
        "attempt_number": 1,
        "started_at": NOW - timedelta(days=2 if due else 0, minutes=number),
        "expires_at": NOW - timedelta(minutes=number) if due else NOW + timedelta(days=1),
    }


def fill(engine, layout, due=DUE, live=LIVE):
    """Due and live rows, so that in different tables they have the same places."""
    rows = [*(row(n, due=True) for n in range(due)), *(row(n, due=False) for n in range(live))]
    tables = ["job_history"]
    if layout == "inheritance":
        tables += ["old", "new", "newest"]
    with engine.begin() as connection:
        for number, table in enumerate(tables):
            columns = HistoryRecord.__table__.to_metadata(
                HistoryRecord.metadata.__class__(), name=table
            )
            connection.execute(insert(columns), rows[number :: len(tables)])


def remaining(engine):
    with engine.connect() as connection:
        return sorted(connection.scalars(select(HistoryRecord.job_id)))


def live_ones(count=LIVE):
    return sorted(f"live-{number}" for number in range(count))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_only_expired_rows_go_whatever_tables_history_consists_of(engine, layout, store):
    fill(engine, layout)
    seen = []

    assert store.expire(dry_run=True) == DUE
    assert store.expire(batch_size=7, progress=seen.append) == DUE
    assert remaining(engine) == live_ones()
    assert seen[-1] == DUE
    assert max(after - before for before, after in zip([0, *seen], seen, strict=False)) == 7
    assert store.expire() == 0


@pytest.mark.parametrize("layout", LAYOUTS)
def test_rules_hold_whatever_tables_history_consists_of(engine, layout):
    fill(engine, layout, due=0)
    with engine.begin() as connection:
        connection.execute(text("UPDATE tree.job_history SET expires_at = NULL"))
    options = {"clock": lambda: NOW, "history_retention": "never"}
    rule = RetentionRule(task_identifier="t", keep_last=7)
    store = create_store(engine, retention_rules=[rule], **options)

    assert store.expire(dry_run=True) == LIVE - 7
    assert store.expire(batch_size=10) == LIVE - 7
    assert remaining(engine) == live_ones(7)
    create_store(engine, retention_rules=[RetentionRule(keep="1 s")], **options).expire()
    assert len(remaining(engine)) == 1  # which has started less than a second ago


@pytest.mark.parametrize("layout", TREES)
def test_rows_that_a_trigger_keeps_do_not_stop_the_others(engine, layout, store, caplog):
    fill(engine, layout)
    with engine.begin() as connection:
        connection.execute(
            text(
                "CREATE FUNCTION tree.hold() RETURNS trigger LANGUAGE plpgsql AS "
                "$$ BEGIN IF OLD.job_id LIKE '%1' THEN RETURN NULL; END IF; RETURN OLD; END $$"
            )
        )
        for table in [
            "job_history",
            *(["old", "new", "newest"] if layout == "inheritance" else ()),
        ]:
            connection.execute(
                text(
                    f"CREATE TRIGGER hold BEFORE DELETE ON tree.{table} "
                    "FOR EACH ROW EXECUTE FUNCTION tree.hold()"
                )
            )

    assert store.expire(batch_size=2) == DUE - 4
    assert [job for job in remaining(engine) if job.startswith("due")] == [
        "due-1",
        "due-11",
        "due-21",
        "due-31",
    ]
    assert "left 4 of" in caplog.text


def test_a_partition_that_is_detached_meanwhile_is_the_apps_own(engine, store):
    fill(engine, "range of ids", live=0)
    with engine.begin() as connection:
        connection.execute(text("UPDATE tree.job_history SET expires_at = :now"), {"now": NOW})

    calls = []

    def detach(deleted):
        calls.append(deleted)
        if calls.count(10) == 1:
            with engine.begin() as connection:
                connection.execute(text("ALTER TABLE tree.job_history DETACH PARTITION tree.old"))

    assert store.expire(batch_size=10, progress=detach) == 10
    with engine.connect() as connection:
        assert connection.scalar(text("SELECT count(*) FROM tree.old")) == DUE - 10


def test_a_partition_that_is_dropped_meanwhile_is_not_missed(engine, store):
    fill(engine, "range of ids", due=20, live=20)
    with engine.begin() as connection:
        connection.execute(text("UPDATE tree.job_history SET expires_at = :now"), {"now": NOW})

    def drop(deleted):
        if deleted == 10:  # of the first by name
            with engine.begin() as connection:
                connection.execute(text("DROP TABLE IF EXISTS tree.new"))

    assert store.expire(batch_size=10, progress=drop) == 30
    assert remaining(engine) == []


@pytest.fixture
def role(engine):
    """A role that may use the table, but owns nothing, and an engine that goes by it."""
    name = f"app_{uuid.uuid4().hex[:8]}"
    with engine.begin() as connection:
        connection.execute(text(f"CREATE ROLE {name}"))
        connection.execute(text(f"GRANT USAGE ON SCHEMA tree TO {name}"))
        connection.execute(
            text(f"GRANT SELECT, INSERT, UPDATE, DELETE ON tree.job_history TO {name}")
        )
        connection.execute(text(f"GRANT SELECT ON tree.job_history_state TO {name}"))
    yield name
    with engine.begin() as connection:
        connection.execute(text(f"DROP OWNED BY {name}"))
        connection.execute(text(f"DROP ROLE {name}"))


@pytest.fixture
def roles_engine(engine, role):
    options = {"schema_translate_map": {None: "tree"}}
    app = create_engine(engine.url, execution_options=options)
    event.listen(app, "connect", lambda c, _: c.execute(f"SET ROLE {role}") and c.commit())
    yield app
    app.dispose()


@pytest.mark.parametrize("layout", LAYOUTS)
def test_grants_on_the_table_alone_suffice(engine, layout, roles_engine):
    fill(engine, layout)
    store = create_store(roles_engine, clock=lambda: NOW)

    assert store.expire(batch_size=7) == DUE
    assert remaining(engine) == live_ones()


@pytest.mark.parametrize("layout", LAYOUTS)
def test_policies_of_the_table_hold_for_all_of_its_partitions(
    engine, layout, role, roles_engine, caplog
):
    fill(engine, layout)
    with engine.begin() as connection:
        connection.execute(text(f"GRANT ALL ON ALL TABLES IN SCHEMA tree TO {role}"))
        connection.execute(text("ALTER TABLE tree.job_history ENABLE ROW LEVEL SECURITY"))
        connection.execute(text("CREATE POLICY see ON tree.job_history FOR SELECT USING (true)"))
        connection.execute(
            text("CREATE POLICY change ON tree.job_history FOR ALL USING (job_id NOT LIKE '%1')")
        )
    store = create_store(roles_engine, clock=lambda: NOW)

    assert store.expire(batch_size=7) == DUE - 4
    assert len(remaining(engine)) == LIVE + 4
    assert "left 4 of" in caplog.text


@pytest.mark.parametrize("isolation_level", ["READ COMMITTED", "AUTOCOMMIT"])
def test_a_batch_that_deletes_more_than_it_selected_is_rolled_back(engine, isolation_level):
    """A view gives no means to tell the tables behind it apart."""
    with engine.begin() as connection:
        connection.execute(text("ALTER TABLE tree.job_history RENAME TO rows"))
        connection.execute(text("CREATE VIEW tree.job_history AS SELECT ctid, * FROM tree.rows"))
    fill(engine, "range of ids", due=20, live=20)
    with engine.begin() as connection:
        connection.execute(text("UPDATE tree.job_history SET expires_at = :now"), {"now": NOW})
    bind = engine.execution_options(isolation_level=isolation_level)
    store = create_store(bind, clock=lambda: NOW)

    with pytest.raises(UnsafeExpiry, match="'job_history' is a view"):
        store.expire(batch_size=5)
    assert len(remaining(engine)) == 40


def test_a_view_of_partitions_costs_no_live_row(engine, store):
    with engine.begin() as connection:
        connection.execute(text("ALTER TABLE tree.job_history RENAME TO rows"))
        connection.execute(text("CREATE VIEW tree.job_history AS SELECT ctid, * FROM tree.rows"))
    fill(engine, "range of ids")

    assert store.expire(batch_size=7) == DUE
    assert remaining(engine) == live_ones()


@pytest.mark.parametrize("layout", TREES)
def test_executions_in_any_table_are_reaped(engine, layout):
    fill(engine, layout)
    with engine.begin() as connection:
        connection.execute(
            text(
                "UPDATE tree.job_history SET status = 'started', error_type = NULL "
                "WHERE job_id LIKE '%1'"
            )
        )
    store = create_store(engine, clock=lambda: NOW)

    assert store.reap_lost("1 day", batch_size=3) == 4
    reaped = store.query(error_type="jobhistory.WorkerLost")
    assert sorted(record.job_id for record in reaped) == ["due-1", "due-11", "due-21", "due-31"]
    assert len(store.query(status="started")) == 9
