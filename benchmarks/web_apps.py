"""The web apps that the benchmarks load pages from: ours, and an admin of Django.

`python -m benchmarks.web_apps page 8000` serves one on a port. `JOBHISTORY_BENCHMARK` is the URL of
its database.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import Any

from sqlalchemy import make_url

VARIABLE = "JOBHISTORY_BENCHMARK"
ADMIN_PATH = "/admin/django_celery_results/taskresult/"

urlpatterns: list[Any] = []
"""Where Django looks for URLs."""


_APPS = [
    f"django.contrib.{app}"
    for app in ("admin", "auth", "contenttypes", "sessions", "messages", "staticfiles")
]
_SETTINGS: dict[str, Any] = {
    "MIDDLEWARE": [
        "django.contrib.sessions.middleware.SessionMiddleware",
        "django.contrib.auth.middleware.AuthenticationMiddleware",
        "django.contrib.messages.middleware.MessageMiddleware",
        "benchmarks.web_apps.as_superuser",
    ],
    "TEMPLATES": [
        {
            "BACKEND": "django.template.backends.django.DjangoTemplates",
            "APP_DIRS": True,
            "OPTIONS": {
                "context_processors": [
                    "django.template.context_processors.request",
                    "django.contrib.auth.context_processors.auth",
                    "django.contrib.messages.context_processors.messages",
                ]
            },
        }
    ],
    "ROOT_URLCONF": "benchmarks.web_apps",
    "SECRET_KEY": "benchmark",
    "STATIC_URL": "/static/",
    "ALLOWED_HOSTS": ["127.0.0.1"],
}


def page() -> Any:
    """Return the page of a job history, without access control."""
    from jobhistory import create_store
    from jobhistory.web import asgi_app

    return asgi_app(create_store(os.environ[VARIABLE]), access="open")


def admin() -> Any:
    """Return the admin of django-celery-results with its defaults, without access control."""
    from benchmarks.peers import configure_django

    configure_django(make_url(os.environ[VARIABLE]), _APPS, **_SETTINGS)
    from django.contrib import admin as django_admin
    from django.contrib.staticfiles.handlers import ASGIStaticFilesHandler
    from django.core.asgi import get_asgi_application
    from django.urls import path

    from benchmarks import web_apps  # this module is `__main__`, and Django imports another one

    web_apps.urlpatterns[:] = [path("admin/", django_admin.site.urls)]
    return ASGIStaticFilesHandler(get_asgi_application())


def as_superuser(get_response: Any) -> Any:
    """Middleware of Django in which each viewer is a superuser, whom no query reads."""
    from django.contrib.auth.models import User

    user = User(pk=1, username="viewer", is_active=True, is_staff=True, is_superuser=True)

    def answer(request: Any) -> Any:
        request.user = user
        return get_response(request)

    return answer


def main() -> None:
    """Serve an app."""
    import uvicorn

    apps: dict[str, Callable[[], Any]] = {"page": page, "admin": admin}
    name, port = sys.argv[1:]
    # Viewers of events stay; without a time limit, they would keep the server from stopping.
    limits = {"timeout_graceful_shutdown": 1}
    uvicorn.run(apps[name](), port=int(port), access_log=False, log_level="warning", **limits)


if __name__ == "__main__":
    main()
