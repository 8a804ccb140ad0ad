"""The commands that answer: list, show, expire and db."""

from __future__ import annotations

import json
import logging
import os
import re
import sqlite3
import uuid
from datetime import UTC, datetime, timedelta
from io import StringIO

import pytest
from sqlalchemy import create_engine, text

from jobhistory import Job, __version__, create_store, migrate, new_execution_id, partitioning
from jobhistory._runtime.durations import took
from jobhistory.cli import main, program
from jobhistory.cli.commands import read
from jobhistory.schema import COLUMN_NAMES
from tests import command_line

LONG_AGO = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture
def run(capsys, monkeypatch, tmp_path):
    """Runs a command in this process; returns exit status, standard output and error."""
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.delenv("JOBHISTORY_URL", raising=False)

    def run(*arguments):
        with pytest.raises(SystemExit) as caught:
            main([str(argument) for argument in arguments])
        out, err = capsys.readouterr()
        return caught.value.code or 0, out, err

    return run


@pytest.fixture
def url(database):
    return database.url.render_as_string(hide_password=False)


@pytest.fixture
def history(database):
    """Three executions an hour, a day and a month old: completed, failed, succeeded in part."""
    now = datetime.now(UTC)

    def record(job_id, task, age, end):
        store = create_store(database.engine, clock=lambda: now - age, history_retention="7 days")
        store.record_start(Job(job_id, task, {"n": 1, "token": "hunter2"}), "w-" + job_id, "batch")
        end(store, (job_id, "w-" + job_id, "batch"))

    def fail(store, ids):
        try:
            raise ValueError("no such\nfile \x1b[31mred\x1b[0m")
        except ValueError as error:
            store.record_failure(*ids, 61_000, error)

    def complete(store, ids):
        store.record_completion(*ids, 1500)

    def succeed_in_part(store, ids):
        steps = {"completed_steps": ["a"], "failed_steps": ["b"]}
        store.record_partial_success(*ids, 5, {**steps, "results": {"k": [1]}})

    record("1", "backup", timedelta(hours=1), complete)
    record("2", "send_email", timedelta(days=1), fail)
    record("3", "backup", timedelta(days=30), succeed_in_part)


def lines(text):
    return [line.split("\t") for line in text.splitlines()]


def test_list_prints_a_line_for_each_execution_with_tabs_between(run, url, history):
    status, out, err = run("list", "--url", url)

    assert (status, err) == (0, "")
    heading, *rows = lines(out)
    assert heading == ["STARTED (UTC)", "STATUS", "TOOK", "TASK", "JOB", "ERROR"]
    assert [row[1:5] for row in rows] == [
        ["completed", "1.5 s", "backup", "1"],
        ["failed", "1 m 1 s", "send_email", "2"],
        ["partial_success", "5 ms", "backup", "3"],
    ]
    assert rows[1][5] == "ValueError: no such", "the first line of the message, in one line"
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", rows[0][0])


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--since", "2h"], ["1"]),
        (["--since", "2 days", "--until", "2h"], ["2"]),
        (["--until", "1 week"], ["3"]),
        (["--since", "2026-01-01"], ["1", "2", "3"]),
        (["--until", "2026-01-01T00:00:00+02:00"], []),
        (["--status", "failed"], ["2"]),
        (["--status", "failed", "--status", "partial_success"], ["2", "3"]),
        (["--task", "backup"], ["1", "3"]),
        (["--task", "backup", "--task", "send_email", "--limit", "2"], ["1", "2"]),
        (["--worker", "w-2"], ["2"]),
        (["--worker", "w-3", "--worker", "w-1"], ["1", "3"]),
        (["--worker-prefix", "w-2"], ["2"]),
        (["--error-type", "ValueError"], ["2"]),
    ],
)
def test_list_takes_every_criterion_of_query(run, url, history, options, expected):
    _, out, _ = run("list", "--url", url, *options)
    assert [row[4] for row in lines(out)[1:]] == expected
    _, out, _ = run("list", "--url", url, "--json", *options)
    assert [json.loads(line)["job_id"] for line in out.splitlines()] == expected


