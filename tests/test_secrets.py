"""The names and the parts of texts that count as secrets."""

from __future__ import annotations

import importlib.util
import traceback

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, Field, ValidationError

from jobhistory.sanitize.secret_names import looks_secret
from jobhistory.sanitize.secrets import redact_arguments, redact_text


@pytest.mark.parametrize(
    "name",
    ["password", "db_password", "PGPASSWORD", "passwd", "Passphrase", "passcode", "pwd", "token",
     "authToken", "access_token", "access_tokens", "X-Auth-Token", "csrftoken", "csrf", "_xsrf",
     "XSRF-TOKEN", "authorization", "Proxy-Authorization", "auth", "basic_auth", "api_key",
     "apiKey", "APIKey", "APIKEY", "x-api-key", "client_secret", "SECRET_KEY", "private_key",
     "privatekey", "AccountKey", "aws_access_key_id", "credentials", "Cookie", "set-cookie", "jwt",
     "bearer", "session", "sessionid", "session_id", "PHPSESSID", "connect.sid", "otp", "totp",
     "pin", "user_pin", "cvv", "cvc", "card_number", "cardNumber", "credit_card", "ssn", "dsn",
     "SENTRY_DSN", "signature", "X-Amz-Signature", "mysql_pwd", "security_code", "symfony",
     "pass_word", "pswd"],
)  # fmt: skip
def test_names_of_secrets(name):
    assert looks_secret(name)


@pytest.mark.parametrize(
    "name",
    ["max_tokens", "tokens", "token_count", "token_type", "token_expires_at", "pass_count",
     "pass_rate", "pass_through", "author", "authored_by", "auth_method", "secretary",
     "secret_name", "pinned", "pinterest", "spinner", "session_count", "cookie_policy",
     "has_password", "password_length", "key", "monkey", "primary_key", "public_key", "compass",
     "bypass", "passenger", "keyboard", "user_id", "assigned", "design", "n", ""],
)  # fmt: skip
def test_harmless_names(name):
    assert not looks_secret(name)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        # URLs and connection strings
        ("postgresql://app:hunter2@h:5432/db?a=b", "postgresql://app:[redacted]@h:5432/db?a=b"),
        ("postgresql://app:p@ss/word@db", "postgresql://app:[redacted]@db"),
        ("amqp://app:p/w@host//", "amqp://app:[redacted]@host//"),
        ("redis://:hunter2@h, redis://:pw@i", "redis://:[redacted]@h, redis://:[redacted]@i"),
        ("clone https://hunter2@github.com/x.git", "clone https://[redacted]@github.com/x.git"),
        ("https://u:hunter2@api/x?token=abc&n=3", "https://[redacted]@api/x?token=[redacted]&n=3"),
        ("https://p/?to=https://u:hunter2@h/", "https://p/?to=https://[redacted]@h/"),
        ("host=db password=hunter2 user=app", "host=db password=[redacted] user=app"),
        ("Server=x;Password=hunter2;Timeout=3", "Server=x;Password=[redacted];Timeout=3"),
        # names and values
        ("password=hunter2", "password=[redacted]"),
        ("password: hunter2 is wrong", "password: [redacted] is wrong"),
        ("the password: swordfish", "the password: [redacted]"),
        ("api_key = abc, tried again", "api_key = [redacted], tried again"),
        ("a=1,token=abc,b=2", "a=1,token=[redacted],b=2"),
        ("user[password]=hunter2&x=1", "user[password]=[redacted]&x=1"),
        ("M(user='u', password='hunter2', n=3)", "M(user='u', password='[redacted]', n=3)"),
        ("{'password': b'hun\\'ter2', 'n': 1}", "{'password': b'[redacted]', 'n': 1}"),
        ('body {"password": "hun\\"ter2", "n": 1}', 'body {"password": "[redacted]", "n": 1}'),
        (r'"{\"password\": \"hunter2\", \"n\": 1}"', r'"{\"password\": \"[redacted]\", \"n\": 1}"'),
        ('{"credentials": {"user": "x", "k": []}} 3', '{"credentials": [redacted]} 3'),
        ("ALTER ROLE app PASSWORD 'hunter2'", "ALTER ROLE app PASSWORD '[redacted]'"),
        ("password='never closed\nnext", "password='[redacted]\nnext"),
        ("pin: 1234", "pin: [redacted]"),
        ("key: -----BEGIN RSA PRIVATE KEY-----", "key: -----BEGIN RSA PRIVATE KEY-----"),
        (
            "private_key=-----BEGIN RSA PRIVATE KEY-----\nMIIE\n-----END RSA PRIVATE KEY-----\n.",
            "private_key=[redacted]\n.",
        ),
        (
            "PRIVATE_KEY='-----BEGIN PRIVATE KEY-----\nMIIE\n-----END PRIVATE KEY-----' x",
            "PRIVATE_KEY='[redacted]' x",
        ),
        ("{'pem': '-----BEGIN EC PRIVATE KEY-----\\nMIIE\\n", "{'pem': '[redacted]"),
        (
            "-----BEGIN PUBLIC KEY-----\nMFkw\n-----END PUBLIC KEY-----",
            "-----BEGIN PUBLIC KEY-----\nMFkw\n-----END PUBLIC KEY-----",
        ),
        (
            'got {\n  "password": {\n    "is": "hunter2"\n  },\n}',
            'got {\n  "password": [redacted],\n}',
        ),
        # pairs, and forms within forms
        ("KeyError: ('password', 'hunter2')", "KeyError: ('password', '[redacted]')"),
        (
            "[(b'authorization', b'Basic hunter2'), (b'host', b'x')]",
            "[(b'authorization', b'[redacted]'), (b'host', b'x')]",
        ),
        ('got [["X-Api-Key","hunter2"]]', 'got [["X-Api-Key","[redacted]"]]'),
        ("to=%2Fcb%3Ftoken%3Dhunter2&n=3", "to=%2Fcb%3Ftoken%3D[redacted]&n=3"),
        ("user%5Bpassword%5D=hunter2&n=3", "user%5Bpassword%5D=[redacted]&n=3"),
        ("%7B%22api_key%22%3A+%22hunter2%22%7D", "%7B%22api_key%22%3A[redacted]"),
        ("password[]=hunter2", "password[]=[redacted]"),
        # headers
        ("Authorization: Bearer hunter two\nHost: x", "Authorization: [redacted]\nHost: x"),
        ("Cookie: sid=abc; theme=dark\nHost: x", "Cookie: [redacted]\nHost: x"),
        ("sent Bearer abc.def-3 to x", "sent Bearer [redacted] to x"),
        # command lines
        ('curl -d \'{"password": "hunter2"}\' x', 'curl -d \'{"password": "[redacted]"}\' x'),
        ("curl -H 'Authorization: Bearer x' -v", "curl -H 'Authorization: [redacted]' -v"),
        ("curl -u admin:hunter2 https://x", "curl -u admin:[redacted] https://x"),
        ("curl -uadmin:hunter2 https://x", "curl -uadmin:[redacted] https://x"),
        ("curl --user=admin:hunter2 x", "curl --user=admin:[redacted] x"),
        ("cd /srv && mysql -u root -phunter2 db", "cd /srv && mysql -u root -p[redacted] db"),
        ("mysqldump -p'hun ter2' db", "mysqldump -p'[redacted]' db"),
        ("redis-cli -a hunter2 ping", "redis-cli -a [redacted] ping"),
        ("docker login -u me -p hunter2 reg", "docker login -u me -p [redacted] reg"),
        ("sqlcmd -U sa -Phunter2", "sqlcmd -U sa -P[redacted]"),
        ("openssl enc -k hunter2 -in x", "openssl enc -k [redacted] -in x"),
        ("login --password hunter2 x", "login --password [redacted] x"),
        ('login --password "hun ter2" x', 'login --password "[redacted]" x'),
        ("login --token=hunter2 x", "login --token=[redacted] x"),
        ("PGPASSWORD=hunter2 pg_dump", "PGPASSWORD=[redacted] pg_dump"),
        (
            "Command '['curl', '-u', 'admin:hunter2', '--token', 'x']' returned 6.",
            "Command '['curl', '-u', 'admin:[redacted]', '--token', '[redacted]']' returned 6.",
        ),
    ],
)
def test_secrets_in_text(text, shown):
    assert redact_text(text) == shown
    assert redact_text(shown) == shown


