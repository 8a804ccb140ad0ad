"""A Django site with the page, as a program: `python -m tests.web.django_site wsgi URL`."""

from __future__ import annotations

import sys
import threading

import django
from django.conf import settings

from jobhistory import create_store
from tests.web.serving import PREFIX, serving_asgi, serving_wsgi

settings.configure(SECRET_KEY="x", ROOT_URLCONF=__name__, ALLOWED_HOSTS=["*"], USE_TZ=True)
django.setup()
urlpatterns: list[object] = []


def wsgi(store):
    """Serve URLs of Django with WSGI."""
    from django.core.wsgi import get_wsgi_application

    add_urls(store)
    return serving_wsgi(get_wsgi_application())


def asgi(store):
    """Serve URLs of Django with ASGI."""
    from django.core.asgi import get_asgi_application

    add_urls(store)
    return serving_asgi(get_asgi_application(), lifespan="off")


def add_urls(store):
    from django.urls import include, path

    from jobhistory.web.django import history_urls

    urlpatterns.append(path(f"{PREFIX[1:]}/", include(history_urls(store, access="open"))))


def beside(store):
    """Serve the page beside Django, so that it sends events."""
    from django.core.asgi import get_asgi_application
    from starlette.applications import Starlette
    from starlette.routing import Mount

    from jobhistory.web import asgi_app

    routes = [
        Mount(PREFIX, asgi_app(store, access="open")),
        Mount("/", get_asgi_application()),
    ]
    return serving_asgi(Starlette(routes=routes))


if __name__ == "__main__":
    ways = {"wsgi": wsgi, "asgi": asgi, "beside": beside}
    with ways[sys.argv[1]](create_store(sys.argv[2])) as root:
        print(f"{root}{PREFIX}/", flush=True)
        threading.Event().wait()