def test_list_finds_attempts_labels_parents_and_traces(run, url, database):
    parent, trace = new_execution_id(), "4bf92f3577b34da6a3ce929d0e0e4736"
    ended = {"worker_id": "w", "correlation_id": "c", "task_identifier": "t", "status": "completed"}
    store = create_store(database.engine)
    store.record_execution(ended, job_id="1", labels={"tenant": "a=b", "queue": "mail"})
    store.record_execution(ended, job_id="2", attempt_number=2)
    store.record_execution(ended, job_id="3", parent_id=parent)
    store.record_execution(ended, job_id="4", trace_id=trace)

    for options, expected in [
        (["--label", "tenant=a=b", "--label", "queue=mail"], "1"),
        (["--min-attempt", "2"], "2"),
        (["--parent-id", str(parent)], "3"),
        (["--trace-id", trace], "4"),
    ]:
        _, out, _ = run("list", "--url", url, "--json", *options)
        assert [json.loads(line)["job_id"] for line in out.splitlines()] == [expected]


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--label", "tenant"], "--label 'tenant' has no value; write it like 'tenant=acme'"),
        (["--label", "Tenant=x"], "--label 'Tenant' is not the name of a label"),
        (["--parent-id", "x"], "--parent-id 'x' is not the id of a record"),
        (["--trace-id", "x"], "--trace-id 'x' is not a trace id"),
        (["--min-attempt", "-1"], "--min-attempt -1 is not a whole number"),
        (["--worker-prefix", ""], "--worker-prefix '' is not the start of an id"),
    ],
)
def test_a_criterion_that_cannot_be_used_is_named_by_its_option(run, url, history, options, says):
    _, out, err = run("list", "--url", url, *options)
    assert out == ""
    assert says in err


def test_json_has_every_column_on_one_line(run, url, history):
    _, out, _ = run("list", "--json", "--url", url, "--status", "failed")
    record = json.loads(out)

    assert out.count("\n") == 1
    assert out.isascii()
    assert record["error_message"] == "no such\nfile \x1b[31mred\x1b[0m"
    assert record["payload"] == {"n": 1, "token": "[redacted]"}
    assert datetime.fromisoformat(record["started_at"]).utcoffset() == timedelta(0)
    assert list(record) == list(COLUMN_NAMES)


def test_show_tells_everything_and_obeys_no_control_characters(run, url, history):
    status, out, _ = run("show", "2", "--url", url)

    assert status == 0
    for told in [
        "send_email",
        "failed",
        "1 m 1 s",
        "w-2",
        "batch",
        '{"n": 1, "token": "[redacted]"}',
    ]:
        assert told in out
    assert "Traceback (most recent call last):" in out
    assert 'raise ValueError("no such' in out
    assert "\x1b" not in out
    assert "file \\x1b[31mred" in out
    _, out, _ = run("show", "3", "--url", url)
    assert '{"k": [1]}' in out
    _, out, _ = run("show", "3", "--url", url, "--json")
    assert json.loads(out)["failed_steps"] == ["b"]


def test_show_of_an_unknown_job_fails(run, url):
    status, out, err = run("show", "nosuch", "--url", url)
    assert (status, out, err.count("\n")) == (1, "", 1)
    assert "no execution has the id 'nosuch', and no job" in err


def test_expire_is_quiet_in_cron_unless_asked(run, url, history):
    assert run("expire", "--url", url, "--dry-run") == (0, "1 execution would be deleted\n", "")
    assert run("expire", "--url", url, "--dry-run", "--json") == (0, '{"expired": 1}\n', "")
    assert run("expire", "--url", url) == (0, "", "")
    assert run("expire", "--url", url, "--verbose") == (0, "0 executions deleted\n", "")
    assert run("expire", "--url", url, "--json") == (0, '{"deleted": 0}\n', "")
    assert len(run("list", "--url", url)[1].splitlines()) == 3


