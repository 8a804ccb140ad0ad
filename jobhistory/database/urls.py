"""What can be told about a database URL without SQLAlchemy."""

from __future__ import annotations

import re

from jobhistory.errors import InvalidInput

SUPPORTED = ("sqlite", "postgresql")

EXAMPLE = "write it like 'sqlite:///history.db' or 'postgresql://user@host/app'"

IN_MEMORY = (
    "is a database in memory, which vanishes with its connection; "
    "name a file, as in 'sqlite:///history.db'"
)

_URL = re.compile(r"(?P<database>\w+)(?:\+\w+)?://(?P<rest>[^?]*)")


def check_url(url: str, argument: str) -> None:
    """Check the form of a URL and its kind of database.

    SQLAlchemy finds other mistakes, such as an unknown driver.

    Raises:
        InvalidInput: if it is not a URL, names a database that is not supported, or a database in
            memory.
    """
    found = _URL.match(url)
    if found is None:
        raise InvalidInput(argument, shown_url(url), f"is not a database URL; {EXAMPLE}")
    database = database_name(found["database"])
    if database not in SUPPORTED:
        raise InvalidInput(argument, shown_url(url), not_supported(database))
    if database == "sqlite" and found["rest"] in ("", "/", "/:memory:"):
        raise InvalidInput(argument, url, IN_MEMORY)


def database_name(name: str) -> str:
    """Return SQLAlchemy's name of a database in a URL."""
    # Hosting platforms write "postgres", and libpq accepts it.
    return "postgresql" if name == "postgres" else name


def not_supported(name: str) -> str:
    """Return why a database cannot be used."""
    return f"uses {name!r}, but jobhistory supports only PostgreSQL and SQLite; {EXAMPLE}"


def shown_url(url: object) -> str:
    """Return the scheme of a URL, the only part that is safe in an error message."""
    # The rest may contain a password. Text without a scheme may as well, as in libpq's
    # "host=db password=...".
    scheme = re.match(r"[\w+.-]+://", str(url))
    return f"{scheme[0]}..." if scheme else "..."
