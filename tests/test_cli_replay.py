"""`jobhistory replay`: which executions it chooses, what it prints, and how it exits."""

from __future__ import annotations

import importlib
import json
import sys
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import create_engine, text

from jobhistory import Job, create_store, new_execution_id
from tests.test_cli import lines, run, url  # noqa: F401 - fixtures
from tests.test_cli_reports import terminal  # noqa: F401 - a fixture

# ruff: noqa: F811

TASKS = """
class App:
    jobs = []

    def enqueue(self, job):
        if job.task_identifier == "gone":
            raise KeyError("no task of this name")
        self.jobs.append(job)
        return f"new-{len(self.jobs)}"

    async def enqueue_async(self, job):
        return self.enqueue(job)

    @property
    def lazy(self):
        raise RuntimeError("not configured")

app = App()
number = 5
scheduler = type("BaseScheduler", (), {"__module__": "apscheduler.schedulers.base"})()
"""


@pytest.fixture
def tasks(tmp_path, monkeypatch):
    """A module of the user in the current folder, and the jobs that its app has enqueued."""
    (tmp_path / "shop_tasks.py").write_text(TASKS)
    (tmp_path / "shop_broken.py").write_text("raise RuntimeError('no settings')")
    (tmp_path / "shop_script.py").write_text("raise SystemExit(0)")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    yield lambda: sys.modules["shop_tasks"].app.jobs
    for name in ("shop_tasks", "shop_broken"):
        sys.modules.pop(name, None)


@pytest.fixture
def ids(database):
    """Failures of three tasks, an hour apart, the last of them now, and a completion."""
    now = datetime.now(UTC)
    made = {}
    for hours, task in enumerate(["resize", "mail", "gone", "secret"]):
        store = create_store(
            database.engine, clock=lambda hours=hours: now - timedelta(hours=hours)
        )
        arguments = {"args": [hours], "kwargs": {"password": "x"} if task == "secret" else {}}
        execution = store.begin(Job(f"job-{task}", task, arguments), "w-1", "nightly")
        execution.end("boom")
        made[task] = execution.id
    create_store(database.engine).begin(
        Job("job-fine", "resize", {"args": [], "kwargs": {}}), "w-1"
    ).end()
    return made


APP = ("--app", "shop_tasks:app.enqueue")


def test_named_executions_are_enqueued_again(run, url, tasks, ids):
    status, out, err = run("replay", ids["resize"], ids["mail"], *APP, "--url", url)

    assert (status, err) == (0, "")
    assert lines(out) == [
        ["EXECUTION", "TASK", "JOB", "NEW JOB", "REFUSED"],
        [str(ids["resize"]), "resize", "job-resize", "new-1", ""],
        [str(ids["mail"]), "mail", "job-mail", "new-2", ""],
    ]
    assert [job.args for job in tasks()] == [[0], [1]]


def test_an_execution_that_is_named_twice_is_replayed_once(run, url, tasks, ids):
    status, out, err = run("replay", ids["mail"], str(ids["mail"]).upper(), *APP, "--url", url)

    assert (status, err) == (0, "")
    assert [row[3] for row in lines(out)] == ["NEW JOB", "new-1"]


def test_failed_jobs_are_chosen_oldest_first_and_refusals_are_told(run, url, tasks, ids):
    status, out, err = run("replay", *APP, "--failed", "--url", url)

    assert (status, err) == (1, "")
    _, *rows = lines(out)
    assert [row[2:4] for row in rows] == [
        ["job-secret", "-"],
        ["job-gone", "-"],
        ["job-mail", "new-1"],
        ["job-resize", "new-2"],
    ]
    assert "redacted" in rows[0][4]
    assert "cannot be enqueued: 'no task of this name'" in rows[1][4]

    status, out, _ = run("replay", *APP, "--failed", "--task", "mail", "--url", url)
    assert status == 1
    assert "replayed at" in lines(out)[1][4]
    status, out, _ = run("replay", *APP, "--failed", "--task", "mail", "--force", "--url", url)
    assert (status, lines(out)[1][3]) == (0, "new-3")


def test_options_choose_as_those_of_list(run, url, tasks, ids):
    options = ("--since", "90 min", "--task", "mail", "--task", "resize", "--worker", "w-1")
    options += ("--correlation-id", "nightly", "--error-contains", "BOOM")
    status, out, _ = run("replay", *APP, "--status", "failed", *options, "--json", "--url", url)

    assert status == 0
    first, second = map(json.loads, out.splitlines())
    assert first == {
        "execution_id": str(ids["mail"]),
        "task_identifier": "mail",
        "job_id": "job-mail",
        "new_job_id": "new-1",
        "refused": None,
    }
    assert second["job_id"] == "job-resize"


