"""`jobhistory check`: exit statuses, and what it prints for people and for monitoring."""

from __future__ import annotations

import json
import re
import socket
import subprocess
import sys
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from io import StringIO
from threading import Thread

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from jobhistory import Expectation, Job, create_store
from jobhistory.cli import heartbeat
from jobhistory.cli.nagios import plugin_lines
from jobhistory.cli.screens.checks import findings, print_checks
from jobhistory.cli.screens.incidents import print_incidents
from jobhistory.cli.screens.screen import Screen
from jobhistory.expectations.incidents import changed_by
from jobhistory.expectations.verdicts import Checked, Problem, Verdict
from tests.test_cli import run, url  # noqa: F401 - fixtures
from tests.test_cli_options import plain_url  # noqa: F401 - a fixture
from tests.test_metrics import value
from tests.test_screens import HOSTILE, WIDTHS, cell_len

# ruff: noqa: F811

NOW = datetime(2026, 11, 28, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
STYLE = re.compile(r"\x1b\[[\d;]*m")
NUMBER = re.compile(r"[a-z_]+=\d+s?(;\d*){0,4}")


@pytest.fixture
def store(database):
    """A store of two hours ago."""
    return create_store(database.engine, clock=lambda: datetime.now(UTC) - 2 * HOUR)


def checked(name, *problems, **fields):
    expectation = Expectation(name, every="1d", owner=fields.pop("owner", None))
    verdicts = tuple(Verdict(each, f"is {each.words}") for each in problems)
    return Checked(expectation, NOW, verdicts, **fields)


def test_all_is_well(run, url, store):
    store.expect("nightly", every="1d")
    status, out, err = run("check", "--url", url)
    assert (status, err) == (0, "")
    assert out.startswith("OK - 1 task is as expected\n1 checked, 0 paused | problems=0;0;;0;1 ")


@pytest.mark.parametrize(
    ("fields", "expected", "state"),
    [
        ({"every": "1h"}, 2, "CRITICAL - 1 of 2 tasks has a problem: nightly missed"),
        ({"min_runtime": "1d"}, 1, "WARNING - 1 of 2 tasks has a problem: nightly too short"),
        ({"paused_until": datetime(2999, 1, 1, tzinfo=UTC), "every": "1h"}, 0, "OK - 2 tasks"),
    ],
)
def test_the_exit_status_is_that_of_the_worst_problem(run, url, store, fields, expected, state):
    store.expect("nightly", grace="1m", **fields)
    store.expect("fine", every="1d")
    store.begin(Job("1", "nightly"), "w").end()
    status, out, _ = run("check", "--url", url)
    assert status == expected
    assert out.startswith(state)
    assert run("check", "--task", "fine", "--url", url)[0] == 0


def test_a_verdict_is_a_line_of_json(run, url, store):
    store.expect("nightly", every="1h", owner="ann", runbook="https://wiki.example.org/nightly")
    store.expect("fine", every="1d")
    status, out, _ = run("check", "--json", "--url", url)
    (found,) = map(json.loads, out.splitlines())
    assert status == 2
    assert (found["expectation"], found["problem"]) == ("nightly", "never_ran")
    assert (found["severity"], found["owner"]) == ("critical", "ann")
    assert len(found["slots"]) == 1
    assert found["since"] == found["checked_at"]
    _, out, _ = run("check", "--format", "json", "--all", "--url", url)
    assert [json.loads(line)["severity"] for line in out.splitlines()] == ["critical", "ok"]


def test_a_dry_run_opens_no_incident(run, url, store):
    store.expect("nightly", every="1h")
    assert run("check", "--dry-run", "--url", url)[0] == 2
    assert store.incidents() == []
    assert run("check", "--url", url)[0] == 2
    assert len(store.incidents()) == 1


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ([], "nothing is expected of any task; declare it like: jobhistory expect add"),
        (["--task", "a|b"], r"nothing is expected of a\x7cb; declare it like"),
        (["--no-such-option"], "No such option: --no-such-option"),
        (["--format", "xml"], "'xml' is not one of 'nagios', 'json', 'prometheus'"),
        (["--task", ""], "--task '' is not a name"),
        (["--url", "nonsense"], "is not a database URL"),
        (["--url", "postgresql+psycopg://127.0.0.1:1/none"], "onnection"),
        (["--url", "sqlite:////no/such/folder/history.db"], "names a file that does not exist"),
    ],
)
def test_what_cannot_be_checked_is_unknown(run, plain_url, arguments, reason):
    arguments = arguments if "--url" in arguments else [*arguments, "--url", plain_url]
    status, out, _ = run("check", *arguments)
    assert status == 3
    assert out.startswith("UNKNOWN - ")
    assert reason in out
    assert out.count("\n") == 1
    assert "|" not in out