def test_expire_by_partition_tells_what_waits(run, postgres_database):
    url = postgres_database.url.render_as_string(hide_password=False)
    store = create_store(postgres_database.engine, history_retention="1 second")
    values = {"job_id": "1", "correlation_id": "c", "task_identifier": "t", "worker_id": "w"}
    started_at = datetime.now(UTC) - timedelta(hours=1)
    store.record_execution(values | {"status": "completed", "started_at": started_at})
    partitioning.partition(postgres_database.engine)
    try:
        until = store.waiting_for_partition().until
        assert run("expire", "--url", url, "--by-partition") == (0, "", "")
        assert run("expire", "--url", url, "--by-partition", "--verbose") == (
            0,
            f"0 executions deleted\n1 execution waits for its partition, until {until:%Y-%m-%d}\n",
            "",
        )
        _, printed, _ = run("expire", "--url", url, "--by-partition", "--dry-run", "--json")
        assert json.loads(printed) == {
            "expired": 0,
            "waiting": 1,
            "waiting_until": f"{until:%Y-%m-%dT%H:%M:%S}Z",
        }
        assert run("expire", "--url", url, "--verbose") == (0, "1 execution deleted\n", "")
    finally:
        partitioning.undo(postgres_database.engine)


def test_purge_deletes_what_the_options_choose(run, url, history):
    failed = ["purge", "--url", url, "--status", "failed"]
    assert run(*failed, "--dry-run") == (0, "1 execution would be deleted\n", "")
    assert run(*failed, "--dry-run", "--json") == (0, '{"found": 1}\n', "")
    assert run(*failed, "--yes") == (0, "1 execution deleted\n", "")
    assert run(*failed, "--yes", "--json") == (0, '{"deleted": 0}\n', "")
    assert run("list", "--url", url, "--status", "failed")[1].count("\n") == 1


def test_purge_asks_first(run, url, history, monkeypatch):
    everything = run("list", "--url", url)
    purge = ["purge", "--url", url, "--status", "failed"]
    status, _, err = run(*purge)
    assert (status, err) == (
        2,
        "jobhistory: nobody can answer here; pass --yes to delete, or --dry-run\n",
    )
    for answer, expected in [("n\n", 1), ("y\n", 0)]:
        terminal = StringIO(answer)
        terminal.isatty = lambda: True
        monkeypatch.setattr("sys.stdin", terminal)
        assert run("list", "--url", url) == everything
        status, _, err = run(*purge)
        assert status == expected
        assert "Delete 1 execution? [y/N]" in err
    assert run(*purge, "--dry-run")[1] == "0 executions would be deleted\n"


def test_purge_without_a_criterion_is_refused(run, url, history):
    status, out, err = run("purge", "--url", url, "--yes")
    assert (status, out) == (2, "")
    assert err == (
        "jobhistory: nothing is chosen; pass --task, --status, --label or another criterion\n"
    )


def test_purge_without_standard_input_asks_nobody(run, url, history, monkeypatch):
    monkeypatch.setattr("sys.stdin", None)
    status, _, err = run("purge", "--url", url, "--status", "failed")
    assert (status, err[:30]) == (2, "jobhistory: nobody can answer ")
    assert run("purge", "--url", url, "--status", "failed", "--yes")[0] == 0


def test_expire_with_a_time_limit_says_when_it_falls_behind(run, url, database):
    store = create_store(database.engine, clock=lambda: LONG_AGO)
    for number in range(3):
        store.record_start(Job(number, "t"), "w", "c")
    command = ["expire", "--url", url, "--batch-size", "1", "--time-limit", "0.00001s"]
    done = command_line.run(*command, env=os.environ)

    assert (done.returncode, done.stdout) == (0, "")
    assert done.stderr.startswith("jobhistory: expire() reached its time limit")


