"""A command under `jobhistory run` on a terminal: keys, signals and sizes."""

from __future__ import annotations

import fcntl
import os
import struct
import subprocess
import sys
import termios

import pytest

from jobhistory.cli import main
from tests import command_line

pytestmark = pytest.mark.parametrize("database", ["sqlite"], indirect=True)


class Screen:
    """The user's side of a terminal of 24 lines and 80 columns."""

    def __init__(self):
        self.user, self.programs = os.openpty()
        self.resize(24, 80)
        self.text = ""

    def resize(self, lines, columns):
        fcntl.ioctl(self.user, termios.TIOCSWINSZ, struct.pack("4H", lines, columns, 0, 0))

    def type(self, keys):
        os.write(self.user, keys.encode())

    def wait_for(self, text):
        """Read until a text has appeared after the ones that were waited for; drop them."""
        while text not in self.text:
            self.text += os.read(self.user, 65536).decode()
        self.text = self.text.partition(text)[2]

    def rest(self):
        """Read everything until no program has the terminal open any more."""
        try:
            while chunk := os.read(self.user, 65536):
                self.text += chunk.decode()
        except OSError:
            pass
        return self.text


@pytest.fixture
def screen():
    screen = Screen()
    yield screen
    os.close(screen.user)


@pytest.fixture
def start(environment, url, screen):
    """Starts a command whose caller has the screen."""

    def start(*command, **files):
        files = dict.fromkeys(("stdin", "stdout", "stderr"), screen.programs) | files
        process = command_line.start(
            *["run", "--url", url, "--", *command],
            env=environment,
            program=with_controlling_terminal,
            start_new_session=True,
            **files,
        )
        os.close(screen.programs)
        return process

    return start


def with_controlling_terminal(arguments):
    fcntl.ioctl(2, termios.TIOCSCTTY, 0)
    main(arguments)


def test_a_command_has_a_terminal_and_its_lines_end_as_before(start, screen, only_record):
    script = "test -t 0 && test -t 1 && test -t 2 && stty size; echo err >&2; exit 4"
    process = start("sh", "-c", script)
    assert screen.rest() == "24 80\r\nerr\r\n"
    assert process.wait(30) == 4
    assert only_record().error_message == "exit status 4: err"


def test_only_standard_error_may_be_a_terminal(start, screen, only_record):
    process = start(
        *["sh", "-c", "test -t 1 || test -t 2 && echo to the pipe; echo err >&2; exit 4"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.communicate(timeout=30)[0] == "to the pipe\n"
    assert screen.rest() == "err\r\n"
    assert only_record().error_message == "exit status 4: err"


def test_what_the_user_types_reaches_the_command(start, screen):
    process = start(sys.executable, "-c", "print('hello', input('name? '))")
    screen.wait_for("name? ")
    screen.type("Ada\n")
    assert screen.rest() == "Ada\r\nhello Ada\r\n"
    assert process.wait(30) == 0


def test_keys_have_no_meaning_of_their_own_for_a_command_that_reads_them(start, screen):
    script = "stty raw -echo; printf go; dd bs=1 count=1 2>&- | od -An -tx1; stty sane"
    process = start("sh", "-c", script)
    screen.wait_for("go")
    screen.type("\x03")
    assert screen.rest().split() == ["03"]
    assert process.wait(30) == 0


def test_ctrl_c_ends_the_command(start, screen, only_record):
    process = start("sh", "-c", "echo ready; exec sleep 60")
    screen.wait_for("ready")
    screen.type("\x03")
    assert process.wait(30) == 130
    assert only_record().error_message.startswith("killed by SIGINT (signal 2)")


def test_the_command_learns_of_a_new_size(start, screen):
    script = "trap 'stty size; exit' WINCH; echo ready; while :; do sleep 0.01; done"
    process = start("sh", "-c", script)
    screen.wait_for("ready")
    screen.resize(50, 132)
    screen.wait_for("50 132")
    assert process.wait(30) == 0


def test_ctrl_z_stops_the_command_and_fg_continues_it(environment, url, screen):
    def shell(_):
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)
        os.environ["PS1"] = "$ "
        os.execlp("bash", "bash", "--norc", "--noprofile", "-i")

    process = command_line.start(
        env=environment,
        program=shell,
        start_new_session=True,
        **dict.fromkeys(("stdin", "stdout", "stderr"), screen.programs),
    )
    screen.resize(24, 500)  # or the shell breaks the line, maybe in the word that is waited for
    os.close(screen.programs)
    screen.wait_for("$ ")
    screen.type(f"{command_line.SCRIPT} run --url {url} -- cat\n")
    screen.wait_for("cat\r\n")
    screen.type("one\n")
    screen.wait_for("one\r\none\r\n")
    screen.type("\x1a")
    screen.wait_for("Stopped")
    screen.wait_for("$ ")
    screen.type("fg\n")
    screen.wait_for("cat\r\n")
    screen.type("two\n")
    screen.wait_for("two\r\ntwo\r\n")
    screen.type("\x04")
    screen.wait_for("$ ")
    screen.type("echo status=$?; exit\n")
    screen.wait_for("status=0")
    screen.rest()
    assert process.wait(30) == 0
