"""Receivers of alerts: standard output, commands, webhooks and mail servers."""

from __future__ import annotations

import io
import json
import shutil
import socket
import socketserver
import ssl
import subprocess
import sys
import threading
import time
from base64 import b64encode
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from email import message_from_bytes, policy
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from uuid import UUID

import psutil
import pytest

from jobhistory import (
    Alert,
    AlertNotSent,
    CommandAlert,
    EmailAlert,
    Incident,
    InvalidInput,
    Problem,
    Severity,
    WebhookAlert,
    print_alert,
    read_alert_target,
)

NOW = datetime(2026, 11, 28, 2, 32, tzinfo=UTC)
INCIDENT = Incident(
    id=UUID(int=1),
    expectation="nightly",
    task_identifier="nightly",
    problem=Problem.FAILING,
    summary="the last run failed",
    slots=(),
    executions=(UUID(int=2),),
    opened_at=NOW,
    seen_at=NOW,
    closed_at=None,
)
ALERT = Alert(
    "opened",
    "nightly: the last run failed ☃",
    Severity.CRITICAL,
    INCIDENT,
    link="https://app.example.org/history/execution?id=2&x=1",
    error_type="ValueError",
    error_message="<!channel> & <@U1> @here",
    log_tail="started\n```\nended",
)


def test_an_alert_is_printed(capsys):
    print_alert(ALERT)
    assert capsys.readouterr().out.splitlines() == [
        "nightly: the last run failed ☃",
        "    Problem: failing (critical), since 2026-11-28 02:32 UTC",
        "    Task: nightly",
        "    Error: ValueError: <!channel> & <@U1> @here",
        "    Page: https://app.example.org/history/execution?id=2&x=1",
        "    Last log lines:",
        "        started",
        "        ```",
        "        ended",
    ]


def test_an_alert_is_printed_in_any_encoding(monkeypatch):
    output = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr("sys.stdout", output)
    print_alert(ALERT)
    assert output.buffer.getvalue().startswith(b"nightly: the last run failed \\u2603\n")


# Commands


def python(code):
    return [sys.executable, "-S", "-c", code]


def test_a_command_gets_json_and_variables(tmp_path):
    path = tmp_path / "got"
    code = (
        "import os, sys; print('ignored'); "
        f"open({str(path)!r}, 'w').write(os.environ['JOBHISTORY_ALERT_TITLE'] + chr(10) + "
        "os.environ['JOBHISTORY_ALERT_TASK'] + chr(10) + sys.stdin.read())"
    )
    CommandAlert(python(code))(ALERT)
    title, task, body = path.read_text().split("\n", 2)
    assert (title, task) == (ALERT.title, "nightly")
    assert json.loads(body) == ALERT.to_dict()
    assert json.loads(body)["incident"]["executions"] == [str(UUID(int=2))]


def test_a_command_need_not_read(tmp_path):
    long = Alert("opened", "t", Severity.CRITICAL, error_type="x" * 300_000)
    CommandAlert("true")(long)


def test_a_command_is_no_shell(tmp_path):
    CommandAlert(f"echo a > {tmp_path}/b; touch {tmp_path}/c")(ALERT)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("false --token=secret", "command false exited with 1"),
        ("/nowhere/page-me secret", "command page-me cannot start: No such file or directory"),
    ],
)
def test_a_command_that_fails_is_named_without_its_arguments(command, message):
    with pytest.raises(AlertNotSent) as raised:
        CommandAlert(command)(ALERT)
    assert str(raised.value) == message
    assert "secret" not in repr(CommandAlert(command))


def is_running(pid):
    try:
        return psutil.Process(int(pid)).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_a_command_that_hangs_is_killed_with_its_children(tmp_path):
    code = (
        "import os, time\n"
        "child = os.fork()\n"
        f"child and open({str(tmp_path / 'pids')!r}, 'w').write(f'{{os.getpid()}} {{child}}')\n"
        "time.sleep(600)"
    )
    with pytest.raises(AlertNotSent, match=r"did not end within 1\.0 s"):
        CommandAlert(python(code), time_limit="1s")(ALERT)
    for pid in (tmp_path / "pids").read_text().split():
        while is_running(pid):  # the signal is sent, but takes effect a little later
            time.sleep(0.01)


@pytest.mark.parametrize("command", ["", "  ", "page 'me", [], ["a\0"], 3])
def test_what_is_no_command_is_refused(command):
    with pytest.raises(InvalidInput, match=r"command .* is not a command"):
        CommandAlert(command)


# Webhooks


class Hook:
    def __init__(self, answer):
        self.answer = answer
        self.requests = []