def test_reap_is_quiet_in_cron_unless_asked(run, url, database, clock):
    store = create_store(database.engine, clock=clock)  # long ago
    for job, task in [("1", "resize"), ("2", "send"), ("3", "send")]:
        store.record_start(Job(job, task), f"worker-{job}", "c")
    reap = ["reap", "--url", url, "--older-than", "2h"]

    assert run(*reap, "--task", "resize", "--task", "none") == (0, "", "")
    assert run(*reap, "--worker", "worker-2", "--verbose") == (
        0,
        "1 execution marked as failed (worker lost)\n",
        "",
    )
    assert run(*reap, "--batch-size", "1", "--json") == (0, '{"reaped": 1}\n', "")
    assert run(*reap, "-v") == (0, "0 executions marked as failed (worker lost)\n", "")
    assert {r.error_type for r in store.query(status="failed")} == {"jobhistory.WorkerLost"}
    status, _, said = run("reap", "--url", url)
    assert (status, "--older-than" in said) == (2, True)
    status, _, said = run("reap", "--url", url, "--older-than", "soon")
    assert (status, "--older-than 'soon' is not a duration" in said) == (2, True)


@pytest.mark.parametrize(
    "command", ["list", "expire", "reap --older-than 2h", "show 1", "db check"]
)
def test_a_missing_table_is_an_error_with_the_command_that_mends_it(run, bare_database, command):
    with bare_database.engine.begin() as connection:
        connection.execute(text("CREATE TABLE app (id INTEGER)"))
    url = bare_database.url.render_as_string(hide_password=False)
    status, out, err = run(*command.split(), "--url", url)

    assert (status, out) == (1, "")
    assert err.count("\n") == 1
    assert "jobhistory db upgrade" in err


@pytest.mark.parametrize("is_there", [True, False])
def test_a_new_or_empty_sqlite_file_gets_its_table(run, tmp_path, is_there):
    path = tmp_path / "new.db"
    if is_there:
        path.touch()
    status, out, err = run("list", "--url", f"sqlite:///{path}")

    assert (status, out.count("\n"), err) == (0, 1, "")
    assert run("db", "check", "--url", f"sqlite:///{path}")[0] == 0


def test_db_commands(run, bare_database):
    options = ["--url", bare_database.url.render_as_string(hide_password=False)]

    assert run("db", "current", *options) == (0, "there is no history table\n", "")
    assert run("db", "upgrade", "jobhistory_0011", *options) == (0, "jobhistory_0011\n", "")
    assert run("db", "check", *options)[0] == 1
    status, out, _ = run("db", "check", "--json", *options)
    assert status == 1
    assert json.loads(out)["ok"] is False
    assert run("db", "upgrade", *options) == (0, f"{migrate.HEAD}\n", "")
    assert run("db", "check", *options) == (0, "the history table is up to date\n", "")
    up_to_date = {"ok": True, "additions": [], "grants": [], "partitions": None}
    assert json.loads(run("db", "check", "--json", *options)[1]) == up_to_date
    current = {"revision": migrate.HEAD, "head": migrate.HEAD}
    assert json.loads(run("db", "current", "--json", *options)[1]) == current
    assert run("db", "downgrade", "base", *options)[:2] == (0, "there is no history table\n")
    status, _, err = run("db", "upgrade", "0099", *options)
    assert status == 2
    assert "revision '0099' cannot be reached" in err
    assert "Traceback" not in err


def test_db_check_lists_what_the_app_added(run, bare_database):
    migrate.upgrade(bare_database.engine)
    with bare_database.engine.begin() as connection:
        connection.execute(text("CREATE INDEX my_index ON job_history (job_id)"))
    options = ["--url", bare_database.url.render_as_string(hide_password=False)]

    expected = "the history table is up to date\naddition: index my_index\n"
    assert run("db", "check", *options) == (0, expected, "")
    told = json.loads(run("db", "check", "--json", *options)[1])
    assert told == {"ok": True, "additions": ["index my_index"], "grants": [], "partitions": None}


