"""`--watch`: a screen that is drawn again and again, until Ctrl-C."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import signal
import sqlite3
import struct
import termios
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from select import select
from threading import Event

import pytest
from typer import Exit

from jobhistory import Job, create_store, migrate
from jobhistory.cli import watching
from jobhistory.cli.watching import Watched
from jobhistory.database.engines import engine_from_url
from tests.command_line import start
from tests.test_cli import run  # noqa: F401 - a fixture

# ruff: noqa: F811

FRAME = "\x1b[H"


class Terminal:
    """A command on a terminal of its own."""

    def __init__(self, url, *arguments):
        self.ours, self.theirs = pty.openpty()
        self.resize(24, 100)
        environment = {"TERM": "xterm", "LC_ALL": "C.UTF-8", "JOBHISTORY_URL": url, "TZ": "UTC"}
        environment |= {"PATH": os.environ["PATH"], "HOME": "/nowhere", "NO_COLOR": "1"}
        files = {"stdin": self.theirs, "stdout": self.theirs, "stderr": self.theirs}
        self.process = start(*arguments, env=environment, **files)
        self.shown = ""

    def resize(self, rows, columns):
        fcntl.ioctl(self.theirs, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def read_until(self, pattern):
        """Return the next screen on which something is, as lines."""
        while True:
            *_, last = self.shown.rpartition(FRAME)
            if re.search(pattern, last) and last.endswith(("\x1b[J", "\x1b[?1049l")):
                self.shown = ""
                return re.sub(r"\x1b\[[\d;?]*[a-zA-Z]", "", last).split("\r\n")
            self.shown += os.read(self.ours, 65536).decode()

    def skip(self):
        """Forget what it has written so far."""
        self.shown = ""
        while select([self.ours], [], [], 0.0001)[0]:
            os.read(self.ours, 65536)

    def end(self):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        os.close(self.ours)
        os.close(self.theirs)


@pytest.fixture
def path(tmp_path):
    """The file of a history in which one job runs."""
    path = tmp_path / "history.db"
    with opened(path) as engine:
        migrate.upgrade(engine)
    begin(path, "first", 90)
    return path


@contextmanager
def opened(path):
    """Open an engine for a moment: a fork must not inherit SQLite's connections."""
    engine = engine_from_url(f"sqlite:///{path}")
    yield engine
    engine.dispose()


def begin(path, job_id, age):
    with opened(path) as engine:
        store = create_store(engine, clock=lambda: datetime.now(UTC) - timedelta(seconds=age))
        store.record_start(Job(job_id, "import"), "w", "c")


def rename(path, table, name):
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(f"ALTER TABLE {table} RENAME TO {name}")
        connection.commit()


@pytest.fixture
def watch(path):
    """Start a command with `--watch` on a terminal; it is ended at the end."""
    terminals = []

    def start_there(*arguments):
        terminals.append(Terminal(f"sqlite:///{path}", *arguments, "--watch"))
        return terminals[-1]

    yield start_there
    for each in terminals:
        each.end()


def test_it_shows_what_is_new_and_ends_with_ctrl_c(watch, path):
    terminal = watch("running", "--interval", "0.1s")
    first, _, job, count = terminal.read_until("1 running")
    assert re.fullmatch(r"\d\d:\d\d:\d\d UTC, every 100 ms; Ctrl-C ends", first)
    assert job.split()[-3:] == ["import", "first", "w"]
    begin(path, "second", 10)
    assert count == "1 running"
    assert terminal.read_until("2 running")[3].split()[-2] == "second"
    terminal.process.send_signal(signal.SIGINT)
    assert terminal.process.wait(60) == 130
    terminal.read_until(r"\x1b\[\?25h\x1b\[\?1049l")  # the cursor and the screen from before


def test_an_outage_is_a_line_and_passes(watch, path):
    terminal = watch("stats", "--interval", "0.1s")
    terminal.read_until("import")
    rename(path, "job_history", "gone")
    first, _, row = terminal.read_until("no answer")
    assert re.match(r"of \d\d:\d\d:\d\d UTC; no answer: this database has no", first)
    assert row.startswith("import"), "what was known last"
    rename(path, "gone", "job_history")
    assert terminal.read_until("every")[2].startswith("import")


def test_it_fits_a_terminal_that_changes_its_size(watch, path):
    for number in range(9):
        begin(path, f"job-{number}", number)
    terminal = watch("running", "--interval", "1d")
    assert "WORKER" in terminal.read_until("running")[1]
    terminal.resize(6, 40)
    terminal.process.send_signal(signal.SIGWINCH)
    lines = terminal.read_until("more")
    assert (len(lines), lines[-1]) == (6, "and 8 more lines")
    assert max(map(len, lines)) <= 40
    terminal.process.send_signal(signal.SIGTERM)
    assert terminal.process.wait(60) == 143


def test_it_waits_for_nothing_when_the_terminal_is_resized_all_the_time(watch):
    terminal = watch("running", "--interval", "1d")
    terminal.read_until("running")
    for _ in range(5000):
        terminal.process.send_signal(signal.SIGWINCH)
        terminal.skip()
    terminal.resize(3, 40)
    terminal.process.send_signal(signal.SIGWINCH)
    assert terminal.read_until("more")[-1] == "and 2 more lines"


def test_the_first_error_ends_it(watch, path):
    rename(path, "job_history", "gone")
    terminal = watch("running")
    assert terminal.process.wait(60) == 1
    assert "\x1b[?1049h" not in os.read(terminal.ours, 65536).decode()


def test_a_database_that_hangs_is_a_line_and_does_not_stop_ctrl_c(monkeypatch, capsys):
    monkeypatch.setattr(watching, "_PATIENCE", 0.01)
    drawn_again = Event()
    answers = iter(["first", "second"])

    def load():
        answer = next(answers)
        assert answer == "first" or drawn_again.wait(60)
        return answer

    def draw(screen, data):
        if "no answer yet" in (shown := capsys.readouterr().out):
            screen.print(shown)
            drawn_again.set()
        if data == "second":
            raise KeyboardInterrupt

    with pytest.raises(Exit) as caught:
        Watched(load, draw, timedelta(milliseconds=1), utc=True).run()
    assert caught.value.exit_code == 130
    assert drawn_again.is_set()


def test_an_error_that_is_no_outage_ends_it():
    answers = iter([1])
    with pytest.raises(StopIteration):
        Watched(lambda: next(answers), lambda *_: None, timedelta(milliseconds=1), utc=True).run()


@pytest.mark.parametrize("command", ["running", "stats"])
@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--watch"], "--watch needs a terminal; leave it out in a pipe"),
        (["--watch", "--json"], "--watch does not go with --json"),
        (["--interval", "soon"], "--interval 'soon' is not a duration"),
        (["--interval", "2d"], "--interval '2d' is not from 0.1s to 1 day"),
    ],
)
def test_what_cannot_be_watched(run, path, command, options, says):
    status, out, err = run(command, *options, "--url", f"sqlite:///{path}")
    assert (status, out) == (2, "")
    assert says in err


def test_checks_are_repeated(watch, path):
    with opened(path) as engine:
        create_store(engine).expect("import", max_runtime="1h")
    terminal = watch("check", "--interval", "0.1s")
    assert terminal.read_until("as expected")[1] == "1 task as expected"
    with opened(path) as engine:
        create_store(engine).expect("import", max_runtime="1m")
    row = terminal.read_until("with problems")[2]
    assert re.match("import +too long", row)
    with opened(path) as engine:
        (incident,) = create_store(engine).incidents()
    assert incident.is_open