@pytest.mark.parametrize(
    ("output", "arguments", "reason"),
    [
        (">&-", (), "standard output is closed"),
        (">&-", ("--no-such-option",), "No such option"),
        (">/dev/full", (), "No space left on device"),
        (">/dev/full", ("--task", "other"), "nothing is expected of other"),
    ],
)
def test_an_output_that_takes_nothing_is_unknown(plain_url, output, arguments, reason):
    with create_store(plain_url) as store:
        store.expect("nightly")
    program = [sys.executable, "-m", "jobhistory.cli", "check", "--url", plain_url, *arguments]
    script = f'exec "$@" {output}'
    ran = subprocess.run(["sh", "-c", script, "sh", *program], stderr=subprocess.PIPE, text=True)
    assert ran.returncode == 3
    assert ran.stderr.startswith("UNKNOWN - ")
    assert reason in ran.stderr
    assert ran.stderr.count("\n") == 1


def test_a_check_that_prints_nothing_needs_no_output(plain_url):
    with create_store(plain_url) as store:
        store.expect("nightly", every="1d")
    program = [sys.executable, "-m", "jobhistory.cli", "check", "--url", plain_url, "--quiet"]
    ran = subprocess.run(
        ["sh", "-c", 'exec "$@" >&-', "sh", *program], stderr=subprocess.PIPE, text=True
    )
    assert (ran.returncode, ran.stderr) == (0, "")


def test_a_database_without_tables_is_unknown(run, bare_postgres_url):
    url = bare_postgres_url.render_as_string(hide_password=False)
    status, out, _ = run("check", "--url", url)
    assert status == 3
    assert re.fullmatch(r"UNKNOWN - .*jobhistory db upgrade.*\n", out)


def test_what_is_unknown_is_not_on_the_output_that_a_program_reads(run, plain_url):
    status, out, err = run("check", "--json", "--url", plain_url)
    assert (status, out) == (3, "")
    assert err.startswith("UNKNOWN - nothing is expected")


def test_the_first_line_names_as_many_tasks_as_fit():
    names = ["nightly", "import", "report", "mail", "backup"]
    checks = [checked(each, Problem.MISSED) for each in names]
    assert next(plugin_lines(checks)) == (
        "CRITICAL - 5 of 5 tasks have problems: nightly missed, import missed, 3 more"
    )
    checks = [checked("late", Problem.LATE), checked("missed", Problem.MISSED), checked("fine")]
    assert next(plugin_lines(checks)) == (
        "CRITICAL - 2 of 3 tasks have problems: missed missed, late late"
    )


def test_one_task_is_no_tasks():
    (first, *_) = plugin_lines([checked("nightly", Problem.MISSED)])
    assert first == "CRITICAL - 1 of 1 task has a problem: nightly missed"


def test_the_lines_after_it_tell_owner_and_runbook_and_what_is_over():
    over = Verdict(Problem.LATE, "started 1 h late", is_over=True)
    expectation = Expectation("a", owner="ann", runbook="https://wiki.example.org/a")
    lines = [*plugin_lines([Checked(expectation, NOW, (over,), last_success=NOW - HOUR)])]
    assert lines[:2] == [
        "OK - 1 task is as expected",
        "OVER a late: started 1 h late; owner ann; runbook https://wiki.example.org/a",
    ]
    assert lines[2].endswith(" never_ran=0;;0;0 oldest_success=3600s;;;0")
    assert " late=0;0;;0 " in lines[2]


