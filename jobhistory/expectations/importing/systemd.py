"""The timers of systemd, with the commands of their services."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

from jobhistory.expectations.importing.calendar_times import read_calendar
from jobhistory.expectations.importing.commands import ExpectedRun, ReadRun, runs_of_words
from jobhistory.expectations.importing.found import Found, Unsuitable, found, found_runs
from jobhistory.expectations.importing.unions import union
from jobhistory.expectations.importing.unit_files import read_settings, read_span
from jobhistory.sanitize.secrets import redact_text

_TRIGGERS = (
    "OnCalendar",
    "OnUnitActiveSec",
    "OnUnitInactiveSec",
    "OnBootSec",
    "OnStartupSec",
    "OnActiveSec",
)
_PREFIXES = "@-:+!|"
_SPECIFIER = re.compile(r"%(.)", re.DOTALL)


@dataclass(frozen=True)
class Timer:
    """A timer, as its files describe it.

    Attributes:
        name: the name of its unit, such as `backup.timer`.
        timer: the text of its file, and of those that override settings, in order.
        service: the same of the service that it starts; empty if there is no such file.
        is_enabled: whether systemd starts it.
    """

    name: str
    timer: str
    service: str
    is_enabled: bool = True

    @property
    def settings(self) -> dict[str, list[str]]:
        """The settings of the timer itself."""
        return read_settings(self.timer, "Timer")

    @property
    def schedule(self) -> str:
        """The settings that start it, as they are written."""
        settings = self.settings
        lines = (f"{name}={value}" for name in _TRIGGERS for value in settings.get(name, ()))
        return "; ".join(lines)

    def commands(self) -> list[list[str]]:
        """Return the words of each command of the service, with most specifiers replaced."""
        lines = read_settings(self.service, "Service").get("ExecStart", [])
        return [[self._replaced(word) for word in shlex.split(line)] for line in lines]

    def _replaced(self, word: str) -> str:
        stem = self.name.removesuffix(".timer")
        prefix, _, instance = stem.partition("@")
        known = {"%": "%", "i": instance, "p": prefix, "N": stem, "n": f"{stem}.service"}
        # Others are as little known as variables.
        return _SPECIFIER.sub(lambda match: known.get(match[1], f"${match[1]}"), word)


@dataclass(frozen=True)
class Timers:
    """How to read timers.

    Attributes:
        read: reads the options of `jobhistory run`.
        timezone: the time zone of this machine. One in `OnCalendar` comes first.
        grace: the grace period of each expectation. The delays that a timer allows are added.
        with_unrecorded: whether to expect also what `jobhistory run` does not record.
    """

    read: ReadRun
    timezone: str
    grace: timedelta
    with_unrecorded: bool = False

    def jobs(self, timer: Timer) -> Iterator[Found]:
        """Yield what a timer starts, or a note why that is no expectation."""
        where, schedule = timer.name, timer.schedule
        try:
            if not timer.is_enabled:
                raise Unsuitable("is not enabled")
            arguments = self._arguments(timer.settings)
            runs = self._runs(timer)
        except ValueError as error:  # of any kind
            yield Found(where, schedule, note=redact_text(str(error)))
            return
        if runs:
            yield from found_runs(where, schedule, runs, **arguments)
        else:
            yield self._unrecorded(timer, arguments)

    def _arguments(self, settings: dict[str, list[str]]) -> dict[str, Any]:
        """Return the arguments of an expectation that a timer determines."""
        used = [name for name in _TRIGGERS if settings.get(name)]
        regular = [name for name in used if name in _TRIGGERS[:3]]
        if not regular:
            raise Unsuitable("starts once after the machine or the timer starts, or never")
        if regular == ["OnCalendar"]:
            schedule: dict[str, Any] = self._calendar(settings["OnCalendar"])
        elif regular == ["OnUnitActiveSec"] and len(settings["OnUnitActiveSec"]) == 1:
            schedule = {"every": _span(settings, "OnUnitActiveSec")}
        elif regular == ["OnUnitInactiveSec"]:
            raise Unsuitable("counts from the end of each run, and not from its start")
        else:
            raise Unsuitable("has several schedules that depend on each other")
        delays = (_span(settings, name) for name in ("RandomizedDelaySec", "AccuracySec"))
        grace = sum(delays, start=self.grace)
        return schedule | {"grace": timedelta(seconds=-(-grace // timedelta(seconds=1)))}

    def _calendar(self, texts: Iterable[str]) -> dict[str, str]:
        times = [read_calendar(text) for text in texts]
        zones = {time.timezone or self.timezone for time in times}
        cron = union(time.cron for time in times)
        if cron is None or len(zones) > 1:
            raise Unsuitable("has several times, and no single cron expression says them all")
        return {"cron": cron, "timezone": zones.pop()}

    def _runs(self, timer: Timer) -> list[ExpectedRun]:
        runs = []
        for words in timer.commands():
            runs += runs_of_words([words[0].lstrip(_PREFIXES), *words[1:]], self.read)
        return runs

    def _unrecorded(self, timer: Timer, arguments: dict[str, Any]) -> Found:
        where, schedule = timer.name, timer.schedule
        task = timer.name.removesuffix(".timer").removesuffix("@")
        note = "jobhistory does not record it" if timer.service else "has no file of a service"
        if self.with_unrecorded:
            return found(where, schedule, task, note=note, **arguments)
        lines = read_settings(timer.service, "Service").get("ExecStart", [""])
        command = redact_text(lines[0].lstrip(_PREFIXES))
        remedy = f"ExecStart=jobhistory run --task {shlex.quote(task)} -- {command}"
        return Found(where, schedule, task, note=note, remedy=remedy if command else None)


def read_timers(path: Path) -> Iterator[Timer]:
    """Yield the timer of a file, or the timers in a folder by name.

    If the folder has links to timers that are enabled, the others are not.

    Raises:
        OSError: if a file cannot be read.
    """
    if not path.is_dir():
        yield _timer(path, is_enabled=True)
        return
    enabled = {link.name for link in path.glob("*.wants/*.timer")}
    for file in sorted(path.glob("*.timer")):
        if not file.stem.endswith("@"):  # a template is no timer until it has an instance
            yield _timer(file, is_enabled=not enabled or file.name in enabled)


def _timer(path: Path, *, is_enabled: bool) -> Timer:
    text = _text(path)
    units = read_settings(text, "Timer").get("Unit", [])
    service = path.with_name(units[-1]) if units else path.with_suffix(".service")
    if not service.exists() and "@" in service.stem:
        service = service.with_name(f"{service.stem.partition('@')[0]}@.service")
    return Timer(path.name, text, _text(service) if service.exists() else "", is_enabled)


def _text(path: Path) -> str:
    """Return the text of a unit file, with those that override its settings."""
    overrides = sorted(path.with_name(f"{path.name}.d").glob("*.conf"))
    return "\n".join(
        file.read_text(encoding="utf-8", errors="replace") for file in (path, *overrides)
    )


def _span(settings: dict[str, list[str]], name: str) -> timedelta:
    values = settings.get(name, [])
    span = read_span(values[-1]) if values else timedelta()
    if span is None:
        raise Unsuitable(f"{name}={values[-1]} is no length of time")
    return span
