"""The timers of systemd as expectations."""

from __future__ import annotations

import shutil
import subprocess
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobhistory.cli.run_options import read_run
from jobhistory.expectations.expectation import Expectation
from jobhistory.expectations.importing.calendar_times import read_calendar
from jobhistory.expectations.importing.found import Unsuitable, one_for_each_task
from jobhistory.expectations.importing.systemd import Timer, Timers, read_timers
from jobhistory.expectations.importing.unit_files import read_settings, read_span
from jobhistory.expectations.schedule import Cron

GRACE = timedelta(minutes=5)
SERVICE = (
    "[Service]\nType=oneshot\nExecStart=/opt/bin/jobhistory run --task backup -- /srv/backup\n"
)


def jobs(timer, service=SERVICE, name="backup.timer", is_enabled=True, **named):
    named = {"read": read_run, "timezone": "Europe/Berlin", "grace": GRACE} | named
    text = timer if timer.startswith("[") else f"[Timer]\n{timer}\n"
    return one_for_each_task([*Timers(**named).jobs(Timer(name, text, service, is_enabled))])


def job(timer, service=SERVICE, **named):
    (each,) = jobs(timer, service, **named)
    return each


CALENDAR = {
    "minutely": "* * * * *",
    "hourly": "0 * * * *",
    "daily": "0 0 * * *",
    "weekly": "0 0 * * 1",
    "monthly": "0 0 1 * *",
    "quarterly": "0 0 1 1,4,7,10 *",
    "semiannually": "0 0 1 1,7 *",
    "yearly": "0 0 1 1 *",
    "*-*-* 02:17:00": "17 2 * * *",
    "2:17": "17 2 * * *",
    "Mon..Fri 08:00": "0 8 * * 1-5",
    "Mon-Fri 08:00": "0 8 * * 1-5",
    "Mon,Wed..Fri,Sunday 3:5": "5 3 * * 1,3-5,7",
    "Sat": "0 0 * * 6",
    "Mon..Sun *-*-1 1:00": "0 1 1 * *",
    "*:0/15": "0-59/15 * * * *",
    "02:0/15": "0-59/15 2 * * *",
    "02:*": "0-59 2 * * *",
    "*:10/15": "10-59/15 * * * *",
    "00/2:30": "30 0-23/2 * * *",
    "08..17:00": "0 8-17 * * *",
    "00:00,12": "0,12 0 * * *",
    "*-*-01 04:00": "0 4 1 * *",
    "12-25 8:00": "0 8 25 12 *",
    "*-1/3-5/10": "0 0 5-31/10 1-12/3 *",
}
NO_CRON = {
    "*-*~1": "end of the month",
    "2027-01-01": "no years",
    "2027-*-1": "no years",
    "00:00:30": "no seconds",
    "*:*:0/10": "no seconds",
    "Mon *-*-1..7 03:00": "both a day and a weekday",
    "Fri..Mon 3:00": "weekdays",
    "25:00": "out of range",
    "*:5..3": "out of range",
    "3:00 Mars/Olympus": "Mars/Olympus",
    "3": "cannot be read",
    "": "cannot be read",
    "3:00 4:00": "cannot be read",
    "*/2:00": "cannot be read",
    "1:2/3/4": "cannot be read",
}


@pytest.mark.parametrize(("text", "cron"), CALENDAR.items())
def test_a_calendar_event_is_written_as_cron(text, cron):
    assert read_calendar(text) == (cron, None)
    assert Expectation("x", cron=cron).cron == cron


@pytest.mark.parametrize(("text", "reason"), NO_CRON.items())
def test_what_cron_cannot_say_has_a_reason(text, reason):
    with pytest.raises(Unsuitable, match=reason):
        read_calendar(text)


