"""What expiry and reaping do where a trigger, a policy or a foreign key keeps rows as they are."""

from __future__ import annotations

import itertools
import logging
import uuid

import pytest
from sqlalchemy import create_engine, event, text

from jobhistory import Job, create_store
from jobhistory._runtime import batches as batches_module
from jobhistory.rollup_schema import ROLLUP_TABLES
from tests.test_expire import NOW, fill, remaining

on_postgres = pytest.mark.parametrize("database", ["postgresql"], indirect=True)

KEPT = {
    "a full batch": range(21, 31),
    "all": range(1, 31),
    "the oldest and the newest": (1, 30),
    "every third": range(3, 31, 3),
}


@pytest.fixture
def store(database):
    return create_store(database.engine, clock=lambda: NOW)


@pytest.fixture
def execute(database):
    """Executes SQL in the database, and undoes it afterwards by other SQL."""
    undo = []

    def execute(*statements, undo_by=()):
        undo.extend(undo_by)
        with database.engine.begin() as connection:
            for statement in statements:
                connection.execute(text(statement))

    yield execute
    execute(*undo)


def set_trigger(database, execute, operation, condition, action):
    """Let a trigger keep rows that meet a condition, silently or by an error."""
    if database.name == "sqlite":
        sqlite_action = {"ignore": "RAISE(IGNORE)", "raise": "RAISE(ABORT, 'on legal hold')"}
        execute(
            f"CREATE TRIGGER hold BEFORE {operation} ON job_history WHEN {condition} "
            f"BEGIN SELECT {sqlite_action[action]}; END"
        )
        return
    postgres_action = {
        "ignore": "RETURN NULL",
        "raise": "RAISE EXCEPTION 'on legal hold'",
        "raise user-defined": "RAISE EXCEPTION 'on legal hold' USING ERRCODE = '45000'",
        "change": "UPDATE job_history SET expires_at = NULL WHERE id = OLD.id; RETURN OLD",
    }
    execute(
        "CREATE FUNCTION hold() RETURNS trigger LANGUAGE plpgsql AS "
        f"$$ BEGIN {postgres_action[action]}; END $$",
        f"CREATE TRIGGER hold BEFORE {operation} ON job_history FOR EACH ROW "
        f"WHEN ({condition}) EXECUTE FUNCTION hold()",
        undo_by=["DROP TRIGGER hold ON job_history", "DROP FUNCTION hold()"],
    )


def of(jobs):
    return f"OLD.job_id IN ({', '.join(repr(str(job)) for job in jobs)})"


def warnings(caplog):
    return [each.getMessage() for each in caplog.records if each.levelno == logging.WARNING]


@pytest.mark.parametrize("action", ["ignore", "raise"])
@pytest.mark.parametrize("at_once", [False, True], ids=["one by one", "at once"])
@pytest.mark.parametrize("kept", KEPT.values(), ids=KEPT)
def test_rows_that_a_trigger_keeps_stay_and_the_others_go(
    database, store, execute, caplog, kept, at_once, action
):
    fill(database, expired=30)
    if at_once:
        execute(
            "UPDATE job_history SET expires_at = '2015-10-31 00:00:00.000000' WHERE job_id > '0'"
        )
    set_trigger(database, execute, "DELETE", of(kept), action)
    seen = []

    assert store.expire(batch_size=10, progress=seen.append) == 30 - len(kept)
    assert remaining(database) == {*kept, *range(-10, 0)}
    assert seen[-1] == 30 - len(kept), "progress counts what was deleted"
    (warning,) = warnings(caplog)
    assert f"left {len(kept)} of the" in warning
    assert "trigger" in warning if action == "ignore" else "on legal hold" in warning

    assert store.expire(batch_size=10) == 0


@pytest.mark.parametrize("action", ["raise user-defined", "change"])
def test_other_errors_that_a_trigger_causes_keep_rows_as_well(
    database, store, execute, caplog, action
):
    if database.name == "sqlite":
        pytest.skip("its triggers have no such errors")
    fill(database, expired=30)
    set_trigger(database, execute, "DELETE", of([3, 4, 20]), action)
    assert store.expire(batch_size=10) == 27
    assert remaining(database) == {3, 4, 20, *range(-10, 0)}
    (warning,) = warnings(caplog)
    assert "left 3 of the" in warning


def reference(database, execute, jobs, *, deferred=False):
    """Let a table of the app refer to rows, without ON DELETE."""
    if database.name == "sqlite":

        @event.listens_for(database.engine, "connect")
        def enforce(connection, _):
            connection.execute("PRAGMA foreign_keys = ON")

        database.engine.dispose()
    execute(
        "CREATE TABLE notes (run {} REFERENCES job_history (id) {})".format(
            "uuid" if database.name == "postgresql" else "CHAR(32)",
            "DEFERRABLE INITIALLY DEFERRED" if deferred else "",
        ),
        f"INSERT INTO notes SELECT id FROM job_history AS old WHERE {of(jobs)}",
        undo_by=["DROP TABLE notes"],
    )


@pytest.mark.parametrize("deferred", [False, True], ids=["immediate", "deferred"])
@pytest.mark.parametrize("kept", KEPT.values(), ids=KEPT)
def test_rows_that_the_app_refers_to_stay_and_the_others_go(
    database, store, execute, caplog, kept, deferred
):
    fill(database, expired=30)
    reference(database, execute, kept, deferred=deferred)

    assert store.expire(batch_size=10) == 30 - len(kept)
    assert remaining(database) == {*kept, *range(-10, 0)}
    (warning,) = warnings(caplog)
    assert f"left {len(kept)} of the" in warning
    assert "ON DELETE" in warning

    execute("DELETE FROM notes")
    assert store.expire(batch_size=10) == len(kept)


