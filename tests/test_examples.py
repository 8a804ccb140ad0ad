"""The programs in `examples/` run as they stand, in an empty folder, and record what they claim."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from importlib import import_module
from pathlib import Path

import pytest

from jobhistory import Job, create_store

EXAMPLES = Path(__file__).parent.parent / "examples"


def environment(home, **variables):
    """Return what cron gives to a command: next to nothing."""
    return {"HOME": str(home), "PATH": "/usr/bin:/bin", **variables}


def run(command, folder, **variables):
    return subprocess.run(
        [str(part) for part in command],
        cwd=folder,
        env=environment(folder, **variables),
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    ).stdout


@pytest.fixture
def module(tmp_path, monkeypatch):
    """Import a program from a copy in an empty folder, in which it works."""

    def copied(name):
        shutil.copy(EXAMPLES / f"{name}.py", tmp_path)
        monkeypatch.chdir(tmp_path)
        monkeypatch.delenv("DATABASE_URL", raising=False)
        monkeypatch.syspath_prepend(tmp_path)
        monkeypatch.delitem(sys.modules, name, raising=False)
        return import_module(name)

    return copied


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.py")), ids=lambda path: path.name)
def test_each_program_says_how_to_run_it(path):
    docstring = path.read_text().split('"""')[1]

    assert "Install and run it with::" in docstring
    assert "pip install" in docstring
    assert path.name in docstring or path.stem in docstring


def test_the_worker_loop_retries_reports_and_cleans_up_when_it_is_run_again(tmp_path):
    program = [sys.executable, EXAMPLES / "worker_loop.py"]
    first = run(program, tmp_path)

    assert first.startswith("greet, attempt 1: done\ngreet, attempt 1: done\n")
    assert "fetch_prices, attempt 2: done\n" in first
    assert "bill, attempt 3: there is no customer 17\n" in first
    assert "bill: 3 executions, 100% failed\n" in first
    assert "fetch_prices: 2 executions, 0% failed\n" in first
    assert "3 x bill: LookupError: there is no customer <number>\n" in first
    assert first.endswith("executions of lost workers: 0\nexpired rows deleted: 0\n")
    url = f"sqlite:///{tmp_path}/worker_loop.db"
    with create_store(url) as store:
        attempts = store.query(task_identifier="fetch_prices", order="oldest")
        assert [(each.attempt_number, each.status) for each in attempts] == [
            (1, "failed"),
            (2, "completed"),
        ]
        assert attempts[0].queue_time_ms >= 0
        bills = store.query(task_identifier="bill", order="oldest")
        assert [each.will_retry for each in bills] == [True, True, False]

    three_hours_ago = datetime.now(UTC) - timedelta(hours=3)
    with create_store(url, clock=lambda: three_hours_ago) as store:
        store.record_start(Job("1", "greet"), "killed", "c")
        store.record_start(Job("2", "greet"), "killed", "c", history_retention="1h")
    second = run(program, tmp_path)

    assert "bill: 6 executions, 100% failed\n" in second
    assert second.endswith("executions of lost workers: 2\nexpired rows deleted: 1\n")


def test_the_fastapi_app_records_background_tasks_and_pages_through_them(module, monkeypatch):
    monkeypatch.setenv("HISTORY_TOKEN", "secret")
    app = module("fastapi_app").app
    from fastapi.testclient import TestClient

    with TestClient(app, raise_server_exceptions=False) as client:
        for order in (1, 2, 13):
            answer = client.post(f"/orders/{order}", headers={"X-Request-Id": f"request-{order}"})
            assert answer.status_code == 202
        seen = []
        after = {}
        while after is not None:
            page = client.get("/history", params={"limit": 2, **after}).json()
            seen += page["executions"]
            after = {"after": page["next"]} if page["next"] else None
        completed = client.get("/history", params={"status": "completed"}).json()
        (group,) = client.get("/history/failures").json()
        wrong = [
            client.get("/history", params={"after": "x"}),
            client.get("/history", params={"after": "<b>"}),
            client.get("/history", params={"status": "x"}),
            client.post("/orders/1", headers={"X-Request-Id": "x" * 256}),
        ]
        closed = [client.get("/page/"), client.get("/login?token=guess")]
        shown = client.get("/login?token=secret")

    assert [each["error_message"] for each in seen] == ["there is no order 13", None, None]
    assert len(completed["executions"]) == 2
    assert group["count"] == 1
    assert group["message"] == "there is no order <number>"
    assert [answer.status_code for answer in wrong] == [422] * 4
    assert {answer.headers["content-type"] for answer in wrong} == {"application/json"}
    assert "<b>" in wrong[1].json()["detail"]
    with create_store("sqlite:///fastapi_app.db") as store:
        assert len(store.get_by_correlation_id("request-2")) == 1
    assert [answer.status_code for answer in closed] == [403, 403]
    assert (shown.status_code, shown.url.path) == (200, "/page/")
    assert "there is no order 13" in shown.text