@pytest.mark.parametrize(
    ("text", "zone"),
    [
        ("02:30 Europe/Berlin", "Europe/Berlin"),
        ("Mon 02:30 utc", "UTC"),
        ("hourly America/New_York", "America/New_York"),
        ("*-*-* 3:00 CET", "CET"),
    ],
)
def test_a_time_zone_may_follow(text, zone):
    assert read_calendar(text).timezone == zone


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="needs systemd-analyze")
@pytest.mark.parametrize("text", CALENDAR)
@pytest.mark.parametrize("begin", ["2027-03-26", "2027-10-29"])
def test_systemd_starts_it_at_the_slots_around_a_change_of_clocks(text, begin):
    zone, count = "Europe/Berlin", 40
    ran = subprocess.run(
        [
            *("systemd-analyze", "calendar", f"--iterations={count}"),
            *(f"--base-time={begin} 00:00:30 UTC", f"{text} {zone}"),
        ],
        capture_output=True,
        text=True,
        env={"TZ": "UTC", "PATH": "/usr/bin:/bin"},
        check=True,
    )
    lines = [line.partition(": ")[2].strip() for line in ran.stdout.splitlines()]
    starts = [
        datetime.strptime(line, "%a %Y-%m-%d %H:%M:%S UTC").replace(tzinfo=UTC)
        for line in lines
        if line.endswith(" UTC")
    ]
    assert len(starts) == count
    begun = datetime.fromisoformat(begin).replace(tzinfo=UTC) + timedelta(seconds=30)
    slots = Cron(read_calendar(text).cron, zone).slots([], begun, starts[-1])
    assert {*starts} <= {*slots}
    # At times that clocks skip, systemd starts nothing, and cron does so right after the gap.
    assert {*slots} - {*starts} <= {datetime(2027, 3, 28, 1, tzinfo=UTC)}


def test_a_timer_is_expected_at_the_times_of_its_calendar():
    found = job("OnCalendar=*-*-* 02:17:00\nPersistent=true")
    assert (found.where, found.schedule) == ("backup.timer", "OnCalendar=*-*-* 02:17:00")
    expected = Expectation("backup", cron="17 2 * * *", timezone="Europe/Berlin")
    assert found.expectation == expected
    assert job("OnCalendar=2:17 UTC").expectation.timezone == "UTC"


def test_several_calendar_events_become_one_cron_expression_if_that_says_the_same():
    assert job("OnCalendar=2:00\nOnCalendar=14:00").expectation.cron == "0 2,14 * * *"
    assert "no single cron" in job("OnCalendar=2:00\nOnCalendar=14:30").note
    assert "no single cron" in job("OnCalendar=2:00\nOnCalendar=14:00 UTC").note
    assert job("OnCalendar=2:00\nOnCalendar=\nOnCalendar=14:30").expectation.cron == "30 14 * * *"


def test_an_interval_counts_from_start_to_start():
    found = job("OnBootSec=10min\nOnUnitActiveSec=1h 30min")
    assert found.expectation.every == timedelta(minutes=90)


@pytest.mark.parametrize(
    ("timer", "note"),
    [
        ("OnBootSec=10min", "starts once"),
        ("OnActiveSec=5", "starts once"),
        ("", "never"),
        ("OnUnitInactiveSec=1h", "from the end of each run"),
        ("OnCalendar=daily\nOnUnitActiveSec=1h", "depend on each other"),
        ("OnUnitActiveSec=soon", "no length of time"),
        ("OnUnitActiveSec=500ms", "whole seconds"),
        ("OnCalendar=Mon *-*-1..7", "both a day and a weekday"),
        ("OnCalendar=daily\nRandomizedDelaySec=x", "RandomizedDelaySec=x"),
    ],
)
def test_a_timer_that_cannot_be_expected_has_a_note(timer, note):
    found = job(timer)
    assert found.expectation is None
    assert note in found.note


def test_the_delays_that_a_timer_allows_are_part_of_the_grace_period():
    found = job("OnCalendar=daily\nRandomizedDelaySec=1h\nAccuracySec=1min 500ms")
    assert found.expectation.grace == timedelta(hours=1, minutes=6, seconds=1)


@pytest.mark.parametrize(
    ("command", "name", "task"),
    [
        ("-/opt/bin/jobhistory run --task backup -- x", "a.timer", "backup"),
        ("jobhistory run --task=backup-%i -- x", "backup@db.timer", "backup-db"),
        ("jobhistory run --task 100%% -- x", "a.timer", "100%"),
        ("/bin/sh -c 'cd /srv && jobhistory run --task backup -- x'", "a.timer", "backup"),
        ("jobhistory run \\\n  --task backup \\\n  -- x", "a.timer", "backup"),
    ],
)
def test_the_task_is_that_of_the_service(command, name, task):
    found = job("OnCalendar=daily", f"[Service]\nExecStart={command}", name=name)
    assert found.expectation.task_identifier == task


