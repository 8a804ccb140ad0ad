"""`jobhistory stats`, `failures`, `running`, and pages of `list`: in pipes and on terminals."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobhistory import Job, create_store
from jobhistory.cli.charts import bar, spark
from jobhistory.cli.commands import read
from jobhistory.cli.database import open_store
from jobhistory.cli.options import quoted_url
from jobhistory.schema import COLUMN_NAMES
from tests.test_cli import lines, run, url  # noqa: F401 - fixtures

# ruff: noqa: F811


@pytest.fixture
def history(database):
    """Twelve backups an hour apart, every third of which fails, and one that still runs."""
    now = datetime.now(UTC)
    store = create_store(database.engine, clock=lambda: now)
    store.record_many(
        {
            "job_id": f"job-{number}",
            "task_identifier": "backup",
            "worker_id": "w-1",
            "correlation_id": "nightly",
            "status": "failed" if number % 3 == 2 else "completed",
            "started_at": now - timedelta(hours=number, minutes=5),
            "completed_at": now - timedelta(hours=number),
            "execution_time_ms": 1000 * (number + 1),
            "queue_time_ms": 10 * number,
        }
        | ({"error": TimeoutError(f"no answer in {number} s\x1b[31m")} if number % 3 == 2 else {})
        for number in range(12)
    )
    long_ago = create_store(database.engine, clock=lambda: now - timedelta(hours=3))
    long_ago.record_start(Job("job-99", "crawl"), "w-2", "nightly")


@pytest.fixture
def terminal(monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("TERM", "dumb")
    monkeypatch.setenv("COLUMNS", "160")
    monkeypatch.setenv("LC_ALL", "C.UTF-8")


def test_stats_are_a_line_for_each_task(run, url, history):
    status, out, err = run("stats", "--url", url)

    assert (status, err) == (0, "")
    heading, backup, crawl = lines(out)
    assert heading[:4] == ["TASK", "RUNS", "FAILED", "RETRIED"]
    assert backup[:6] == ["backup", "12", "33.3%", "0", "6.0 s", "12.0 s"]
    assert backup[6:9] == ["12.0 s", "12.0 s", "110 ms"]
    assert crawl[:9] == ["crawl", "1", "-", "0", "-", "-", "-", "-", "-"]


def test_stats_tell_final_failures_from_attempts_that_are_tried_again(run, url, database, terminal):
    store = create_store(database.engine)
    ended = {"worker_id": "w", "correlation_id": "c", "task_identifier": "sync"}
    store.record_execution(ended, job_id=1, status="completed")
    for will_retry in (True, True, False):
        store.record_execution(ended, job_id=2, error="no answer", will_retry=will_retry)
    _, out, _ = run("stats", "--url", url, "--bucket", "1d")

    heading, sync, *_ = out.splitlines()
    assert heading.split()[:4] == ["TASK", "RUNS", "FAILED", "RETRIED"]
    task, runs, failed, _, retried, *_ = sync.split()
    assert (task, runs, failed, retried) == ("sync", "4", "50.0%", "2")
    (stats,) = map(json.loads, run("stats", "--url", url, "--json")[1].splitlines())
    assert (stats["failed"], stats["final_failures"]) == (3, 1)
    assert (stats["failure_rate"], stats["attempt_failure_rate"]) == (0.5, 0.75)


@pytest.mark.parametrize(
    ("options", "runs"),
    [
        (["--task", "backup"], [12]),
        (["--worker", "w-2"], [1]),
        (["--since", "90 minutes"], [2]),
        (["--since", "1h", "--until", "30 minutes"], []),
    ],
)
def test_stats_as_json_are_of_what_meets_the_criteria(run, url, history, options, runs):
    _, out, _ = run("stats", "--url", url, "--json", *options)
    assert [json.loads(line)["executions"] for line in out.splitlines()] == runs


def test_stats_as_json_have_all_that_is_known(run, url, history):
    _, out, _ = run("stats", "--url", url, "--json", "--task", "backup")
    stats = json.loads(out)

    assert stats["failure_rate"] == pytest.approx(1 / 3)
    assert stats["execution_time_ms"] == {
        "p5": 1000,
        "p50": 6000,
        "p95": 12000,
        "p99": 12000,
        "max": 12000,
    }
    assert stats["bucket"] is None
    assert datetime.fromisoformat(stats["last_success"]).tzinfo is not None


def test_stats_say_on_a_terminal_where_percentiles_are_estimates(
    run, url, database, history, terminal
):
    _, all_known, _ = run("stats", "--url", url)
    assert "within 2 %" not in all_known
    create_store(database.engine).fold()
    for options in ((), ("--bucket", "1h")):
        _, estimated, _ = run("stats", "--url", url, *options)
        assert estimated.splitlines()[-1].startswith("percentiles within 2 %")
        assert "within 2 %" not in run("stats", "--url", url, "--exact", *options)[1]
    _, told, _ = run("stats", "--url", url, "--json", "--task", "backup")
    assert json.loads(told)["is_exact"] is False
    _, told, _ = run("stats", "--url", url, "--json", "--task", "backup", "--exact")
    assert json.loads(told)["is_exact"] is True


def test_a_series_has_a_line_for_each_task_and_period(run, url, history):
    _, out, _ = run("stats", "--url", url, "--task", "backup", "--bucket", "1h")
    heading, *rows = lines(out)

    assert heading[:9] == [
        "BEGIN (UTC)",
        "TASK",
        "RUNS",
        "COMPLETED",
        "FAILED",
        "RETRIED",
        "PARTIAL",
        "CANCELLED",
        "STARTED",
    ]
    assert len(rows) == 12
    assert {row[0][14:] for row in rows} == {"00:00Z"}
    _, out, _ = run("stats", "--url", url, "--bucket", "1h", "--json")
    assert len(out.splitlines()) == 13


def test_stats_on_a_terminal_have_charts(run, url, history, terminal):
    _, out, _ = run("stats", "--url", url, "--bucket", "1h")

    assert "███▍" in out, "a bar for a third"
    _, backup, runs, failed, crawl, crawls, total, caption = out.splitlines()
    assert backup.split()[:3] == ["backup", "12", "33.3%"]
    label, chart, scale = runs.split(maxsplit=2)
    assert (label, sorted(chart), scale) == ("runs", ["▁"] * 13 + ["█"] * 12, "at most 1")
    label, chart, scale = failed.split(maxsplit=2)
    assert (label, sorted(chart), scale) == ("failed", ["▁"] * 21 + ["█"] * 4, "at most 1")
    assert crawl.startswith("crawl")
    assert crawls.split()[1].count("█") == 1
    assert total.split()[:4] == ["2", "tasks", "13", "33.3%"]
    assert re.fullmatch(r"charts: (.{16}) to (.{16}) \(UTC\), 1 hour per character", caption)
    assert run("stats", "--url", url, "--task", "none", "--bucket", "1h")[1] == "no executions\n"


def test_failures_are_a_line_for_each_kind(run, url, history):
    status, out, err = run("failures", "--url", url)

    assert (status, err) == (0, "")
    _, (count, last, task, error) = lines(out)
    assert (count, task) == ("4", "backup")
    assert error == "TimeoutError: no answer in <number> s\\x1b[<number>"
    assert datetime.fromisoformat(last) < datetime.now(UTC)
    assert run("failures", "--url", url, "--error-type", "OSError")[1].count("\n") == 1
    assert run("failures", "--url", url, "--error-contains", "NO ANSWER")[1].count("\n") == 2
    assert run("failures", "--url", url, "--worker", "w-2")[1].count("\n") == 1


def test_failures_may_be_only_new_ones(run, url, history):
    assert run("failures", "--url", url, "--new")[1].count("\n") == 2
    _, out, _ = run("failures", "--url", url, "--new", "--json")
    assert json.loads(out)["is_new"] is True
    assert run("failures", "--url", url, "--new", "--json", "--since", "4h")[1] == ""
    _, out, _ = run("failures", "--url", url, "--json")
    assert json.loads(out)["is_new"] is None
    assert run("failures", "--url", url, "--new", "--limit", "0")[0] == 2


def test_failures_as_json_come_with_an_example(run, url, history):
    _, out, _ = run("failures", "--url", url, "--json", "--limit", "1")
    group = json.loads(out)

    assert (group["count"], group["task_identifier"]) == (4, "backup")
    assert group["example"]["error_message"].startswith("no answer in ")
    assert list(group["example"]) == list(COLUMN_NAMES)


def test_failures_on_a_terminal_have_bars_and_an_example(run, url, history, terminal):
    _, out, _ = run("failures", "--url", url)

    _, group, example = out.splitlines()
    assert group.split()[:2] == ["4", "██████████"]
    assert group.endswith("backup  TimeoutError: no answer in <number> s\\x1b[<number>")
    assert "for example job job-" in example
    assert "\x1b" not in out
    assert run("failures", "--url", url, "--task", "none")[1] == "no failures\n"


def test_running_says_for_how_long(run, url, history, terminal):
    _, out, _ = run("running", "--url", url)
    heading, crawl, count = out.splitlines()
    assert heading.split()[2:] == ["FOR", "(min)", "TASK", "JOB", "WORKER"]
    assert crawl.split()[2:] == ["180.0", "crawl", "job-99", "w-2"]
    assert count == "1 running"
    assert run("running", "--url", url, "--since", "1h")[1] == "nothing is running\n"


def test_running_compares_with_what_is_usual_for_the_task(run, url, database, terminal):
    now = datetime.now(UTC)
    store = create_store(database.engine)
    ended = {"worker_id": "w", "correlation_id": "c", "status": "completed", "job_id": 1}
    ended |= {"started_at": now - timedelta(hours=1), "execution_time_ms": 200_000}
    store.record_many([ended | {"task_identifier": task} for task in ("a", "b")] * 20)
    for task, seconds in (("a", 100), ("b", 500), ("rare", 300)):
        long_ago = create_store(
            database.engine, clock=lambda age=seconds: now - timedelta(seconds=age)
        )
        long_ago.record_start(Job(task, task), "w", "c")
    _, out, _ = run("running", "--url", url)

    _, b, rare, a, count, caption = out.splitlines()
    assert b.split()[3:6] == ["██████████+", "200.0", "b"], (
        "a bar is full, and says that it is over"
    )
    assert rare.split()[3:5] == ["-", "rare"]
    assert a.split()[3].startswith("█████"), "a bar of half the width"
    assert a.split()[4:6] == ["200.0", "a"]
    assert count == "3 running, 1 of them for longer than usual"
    assert caption.startswith("usual: 95 % of the runs")


def test_running_in_a_pipe(run, url, history):
    _, out, _ = run("running", "--url", url)
    assert [row[1:] for row in lines(out)[1:]] == [["3 h 0 m", "crawl", "job-99", "w-2"]]
    _, out, _ = run("running", "--url", url, "--json", "--task", "crawl", "--worker", "w-2")
    assert json.loads(out)["job_id"] == "job-99"
    assert run("running", "--url", url, "--json", "--task", "backup")[1] == ""


def test_workers_are_a_line_each(run, url, history):
    status, out, err = run("workers", "--url", url, "--since", "1d")
    assert (status, err) == (0, "")
    heading, busy, gone = lines(out)
    assert heading == ["LAST SEEN (UTC)", "RUNS", "RUNNING", "FAILED", "LOST", "WORKER"]
    assert (busy[1:], gone[1:]) == (["12", "0", "4", "0", "w-1"], ["1", "1", "0", "0", "w-2"])
    assert run("workers", "--url", url)[1].count("\n") == 2, "of the last hour by default"
    _, out, _ = run("workers", "--url", url, "--since", "1d", "--json", "--worker-prefix", "w-2")
    assert (json.loads(out)["worker_id"], json.loads(out)["running"]) == ("w-2", 1)
    _, out, _ = run("workers", "--url", url, "--since", "1d", "--json", "--limit", "1")
    assert json.loads(out)["worker_id"] == "w-1"


def test_workers_on_a_terminal(run, url, history, terminal):
    _, out, _ = run("workers", "--url", url, "--since", "1d")
    assert [line.split()[-5:] for line in out.splitlines()[1:3]] == [
        ["12", "0", "4", "0", "w-1"],
        ["1", "1", "0", "0", "w-2"],
    ]
    assert out.splitlines()[3].split() == ["13", "1", "4", "0", "2", "workers"]
    assert run("workers", "--url", url, "--worker", "none")[1] == "no workers\n"


def test_charts_do_without_what_the_terminal_cannot_show(run, url, history, terminal, monkeypatch):
    assert bar(0.5, 10, ascii_only=True) == "#####"
    assert spark([0, 1, 8], 8, ascii_only=True) == "_.#"


@given(st.floats(0, 1), st.integers(1, 50))
def test_a_bar_is_never_longer_than_its_width_and_shows_what_is_not_nothing(share, width):
    for ascii_only in (True, False):
        drawn = bar(share, width, ascii_only=ascii_only)
        assert len(drawn) <= width
        assert bool(drawn) == bool(share)


@given(st.lists(st.integers(0, 10**12)))
def test_a_spark_has_a_column_for_each_value(values):
    drawn = spark(values, max(values, default=0))
    assert len(drawn) == len(values)
    assert all((column == "▁") == (value == 0) for column, value in zip(drawn, values, strict=True))
    assert not any(values) or drawn[values.index(max(values))] == "█"


# -- pages of list -------------------------------------------------------------------------------


def test_list_goes_from_page_to_page(run, url, history):
    since = (datetime.now(UTC) - timedelta(days=1)).isoformat()
    options = ["--url", url, "--status", "completed", "--since", since, "--limit", "3"]
    status, out, err = run("list", *options, "--after", "start")
    assert (status, err) == (0, "")
    found = []
    while True:
        *rows, (name, cursor) = lines(out)
        assert name == "next_cursor"
        found += [row[4] for row in rows[1:]]
        if not cursor:
            break
        _, out, _ = run("list", *options, "--after", cursor)
    assert found == [f"job-{n}" for n in range(12) if n % 3 != 2]


def test_pages_as_json_end_with_the_next_cursor(run, url, history):
    _, out, _ = run("list", "--url", url, "--json", "--limit", "12", "--after", "start")
    *records, last = map(json.loads, out.splitlines())
    assert len(records) == 12
    _, out, _ = run("list", "--url", url, "--json", "--after", last["next_cursor"])
    assert [json.loads(line).get("job_id") for line in out.splitlines()] == ["job-11", None]
    assert json.loads(out.splitlines()[-1]) == {"next_cursor": None}


def test_list_without_a_cursor_is_as_it_was_in_a_pipe(run, url, history):
    assert len(lines(run("list", "--url", url, "--limit", "2")[1])) == 3
    assert len(run("list", "--url", url, "--limit", "2", "--json")[1].splitlines()) == 2


def pasted(hint, url):
    """The arguments that a shell makes of a hint, whose URL may be in the environment."""
    command = f"printf '%s\\0' {hint.removeprefix('more: jobhistory ')}"
    environment = os.environ | {"JOBHISTORY_URL": url}
    shell = subprocess.run(
        ["bash", "-c", command], env=environment, capture_output=True, text=True, check=True
    )
    return shell.stdout.split("\0")[:-1]


def test_a_terminal_shows_the_command_for_the_next_page(run, url, history, terminal):
    options = ["--status", "completed", "--status", "started", "--since", "9h", "--worker", "w-1"]
    _, out, _ = run("list", "--url", url, *options, "--limit", "2")
    assert (" job-0\n" in out, " job-1\n" in out) == (True, True)

    hint = out.splitlines()[-1]
    command = pasted(hint, url)
    assert hint.startswith("more: jobhistory list --since 20")
    assert command[0] == "list"
    assert {"--status", "--worker", "--url"} < set(command)
    _, out, _ = run(*command)
    assert (" job-3\n" in out, " job-4\n" in out) == (True, True)
    hint = out.splitlines()[-1]
    assert hint.count("--after") == 1
    _, out, _ = run(*pasted(hint, url))
    assert " job-6\n" in out
    assert "more:" not in run("list", "--url", url)[1]


def test_the_command_for_the_next_page_can_be_pasted(run, url, history, terminal, database):
    """Whatever the names are: a shell takes them apart as they were."""
    task = "a b'c$(d)\n\x1b[31m\\"
    store = create_store(database.engine)
    store.record_many(
        {"job_id": n, "task_identifier": task, "worker_id": "w", "correlation_id": "c"}
        | {"status": "completed"}
        for n in range(2)
    )
    _, out, _ = run("list", "--url", url, "--task", task, "--limit", "1")
    hint = out.splitlines()[-1]
    assert hint.isprintable()
    _, out, _ = run(*pasted(hint, url))
    assert " 0\n" in out


@pytest.mark.parametrize("where", ["option", "environment"])
def test_the_command_for_the_next_page_shows_no_password(
    run, url, history, terminal, monkeypatch, where
):
    secret = "sqlite:///nowhere.db?password=hunter2"
    monkeypatch.setattr(read, "open_store", lambda *_: open_store(url, None))
    if where == "environment":
        monkeypatch.setenv("JOBHISTORY_URL", secret)
    _, out, _ = run("list", *(["--url", secret] if where == "option" else []), "--limit", "1")
    hint = out.splitlines()[-1]
    assert "hunter2" not in out
    assert ('--url "$JOBHISTORY_URL"' in hint) == (where == "option")


@pytest.mark.parametrize(
    ("url", "is_shown"),
    [
        ("sqlite:///history.db", True),
        ("postgresql://app@host/db?sslmode=require&connect_timeout=2", True),
        ("postgresql://app@host/db?options=-csome.secret%3Dhunter2", False),
        ("postgresql://app@host/db?conninfo=password%3Dhunter2", False),
        ("postgresql://app@host/db", True),
        ("postgresql://app:hunter2@host/db", False),
        ("postgresql://:hunter2@host/db", False),
        ("postgresql://host/db?user=app&password=hunter2", False),
        ("postgresql://app:p%40ss/w@host/db", False),
    ],
)
def test_a_url_is_shown_again_unless_it_has_a_password(url, is_shown):
    assert (quoted_url(url) == shlex.quote(url)) == is_shown
    assert "hunter2" not in quoted_url(url)


def test_a_cursor_belongs_to_its_criteria(run, url, history):
    _, out, _ = run("list", "--url", url, "--status", "failed", "--limit", "1", "--after", "start")
    cursor = out.splitlines()[-1].split("\t")[1]

    assert run("list", "--url", url, "--status", "failed", "--after", cursor)[0] == 0
    for options in ([], ["--task", "crawl", "--status", "failed"]):
        status, _, err = run("list", "--url", url, *options, "--after", cursor)
        assert status == 2
        assert f"--after '{cursor}' belongs to other criteria; repeat those of its page" in err
    status, _, err = run("list", "--url", url, "--after", "nonsense")
    assert (status, err) == (
        2,
        "jobhistory: --after 'nonsense' is not a cursor; give the next_cursor of a page, "
        "unchanged\n",
    )


@pytest.mark.parametrize(
    ("options", "count"),
    [
        (["--job-id", "job-3"], 1),
        (["--correlation-id", "nightly"], 13),
        (["--error-contains", "no ANSWER"], 4),
        (["--min-time", "11s"], 2),
        (["--oldest", "--limit", "1"], 1),
    ],
)
def test_list_takes_the_newer_criteria_too(run, url, history, options, count):
    assert len(lines(run("list", "--url", url, *options)[1])) == count + 1


def test_list_all_prints_everything_as_it_comes(run, url, history):
    assert len(lines(run("list", "--url", url, "--all")[1])) == 14
    assert len(run("list", "--url", url, "--all", "--json", "--oldest")[1].splitlines()) == 13
    for option, value in (("--limit", "5"), ("--after", "start")):
        status, _, err = run("list", "--url", url, "--all", option, value)
        assert status == 2
        assert f"{option} " in err


def test_a_reader_who_has_seen_enough_is_no_error_to_tell(url, history):
    command = f"{sys.executable} -m jobhistory.cli list --all --json --url '{url}' | head -n 1"
    done = subprocess.run(command, shell=True, capture_output=True, text=True, timeout=60)
    assert (done.stdout.count("\n"), done.stderr) == (1, "")


def test_list_shows_why_an_execution_was_cancelled(run, url, database, terminal):
    store = create_store(database.engine)
    record = store.record_start(Job("1", "sync"), "w", "c")
    store.record_cancellation(record, reason="revoked by an operator\nat noon")
    _, out, _ = run("list", "--url", url)

    assert "cancelled" in out
    assert "revoked by an operator" in out
    assert "at noon" not in out
    assert "revoked by an operator" in run("show", "1", "--url", url)[1]
