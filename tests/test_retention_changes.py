"""Rules as people write them, rules that change, and the last N executions of a task."""

from __future__ import annotations

import json
import os
import threading
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from sqlalchemy import create_engine, event, select, text
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from jobhistory import (
    AsyncRecorder,
    InvalidInput,
    Job,
    Recorder,
    RetentionRule,
    create_async_store,
    create_store,
    load_retention_rules,
)
from jobhistory.database.statements import write
from jobhistory.database.statements.outcomes import OutcomeStatements
from jobhistory.execution.retention import Retention
from jobhistory.execution.status import Status
from jobhistory.schema import TABLE
from tests import command_line
from tests.test_cli import lines, run, url  # noqa: F401 - fixtures
from tests.test_retention_rules import rule_of, specs

# ruff: noqa: F811

DAY = timedelta(days=1)
FAILURES = RetentionRule(status="failed", keep="365 days")
NIGHTLY = RetentionRule(task_identifier="nightly", keep_last=2)
ACME = RetentionRule(labels={"tenant": "acme"}, keep="forever")

FILE = """
[[retention]]
labels = {tenant = "acme"}
keep = "forever"

[[retention]]
task_identifier = "nightly"
keep_last = 2

[[retention]]
status = "failed"
keep = "365 days"
"""


# Rules as people write them.


@given(specs)
def test_a_rule_survives_json(spec):
    rule = rule_of(spec)
    assert RetentionRule.of(json.loads(json.dumps(rule.to_dict()))) == rule


@pytest.mark.parametrize(
    ("rule", "words"),
    [
        (ACME, "keep executions with tenant=acme forever"),
        (NIGHTLY, "keep the last 2 executions of nightly"),
        (FAILURES, "keep failed executions for 365 days"),
        (
            RetentionRule(
                status=["partial_success", "failed"],
                task_identifier=["b", "a"],
                labels={"tenant": "x", "queue": "y"},
                keep=timedelta(days=1, hours=12),
            ),
            "keep failed or partial success executions of a or b with queue=y and tenant=x "
            "for 1 day 12 hours",
        ),
        (
            RetentionRule(task_identifier=["b", "a"], status="failed", keep_last=5),
            "keep the last 5 failed executions of each of a and b",
        ),
    ],
)
def test_a_rule_says_in_words_what_it_does(rule, words):
    assert str(rule) == words


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "keep None and keep_last exclude each other, and one of them is required"),
        ({"keep": "1 day", "keep_last": 1}, "keep '1 day' and keep_last exclude each other"),
        ({"keep": 7}, "keep 7 has no unit; write it like '30 days' or '12h'"),
        ({"keep": "never"}, "keep 'never' is not a time; write 'forever', or one like '30 days'"),
        ({"keep": "1.5s"}, "keep '1.5s' is not in whole seconds; write it like '30 days'"),
        ({"keep": "400000 days"}, "keep '400000 days' is longer than 1,000 years"),
        ({"keep_last": 3}, "keep_last 3 requires a task; add task_identifier"),
        ({"keep_last": 0, "task_identifier": "t"}, "keep_last 0 is not a whole number from 1 up"),
        ({"keep": "1 day", "status": "started"}, "status 'started' is not an outcome"),
        ({"keep": "1 day", "status": "gone"}, "status 'gone' is not a status; use one of"),
        ({"keep": "1 day", "status": []}, "status [] is empty; leave it out, or write ['failed']"),
        ({"keep": "1 day", "task_identifier": 3}, "task_identifier 3 is not a name"),
        ({"keep": "1 day", "labels": {"T": "a"}}, "labels 'T' is not the name of a label"),
    ],
)
def test_a_rule_that_cannot_be_used_is_refused(arguments, message):
    with pytest.raises(InvalidInput) as caught:
        RetentionRule(**arguments)
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"retention_rules": FAILURES}, "retention_rules RetentionRule("),
        ({"retention_rules": [{"keep": "1 day"}]}, "retention_rules[0] {'keep': '1 day'} is not"),
        (
            {"retention_rules": [FAILURES], "history_retention": "1.5 s"},
            "history_retention '0:00:01.500000' is not in whole seconds",
        ),
    ],
)
def test_a_store_refuses_what_are_no_rules(options, message):
    for create in (create_store, create_async_store):
        with pytest.raises(InvalidInput) as caught:
            create(**options)
        assert str(caught.value).startswith(message)