@contextmanager
def served(answer, tls=None):
    """A real server, which answers each request by a function of its handler."""
    hook = Hook(answer)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            body = self.rfile.read(int(self.headers["Content-Length"]))
            hook.requests.append((self.path, dict(self.headers), json.loads(body)))
            hook.answer(self)

        def log_message(self, *args):
            pass

    class Server(ThreadingHTTPServer):
        def handle_error(self, *args):
            pass  # of clients that do not like the certificate

    server = Server(("127.0.0.1", 0), Handler)
    if tls is not None:
        server.socket = tls.wrap_socket(
            server.socket, server_side=True, do_handshake_on_connect=False
        )
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    hook.url = f"http://127.0.0.1:{server.server_port}/T0/B1/path-secret"
    try:
        yield hook
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def answer(status, *headers):
    def send(handler):
        handler.send_response(status)
        for name, value in headers:
            handler.send_header(name, value)
        handler.end_headers()

    return send


def endless(handler):
    handler.send_response(200)
    handler.end_headers()
    try:
        while True:
            handler.wfile.write(b"x" * 65536)
    except OSError:
        pass


def test_a_webhook_gets_json(caplog):
    with served(answer(204)) as hook:
        WebhookAlert(hook.url, headers={"X-Key": "k"})(ALERT)
    ((path, headers, body),) = hook.requests
    assert path == "/T0/B1/path-secret"
    assert (headers["X-Key"], headers["Content-Type"]) == ("k", "application/json")
    assert body == ALERT.to_dict()


def test_the_login_of_a_url_is_sent_as_a_header():
    with served(answer(200)) as hook:
        WebhookAlert(hook.url.replace("//", "//ann:p%40ss@"))(ALERT)
    assert hook.requests[0][1]["Authorization"] == "Basic YW5uOnBAc3M="


def test_slack_gets_a_text_that_calls_nobody():
    with served(answer(200)) as hook:
        WebhookAlert(hook.url, "slack")(ALERT)
    text = hook.requests[0][2]["text"]
    assert hook.requests[0][2].keys() == {"text"}
    assert text.startswith("*nightly: the last run failed ☃*\n")
    assert "&lt;!channel&gt; &amp; &lt;@U1&gt;" in text
    assert "@here" not in text
    assert "execution?id=2&amp;x=1" in text
    assert text.endswith("```started\n'''\nended```")


def test_an_endless_answer_is_not_read():
    with served(endless) as hook:
        WebhookAlert(hook.url)(ALERT)


def not_sent(sender):
    with pytest.raises(AlertNotSent) as raised:
        sender(ALERT)
    assert raised.value.__cause__ is None
    shown = f"{raised.value} {raised.value!r} {sender!r}"
    for secret in ("path-secret", "B1", "pw-secret"):
        assert secret not in shown
    return raised.value.reason


@pytest.mark.parametrize("status", [404, 500])
def test_a_webhook_that_refuses_is_named_by_its_host(status):
    with served(answer(status)) as hook:
        assert not_sent(WebhookAlert(hook.url)) == f"answered {status}"


@pytest.mark.parametrize("status", [301, 303, 307, 308])
def test_redirections_are_not_followed(status):
    with served(answer(200)) as other, served(answer(status, ("Location", other.url))) as hook:
        assert "redirects" in not_sent(WebhookAlert(hook.url, headers={"X-Key": "k"}))
    assert other.requests == []


@contextmanager
def listening(answer=None):
    """A port whose server says nothing, or what `answer` returns, after a connection."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        connections = []

        def accept():
            try:
                while True:
                    connection, _ = server.accept()
                    connections.append(connection)
                    if answer:
                        connection.recv(65536)
                        connection.sendall(answer)
            except OSError:
                pass

        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        try:
            yield server.getsockname()[1]
        finally:
            server.shutdown(socket.SHUT_RDWR)
            thread.join()
        for connection in connections:
            connection.close()


def closed_port():
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


def test_a_webhook_that_is_not_there_hangs_or_talks_nonsense_is_named():
    url = "http://127.0.0.1:{}/path-secret"
    assert "refused" in not_sent(WebhookAlert(url.format(closed_port())))
    with listening() as port:
        sender = WebhookAlert(url.format(port), time_limit="0.2s")
        assert not_sent(sender) == "does not answer: the time limit has passed"
    with listening(b"SSH-2.0-path-secret\r\n\r\n") as port:
        assert not_sent(WebhookAlert(url.format(port))) == "does not answer: BadStatusLine"
    with listening(b"HTTP/1.1 200 OK\r\n") as port:
        url = f"https://127.0.0.1:{port}/path-secret"
        assert "does not answer: " in not_sent(WebhookAlert(url, time_limit="0.5s"))


@pytest.fixture(scope="module")
def own_certificate(tmp_path_factory):
    """A server's TLS with a certificate that nobody vouches for."""
    if shutil.which("openssl") is None:
        pytest.skip("no openssl to make a certificate")
    key, certificate = (tmp_path_factory.mktemp("tls") / name for name in ("key", "certificate"))
    subject = ["-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1"]
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]
        + ["-nodes", "-keyout", key, "-out", certificate, *subject],
        check=True,
        capture_output=True,
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    return context


