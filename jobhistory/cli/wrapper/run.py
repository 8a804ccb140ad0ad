"""Run a command, if need be several times, and record each attempt."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING
from uuid import uuid4

from jobhistory._runtime.clock import utc_now
from jobhistory._runtime.durations import took
from jobhistory.cli.lines import say, shortened
from jobhistory.cli.wrapper.attempt import Attempt, Origin
from jobhistory.cli.wrapper.command import Ended, Limits, Running, not_started
from jobhistory.cli.wrapper.history import Recording, Result, prepare
from jobhistory.cli.wrapper.options import RunOptions
from jobhistory.cli.wrapper.output import Output, StandardFiles
from jobhistory.cli.wrapper.parsing import read_options
from jobhistory.cli.wrapper.signals import Signals, held_signals
from jobhistory.cli.wrapper.spool import Spool
from jobhistory.cli.wrapper.streams import write_if_possible

if TYPE_CHECKING:
    from jobhistory.execution.retention import RetentionRule


def run(arguments: Sequence[str]) -> int:
    """Run the command of a command line, and return the exit status.

    Raises:
        InvalidInput: if an option is invalid. Nothing has run then.
    """
    options = read_options(arguments, os.environ)
    return Run(options, _read_rules(options.rules)).execute()


class Run:
    """A run of a command, with its attempts."""

    def __init__(self, options: RunOptions, rules: Sequence[RetentionRule] | None) -> None:
        self._options = options
        self._rules = rules
        job_id = str(uuid4()) if options.job_id is None else options.job_id
        name = os.path.basename(options.command[0].rstrip("/"))
        self._task = name if options.task is None else options.task
        self._job = {
            "job_id": job_id,
            "correlation_id": options.correlation_id or job_id,
            "task_identifier": self._task,
            "worker_id": f"{os.uname().nodename}:{os.getpid()}",
            "payload": {"command": options.command},
            "labels": options.label or None,
        }
        self._origin = Origin.of(os.environ)
        self._limits = Limits(
            options.ok_status,
            None if options.timeout is None else options.timeout.total_seconds(),
            options.kill_after.total_seconds(),
        )
        self._spool = Spool(write_if_possible) if options.quiet else None
        self._problems: list[str] = []

    def execute(self) -> int:
        """Run the command until it succeeds, or no attempt is left; return the exit status.

        If history cannot be written, the command still runs, and a line on standard error tells
        what was not recorded.
        """
        self._files = StandardFiles.inspect()
        with held_signals() as signals:
            number = 1
            ended, will_retry = self._attempt(number, signals)
            if ended is None:
                return 0
            while will_retry:
                signals.wait(self._options.retry_delay.total_seconds())
                if signals.ending is not None:
                    break
                number += 1
                again, will_retry = self._attempt(number, signals)
                ended = again or ended
            if self._spool is not None and ended.error is not None:
                self._spool.release()
            self._tell_problems(ended, number)
            if will_retry and signals.ending is not None:
                name = signal.Signals(signals.ending).name
                say(f"{shortened(self._task)} is not tried again: {name} came while it waited")
                return 128 + signals.ending
        return ended.exit_status

    def _attempt(self, number: int, signals: Signals) -> tuple[Ended | None, bool]:
        """Run the command once; return how it ended, and whether to try again.

        If another run of its task runs, it is skipped, and has not ended.
        """
        options = self._options
        if options.no_overlap:
            prepare()  # before the time of the start
        attempt = Attempt.at(utc_now(), number, self._job, self._origin)
        recording = Recording(options, self._rules, attempt)
        if options.no_overlap and (why := recording.claim()) is not None:
            self._tell_skipped(why, recording.skip(why))
            return None, False
        output = Output(self._files, capture=options.capture, spool=self._spool)
        environment = attempt.environment(is_in_history=options.record == "all")
        try:
            running = Running(options.command, environment, output, signals)
        except OSError as error:
            recording.begin(None)
            ended = not_started(error)
            say(f"{options.command[0]}: {error.strerror}")
        else:
            recording.begin(running.pid)
            ended = running.wait(self._limits)
        will_retry = ended.error is not None and ended.can_retry and number <= options.retry
        problem = recording.end(Result(ended, will_retry, output.captured()))
        if problem is not None:
            self._problems.append(problem)
        return ended, will_retry

    def _tell_skipped(self, why: str, problem: str | None) -> None:
        task = shortened(self._task)
        if problem is not None:
            say(f"not recorded: {task}, {why}: {problem}")
        elif self._options.verbose or (sys.stderr is not None and sys.stderr.isatty()):
            # Otherwise, cron would send a mail.
            say(f"{task} is {why}")

    def _tell_problems(self, ended: Ended, attempts: int) -> None:
        if not self._problems:
            return
        name = shortened(self._task)
        if attempts > 1:
            name = f"{len(self._problems)} of {attempts} attempts of {name}, the last with"
        else:
            name += ","
        say(
            f"not recorded: {name} exit status {ended.exit_status} "
            f"after {took(round(ended.milliseconds))}: {self._problems[-1]}"
        )


def _read_rules(path: str | None) -> Sequence[RetentionRule] | None:
    """Return the rules of a file; `None` if it cannot be read, because the command must run."""
    if path is None:
        return None
    from jobhistory.execution.rule_file import load_retention_rules

    try:
        return load_retention_rules(path)
    except OSError as error:
        say(f"recorded without retention rules: {error}")
        return None
