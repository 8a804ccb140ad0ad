"""Alerts by mail, through an SMTP server."""

from __future__ import annotations

import smtplib
import socket
import ssl
from collections.abc import Sequence
from email.headerregistry import Address
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import formatdate, make_msgid

from jobhistory._runtime.durations import parse_duration
from jobhistory._runtime.shown_text import one_line
from jobhistory.alerts.alert import Alert
from jobhistory.errors import AlertNotSent, InvalidInput, check_count
from jobhistory.typing import Duration

_LOCAL = ("localhost", "127.0.0.1", "::1")
_MEANINGS = {
    421: "not available",
    432: "a password change is needed",
    450: "mailbox busy",
    451: "local error",
    452: "not enough storage",
    454: "temporary failure of the login",
    500: "unknown command",
    501: "wrong arguments",
    502: "command not implemented",
    503: "commands in a wrong order",
    504: "login method not implemented",
    521: "no mail accepted",
    530: "login required",
    534: "login method too weak",
    535: "wrong user or password",
    538: "encryption required for the login",
    550: "refused",
    552: "mail too large",
    553: "address not allowed",
    554: "transaction failed",
}
"""What the codes of answers mean, by RFC 5321 and RFC 4954."""


class EmailAlert:
    """Sends each alert by mail.

    It encrypts the connection: from its beginning with `use_tls`, otherwise by STARTTLS if the
    server offers it. Certificates are verified. A password is sent only if the connection is
    encrypted, or ends on this machine.

    Args:
        host: the SMTP server.
        to: the addresses of the receivers: one, or several.
        port: the port; by default 465 with `use_tls`, 587 with a user, otherwise 25.
        from_: the address of the sender; by default the user if it is an address, otherwise
            `jobhistory@` and the name of this machine.
        user, password: the login, if the server needs one.
        use_tls: whether the server expects TLS from the beginning (SMTPS).
        time_limit: the longest time to wait for the connection, and for each answer of the server.

    Raises:
        InvalidInput: if an argument cannot be used.
    """

    def __init__(
        self,
        host: str,
        *,
        to: str | Sequence[str],
        port: int | None = None,
        from_: str | None = None,
        user: str | None = None,
        password: str | None = None,
        use_tls: bool = False,
        time_limit: Duration = "10s",
    ) -> None:
        if not isinstance(host, str) or not host.isprintable() or not host.strip():
            raise InvalidInput("host", host, "is not the name of a server; write it like 'mail'")
        if port is not None:
            check_count(port, "port", most=65_535, example=587)
        if (user is None) != (password is None):
            raise InvalidInput("user", user, "and a password are needed together; pass both")
        self._host = host
        self._port = port or (465 if use_tls else 587 if user else 25)
        addresses = [to] if isinstance(to, str) else [*to]
        if not addresses:
            raise InvalidInput("to", to, "has no address; write it like 'ops@example.org'")
        self._to = [_address(each, "to") for each in addresses]
        default = user if user is not None and "@" in user else f"jobhistory@{_this_machine()}"
        self._from = _address(default if from_ is None else from_, "from_")
        self._user = user
        self._password = password
        self._use_tls = use_tls
        self._seconds = parse_duration(time_limit, "time_limit").total_seconds()
        self.receiver = f"mail server {host}"

    def __repr__(self) -> str:
        return f"<EmailAlert {self.receiver}>"

    def __call__(self, alert: Alert) -> None:
        """Send the mail.

        Raises:
            AlertNotSent: if the server does not accept it for anybody.
        """
        try:
            with self._connected() as server:
                if self._user is not None and self._password is not None:
                    server.login(self._user, self._password)
                server.send_message(self._message(alert))
        except AlertNotSent:
            raise
        except (OSError, smtplib.SMTPException, ValueError) as error:
            raise AlertNotSent(self.receiver, self._reason(error)) from None

    def _connected(self) -> smtplib.SMTP:
        context = ssl.create_default_context()
        if self._use_tls:
            return smtplib.SMTP_SSL(self._host, self._port, timeout=self._seconds, context=context)
        server = smtplib.SMTP(self._host, self._port, timeout=self._seconds)
        try:
            server.ehlo()
            if server.has_extn("starttls"):
                server.starttls(context=context)
            elif self._user is not None and self._host not in _LOCAL:
                raise AlertNotSent(
                    self.receiver, "does not encrypt, so it does not get the password"
                )
        except BaseException:
            server.close()
            raise
        return server

    def _message(self, alert: Alert) -> EmailMessage:
        message = EmailMessage(policy=SMTP)
        message["Subject"] = one_line(alert.title)
        message["From"] = self._from
        message["To"] = self._to
        message["Date"] = formatdate()
        message["Message-ID"] = make_msgid(domain=self._from.domain)
        message["Auto-Submitted"] = "auto-generated"  # so that no absence notice answers
        parts = [alert.title, alert.text, alert.log_lines]
        message.set_content("\n\n".join(part for part in parts if part))
        return message

    def _reason(self, error: Exception) -> str:
        # smtplib reports a time-out while it waits for an answer as a lost connection.
        if isinstance(error, TimeoutError) or isinstance(error.__context__, TimeoutError):
            return "does not answer: the time limit has passed"
        if isinstance(error, ssl.SSLCertVerificationError):
            return f"has no valid certificate: {error.verify_message}"
        if isinstance(error, smtplib.SMTPRecipientsRefused):
            codes = sorted({str(code) for code, _ in error.recipients.values()})
            return f"refused all addresses with {', '.join(codes)}"
        if isinstance(error, smtplib.SMTPResponseException):
            # Without its text, in which a server may repeat what was sent, such as a password.
            meaning = _MEANINGS.get(error.smtp_code)
            return f"answered {error.smtp_code}" + (f" ({meaning})" if meaning else "")
        if isinstance(error, OSError) and error.strerror:
            return f"does not answer: {one_line(error.strerror)}"
        return f"does not answer: {type(error).__name__}"


def _this_machine() -> str:
    name = socket.gethostname()
    return name if name.isascii() and name else "localhost"


def _address(text: object, argument: str) -> Address:
    try:
        if not isinstance(text, str) or not text.isprintable():
            raise ValueError
        return Address(addr_spec=text)
    except Exception:  # the parser raises several types of errors
        raise InvalidInput(
            argument, text, "is not an address; write it like 'ops@example.org'"
        ) from None
