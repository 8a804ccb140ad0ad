"""The jobs of a crontab, as cron reads it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from jobhistory.expectations.importing.commands import (
    ExpectedRun,
    ReadRun,
    name_of,
    recorded_line,
    runs_of_shell,
)
from jobhistory.expectations.importing.found import Found, Unsuitable, found, found_runs
from jobhistory.sanitize.secrets import redact_text

_VARIABLE = re.compile(r"""(?:"([^"]*)"|'([^']*)'|([^\s=]+))[ \t]*=[ \t]*(.*)""")
_NICKNAME = r"@\S+"
_FIELDS = r"(?:[^\s@]\S*[ \t]+){4}\S+"
_JOB = re.compile(rf"({_NICKNAME}|{_FIELDS})[ \t]+(.*)", re.DOTALL)
_JOB_OF_SYSTEM = re.compile(rf"({_NICKNAME}|{_FIELDS})[ \t]+(\S+)[ \t]+(.*)", re.DOTALL)
_PERCENT = re.compile(r"(?<!\\)%")
_QUOTED = re.compile(r"""(["'])(.*)\1""")


@dataclass(frozen=True)
class Crontab:
    """How to read a crontab.

    Attributes:
        read: reads the options of `jobhistory run`.
        timezone: the time zone of cron. The variable `CRON_TZ` comes first.
        grace: the grace period of each expectation.
        is_system: whether lines name a user, as in `/etc/crontab`.
        with_unrecorded: whether to expect also what `jobhistory run` does not record.
    """

    read: ReadRun
    timezone: str
    grace: timedelta
    is_system: bool = False
    with_unrecorded: bool = False

    def jobs(self, text: str, name: str | None = None) -> Iterator[Found]:
        """Yield the jobs in order, those that cannot be expectations with a note.

        Args:
            name: the name of the file, if there are several.
        """
        timezone = self.timezone
        for number, line in enumerate(text.split("\n"), start=1):
            line = line.strip(" \t\r")
            if not line or line.startswith("#"):
                continue
            variable = _VARIABLE.fullmatch(line)
            if variable is None:
                where = f"line {number}" if name is None else f"{name}:{number}"
                yield from self._jobs_of_line(where, line, timezone)
            elif _name(variable) == "CRON_TZ":
                timezone = _value(variable) or self.timezone

    def _jobs_of_line(self, where: str, line: str, timezone: str) -> Iterator[Found]:
        pattern = _JOB_OF_SYSTEM if self.is_system else _JOB
        match = pattern.fullmatch(line.removeprefix("-"))  # which keeps a job out of cron's log
        if match is None:
            kind = "crontab whose lines name a user" if self.is_system else "crontab"
            yield Found(where, redact_text(line), note=f"is no line of a {kind}")
            return
        *before, written = map(str, match.groups())
        schedule = before[0]
        command, *input_ = _PERCENT.split(written, maxsplit=1)
        command = command.replace(r"\%", "%").strip()
        try:
            runs = self._runs(schedule, command)
        except ValueError as error:  # of any kind
            yield Found(where, schedule, note=redact_text(str(error)))
            return
        arguments: dict[str, Any] = {"cron": schedule, "timezone": timezone, "grace": self.grace}
        if runs:
            yield from found_runs(where, schedule, runs, **arguments)
            return
        task, note = name_of(command), "jobhistory does not record it"
        unrecorded = found(where, schedule, task, note=note, **arguments)
        if self.with_unrecorded or unrecorded.expectation is None:
            yield unrecorded
        else:
            better = recorded_line(redact_text(command)).replace("%", r"\%")
            remedy = " ".join([*before, "%".join([better, *map(redact_text, input_)])])
            yield Found(where, schedule, task, note=note, remedy=remedy)

    def _runs(self, schedule: str, command: str) -> list[ExpectedRun]:
        if schedule == "@reboot":
            raise Unsuitable("runs when the machine starts, at no known time")
        if not command:
            raise Unsuitable("has no command")
        return runs_of_shell(command, self.read)


def _name(variable: re.Match[str]) -> str:
    return next((text for text in variable.groups()[:3] if text is not None), "")


def _value(variable: re.Match[str]) -> str:
    text = variable[4].strip()
    quoted = _QUOTED.fullmatch(text)
    return quoted[2] if quoted else text