def test_the_flask_app_commits_its_orders_together_with_their_history(tmp_path, module):
    program = module("flask_app")
    app = program.create_app()
    runner = app.test_cli_runner()

    assert runner.invoke(args=["create-tables"]).exit_code == 0
    assert runner.invoke(args=["add-orders", "1", "2", "13"]).exit_code == 0
    shipped = runner.invoke(args=["ship-orders"]).output
    assert shipped == "order 1: shipped\norder 2: shipped\norder 13: no address for order 13\n"
    assert runner.invoke(args=["ship-orders"]).output == "order 13: no address for order 13\n"
    assert runner.invoke(args=["history"]).output == (
        "ship-13 failed no address for order 13\n" * 2 + "ship-2 completed\n" + "ship-1 completed\n"
    )
    client = app.test_client()
    report = client.post("/report", headers={"X-Request-Id": "request-1"}).json
    assert (report["shipped"], report["waiting"]) == ([1, 2], [13])
    history = client.get("/history").json
    assert history["records"][0]["job_id"] == report["job_id"]
    assert [each["status"] for each in history["records"]].count("failed") == 2
    assert history["next_cursor"] is None
    wrong = client.get("/history?after=<b>")
    assert (wrong.status_code, wrong.mimetype) == (422, "application/json")
    assert "<b>" in wrong.json["error"]
    with app.app_context():
        (record,) = program.history().get_by_correlation_id("request-1")
        assert record.failed_steps == ["ship-13"]
        program.db.engine.dispose()


@pytest.fixture
def machine(tmp_path):
    """A home folder on which the steps of the README of the cron machine have been done."""
    venv = tmp_path / ".venvs" / "jobhistory"
    venv.mkdir(parents=True)
    (venv / "bin").symlink_to(Path(sys.executable).parent)
    for folder in ("cron_machine", "documents"):
        (tmp_path / folder).mkdir()
    shutil.copy(EXAMPLES / "cron_machine" / "nightly.sh", tmp_path / "cron_machine")
    return tmp_path


def cron(home, only=""):
    """Do once what the lines of the crontab say; return what cron would mail."""
    mails = []
    for line in (EXAMPLES / "cron_machine" / "crontab").read_text().splitlines():
        scheduled = re.fullmatch(r"(?:[\d*/]+ +){5}(\S.*)", line)
        if scheduled and only in line:
            assert "%" not in scheduled[1], "cron takes a percent sign for a line break"
            done = subprocess.run(
                ["/bin/sh", "-c", scheduled[1]],
                cwd=home,
                env=environment(home),
                capture_output=True,
                text=True,
                timeout=60,
            )
            mails.append(done.stdout + done.stderr)
    return mails


@pytest.mark.skipif(os.name != "posix", reason="cron and sh are of POSIX systems")
@pytest.mark.slow
def test_the_cron_machine_records_its_jobs_and_mails_failures_only(machine):
    (machine / "documents" / "letter.txt").write_text("Dear Ann")
    assert cron(machine) == ["", "", ""]  # the nightly job, reap and expire

    shutil.rmtree(machine / "documents")
    (mail,) = cron(machine, "nightly.sh")
    assert "documents" in mail

    listed = run([machine / ".venvs/jobhistory/bin/jobhistory", "list"], machine).splitlines()[1:]
    assert [line.split("\t")[1:4:2] for line in listed] == [
        ["failed", "back-up"],
        ["completed", "check-archive"],
        ["completed", "back-up"],
    ]
