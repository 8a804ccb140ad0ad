"""`migrate.check`: what an app may add, what is damage, and tables that something else made."""

from __future__ import annotations

import os
import uuid

import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.exc import ProgrammingError

from jobhistory import (
    InvalidInput,
    Job,
    SchemaOutOfDate,
    create_store,
    migrate,
    new_execution_id,
)
from jobhistory.schema import Base
from tests import command_line


@pytest.fixture
def engine(bare_database):
    migrate.upgrade(bare_database.engine)
    return bare_database.engine


def run(engine, *statements):
    with engine.begin() as connection:
        for statement in statements:
            connection.execute(text(statement))


def differences(engine):
    with pytest.raises(SchemaOutOfDate) as caught:
        migrate.check(engine)
    for difference in caught.value.differences:
        assert difference in str(caught.value)
    return caught.value.differences


def test_what_the_app_adds_is_listed_and_is_no_damage(engine):
    run(
        engine,
        "ALTER TABLE job_history ADD COLUMN colour VARCHAR DEFAULT 'red' NOT NULL",
        "ALTER TABLE job_history ADD COLUMN tenant VARCHAR",
        "CREATE INDEX my_tenant ON job_history (tenant)",
        "CREATE INDEX my_lower ON job_history (lower(task_identifier))",
        "CREATE UNIQUE INDEX my_unique ON job_history (job_id, attempt_number)",
    )
    expected = {"column colour", "column tenant", "index my_tenant", "index my_unique"}
    if engine.dialect.name == "postgresql":
        run(
            engine,
            "ALTER TABLE job_history ADD COLUMN kind text GENERATED ALWAYS AS (status) STORED",
            "ALTER TABLE job_history ADD CONSTRAINT my_check CHECK (attempt_number >= 0)",
            "ALTER TABLE job_history ADD CONSTRAINT my_key UNIQUE (job_id, started_at)",
            "CREATE TABLE tenants (name varchar PRIMARY KEY)",
            "ALTER TABLE job_history ADD CONSTRAINT my_fk FOREIGN KEY (tenant) REFERENCES tenants",
            "COMMENT ON COLUMN job_history.job_id IS 'the job'",
            "COMMENT ON TABLE job_history IS 'all jobs'",
            "CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END'",
            "CREATE TRIGGER my_trigger BEFORE INSERT ON job_history"
            " FOR EACH ROW EXECUTE FUNCTION f()",
            # SQLAlchemy does not know this type.
            "ALTER TABLE job_history ADD COLUMN place int4range",
            "ALTER TABLE job_history ADD COLUMN odd pg_snapshot",
        )
        expected |= {"column kind", "column place", "column odd", "index my_lower"}
        expected |= {"constraint my_check", "constraint my_key", "constraint my_fk"}
    else:
        run(
            engine,
            "ALTER TABLE job_history ADD COLUMN kind VARCHAR AS (lower(status))",
            "CREATE TRIGGER my_trigger AFTER INSERT ON job_history BEGIN SELECT 1; END",
        )
        expected |= {"column kind"}

    assert set(migrate.check(engine)) == expected | {"trigger my_trigger"}
    store = create_store(engine)
    store.record_start(Job("1", "t"), "w", "c")
    store.record_completion("1", "w", "c", 1)


@pytest.mark.parametrize(
    ("statement", "expected"),
    [
        ("DROP INDEX ix_job_history_expires_at", "index ix_job_history_expires_at is missing"),
        ("ALTER TABLE job_history DROP COLUMN payload", "column payload is missing"),
        (
            "ALTER TABLE job_history RENAME COLUMN payload TO content",
            "column payload is missing",
        ),
        (
            "DROP INDEX ix_job_history_started_at;"
            "CREATE INDEX ix_job_history_started_at ON job_history (started_at, status)",
            "index ix_job_history_started_at differs",
        ),
        (
            "DROP INDEX ix_job_history_error_type_started_at;"
            "CREATE INDEX ix_job_history_error_type_started_at"
            " ON job_history (error_type, started_at, id) WHERE status = 'failed'",
            "index ix_job_history_error_type_started_at has another predicate",
        ),
    ],
)
def test_what_is_missing_or_different_is_damage_in_the_databases_terms(engine, statement, expected):
    run(engine, *statement.split(";"))
    assert differences(engine) == (expected,)


