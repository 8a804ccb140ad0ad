"""Alerts to webhooks: Slack's, those that accept the same, and any that accept JSON."""

from __future__ import annotations

import base64
import http.client
import json
import re
import ssl
from collections.abc import Mapping
from typing import IO, Any, Literal
from urllib.error import HTTPError, URLError
from urllib.parse import SplitResult, unquote, urlsplit, urlunsplit
from urllib.request import HTTPRedirectHandler, HTTPSHandler, Request, build_opener

from jobhistory._runtime.durations import parse_duration
from jobhistory.alerts.alert import Alert
from jobhistory.errors import AlertNotSent, InvalidInput
from jobhistory.sanitize.secrets import REDACTED
from jobhistory.typing import Duration

Format = Literal["slack", "json"]

_FORMATS = ("slack", "json")
_EXAMPLE = "write it like 'https://example.org/hooks/jobs'"
_HEADER_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
# Mattermost and others call everybody for these words, without Slack's brackets.
_EVERYBODY = re.compile(r"@(?=(?:all|channel|everyone|here)\b)", re.IGNORECASE)
_SLACK_LOG_LENGTH = 3000


class WebhookAlert:
    """Posts each alert to a URL.

    The alert is accepted if the server answers with a status from 200 to 299. Redirections are
    not followed, because they would send the alert and its headers elsewhere. Certificates are
    verified. The URL is a secret: messages show its host only.

    Args:
        url: the URL. A user and a password in it are sent as basic authentication.
        format: `"json"` for the fields of `Alert.to_dict`, or `"slack"` for a text as Slack,
            Mattermost, Rocket.Chat and others expect it.
        headers: more headers, such as `{"Authorization": "Bearer ..."}`.
        time_limit: the longest time to wait for the connection, and for each answer of the server.

    Raises:
        InvalidInput: if an argument cannot be used.
    """

    def __init__(
        self,
        url: str,
        format: Format = "json",  # noqa: A002
        *,
        headers: Mapping[str, str] | None = None,
        time_limit: Duration = "10s",
    ) -> None:
        parts = read_web_address(url, "url")
        if format not in _FORMATS:
            raise InvalidInput("format", format, "is not known; use 'slack' or 'json'")
        self._format = format
        self._seconds = parse_duration(time_limit, "time_limit").total_seconds()
        host = parts.netloc.rpartition("@")[2]
        self.receiver = f"webhook at {host}"
        self._url = urlunsplit(parts._replace(netloc=host, fragment=""))
        self._headers = {"Content-Type": "application/json", "User-Agent": "jobhistory"}
        if parts.username is not None:
            login = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
            encoded = base64.b64encode(login.encode()).decode()
            self._headers["Authorization"] = f"Basic {encoded}"
        self._headers |= _read_headers(headers or {})

    def __repr__(self) -> str:
        return f"<WebhookAlert {self.receiver}>"

    def __call__(self, alert: Alert) -> None:
        """Post the alert.

        Raises:
            AlertNotSent: if the server does not accept it.
        """
        body = slack_payload(alert) if self._format == "slack" else alert.to_dict()
        # The caller has checked the scheme.
        request = Request(self._url, json.dumps(body).encode(), self._headers)  # noqa: S310
        opener = build_opener(_NoRedirection, HTTPSHandler(context=ssl.create_default_context()))
        try:
            # The body of the answer may be endless, so it is not read.
            opener.open(request, timeout=self._seconds).close()
        except HTTPError as error:
            error.close()
            raise AlertNotSent(self.receiver, _refusal(error.code)) from None
        except (OSError, http.client.HTTPException, ValueError) as error:
            # The messages of some of these quote the URL.
            raise AlertNotSent(self.receiver, f"does not answer: {_cause(error)}") from None


class _NoRedirection(HTTPRedirectHandler):
    def redirect_request(
        self, req: Request, fp: IO[bytes], code: int, msg: str, headers: Any, newurl: str
    ) -> None:
        return None


def _refusal(status: int) -> str:
    if 300 <= status < 400:
        return f"answered {status}; it redirects, so use the URL that it redirects to"
    return f"answered {status}"


def _cause(error: BaseException) -> str:
    cause = error.reason if isinstance(error, URLError) else error
    if isinstance(cause, ssl.SSLCertVerificationError):
        return f"its certificate is not valid: {cause.verify_message}"
    if isinstance(cause, TimeoutError):
        return "the time limit has passed"
    if isinstance(cause, OSError) and cause.strerror:
        return cause.strerror
    return type(cause).__name__


def read_web_address(url: object, argument: str) -> SplitResult:
    """Return the parts of an address of the web.

    Raises:
        InvalidInput: if it is not one. The message shows no more than the host.
    """
    if not isinstance(url, str):
        raise InvalidInput(argument, type(url), f"is not a text; {_EXAMPLE}")
    parts = SplitResult("", "", "", "", "")
    try:
        parts = urlsplit(url)
        is_usable = parts.scheme in ("http", "https") and bool(parts.hostname)
        is_usable = is_usable and (parts.port is None or parts.port > 0)
    except ValueError:  # of the port, too
        is_usable = False
    if not is_usable or not url.isascii() or not url.isprintable() or " " in url:
        raise InvalidInput(argument, REDACTED, f"is not an address of the web; {_EXAMPLE}")
    return parts


def _read_headers(headers: Mapping[str, str]) -> dict[str, str]:
    for name, value in headers.items():
        is_name = isinstance(name, str) and _HEADER_NAME.fullmatch(name)
        is_value = isinstance(value, str) and value.isascii() and value.isprintable()
        if not is_name or not is_value:
            raise InvalidInput(
                "headers",
                name,
                "is not the name of a header with a printable value in ASCII; write it like "
                "{'Authorization': 'Bearer ...'}",
            )
    return {name.title(): value for name, value in headers.items()}


def slack_payload(alert: Alert) -> dict[str, str]:
    """Return an alert as a message of Slack."""
    log = escaped_for_slack(alert.log_tail or "")[-_SLACK_LOG_LENGTH:].replace("```", "'''")
    parts = [
        f"*{escaped_for_slack(alert.title)}*",
        escaped_for_slack(alert.text),
        f"```{log}```" if log else "",
    ]
    return {"text": "\n".join(part for part in parts if part)}


def escaped_for_slack(text: str) -> str:
    """Return text in which Slack and those like it see no link, and call nobody."""
    text = _EVERYBODY.sub("@\N{ZERO WIDTH SPACE}", text)
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