@given(st.lists(st.text(min_size=1, max_size=90), min_size=1, max_size=9))
def test_no_name_breaks_the_format(names):
    names = [name for name in [*names, "a|b='1'", HOSTILE] if not _is_refused(name)]
    lines = [*plugin_lines([checked(each, Problem.MISSED, owner="a|b") for each in names])]
    assert all("\n" not in line and line.isprintable() for line in lines)
    assert len(lines[0]) <= 80
    assert not any("|" in line for line in lines[:-1])
    _, numbers = lines[-1].split(" | ")
    assert all(NUMBER.fullmatch(each) for each in numbers.split(" "))


def _is_refused(name):
    try:
        Expectation(name)
    except ValueError:
        return True
    return False


@pytest.mark.parametrize("width", WIDTHS)
def test_a_table_for_people(width):
    checks = [
        checked("a" * 70, Problem.LATE, owner="ann", next_slot=NOW + HOUR, last_start=NOW),
        checked(HOSTILE, Problem.MISSED, Problem.FAILING),
        checked("fine", next_slot=NOW - HOUR),
        checked("paused", is_paused=True),
    ]
    file = StringIO()
    screen = Screen(
        now=NOW, console=Console(file=file, width=width, force_terminal=True, color_system=None)
    )
    print_checks(screen, checks, findings(checks, [], with_fine=True))
    text = file.getvalue()
    assert all(cell_len(line) <= width for line in text.splitlines())
    states = [text.index(each) for each in (" missed", " failing", " late", " ok", " paused")]
    assert states == sorted(states), "the worst first"
    assert "is missed" in text
    assert "2 of 4 tasks with problems, 1 of them paused" in " ".join(text.split())
    if width >= 100:
        assert "in 1 hour" in text


def test_people_see_since_when_and_only_what_is_wrong(run, url, store, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "100")
    store.expect("nightly", every="30m")
    store.expect("fine", every="1d")
    hour_ago = create_store(url, clock=_hour_ago)
    with hour_ago:
        hour_ago.check()
    status, out, _ = run("check", "--url", url)
    assert status == 2
    assert re.search(r"nightly +never ran +(60 minutes|1 hour) ago", STYLE.sub("", out))
    assert "fine" not in out
    _, out, _ = run("check", "--all", "--url", url)
    assert re.search(r"fine +ok", STYLE.sub("", out))


def _hour_ago():
    return datetime.now(UTC) - HOUR


@pytest.fixture
def pings(request):
    """The paths that a service was asked for; it answers the first one with a status."""
    found = []

    class Service(BaseHTTPRequestHandler):
        def do_GET(self):
            found.append(self.path)
            self.send_response(getattr(request, "param", 200))
            self.end_headers()

        def log_message(self, *_):
            pass

    with HTTPServer(("127.0.0.1", 0), Service) as server:
        thread = Thread(target=server.serve_forever, args=[0.01])
        thread.start()
        yield found, f"http://127.0.0.1:{server.server_port}/ping/s3cret"
        server.shutdown()
        thread.join()


def test_a_check_tells_a_service_that_it_was_made(run, plain_url, pings):
    found, address = pings
    assert run("check", "--url", plain_url, "--heartbeat", address)[0] == 3
    assert found == [], "nothing was checked"
    run("expect", "add", "backup", "--min-runtime", "1d", "--url", plain_url)
    for expected in (1, 1):
        status, _, err = run("check", "--url", plain_url, "--heartbeat", address)
        assert (status, err) == (expected, "")
    assert found == ["/ping/s3cret"] * 2


@pytest.mark.parametrize("pings", [404], indirect=True)
def test_a_failed_heartbeat_is_a_line_without_the_url(run, plain_url, pings, monkeypatch):
    _, address = pings
    run("expect", "add", "backup", "--every", "1d", "--url", plain_url)
    monkeypatch.setenv("JOBHISTORY_HEARTBEAT", address)
    status, out, err = run("check", "--url", plain_url)
    assert (status, err) == (0, "jobhistory: the heartbeat failed: status 404\n")
    assert out.startswith("OK")
    monkeypatch.setenv("JOBHISTORY_HEARTBEAT", "http://127.0.0.1:1/s3cret")
    status, _, err = run("check", "--url", plain_url)
    assert (status, err) == (0, "jobhistory: the heartbeat failed: Connection refused\n")


