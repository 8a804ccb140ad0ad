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
    """Run the command that the arguments name, those of the process by default, and exit."""
    try:
        from jobhistory.cli.app import app
    except ModuleNotFoundError as error:
        if error.name not in ("platformdirs", "rich", "typer"):
            raise
        sys.exit("jobhistory: the command line needs: pip install 'jobhistory[cli]'")
    from jobhistory.errors import reason

    if isinstance(sys.stdout, TextIOWrapper):  # names may hold what the encoding does not
        sys.stdout.reconfigure(errors="backslashreplace")
    logging.basicConfig(format="jobhistory: %(message)s", level=logging.WARNING)
    try:
        app(arguments, prog_name="jobhistory")
    except InvalidInput as error:
        print(f"jobhistory: {error}", file=sys.stderr)
        sys.exit(2)
    except BrokenPipeError:  # who reads the output has seen enough, as `head` has
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115 - or Python would flush into the pipe
        sys.exit(1)
    except (JobHistoryError, SQLAlchemyError, ModuleNotFoundError, OSError) as error:
        print(f"jobhistory: {reason(error)}", file=sys.stderr)
        sys.exit(1)