def test_rules_are_read_from_a_file_in_order(tmp_path):
    path = tmp_path / "rules.toml"
    path.write_text(FILE)
    assert load_retention_rules(path) == [ACME, NIGHTLY, FAILURES]
    path.write_text("")
    assert load_retention_rules(str(path)) == []


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[[retention]]\nkeep = '7'", "[[retention]] number 1: keep '7' is not a duration"),
        (
            "[[retention]]\nkeep = '7 d'\n[[retention]]\ntask = 'x'\nkeep = '7 d'",
            "[[retention]] number 2: key 'task' is not a key of a retention rule; use one of keep,",
        ),
        ("[retention]\nkeep = '7 d'", "retention {'keep': '7 d'} is not a list of tables; write"),
        ("retention = [3]", "[[retention]] number 1 3 is not a table; write"),
        ("[[rules]]\nkeep = '7 d'", "key 'rules' is unknown; write tables such as [[retention]]"),
    ],
)
def test_a_file_with_errors_is_refused_with_their_place(tmp_path, content, message):
    path = tmp_path / "rules.toml"
    path.write_text(content)
    with pytest.raises(InvalidInput) as caught:
        load_retention_rules(path)
    assert str(caught.value).startswith(f"{path}: {message}")


def test_a_file_that_is_not_toml_is_refused(tmp_path):
    path = tmp_path / "rules.toml"
    path.write_text("keep the failures")
    with pytest.raises(
        InvalidInput, match=r"^file '.*rules.toml' is not TOML: .*; write tables such as"
    ):
        load_retention_rules(path)


# Outcomes.


def test_without_rules_the_statements_are_the_plain_ones():
    statements = OutcomeStatements(Retention(DAY))
    assert set(statements.finish.values()) == {write.FINISH}
    assert set(statements.finish_by_id.values()) == {write.FINISH_BY_ID}
    assert set(statements.finish_many.values()) == {write.FINISH_MANY}
    assert set(statements.replace_lost.values()) == {write.REPLACE_LOST}
    assert set(statements.finish_row.values()) == {write.FINISH_ROW}
    for name, dialect in (("postgresql", postgresql.dialect()), ("sqlite", sqlite.dialect())):
        plain = write.insert_or_finish(name, lambda new: {}).compile(dialect=dialect)
        inserts = statements.insert_or_finish(name, ("id",)).compile(dialect=dialect)
        assert (str(inserts), inserts.params) == (str(plain), plain.params)


def test_rules_never_make_a_completion_change_its_expiry():
    statements = OutcomeStatements(Retention(DAY, (ACME, NIGHTLY, FAILURES)))
    changed = {
        status for status, statement in statements.finish.items() if statement is not write.FINISH
    }
    assert changed == {Status.FAILED}
    assert statements.finish_many[Status.COMPLETED] is write.FINISH_MANY


@pytest.mark.parametrize("is_async", [False, True])
@pytest.mark.parametrize("flushes", [False, True])
def test_recorders_follow_the_rules(database, clock, event_loop_thread, is_async, flushes):
    options = {"retention_rules": [FAILURES], "history_retention": "7 days", "clock": clock}
    store = create_store(database.engine, **options)

    async def in_loop():
        async with AsyncRecorder(store) as recorder:
            for number, error in enumerate((None, "x", "x")):
                kept = "1 day" if number == 2 else None
                await recorder.record_start(Job(number, "t"), "w", "c", history_retention=kept)
                if flushes:
                    await recorder.flush()
                if error is None:
                    await recorder.record_completion(number, "w", "c", 1)
                else:
                    await recorder.record_failure(number, "w", "c", 1, error)

    def in_thread():
        with Recorder(store) as recorder:
            for number, error in enumerate((None, "x", "x")):
                kept = "1 day" if number == 2 else None
                recorder.record_start(Job(number, "t"), "w", "c", history_retention=kept)
                if flushes:
                    recorder.flush()
                if error is None:
                    recorder.record_completion(number, "w", "c", 1)
                else:
                    recorder.record_failure(number, "w", "c", 1, error)

    event_loop_thread.run(in_loop()) if is_async else in_thread()
    for records in (store.query(), store.recent()):
        kept = {record.job_id: record.expires_at - clock() for record in records}
        assert kept == {"0": 7 * DAY, "1": 365 * DAY, "2": DAY}


