"""`jobhistory expect import`: schedules of crontabs, systemd timers and apps as expectations."""

from __future__ import annotations

import json
import os
import sys
from datetime import timedelta
from io import StringIO
from pathlib import Path

import pytest

from jobhistory import create_store
from jobhistory.cli import importing
from jobhistory.expectations.declarations import DeclaredExpectation
from jobhistory.expectations.expectation import Expectation
from jobhistory.expectations.importing.found import Found
from jobhistory.expectations.importing.plan import plan_import
from jobhistory.expectations.toml_file import load_expectations
from tests.test_cli import LONG_AGO, lines, run, url  # noqa: F401 - fixtures

# ruff: noqa: F811

CRONTAB = """\
CRON_TZ=Europe/Berlin
17 2 * * * jobhistory run --task backup -- /srv/backup.sh
*/5 * * * * jobhistory run --task mail -- /srv/mail.sh
@reboot /srv/start.sh
0 3 * * 0 /srv/weekly.sh
"""


@pytest.fixture
def crontab(tmp_path):
    path = tmp_path / "crontab"
    path.write_text(CRONTAB)
    return path


@pytest.fixture
def imports(run, url):
    """Imports with some options; returns the actions by task, and what standard error says."""

    def imports(*options):
        status, out, err = run("expect", "import", *options, "--json", "--url", url)
        assert status == 0, err
        steps = [json.loads(line) for line in out.splitlines()]
        return {step["task"]: step["action"] for step in steps}, err

    return imports


def declared(database):
    return {each.expectation.name: each for each in create_store(database.engine).expectations()}


def test_an_import_declares_what_cron_starts(imports, database, crontab):
    actions, err = imports("--crontab", crontab)
    assert actions == {"backup": "add", "mail": "add", None: "skip", "weekly.sh": "skip"}
    assert err == "jobhistory: 2 added, 2 skipped\n"
    found = declared(database)
    assert [*found] == ["backup", "mail"]
    expected = Expectation("backup", cron="17 2 * * *", timezone="Europe/Berlin")
    assert found["backup"].expectation == expected
    assert found["backup"].source.startswith(f"crontab:{crontab} on ")


def test_a_second_import_changes_nothing_and_says_so(imports, database, crontab):
    imports("--crontab", crontab)
    before = declared(database)
    actions, err = imports("--crontab", crontab)
    assert actions == {"backup": "keep", "mail": "keep", None: "skip", "weekly.sh": "skip"}
    assert err == "jobhistory: nothing changed: 2 kept, 2 skipped\n"
    assert declared(database) == before


def test_an_import_changes_schedules_and_keeps_what_was_edited(imports, database, crontab):
    imports("--crontab", crontab)
    source = declared(database)["backup"].source
    edited = Expectation(
        "backup",
        cron="17 2 * * *",
        timezone="Europe/Berlin",
        grace="1h",
        owner="ann",
        max_runtime="2h",
    )
    create_store(database.engine).expect(edited, source=source)
    crontab.write_text(CRONTAB.replace("17 2", "30 4"))

    assert imports("--crontab", crontab)[0]["backup"] == "change"
    changed = Expectation.of(edited.to_dict() | {"cron": "30 4 * * *"})
    assert declared(database)["backup"].expectation == changed
    assert imports("--crontab", crontab, "--grace", "10m")[0]["backup"] == "change"
    assert declared(database)["backup"].expectation.grace == timedelta(minutes=10)


def test_what_somebody_has_declared_stays_as_it_is(imports, run, url, database, crontab):
    own = create_store(database.engine).expect("backup", every="1d", owner="ann")
    assert imports("--crontab", crontab)[0]["backup"] == "keep"
    assert declared(database)["backup"].expectation == own
    _, out, _ = run("expect", "import", "--crontab", crontab, "--url", url)
    assert "is declared by hand or in code" in out


