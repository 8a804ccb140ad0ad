"""The page as a program of its own: who may see it, and how it starts and stops."""

import re
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request

import pytest

from jobhistory import create_store
from jobhistory.web import HistoryPage, Request
from jobhistory.web.standalone import Guard, is_loopback
from tests.test_cli import run, url  # noqa: F401 - fixtures

HERE = {"host": "127.0.0.1:8642"}


def request(query="", **headers):
    return Request("GET", "/", query, HERE | headers)


def test_only_who_knows_the_token_sees_anything():
    guard = Guard(8642, "secret")
    assert not guard.allows(request())
    assert not guard.allows(request(cookie="jobhistory_token_8642=guess"))
    assert not guard.allows(request(cookie="jobhistory_token_9000=secret"))
    assert guard.allows(request(cookie="jobhistory_token_8642=secret"))


def test_the_token_in_the_url_becomes_a_cookie():
    guard = Guard(8642, "secret")
    answer = guard.entry(request("token=secret"))
    assert dict(answer.headers)["Location"] == "./"
    cookie = dict(answer.headers)["Set-Cookie"]
    assert cookie == "jobhistory_token_8642=secret; HttpOnly; SameSite=Strict"
    assert guard.entry(request("token=guess")) is None
    assert guard.entry(request("token=%C3%A9")) is None
    assert guard.entry(request()) is None


def test_tokens_cannot_be_guessed():
    tokens = {Guard(8642).token for _ in range(100)}
    assert len(tokens) == 100
    assert min(map(len, tokens)) >= 32


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.1:8642", "localhost:8642", "[::1]:8642"])
def test_a_local_page_answers_to_names_of_this_machine(host):
    assert Guard(8642, token=None).allows(request(host=host))


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:8642", "10.0.0.1:80", "", ":1", "[", "[::1]evil"]
)
def test_a_local_page_does_not_answer_to_other_names(host):
    assert not Guard(8642, token=None).allows(request(host=host))
    assert Guard(8642, token=None, is_local=False).allows(request(host=host))


@pytest.mark.parametrize(
    ("host", "expected"),
    [("127.0.0.1", True), ("::1", True), ("localhost", True), ("0.0.0.0", False), ("::", False)],
)
def test_addresses_that_only_this_machine_reaches(host, expected):
    assert is_loopback(host) is expected


def test_the_program_serves_the_page_until_it_is_interrupted(url):  # noqa: F811
    command = [sys.executable, "-m", "jobhistory.cli", "web", "--port", "0", "--url", url]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        try:
            line = process.stderr.readline()
            address = re.search(r"http://127\.0\.0\.1:\d+/\?token=\S+", line)[0]
            plain = address.partition("?")[0]
            with pytest.raises(urllib.error.HTTPError, match="403"):
                urllib.request.urlopen(plain)
            opener = urllib.request.build_opener(urllib.request.HTTPCookieProcessor())
            with opener.open(address) as answer:
                assert answer.url == plain
                assert b"Executions" in answer.read()
        finally:
            process.send_signal(signal.SIGINT)
        assert process.wait(20) == 0
        assert process.stderr.read() == ""


def test_a_port_in_use_is_named(run):  # noqa: F811
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        status, _, error = run("web", "--port", port)
    assert status == 1
    assert f"cannot listen on 127.0.0.1 port {port}: Address already in use" in error


def test_the_guard_is_what_the_page_asks(clock):
    guard = Guard(8642, "secret")
    page = HistoryPage(create_store(clock=clock), access=guard.allows, clock=clock)
    assert page.answer(request()).status == 403
    assert page.answer(request(cookie="jobhistory_token_8642=secret")).status == 200