def test_a_failure_that_survives_a_rollback_is_kept_as_one(database, clock):
    store = create_store(
        database.engine, retention_rules=[FAILURES], history_retention="7 days", clock=clock
    )
    with Session(database.engine) as session:
        begun = store.in_session(session).begin(Job("1", "t"), "w", "c")
        begun.end("x")
        session.rollback()
    (record,) = store.query()
    assert record.expires_at == clock() + 365 * DAY


def test_a_store_without_rules_reaps_by_those_that_were_applied(database, clock):
    options = {"history_retention": "7 days", "clock": clock}
    store = create_store(database.engine, retention_rules=[FAILURES], **options)
    store.expire()
    record = store.record_start(Job("1", "t"), "w", "c")
    clock.advance(hours=2)
    assert create_store(database.engine, clock=clock).reap_lost("1h") == 1
    assert store.get(record.id).expires_at == record.started_at + 365 * DAY


# Changed rules.


def fill(engine, clock, count=10, **options):
    """Executions a minute apart: of nightly and other tasks in turn, each third a failure."""
    store = create_store(engine, clock=clock, **options)
    store.record_many(
        {
            "job_id": f"job-{number}",
            "task_identifier": "nightly" if number % 2 else "other",
            "worker_id": "w",
            "correlation_id": "c",
            "status": "completed" if number % 3 else "failed",
            "error_type": None if number % 3 else "E",
            "labels": {"tenant": "acme"} if number == 4 else None,
            "started_at": clock() + timedelta(minutes=number),
            "execution_time_ms": 1,
        }
        for number in range(count)
    )
    return store


def kept(engine):
    """How many days each job is kept; `None` for those that are kept forever."""
    with engine.connect() as connection:
        rows = connection.execute(select(TABLE.c.job_id, TABLE.c.started_at, TABLE.c.expires_at))
        return {
            int(job.removeprefix("job-")): end and (end - start) // DAY for job, start, end in rows
        }


def test_the_first_rules_apply_to_what_the_store_kept_before(database, clock):
    fill(database.engine, clock)
    fill(database.engine, clock, count=0)
    own = create_store(database.engine, clock=clock, history_retention="90 days")
    own.record_start(Job("job-99", "nightly"), "w", "c")

    store = create_store(database.engine, clock=clock, retention_rules=[ACME, NIGHTLY, FAILURES])
    clock.advance(hours=1)
    assert store.expire(dry_run=True) == 3
    before = store.retention()
    assert [(each.covered, each.to_change, each.to_delete) for each in before] == [
        (1, 1, 0),
        (5, 5, 3),
        (2, 2, 0),
        (2, 0, 0),
        (1, 0, 0),
    ]
    assert store.expire(batch_size=3) == 3
    assert kept(database.engine) == {
        0: 365,
        2: 30,
        4: None,
        6: 365,
        8: 30,
        7: None,
        9: None,
        99: 90,
    }
    after = store.retention()
    assert [each.to_change + each.to_delete for each in after] == [0] * 5
    assert [each.rule for each in after] == [ACME, NIGHTLY, FAILURES, None, None]
    assert after[3].description == "keep others for 30 days"
    assert after[1].to_dict() == {
        "rule": {"keep_last": 2, "task_identifier": ["nightly"]},
        "description": "keep the last 2 executions of nightly",
        "covered": 2,
        "to_change": 0,
        "to_delete": 0,
    }


def test_rules_that_are_taken_back_leave_the_default(database, clock):
    fill(database.engine, clock, retention_rules=[FAILURES, ACME]).expire()
    create_store(database.engine, clock=clock, retention_rules=[]).expire()
    assert set(kept(database.engine).values()) == {30}


def test_a_changed_default_applies_as_well(database, clock):
    fill(database.engine, clock, retention_rules=[FAILURES]).expire()
    changed = create_store(
        database.engine, clock=clock, retention_rules=[FAILURES], history_retention="never"
    )
    changed.expire()
    assert set(kept(database.engine).values()) == {365, None}


