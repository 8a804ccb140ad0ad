"""Alerts on standard output, and to commands."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from textwrap import indent

from jobhistory._runtime.durations import parse_duration, took
from jobhistory._runtime.shown_text import one_line
from jobhistory.alerts.alert import Alert
from jobhistory.errors import AlertNotSent, InvalidInput
from jobhistory.sanitize.secrets import redact_text
from jobhistory.typing import Duration

_EXAMPLE = "write it like ['/usr/local/bin/page-me', '--now']"


def print_alert(alert: Alert) -> None:
    """Print an alert on standard output. What its encoding lacks is escaped."""
    rest = [indent(part, "    ") for part in (alert.text, alert.log_lines) if part]
    encoding = sys.stdout.encoding or "utf-8"
    text = "\n".join([alert.title, *rest])
    print(text.encode(encoding, "backslashreplace").decode(encoding), flush=True)


class CommandAlert:
    """Runs a command for each alert, without a shell.

    The command gets the alert as JSON on its standard input, as `Alert.to_dict` returns it, and the
    variables `JOBHISTORY_ALERT_TITLE`, `_NEWS`, `_SEVERITY`, `_TASK` and `_LINK`, which
    are empty where the alert has none. Its standard output is discarded. The alert is accepted if
    the command exits with 0 within the time limit; otherwise it is killed, with its children.

    Args:
        command: the command and its arguments, or a text to split as a shell would.
        time_limit: the longest time that it may run.

    Raises:
        InvalidInput: if an argument cannot be used.
    """

    def __init__(self, command: str | Sequence[str], *, time_limit: Duration = "10s") -> None:
        self._command = _read_command(command)
        self._seconds = parse_duration(time_limit, "time_limit").total_seconds()
        # Not the arguments, which may contain a token.
        self.receiver = one_line(f"command {os.path.basename(self._command[0])}")

    def __repr__(self) -> str:
        return f"<CommandAlert {self.receiver}>"

    def __call__(self, alert: Alert) -> None:
        """Run the command.

        Raises:
            AlertNotSent: if it does not exit with 0 in time.
        """
        try:
            process = subprocess.Popen(
                self._command,
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                env=os.environ | _variables(alert),
                start_new_session=True,  # to kill its children, too
            )
        except OSError as error:
            raise AlertNotSent(self.receiver, f"cannot start: {error.strerror}") from None
        try:
            process.communicate(json.dumps(alert.to_dict()).encode(), timeout=self._seconds)
        except subprocess.TimeoutExpired:
            limit = took(int(self._seconds * 1000))
            raise AlertNotSent(self.receiver, f"did not end within {limit}") from None
        finally:
            if process.returncode is None:
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        if process.returncode:
            raise AlertNotSent(self.receiver, f"exited with {process.returncode}")


def _read_command(command: str | Sequence[str]) -> list[str]:
    try:
        words = shlex.split(command) if isinstance(command, str) else [*command]
    except (ValueError, TypeError):  # an open quote, or no sequence
        words = []
    if not words or not all(isinstance(word, str) and "\0" not in word for word in words):
        raise InvalidInput("command", command, f"is not a command; {_EXAMPLE}")
    return words


def _variables(alert: Alert) -> dict[str, str]:
    values = {
        "TITLE": alert.title,
        "NEWS": alert.news,
        "SEVERITY": alert.severity.value,
        "TASK": redact_text(alert.incident.task_identifier) if alert.incident else "",
        "LINK": alert.link or "",
    }
    return {f"JOBHISTORY_ALERT_{name}": value.replace("\0", "") for name, value in values.items()}