@pytest.mark.parametrize(
    "text",
    [
        "Unexpected token: expected ';'",
        "SyntaxError: invalid token '}' at line 3",
        "Invalid password: must have 8 characters",
        "could not open session: timeout",
        "no such cookie: theme",
        "secret: permission denied for user ann",
        "KeyError: 'password'",
        "TokenError: unexpected token",
        "jose.exceptions.JWTError: Signature verification failed",
        "app.errors.InvalidToken: expired",
        "password=None, token=null, auth: false",
        "Access denied for user 'x'@'h' (using password: YES)",
        'FATAL:  password authentication failed for user "app"',
        "INSERT INTO users (name, password) VALUES (?, ?)",
        "UPDATE users SET token=%(token)s::VARCHAR, pin=%s, otp = $1 WHERE session_id = :id_1",
        "tests/test_token.py::test_expiry PASSED",
        "('name', 'password', 'email')",
        "token_count=5, max_tokens: 3, secretary=ann, author: ann",
        "use --password to log in, or --token.",
        "bearer token expected, Bearer authentication",
        "postgresql://app@host:5432/db",
        "postgresql://app:***@host/db",
        "https://medium.com/@ann/post?a=b",
        "https://host:8080/@ann",
        "ssh://git@github.com/x.git",
        "docker run -u 1000:1000 -p 80:80 x",
        "cp -p a b; mysql -p db",
        "date -u +%H:%M",
        "2026-11-24T10:00:00Z worker-1: done in 3 s: ok",
    ],
)
def test_ordinary_text_stays(text):
    assert redact_text(text) == text