def test_a_call_without_rules_finishes_what_its_time_limit_interrupted(database, clock, caplog):
    fill(database.engine, clock, retention_rules=[])
    store = create_store(database.engine, clock=clock, retention_rules=[FAILURES])
    # Due by the old rules, not by the new ones: nothing is deleted before these are applied.
    clock.advance(days=31)
    store.expire(batch_size=3, time_limit="0.000001s")
    assert "reached its time limit" in caplog.text
    assert sorted(kept(database.engine).values()) == [30] * 9 + [365]

    plain = create_store(database.engine, clock=clock)
    assert plain.expire(dry_run=True) == 6
    assert plain.expire(batch_size=3) == 6
    assert set(kept(database.engine).values()) == {365}


def test_rules_may_change_while_others_are_being_applied(database, clock):
    fill(database.engine, clock, retention_rules=[])
    for days in (50, 60, 70):
        rule = RetentionRule(keep=f"{days} days")
        store = create_store(database.engine, clock=clock, retention_rules=[rule])
        store.expire(batch_size=3, time_limit="0.000001s")
    assert (
        sorted(set(kept(database.engine).values())) == [30, 60, 70]
        or len(set(kept(database.engine).values())) == 2
    )
    store.expire(batch_size=3)
    assert set(kept(database.engine).values()) == {70}
    # And back.
    create_store(database.engine, clock=clock, retention_rules=[]).expire()
    assert set(kept(database.engine).values()) == {30}


def test_an_error_while_rules_are_applied_leaves_a_state_to_go_on_from(database, clock):
    fill(database.engine, clock, retention_rules=[])
    engine = create_engine(database.url)
    store = create_store(engine, clock=clock, retention_rules=[FAILURES])
    updates = []

    @event.listens_for(engine, "before_cursor_execute")
    def fail(connection, cursor, statement, parameters, context, executemany):
        if statement.startswith("UPDATE job_history SET"):
            updates.append(statement)
            if len(updates) == 2:
                raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        store.expire(batch_size=3)
    assert sorted(kept(database.engine).values()) == [30] * 9 + [365]
    store.expire(batch_size=3)
    assert sorted(kept(database.engine).values()) == [30] * 6 + [365] * 4
    engine.dispose()