def test_a_table_that_another_tool_made_is_one_line(run, bare_database):
    with bare_database.engine.begin() as connection:
        connection.execute(text("CREATE TABLE job_history (id INTEGER)"))
    options = ["--url", bare_database.url.render_as_string(hide_password=False)]

    assert run("db", "current", *options)[:2] == (
        0,
        "the history table has no revision: another tool created it\n",
    )
    for command in ("upgrade", "check"):
        status, out, err = run("db", command, *options)
        assert (status, out, err.count("\n")) == (1, "", 1)
        assert "column job_id is missing" in err


def test_what_a_role_may_not_do_is_one_line(run, bare_postgres_url):
    role = f"jobhistory_test_{uuid.uuid4().hex[:12]}"
    engine = create_engine(bare_postgres_url)
    with engine.begin() as connection:
        connection.execute(text(f"CREATE ROLE {role} LOGIN"))
        connection.execute(text("CREATE SCHEMA audit"))
    url = bare_postgres_url.set(username=role).render_as_string(hide_password=False)
    for schema in ("public", "audit", "new"):
        status, out, err = run("db", "upgrade", "--url", url, "--schema", schema)
        assert (status, out, err.count("\n")) == (1, "", 1)
        assert "permission denied" in err
    with engine.begin() as connection:
        connection.execute(text(f"DROP ROLE {role}"))
    engine.dispose()


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ([], "DATETIME"),
        (["--url", "postgresql://"], "TIMESTAMP WITH TIME ZONE"),
        (
            ["--url", "postgresql://app:hunter2@nowhere/db"],
            "ALTER TABLE job_history SET (fillfactor = 80)",
        ),
        (["--url", "postgresql://", "--schema", "audit"], "audit.job_history"),
        (["jobhistory_0011:head", "--url", "postgresql://"], "WHERE error_type IS NOT NULL"),
    ],
)
def test_db_sql_prints_the_statements_without_a_database(run, options, told):
    status, out, err = run("db", "sql", *options)

    assert (status, err) == (0, "")
    assert told in out
    assert "hunter2" not in out


@pytest.mark.parametrize("bare_database", ["postgresql"], indirect=True)
def test_a_schema_is_made_used_and_checked(run, bare_database):
    options = [
        "--url",
        bare_database.url.render_as_string(hide_password=False),
        "--schema",
        "audit",
    ]

    assert run("db", "upgrade", *options)[0] == 0
    assert run("db", "check", *options)[0] == 0
    assert run("list", *options)[0] == 0
    assert run("expire", *options)[0] == 0
    assert migrate.current(bare_database.engine) is None


def test_the_default_database_is_a_file_of_the_user_made_on_first_use(run, tmp_path):
    status, out, err = run("list")

    assert (status, err) == (0, "")
    assert len(out.splitlines()) == 1
    assert (tmp_path / "data" / "jobhistory" / "history.db").exists()
    assert run("db", "check")[0] == 0


def test_the_default_database_is_upgraded_by_itself(run):
    assert run("db", "downgrade", "jobhistory_0011")[1] == "jobhistory_0011\n"
    assert run("list")[0] == 0
    assert run("db", "current")[1] == f"{migrate.HEAD}\n"


def test_the_url_comes_from_the_environment(run, url, history, monkeypatch):
    monkeypatch.setenv("JOBHISTORY_URL", url)
    assert len(run("list")[1].splitlines()) == 4


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("list --since tomorrow", "--since 'tomorrow' is neither a duration nor a date; write it"),
        ("list --status done", "--status 'done' is not a status"),
        ("list --limit 0", "--limit 0 is not a whole number"),
        (
            "list --url nonsense",
            "--url '...' is not a database URL; write it like 'sqlite:///history.db'",
        ),
        ("list --url mysql://u:hunter2@h/d", "--url 'mysql://...' uses 'mysql', but jobhistory"),
        ("expire --batch-size 0", "--batch-size 0 is not a whole number"),
        ("expire --time-limit 5", "--time-limit '5' is not a duration"),
        ("list --job-id=", "--job-id '' is empty"),
        ("show ", "Missing argument 'ID'"),
        ("stats --bucket soon", "--bucket 'soon' is not a duration"),
        ("stats --since 2026-02-01 --until 2026-01-01", "--since '2026-02-01"),
        ("run --retention soon -- true", "--retention 'soon' is not a duration"),
        ("nosuch", "No such command 'nosuch'"),
    ],
)
def test_wrong_usage_exits_2_and_says_what_is_right(run, arguments, message):
    status, out, err = run(*arguments.split())

    assert (status, out) == (2, "")
    assert message in err
    assert "Traceback" not in err