def test_a_service_that_hangs_does_not_hold_up_the_check(run, plain_url, monkeypatch):
    run("expect", "add", "backup", "--every", "1d", "--url", plain_url)
    monkeypatch.setattr(heartbeat, "LIMIT", 0.05)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"http://127.0.0.1:{silent.getsockname()[1]}/s3cret"
        status, _, err = run("check", "--url", plain_url, "--heartbeat", address)
    assert status == 0
    assert re.fullmatch(
        "jobhistory: the heartbeat failed: (no answer within.*|time.*)\n", err, re.I
    )


@pytest.mark.parametrize(
    "address", ["s3cret", "ftp://s3cret", "http:///s3cret", "http://a:x/s3cret"]
)
def test_an_error_does_not_show_the_url_of_a_heartbeat(run, address):
    status, out, _ = run("check", "--heartbeat", address)
    assert status == 3
    assert out.startswith("UNKNOWN - --heartbeat '")
    assert "s3cret" not in out


def test_incidents_are_listed(run, url, store):
    store.expect("nightly", every="1h", grace="1m")
    store.expect("mail", min_runtime="1h")
    store.begin(Job("1", "mail"), "w").end()
    run("check", "--url", url)
    status, out, err = run("incidents", "--url", url)
    assert (status, err) == (0, "")
    heading, *rows = (line.split("\t") for line in out.splitlines())
    assert heading == ["OPENED (UTC)", "LASTED", "STATE", "TASK", "PROBLEM", "MISSED", "DETAILS"]
    assert sorted(row[2:6] for row in rows) == [
        ["open", "mail", "too short", "0"],
        ["open", "nightly", "never ran", "1"],
    ]
    store.remove_expectation("mail")
    _, out, _ = run("incidents", "--open", "--json", "--url", url)
    (found,) = map(json.loads, out.splitlines())
    assert (found["expectation"], found["problem"]) == ("nightly", "never_ran")
    _, out, _ = run("incidents", "--task", "mail", "--since", "1d", "--json", "--url", url)
    assert json.loads(out)["closed_at"] is not None


def test_nobody_knows_how_long_an_incident_lasted_that_was_over_when_it_was_found(capsys):
    (opened,) = changed_by([], checked("nightly", Problem.LATE))
    found = [replace(opened, closed_at=opened.opened_at + lasted) for lasted in (0 * HOUR, HOUR)]
    print_incidents(Screen(utc=True, now=NOW + 2 * HOUR), found)
    _, *rows = (line.split("\t") for line in capsys.readouterr().out.splitlines())
    assert [row[1] for row in rows] == ["", "1 h 0 m"]


@pytest.mark.parametrize("width", WIDTHS)
def test_incidents_fit_the_terminal(width):
    def incident(name, **fields):
        checks = checked(name, Problem.MISSED)
        (opened,) = changed_by([], checks)
        return replace(opened, summary="1 start missed, due " + "x" * 90, **fields)

    file = StringIO()
    console = Console(file=file, width=width, force_terminal=True, color_system=None)
    found = [incident(HOSTILE, slots=(NOW,)), incident("a" * 90, closed_at=NOW + HOUR)]
    print_incidents(Screen(utc=True, now=NOW + 2 * HOUR, console=console), found)
    text = file.getvalue()
    assert all(cell_len(line) <= width for line in text.splitlines())
    assert "1 start missed" in text
    assert text.endswith("2 incidents, 1 open\n")
    if width >= 80:
        assert "2 h 0 m" in text


@pytest.fixture
def mailbox(tmp_path):
    """A receiver of alerts, and a function that returns their titles."""
    program, file = tmp_path / "receive", tmp_path / "received"
    program.write_text(f'#!/bin/sh\necho "$JOBHISTORY_ALERT_TITLE" >> {file}\n')
    program.chmod(0o700)
    return f"command:{program}", lambda: file.read_text().splitlines() if file.exists() else []


