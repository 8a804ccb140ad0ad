"""A Django project in one file, with tasks, a worker and their history.

Install and run it with::

    pip install 'jobhistory[django]' django-tasks-db
    python django_app.py migrate
    python django_app.py upgrade_history
    python django_app.py order 1 2 13
    python django_app.py db_worker --batch
    python django_app.py history

Django's tables are in `django_app.db`, the history is in `django_app_history.db`. An app with
PostgreSQL keeps both in one database: `JOBHISTORY = {"DATABASE": "default"}`.
"""

import sys

import django
from django.conf import settings

from jobhistory.contrib.django import history_store, link

HAS_TASKS = django.VERSION[0] >= 6

if not settings.configured:
    settings.configure(
        USE_TZ=True,
        INSTALLED_APPS=[
            *([] if HAS_TASKS else ["django_tasks"]),
            "django_tasks_db",
            "jobhistory.contrib.django",
        ],
        DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": "django_app.db"}},
        TASKS={"default": {"BACKEND": "django_tasks_db.DatabaseBackend"}},
        JOBHISTORY={"URL": "sqlite:///django_app_history.db"},
    )
    django.setup()

if HAS_TASKS:
    from django.tasks import task
else:
    from django_tasks import task


@task
def take_order(number: int) -> None:
    """Take an order, and leave the parcel to another task."""
    send_parcel.enqueue(number, **link())


@task
def send_parcel(number: int) -> None:
    """Send the parcel of an order."""
    if number == 13:
        raise LookupError(f"no address for order {number}")


def show_history() -> None:
    """Print what happened, the oldest first."""
    for record in history_store().query(order="oldest"):
        name = record.task_identifier.rpartition(".")[2]
        cause = "" if record.parent_id is None else "  because of another task"
        print(f"{name} {record.payload['args']}: {record.error_message or record.status}{cause}")


def main() -> None:
    """Run a command of this program, or one of Django's."""
    from django.core.management import execute_from_command_line

    match sys.argv[1:]:
        case ["order", *numbers]:
            for number in numbers:
                take_order.enqueue(int(number))
        case ["history"]:
            show_history()
        case _:
            execute_from_command_line(sys.argv)


if __name__ == "__main__":
    import django_app  # the module under its own name, which is that of its tasks

    django_app.main()