CODE = """
def get_password():
    return "never shown"

class Token: ...

def call(session, password, token, **rest):
    token: Token = token; auth = rest.get("auth"); cookies = {**rest}; raise ValueError("broken")

def work(session):
    credentials = {"user": "ann"}
    password = get_password(); call(session=session, password=password, token=Token(), pin=None)

def literal(call=call):
    call(None, password="hunter2", token=b'hunter2', pin=1234, url="https://u:hunter2@h/")
"""


def a_traceback_of(tmp_path, name, *arguments):
    path = tmp_path / "module_of_a_user.py"
    path.write_text(CODE)
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    try:
        getattr(module, name)(*arguments)
    except ValueError as error:
        return "".join(traceback.format_exception(error))


def test_the_source_lines_of_a_traceback_stay(tmp_path):
    stack = a_traceback_of(tmp_path, "work", None)

    assert "password = get_password(); call(session=session, password=password" in stack
    assert redact_text(stack) == stack
    indented = "  | " + stack.replace("\n", "\n  | ")
    assert redact_text(indented) == indented, "as in an exception group"


def test_literals_in_the_source_lines_of_a_traceback_are_redacted(tmp_path):
    stack = redact_text(a_traceback_of(tmp_path, "literal"))

    assert (
        "call(None, password=\"[redacted]\", token=b'[redacted]', pin=[redacted], "
        'url="https://[redacted]@h/")' in stack
    )


def test_what_follows_the_source_lines_is_text_again(tmp_path):
    stack = a_traceback_of(tmp_path, "work", None)
    assert redact_text(stack + "password=hunter2") == stack + "password=[redacted]"


def test_the_inputs_that_pydantic_quotes_are_redacted_by_the_names_of_their_fields():
    class Login(BaseModel):
        user: int
        password: str = Field(max_length=3)

    with pytest.raises(ValidationError) as caught:
        Login(user="ann", password="hunter2")
    shown = redact_text(str(caught.value))

    assert "input_value='ann', input_type=str]" in shown
    assert "input_value=[redacted], input_type=str]" in shown
    assert "hunter2" not in shown
    assert redact_text(shown) == shown


@pytest.mark.parametrize(
    ("arguments", "shown"),
    [
        ("curl --token abc x", "curl --token [redacted] x"),
        ("curl -u admin:hunter2 x", "curl -u admin:[redacted] x"),
        ("curl -uadmin:hunter2 x", "curl -uadmin:[redacted] x"),
        ("/usr/bin/mysql -phunter2 db", "/usr/bin/mysql -p[redacted] db"),
        ("mysql -p db", "mysql -p db"),
        ("sshpass -p hunter2 ssh h", "sshpass -p [redacted] ssh h"),
        ("docker run -p 80:80 -u 1:1 x", "docker run -p 80:80 -u 1:1 x"),
        ("ldapsearch -w hunter2 -x", "ldapsearch -w [redacted] -x"),
        ("openssl -passphrase -dashed x", "openssl -passphrase [redacted] x"),
        ("backup --to s3://bucket -v", "backup --to s3://bucket -v"),
    ],
)
def test_secrets_among_arguments(arguments, shown):
    assert redact_arguments(arguments.split()) == shown.split()


@pytest.mark.parametrize(
    "piece",
    ["a", "-", " ", ":", "=", "password", "password:", "password=", "password='", 'password="',
     'token=\\"', "token={", "token=[\"", "token=(\n", "password={token=\\\"", "('token', '",
     "-----BEGIN PRIVATE KEY-----\n", "token%3D",
     "secret=a&", "secret=,a-", "a://", "a://u:", "://@", "@",
     "--token ", "-u ", "-u a:", "mysql -p", "'-u', '", "\"", "'", "\\", "bearer ", "cookie: a;",
     "private_key=-----BEGIN", '  File "x", line 1\n', '  File "x", line 1\n    password="\n', "\n",
     "token: a ", "password\t", "password \"", "auth: basic ", "token=aws4", "x.Y: ",
     "p\n  [type=a, input_value=", "[type=a, input_value=a"],
)  # fmt: skip
def test_the_longest_texts_take_no_longer_in_proportion(piece):
    """A search in quadratic time would exceed the time limit of the tests."""
    text = piece * (400_000 // len(piece))
    assert len(redact_text(text)) < 6 * len(text)


PIECES = [
    *("password", "token", "hunter2", "=", ":", ": ", "'", '"', "\\", '\\"', "{", "}", "[", "]"),
    *(" ", "\n", "-", "--", "-u ", "://", "@", "/", "&", ",", "Bearer ", "é"),
    'File "x", line 1\n    ',
]


@given(st.lists(st.sampled_from(PIECES), max_size=30))
def test_any_text_can_be_redacted_and_then_is_as_it_is(pieces):
    once = redact_text("".join(pieces))
    assert redact_text(once) == once
