"""The options that the commands share."""

from __future__ import annotations

import os
import time
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import create_engine

from jobhistory import Job, create_store, migrate
from jobhistory.cli import main
from jobhistory.cli.app import program
from jobhistory.cli.options import OPTIONS
from tests import command_line


@pytest.fixture
def run(capsys, monkeypatch, tmp_path):
    """Runs a command in this process; returns exit status, standard output and error."""
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    for name in ("JOBHISTORY_URL", "JOBHISTORY_SCHEMA"):
        monkeypatch.delenv(name, raising=False)

    def run(*arguments):
        with pytest.raises(SystemExit) as caught:
            main([str(argument) for argument in arguments])
        out, err = capsys.readouterr()
        return caught.value.code or 0, out, err

    return run


@pytest.fixture
def plain_url(tmp_path):
    """The URL of an SQLite file with executions of three tasks."""
    url = f"sqlite:///{tmp_path}/history.db"
    engine = create_engine(url)
    migrate.upgrade(engine)
    engine.dispose()
    with create_store(url) as store:
        for number, task in enumerate(["backup", "mail", "a,b"]):
            store.begin(Job(number, task), f"host-{number}").end()
        store.begin(Job("3", "mail"), "host-3")
    return url


def jobs(out):
    return sorted(line.split("\t")[4] for line in out.splitlines()[1:])


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--task", "backup,mail"], ["0", "1", "3"]),
        (["--task", "backup", "--task", "mail,none"], ["0", "1", "3"]),
        (["--task", r"a\,b"], ["2"]),
        (["--task", r"a\,b,backup"], ["0", "2"]),
        (["--task", "a,b"], []),
        (["--worker", "host-0,host-2"], ["0", "2"]),
        (["--status", "started,failed"], ["3"]),
        (["--since", "1 h ago"], ["0", "1", "2", "3"]),
        (["--until", "yesterday"], []),
    ],
)
def test_options_that_repeat_take_lists_with_commas(run, plain_url, options, expected):
    status, out, err = run("list", "--url", plain_url, *options)
    assert (status, err) == (0, "")
    assert jobs(out) == expected


def test_an_empty_value_in_a_list_is_refused(run, plain_url):
    assert "--task '' is not a name" in run("list", "--url", plain_url, "--task", "a,")[2]
    assert "--status ' failed'" in run("list", "--url", plain_url, "--status", "started, failed")[2]


@pytest.mark.parametrize(
    "command", ["stats", "running --json", "workers", "reap --older-than 1h -v"]
)
def test_every_command_takes_lists(run, plain_url, command):
    one = run(*command.split(), "--url", plain_url, "--task", "mail")
    both = run(*command.split(), "--url", plain_url, "--task", r"a\,c,mail")
    assert one == both
    assert one[0] == 0


@pytest.mark.parametrize("bare_database", ["postgresql"], indirect=True)
def test_the_schema_comes_from_the_environment(run, bare_database, monkeypatch):
    url = bare_database.url.render_as_string(hide_password=False)
    monkeypatch.setenv("JOBHISTORY_SCHEMA", "audit")
    monkeypatch.setenv("JOBHISTORY_URL", url)

    assert run("db", "upgrade")[0] == 0
    assert command_line.run("run", "--", "true", env=dict(os.environ)).stderr == ""
    monkeypatch.delenv("JOBHISTORY_SCHEMA")
    assert run("list")[0] == 1
    assert len(run("list", "--schema", "audit")[1].splitlines()) == 2


@pytest.mark.skipif(not hasattr(time, "tzset"), reason="Windows has no tzset()")
@pytest.mark.parametrize("command", ["list", "stats --json", "workers --json"])
def test_times_without_an_offset_are_in_the_zone_of_the_screen(
    run, plain_url, monkeypatch, command
):
    soon = (datetime.now(UTC) + timedelta(minutes=30)).strftime("%Y-%m-%d %H:%M")
    given = [*command.split(), "--url", plain_url, "--since", soon]
    before = os.environ.get("TZ")
    try:
        monkeypatch.setenv("TZ", "Etc/GMT-3")  # three hours before UTC, so this is long ago
        time.tzset()
        here, in_utc = run(*given)[1], run(*given, "--utc")[1]
    finally:
        monkeypatch.setenv("TZ", before) if before else monkeypatch.delenv("TZ")
        time.tzset()
    assert "mail" in here or "host-3" in here
    assert "mail" not in in_utc
    assert "host-3" not in in_utc


