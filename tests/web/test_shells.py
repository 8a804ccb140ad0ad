"""The page inside web frameworks: where it is mounted, who asks, and how HTTP is spoken."""

import asyncio
import subprocess
import sys
from urllib.parse import urljoin, urlsplit

import pytest
from sqlalchemy import create_engine
from starlette.testclient import TestClient
from werkzeug.middleware.dispatcher import DispatcherMiddleware
from werkzeug.test import Client as WSGIClient

from jobhistory import Job, create_async_store, create_store, migrate
from jobhistory.errors import InvalidInput
from jobhistory.web import Access, asgi_app, wsgi_app
from tests.web.serving import PREFIX

BASE = f"{PREFIX}/"


@pytest.fixture
def store():
    store = create_store()
    store.begin(Job("42", "send_email", {"to": "ann"}), "worker-1").end()
    return store


class Site:
    """A web app with the page below a prefix, and a browser without a cache."""

    def __init__(self, client, base=BASE):
        self.client = client
        self.base = base

    def __call__(self, url="", method="GET", **headers):
        """Return status, headers and body of an answer; the URL is relative to the page."""
        given = {name.replace("_", "-"): value for name, value in headers.items()}
        answer = self.client(urljoin(self.base, url), method, given)
        return answer.status_code, {k.lower(): v for k, v in answer.headers.items()}, answer


def through_asgi(app, base=BASE, **options):
    client = TestClient(app, follow_redirects=False, **options)

    def send(url, method, headers):
        return client.request(method, url, headers=headers)

    return Site(send, base)


def through_wsgi(app, base=BASE, **environ):
    client = WSGIClient(app)

    def send(url, method, headers):
        parts = urlsplit(url)
        return client.open(
            parts.path,
            method=method,
            query_string=parts.query,
            headers=headers,
            environ_overrides=environ,
        )

    return Site(send, base)


def in_starlette(store, **options):
    from starlette.applications import Starlette
    from starlette.routing import Mount

    return through_asgi(Starlette(routes=[Mount(PREFIX, asgi_app(store, **options))]))


def in_fastapi(store, **options):
    from fastapi import FastAPI

    app = FastAPI()
    app.mount(PREFIX, asgi_app(store, **options))
    return through_asgi(app)


def in_litestar(store, **options):
    from litestar import Litestar, asgi

    mounted = asgi(PREFIX, is_mount=True, copy_scope=True)(asgi_app(store, **options))
    return through_asgi(Litestar([mounted], logging_config=None))


def in_flask(store, **options):
    from flask import Flask

    app = Flask(__name__)
    app.wsgi_app = DispatcherMiddleware(app.wsgi_app, {PREFIX: wsgi_app(store, **options)})
    return through_wsgi(app)


def behind_a_proxy_for_asgi(store, **options):
    """The proxy removes the prefix, and the server knows it."""
    return through_asgi(asgi_app(store, **options), "/", root_path=PREFIX)


def behind_a_proxy_for_wsgi(store, **options):
    """The proxy removes the prefix, and nobody knows it."""
    return through_wsgi(wsgi_app(store, **options), "/")


MOUNTED = [in_starlette, in_fastapi, in_litestar, in_flask]
PLACES = [*MOUNTED, behind_a_proxy_for_asgi, behind_a_proxy_for_wsgi]


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("url", ["", "tasks", "%74asks", "task?task=send_email"])
def test_each_place_shows_the_page(store, place, url):
    status, headers, answer = place(store, access="open")(url)
    assert status == 200
    assert "send_email" in answer.text
    assert headers["content-security-policy"].startswith("default-src 'none'; ")
    assert headers["cache-control"] == "no-store"
    assert int(headers["content-length"]) == len(answer.text.encode())
    for start in ('href="/', 'src="/', 'action="/', 'href="http'):
        assert start not in answer.text, "links are relative"


@pytest.mark.parametrize("place", PLACES)
def test_static_files_stay_in_caches(store, place):
    status, headers, _ = place(store)("static/page.css")
    assert status == 200
    assert headers["cache-control"].endswith("immutable")
    assert headers["content-type"] == "text/css; charset=utf-8"


