"""The command line: `jobhistory ...`."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Sequence
from io import TextIOWrapper

from sqlalchemy.exc import SQLAlchemyError

from jobhistory.errors import InvalidInput, JobHistoryError


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a command and exit; without arguments, the one on the command line of the process."""
    try:
        from jobhistory.cli.app import app
    except ModuleNotFoundError as error:
        if error.name not in ("platformdirs", "rich", "typer"):
            raise
        sys.exit("jobhistory: the command line requires pip install 'jobhistory[cli]'")
    from jobhistory.cli.options import OPTIONS
    from jobhistory.cli.output import one_line
    from jobhistory.errors import reason

    class OneLine(logging.Formatter):
        """Prints each log message on one line, so that it cannot forge others."""

        def format(self, record: logging.LogRecord) -> str:
            return one_line(super().format(record))

    if isinstance(sys.stdout, TextIOWrapper):  # names may not fit the encoding
        sys.stdout.reconfigure(errors="backslashreplace")
    handler = logging.StreamHandler()
    handler.setFormatter(OneLine("jobhistory: %(message)s"))
    logging.basicConfig(handlers=[handler], level=logging.WARNING)
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
