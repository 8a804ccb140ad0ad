"""Forks of a test's process: SQLite must not know files that it had open before.

A fork closes its copies of them. If it opened the same database, SQLite would go on with their
descriptors, which are closed or belong to other files.
"""

from __future__ import annotations

from weakref import WeakSet

from sqlalchemy import Engine

_engines: WeakSet[Engine] = WeakSet()


def close_before_forks(engine: Engine) -> None:
    """Let `close_engines` close the connections of an engine that are not in use."""
    if engine.dialect.name == "sqlite":
        _engines.add(engine)


def close_engines() -> None:
    """Close what a fork must not know. The engines connect again when they are used."""
    for engine in list(_engines):
        engine.dispose()