def test_the_hint_for_the_next_page_names_the_database(run, plain_url, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "60")
    page = ["list", "--limit", "1", "--task", "mail,backup"]
    hint = run(*page, "--url", plain_url)[1].splitlines()[-1]
    assert hint.startswith("more: jobhistory list --task mail --task backup --limit 1 --after ")
    assert hint.endswith(f" --url {plain_url}")
    monkeypatch.setenv("JOBHISTORY_URL", plain_url)
    assert run(*page)[1].splitlines()[-1] == hint, "another shell may have another database"


@pytest.mark.parametrize("bare_database", ["postgresql"], indirect=True)
def test_the_hint_names_the_schema_and_no_password(run, bare_database, monkeypatch):
    url = bare_database.url.set(password="hunter2").render_as_string(hide_password=False)
    monkeypatch.setenv("JOBHISTORY_URL", url)
    monkeypatch.setenv("JOBHISTORY_SCHEMA", "audit")
    assert run("db", "upgrade")[0] == 0
    with create_store(url, schema="audit") as store:
        for number in range(2):
            store.begin(Job(number, "t"), "w").end()
    for name, value in {"FORCE_COLOR": "1", "NO_COLOR": "1"}.items():
        monkeypatch.setenv(name, value)
    hint = run("list", "--limit", "1")[1].splitlines()[-1]
    assert hint.startswith("more: jobhistory list --limit 1 --after ")
    assert hint.endswith(" --schema audit")
    assert "hunter2" not in hint


INVALID = {
    "--after": "x",
    "--ahead": "0",
    "--alert": "nobody",
    "--app": "nowhere",
    "--archive": "nosuch://x",
    "--batch-size": "0",
    "--bucket": "soon",
    "--correlation-id": "",
    "--columns": "nosuch",
    "--cron": "1 2",
    "--daily": "soon",
    "--error-contains": "",
    "--error-type": "",
    "--every": "soon",
    "--execution-id": "x",
    "--expect": "soon",
    "--failures-in-a-row": "few",
    "--format": "xml",
    "--from": "soon",
    "--grace": "soon",
    "--heartbeat": "ftp://",
    "--heartbeat-older-than": "soon",
    "--hourly": "soon",
    "--interval": "soon",
    "--into": "job_history",
    "--job-id": "",
    "--kill-after": "soon",
    "--label": "tenant",
    "--last": "-1",
    "--limit": "0",
    "--logs-url": "x",
    "--max-failure-rate": "2.5",
    "--max-running": "few",
    "--max-runtime": "soon",
    "--max-success-age": "soon",
    "--max-tasks": "-1",
    "--min-attempt": "-1",
    "--min-runtime": "soon",
    "--min-time": "soon",
    "--ok-status": "all",
    "--older-than": "soon",
    "--owner": " ",
    "--page-url": "x",
    "--parent-id": "x",
    "--paused-until": "yesterday",
    "--port": "x",
    "--record": "some",
    "--recount": "x",
    "--retention": "soon",
    "--retry": "often",
    "--retry-delay": "soon",
    "--rules": "/nowhere/rules.toml",
    "--runbook": " ",
    "--schema": "",
    "--since": "tomorrow",
    "--source": "",
    "--source-url": "x",
    "--status": "done",
    "--task": "",
    "--textfile": "metrics.txt",
    "--time-limit": "5",
    "--timeout": "soon",
    "--timezone": "Mars/Base",
    "--to": "sometime",
    "--trace-id": "x",
    "--trace-url": "x",
    "--until": "sometime",
    "--url": "mysql://",
    "--worker": "",
    "--worker-prefix": "",
}
"""For each option, a value that it does not take."""

