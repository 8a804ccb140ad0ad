"""Which database a command works on."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from platformdirs import user_data_path
from sqlalchemy import URL, Engine

from jobhistory import migrate
from jobhistory.engines import engine_from_url
from jobhistory.errors import InvalidInput
from jobhistory.store import HistoryStore, create_store


@contextmanager
def open_engine(url: str | None) -> Iterator[Engine]:
    """An engine for a URL, or for the user's own history file, which is kept up to date."""
    try:
        engine = engine_from_url(_default_url() if url is None else url)
    except InvalidInput as error:
        raise InvalidInput("--url", error.value, error.remedy) from None
    path = engine.url.database
    if url is not None and engine.dialect.name == "sqlite" and path and path[:5] != "file:":
        _create_private(Path(path))
    try:
        if url is None and (migrate.current(engine) or "") < migrate.HEAD:
            migrate.upgrade(engine)
        yield engine
    finally:
        engine.dispose()


@contextmanager
def open_store(url: str | None, schema: str | None, **options: Any) -> Iterator[HistoryStore]:
    """A store on the database of a URL, or on the user's own history file."""
    with open_engine(url) as engine:
        yield create_store(engine, schema=schema, **options)


def _default_url() -> URL:
    """The URL of the user's own history file, which nobody else can read."""
    folder = user_data_path("jobhistory", appauthor=False)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    _make_private(folder, 0o700)
    path = folder / "history.db"
    _create_private(path)
    _make_private(path, 0o600)
    return URL.create("sqlite", database=str(path))


def _create_private(path: Path) -> None:
    """Create a file that only its owner can read, if there is none.

    SQLite gives the mode of a database to the files beside it, and would follow a symbolic link to
    a file that does not exist.
    """
    try:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL, 0o600))
    except FileExistsError:
        if path.is_symlink() and not path.exists():
            raise _refused_link(path) from None
    except OSError:
        pass  # SQLite tells why it cannot open it


def _make_private(path: Path, mode: int) -> None:
    """Take away what others may do with the history file or its folder, if it is there already."""
    if path.is_symlink():
        raise _refused_link(path)
    if os.name == "posix" and path.stat().st_mode & 0o777 != mode:
        path.chmod(mode)


def _refused_link(path: Path) -> OSError:
    return OSError(f"{path} is a symbolic link; name the file that it leads to with --url")