def test_certificates_are_verified(own_certificate):
    with served(answer(200), own_certificate) as hook:
        reason = not_sent(WebhookAlert(hook.url.replace("http:", "https:")))
    assert reason.startswith("does not answer: its certificate is not valid: self-signed")
    assert hook.requests == []
    with mail_server(tls=own_certificate) as server:
        reason = not_sent(target(server, "ann:pw-secret@"))
    assert reason.startswith("has no valid certificate: self-signed")
    assert not any(line.startswith("AUTH") for line in server.lines)


@pytest.mark.parametrize(
    "url",
    [
        "ftp://h/secret",
        "/secret",
        "https:///secret",
        "https://h:x/secret",
        "https://h/a secret",
        "https://h/secret\r\nX: y",
        "https://[h/secret",
        b"https://h/secret",
    ],
)
def test_what_is_no_address_is_refused_without_showing_it(url):
    with pytest.raises(InvalidInput, match=r"^url .*https://example\.org/hooks/jobs") as raised:
        WebhookAlert(url)
    assert "secret" not in str(raised.value)


def test_headers_and_formats_are_checked():
    with pytest.raises(InvalidInput, match="format 'teams' is not known"):
        WebhookAlert("https://h/", "teams")
    for headers in ({"A": "b\r\nC: d"}, {"A b": "c"}, {"A": 1}):
        with pytest.raises(InvalidInput, match="headers") as raised:
            WebhookAlert("https://h/", headers=headers)
        assert "C: d" not in str(raised.value)


# Mail


class _MailHandler(socketserver.StreamRequestHandler):
    def handle(self):
        server = self.server
        self.say("220 ready")
        while line := self.rfile.readline().strip().decode():
            server.lines.append(line)
            verb = line.split()[0].upper()
            if verb == "EHLO":
                self.say("250-test")
                self.say("250-STARTTLS" if server.tls else "250-8BITMIME")
                self.say("250 AUTH PLAIN")
            elif verb == "STARTTLS":
                self.say("220 go on")
                with suppress(OSError):
                    server.tls.wrap_socket(self.connection, server_side=True).close()
                return
            elif verb == "DATA":
                self.say("354 go on")
                data = b""
                while (part := self.rfile.readline()) != b".\r\n":
                    data += part
                server.mails.append(message_from_bytes(data, policy=policy.default))
                self.say("250 taken")
            elif verb == "QUIT":
                self.say("221 bye")
                return
            else:
                self.say(server.answers.get(verb, "250 ok"))

    def say(self, text):
        self.wfile.write(f"{text}\r\n".encode())


@contextmanager
def mail_server(tls=None, **answers):
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), _MailHandler) as server:
        server.daemon_threads = True
        server.lines, server.mails, server.tls = [], [], tls
        server.answers = {"AUTH": "235 ok"} | answers
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


def target(server, login="", more=""):
    port = server.server_address[1]
    return read_alert_target(f"smtp://{login}127.0.0.1:{port}/?to=ops@example.org{more}")


def test_a_mail_is_sent():
    with mail_server() as server:
        target(server, more=",a+b@example.org&from=jobs@example.org")(ALERT)
    (mail,) = server.mails
    assert mail["Subject"] == ALERT.title
    assert (mail["From"], mail["To"]) == ("jobs@example.org", "ops@example.org, a+b@example.org")
    assert "Task: nightly" in mail.get_content()
    assert "    started\r\n" in mail.get_content()
    assert mail["Auto-Submitted"] == "auto-generated"
    assert not any(line.startswith("AUTH") for line in server.lines)


def test_a_login_is_sent():
    with mail_server() as server:
        target(server, "ann%40example.org:pw-secret@")(ALERT)
    assert server.mails[0]["From"] == "ann@example.org"
    assert any(line.startswith("AUTH PLAIN") for line in server.lines)


