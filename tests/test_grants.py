"""Who owns the tables of statistics, and who may read and fold them."""

from __future__ import annotations

import os
import uuid

import pytest
from sqlalchemy import create_engine, text

from jobhistory import SchemaOutOfDate, create_store, migrate
from jobhistory.archive_schema import ARCHIVE_TABLES
from jobhistory.expectation_schema import EXPECTATION_TABLES
from jobhistory.rollup_schema import ROLLUP_TABLES, STATE, TRIGGERS
from jobhistory.schema import Base
from tests import command_line
from tests.conftest import as_role

TABLES = [table.name for table in (*ROLLUP_TABLES, *EXPECTATION_TABLES, *ARCHIVE_TABLES)]
PRIVILEGES = ["SELECT", "INSERT", "UPDATE", "DELETE"]


def run(engine, *statements):
    with engine.begin() as connection:
        for statement in statements:
            connection.exec_driver_sql(statement)


def record(store, task="t"):
    ids = {"job_id": "1", "worker_id": "w", "correlation_id": "c"}
    store.record_execution(ids | {"task_identifier": task}, status="completed")


@pytest.fixture
def owner(bare_postgres_url):
    """The engine of a superuser, in a database whose history has no tables of statistics yet."""
    engine = create_engine(bare_postgres_url)
    migrate.upgrade(engine, "jobhistory_0013")
    yield engine
    engine.dispose()


@pytest.fixture
def role(owner):
    """A role with a name that needs quotes."""
    name = f'"Role {uuid.uuid4().hex[:12]}"'
    run(owner, f"CREATE ROLE {name}")
    yield name
    run(owner, f"DROP OWNED BY {name}", f"DROP ROLE {name}")


@pytest.fixture
def app(owner, role):
    escaped = role.strip('"').replace(" ", r"\ ")
    engine = create_engine(as_role(owner.url, escaped))
    yield engine
    engine.dispose()


def privileges(app, table):
    with app.connect() as connection:
        return [
            privilege
            for privilege in PRIVILEGES
            if connection.scalar(
                text("SELECT has_table_privilege(:table, :privilege)"),
                {"table": table, "privilege": privilege},
            )
        ]


def test_the_migration_copies_the_grants_of_the_history(owner, app, role):
    run(owner, f"GRANT SELECT, INSERT ON job_history TO {role}")
    run(owner, "GRANT UPDATE ON job_history TO PUBLIC")
    migrate.upgrade(owner)
    for table in TABLES:
        assert privileges(app, table) == ["SELECT", "INSERT", "UPDATE"]


def test_under_row_level_security_nobody_is_granted_what_all_roles_wrote(owner, app, role):
    run(
        owner,
        f"GRANT SELECT, INSERT, UPDATE, DELETE ON job_history TO {role}",
        "ALTER TABLE job_history ENABLE ROW LEVEL SECURITY",
        "CREATE POLICY mine ON job_history USING (task_identifier = 'mine')",
    )
    migrate.upgrade(owner)
    for table in TABLES:
        if table != STATE.name:
            assert privileges(app, table) == []
    assert privileges(app, STATE.name) == ["SELECT", "INSERT", "UPDATE", "DELETE"]
    assert migrate.missing_grants(app) == ()
    record(create_store(app), "mine")
    assert create_store(app).expire() == 0
    with owner.connect() as connection:
        assert connection.scalar(text("SELECT count(*) FROM job_history_ended")) == 1


def test_missing_grants_are_statements_that_suffice(owner, app, role):
    migrate.upgrade(owner)
    assert migrate.missing_grants(owner) == ()
    run(owner, f"GRANT SELECT ON job_history TO {role}")
    assert migrate.missing_grants(app) == (), "it does not write"
    run(owner, f"GRANT INSERT ON job_history TO {role}")
    run(owner, f"GRANT SELECT, INSERT ON job_history_ended TO {role}")
    missing = migrate.missing_grants(app)
    assert missing == (
        f"GRANT UPDATE, DELETE ON job_history_ended TO {role}",
        f"GRANT SELECT, INSERT, UPDATE, DELETE ON job_history_rollup TO {role}",
        f"GRANT SELECT, INSERT, UPDATE, DELETE ON job_history_state TO {role}",
        f"GRANT SELECT, INSERT, UPDATE, DELETE ON job_history_expectation TO {role}",
        f"GRANT SELECT, INSERT, UPDATE, DELETE ON job_history_incident TO {role}",
        f"GRANT SELECT, INSERT, UPDATE, DELETE ON job_history_archive TO {role}",
    )
    run(owner, *missing)
    assert migrate.missing_grants(app) == ()


def test_missing_grants_name_any_schema(owner, app, role):
    name = """it's 100% "odd" :name"""
    migrate.upgrade(owner, schema=name)
    quoted = '"' + name.replace('"', '""').replace("%", "%%") + '"'
    run(
        owner,
        f"GRANT USAGE ON SCHEMA {quoted} TO {role}",
        f"GRANT INSERT ON {quoted}.job_history TO {role}",
    )
    missing = migrate.missing_grants(app, schema=name)
    assert len(missing) == len(TABLES)
    run(owner, *(each.replace("%", "%%") for each in missing))
    assert migrate.missing_grants(app, schema=name) == ()


