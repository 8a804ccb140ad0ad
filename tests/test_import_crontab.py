"""The jobs of a crontab as expectations."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from jobhistory.cli.run_options import read_run
from jobhistory.expectations.importing.commands import (
    ExpectedRun,
    name_of,
    recorded_line,
    runs_of_shell,
)
from jobhistory.expectations.importing.crontab import Crontab
from jobhistory.expectations.importing.found import one_for_each_task
from jobhistory.expectations.importing.unions import union
from jobhistory.expectations.schedule import Cron

GRACE = timedelta(minutes=5)


def jobs(text, **named):
    named = {"read": read_run, "timezone": "Europe/Berlin", "grace": GRACE} | named
    return one_for_each_task([*Crontab(**named).jobs(text)])


def job(line, **named):
    (each,) = jobs(line, **named)
    return each


def tasks(command):
    return [run.task for run in runs_of_shell(command, read_run)]


def test_a_recorded_job_is_expected_when_cron_starts_it():
    found = job("17 2 * * *  jobhistory run --task backup -- /srv/backup.sh")
    assert found.where == "line 1"
    expectation = found.expectation
    assert expectation.task_identifier == "backup"
    assert (expectation.cron, expectation.timezone) == ("17 2 * * *", "Europe/Berlin")
    assert expectation.grace == GRACE
    assert found.note is None


@pytest.mark.parametrize(
    ("line", "cron"),
    [
        ("@daily jobhistory run --task x -- y", "0 0 * * *"),
        ("@weekly\tjobhistory run --task x -- y", "0 0 * * 0"),
        ("*/5  9-17\t* * mon-fri jobhistory run --task x -- y", "*/5 9-17 * * mon-fri"),
        ("0 0 1 jan,jul * jobhistory run --task x -- y", "0 0 1 jan,jul *"),
        ("  5 4 * * sun jobhistory run --task x -- y\r", "5 4 * * sun"),
        ("-5 4 * * 7 jobhistory run --task x -- y", "5 4 * * 7"),
    ],
)
def test_nicknames_names_and_ranges_are_read(line, cron):
    assert job(line).expectation.cron == cron


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        ("jobhistory run --task backup -- x", ["backup"]),
        ("jobhistory run --task=backup -- x", ["backup"]),
        ("/srv/.venv/bin/jobhistory run --task 'a b' -- x", ["a b"]),
        ("python -m jobhistory.cli run --task backup x", ["backup"]),
        ("jobhistory run -- /srv/backup.sh --task other", ["backup.sh"]),
        ("jobhistory run --retention 7d /srv/backup.sh", ["backup.sh"]),
        ('jobhistory run --url "$HISTORY" --quiet --task backup -- x', ["backup"]),
        ("flock -n /run/lock jobhistory run --task backup -- x", ["backup"]),
        ("flock -n /run/lock -c 'jobhistory run --task backup -- x'", ["backup"]),
        ("sh -c 'cd /srv && jobhistory run --task backup -- x'", ["backup"]),
        ("cd /srv && A=1 chronic timeout 5m jobhistory run --task b -- x >/dev/null 2>&1", ["b"]),
        ("(jobhistory run --task a -- x); jobhistory run --task b -- x|cat", ["a", "b"]),
        ("jobhistory expire && echo jobhistory", []),
        ("echo 'jobhistory run --task x -- y'", []),
        ("run jobhistory", []),
        ("", []),
    ],
)
def test_the_task_of_a_command_is_what_run_would_record(command, expected):
    assert tasks(command) == expected


def test_labels_of_a_run_are_labels_of_its_expectation():
    line = "0 {} * * * jobhistory run --task bill --label tenant={} -- x"
    first, second = jobs("\n".join([line.format(1, "acme"), line.format(2, "zoo")]))
    assert [each.expectation.name for each in (first, second)] == [
        "bill{tenant=acme}",
        "bill{tenant=zoo}",
    ]


def test_a_run_that_declares_its_own_expectation_is_left_alone():
    found = job("0 1 * * * jobhistory run x", read=lambda words: ExpectedRun("x", declares=True))
    assert found.expectation is None
    assert "--expect" in found.note


@pytest.mark.parametrize(
    ("line", "note"),
    [
        ("@reboot jobhistory run --task x -- y", "when the machine starts"),
        ("61 2 * * * jobhistory run --task x -- y", "Bad minute"),
        ("0 0 31 2 * jobhistory run --task x -- y", "cron expression"),
        ("@every_minute jobhistory run --task x -- y", "five fields"),
        ("0 2 * * * jobhistory run --task x-$HOST -- y", "computed when the job runs"),
        ("0 2 * * * jobhistory run --task x-`hostname` -- y", "computed when the job runs"),
        ("0 2 * * * jobhistory run --no-such-option -- y", "--no-such-option"),
        ("0 2 * * * jobhistory run", "COMMAND"),
        ("0 2 * * * jobhistory run --task 'x -- y", "quotation"),
        ("0 2 * * *", "is no line of a crontab"),
        ("Hello", "is no line of a crontab"),
        ("0 2 * * * /srv/backup.sh", "does not record it"),
    ],
)
def test_what_cannot_be_expected_has_a_note(line, note):
    found = job(line)
    assert found.expectation is None
    assert note in found.note


@pytest.mark.parametrize("schedule", ["61 * * * *", "0 0 30 2 *"])
def test_a_schedule_that_never_comes_is_not_improved(schedule):
    found = job(f"{schedule} /srv/backup.sh")
    assert found.note.startswith(f"cron '{schedule}' ")
    assert found.remedy is None


@pytest.mark.parametrize(
    "line",
    [
        "0 2 * * * curl -u bob:pw777 https://u:pw666@h/ --token tok999",
        "0 2 * * * cd /srv && curl -u bob:pw777 'https://u:pw666@h/' --token tok999; true",
        "0 2 * * * mail%password=pw777",
        "0 2 * * * jobhistory run --no-such=https://u:pw666@h/ -- curl",
        "PASSWORD: pw777 https://u:pw666@h/",
    ],
)
def test_no_secret_of_a_command_line_is_shown(line):
    shown = str(job(line).to_dict())
    assert not [secret for secret in ("pw777", "pw666", "tok999") if secret in shown]


def test_comments_and_variables_are_no_jobs():
    assert jobs("# 0 2 * * * jobhistory run --task x -- y\n\n  # more\nMAILTO=''\nA = 'b'\n") == []


def test_cron_tz_is_the_time_zone_of_the_lines_below_it():
    line = "0 2 * * * jobhistory run --task {} -- x"
    text = "\n".join(
        [
            line.format("local"),
            "TZ=Asia/Tokyo",  # of the commands only
            line.format("still-local"),
            'CRON_TZ = "America/New_York"',
            line.format("abroad"),
            "CRON_TZ=",
            line.format("home"),
            "CRON_TZ=Mars/Olympus",
            line.format("nowhere"),
        ]
    )
    found = jobs(text)
    zones = [each.expectation and each.expectation.timezone for each in found]
    assert zones == ["Europe/Berlin", "Europe/Berlin", "America/New_York", "Europe/Berlin", None]
    assert "Mars/Olympus" in found[-1].note


def test_lines_of_a_system_crontab_name_a_user():
    line = "17 2 * * *\troot\tjobhistory run --task backup -- x"
    assert job(line, is_system=True).expectation.task_identifier == "backup"
    found = job("17 2 * * * root /srv/backup.sh", is_system=True)
    assert found.remedy == "17 2 * * * root jobhistory run --task backup.sh -- /srv/backup.sh"
    assert "user" in job("17 2 * * * root", is_system=True).note


def test_a_percent_sign_ends_the_command_unless_it_is_escaped():
    assert job("0 2 * * * jobhistory run --task x -- cat%--task y").expectation
    found = job(r"0 2 * * * jobhistory run --task x\%y -- date +\%F")
    assert found.expectation.task_identifier == "x%y"
    found = job(r"0 2 * * * date +\%F | mail me%Hello%World")
    assert found.remedy == (
        r"0 2 * * * jobhistory run --task date -- sh -c 'date +\%F | mail me'%Hello%World"
    )
    assert job(found.remedy).expectation.task_identifier == "date"


@pytest.mark.parametrize(
    ("command", "name"),
    [
        ("/srv/backup.sh --full", "backup.sh"),
        ("cd / && run-parts --report /etc/cron.hourly", "run-parts"),
        ("A=1 B='2 3' flock -w 10 /run/lock nice -n 10 /srv/backup", "backup"),
        ("timeout -k 5 1h sudo -u app -- /srv/backup", "backup"),
        ("'", "'"),
        ("flock", "flock"),
    ],
)
def test_what_is_not_recorded_gets_the_name_of_its_command(command, name):
    assert name_of(command) == name
    assert recorded_line(command).startswith("jobhistory run --task ")


def test_what_is_not_recorded_is_expected_if_that_is_wanted():
    found = job("17 2 * * * /srv/backup.sh", with_unrecorded=True)
    assert found.expectation.task_identifier == "backup.sh"
    assert "does not record" in found.note


def test_two_lines_of_one_task_become_one_cron_expression_if_that_says_the_same():
    lines = "0 2 * * * jobhistory run --task x -- y\n0 14 * * * jobhistory run --task x -- y"
    first, second = jobs(lines)
    assert first.expectation.cron == "0 2,14 * * *"
    assert second.expectation is None
    assert "line 1" in second.note
    first, second = jobs(lines.replace("14 *", "14 1"))
    assert first.expectation is second.expectation is None
    assert "no single cron expression" in first.note


@pytest.mark.parametrize(
    ("expressions", "expected"),
    [
        (["0 2 * * *"], "0 2 * * *"),
        (["0 2 * * *", "0 2 * * *"], "0 2 * * *"),
        (["0 2 * * *", "30 2 * * *"], "0,30 2 * * *"),
        (["0 2 * * *", "30 2 * * *", "0 14 * * *", "30 14 * * *"], "0,30 2,14 * * *"),
        (["0 9 * * 1-5", "0 9 * * 6"], "0 9 * * 1-5,6"),
        (["0 2 * * *", "30 3 * * *"], None),
        (["*/5 2 * * *", "1 2 * * *"], None),
        (["0 2 1 * *", "0 2 * * 1"], None),
        ([], None),
    ],
)
def test_the_union_of_cron_expressions(expressions, expected):
    assert union(expressions) == expected


hours = st.sampled_from(["1", "2", "3", "22-23", "*", "*/6"])
days = st.sampled_from(["*", "1", "15", "1-7"])
weekdays = st.sampled_from(["*", "0", "1-5"])
crons = st.builds("{} {} {} * {}".format, st.sampled_from(["0", "30"]), hours, days, weekdays)


@given(st.lists(crons, min_size=1, max_size=4))
@example(["0 2 1 * 1", "0 2 15 * 1"])
def test_the_union_has_the_slots_of_all(expressions):
    both = union(expressions)
    if both is not None:
        wanted = set().union(*(slots_of(each) for each in expressions))
        assert slots_of(both) == wanted


def slots_of(expression):
    begin = datetime(2026, 10, 15, tzinfo=UTC)
    return {*Cron(expression, "Europe/Berlin").slots([], begin, begin + timedelta(days=20))}


words = st.sampled_from(
    [
        *("0", "*", "*/5", "@daily", "@reboot", "CRON_TZ", "=", "UTC", "jobhistory", "run"),
        *(
            "--task",
            "x",
            "--",
            "%",
            "\\%",
            "'",
            '"',
            "sh -c",
            "&&",
            "|",
            "#",
            "\t",
            "$(",
            "\x1b[2J",
        ),
    ]
)


@given(st.lists(words | st.text(max_size=5), max_size=30), st.booleans(), st.booleans())
def test_no_text_breaks_the_reader(parts, is_system, with_unrecorded):
    text = " ".join(parts)
    for each in jobs(text, is_system=is_system, with_unrecorded=with_unrecorded):
        assert each.expectation or each.note


@given(st.text(alphabet=st.characters(exclude_characters="\n"), max_size=40))
@example("a '\\% b\\")
def test_the_line_to_use_instead_is_recorded(command):
    found = job(f"0 2 * * * {command}".rstrip(" \t\r"))
    if found.remedy is not None:
        assert job(found.remedy).expectation.task_identifier == found.task
