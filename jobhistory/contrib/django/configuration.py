"""The setting `JOBHISTORY`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.db import connections
from django.utils.module_loading import import_string
from sqlalchemy import URL, make_url
from sqlalchemy.exc import ArgumentError

from jobhistory.contrib.django.tasks import TaskRecorder
from jobhistory.errors import InvalidInput
from jobhistory.store import HistoryStore, create_store

SETTING = "JOBHISTORY"

_SOURCES = ("URL", "DATABASE", "STORE")
_DJANGOS_OWN = ("assume_role", "cursor_factory", "isolation_level", "pool", "server_side_binding")
"""What Django keeps from the driver among the OPTIONS of a PostgreSQL database."""


def make_recorder() -> TaskRecorder:
    """Return what records tasks as the setting says.

    Raises:
        ImproperlyConfigured: if the setting cannot be used.
    """
    given = _given()
    options: Any = {}
    for name, value in given.items():
        if not name.isupper():
            raise ImproperlyConfigured(f"{SETTING}[{name!r}]: write it {name.upper()!r}")
        if name not in _SOURCES:
            options[name.lower()] = value
    try:
        return TaskRecorder(_store(given), options)
    except InvalidInput as error:
        name = error.argument.upper()
        where = f"{SETTING}[{name!r}]" if name in given else SETTING
        raise ImproperlyConfigured(f"{where}: {error}") from error


def database_url() -> str | URL | None:
    """Return the URL of the database with the history.

    `None` if it is a database in memory, as in Django's tests with SQLite.

    Raises:
        ImproperlyConfigured: if the setting names a store instead, or a database that cannot be
            used.
    """
    given = _given()
    if "STORE" in given:
        raise ImproperlyConfigured(f"{SETTING} names a store, not a database")
    return given["URL"] if "URL" in given else url_of(given["DATABASE"])


def _given() -> dict[str, Any]:
    """Return the setting; by default, history is in the default database."""
    given = getattr(settings, SETTING, {})
    if not isinstance(given, Mapping) or not all(isinstance(name, str) for name in given):
        raise ImproperlyConfigured(f"{SETTING}: write a dictionary like {{'DATABASE': 'default'}}")
    sources = [name for name in _SOURCES if name in given]
    if len(sources) > 1:
        raise ImproperlyConfigured(f"{SETTING} has {' and '.join(sources)}; keep one of them")
    return dict(given) if sources else {**given, "DATABASE": "default"}


def _store(given: Mapping[str, Any]) -> Any:
    """Return a store or a function that makes it later: a test may use another database then."""
    if "STORE" in given:
        store = given["STORE"]
        try:
            return import_string(store) if isinstance(store, str) else store
        except ImportError as error:
            raise ImproperlyConfigured(f"{SETTING}['STORE']: {error}") from error
    if "URL" in given:
        _check_url(given["URL"])
    else:
        _check_alias(given["DATABASE"])
    return _make_store


def _make_store() -> HistoryStore:
    return create_store(database_url())


def _check_url(url: Any) -> None:
    try:
        is_known = make_url(url).get_backend_name() in ("postgresql", "postgres", "sqlite")
    except (ArgumentError, ValueError):  # the latter for a port that is no number
        is_known = False
    if not is_known:  # the URL may contain a password
        raise ImproperlyConfigured(
            f"{SETTING}['URL'] cannot be used; write it like 'sqlite:///history.db' or "
            "'postgresql://user@host/app'"
        )


def _check_alias(alias: Any) -> None:
    if alias not in list(connections):  # it may be of any type
        raise ImproperlyConfigured(f"{SETTING}['DATABASE']: {alias!r} is not in DATABASES")
    if connections[alias].vendor not in _URLS:
        raise ImproperlyConfigured(
            f"{SETTING}['DATABASE']: {alias!r} is neither PostgreSQL nor SQLite; "
            f"give {SETTING}['URL'] of another database"
        )


def url_of(alias: str) -> URL | None:
    """Return the URL of one of Django's databases, or `None` if it is in memory.

    Raises:
        ImproperlyConfigured: if there is none with that alias, or it cannot be used.
    """
    _check_alias(alias)
    return _URLS[connections[alias].vendor](connections[alias].settings_dict)


def _postgresql(database: Mapping[str, Any]) -> URL:
    options = {
        name: str(value)
        for name, value in database.get("OPTIONS", {}).items()
        if isinstance(value, (str, int)) and name not in _DJANGOS_OWN
    }
    return URL.create(
        "postgresql",
        username=database.get("USER") or None,
        password=database.get("PASSWORD") or None,
        host=database.get("HOST") or None,
        port=int(database["PORT"]) if database.get("PORT") else None,
        database=database.get("NAME") or None,
        query=options,
    )


def _sqlite(database: Mapping[str, Any]) -> URL | None:
    name = str(database["NAME"])
    if name == ":memory:" or name.startswith("file:"):
        return None
    return URL.create("sqlite", database=name)


_URLS: dict[str, Callable[[Mapping[str, Any]], URL | None]] = {
    "postgresql": _postgresql,
    "sqlite": _sqlite,
}