@pytest.mark.parametrize("place", MOUNTED)
def test_the_url_without_a_slash_leads_to_the_page_with_the_same_query(store, place):
    site = place(store, access="open")
    status, headers, _ = site(f"{PREFIX}?q=task:send_email")
    assert 300 <= status < 400
    target = urlsplit(urljoin(f"http://testserver{PREFIX}", headers["location"]))
    assert (target.path, target.query) == (BASE, "q=task:send_email")


@pytest.mark.parametrize("shell", [asgi_app, wsgi_app])
def test_a_prefix_in_any_script_is_kept_by_that_redirect(store, shell):
    app, name = shell(store, access="open"), "é:x"
    if shell is asgi_app:
        answer = asyncio.run(raw(app, f"/a/{name}", root_path=f"/a/{name}"))
        location = dict(answer[0]["headers"])[b"location"].decode()
    else:
        encoded = f"/a/{name}".encode().decode("latin-1")
        environ = {"REQUEST_METHOD": "GET", "PATH_INFO": "", "SCRIPT_NAME": encoded}
        sent = []
        app(environ, lambda *arguments: sent.append(arguments))
        location = dict(sent[0][1])["Location"]
    assert location == "%C3%A9%3Ax/"


async def raw(app, path="/", method="GET", leave=None, root_path="", headers=()):
    """Send a request as a server does; return the messages of the answer.

    The sender leaves after as many parts of the body as `leave` says.
    """
    sent, left = [], asyncio.Event()
    scope = {"type": "http", "method": method, "path": path, "query_string": b""}
    scope |= {"root_path": root_path, "headers": list(headers)}

    async def receive():
        await left.wait()
        return {"type": "http.disconnect"}

    async def send(message):
        sent.append(message)
        if leave is not None and len(sent) > leave:
            left.set()

    await app(scope, receive, send)
    return sent


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("url", ["", "nonsense", "static/page.js", "executions.csv"])
def test_head_has_the_headers_of_get_and_no_body(store, place, url):
    site = place(store, access="open")
    status, headers, answer = site(url, "HEAD")
    assert status == site(url)[0]
    assert answer.text == ""
    if url != "executions.csv":
        # Times, such as those of what the page read, may differ in their digits.
        assert abs(int(headers["content-length"]) - len(site(url)[2].text.encode())) < 10


def test_head_sends_no_body_even_to_a_server_that_would_pass_it_on(store):
    for path in ("/", "/events", "/executions.csv"):
        sent = asyncio.run(raw(asgi_app(store, access="open"), path, "HEAD"))
        assert sent[0]["status"] == 200
        assert b"".join(message.get("body", b"") for message in sent) == b""


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("url", ["%ff%fe", "%00", "a%0d%0ab", "%F0%9F%92%A5", "x" * 3000, "a//b"])
def test_strange_paths_are_not_found(store, place, url):
    status, _, answer = place(store, access="open")(url)
    assert status in (400, 404)  # Litestar refuses some by itself
    assert "send_email" not in answer.text


@pytest.mark.parametrize("place", PLACES)
def test_choices_of_a_viewer_are_kept_below_the_prefix(store, place):
    site = place(store, access="open")
    status, headers, _ = site("preferences?theme=dark&view=tasks")
    cookie = headers["set-cookie"]
    assert (status, headers["location"]) == (303, "tasks")
    assert "path=" not in cookie.lower(), "so the browser takes the folder of the page"
    assert 'data-theme="dark"' in site("tasks", cookie=cookie.partition(";")[0])[2].text


@pytest.mark.parametrize("place", PLACES)
def test_who_is_not_allowed_sees_nothing_anywhere(store, place):
    for url in ("", "tasks", "executions.csv", "events", "metrics"):
        status, _, answer = place(store)(url)
        assert status == 403
        assert "send_email" not in answer.text


