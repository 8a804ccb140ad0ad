"""`manage.py upgrade_history`."""

from __future__ import annotations

from typing import Any

from django.core.exceptions import ImproperlyConfigured
from django.core.management.base import BaseCommand, CommandError

from jobhistory import migrate
from jobhistory.contrib.django.configuration import database_url
from jobhistory.database.engines import engine_from_url


class Command(BaseCommand):  # type: ignore[misc]
    """Creates the table of history, or upgrades it."""

    help = "Create the table of job history, or upgrade it. `migrate` does not."

    def handle(self, *args: Any, **options: Any) -> None:
        """Do it in the database that the setting `JOBHISTORY` names."""
        try:
            url = database_url()
        except ImproperlyConfigured as error:
            raise CommandError(f"{error}; run jobhistory.migrate.upgrade(engine)") from error
        if url is None:
            raise CommandError("a database in memory needs no upgrade")
        engine = engine_from_url(url)
        try:
            migrate.upgrade(engine)
        finally:
            engine.dispose()
        self.stdout.write("The table of job history is up to date.")
