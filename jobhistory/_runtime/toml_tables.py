"""Read a TOML file that consists of tables with one name."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from jobhistory.errors import InvalidInput

T = TypeVar("T")


def load_tables(
    path: str | os.PathLike[str], name: str, example: str, read: Callable[[dict[str, Any]], T]
) -> list[T]:
    """Return what a function makes of each table of a TOML file, in order.

    Args:
        name: the name of the tables: `[[name]]`.
        example: what to write instead, for error messages.
        read: converts a table.

    Raises:
        InvalidInput: if the file is not TOML, has other keys, or `read` raises it. The message
            names the file, the number of the table, the key and the value.
        OSError: if the file cannot be read.
    """
    file = os.fspath(path)
    try:
        values = tomllib.loads(Path(file).read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:  # of TOML, or of UTF-8; too deep
        raise InvalidInput("file", file, f"is not TOML: {error}; {example}") from None
    for key in values:
        if key != name:
            raise InvalidInput(f"{file}: key", key, f"is unknown; {example}")
    tables = values.get(name, [])
    if not isinstance(tables, list):
        raise InvalidInput(f"{file}: {name}", tables, f"is not a list of tables; {example}")
    found = []
    for number, table in enumerate(tables, start=1):
        where = f"{file}: [[{name}]] number {number}"
        if not isinstance(table, dict):
            raise InvalidInput(where, table, f"is not a table; {example}")
        try:
            found.append(read(table))
        except InvalidInput as error:
            argument = f"{where}: {error.argument}"
            raise InvalidInput(argument, error.value, error.remedy) from None
    return found
