"""The command line: `jobhistory ...`."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from io import TextIOWrapper

from sqlalchemy.exc import SQLAlchemyError

from jobhistory.errors import InvalidInput, JobHistoryError, reason


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a command and exit; without arguments, the one on the command line of the process."""
    try:
        from jobhistory.cli.app import app
    except ModuleNotFoundError as error:
        if error.name not in ("platformdirs", "rich", "typer"):
            raise
        sys.exit("jobhistory: the command line requires pip install 'jobhistory[cli]'")
    from jobhistory.cli.options import OPTIONS
    from jobhistory.cli.output import log_to_stderr, one_line

    if isinstance(sys.stdout, TextIOWrapper):  # names may not fit the encoding
        sys.stdout.reconfigure(errors="backslashreplace")
    log_to_stderr()
    try:
        app(arguments, prog_name="jobhistory")
    except InvalidInput as error:
        named = InvalidInput(OPTIONS.get(error.argument, error.argument), error.value, error.remedy)
        print(f"jobhistory: {one_line(str(named))}", file=sys.stderr)
        sys.exit(2)
    except BrokenPipeError:  # the reader closed the pipe, as `head` does
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115 - or Python would flush into the pipe
        sys.exit(1)
    except (JobHistoryError, SQLAlchemyError, ModuleNotFoundError, OSError) as error:
        print(f"jobhistory: {one_line(reason(error))}", file=sys.stderr)
        sys.exit(1)