def test_an_unreachable_database_is_one_line_without_the_password(run):
    status, out, err = run("list", "--url", "postgresql://app:hunter2@127.0.0.1:1/nowhere")

    assert (status, out) == (1, "")
    assert "refused" in err
    assert err.count("\n") == 1
    assert "hunter2" not in err


def test_the_version(run):
    assert run("--version") == (0, f"jobhistory {__version__}\n", "")


@pytest.mark.parametrize(
    ("milliseconds", "text"),
    [
        (None, "-"),
        (0, "0 ms"),
        (999, "999 ms"),
        (1000, "1.0 s"),
        (59_949, "59.9 s"),
        (59_999, "60.0 s"),
        (60_000, "1 m 0 s"),
        (3_599_999, "59 m 59 s"),
        (3_600_000, "1 h 0 m"),
        (93_900_000, "26 h 5 m"),
    ],
)
def test_durations_are_shown_as_people_say_them(milliseconds, text):
    assert took(milliseconds) == text


FORGED = "a\nFORGED\t999\r\x1b[31m\x9b1m\u202eb"
HARMLESS = r"a FORGED 999\r\x1b[31m\x9b1m\u202eb"


@pytest.fixture
def forged(database):
    """Executions whose names and messages would forge lines, fields and colours."""
    store = create_store(database.engine)
    store.record_start(Job(FORGED, FORGED), FORGED, FORGED)
    store.record_failure(FORGED, FORGED, FORGED, 1, f"failed\n{FORGED}")
    store.record_start(Job("1", FORGED), FORGED, "c")


@pytest.mark.parametrize("command", ["list", "list --all", "stats", "stats --bucket 1h", "failures",
                                     "running"])  # fmt: skip
@pytest.mark.parametrize("on", ["pipe", "terminal"])
def test_names_forge_neither_lines_nor_fields_nor_colours(
    run, url, forged, command, on, monkeypatch
):
    if on == "terminal":
        monkeypatch.setenv("FORCE_COLOR", "1")
        monkeypatch.setenv("NO_COLOR", "1")
        monkeypatch.setenv("TERM", "dumb")
        monkeypatch.setenv("COLUMNS", "300")
    status, out, _ = run(*command.split(), "--url", url)

    assert status == 0
    assert HARMLESS in out
    assert not set("\r\x1b\x9b\u202e") & set(out)
    heading, *rows = out.rstrip("\n").split("\n")
    assert not any(row.lstrip().startswith("FORGED") for row in rows)
    if on == "pipe":
        assert {row.count("\t") for row in rows} == {heading.count("\t")}


def test_show_indents_what_is_not_its_own(run, url, forged):
    status, out, _ = run("show", FORGED, "--url", url)

    assert status == 0
    assert not set("\r\x1b\x9b\u202e") & set(out)
    first, *others = [line for line in out.splitlines() if line]
    assert first == f"{HARMLESS}  failed"
    assert all(line.startswith("  ") for line in others)
    assert "\n" + " " * 21 + "FORGED" in out, "the second line of a value is below its first"


