"""Alternatives with their default settings, each recording executions from start to outcome."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any
from uuid import uuid4

from sqlalchemy import URL

PAYLOAD = {
    "order": 4711,
    "customer": {"name": "Ann Example", "address": "1 Example Street, Exampleton"},
    "lines": [{"sku": f"sku-{number}", "count": number} for number in range(4)],
    "note": "please leave it at the door if nobody is at home " * 3,
}
Record = Callable[[int], None]


def celery_backend(url: URL) -> Record:
    """Return a function that records with Celery's SQLAlchemy result backend.

    Results are extended, and the engine has a pool.
    """
    from celery import Celery
    from celery.app.task import Context
    from celery.backends.database import DatabaseBackend

    app = Celery("benchmark", set_as_current=False)
    app.conf.result_extended = True
    backend = DatabaseBackend(url=url.render_as_string(hide_password=False), app=app)
    backend.session_manager.forked = True  # otherwise each call creates an engine and a connection

    def record(count: int) -> None:
        for _ in range(count):
            id_ = str(uuid4())
            request = Context(
                task="ship_order", args=[], kwargs=PAYLOAD, hostname="worker-1", retries=0
            )
            backend.store_result(id_, None, "STARTED", request=request)
            backend.store_result(id_, {"ok": True}, "SUCCESS", request=request)

    return record


def configure_django(url: URL, apps: Sequence[str] = (), **more: Any) -> None:
    """Set up Django with the tables of django-celery-results, on a persistent connection.

    Args:
        apps: more apps.
        more: more settings.
    """
    import django
    from django.conf import settings

    settings.configure(
        INSTALLED_APPS=["django_celery_results", *apps],
        DATABASES={
            "default": {
                "ENGINE": "django.db.backends.postgresql",
                "NAME": url.database,
                "USER": url.username,
                "PASSWORD": url.password,
                "HOST": url.host or url.query.get("host"),
                "PORT": url.port,
                "CONN_MAX_AGE": None,
            }
        },
        USE_TZ=True,
        **more,
    )
    django.setup()
    from django.core.management import call_command

    call_command("migrate", verbosity=0)


def django_celery_results(url: URL) -> Record:
    """Return a function that records with django-celery-results on a persistent connection."""
    configure_django(url)
    from django_celery_results.models import TaskResult

    payload = json.dumps(PAYLOAD)
    fields = {"task_name": "ship_order", "task_args": "[]", "task_kwargs": payload}

    def record(count: int) -> None:
        for _ in range(count):
            store = TaskResult.objects.store_result
            ids = ("application/json", "utf-8", str(uuid4()))
            store(*ids, None, "STARTED", worker="worker-1", **fields)
            store(*ids, '{"ok": true}', "SUCCESS", worker="worker-1", **fields)

    return record


def procrastinate_events(url: URL) -> Record:
    """Return a function that fetches and finishes jobs of Procrastinate, which writes events."""
    import procrastinate
    from procrastinate import sql
    from procrastinate.exceptions import ConnectorException

    conninfo = url.set(drivername="postgresql").render_as_string(hide_password=False)
    app = procrastinate.App(connector=procrastinate.SyncPsycopgConnector(conninfo=conninfo))
    app.open()
    connector = app.connector
    try:
        app.schema_manager.apply_schema()
    except ConnectorException as error:
        raise RuntimeError("the database must not contain Procrastinate's schema yet") from error
    (worker_id,) = connector.execute_query_one(sql.queries["register_worker"]).values()

    def defer(count: int) -> None:
        task = app.configure_task("ship_order")
        task.batch_defer(*[PAYLOAD for _ in range(count)])

    def record(count: int) -> None:
        for _ in range(count):
            job = connector.execute_query_one(
                sql.queries["fetch_job"], queues=None, worker_id=worker_id
            )
            connector.execute_query(
                sql.queries["finish_job"], job_id=job["id"], status="succeeded", delete_job=False
            )

    record.prepare = defer  # type: ignore[attr-defined]
    record.close = app.close  # type: ignore[attr-defined]
    return record