def test_alerts_are_sent_once(run, plain_url, mailbox):
    target, received = mailbox
    run("expect", "add", "backup", "--min-runtime", "1d", "--url", plain_url)
    assert run("check", "--dry-run", "--alert", target, "--url", plain_url)[0] == 1
    assert received() == []
    for _ in range(2):
        assert run("check", "--alert", target, "--url", plain_url)[0] == 1
    (title,) = received()
    assert title.startswith("backup: took")


def test_the_variable_names_several_receivers(run, plain_url, mailbox, monkeypatch):
    target, received = mailbox
    monkeypatch.setenv("JOBHISTORY_ALERT", f"'{target} --now' stdout")
    run("expect", "add", "backup", "--min-runtime", "1d", "--url", plain_url)
    status, out, err = run("check", "--quiet", "--url", plain_url)
    assert (status, err) == (1, "")
    assert out.startswith("backup: took"), "nothing but the alert"
    assert len(received()) == 1
    assert run("check", "--quiet", "--url", plain_url) == (1, "", "")


def test_a_receiver_that_fails_is_a_line_and_changes_no_status(run, plain_url, caplog):
    run("expect", "add", "backup", "--every", "1d", "--failures-in-a-row", "1", "--url", plain_url)
    run("expect", "add", "mail", "--min-runtime", "1d", "--url", plain_url)
    assert run("check", "--alert", "command:/nowhere/page", "--url", plain_url)[0] == 1
    assert "command page" in caplog.text


@pytest.mark.parametrize(
    ("arguments", "variable", "reason"),
    [
        (["--alert", "nobody"], "", "--alert 'nobody' is not known; use one of stdout"),
        ([], "smtp://", "JOBHISTORY_ALERT 'smtp://"),
        ([], "'command:x", "JOBHISTORY_ALERT '...' has an open quote"),
        (["--alert", "stdout", "--format", "json"], "", "--alert 'stdout' goes neither with JSON"),
        (["--quiet", "--format", "nagios"], "", "--quiet does not go with --format nagios"),
        (["--watch", "--quiet"], "", "--watch does not go with --quiet"),
        (["--watch"], "", "--watch needs a terminal"),
        (["--interval", "0s"], "", "--interval '0s' is not positive"),
    ],
)
def test_options_that_cannot_be_used(run, plain_url, monkeypatch, arguments, variable, reason):
    monkeypatch.setenv("JOBHISTORY_ALERT", variable)
    status, out, err = run("check", *arguments, "--url", plain_url)
    assert status == 3
    assert f"UNKNOWN - {reason}" in out + err


def test_metrics_on_standard_output_or_in_a_file(run, url, store, tmp_path):
    store.expect("nightly", every="1h", grace="1m")
    status, out, _ = run("check", "--format", "prometheus", "--url", url)
    assert status == 2
    assert value(out, "problem", task="nightly", expectation="nightly", problem="never_ran") == 1
    assert value(out, "late", task="nightly", expectation="nightly") == 1
    deadline = value(out, "deadline_timestamp_seconds", task="nightly", expectation="nightly")
    (declared,) = store.expectations()
    assert deadline == (declared.declared_at + HOUR + timedelta(minutes=1)).timestamp()
    file = tmp_path / "check.prom"
    status, out, _ = run("check", "--textfile", str(file), "--url", url)
    assert (status, out[:8]) == (2, "CRITICAL")
    checked_at = value(file.read_text(), "last_check_timestamp_seconds")
    assert checked_at == store.expectations()[0].checked_at.timestamp()


@pytest.mark.parametrize("arguments", [[], ["--suggest"]])
def test_a_mistyped_path_is_unknown_and_no_file_is_created(run, tmp_path, arguments):
    status, out, _ = run("check", *arguments, "--url", f"sqlite:///{tmp_path}/typo.db")
    assert status == 3
    assert f"--url 'sqlite:///{tmp_path}/typo.db' names a file that does not exist" in out
    assert not (tmp_path / "typo.db").exists()
