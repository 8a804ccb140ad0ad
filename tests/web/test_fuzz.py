"""Nothing in a request or a record makes the server fail, or becomes code, markup or a header."""

from __future__ import annotations

import asyncio
import csv
import io
import json
import re
from datetime import UTC, datetime, timedelta
from html.parser import HTMLParser
from urllib.parse import quote, urlencode, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobhistory import Job
from jobhistory.web import Access, HistoryPage, Request, asgi_app, wsgi_app
from jobhistory.web.rendering import STATIC_FILES
from jobhistory.web.routes import VIEWS
from jobhistory.web.search import TERMS
from tests.web.histories import HOSTILE, hostile

FORBIDDEN = {
    "b",
    "i",
    "u",
    "img",
    "style",
    "iframe",
    "object",
    "embed",
    "base",
    "textarea",
    "template",
}
"""Elements that no template has, and hostile texts have."""

URLS = {"href", "src", "action", "hx-get", "sse-connect", "xlink:href", "formaction"}
TOOLS = {"trace_url": "https://tools.example/t/{trace_id}", "logs_url": "https://tools.example/l"}
TOOLS["source_url"] = "https://tools.example/s/{file}#{line}"

moments = st.one_of(
    st.sampled_from(
        [
            "0001-01-01",
            "0001-01-01T00:00:00+14:00",
            "9999-12-31T23:59:59.999999Z",
            "9999-12-31T23:59:59-12:00",
            "1d",
            "999999999d",
            "all",
            "-1s",
        ]
    ),
    st.datetimes().map(datetime.isoformat),
)
texts = st.one_of(st.sampled_from([*HOSTILE, "\x00", "\ud800"]), st.text(max_size=30))
terms = st.tuples(st.sampled_from([*TERMS, "since", "until"]), st.one_of(texts, moments)).map(
    lambda term: f"{term[0]}:{term[1]}"
)
searches = st.lists(st.one_of(terms, texts), max_size=3).map(" ".join)
MEANINGS = {
    "q": searches,
    "since": moments,
    "until": moments,
    "mark": moments,
    "after": st.one_of(texts, st.binary(max_size=60).map(lambda raw: quote(raw))),
    "order": st.sampled_from(["newest", "oldest", "slowest"]),
    "sort": st.sampled_from(["runs", "p95", "count", "new"]),
    "task": st.sampled_from([*HOSTILE, "send_email"]),
    "id": st.one_of(st.just("{id}"), st.uuids().map(str)),
    "sql": st.just("yes"),
    "theme": st.sampled_from(["dark", "pink"]),
    "zone": st.sampled_from(
        [
            "Etc/GMT+12",
            "Pacific/Kiritimati",
            "../../etc/passwd",
            "local",
            "Berlin",
            "Nope/Zone",
            "\r\n",
        ]
    ),
    "view": st.sampled_from(["task", "//evil.example", "javascript:alert(1)", "a\r\nX: y"]),
    "query": st.just("task=a%0d%0ab"),
    "show": st.sampled_from(["new", "all"]),
    "name": texts,
}
parameters = st.lists(
    st.sampled_from(sorted(MEANINGS)).flatmap(
        lambda name: st.tuples(st.just(name), st.one_of(MEANINGS[name], texts))
    ),
    max_size=5,
)
queries = st.one_of(
    parameters.map(lambda pairs: urlencode(pairs, errors="replace")),
    st.text(st.characters(min_codepoint=33, max_codepoint=126), max_size=40),
    st.integers(1, 12_000).map(lambda length: "q=" + "x" * length),
)
views = st.one_of(
    st.sampled_from([*VIEWS, *VIEWS, *(f"static/{name}" for name in STATIC_FILES)]), texts
)
cookies = st.one_of(
    st.builds(
        "jobhistory_zone={}; jobhistory_local_zone={}; jobhistory_theme={}".format,
        st.sampled_from(["local", "Etc/GMT+12", "Etc/GMT-14", "Asia/Kathmandu", "..", "Nope"]),
        st.sampled_from(["Pacific/Kiritimati", "UTC", "x" * 300]),
        texts,
    ),
    texts,
)
requests = st.builds(
    lambda view, query, cookie, tag: Request(
        "GET", f"/{view}", query, {"cookie": cookie, "if-none-match": tag}
    ),
    *(views, queries, cookies, texts),
)


class Reader(HTMLParser):
    """Raises if the HTML has an element, an attribute or a URL that no template writes."""

    def handle_starttag(self, tag, attributes):
        assert tag not in FORBIDDEN, tag
        assert len({name for name, _ in attributes}) == len(attributes), attributes
        for name, value in attributes:
            assert name.replace("-", "").isalnum(), name
            assert not name.startswith("on"), name
            assert name not in ("style", "srcdoc")
            if name in URLS:
                assert_safe(value, is_script=tag == "script")

    def handle_data(self, data):
        assert self.cdata_elem is None or not data.strip(), "code in a page"


def assert_safe(url, is_script=False):
    if url.startswith("https://tools.example/") and not is_script:
        return
    parts = urlsplit(url)
    assert not parts.scheme, url
    assert not url.startswith(("/", "\\")), url
    path = re.sub(r"^(\./|(\.\./)+)", "", parts.path)
    is_ours = path.removeprefix("static/") in STATIC_FILES
    assert is_ours or (path in {*VIEWS, "events"} and not is_script), url