def test_no_title_adds_a_header():
    alert = Alert("opened", "a\r\nBcc: x@example.org\n\nbody", Severity.CRITICAL)
    with mail_server() as server:
        target(server)(alert)
    (mail,) = server.mails
    assert mail["Bcc"] is None
    assert mail["Subject"] == "a\\r Bcc: x@example.org body"
    lines = [line.lower() for line in server.lines]  # Python 3.13 writes "to:"
    assert [line for line in lines if line.startswith("rcpt")] == ["rcpt to:<ops@example.org>"]


def test_a_mail_server_that_refuses_is_named():
    echo = b64encode(b"\0ann\0pw-secret").decode()
    with mail_server(AUTH=f"535 no pw-secret: {echo}") as server:
        reason = not_sent(target(server, "ann:pw-secret@"))
        assert reason == "answered 535 (wrong user or password)"
    with mail_server(AUTH=f"599 no {echo}") as server:
        assert not_sent(target(server, "ann:pw-secret@")) == "answered 599"
    with mail_server(RCPT="550 unknown") as server:
        assert not_sent(target(server)) == "refused all addresses with 550"
    with listening() as port:
        sender = EmailAlert("127.0.0.1", port=port, to="a@example.org", time_limit="0.2s")
        assert not_sent(sender) == "does not answer: the time limit has passed"
    sender = EmailAlert("127.0.0.1", port=closed_port(), to="a@example.org")
    assert not_sent(sender) == "does not answer: Connection refused"


def test_no_password_goes_to_a_server_that_does_not_encrypt(monkeypatch):
    monkeypatch.setattr("jobhistory.alerts.mail._LOCAL", ())
    with mail_server() as server:
        reason = not_sent(target(server, "ann:pw-secret@"))
    assert "does not encrypt" in reason
    assert not any(line.startswith("AUTH") for line in server.lines)


@pytest.mark.parametrize(
    ("named", "message"),
    [
        ({"to": "ops"}, "to 'ops' is not an address"),
        ({"to": "a@example.org\nBcc: b@example.org"}, "is not an address"),
        ({"to": []}, "to .* has no address"),
        ({"to": "a@example.org", "from_": "jobs"}, "from_ 'jobs' is not an address"),
        ({"to": "a@example.org", "port": 70_000}, "port 70000"),
        ({"to": "a@example.org", "user": "ann"}, "user 'ann' and a password"),
        ({"to": "a@example.org", "host": ""}, "host ''"),
    ],
)
def test_wrong_arguments_of_mail_are_named(named, message):
    with pytest.raises(InvalidInput, match=message):
        EmailAlert(**{"host": "mail"} | named)


# Targets


@pytest.mark.parametrize(
    ("text", "kind", "receiver"),
    [
        ("command:/usr/local/bin/page-me --now", CommandAlert, "command page-me"),
        ("https://hooks.slack.com/services/T/B/x", WebhookAlert, "webhook at hooks.slack.com"),
        ("slack+https://u:p@chat.example.org:8/x", WebhookAlert, "webhook at chat.example.org:8"),
        ("smtps://mail.example.org?to=a@example.org", EmailAlert, "mail server mail.example.org"),
    ],
)
def test_targets_are_read(text, kind, receiver):
    sender = read_alert_target(text)
    assert isinstance(sender, kind)
    assert sender.receiver == receiver


def test_stdout_is_a_target(capsys):
    assert read_alert_target("stdout") is print_alert


def test_known_hosts_get_the_format_of_slack():
    with served(answer(200)) as hook:
        read_alert_target(hook.url)(ALERT)
        read_alert_target(f"slack+{hook.url}")(ALERT)
    assert [body.keys() == {"text"} for _, _, body in hook.requests] == [False, True]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("slack", "--alert 'slack' is not known; use one of stdout, command:"),
        ("", "--alert '' is not known"),
        ("command:", "--alert 'command:...' is not a command"),
        ("telegram://h/secret", "--alert 'telegram://h/...' is not known"),
        ("https://u:secret@h:x/secret", "--alert 'https://h:x/...' cannot be used: url is not"),
        ("smtp://u:secret@mail/", "--alert 'smtp://mail/...' cannot be used: to has no address"),
        ("smtp://u:secret@mail:x/?to=a@b.c", "cannot be used: port is not a number"),
        ("smtp://mail/?to=a@b.c&cc=secret@b.c", "cannot be used: key (cc) is not known"),
    ],
)
def test_what_is_no_target_is_refused_without_secrets(text, message):
    with pytest.raises(InvalidInput) as raised:
        read_alert_target(text, argument="--alert")
    assert message in str(raised.value)
    assert "secret" not in str(raised.value)
