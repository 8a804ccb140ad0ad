"""The page without any web framework: access, headers, bad input, and an unavailable database."""

import base64
import hashlib
import tomllib
from importlib.resources import files

import pytest
from sqlalchemy import create_engine
from sqlalchemy.orm import Session

from jobhistory import Job, create_store
from jobhistory.errors import InvalidInput, StatisticsDenied
from jobhistory.web import Access, HistoryPage, Request
from jobhistory.web.routes import VIEWS


def get(page, url="/", **headers):
    path, _, query = url.partition("?")
    return page.answer(Request("GET", path, query, headers))


@pytest.fixture
def page(clock):
    store = create_store(clock=clock)
    store.begin(Job("42", "send_email", {"to": "ann"}), "worker-1").end()
    return HistoryPage(store, access="open", clock=clock)


@pytest.mark.parametrize("path", [f"/{name}" for name in VIEWS] + ["/nonsense"])
def test_without_access_nothing_is_shown(clock, path):
    store = create_store(clock=clock)
    store.begin(Job("42", "send_email"), "worker-1").end()
    answer = get(HistoryPage(store, clock=clock), path)
    assert answer.status == 403
    assert b"send_email" not in answer.body
    assert b"access=" in answer.body


@pytest.mark.parametrize("granted", [False, None, "yes", 1, Access.NOTHING])
def test_whatever_is_not_a_grant_shows_nothing(clock, granted):
    page = HistoryPage(create_store(clock=clock), access=lambda request: granted, clock=clock)
    answer = get(page)
    assert answer.status == 403
    assert b"You have no access" in answer.body


def test_the_callback_sees_the_request(page, clock):
    seen = []
    page = HistoryPage(page.store, access=lambda request: seen.append(request) or True, clock=clock)
    assert get(page, "/?q=task:x", cookie="a=b").status == 200
    (request,) = seen
    assert request.parameter("q") == "task:x"
    assert request.cookies == {"a": "b"}


def test_access_that_is_neither_callable_nor_open_is_refused(clock):
    with pytest.raises(InvalidInput, match="access 'everybody' is not a callable"):
        HistoryPage(create_store(clock=clock), access="everybody")


@pytest.mark.parametrize(
    ("url", "status", "sentence"),
    [
        ("/nonsense", 404, b"There is no view named"),
        ("/static/nonsense", 404, b"There is no file named"),
        ("/static/../page.py", 404, b"There is no file named"),
        ("/?since=yesterday-ish", 400, b"is neither a duration nor a date"),
        ("/?since=1h&until=2h", 400, b"the end of the window"),
        ("/?after=nonsense", 400, b"is not a cursor"),
        ("/?q=colour:red", 400, b"is not a term"),
        ("/?q=min-attempt:x", 400, b"is not a whole number"),
        ("/?q=" + "x" * 9000, 414, b"too long"),
    ],
)
def test_bad_input_gets_one_sentence_and_the_right_status(page, url, status, sentence):
    answer = get(page, url)
    assert answer.status == status
    assert sentence in answer.body


@pytest.mark.parametrize("path", ["/", "/static/page.css"])
def test_only_get_is_answered(page, path):
    assert page.answer(Request("POST", path)).status == 405


@pytest.mark.parametrize("url", ["/", "/nonsense", "/static/page.css", "/preferences?theme=dark"])
def test_every_answer_forbids_inline_code(page, url):
    headers = dict(get(page, url).headers)
    assert headers["Content-Security-Policy"].startswith("default-src 'none'; ")
    assert "unsafe" not in headers["Content-Security-Policy"]


def test_an_unavailable_database_gets_a_page_that_loads_again(clock, tmp_path):
    engine = create_engine(f"sqlite:///{tmp_path}/missing/history.db")
    answer = get(HistoryPage(create_store(engine), access="open", clock=clock))
    assert answer.status == 503
    assert b"The history is unavailable" in answer.body
    assert dict(answer.headers)["Refresh"] == "5"


def test_a_choice_is_kept_in_a_cookie_and_returns_to_the_view(page):
    answer = get(page, "/preferences?zone=Europe/Berlin&view=task&query=task%3Dsend%2520it")
    headers = dict(answer.headers)
    assert answer.status == 303
    assert headers["Location"] == "task?task=send+it"
    assert headers["Set-Cookie"].startswith("jobhistory_zone=Europe/Berlin; ")
    assert b"CET" in get(page, "/", cookie="jobhistory_zone=Europe/Berlin").body


@pytest.mark.parametrize("view", ["//evil.example", "https://evil.example", "a\r\nX: y"])
def test_a_choice_never_leads_to_another_site(page, view):
    answer = page.answer(Request("GET", "/preferences", f"theme=dark&view={view}"))
    assert dict(answer.headers)["Location"] == "./"


def test_vendored_files_are_those_of_their_packages():
    vendor = files("jobhistory.web").joinpath("static", "vendor")
    declared = tomllib.loads(vendor.joinpath("VENDOR.toml").read_text())
    assert {each.name for each in vendor.iterdir() if each.name.endswith(".js")} == set(declared)
    for name, entry in declared.items():
        digest = hashlib.sha512(vendor.joinpath(name).read_bytes()).digest()
        assert entry["integrity"] == f"sha512-{base64.b64encode(digest).decode()}"
        assert vendor.joinpath(entry["license_file"]).read_text()


def test_metrics_are_those_of_the_store(page):
    answer = get(page, "/metrics")
    assert answer.content_type == "text/plain; version=0.0.4; charset=utf-8"
    assert answer.body.decode() == page.store.metrics()
    assert b'jobhistory_executions_total{task="send_email",status="completed"} 1' in answer.body


def test_a_store_in_a_session_is_refused(database):
    with Session(database.engine) as session:
        in_session = create_store(database.engine).in_session(session)
        with pytest.raises(InvalidInput, match="is not a store"):
            HistoryPage(in_session, access="open")


def test_any_number_of_parameters_is_answered(page):
    assert get(page, "/?" + "a=b&" * 1500).status == 200


def test_the_page_for_an_unknown_path_leads_back_from_any_depth(page):
    body = get(page, "/a/b/c").body.decode()
    assert 'href="../../static/page.css' in body
    assert '<a href="../../">Go to the executions</a>' in body
    assert 'href="../../tasks"' in body


@pytest.mark.parametrize(
    "cookie",
    [
        "jobhistory_zone=Berlin",
        "jobhistory_zone=local; jobhistory_local_zone=Etc/Unknown",
        "jobhistory_theme=nope; jobhistory_zone=",
    ],
)
def test_an_unknown_choice_is_as_none(page, cookie):
    answer = get(page, "/", cookie=cookie)
    assert answer.status == 200
    assert b"UTC" in answer.body
    assert get(page, "/preferences?zone=Berlin").status == 400


@pytest.mark.parametrize("other", ['prefs={"a":1}', "flag", "a[b]=1", "path=/", "ü=1", "=", ";;"])
def test_cookies_of_other_apps_do_no_harm(other):
    request = Request("GET", "/", "", {"cookie": f"{other}; mine=secret; {other}"})
    assert request.cookies["mine"] == "secret"


def test_a_role_without_statistics_is_refused_metrics(page, monkeypatch):
    def denied(**options):
        raise StatisticsDenied

    monkeypatch.setattr(page.store, "metrics", denied)
    answer = get(page, "/metrics")
    assert answer.status == 403
    assert b"may not read the statistics" in answer.body
    assert "Refresh" not in dict(answer.headers)
