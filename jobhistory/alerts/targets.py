"""Read receivers of alerts from text: of the command line, or of a variable."""

from __future__ import annotations

import re
from urllib.parse import SplitResult, parse_qs, unquote, urlsplit

from jobhistory.alerts.alert import Sender
from jobhistory.alerts.mail import EmailAlert
from jobhistory.alerts.programs import CommandAlert, print_alert
from jobhistory.alerts.webhook import Format, WebhookAlert, read_web_address
from jobhistory.errors import InvalidInput

_EXAMPLES = (
    "use one of stdout, command:/usr/local/bin/page-me, https://example.org/hooks/jobs, "
    "slack+https://chat.example.org/hooks/abc, smtp://mail.example.org/?to=ops@example.org"
)
_SLACK_HOSTS = ("hooks.slack.com", "hooks.slack-gov.com")
_DISCORD_HOSTS = ("discord.com", "discordapp.com")
_SCHEME = re.compile(r"[a-z+]+(?=://)", re.IGNORECASE)
_MAIL_KEYS = ("to", "from")


def read_alert_target(text: str, *, argument: str = "alert") -> Sender:
    """Return the sender for a receiver that is described by a text.

    - `stdout` prints alerts.
    - `command:/usr/local/bin/page-me --now` runs a command, see `CommandAlert`.
    - `https://hooks.slack.com/...` posts to Slack; `slack+https://...` to what accepts the same.
    - `https://...` posts JSON, see `WebhookAlert`. `http://` works as well, unencrypted.
    - `smtp://user:password@host:587/?to=ops@example.org&from=jobs@example.org` sends mail, see
      `EmailAlert`; `smtps://` encrypts from the beginning. Several addresses have commas between
      them. Special characters of the user and the password are quoted for URLs, such as `%40`.

    Args:
        argument: what an error calls the text, such as `"--alert"`.

    Raises:
        InvalidInput: if the text describes no receiver. The message shows no secret.
    """
    if not isinstance(text, str):
        raise InvalidInput(argument, text, f"is not a text; {_EXAMPLES}")
    text = text.strip()
    found = _SCHEME.match(text)
    scheme = "" if found is None else found[0].lower()
    try:
        if text == "stdout":
            return print_alert
        if text.startswith("command:"):
            return CommandAlert(text.removeprefix("command:"))
        if scheme in ("http", "https", "slack+http", "slack+https", "json+http", "json+https"):
            return _webhook(text, scheme)
        if scheme in ("smtp", "smtps"):
            return _mail(urlsplit(text))
    except InvalidInput as error:
        remedy = f"cannot be used: {error.argument} {error.remedy}"
        if text.startswith("command:"):  # which shows a list of words, for code
            remedy = "is not a command; write it like 'command:/usr/local/bin/page-me --now'"
        raise InvalidInput(argument, _without_secrets(text, scheme), remedy) from None
    raise InvalidInput(argument, _without_secrets(text, scheme), f"is not known; {_EXAMPLES}")


def _without_secrets(text: str, scheme: str) -> str:
    """Return the beginning of a target, up to what may be a secret."""
    if scheme:
        host = re.split(r"[/?#]", text[len(scheme) + 3 :], maxsplit=1)[0].rpartition("@")[2]
        return f"{scheme}://{host}/..."
    kind, colon, _ = text.partition(":")
    return f"{kind}:..." if colon else text


def _webhook(text: str, scheme: str) -> WebhookAlert:
    format_, plus, _ = scheme.rpartition("+")
    url = text[len(format_) + 1 :] if plus else text
    parts = read_web_address(url, "url")
    return WebhookAlert(url, _format(parts) if not plus else _FORMATS[format_])


_FORMATS: dict[str, Format] = {"slack": "slack", "json": "json"}


def _format(parts: SplitResult) -> Format:
    is_discord = parts.hostname in _DISCORD_HOSTS and parts.path.endswith("/slack")
    return "slack" if parts.hostname in _SLACK_HOSTS or is_discord else "json"


def _mail(parts: SplitResult) -> EmailAlert:
    given = parse_qs(parts.query.replace("+", "%2B"))  # a plus sign is part of an address
    for key in given:
        if key not in _MAIL_KEYS:
            raise InvalidInput("key", key, f"({key}) is not known; use to and from")
    try:
        port = parts.port
    except ValueError:
        raise InvalidInput("port", "", "is not a number; write it like :587") from None
    return EmailAlert(
        parts.hostname or "",
        port=port,
        to=[each.strip() for value in given.get("to", []) for each in value.split(",")],
        from_=given["from"][0] if "from" in given else None,
        user=None if parts.username is None else unquote(parts.username),
        password=None if parts.password is None else unquote(parts.password),
        use_tls=parts.scheme == "smtps",
    )