def test_there_are_no_grants_on_sqlite(tmp_path):
    engine = create_engine(f"sqlite:///{tmp_path}/history.db")
    migrate.upgrade(engine)
    assert migrate.missing_grants(engine) == ()


def test_db_check_names_missing_grants_and_passes(owner, app, role):
    migrate.upgrade(owner)
    run(
        owner,
        f"GRANT SELECT, INSERT, UPDATE, DELETE ON job_history TO {role}",
        f"GRANT SELECT ON job_history_alembic_version TO {role}",
    )
    url = app.url.render_as_string(hide_password=False)
    done = command_line.run("db", "check", "--url", url, env=os.environ)
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert lines[:2] == [
        "the history table is up to date",
        "note: until you run this, statistics read rows, and another role must fold:",
    ]
    assert lines[2:] == [f"{each};" for each in migrate.missing_grants(app)]


def test_db_check_names_what_lacks_without_a_word_about_statistics(owner, app, role):
    migrate.upgrade(owner)
    run(
        owner,
        f"GRANT SELECT, INSERT, UPDATE, DELETE ON job_history, {', '.join(TABLES)} TO {role}",
        f"GRANT SELECT ON job_history_alembic_version TO {role}",
        f"REVOKE DELETE ON job_history_archive FROM {role}",
    )
    url = app.url.render_as_string(hide_password=False)
    done = command_line.run("db", "check", "--url", url, env=os.environ)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[1:] == [
        "note: until you run this, this role cannot use some features of expectations or archives:",
        f"GRANT DELETE ON job_history_archive TO {role};",
    ]


def test_db_check_of_a_role_that_may_nothing_says_what_it_needs(owner, app, role):
    migrate.upgrade(owner)
    url = app.url.render_as_string(hide_password=False)
    done = command_line.run("db", "check", "--url", url, env=os.environ)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        "jobhistory: permission denied for table job_history_alembic_version; a role that records "
        "needs SELECT, INSERT, UPDATE and DELETE on job_history, SELECT, INSERT and UPDATE on "
        "job_history_state, and SELECT on job_history_alembic_version\n"
    )


def test_the_owner_of_the_history_owns_what_a_superuser_adds(owner, role):
    run(owner, f"ALTER TABLE job_history OWNER TO {role}")
    migrate.upgrade(owner)
    owned = text(
        "SELECT relname FROM pg_class WHERE relkind = 'r' AND relowner = to_regrole(:role)"
        " UNION ALL SELECT proname FROM pg_proc WHERE proowner = to_regrole(:role)"
    )
    with owner.connect() as connection:
        found = {name for (name,) in connection.execute(owned, {"role": role})}
    functions = {f"job_history_queue_{name}" for name in ("inserted", "inserted_many", "updated")}
    assert found == {"job_history", *TABLES} | functions
    record(create_store(owner))
    assert migrate.check(owner) == ()


@pytest.mark.parametrize("may_create", [True, False])
def test_a_member_of_the_owning_role_may_migrate(owner, app, role, may_create):
    group = f'"group {uuid.uuid4().hex[:12]}"'
    run(
        owner,
        f"CREATE ROLE {group}",
        f"GRANT {group} TO {role}",
        f"ALTER TABLE job_history OWNER TO {group}",
        f"GRANT CREATE ON SCHEMA public TO {group if may_create else role}",
        f"GRANT SELECT, INSERT, UPDATE, DELETE ON job_history_alembic_version TO {role}",
    )
    try:
        migrate.upgrade(app)
        with owner.connect() as connection:
            owners = connection.scalars(
                text("SELECT tableowner FROM pg_tables WHERE tablename = ANY(:names)"),
                {"names": TABLES},
            ).all()
        assert owners == [(group if may_create else role).strip('"')] * len(TABLES)
        record(create_store(app))
    finally:
        run(owner, f"DROP OWNED BY {group}", f"DROP ROLE {group}")


def test_a_trigger_that_does_not_fire_is_a_difference(owner):
    migrate.upgrade(owner)
    names = TRIGGERS["postgresql"]
    run(owner, *(f"ALTER TABLE job_history ENABLE ALWAYS TRIGGER {name}" for name in names))
    assert migrate.check(owner) == ()
    for statement, state in [
        ("ALTER TABLE job_history DISABLE TRIGGER {}", "disabled"),
        ("ALTER TABLE job_history ENABLE REPLICA TRIGGER {}", "disabled"),
        ("DROP TRIGGER {} ON job_history", "missing"),
    ]:
        run(owner, *map(statement.format, names))
        with pytest.raises(SchemaOutOfDate) as caught:
            migrate.check(owner)
        assert caught.value.differences == tuple(f"trigger {name} is {state}" for name in names)


def test_create_all_queues_an_older_history(bare_database):
    """`create_all` adds the missing tables to one that an earlier version made."""
    engine = bare_database.engine
    migrate.upgrade(engine, "jobhistory_0013")
    record(create_store(engine))
    Base.metadata.create_all(engine)
    record(create_store(engine))
    with engine.connect() as connection:
        assert connection.scalar(text("SELECT count(*) FROM job_history_ended")) == 2
