"""Where `jobhistory expect import` finds schedules."""

from __future__ import annotations

import getpass
import re
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from jobhistory.cli import output
from jobhistory.cli.imported_app import imported_app
from jobhistory.cli.run_options import read_run
from jobhistory.contrib.scheduled import found_schedules, schedules_of
from jobhistory.errors import InvalidInput
from jobhistory.expectations.importing.crontab import Crontab
from jobhistory.expectations.importing.found import Found
from jobhistory.expectations.importing.systemd import Timers, read_timers

UNIT_FOLDERS = (Path("/etc/systemd/system"), Path("~/.config/systemd/user").expanduser())
"""Where the timers of this machine and of the user are, unless packages installed them."""

_SYSTEM_CRONTABS = {Path("/etc/crontab"), Path("/etc/cron.d")}
_CRON_READS = re.compile(r"[\w-]+", re.ASCII)


@dataclass(frozen=True)
class Importer:
    """Finds schedules. Each method yields sources, each with its schedules.

    Attributes:
        timezone: the time zone of schedules that name none.
        grace: the grace period of new expectations.
        with_unrecorded: whether to expect also what `jobhistory run` does not record.
    """

    timezone: str
    grace: timedelta
    with_unrecorded: bool = False

    def crontabs(
        self, files: Sequence[str], *, is_system: bool
    ) -> Iterator[tuple[str, list[Found]]]:
        """Yield crontabs: those of files and folders, `-` for standard input, or the user's own."""
        if not files:
            yield _here(f"crontab:{getpass.getuser()}"), self._crontab(_own_crontab(), is_system)
        for name in files:
            path = Path(name).absolute()
            is_of_system = is_system or names_users(path)
            if name == "-":
                yield _here("crontab:-"), self._crontab(sys.stdin.read(), is_of_system)
                continue
            jobs = []
            with _reading(name):
                for file in _crontabs_in(path):
                    text = file.read_text(encoding="utf-8", errors="surrogateescape")
                    jobs += self._crontab(text, is_of_system, file.name)
            yield _here(f"crontab:{path}"), jobs

    def timers(self, files: Sequence[str]) -> Iterator[tuple[str, list[Found]]]:
        """Yield timers of systemd: of files and folders, or of this machine and the user."""
        known = [str(folder) for folder in UNIT_FOLDERS if folder.is_dir()]
        reading = Timers(read_run, self.timezone, self.grace, self.with_unrecorded)
        for name in files or known:
            with _reading(name):
                jobs = [job for timer in read_timers(Path(name)) for job in reading.jobs(timer)]
            yield _here(f"systemd:{Path(name).absolute()}"), jobs

    def app(self, place: str) -> Iterator[tuple[str, list[Found]]]:
        """Yield the schedules of an app such as `shop.tasks:app`."""
        adapter, schedules = schedules_of(imported_app(place))
        found = found_schedules(schedules, timezone=self.timezone, grace=self.grace)
        yield f"{adapter}:{place}", [*found]

    def _crontab(self, text: str, is_system: bool, name: str | None = None) -> list[Found]:
        reading = Crontab(
            read_run, self.timezone, self.grace, is_system, with_unrecorded=self.with_unrecorded
        )
        return [*reading.jobs(text, name)]


def names_users(path: Path) -> bool:
    """Return whether the lines of a crontab, or of those in a folder, name a user."""
    # Not `/etc/crontabs`, in which Alpine has those of users.
    return not _SYSTEM_CRONTABS.isdisjoint({path, path.parent})


def _here(source: str) -> str:
    return f"{source} on {socket.gethostname()}"


def _own_crontab() -> str:
    try:
        ran = subprocess.run(["crontab", "-l"], capture_output=True, text=True)  # noqa: S607
    except FileNotFoundError:
        output.fail("there is no command crontab; name the file after --crontab")
    if ran.returncode:
        output.fail(f"crontab -l: {ran.stderr.strip() or f'exit status {ran.returncode}'}")
    return ran.stdout


@contextmanager
def _reading(name: str) -> Iterator[None]:
    """Name a file that cannot be read as it was typed, or the file in a folder that was typed."""
    if not name:  # a path without a name is the current folder
        raise InvalidInput("FILE", name, "names no file or folder; write its path")
    try:
        yield
    except OSError as error:
        unreadable = str(error.filename) if Path(name).is_dir() else name
        raise InvalidInput("FILE", unreadable, f"cannot be read: {error.strerror}") from error


def _crontabs_in(path: Path) -> list[Path]:
    """Return a file, or the files in a folder that cron would read."""
    if not path.is_dir():
        return [path]
    return sorted(
        file for file in path.iterdir() if _CRON_READS.fullmatch(file.name) and file.is_file()
    )