ANY = {"--title", "--line", "--word"}
"""Options that take any text."""

LATER = {("run", "--capture"), ("run", "--rules"), ("web", "--host")}
"""Options whose values only turn out to be invalid when the command has begun."""

REQUIRED = {
    "archive delete": ["/nowhere/archive", "--yes", "--task", "t"],
    "archive restore": ["/nowhere/archive"],
    "archive sql": ["/nowhere/archive", "SELECT 1"],
    "archive verify": ["/nowhere/archive"],
    "db downgrade": ["base"],
    "expect add": ["nightly"],
    "expect edit": ["nightly", "--every", "1d"],
    "expect load": ["/dev/null"],
    "expect pause": ["nightly", "--until", "2h"],
    "expect remove": ["nightly"],
    "expect resume": ["nightly"],
    "expect show": ["nightly"],
    "expect import": ["--crontab", "/dev/null"],
    "purge": ["--yes", "--task", "t"],
    "reap": ["--older-than", "1h"],
    "replay": ["--app", "json:loads", "--status", "failed"],
    "run": ["--", "true"],
    "show": ["1"],
}


@pytest.fixture(scope="module")
def data_home(tmp_path_factory):
    """A folder in which all tests of a module have one history file."""
    return tmp_path_factory.mktemp("data")


def every_option():
    """Yield the words of each command with an option that takes a value, and the option."""

    def below(group, words):
        for name, command in group.commands.items():
            if hasattr(command, "commands"):
                yield from below(command, [*words, name])
            else:
                yield " ".join([*words, name]), command

    for words, command in below(program, []):
        for parameter in command.params:
            if parameter.param_type_name == "option" and not parameter.is_flag:
                for option in parameter.opts:
                    if option not in ANY and (words, option) not in LATER:
                        yield pytest.param(words, option, parameter, id=f"{words} {option}")


@pytest.mark.parametrize(("words", "option", "parameter"), list(every_option()))
def test_an_error_names_the_option_as_it_was_typed(
    run, data_home, monkeypatch, words, option, parameter
):
    monkeypatch.setenv("XDG_DATA_HOME", str(data_home))
    value = INVALID[parameter.opts[0]]
    given = [option, *[value] * parameter.nargs]
    others = REQUIRED.get(words, [])
    if (words, option) == ("expect import", "--app"):  # which is in place of a crontab
        others = []
    if option in others:
        place = others.index(option)
        others = others[:place] + others[place + 2 :]
    status, out, err = run(*words.split(), *given, *others)
    if words == "check":  # as monitoring expects it of a plugin
        assert (status, err) == (3, "")
        out, err = "", out
        status = 2
    assert (status, out) == (2, "")
    assert option in err
    assert value in err
    assert "Usage" not in err, "Typer's own words quote no value, and show none that is valid"
    assert "Traceback" not in err


def test_every_argument_has_an_option_that_exists():
    options = {each.values[1] for each in every_option()}
    assert set(OPTIONS.values()) <= options


@pytest.mark.parametrize(
    ("name", "value"),
    [("JOBHISTORY_URL", "nonsense"), ("JOBHISTORY_RETENTION_RULES", "/nowhere/rules.toml")],
)
def test_an_error_names_the_variable_that_was_set(run, monkeypatch, name, value):
    monkeypatch.setenv(name, value)
    status, out, err = run("expire")
    assert (status, out) == (2, "")
    assert err.startswith(f"jobhistory: {name} ")


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("foo", "--url '...' is not a database URL; write it like 'sqlite:///history.db' or"),
        ("mysql://u:hunter2@h/d", "--url 'mysql://...' uses 'mysql', but jobhistory supports only"),
        ("postgres+x://h/d", "--url 'postgres+x://...' names a driver that SQLAlchemy does not"),
        ("postgres://u:p@q@h/d", "--url 'postgres://...' has an @ that is not encoded; write %40"),
        ("sqlite://", "--url 'sqlite://' is a database in memory, which vanishes with its "
         "connection; name a file, as in 'sqlite:///history.db'\n"),
    ],
)  # fmt: skip
def test_a_url_that_cannot_be_used_gets_a_sentence(run, url, says):
    status, out, err = run("list", "--url", url)
    assert (status, out) == (2, "")
    assert err.startswith(f"jobhistory: {says}")
    assert "hunter2" not in err