def test_several_at_once_apply_rules_together(database, clock):
    fill(database.engine, clock, count=200, retention_rules=[])
    engines = [create_engine(database.url) for _ in range(3)]
    stores = [
        create_store(engine, clock=clock, retention_rules=[NIGHTLY, FAILURES]) for engine in engines
    ]
    counts = []
    threads = [
        threading.Thread(target=lambda store=store: counts.append(store.expire(batch_size=7)))
        for store in stores
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for engine in engines:
        engine.dispose()
    assert sum(counts) == 98
    days = kept(database.engine)
    assert {number: days[number] for number in (0, 2, 6, 197, 199)} == {
        0: 365,
        2: 30,
        6: 365,
        197: None,
        199: None,
    }
    assert len(days) == 102


# The last N.


@pytest.mark.parametrize("batch_size", [1, 3, 100])
def test_the_last_executions_of_a_task_stay(database, clock, batch_size):
    fill(database.engine, clock, count=30, retention_rules=[NIGHTLY]).expire()
    plain = create_store(database.engine, clock=clock)  # such as that of the command line
    nightly = {number for number in kept(database.engine) if number % 2}
    assert nightly == {27, 29}

    fill(database.engine, clock_at(clock, hours=1), count=8, retention_rules=[NIGHTLY])
    assert plain.expire(dry_run=True) == 4
    assert plain.expire(batch_size=batch_size) == 4
    with database.engine.connect() as connection:
        found = connection.scalars(
            select(TABLE.c.job_id).where(TABLE.c.task_identifier == "nightly")
        )
        assert sorted(found) == ["job-5", "job-7"]


def clock_at(clock, **later):
    clock.advance(**later)
    return clock


def test_a_running_execution_neither_counts_nor_goes(database, clock):
    store = create_store(database.engine, clock=clock, retention_rules=[NIGHTLY])
    for number in range(5):
        store.record_start(Job(number, "nightly"), "w", "c")
        clock.advance(minutes=1)
        if number not in (0, 4):
            store.record_completion(number, "w", "c", 1)
    assert store.expire() == 1
    assert {record.job_id for record in store.query()} == {"0", "2", "3", "4"}


def test_rows_in_use_do_not_stop_the_others(database, clock, caplog):
    store = fill(database.engine, clock, count=30, retention_rules=[NIGHTLY])
    kind = "uuid" if database.name == "postgresql" else "CHAR(32)"
    with database.engine.begin() as connection:
        if database.name == "postgresql":
            connection.execute(
                text(f"CREATE TABLE uses (id {kind} REFERENCES job_history DEFERRABLE)")
            )
            connection.execute(
                text(
                    "INSERT INTO uses SELECT id FROM job_history WHERE job_id IN ('job-3','job-9')"
                )
            )
        else:
            connection.execute(
                text(
                    "CREATE TRIGGER hold BEFORE DELETE ON job_history "
                    "WHEN OLD.job_id IN ('job-3', 'job-9') BEGIN SELECT RAISE(IGNORE); END"
                )
            )
    try:
        assert store.expire(batch_size=4) == 11
        left = {number for number in kept(database.engine) if number % 2}
        assert left == {3, 9, 27, 29}
        assert "left 2 of" in caplog.text
    finally:
        with database.engine.begin() as connection:
            if database.name == "postgresql":
                connection.execute(text("DROP TABLE uses"))


def test_a_locked_execution_goes_the_next_time(postgres_database, clock):
    engine = postgres_database.engine
    store = fill(engine, clock, retention_rules=[NIGHTLY])
    store.expire(time_limit="0.000001s")  # applies the rules
    with engine.connect() as other, other.begin():
        other.execute(text("SELECT 1 FROM job_history WHERE job_id = 'job-1' FOR UPDATE"))
        assert store.expire() == 2
    assert store.expire() == 1


# The command line.


def test_the_command_line_follows_a_file(run, url, database, tmp_path):
    path = tmp_path / "rules.toml"
    path.write_text(FILE)
    now = datetime.now(UTC).replace(microsecond=0) - timedelta(hours=1)
    fill(database.engine, lambda: now)
    options = ("--url", url, "--rules", path)

    status, out, err = run("retention", *options)
    assert (status, err) == (0, "")
    assert lines(out) == [
        ["COVERED", "TO CHANGE", "TO DELETE", "RULE"],
        ["1", "1", "0", "keep executions with tenant=acme forever"],
        ["5", "5", "3", "keep the last 2 executions of nightly"],
        ["2", "2", "0", "keep failed executions for 365 days"],
        ["2", "0", "0", "keep others for 30 days"],
        ["0", "0", "0", "keep executions with a retention of their own until it ends"],
    ]
    assert run("expire", *options, "--dry-run")[1] == "3 executions would be deleted\n"
    assert run("expire", *options, "--json")[1] == '{"deleted": 3}\n'
    rows = [json.loads(line) for line in run("retention", "--url", url, "--json")[1].splitlines()]
    assert [row["covered"] for row in rows] == [1, 2, 2, 2, 0]
    assert rows[1]["rule"] == {"keep_last": 2, "task_identifier": ["nightly"]}


def test_a_forgotten_option_does_not_change_the_default(run, url, database, tmp_path):
    path = tmp_path / "rules.toml"
    path.write_text(FILE)
    now = datetime.now(UTC)
    fill(database.engine, lambda: now, history_retention="never")
    assert run("expire", "--url", url, "--rules", path, "--retention", "never")[0] == 0
    assert run("expire", "--url", url, "--rules", path)[0] == 0
    assert None in kept(database.engine).values()
    assert 30 not in kept(database.engine).values()


def test_run_records_by_the_rules_even_if_it_cannot_read_them(url, database, tmp_path):
    path = tmp_path / "rules.toml"
    path.write_text(FILE)
    environment = {
        **os.environ,
        "XDG_DATA_HOME": str(tmp_path / "data"),
        "JOBHISTORY_RETENTION_RULES": str(path),
    }

    def run(job_id, command):
        arguments = ("run", "--url", url, "--job-id", job_id, "--", command)
        return command_line.run(*arguments, env=environment)

    assert run("job-1", "false").returncode == 1
    assert run("job-2", "true").returncode == 0
    path.unlink()
    done = run("job-3", "true")
    assert done.returncode == 0
    assert done.stderr.startswith("jobhistory: recorded without retention rules: ")
    path.write_text("[[retention]]")
    assert run("job-4", "true").returncode == 2
    assert kept(database.engine) == {1: 365, 2: 30, 3: 30}


def test_a_default_needs_rules(run, url):
    status, _, err = run("expire", "--url", url, "--retention", "7 days")
    assert (status, err) == (
        2,
        "jobhistory: --retention '7 days' has no effect without --rules; add them\n",
    )
