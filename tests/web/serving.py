"""The page in web frameworks and on its own, served from threads and processes for browsers."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from socketserver import ThreadingMixIn
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

PREFIX = "/a/prefix"


@contextmanager
def serving_asgi(app: Any, **options: Any) -> Iterator[str]:
    """Serve an ASGI app from a thread; yield the URL of its root."""
    import uvicorn

    options |= {"log_level": "error", "ws": "none", "timeout_graceful_shutdown": 1}
    config = uvicorn.Config(app, port=0, **options)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        assert thread.is_alive()
        time.sleep(0.005)
    try:
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()


class _Threads(ThreadingMixIn, WSGIServer):
    daemon_threads = True


class _Quiet(WSGIRequestHandler):
    def log_message(self, *_: Any) -> None:
        pass


@contextmanager
def serving_wsgi(app: Any) -> Iterator[str]:
    """Serve a WSGI app from threads; yield the URL of its root."""
    server = make_server("127.0.0.1", 0, app, _Threads, _Quiet)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@contextmanager
def in_starlette(url: str) -> Iterator[str]:
    """Serve the page, below a prefix; yield its URL."""
    from starlette.applications import Starlette
    from starlette.routing import Mount

    app = Starlette(routes=[Mount(PREFIX, _asgi(url))])
    with serving_asgi(app) as root:
        yield f"{root}{PREFIX}/"


@contextmanager
def in_fastapi(url: str) -> Iterator[str]:
    """Serve the page, below a prefix; yield its URL."""
    from fastapi import FastAPI

    app = FastAPI()
    app.mount(PREFIX, _asgi(url))
    with serving_asgi(app) as root:
        yield f"{root}{PREFIX}/"


@contextmanager
def in_flask(url: str) -> Iterator[str]:
    """Serve the page, below a prefix; yield its URL."""
    from flask import Flask
    from werkzeug.middleware.dispatcher import DispatcherMiddleware

    app = Flask(__name__)
    app.wsgi_app = DispatcherMiddleware(app.wsgi_app, {PREFIX: _wsgi(url)})
    with serving_wsgi(app) as root:
        yield f"{root}{PREFIX}/"


def _asgi(url: str) -> Any:
    from jobhistory import create_store
    from jobhistory.web import asgi_app

    return asgi_app(create_store(url), access="open")


def _wsgi(url: str) -> Any:
    from jobhistory import create_store
    from jobhistory.web import wsgi_app

    return wsgi_app(create_store(url), access="open")


@contextmanager
def process(*command: str) -> Iterator[str]:
    """Run a program that prints its URL; yield the URL."""
    command = (sys.executable, *command)
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    running = subprocess.Popen(command, text=True, **pipes)
    try:
        assert running.stdout is not None
        yield next(
            word for line in running.stdout for word in line.split() if word.startswith("http://")
        )
    finally:
        running.terminate()
        running.communicate()


def in_django_wsgi(url: str) -> Any:
    """Serve the page from a process, since Django can be set up once in each."""
    return process("-m", "tests.web.django_site", "wsgi", url)


def in_django_asgi(url: str) -> Any:
    """Serve the page from a process, since Django can be set up once in each."""
    return process("-m", "tests.web.django_site", "asgi", url)


def standalone(url: str) -> Any:
    """Serve the page by the program, to everybody."""
    return process("-m", "jobhistory.cli", "web", "--open", "--port=0", f"--url={url}")


def beside_django(url: str) -> Any:
    """Serve the page beside Django, from a process."""
    return process("-m", "tests.web.django_site", "beside", url)


PLACES: dict[str, Callable[[str], Any]] = {
    "fastapi": in_fastapi,
    "flask": in_flask,
    "django-wsgi": in_django_wsgi,
    "django-asgi": in_django_asgi,
    "beside-django": beside_django,
    "standalone": standalone,
}
"""For each place where the page works, a context manager that serves it and yields its URL."""