def test_errors_and_log_lines_send_no_escapes(run, monkeypatch):
    from jobhistory import lifecycle
    from jobhistory.cli.commands import db

    def list_(*_, **__):
        lifecycle.logger.error("not recorded: %s", FORGED)
        raise OSError(FORGED)

    monkeypatch.setattr(logging.root, "handlers", [])
    monkeypatch.setattr(read, "open_store", list_)
    status, out, err = run("list")
    assert (status, out) == (1, "")
    in_an_error = HARMLESS.replace(r"\r", " ")
    assert err == f"jobhistory: not recorded: {HARMLESS}\njobhistory: {in_an_error}\n"
    monkeypatch.setattr(db.migrate, "current", lambda *_, **__: FORGED)
    assert run("db", "current")[1] == f"{HARMLESS}\n"


@pytest.mark.parametrize("interrupted", [(program, "run_program"), (read, "open_store")])
def test_ctrl_c_ends_a_command_without_a_traceback(run, monkeypatch, interrupted):
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(*interrupted, interrupt)
    status, out, err = run("list")
    assert (status, out) == (130, "")
    assert "Traceback" not in err


def mode(path):
    return oct(path.stat().st_mode & 0o777)


@pytest.fixture(params=[0o000, 0o022, 0o277], ids=oct)
def umask(request):
    before = os.umask(request.param)
    yield
    os.umask(before)


@pytest.mark.skipif(os.name != "posix", reason="Windows has no such modes")
class TestFiles:
    """The files that the command line creates, and their folder."""

    def test_the_history_file_and_its_folder_are_the_users_alone(self, run, tmp_path, umask):
        (tmp_path / "data").mkdir(0o755)
        (tmp_path / "data").chmod(0o755)
        assert run("list")[0] == 0
        folder = tmp_path / "data" / "jobhistory"
        assert mode(folder) == "0o700"
        assert mode(folder / "history.db") == "0o600"
        with sqlite3.connect(folder / "history.db") as connection:
            connection.execute("CREATE TABLE other (n)")
            connection.execute("INSERT INTO other VALUES (1)")
            others = {path.name: mode(path) for path in folder.iterdir()}
        connection.close()
        assert others == dict.fromkeys(["history.db", "history.db-shm", "history.db-wal"], "0o600")

    def test_a_history_file_that_others_can_read_is_taken_from_them(self, run, tmp_path):
        assert run("list")[0] == 0
        folder = tmp_path / "data" / "jobhistory"
        folder.chmod(0o755)
        (folder / "history.db").chmod(0o644)
        assert run("list")[0] == 0
        assert (mode(folder), mode(folder / "history.db")) == ("0o700", "0o600")

    def test_missing_folders_around_it_are_the_users_alone(self, run, tmp_path, umask):
        assert run("list")[0] == 0
        assert mode(tmp_path / "data") == "0o700"

    @pytest.mark.parametrize("link", ["jobhistory", "jobhistory/history.db"])
    @pytest.mark.parametrize("exists", [False, True])
    def test_no_link_is_followed(self, run, tmp_path, link, exists):
        path = tmp_path / "data" / link
        path.parent.mkdir(parents=True)
        target = tmp_path / "elsewhere"
        if exists:
            target.mkdir() if link == "jobhistory" else target.touch()
        path.symlink_to(target)
        status, _, err = run("list")
        assert status == 1
        assert err == (
            f"jobhistory: {path} is a symbolic link; give the file that it points to with --url\n"
        )
        assert target.exists() == exists
        if exists:
            assert (list(target.iterdir()) if target.is_dir() else target.read_bytes()) in ([], b"")

    def test_a_file_that_a_url_names_is_created_private_and_else_left_as_it_is(self, run, tmp_path):
        path = tmp_path / "history.db"
        assert run("db", "upgrade", "--url", f"sqlite:///{path}")[0] == 0
        assert mode(path) == "0o600"
        path.chmod(0o640)
        assert run("list", "--url", f"sqlite:///{path}")[0] == 0
        assert mode(path) == "0o640"
        link = tmp_path / "link.db"
        link.symlink_to(path)
        assert run("list", "--url", f"sqlite:///{link}")[0] == 0, (
            "the user made it, and it leads on"
        )
        path.unlink()
        assert run("list", "--url", f"sqlite:///{link}")[0] == 1
        assert not path.exists()