@pytest.mark.parametrize("bare_database", ["postgresql"], indirect=True)
@pytest.mark.parametrize(
    ("statement", "expected"),
    [
        ("ALTER TABLE job_history ALTER job_id DROP NOT NULL", "column job_id is nullable"),
        ("ALTER TABLE job_history ALTER payload SET NOT NULL", "column payload is NOT NULL"),
        (
            "ALTER TABLE job_history ALTER job_id TYPE varchar(20)",
            "column job_id is VARCHAR(20) instead of VARCHAR(255)",
        ),
        (
            "ALTER TABLE job_history ADD tenant text NOT NULL",
            "column tenant is NOT NULL and has no default",
        ),
        (
            "ALTER TABLE job_history DROP CONSTRAINT ck_job_history_status",
            "constraint ck_job_history_status is missing",
        ),
        (
            "ALTER TABLE job_history DROP CONSTRAINT ck_job_history_status;"
            "ALTER TABLE job_history ADD CONSTRAINT ck_job_history_status"
            " CHECK (status IN ('started', 'completed', 'failed'))",
            "constraint ck_job_history_status refuses 'partial_success', 'cancelled'",
        ),
        (
            "ALTER TABLE job_history DROP CONSTRAINT pk_job_history",
            "the primary key is missing",
        ),
        (
            "DROP INDEX ix_job_history_job_id_started_at;"
            "CREATE INDEX ix_job_history_job_id_started_at ON job_history (job_id, started_at)",
            "index ix_job_history_job_id_started_at differs",
        ),
    ],
)
def test_on_postgresql_more_can_be_changed_and_is_damage(engine, statement, expected):
    run(engine, *statement.split(";"))
    assert differences(engine) == (expected,)


def test_a_table_that_create_all_made_is_up_to_date_and_adopted(bare_database):
    engine = bare_database.engine
    Base.metadata.create_all(engine)
    assert migrate.check(engine) == ()
    assert migrate.current(engine) is None
    store = create_store(engine)
    store.record_start(Job("1", "t"), "w", "c")

    migrate.upgrade(engine)
    assert migrate.current(engine) == migrate.HEAD
    assert len(store.query()) == 1
    migrate.downgrade(engine, "base")
    migrate.upgrade(engine)


def test_a_table_that_another_tool_made_otherwise_is_left_alone(bare_database):
    engine = bare_database.engine
    run(
        engine,
        "CREATE TABLE job_history (id INTEGER, note TEXT)",
        "INSERT INTO job_history VALUES (1, 'mine')",
    )
    for call in (migrate.check, migrate.upgrade, lambda e: migrate.downgrade(e, "base")):
        with pytest.raises(SchemaOutOfDate, match="was not made by") as caught:
            call(engine)
        assert "column job_id is missing" in caught.value.differences
    with pytest.raises(SchemaOutOfDate, match="column job_id is missing"):
        create_store(engine).query()
    with engine.connect() as connection:
        assert connection.execute(text("SELECT * FROM job_history")).all() == [(1, "mine")]


def set_revision(engine, revision):
    run(engine, f"UPDATE job_history_alembic_version SET version_num = '{revision}'")


NAMED = {"worker_id": "w", "correlation_id": "c", "task_identifier": "t", "status": "completed"}
NO_LONGER = "revision {}, which no longer exists: save the rows that you need, drop all tables"