@pytest.mark.parametrize("is_async_store", [False, True])
@pytest.mark.parametrize("is_async_callback", [False, True])
def test_stores_and_callbacks_may_be_for_threads_or_for_asyncio(
    tmp_path, is_async_store, is_async_callback
):
    engine = create_engine(f"sqlite:///{tmp_path}/history.db")
    migrate.upgrade(engine)
    store = create_store(engine)
    store.begin(Job("42", "send_email", {"to": "ann"}), "worker-1").end()

    async def decide(request):
        await asyncio.sleep(0)
        return request.headers.get("x-user") == "ann"

    def decide_now(request):
        return request.headers.get("x-user") == "ann"

    if is_async_store:
        store = create_async_store(f"sqlite+aiosqlite:///{tmp_path}/history.db")
    app = asgi_app(store, access=decide if is_async_callback else decide_now)

    async def scenario():
        refused = await raw(app)
        shown = await raw(app, headers=[(b"x-user", b"ann")])
        file = await raw(app, "/executions.csv", headers=[(b"x-user", b"ann")])
        if is_async_store:
            await store.close()
        return refused, shown, file

    refused, shown, file = asyncio.run(scenario())
    assert (refused[0]["status"], shown[0]["status"]) == (403, 200)
    for sent in (shown, file):
        assert b"send_email" in b"".join(message.get("body", b"") for message in sent)
    engine.dispose()


def test_wsgi_takes_neither_an_asynchronous_store_nor_callback(store):
    async def decide(request):
        return True

    with pytest.raises(InvalidInput, match="is asynchronous; pass a plain function"):
        wsgi_app(store, access=decide)
    awaited = wsgi_app(store, access=lambda request: decide(request))
    with pytest.raises(InvalidInput, match="is asynchronous; pass a plain function"):
        through_wsgi(awaited, "/")()
    with pytest.raises(InvalidInput, match="is for asyncio"):
        wsgi_app(create_async_store(), access="open")


def test_a_query_may_hold_unquoted_utf_8(store):
    query = "q=task:grüße".encode()
    store.begin(Job("7", "grüße"), "worker-1").end()
    asgi, wsgi = asgi_app(store, access="open"), wsgi_app(store, access="open")
    environ = {"REQUEST_METHOD": "GET", "PATH_INFO": "/", "QUERY_STRING": query.decode("latin-1")}
    parts = wsgi(environ, lambda status, headers: None)
    assert b"1 execution," in b"".join(parts)

    async def scenario():
        sent = []

        async def send(message):
            sent.append(message)

        scope = {"type": "http", "method": "GET", "path": "/", "headers": [], "query_string": query}
        await asgi(scope, asyncio.Queue().get, send)
        return b"".join(message.get("body", b"") for message in sent)

    assert b"1 execution," in asyncio.run(scenario())


def test_the_callback_knows_the_user_of_starlette(store):
    from starlette.applications import Starlette
    from starlette.authentication import AuthCredentials, AuthenticationBackend, SimpleUser
    from starlette.middleware import Middleware
    from starlette.middleware.authentication import AuthenticationMiddleware
    from starlette.routing import Mount

    class Header(AuthenticationBackend):
        async def authenticate(self, connection):
            name = connection.headers.get("x-user")
            return (AuthCredentials(["login"]), SimpleUser(name)) if name else None

    page = asgi_app(store, access=lambda request: request.native["user"].display_name == "ann")
    login = Middleware(AuthenticationMiddleware, backend=Header())
    site = through_asgi(Starlette(routes=[Mount(PREFIX, page)], middleware=[login]))
    assert site(x_user="ann")[0] == 200
    assert site(x_user="bob")[0] == 403
    assert site()[0] == 403


def test_the_callback_knows_the_session_of_flask(store):
    from flask import Flask, session

    app = Flask(__name__)
    app.secret_key = "x"

    @app.get("/login/<name>")
    def login(name):
        session["user"] = name
        return ""

    def access(request):
        with app.request_context(request.native):
            return session.get("user") == "ann"

    page = wsgi_app(store, access=access)
    app.wsgi_app = DispatcherMiddleware(app.wsgi_app, {PREFIX: page})
    site = through_wsgi(app)
    assert site()[0] == 403
    site("/login/ann")
    assert site()[0] == 200
    site("/login/bob")
    assert site()[0] == 403


