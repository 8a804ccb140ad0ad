"""Screens: tables fit every width, errors stay, numbers align, and names stay harmless."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import struct
import termios
import time
from datetime import UTC, datetime, timedelta
from io import StringIO

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import Console

from jobhistory import (
    HistoryQuery,
    Incident,
    Job,
    Problem,
    create_store,
    migrate,
    new_execution_id,
)
from jobhistory._runtime.ages import relative, relative_in_words
from jobhistory.cli.screens.cells import moment_cell
from jobhistory.cli.screens.periods import Periods
from jobhistory.cli.screens.records import print_records
from jobhistory.cli.screens.screen import Screen
from jobhistory.cli.screens.shorten import cut_end, cut_middle
from jobhistory.cli.screens.table import Cell, Column, Table
from jobhistory.cli.screens.units import unit_of
from jobhistory.database.engines import engine_from_url
from jobhistory.expectations.missed import MissedTime
from tests.command_line import start
from tests.test_cli import run  # noqa: F401 - a fixture

# ruff: noqa: F811

NOW = datetime(2026, 11, 28, 12, tzinfo=UTC)
WIDTHS = (60, 80, 100, 200)
HOSTILE = "a\tb\nc\x1b[31md\x9b1m\u202ee 報告書🎉 e\u0301 \u200b"
LONG_ERROR = "no answer from 'https://ledger.internal.example.com/api/v2/invoices' after 30 s: " * 2


class AsciiIO(StringIO):
    encoding = "ascii"


def screen_of(width, *, ascii_only=False, **options):
    file = AsciiIO() if ascii_only else StringIO()
    console = Console(file=file, width=width, force_terminal=True, color_system=None)
    return Screen(now=NOW, console=console, **options)


@pytest.fixture
def in_zone(monkeypatch):
    """Put this process into a time zone."""

    def set_zone(name):
        monkeypatch.setenv("TZ", name)
        time.tzset()

    yield set_zone
    monkeypatch.undo()
    time.tzset()


# -- tables --------------------------------------------------------------------------------------

texts = st.text(max_size=80).map(lambda text: screen_of(80).text(text))
cells = st.builds(
    lambda text, shorter: Cell(text, "", (text[: len(text) // 2],) if shorter else ()),
    texts,
    st.booleans(),
)
columns = st.builds(
    Column,
    heading=st.text("ABC ()", max_size=12),
    priority=st.integers(0, 9),
    right=st.booleans(),
    least=st.none() | st.integers(1, 20),
    most=st.none() | st.integers(20, 60),
    cut=st.sampled_from([cut_end, cut_middle]),
)


@st.composite
def tables(draw):
    shape = draw(st.lists(columns, min_size=1, max_size=6))
    if draw(st.booleans()):
        shape.append(Column("ERROR", moves_below=True))
    row = st.tuples(*(cells for _ in shape))
    return Table(shape, draw(st.lists(row, max_size=5)))


@given(tables(), st.integers(2, 250), st.booleans())
def test_no_line_of_a_table_is_wider_than_the_terminal(table, width, ascii_only):
    screen = screen_of(width, ascii_only=ascii_only)
    assert [line.plain for line in table.lines(screen) if cell_len(line.plain) > width] == []


@given(st.lists(cells, min_size=1, max_size=5), st.integers(20, 250))
def test_an_error_is_shown_at_every_width_in_its_row_or_below(names, width):
    shape = [Column("TASK", 2), Column("JOB", 1, least=10), Column("ERROR", moves_below=True)]
    errors = [Cell(f"Error{number}: " + "no answer " * number) for number in range(len(names))]
    rows = [(name, name, error) for name, error in zip(names, errors, strict=True)]
    shown = squashed(line.plain for line in Table(shape, rows).lines(screen_of(width)))
    for error in errors:
        assert squashed([error.text]) in shown


def squashed(lines):
    return "".join(lines).replace(" ", "")


@given(st.lists(st.integers(0, 10**9) | st.none(), min_size=1, max_size=8))
def test_durations_of_a_column_have_one_unit_and_aligned_decimals(durations):
    unit = unit_of(durations)
    table = Table([Column("TOOK", right=True)], [(Cell(unit.text(each)),) for each in durations])
    lines = [line.plain for line in table.lines(screen_of(80))]
    assert len({len(line) for line in lines}) == 1, "they end in the same place"
    shown = [line.strip() for line in lines[1:]]
    assert len({text.partition(".")[2].isdigit() for text in shown if text != "-"}) <= 1
    for each, text in zip(durations, shown, strict=True):
        assert (text == "-") == (each is None)
        if each:
            assert float(text.replace(",", "")) > 0, "no duration vanishes in the unit"


def test_columns_get_narrower_and_then_disappear_the_least_important_first():
    shape = [
        Column("TASK", 3, least=6),
        Column("AGE", 1),
        Column("JOB", 2, least=6, cut=cut_middle),
    ]
    row = (
        Cell("resize_image"),
        Cell("2 minutes ago", "", ("2 min ago",)),
        Cell("0123456789abcdef"),
    )

    def shown(width):
        return [line.plain for line in Table(shape, [row]).lines(screen_of(width))][1]

    assert shown(50) == "resize_image  2 minutes ago  0123456789abcdef"
    assert shown(44) == "resize_image  2 min ago  0123456789abcdef"
    assert shown(35) == "resize_image  2 min ago  01234…cdef"
    assert shown(25) == "resiz…  2 min ago  012…ef"
    assert shown(20) == "resize_image  012…ef"
    assert shown(10) == "resize_im…"


@given(st.text(max_size=40), st.integers(0, 50), st.sampled_from(["…", "..."]))
def test_what_is_cut_fits_and_keeps_what_matters(text, width, ellipsis):
    text = screen_of(80).text(text)
    for cut in (cut_end, cut_middle):
        short = cut(text, width, ellipsis)
        assert cell_len(short) <= width
        assert (short == text) == (cell_len(text) <= width)


# -- times ---------------------------------------------------------------------------------------


def test_times_are_local_with_the_zone_in_the_heading_or_in_utc(in_zone):
    in_zone("Europe/Berlin")
    summer = datetime(2026, 8, 1, 12, tzinfo=UTC)
    assert screen_of(80).zone([NOW]) == "CET"
    assert screen_of(80).zone([NOW, summer, None]) == "CEST/CET"
    assert moment_cell(summer, screen_of(80)).text == "2026-08-01 14:00:00"
    assert moment_cell(summer, screen_of(80)).shorter == ("01 Aug 14:00",)
    utc = screen_of(80, utc=True)
    assert (utc.zone([summer]), moment_cell(summer, utc).text) == ("UTC", "2026-08-01 12:00:00")
    assert moment_cell(datetime(2024, 8, 1, tzinfo=UTC), utc).shorter == ("2024-08-01",)
    for extreme in (datetime.min, datetime.max):
        assert moment_cell(extreme.replace(tzinfo=UTC), screen_of(80)).text


def test_a_command_shows_local_times_or_utc(run, labelled, in_zone, monkeypatch):
    for name, value in {"FORCE_COLOR": "1", "NO_COLOR": "1", "COLUMNS": "200"}.items():
        monkeypatch.setenv(name, value)
    in_zone("Asia/Kolkata")
    for options, zone, time_of_day in (([], "IST", "17:30:00"), (["--utc"], "UTC", "12:00:00")):
        out = run("list", "--url", labelled, *options)[1]
        assert f"STARTED ({zone})" in out
        assert f"2026-11-28 {time_of_day}" in out
        out = run("show", "1", "--url", labelled, *options)[1]
        assert f"2026-11-28 {time_of_day}.000 {zone} (" in out
    monkeypatch.delenv("FORCE_COLOR")
    assert "2026-11-28T12:00:00Z" in run("list", "--url", labelled)[1], "in pipes, always UTC"


@pytest.mark.parametrize(
    ("age", "words", "short"),
    [
        (timedelta(), "just now", "just now"),
        (timedelta(seconds=1), "1 second ago", "1 s ago"),
        (timedelta(minutes=5), "5 minutes ago", "5 min ago"),
        (timedelta(hours=1), "1 hour ago", "1 h ago"),
        (timedelta(days=1500), "1,500 days ago", "1500 d ago"),
        (timedelta(hours=-3), "in 3 hours", "in 3 h"),
    ],
)
def test_ages_are_in_words(age, words, short):
    assert relative_in_words(NOW - age, NOW) == words
    assert relative(NOW - age, NOW) == short


@given(
    st.datetimes(datetime(2026, 1, 1), datetime(2026, 12, 1), timezones=st.just(UTC)),
    st.timedeltas(timedelta(), timedelta(days=60)),
    st.sampled_from([timedelta(minutes=1), timedelta(hours=1), timedelta(days=7)]),
)
def test_periods_cover_the_window(from_, length, bucket):
    periods = Periods.of(from_, from_ + length, bucket)
    assert periods.first <= from_ < periods.first + bucket
    assert periods.end - bucket <= from_ + length <= periods.end


# -- every screen, at every width, with hostile names ----------------------------------------------


@pytest.fixture(scope="module")
def hostile_url(tmp_path_factory):
    """A history of names that are long, wide, or meant to break screens."""
    url = f"sqlite:///{tmp_path_factory.mktemp('hostile')}/history.db"
    engine = engine_from_url(url)
    migrate.upgrade(engine)
    now = datetime.now(UTC)
    store = create_store(engine)
    for task, milliseconds in (
        (HOSTILE, 3),
        ("billing." + "monthly_" * 12, 95_000),
        ("報" * 40, 1),
    ):
        store.record_many(
            {
                "job_id": f"{HOSTILE}{number}",
                "task_identifier": task,
                "worker_id": f"host.{HOSTILE}.example.com",
                "correlation_id": "c",
                "started_at": now - timedelta(hours=number),
                "execution_time_ms": milliseconds * number,
                "status": ["completed", "failed", "partial_success", "cancelled"][number % 4],
            }
            | ({"error": TimeoutError(LONG_ERROR + HOSTILE)} if number % 4 == 1 else {})
            for number in range(24)
        )
        running = create_store(engine, clock=lambda: now - timedelta(minutes=9))
        running.record_start(Job(HOSTILE, task), HOSTILE, "c")
    engine.dispose()
    return url


SCREENS = (
    "list",
    "list --limit 7",
    "stats",
    "stats --bucket 1h --since 3d",
    "failures",
    "running",
    "workers --since 2d",
    f"show {HOSTILE}1",
)


def words_of(command):
    return command.split(" ") if not command.startswith("show") else ["show", command[5:]]


@pytest.mark.parametrize("command", SCREENS)
def test_every_screen_fits_every_width(run, hostile_url, command, monkeypatch):
    for name, value in {"FORCE_COLOR": "1", "NO_COLOR": "1", "TERM": "dumb"}.items():
        monkeypatch.setenv(name, value)
    for width, locale in [*((width, "C.UTF-8") for width in WIDTHS), (60, "C")]:
        monkeypatch.setenv("LC_ALL", locale)
        monkeypatch.setenv("COLUMNS", str(width))
        status, out, err = run(*words_of(command), "--url", hostile_url)
        assert (status, err) == (0, "")
        shown = [line for line in out.splitlines() if not line.startswith("more: ")]
        assert [line for line in shown if cell_len(line) > width] == []
        assert len(shown) > 1
        assert all(line.isprintable() for line in shown)
        assert locale != "C" or out.isascii()
        if command.split()[0] in ("list", "failures", "show"):
            assert squashed(["TimeoutError: no answer from"]) in squashed(shown)


@pytest.mark.parametrize("command", SCREENS)
def test_every_screen_is_the_same_in_a_pipe_whatever_the_terminal_is(
    run, hostile_url, command, monkeypatch
):
    monkeypatch.setenv("LC_ALL", "C")
    outputs = set()
    for width in (60, 200):
        monkeypatch.setenv("COLUMNS", str(width))
        outputs.add(re.sub(r"\d+ m \d+ s", "", run(*words_of(command), "--url", hostile_url)[1]))
    (out,) = outputs
    assert "\x1b" not in out
    assert "報" in out, "pipes get names as they are"
    if not command.startswith("show"):
        heading, *rows = out.splitlines()
        assert {row.count("\t") for row in rows} == {heading.count("\t")}


# -- columns of one's choice -----------------------------------------------------------------------


@pytest.fixture
def labelled(tmp_path):
    """Two executions with labels; one has failed."""
    url = f"sqlite:///{tmp_path}/labelled.db"
    engine = engine_from_url(url)
    migrate.upgrade(engine)
    store = create_store(engine)
    ended = {"worker_id": "w", "correlation_id": "c", "task_identifier": "sync"}
    ended |= {"started_at": NOW, "execution_time_ms": 2500}
    store.record_execution(ended, job_id=1, status="completed", labels={"tenant": "a\tb"})
    store.record_execution(ended, job_id=2, error=LONG_ERROR, payload={"n": [1, None]})
    engine.dispose()
    return url


@pytest.mark.parametrize("options", [["--oldest"], ["--oldest", "--all"]])
def test_a_pipe_gets_the_columns_that_are_asked_for(run, labelled, options):
    names = ["job_id", "labels.tenant", "started_at", "execution_time_ms", "payload"]
    _, out, _ = run("list", "--columns", ",".join(names), "--url", labelled, *options)
    assert [line.split("\t") for line in out.splitlines()] == [
        names,
        ["1", "a b", "2026-11-28T12:00:00.000Z", "2500", ""],
        ["2", "", "2026-11-28T12:00:00.000Z", "2500", '{"n": [1, null]}'],
    ]


@pytest.mark.parametrize("width", WIDTHS)
def test_a_terminal_gets_the_columns_that_are_asked_for(run, labelled, monkeypatch, width):
    for name, value in {"FORCE_COLOR": "1", "TERM": "dumb", "COLUMNS": str(width)}.items():
        monkeypatch.setenv(name, value)
    names = ["job_id", "labels.tenant", "status", "execution_time_ms", "error_message"]
    options = [part for name in names for part in ("--columns", name)]
    _, out, _ = run("list", *options, "--url", labelled)
    heading, failed, *_ = lines = out.splitlines()
    shown = "JOB ID  labels.tenant  STATUS     EXECUTION TIME (ms)"
    assert heading.startswith(shown if width >= 80 else shown[:29])
    assert failed.startswith("2       -              failed")
    assert squashed([LONG_ERROR]).rstrip(":") in squashed(lines)
    assert max(map(cell_len, lines)) <= width
    assert run("list", *options, "--url", labelled, "--task", "none")[1] == "no executions\n"


def test_running_has_columns_too(run, hostile_url):
    _, out, _ = run("running", "--columns", "worker_id", "--limit", "1", "--url", hostile_url)
    assert out.splitlines() == ["worker_id", screen_of(80).text(HOSTILE)]


@pytest.mark.parametrize("command", ["list", "running"])
@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--columns", "job_id,state"], "--columns 'state' is not one of id, job_id, "),
        (["--columns", "labels."], "result, log_tail, labels.NAME"),
        (["--columns", "job_id,"], "--columns '' is not one of"),
        (["--columns", "id", "--json"], "--columns 'id' does not go with --json"),
    ],
)
def test_columns_that_do_not_exist_are_refused(run, hostile_url, command, options, says):
    status, out, err = run(command, *options, "--url", hostile_url)
    assert (status, out) == (2, "")
    assert says in err


# -- the pager -------------------------------------------------------------------------------------


@pytest.fixture
def on_terminal(hostile_url):
    """Run a command on a terminal of 80 times 24 cells; return its status and what it shows."""

    def run_there(*arguments, **environment):
        ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
        env = {
            name: value
            for name, value in os.environ.items()
            if name not in ("PAGER", "JOBHISTORY_PAGER", "LESS", "COLUMNS", "LINES")
        }
        env |= {"TERM": "xterm", "LC_ALL": "C.UTF-8", "JOBHISTORY_URL": hostile_url} | environment
        process = start(*arguments, env=env, stdin=theirs, stdout=theirs, stderr=theirs)
        os.close(theirs)
        shown = b""
        try:
            while part := os.read(ours, 65536):
                shown += part
        except OSError:  # the terminal is closed
            pass
        finally:
            os.close(ours)
        return process.wait(60), shown.decode().replace("\r\n", "\n")

    return run_there


def test_long_output_goes_through_the_pager(on_terminal):
    status, shown = on_terminal("list", PAGER="sed 's/^/paged: /'")
    assert status == 0
    assert shown.count("paged: ") == shown.count("\n") > 24
    assert "\x1b[1;31mfailed" in shown, "with colors"
    _, shown = on_terminal("list", JOBHISTORY_PAGER="sed 's/^/ours: /'", PAGER="sed 's/^/paged: /'")
    assert shown.startswith("ours: ")
    assert "paged: " not in shown
    _, shown = on_terminal("show", f"{HOSTILE}1", PAGER="printenv LESS")
    assert shown == "FRX\n"
    _, shown = on_terminal("list", PAGER="printenv LESS", LESS="S")
    assert shown == "S\n"


@pytest.mark.parametrize(
    ("arguments", "environment"),
    [
        (["list", "--no-pager"], {"PAGER": "false"}),
        (["list"], {"PAGER": "cat"}),
        (["list"], {"PAGER": ""}),
        (["list"], {"JOBHISTORY_PAGER": "", "PAGER": "false"}),
        (["list"], {"PAGER": "no-such-pager"}),
        (["list"], {"PATH": "/nowhere"}),
        (["list", "--limit", "7"], {"PAGER": "false"}),
    ],
)
def test_without_a_pager_everything_is_printed(on_terminal, arguments, environment):
    status, shown = on_terminal(*arguments, **environment)
    assert status == 0
    assert "STARTED (UTC)" in shown
    assert shown.count("TimeoutError") == (1 if "7" in arguments else 18)
    assert ("not found" in shown) == (environment.get("PAGER") == "no-such-pager")


def test_a_pager_that_is_quit_early_is_no_error(on_terminal):
    status, shown = on_terminal("list", PAGER="head -n 1")
    assert (status, shown.count("\n")) == (0, 1)


def test_errors_do_not_go_through_the_pager(on_terminal):
    status, shown = on_terminal("list", "--status", "none", PAGER="sed 's/^/paged: /'")
    assert status == 2
    assert shown.startswith("jobhistory: --status 'none'")


@pytest.mark.parametrize("width", WIDTHS)
def test_missed_runs_stand_where_they_were_due(width):
    store = create_store(clock=lambda: NOW)
    store.expect("nightly", cron="0 2 * * *")
    for day in (1, 3):
        started_at = NOW - timedelta(days=day)
        store.record_execution(
            {"job_id": f"job-{day}", "worker_id": "w", "correlation_id": "c"},
            task_identifier="nightly",
            status="completed",
            started_at=started_at,
        )
    incident = Incident(
        id=new_execution_id(),
        expectation="nightly",
        task_identifier="nightly",
        problem=Problem.MISSED,
        summary="1 start missed",
        slots=(NOW - timedelta(days=2),),
        executions=(),
        opened_at=NOW,
        seen_at=NOW,
        closed_at=None,
    )
    page = store.page()
    time = MissedTime.of_page(HistoryQuery(), page, None, NOW)
    screen = screen_of(width)
    print_records(screen, page.records, time.missed_runs([incident]), "newest")
    lines = screen.console.file.getvalue().splitlines()
    statuses = [re.search("completed|missed", line) for line in lines[1:]]
    assert [found[0] for found in statuses] == ["completed", "missed", "completed"]
    assert all(cell_len(line) <= width for line in lines)
