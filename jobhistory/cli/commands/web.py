"""The command that serves the web page."""

from __future__ import annotations

import socket
from contextlib import suppress
from typing import Annotated

import typer

from jobhistory.cli.database import open_store
from jobhistory.cli.options import Schema, Url
from jobhistory.cli.output import fail, say
from jobhistory.errors import check_count

_TEMPLATE = "A URL with fields of an execution in braces."


def web(
    host: Annotated[
        str, typer.Option(help="The address to listen on.", metavar="ADDRESS")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="The port; 0 for any free one.", metavar="N")] = (8642),
    open_: Annotated[
        bool, typer.Option("--open", help="Show everything to everybody who can connect.")
    ] = False,
    title: Annotated[str, typer.Option(help="The title of the page.")] = "Job history",
    trace_url: Annotated[
        str | None,
        typer.Option(help=f"Link to traces. {_TEMPLATE}", metavar="URL", show_default=False),
    ] = None,
    logs_url: Annotated[
        str | None,
        typer.Option(help=f"Link to logs. {_TEMPLATE}", metavar="URL", show_default=False),
    ] = None,
    source_url: Annotated[
        str | None,
        typer.Option(
            help="Link to sources, with {file} and {line}.", metavar="URL", show_default=False
        ),
    ] = None,
    url: Url = None,
    schema: Schema = None,
) -> None:
    """Serve a read-only web page of the history, until Ctrl-C.

    It prints a URL with a token, which the browser keeps as a cookie. Without the token, the page
    shows nothing. With --open, there is no token. The page only answers this machine, unless --host
    says otherwise.
    """
    check_count(port, "--port", least=0, most=65535, example=8642)
    try:
        import uvicorn

        from jobhistory.web.page import HistoryPage
        from jobhistory.web.standalone import Guard, StandalonePage, is_loopback
    except ModuleNotFoundError as error:
        if error.name not in ("jinja2", "markupsafe", "starlette", "uvicorn"):
            raise
        fail("the web page requires pip install 'jobhistory[cli,web]'")
    with open_store(url, schema) as store, _listening(host, port) as listener:
        guard = Guard(listener.getsockname()[1], is_local=is_loopback(host))
        if open_:
            guard = Guard(guard.port, token=None, is_local=guard.is_local)
        page = HistoryPage(
            store,
            access=guard.allows,
            title=title,
            trace_url=trace_url,
            logs_url=logs_url,
            source_url=source_url,
        )
        shown = f"[{host}]" if ":" in host else host
        token = "" if guard.token is None else f"?token={guard.token}"
        say(f"open http://{shown}:{guard.port}/{token} and stop with Ctrl-C")
        config = uvicorn.Config(
            StandalonePage(page, guard),
            log_level="warning",
            server_header=False,
            timeout_graceful_shutdown=1,  # viewers who wait for news stay connected
        )
        with suppress(KeyboardInterrupt):
            uvicorn.Server(config).run(sockets=[listener])


def _listening(host: str, port: int) -> socket.socket:
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host, port), family=family)
    except OSError as error:
        reason = error.strerror or error
        fail(f"cannot listen on {host} port {port}: {reason}; choose another one with --port")