def test_what_is_gone_is_removed_only_on_request(imports, database, crontab, tmp_path):
    other = tmp_path / "other"
    other.write_text("0 1 * * * jobhistory run --task other -- x")
    create_store(database.engine).expect("own", every="1d")
    imports("--crontab", crontab, other)
    crontab.write_text("\n")

    actions, _ = imports("--crontab", crontab)
    assert actions == {"backup": "keep", "mail": "keep"}
    actions, err = imports("--crontab", crontab, "--prune", "--dry-run")
    assert err == "jobhistory: would be: 2 removed\n"
    assert [*declared(database)] == ["backup", "mail", "other", "own"]
    imports("--crontab", crontab, "--prune")
    assert [*declared(database)] == ["other", "own"]


def test_a_dry_run_writes_nothing(imports, database, crontab):
    actions, err = imports("--crontab", crontab, "--dry-run")
    assert actions["backup"] == "add"
    assert err == "jobhistory: would be: 2 added, 2 skipped\n"
    assert declared(database) == {}


def test_toml_is_for_a_file_and_needs_no_database(run, crontab, tmp_path):
    status, out, _ = run("expect", "import", "--crontab", crontab, "--toml", "--url", "nonsense")
    assert status == 0
    assert "# crontab:4: runs when the machine starts, at no known time" in out
    file = tmp_path / "expectations.toml"
    file.write_text(out)
    assert [each.name for each in load_expectations(file)] == ["backup", "mail"]


def test_a_table_names_the_place_and_the_line_to_use_instead(run, url, crontab):
    status, out, _ = run("expect", "import", "--crontab", crontab, "--url", url)
    assert status == 0
    headings, *rows = lines(out)
    assert headings == ["ACTION", "TASK", "SCHEDULE", "WHERE", "NOTE"]
    assert rows[0] == ["add", "backup", "17 2 * * * Europe/Berlin", "crontab:2", ""]
    assert rows[3][4] == (
        "jobhistory does not record it; instead: "
        "0 3 * * 0 jobhistory run --task weekly.sh -- /srv/weekly.sh"
    )


def test_control_characters_do_not_reach_the_terminal(run, url, crontab):
    crontab.write_text("0 3 * * 0 /srv/\x1b[2J\x9b.sh\n0 1 * * * jobhistory run --task \x1b -- x")
    _, out, _ = run("expect", "import", "--crontab", crontab, "--url", url)
    assert all(char.isprintable() or char in "\n\t" for char in out)


def test_what_is_not_recorded_can_be_imported_as_well(imports, crontab):
    assert imports("--crontab", crontab, "--unrecorded")[0]["weekly.sh"] == "add"


@pytest.mark.parametrize("option", ["--crontab", "--systemd"])
def test_an_empty_path_is_not_the_current_folder(run, url, option):
    status, out, err = run("expect", "import", option, "", "--url", url)
    assert (status, out) == (2, "")
    assert "FILE '' names no file or folder; write its path" in err


def test_a_folder_may_have_what_cron_does_not_read(imports, tmp_path):
    (tmp_path / "app").write_text("0 1 * * * jobhistory run --task app -- true\n")
    (tmp_path / "folder").mkdir()
    (tmp_path / "broken").symlink_to(tmp_path / "nowhere")
    assert imports("--crontab", tmp_path)[0] == {"app": "add"}


def test_a_folder_has_the_crontabs_that_cron_reads(imports, tmp_path):
    folder = tmp_path / "cron.d"
    folder.mkdir()
    for name in ("app", "app.dpkg-old", "db"):
        line = f"0 1 * * * root jobhistory run --task {name} -- x"
        (folder / name).write_text(line)
    assert imports("--crontab", folder, "--system")[0] == {"app": "add", "db": "add"}


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/etc/crontab", True),
        ("/etc/cron.d", True),
        ("/etc/cron.d/app", True),
        ("/etc/crontabs/app", False),
        ("/srv/crontab", False),
    ],
)
def test_the_crontabs_of_the_system_name_users(path, expected):
    assert importing.names_users(Path(path)) is expected


