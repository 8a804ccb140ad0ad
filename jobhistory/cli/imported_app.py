"""The app that an option names as `module:attribute`."""

from __future__ import annotations

import os
import sys
from importlib import import_module
from operator import attrgetter
from typing import Any

from jobhistory.cli import output
from jobhistory.errors import InvalidInput, quoted, reason


def imported_app(place: str) -> Any:
    """Import the app that `--app` names, with modules of the current folder.

    Raises:
        InvalidInput: if the text is no place, or nothing is there.
    """
    module_name, _, attribute = place.partition(":")
    if not module_name or not attribute:
        raise InvalidInput("--app", place, "is not a place; write it like 'myapp.tasks:app'")
    sys.path.insert(0, os.getcwd())
    try:
        module = import_module(module_name)
    except (Exception, SystemExit) as error:
        output.fail(f"--app {quoted(place)}: {type(error).__name__}: {reason(error)}")
    try:
        return attrgetter(attribute)(module)
    except AttributeError as error:
        raise InvalidInput("--app", place, f"cannot be found: {error}") from None
    except Exception as error:  # a property may raise anything
        output.fail(f"--app {quoted(place)}: {type(error).__name__}: {reason(error)}")