def test_the_page_as_urls_of_django():
    """In a process, since Django can be set up once in each."""
    # Django leaves connections of its threads open, of which Python 3.13 warns.
    filters = ["-W", "error", "-W", "ignore:unclosed database:ResourceWarning"]
    command = [sys.executable, *filters, "-m", "tests.web.django_urls"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")


def without(module, code):
    """Run code in a process that cannot import a module; return what it prints."""
    code = f"import sys; sys.modules[{module!r}] = None\n{code}"
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout


def test_without_jinja_the_extra_is_named():
    code = "try: import jobhistory.web\nexcept ModuleNotFoundError as error: print(error)"
    assert without("jinja2", code) == "the web page requires pip install 'jobhistory[web]'\n"


def test_without_starlette_the_extra_is_named_and_wsgi_works():
    code = (
        "import jobhistory, jobhistory.web\n"
        "store = jobhistory.create_store()\n"
        "try: jobhistory.web.asgi_app(store)\n"
        "except ModuleNotFoundError as error: print(error)\n"
        "app = jobhistory.web.wsgi_app(store, access='open')\n"
        "app({'REQUEST_METHOD': 'GET', 'PATH_INFO': '/'}, lambda status, _: print(status))\n"
    )
    assert without("starlette", code).splitlines() == [
        "the web page for ASGI requires pip install 'jobhistory[web]'",
        "200 OK",
    ]


def test_a_server_may_run_the_page_alone(store):
    with TestClient(asgi_app(store, access="open")) as client:  # startup and shutdown
        assert client.get("/").status_code == 200


def test_websockets_are_refused(store):
    from starlette.websockets import WebSocketDisconnect

    client = TestClient(asgi_app(store, access="open"))
    with pytest.raises(WebSocketDisconnect), client.websocket_connect("/"):
        pass


def test_cookies_in_several_headers_are_all_read(store):
    seen = []
    app = asgi_app(store, access=lambda request: seen.append(request) or True)
    divided = [(b"cookie", b"a=1"), (b"cookie", b"b=2"), (b"accept", b"x"), (b"accept", b"y")]
    asyncio.run(raw(app, headers=divided))
    assert seen[0].cookies == {"a": "1", "b": "2"}
    assert seen[0].headers["accept"] == "x, y"


@pytest.mark.parametrize("place", [in_starlette, in_flask])
@pytest.mark.parametrize("weak", ["", "W/"])
def test_a_list_that_has_not_changed_is_not_sent_again(store, place, weak):
    site = place(store, access="open")
    url = "news?mark=2026-11-01T08:00:00Z"
    tag = site(url)[1]["etag"]
    status, headers, answer = site(url, if_none_match=weak + tag)
    assert (status, answer.text) == (304, "")
    assert "content-length" not in headers


def test_a_viewer_of_events_who_leaves_is_forgotten(store):
    app = asgi_app(store, access="open")

    async def scenario():
        await asyncio.wait_for(raw(app, "/events", leave=2), 20)
        (feed,) = app._feeds.values()
        assert not feed._viewers
        assert feed._reader is None

    asyncio.run(scenario())


@pytest.mark.parametrize("is_async", [False, True])
def test_a_file_whose_reader_leaves_is_not_read_to_its_end(store, is_async, monkeypatch):
    taken = []

    def endless(records):
        for number in range(10**9):
            taken.append(number)
            yield records[0]

    if is_async:
        many = create_async_store()

        async def iterate(*_, **options):
            for record in endless(records):
                await asyncio.sleep(0)
                yield record
    else:
        many = store

        def iterate(*_, **options):
            return endless(records)

    records = store.query()
    monkeypatch.setattr(many, "iterate", iterate)
    app = asgi_app(many, access=lambda request: Access.EVERYTHING)
    asyncio.run(asyncio.wait_for(raw(app, "/executions.csv", leave=3), 20))
    assert len(taken) < 10_000


def test_a_server_that_closes_the_body_under_wsgi_ends_the_reading(store):
    store.record_many(
        {"job_id": str(number), "task_identifier": "t", "worker_id": "w", "status": "completed"}
        | {"correlation_id": "c", "execution_time_ms": 1}
        for number in range(300)
    )
    app = wsgi_app(store, access="open")
    environ = {"REQUEST_METHOD": "GET", "PATH_INFO": "/executions.jsonl"}
    body = app(environ, lambda *_: None)
    assert next(body)
    body.close()
    assert list(body) == []