def assert_sound(status, headers, body):
    """Check an answer of any view: no fault of the server, and no markup or header from data."""
    assert status in (200, 303, 304, 400, 403, 404, 405, 414)
    for name, value in headers:
        assert not set("\r\n\0") & set(name + value), (name, value)
        value.encode("latin-1")
        if name.lower() == "location":
            assert_safe(value)
    fields = {name.lower(): value for name, value in headers}
    assert fields["x-content-type-options"] == "nosniff"
    assert fields["content-security-policy"].startswith("default-src 'none'")
    text = body.decode("utf-8")
    match fields["content-type"].partition(";")[0]:
        case "text/html":
            reader = Reader()
            reader.feed(text)
            reader.close()
        case "application/x-ndjson":
            assert all(json.loads(line) for line in text.splitlines() if line)
        case "application/json":
            assert json.loads(text)
        case "text/csv":
            assert len({len(row) for row in csv.reader(io.StringIO(text))}) <= 1


def fill(store):
    """Fill the history with hostile records, and return the id of each."""
    ids = [store.record_execution(hostile(text)).id for text in HOSTILE]
    for moment in (datetime.min, datetime.max - timedelta(days=31)):
        row = hostile("time") | {"started_at": moment.replace(tzinfo=UTC)}
        ids.append(store.record_execution(row).id)
    ids.append(store.record_start(Job("<b>", "<i>", {"<u>": 1}), "<w>", "<s>").id)
    return [str(id_) for id_ in ids]


def aimed(request, ids):
    """Put the id of a record into a request that asks for one."""
    id_ = ids[len(request.query) % len(ids)]
    query = request.query.replace(quote("{id}"), id_)
    return Request(request.method, request.path, query, request.headers)


def whole(body):
    return body if isinstance(body, bytes) else b"".join(body)


def test_no_request_breaks_a_view(plain_store, clock):
    page = HistoryPage(plain_store, access="open", clock=clock, **TOOLS)
    ids = fill(plain_store)

    @given(requests)
    def check(request):
        answer = page.answer(aimed(request, ids))
        headers = [*answer.headers, ("Content-Type", answer.content_type)]
        assert_sound(answer.status, headers, whole(answer.body))

    check()


@pytest.mark.parametrize("access", [Access.EVERYTHING, Access.WITHOUT_PAYLOADS])
@pytest.mark.parametrize("view", VIEWS)
def test_hostile_records_are_text_in_every_view(memory, view, access):
    store, ids = memory
    page = HistoryPage(store, access=lambda request: access, **TOOLS)
    for id_, text in zip(ids, [*HOSTILE, "time", "time", "<i>"], strict=True):
        for name in ("q", "task", "name"):
            query = urlencode({"id": id_, name: text, "since": "all", "mark": "1d"})
            answer = page.answer(Request("GET", f"/{view}", query))
            headers = [*answer.headers, ("Content-Type", answer.content_type)]
            assert_sound(answer.status, headers, whole(answer.body))


@pytest.fixture(scope="module")
def memory():
    from jobhistory import create_store

    store = create_store()
    return store, fill(store)


@given(requests)
def test_no_request_breaks_the_asgi_app(memory, asgi, request_):
    status, headers, body = asyncio.run(answer_of(asgi, aimed(request_, memory[1])))
    assert_sound(status, headers, body)


@given(queries)
def test_events_contain_nothing_of_a_request_or_a_record(asgi, query):
    status, headers, body = asyncio.run(answer_of(asgi, Request("GET", "/events", query)))
    assert_sound(status, headers, body)
    if status == 200:
        assert set(body.split(b"\n")) <= {b"retry: 2000", b"event: changed", b"data:", b":", b""}


@pytest.fixture(scope="module")
def asgi(memory):
    return asgi_app(memory[0], access="open", **TOOLS)


async def answer_of(app, request):
    """Return the status, the headers and the body of an answer; of events, the first ones."""
    sent, has_enough = [], asyncio.Event()

    async def send(message):
        sent.append(message)
        if len(sent) > 2:  # the viewer leaves, as only events go on for long
            has_enough.set()

    async def receive():
        await has_enough.wait()
        return {"type": "http.disconnect"}

    raw = [(name.encode(), encoded(value)) for name, value in request.headers.items()]
    scope = {"type": "http", "method": "GET", "path": request.path, "root_path": "/a/prefix"}
    scope |= {"query_string": encoded(request.query), "headers": raw, "asgi": {"version": "3.0"}}
    await app(scope, receive, send)
    headers = [(name.decode(), value.decode("latin-1")) for name, value in sent[0]["headers"]]
    return sent[0]["status"], headers, b"".join(each.get("body", b"") for each in sent[1:])


@pytest.fixture(scope="module")
def wsgi(memory):
    return wsgi_app(memory[0], access="open", **TOOLS)


@given(requests)
def test_no_request_breaks_the_wsgi_app(memory, wsgi, request_):
    request = aimed(request_, memory[1])
    started = []
    environ = {
        "REQUEST_METHOD": "GET",
        "SCRIPT_NAME": "/a/prefix",
        "PATH_INFO": encoded(request.path).decode("latin-1"),
        "QUERY_STRING": request.query,
        "HTTP_COOKIE": encoded(request.headers["cookie"]).decode("latin-1"),
    }
    body = b"".join(wsgi(environ, lambda status, headers: started.append((status, headers))))
    ((status, headers),) = started
    assert_sound(int(status[:3]), headers, body)


def encoded(text):
    return text.encode("utf-8", "replace")