def test_a_dry_run_enqueues_nothing(run, url, tasks, ids):
    status, out, _ = run("replay", *APP, "--failed", "--dry-run", "--task", "mail", "--url", url)

    assert (status, lines(out)[1][2:]) == (0, ["job-mail", "-", ""])
    assert tasks() == []
    status, out, _ = run("replay", ids["secret"], *APP, "--dry-run", "--json", "--url", url)
    assert status == 1
    assert "redacted" in json.loads(out)["refused"]


def test_the_limit_is_told_when_it_is_reached(run, url, tasks, ids):
    status, out, err = run("replay", *APP, "--status", "failed", "--limit", 1, "--url", url)

    assert "job-mail" in out
    assert "job-resize" not in out
    assert err == "jobhistory: stopped at --limit 1; there may be more\n"
    assert status == 1, "two were refused before"


def test_on_a_terminal_the_lines_are_aligned(run, url, tasks, ids, terminal):
    out = run("replay", *APP, "--failed", "--url", url)[1]

    heading, *rows = out.splitlines()
    place = heading.index("NEW JOB")
    assert [row[place : place + 5].strip() for row in rows] == ["-", "-", "new-1", "new-2"]


def test_an_execution_that_is_not_there_does_not_stop_the_others(run, url, tasks, ids):
    missing = new_execution_id()
    status, out, err = run("replay", missing, ids["mail"], *APP, "--url", url)

    assert status == 1
    assert err == f"jobhistory: there is no execution {missing}, or it has expired\n"
    assert lines(out)[1][3] == "new-1"


def test_an_app_for_asyncio_works_too(run, url, tasks, ids):
    app = ("--app", "shop_tasks:app.enqueue_async")
    assert run("replay", *app, ids["mail"], "--url", url)[0] == 0
    assert run("replay", *app, "--failed", "--task", "resize", "--url", url)[0] == 0
    assert len(tasks()) == 2


@pytest.mark.parametrize(
    ("options", "expected", "message"),
    [
        ([*APP], 2, "nothing is chosen; pass --failed, --status, or the ids of executions"),
        ([*APP, "--task", "mail"], 2, "nothing is chosen"),
        ([*APP, "--failed", str(new_execution_id())], 2, "--status ['failed'] cannot be combined"),
        ([*APP, "1"], 2, "EXECUTION_ID '1' is not the id of a record"),
        (["--failed"], 2, "--app"),
        (["--app", "shop_tasks", "--failed"], 2, "--app 'shop_tasks' is not a place; write it"),
        (
            ["--app", "shop_tasks:nope.a", "--failed"],
            2,
            "--app 'shop_tasks:nope.a' cannot be found",
        ),
        (["--app", "shop_tasks:number", "--failed"], 2, "--app 5 is no app"),
        (["--app", "shop_tasks:scheduler", "--failed"], 2, "call replay() there"),
        (["--app", "shop_tasks:scheduler", "--failed", "--dry-run"], 2, "call replay() there"),
        (["--app", "nowhere:app", "--failed"], 1, "ModuleNotFoundError: No module named 'nowhere'"),
        (["--app", "shop_broken:app", "--failed"], 1, "RuntimeError: no settings"),
        (["--app", "shop_script:app", "--failed"], 1, "--app 'shop_script:app': SystemExit: 0"),
        (["--app", "shop_tasks:app.lazy", "--failed"], 1, "RuntimeError: not configured"),
        ([*APP, "--failed", "--limit", "0"], 2, "--limit 0"),
        ([*APP, "--failed", "--status", "gone"], 2, "--status 'gone'"),
    ],
)
def test_what_cannot_be_used_is_told_in_one_line(run, url, tasks, ids, options, expected, message):
    status, out, err = run("replay", *options, "--url", url)

    assert status == expected
    assert message in err
    assert "Traceback" not in err
    assert "new-" not in out


def test_what_was_enqueued_is_shown_even_if_the_database_fails_then(
    run, database, url, tasks, ids, terminal, monkeypatch
):
    """The table is renamed when the first job is enqueued, so the next read fails."""
    engine = create_engine(database.url)

    def enqueue(job):
        with engine.begin() as connection:
            connection.execute(text("ALTER TABLE job_history RENAME TO elsewhere"))
        return "new-1"

    module = importlib.import_module("shop_tasks")
    monkeypatch.setattr(module.app, "enqueue", enqueue)
    options = ("--failed", "--task", "mail", "--task", "resize")
    try:
        status, out, err = run("replay", *APP, *options, "--url", url)
    finally:
        with engine.begin() as connection:
            connection.execute(text("ALTER TABLE elsewhere RENAME TO job_history"))
        engine.dispose()

    assert status == 1
    assert "no history table" in err
    assert "new-1" in out