@on_postgres
def test_rows_that_others_have_locked_are_not_kept_ones(database, store, execute, caplog):
    fill(database, expired=30)
    reference(database, execute, [20])
    with database.engine.connect() as other:
        other.execute(text("SELECT 1 FROM job_history WHERE job_id IN ('3', '21') FOR UPDATE"))
        assert store.expire(batch_size=10) == 27
    (warning,) = warnings(caplog)
    assert "left 1 of" in warning


POLICIES = {
    "none for DELETE": (["SELECT", "INSERT", "UPDATE"], 0),
    "none for UPDATE": (["SELECT", "INSERT", "DELETE"], 0),
    "only SELECT": (["SELECT"], 0),
    "all": (["SELECT", "INSERT", "UPDATE", "DELETE"], 30),
}


@pytest.fixture
def app_role(database, execute):
    """An engine of a role that owns nothing and is subject to policies; makes these."""
    role = f"app_{uuid.uuid4().hex[:8]}"
    engines = []

    def make(policies):
        execute(
            f"CREATE ROLE {role}",
            f"GRANT SELECT, INSERT, UPDATE, DELETE ON job_history TO {role}",
            *(
                f"GRANT SELECT, INSERT, UPDATE, DELETE ON {table.name} TO {role}"
                for table in ROLLUP_TABLES
            ),
            "ALTER TABLE job_history ENABLE ROW LEVEL SECURITY",
            *(
                f'CREATE POLICY "{each}" ON job_history FOR {each} '
                + ("WITH CHECK (true)" if each == "INSERT" else "USING (true)")
                for each in policies
            ),
            undo_by=[
                *(f'DROP POLICY "{each}" ON job_history' for each in policies),
                "ALTER TABLE job_history DISABLE ROW LEVEL SECURITY",
                f"DROP OWNED BY {role}",
                f"DROP ROLE {role}",
            ],
        )
        engine = create_engine(database.url)
        event.listen(engine, "connect", lambda c, _: c.execute(f"SET ROLE {role}") and c.commit())
        engines.append(engine)
        return engine

    yield make
    for engine in engines:
        engine.dispose()


@on_postgres
@pytest.mark.parametrize(("policies", "deleted"), POLICIES.values(), ids=POLICIES)
def test_expiry_ends_under_any_policies(database, app_role, caplog, policies, deleted):
    fill(database, expired=30)
    store = create_store(app_role(policies), clock=lambda: NOW)

    assert store.expire(dry_run=True) == 30
    assert store.expire(batch_size=10) == deleted
    assert len(remaining(database)) == 40 - deleted
    assert [("left 30 of" in each, "row-level" in each) for each in warnings(caplog)] == (
        [] if deleted else [(True, True)]
    )


@on_postgres
@pytest.mark.parametrize("policies", [policies for policies, _ in POLICIES.values()], ids=POLICIES)
def test_reaping_ends_under_any_policies(database, app_role, policies):
    fill(database, expired=30)
    with database.engine.begin() as connection:
        connection.execute(text("UPDATE job_history SET status = 'started'"))
    store = create_store(app_role(policies), clock=lambda: NOW)

    lost = 30 if "UPDATE" in policies else 0
    assert store.reap_lost("1 day", batch_size=10) == lost
    assert len(store.query(status="failed")) == lost


def test_the_time_limit_holds_where_batches_delete_nothing(
    database, store, execute, monkeypatch, caplog
):
    fill(database, expired=30)
    set_trigger(database, execute, "DELETE", of(range(1, 31)), "ignore")
    seconds = itertools.count(step=10)
    monkeypatch.setattr(batches_module, "monotonic", lambda: next(seconds))
    seen = []

    assert store.expire(batch_size=5, time_limit="25 s", progress=seen.append) == 0
    assert seen == [0, 0, 0]
    assert "time limit" in caplog.text


def test_a_store_is_usable_after_an_interrupt_between_batches(database, store):
    fill(database, expired=30)

    def interrupt(deleted):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        store.expire(batch_size=10, progress=interrupt)
    store.record_start(Job("new", "t"), "w", "c")
    assert store.expire(batch_size=10) == 20


@pytest.mark.parametrize("kept", KEPT.values(), ids=KEPT)
def test_reaping_passes_over_executions_that_a_trigger_keeps(
    database, store, execute, caplog, kept
):
    fill(database, expired=30)
    execute("UPDATE job_history SET status = 'started', error_type = NULL")
    set_trigger(database, execute, "UPDATE", of(kept), "ignore")
    seen = []

    assert store.reap_lost("1 day", batch_size=10, progress=seen.append) == 30 - len(kept)
    assert seen[-1] == 30 - len(kept)
    assert len(store.recent()) == 30 - len(kept)
    left = {int(record.job_id) for record in store.query(status="started")}
    assert left == {*kept, *range(-10, 0)}
    (warning,) = warnings(caplog)
    assert f"left {len(kept)} of the lost" in warning


@on_postgres
def test_reaping_ends_where_a_trigger_starts_executions_again(database, store, execute):
    fill(database, expired=30)
    execute(
        "UPDATE job_history SET status = 'started', error_type = NULL, started_at = '2015-10-01'",
        "CREATE FUNCTION hold() RETURNS trigger LANGUAGE plpgsql AS "
        "$$ BEGIN NEW.status := 'started'; RETURN NEW; END $$",
        "CREATE TRIGGER hold BEFORE UPDATE ON job_history FOR EACH ROW EXECUTE FUNCTION hold()",
        undo_by=["DROP TRIGGER hold ON job_history", "DROP FUNCTION hold()"],
    )
    batches = []

    store.reap_lost("1 day", batch_size=10, progress=batches.append)
    assert len(batches) == 5