@pytest.mark.parametrize(
    "words", ["list {}", "{}", "db {}", "list --{}", "list --limit {}", "check {}", "run --{} -- x"]
)
def test_a_url_in_the_wrong_place_is_shown_without_its_password(run, words):
    status, out, err = run(*words.format("postgresql://u:hunter2@h/d").split())
    assert status != 0
    assert "postgresql://u:[redacted]@h" in out + err
    assert "hunter2" not in out + err


def test_reap_says_which_options_choose_executions(run):
    assert run("reap") == (
        2,
        "",
        "jobhistory: pass --older-than or --heartbeat-older-than, as in --older-than 2h\n",
    )


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("list --limit x", "--limit 'x' is not a whole number; write it like 100"),
        ("list --limit=1.5", "--limit '1.5' is not a whole number; write it like 100"),
        ("list --min-attempt x", "--min-attempt 'x' is not a whole number; write it like 2"),
        ("list --limit x --limit 5y", "--limit '5y' is not a whole number; write it like 100"),
        ("list --task --limit --limit 3x", "--limit '3x' is not a whole number; write it like 100"),
        ("list --min-attempt \u0663", "--min-attempt '\u0663' is not a whole number; write it like "
         "2"),
        (f"list --limit {'9' * 5_000}", f"--limit '{'9' * 57}...{'9' * 58}' is too large; write it "
         "like 100"),
        ("list --limit 99999999999999999999", "--limit 99999999999999999999 is not a whole number "
         "from 1 to 9223372036854775807; write it like 100"),
        ("web --port 65536", "--port 65536 is not a whole number from 0 to 65535; write it like "
         "8642"),
        ("completion tcsh", "SHELL 'tcsh' is not one of 'bash', 'zsh', 'fish'"),
        ("run --record 2 -- true", "--record '2' is neither 'all', nor 'failures', nor a share "
         "from 0 to 1; write it like 0.01"),
        ("list --since 1d --until 2d", "--since '1d' is after --until '2d', the end of the window; "
         "swap the two"),
        ("fold --recount 2026-11-28T10:30 2026-11-28T12", "--recount '2026-11-28T10:30' is not the "
         "start of an hour; write it like '2026-11-28T12:00+00:00'"),
        ("fold --recount 2026-11-28T12 2026-11-28T12", "--recount '2026-11-28T12' is not after "
         "2026-11-28 12:00:00+00:00; pass the end of the window"),
        ("expect import --crontab no.cron", "FILE 'no.cron' cannot be read: No such file or "
         "directory"),
        ("expect import --systemd no.timer", "FILE 'no.timer' cannot be read: No such file or "
         "directory"),
    ],
)  # fmt: skip
def test_an_error_quotes_the_value_as_it_was_typed(run, words, says):
    assert run(*words.split()) == (2, "", f"jobhistory: {says}\n")


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("--format x", "--format 'x' is not one of 'nagios', 'json', 'prometheus'"),
        ("--watch --json", "--watch does not go with --json; leave one of them out"),
        ("--watch --format nagios", "--watch does not go with --format nagios; leave one of them "
         "out"),
        ("--alert command:", "--alert 'command:...' is not a command; write it like "
         "'command:/usr/local/bin/page-me --now'"),
    ],
)  # fmt: skip
def test_an_error_of_a_check_names_what_was_typed(run, words, says):
    status, out, err = run("check", *words.split())
    assert status == 3
    assert out + err == f"UNKNOWN - {says}\n"


def test_a_file_that_cannot_be_written_is_named_with_its_option(run, tmp_path):
    path = tmp_path / "none" / "a.prom"
    status, out, err = run("metrics", "--textfile", path)
    assert (status, out) == (1, "")
    assert err.startswith(f"jobhistory: --textfile '{path}' cannot be written: No such file or ")
    assert err.endswith("; name a file in a folder that exists and that you may write to\n")
