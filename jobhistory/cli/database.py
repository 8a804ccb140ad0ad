"""The database that a command uses."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Engine, inspect

from jobhistory import migrate
from jobhistory._runtime.private_files import create_private_file, create_private_folder
from jobhistory.cli.user_folder import user_folder
from jobhistory.database.engines import engine_from_url
from jobhistory.errors import InvalidInput
from jobhistory.execution.rule_file import load_retention_rules
from jobhistory.store import HistoryStore, create_store


@contextmanager
def open_engine(url: str | None) -> Iterator[Engine]:
    """Open an engine for a URL, or for the user's own history file, and upgrade that file."""
    engine = engine_from_url(_default_url() if url is None else url)
    try:
        if url is None and (migrate.current(engine) or "") < migrate.HEAD:
            migrate.upgrade(engine)
        yield engine
    finally:
        engine.dispose()


@contextmanager
def open_store(url: str | None, schema: str | None, **options: Any) -> Iterator[HistoryStore]:
    """Open a store on the database of a URL, or on the user's own history file.

    An SQLite file without tables gets those of history first.
    """
    with _open_upgraded(url) as engine:
        yield create_store(engine, schema=schema, **options)


@contextmanager
def open_existing_store(url: str | None, schema: str | None) -> Iterator[HistoryStore]:
    """Open a store as `open_store` does, but create no file for a URL: its path may be mistyped.

    Raises:
        InvalidInput: if there is no such file.
    """
    with _open_upgraded(url, must_exist=True) as engine:
        yield create_store(engine, schema=schema)


@contextmanager
def open_store_with_rules(
    url: str | None, schema: str | None, rules: str | None, retention: str | None, **kept: Any
) -> Iterator[HistoryStore]:
    """Open a store that declares the retention rules of a file, if one is given.

    Args:
        retention: how long it keeps what no rule covers; `None` stands for the time that was
            applied last, so that a forgotten option deletes nothing.
        kept: other options of the store.

    Raises:
        InvalidInput: if a rule is invalid, or if `retention` is given without rules.
    """
    if rules is None:
        if retention is not None:
            raise InvalidInput("--retention", retention, "has no effect without --rules; add them")
        with open_store(url, schema, **kept) as store:
            yield store
        return
    try:
        declared = load_retention_rules(rules)
    except OSError as error:
        raise InvalidInput("--rules", rules, f"cannot be read: {error.strerror}") from error
    with _open_upgraded(url) as engine:
        options: dict[str, Any] = {"schema": schema, "retention_rules": declared} | kept
        if retention is not None:
            options["history_retention"] = retention
        else:
            applied = create_store(engine, schema=schema).internals.history.applied_retention()
            options |= {} if applied is None else {"history_retention": applied.default}
        yield create_store(engine, **options)


@contextmanager
def _open_upgraded(url: str | None, *, must_exist: bool = False) -> Iterator[Engine]:
    """Open an engine, and create the tables of history in an SQLite file that has none at all.

    A file with other tables belongs to an app, which may have migrations of its own.
    """
    with open_engine(url) as engine:
        if must_exist and _has_no_file(engine.url):
            raise InvalidInput(
                "--url",
                url,
                "names a file that does not exist; correct it, or: jobhistory db upgrade",
            )
        if engine.dialect.name == "sqlite" and not inspect(engine).get_table_names():
            migrate.upgrade(engine)
        yield engine


def _has_no_file(url: URL) -> bool:
    is_file = url.get_backend_name() == "sqlite" and not url.query.get("uri")
    return is_file and not Path(url.database or "").exists()


def history_file() -> Path:
    """Return the path of the user's own history file, which may not exist."""
    return user_folder() / "history.db"


def _default_url() -> URL:
    """Return the URL of the user's own history file, which nobody else can read."""
    path = history_file()
    create_private_folder(path.parent)
    _make_private(path.parent, 0o700)
    create_private_file(path)
    _make_private(path, 0o600)
    return URL.create("sqlite", database=str(path))


def _make_private(path: Path, mode: int) -> None:
    """Restrict a file or folder that existed before to its owner."""
    if path.is_symlink():
        raise OSError(f"{path} is a symbolic link; give the file that it points to with --url")
    if os.name == "posix" and path.stat().st_mode & 0o777 != mode:
        path.chmod(mode)
