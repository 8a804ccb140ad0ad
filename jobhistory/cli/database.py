"""Which database a command works on."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from platformdirs import user_data_path
from sqlalchemy import URL, Engine, make_url
from sqlalchemy.exc import ArgumentError

from jobhistory import migrate
from jobhistory.engines import engine_from_url
from jobhistory.errors import InvalidInput
from jobhistory.store import HistoryStore, create_store

_CONNECT_SECONDS = "5"


@contextmanager
def open_engine(url: str | None) -> Iterator[Engine]:
    """An engine for a URL, or for the user's own history file, which is kept up to date."""
    try:
        engine = engine_from_url(_default_url() if url is None else _impatient(url))
    except InvalidInput as error:
        raise InvalidInput("--url", error.value, error.remedy) from None
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
    folder = user_data_path("jobhistory", appauthor=False, ensure_exists=True)
    return URL.create("sqlite", database=str(folder / "history.db"))


def _impatient(url: str) -> str | URL:
    # libpq waits for minutes for a host that does not answer, and a cron job would wait with it.
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):
        return url  # to be refused by those who know how
    if parsed.get_backend_name() != "postgresql" or "connect_timeout" in parsed.query:
        return parsed
    return parsed.update_query_dict({"connect_timeout": _CONNECT_SECONDS})