def test_standard_input_may_come_from_another_machine(imports, database, monkeypatch):
    monkeypatch.setattr(sys, "stdin", StringIO(CRONTAB.replace("CRON_TZ=Europe/Berlin", "")))
    options = ("--crontab", "-", "--source", "web-2", "--timezone", "Asia/Tokyo")
    imports(*options)
    found = declared(database)["backup"]
    assert (found.source, found.expectation.timezone) == ("web-2", "Asia/Tokyo")


def test_the_crontab_of_the_user_is_the_default(imports, monkeypatch, tmp_path):
    program = tmp_path / "crontab"
    program.write_text("#!/bin/sh\necho '0 1 * * * jobhistory run --task mine -- x'")
    program.chmod(0o700)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    assert imports("--crontab")[0] == {"mine": "add"}


@pytest.mark.parametrize(
    ("program", "message"),
    [
        ("#!/bin/sh\necho no crontab for ann >&2\nexit 1", "crontab -l: no crontab for ann"),
        (None, "there is no command crontab; name the file after --crontab"),
    ],
)
def test_a_user_without_a_crontab_gets_the_reason(run, monkeypatch, tmp_path, program, message):
    if program is not None:
        (tmp_path / "crontab").write_text(program)
        (tmp_path / "crontab").chmod(0o700)
    monkeypatch.setenv("PATH", os.fspath(tmp_path) + ("" if program is None else ":/bin"))
    status, _, err = run("expect", "import", "--crontab")
    assert (status, err) == (1, f"jobhistory: {message}\n")


def test_the_timers_of_the_machine_are_the_default(imports, monkeypatch, tmp_path):
    (tmp_path / "backup.timer").write_text("[Timer]\nOnCalendar=2:17")
    (tmp_path / "backup.service").write_text("[Service]\nExecStart=jobhistory run --task b -- x")
    monkeypatch.setattr(importing, "UNIT_FOLDERS", (tmp_path, tmp_path / "none"))
    assert imports("--systemd")[0] == {"b": "add"}
    assert imports("--systemd", tmp_path / "backup.timer")[0] == {"b": "keep"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ((), "name one of --crontab, --systemd and --app"),
        (("--crontab", "--systemd"), "name one of --crontab, --systemd and --app"),
        (("FILE", "--app", "shop:app"), "FILE 'FILE' does not go with --app"),
        (("--crontab", "--grace", "soon"), "--grace 'soon' is not a duration"),
        (("--crontab", "--timezone", "Mars"), "--timezone 'Mars' is not a time zone"),
        (("--app", "shop"), "--app 'shop' is not a place"),
        (("--app", "json:JSONDecoder"), "is no app that has schedules"),
    ],
)
def test_invalid_options_are_named(run, options, message):
    status, out, err = run("expect", "import", *options)
    assert (status, out) == (2, "")
    assert message in err


def test_a_file_that_is_missing_is_named(run, tmp_path):
    status, _, err = run("expect", "import", "--crontab", tmp_path / "gone")
    assert status == 2  # as with `expect load` and `--rules`
    assert "gone" in err


def test_one_task_in_two_files_is_declared_once_or_not_at_all(imports, tmp_path):
    for name, hour in (("a", 1), ("b", 2)):
        line = f"0 {hour} * * * jobhistory run --task backup -- x"
        (tmp_path / name).write_text(line)
    _, err = imports("--crontab", tmp_path / "a", tmp_path / "b")
    assert err == "jobhistory: 1 added, 1 skipped\n"


def test_a_schedule_may_change_from_an_interval_to_cron():
    old = DeclaredExpectation(Expectation("x", every="1h", owner="ann"), "here", LONG_AGO)
    new = Expectation("x", cron="0 1 * * *", timezone="Asia/Tokyo")
    (step,) = plan_import({"here": [Found("line 1", "", "x", new)]}, [old])
    assert step.action == "change"
    assert step.expectation == Expectation.of(new.to_dict() | {"owner": "ann"})