@pytest.mark.parametrize(
    ("command", "note"),
    [
        ("jobhistory run --task %H -- x", "computed when the job runs"),
        ("jobhistory run --task ${NAME} -- x", "computed when the job runs"),
        ("jobhistory run --task 'x", "quotation"),
        ("/srv/backup.sh --full", "does not record it"),
    ],
)
def test_a_service_whose_task_is_not_known_has_a_note(command, note):
    found = job("OnCalendar=daily", f"[Service]\nExecStart={command}")
    assert found.expectation is None
    assert note in found.note


def test_what_is_not_recorded_names_the_line_to_use_instead():
    service = "[Service]\nExecStart=-/srv/backup.sh --full"
    found = job("OnCalendar=daily", service)
    assert found.remedy == "ExecStart=jobhistory run --task backup -- /srv/backup.sh --full"
    assert job("OnCalendar=daily", service, with_unrecorded=True).expectation.name == "backup"


@pytest.mark.parametrize("command", ["curl", "jobhistory run --no-such=https://u:pw777@h/"])
def test_no_secret_of_a_command_is_shown(command):
    service = f"[Service]\nExecStart={command} -u bob:pw777 https://u:pw777@h/"
    assert "pw777" not in str(job("OnCalendar=daily", service).to_dict())


def test_the_timers_of_a_folder_are_read_with_their_services(tmp_path):
    for name, text in {
        "backup.timer": "[Timer]\nOnCalendar=daily",
        "backup.service": SERVICE,
        "backup.timer.d/later.conf": "[Timer]\nOnCalendar=\nOnCalendar=3:00",
        "mail.timer": "[Timer]\nOnCalendar=hourly\nUnit=post.service",
        "post.service": SERVICE.replace("backup", "mail"),
        "db@.timer": "[Timer]\nOnCalendar=hourly",
        "db@main.timer": "[Timer]\nOnCalendar=weekly",
        "db@.service": SERVICE.replace("task backup", "task db-%i"),
        "lost.timer": "[Timer]\nOnCalendar=hourly",
    }.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    timers = Timers(read_run, "UTC", GRACE)

    def found():
        return {
            each.where: each.expectation.cron if each.expectation else each.note
            for timer in read_timers(tmp_path)
            for each in timers.jobs(timer)
        }

    assert found() == {
        "backup.timer": "0 3 * * *",
        "db@main.timer": "0 0 * * 1",
        "lost.timer": "has no file of a service",
        "mail.timer": "0 * * * *",
    }
    (tmp_path / "timers.target.wants").mkdir()
    (tmp_path / "timers.target.wants/mail.timer").symlink_to(tmp_path / "mail.timer")
    assert {name for name, text in found().items() if text != "is not enabled"} == {"mail.timer"}
    assert [each.name for each in read_timers(tmp_path / "mail.timer")] == ["mail.timer"]
    with pytest.raises(FileNotFoundError):
        [*read_timers(tmp_path / "gone.timer")]


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90", 90), ("1h 30min", 5400), ("1d2h", 93600), ("1.5 m", 90), ("2 weeks", 1209600)],
)
def test_lengths_of_time_have_the_units_of_systemd(text, seconds):
    assert read_span(text) == timedelta(seconds=seconds)


@pytest.mark.parametrize("text", ["", "h", "5 parsecs", "1h x", "-5", "9" * 400])
def test_other_text_is_no_length_of_time(text):
    assert read_span(text) is None


def test_settings_are_those_of_one_section():
    text = "[Unit]\nA=0\n[Timer]\n# A=1\n; A=2\nA = x=y \nB=1\\\n 2\nno\n[Install]\nA=3"
    assert read_settings(text, "Timer") == {"A": ["x=y"], "B": ["1  2"]}


pieces = st.sampled_from(
    [
        *("[Timer]", "\n", "OnCalendar=", "Mon..Fri", "*:0/5", "2:00", "UTC", "~", "/", ",", ".."),
        *("OnUnitActiveSec=", "1h", "RandomizedDelaySec=", "\\", "[Service]", "ExecStart=", "%i"),
    ]
)


@given(st.lists(pieces | st.text(max_size=4), max_size=30), st.booleans())
def test_no_text_breaks_the_reader(parts, with_unrecorded):
    text = "".join(parts)
    for each in jobs(f"[Timer]\n{text}", text, with_unrecorded=with_unrecorded):
        assert each.expectation or each.note