@pytest.mark.parametrize("revision", ["0002", "jobhistory_0001", "jobhistory_0002"])
def test_a_revision_from_before_the_rewrite_says_what_to_do_and_loses_nothing(engine, revision):
    create_store(engine).record_start(Job("1", "t"), "w", "c")
    set_revision(engine, revision)
    run(engine, "ALTER TABLE job_history DROP COLUMN labels")
    message = NO_LONGER.format(revision)
    for call in (migrate.check, migrate.upgrade, lambda e: migrate.downgrade(e, "base")):
        with pytest.raises(SchemaOutOfDate, match=message):
            call(engine)
    store = create_store(engine)
    for use in (
        store.query,
        lambda: store.record_execution(job_id="2", **NAMED, execution_id=new_execution_id()),
        lambda: store.record_completion("1", "w", "c", 5),
    ):
        with pytest.raises(SchemaOutOfDate, match=message):
            use()
    assert migrate.current(engine) == revision
    with engine.connect() as connection:
        assert connection.scalar(text("SELECT count(*) FROM job_history")) == 1


@pytest.mark.parametrize("command", ["upgrade", "check", "downgrade base"])
def test_the_command_line_says_what_to_do_about_such_a_revision_in_one_sentence(engine, command):
    set_revision(engine, "jobhistory_0002")
    run(engine, "ALTER TABLE job_history DROP COLUMN labels")
    url = engine.url.render_as_string(hide_password=False)
    done = command_line.run("db", *command.split(), "--url", url, env=os.environ)

    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert NO_LONGER.format("jobhistory_0002") in line
    assert done.stdout == ""


def test_a_revision_from_before_the_rewrite_is_adopted_if_its_table_equals_the_model(engine):
    set_revision(engine, "0003")
    assert migrate.check(engine) == ()
    migrate.upgrade(engine)
    assert migrate.current(engine) == migrate.HEAD


def test_a_table_that_was_dropped_by_hand_can_be_made_again(engine):
    run(engine, "DROP TABLE job_history")
    assert migrate.current(engine) is None
    with pytest.raises(SchemaOutOfDate, match="no history table"):
        migrate.check(engine)
    with pytest.raises(SchemaOutOfDate, match="no history table"):
        create_store(engine).query()
    migrate.upgrade(engine)
    migrate.check(engine)


def as_role(engine, role, *statements):
    """An engine of the same database, for a new role that may log in."""
    run(engine, f"CREATE ROLE {role} LOGIN", *statements)
    return create_engine(engine.url.set(username=role))


@pytest.fixture
def role(postgres_database):
    """The name of a role, which is dropped at the end."""
    name = f"jobhistory_test_{uuid.uuid4().hex[:12]}"
    yield name
    run(postgres_database.engine, f"DROP OWNED BY {name}", f"DROP ROLE {name}")


def test_an_app_needs_no_more_than_to_read_and_write_the_rows(role, postgres_database):
    app = as_role(
        postgres_database.engine,
        role,
        f"GRANT SELECT, INSERT, UPDATE, DELETE ON job_history TO {role}",
        f"GRANT SELECT ON job_history_state, job_history_alembic_version TO {role}",
    )
    assert migrate.check(app) == ()
    assert migrate.current(app) == migrate.HEAD
    migrate.upgrade(app)
    store = create_store(app)
    store.record_start(Job("1", "t"), "w", "c")
    store.record_completion("1", "w", "c", 1)
    assert store.expire() == 0
    with pytest.raises(ProgrammingError, match="must be owner"):
        migrate.downgrade(app, "jobhistory_0011")
    app.dispose()


def test_a_role_without_a_schema_is_told_so(role, bare_postgres_url):
    owner = create_engine(bare_postgres_url)
    migrate.upgrade(owner)
    migrate.upgrade(owner, schema="audit")
    app = as_role(owner, role, "REVOKE ALL ON SCHEMA public FROM public")
    with pytest.raises(InvalidInput, match="grant this role USAGE"):
        migrate.check(app)
    with pytest.raises(ProgrammingError, match="permission denied for schema audit"):
        migrate.check(app, schema="audit")
    app.dispose()
    owner.dispose()
