"""Redact secrets in text and in the arguments of commands.

Names decide, not values: a secret is a value that follows the name of a secret, or that is in the
place of a URL or a command where passwords are. Each search takes time linear in the length of the
text.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

from jobhistory._runtime.url_passwords import REDACTED as REDACTED
from jobhistory._runtime.url_passwords import redact_urls
from jobhistory.sanitize.secret_names import looks_secret


def redact_secrets(name: str, value: Any) -> Any:
    """Return `"[redacted]"` if the name is that of a secret, otherwise the value.

    This is the default for the argument `redact` of a store.
    """
    return REDACTED if looks_secret(name) else value


def redact_text(text: str) -> str:
    """Return the text with `"[redacted]"` in place of its secrets.

    Secrets are passwords in URLs; values after the names of secrets, as in `password=...`,
    `"api_key": "..."`, `Authorization: ...`, `("password", "...")` and `--token ...`; passwords of
    well-known commands, as in `curl -u user:...`; and private keys. In the source lines of Python's
    tracebacks, only literals count: `password = get_password()` shows no secret.
    """
    if "@" in text and "://" in text:
        text = redact_urls(text)
    if "-" in text and (" -" in text or "'-" in text or text[0] == "-"):
        text = _OPTION.sub(_redacted_option, text)
        text = _ATTACHED_OPTION.sub(_redacted_option, text)
    if "PRIVATE KEY" in text:
        text = _PRIVATE_KEY.sub(REDACTED, text)
    if "'," in text or '",' in text:
        text = _PAIR.sub(_redacted_pair, text)
    if "=" in text or ":" in text or "%3" in text:
        text = _redact_values(text)
    if "assw" in text or "ASSW" in text:
        text = _QUOTED_AFTER_WORD.sub(_redacted_password, text)
    if "input_value=" in text:
        text = _PYDANTIC.sub(_redacted_input, text)
    if "earer " in text:
        text = _BEARER.sub(_redacted_bearer, text)
    return text


def redact_arguments(arguments: Sequence[Any]) -> list[Any]:
    """Return the arguments of a command with `"[redacted]"` in place of the secrets of options.

    This looks at options and their values only. `redact_text` finds secrets inside one argument.
    """
    shown: list[Any] = []
    before = option = ""
    for argument in arguments:
        text = str(argument)
        attached = _ATTACHED_OPTION.fullmatch(text)
        if option:
            secret = _redacted_value(option, " ", text, before)
        elif attached is not None:
            secret = _redacted_value(attached["option"], "", attached["value"], before)
            secret = secret and attached["option"] + secret
        else:
            secret = None
        shown.append(argument if secret is None else secret)
        option = text if secret is None and _IS_OPTION.fullmatch(text) else ""
        before = f"{before} {text[:_COMMAND_LENGTH]}"[-_COMMAND_LENGTH:]
    return shown


def _found(match: re.Match[str] | None) -> re.Match[str]:
    assert match is not None  # the pattern matches any text
    return match


_COMMAND_LENGTH = 300  # the maximum distance between the name of a command and its option
_COMMAND_END = re.compile(r"[;|&\n]")
_IS_OPTION = re.compile(r"--?[A-Za-z][\w\-]*")
_OPTION = re.compile(
    r"(?<![\w\-])(?P<option>--?[A-Za-z][\w\-]*+)(?P<gap>[ \t]++|=|[\"'],[ \t]*+[\"'])"
    r"(?P<value>(?!-)(?:\"[^\"\n]*\"|'[^'\n]*'|[^\s\"']++))"
)
_ATTACHED_OPTION = re.compile(
    r"(?<![\w\-])(?P<option>-[PUpuw])(?P<gap>)(?P<value>\"[^\"\n]*\"|'[^'\n]*'|[^\s\"'=\-][^\s\"']*+)"
)
_USER = re.compile(r"[\w.@\\\-]*")  # not the format of `date -u +%H:%M`
_USER_OPTIONS = frozenset(["-U", "-u", "--proxy-user", "--user"])
# By option: the commands that take a password directly after it, and after a space.
_ATTACHED = {
    "-P": "bcp|sqlcmd|unzip|zip",
    "-p": "7z|mariadb|mongo|mysql|rar|sshpass|unrar",
    "-w": "ldap",
}
_SEPARATE = {
    "-K": "openssl",
    "-P": "bcp|sqlcmd|unzip|zip",
    "-a": "https?|redis-cli|valkey-cli",
    "-k": "openssl",
    "-p": r"login(?!\w)|mongo|sshpass|twine",  # `docker login`, but not `docker run`
    "-w": "ldap",
}


def _redacted_option(match: re.Match[str]) -> str:
    option, gap, value = match["option"], match["gap"], match["value"]
    quote = value[0] if value[0] in "\"'" else ""
    bare = value[1:-1] if quote else value
    if not quote and _PROSE.fullmatch(bare.rstrip(_PUNCTUATION)):
        return match[0]
    before = match.string[max(0, match.start() - _COMMAND_LENGTH) : match.start()]
    secret = _redacted_value(option, gap, bare, before)
    return match[0] if secret is None else f"{option}{gap}{quote}{secret}{quote}"


def _redacted_value(option: str, gap: str, value: str, before: str) -> str | None:
    """Return the redacted value of an option; `None` if the value is not a secret."""
    if gap and len(option) > 2 and looks_secret(option):
        return REDACTED
    if option in _USER_OPTIONS:
        user, _, password = value.partition(":")
        is_other = (user.isdigit() and password.isdigit()) or not _USER.fullmatch(user)
        return None if is_other or password[:2] in ("", "//") else f"{user}:{REDACTED}"
    commands = (_SEPARATE if gap else _ATTACHED).get(option)
    command = _COMMAND_END.split(before)[-1]
    if commands and re.search(rf"(?:^|[\s/\"'`(])(?:{commands})[\w\-.]*(?=[\s\"']|$)", command):
        return REDACTED
    return None


_PUNCTUATION = "\"'`,;.)]}> \t\r"
# A quote at the end of quoted text, not one inside a word.
_CLOSING = r"[\"'`](?:[\s,;:)}\]&|]|\Z)"
_SIGN = re.compile(r"(?:=>|:=|=+|(?<!:):(?!:|//))[ \t]*+")
# The name before a sign, reversed.
_EMAN = re.compile(r"(?P<space>[ \t]*+)(?P<quote>[\\\"'\[\]]*+)(?P<eman>[\w.\-]++)")
# The same in a text that may be URL-encoded: %22 and %5D are " and ].
_ENCODED_SIGN = re.compile(_SIGN.pattern + "|%3[ADad]")
_ENCODED_EMAN = re.compile(
    r"(?P<space>[ \t]*+)(?P<quote>(?:[\\\"'\[\]]|22%|[BDbd]5%)*+)"
    r"(?P<eman>(?:(?![\dA-Fa-f]{2}%)[\w.\-])++)"
)
_QUOTED_AFTER_WORD = re.compile(r"(?<!\w)(\w++)([ \t]++)([\"'])[^\"'\n]+\3")
_OPENING = re.compile(r"[bBfFrRuU]{0,2}(\"\"\"|\'\'\'|\\*[\"'])")
_UNTIL = {quote: re.compile(rf"(?:[^{quote}\\\n]|\\.|{quote}{quote})*+") for quote in "\"'"}
_LINE = re.compile(r"[^\n]*+")
_HEADER = re.compile(rf"(?:(?!{_CLOSING})[^\n])++")
_WORD = re.compile(rf"(?:(?!{_CLOSING}|[&;,|][\w.%\[\]\-]+[=:])\S)++")
_NUMBER = re.compile(r"\d[\w.]*+")
_AUTH_SCHEME = re.compile(
    r"(?i)(?:apikey|aws4\S*|basic|bearer|digest|negotiate|ntlm|token) +(?=\S)"
)
# An unclosed quote extends to the end of its line. Otherwise, the search would be quadratic.
_BRACKET = re.compile(r"\"(?:[^\"\\\n]|\\.)*+\"?|'(?:[^'\\\n]|\\.)*+'?|[\[\]{}()]|\n")
_BRACKET_LENGTH = 4096  # the maximum length of a value in brackets that spans several lines
_PRIVATE_KEY = re.compile(
    r"-----BEGIN [A-Z0-9 ]*+(?<=PRIVATE KEY)(?: BLOCK)?-----(?=[\s\\]).*?"
    r"(?:-----END [A-Z0-9 ]*+-----|\Z)",
    re.DOTALL,
)
_PAIR = re.compile(
    r"(?P<before>[\[(]b?(?P<quote>[\"'])(?P<name>[\w.\-]++)(?P=quote),[ ]?b?)"
    r"(?:\"(?:[^\"\\\n]|\\.)*+\"|'(?:[^'\\\n]|\\.)*+')(?=[\])])"
)
_BEARER = re.compile(r"(?i)\b(bearer +)([\w.~+/=\-]++)")
# A line of pydantic's validation errors, below the name of the field.
_PYDANTIC = re.compile(
    r"^(?P<before>(?P<name>[\w.\-]++)\n  (?:(?!\[type=)[^\n])*+\[type=\w++, input_value=)"
    r"(?P<value>[^\n]*+)",
    re.MULTILINE,
)
# A frame of a Python traceback. Its source lines are indented further.
_FRAME = re.compile(
    r"^(?P<indent>[ |]*+)File \"[^\"\n]*\", line \d+[^\n]*\n"
    r"(?P<code>(?:(?P=indent)[ ]{2}[^\n]*(?:\n|\Z))*)",
    re.MULTILINE,
)

_NOTHING = re.compile(r"(?i)none|null|nil|true|false|yes|no|undefined")
_SQL_PLACEHOLDER = re.compile(r"(?:%\(\w+\)s|%s|\$\d+|:[a-z]\w*)(?:::\w+)?(?=[\s,;)\]\"']|\Z)")
# Words that continue a sentence after "password: " or "--password ".
_PROSE = re.compile(
    r"(?i)a|access|an|and|are|argument|at|authentication|can(?:no|')t|could|does|doesn't|empty"
    r"|expected|expired|failed|field|for|from|has|have|in|incorrect|input|invalid|is|isn't|it|may"
    r"|missing|must|not|of|on|option|or|permission|required|should|string|than|that|the|this|to"
    r"|too|unauthorized|unexpected|unknown|use|value|was|with|wrong|"
    + _NOTHING.pattern.removeprefix("(?i)")
)
_COMPOUND = re.compile(r"[_.\-]|[a-z][A-Z]|(?i:passw)")
# The last line of a traceback: "module.ClassName: message".
_ERROR = re.compile(r"[\w.]+\.[A-Z]\w*")
_IS_HEADER = re.compile(r"(?i)authorization|cookie")
_OFTEN_PROSE = re.compile(r"(?i)auth|authorization|cookies?|credentials?|session|signature")


def _redact_values(text: str) -> str:
    """Redact the values after the names of secrets."""
    if 'File "' not in text:
        return _without(_secrets(text, _secret_in_text), text)
    shown: list[str] = []
    at = 0
    for frame in _FRAME.finditer(text):
        before, code = text[at : frame.start("code")], frame["code"]
        shown.append(_without(_secrets(before, _secret_in_text), before))
        shown.append(_without(_secrets(code, _secret_in_code), code))
        at = frame.end()
    shown.append(_without(_secrets(text[at:], _secret_in_text), text[at:]))
    return "".join(shown)


def _without(secrets: Iterator[tuple[int, int]], text: str) -> str:
    shown: list[str] = []
    at = 0
    for begin, end in secrets:
        shown += (text[at:begin], REDACTED)
        at = end
    return "".join((*shown, text[at:])) if shown else text


class _Named(NamedTuple):
    """The name of a secret in a text, and what stands between the name and its value."""

    name: str
    quote: str
    sign: str
    value_at: int


def _secrets(
    text: str, find: Callable[[str, _Named], tuple[int, int] | None]
) -> Iterator[tuple[int, int]]:
    """Yield the start and the end of each secret that follows a name, in order."""
    backwards = text[::-1]  # searched from each sign, because most words are not names
    is_encoded = "%" in text
    before = _ENCODED_EMAN if is_encoded else _EMAN
    at = 0
    for sign in (_ENCODED_SIGN if is_encoded else _SIGN).finditer(text):
        if sign.start() < at:
            continue
        eman = before.match(backwards, len(text) - sign.start())
        if eman is None or not looks_secret(name := eman["eman"][::-1]):
            continue
        found = find(text, _Named(name, eman["quote"], sign[0], sign.end()))
        if found is not None and not text.startswith(REDACTED, found[0]):
            yield found
            at = found[1]


def _secret_in_code(text: str, named: _Named) -> tuple[int, int] | None:
    opening = _OPENING.match(text, named.value_at)
    if opening is not None:
        return _quoted(text, opening)
    number = _NUMBER.match(text, named.value_at)
    return None if number is None else number.span()


def _secret_in_text(text: str, named: _Named) -> tuple[int, int] | None:
    start = named.value_at
    opening = _OPENING.match(text, start)
    if opening is not None:
        return _quoted(text, opening)
    if text[start : start + 1] in ("[", "{", "("):
        return start, _closing_bracket(text, start)
    scheme = _AUTH_SCHEME.match(text, start)
    word = _WORD.match(text, start if scheme is None else scheme.end())
    if word is None:
        return None
    # "name: value" may also be part of a sentence.
    if named.sign[0] == ":" and named.sign[1:] and not named.quote and scheme is None:
        if _is_prose(named.name, word):
            return None
    elif _NOTHING.fullmatch(word[0].rstrip(_PUNCTUATION)):
        return None
    if _SQL_PLACEHOLDER.match(text, start):
        return None
    is_header = named.sign[0] == ":" and _IS_HEADER.search(named.name)
    end = _found(_HEADER.match(text, start)).end() if is_header else word.end()
    value = text[start:end].rstrip(_PUNCTUATION)
    return (start, start + len(value)) if any(map(str.isalnum, value)) else None


def _is_prose(name: str, word: re.Match[str]) -> bool:
    """Return whether a word after "name: " continues a sentence, and is not a secret."""
    plain = word[0].rstrip(_PUNCTUATION)
    if _PROSE.fullmatch(plain) or _ERROR.fullmatch(name):
        return True
    if not plain.isalpha() or _COMPOUND.search(name):
        return False
    is_last = not word.string[word.end() : word.end() + 2].strip(_PUNCTUATION)
    return not is_last or _OFTEN_PROSE.fullmatch(name) is not None


def _quoted(text: str, opening: re.Match[str]) -> tuple[int, int]:
    """Return the start and the end of quoted text; an unclosed quote ends with its line."""
    quote, start = opening[1], opening.end()
    if len(quote) == 1:
        end = _found(_UNTIL[quote].match(text, start)).end()
        if text.startswith(quote, end):
            return start, end
    else:  # three quotes, or a quote after backslashes, as in JSON inside JSON
        end = text.find(quote, start)
        while end > 0 and text[end - 1] == "\\":  # a quote of a text inside this one
            end = text.find(quote, end + 1)
        if end >= 0 and "\n" not in text[start:end]:
            return start, end
    return start, _found(_LINE.match(text, start)).end()


def _closing_bracket(text: str, start: int) -> int:
    """Return the end of a value in brackets; without a closing bracket, it ends with its line.

    A value on several lines that is not closed within `_BRACKET_LENGTH` ends there, because its
    closing bracket may have been cut off.
    """
    depth = 0
    # Only a value whose bracket ends the line, as in indented JSON, extends over several lines.
    is_indented = text.startswith("\n", start + 1)
    most = min(len(text), start + _BRACKET_LENGTH) if is_indented else len(text)
    for found in _BRACKET.finditer(text, start, most):
        if found[0] == "\n":
            if not is_indented:
                return found.start()
        elif found[0] in "[{(":
            depth += 1
        elif found[0] in ")}]":
            depth -= 1
            if depth == 0:
                return found.end()
    return most


def _redacted_pair(match: re.Match[str]) -> str:
    quote = match["quote"]
    return f"{match['before']}{quote}{REDACTED}{quote}" if looks_secret(match["name"]) else match[0]


def _redacted_bearer(match: re.Match[str]) -> str:
    # "Bearer authentication" is prose. Real tokens do not consist of letters only.
    return match[0] if match[2].isalpha() else match[1] + REDACTED


def _redacted_password(match: re.Match[str]) -> str:
    word, space, quote = match.groups()
    return f"{word}{space}{quote}{REDACTED}{quote}" if "passw" in word.lower() else match[0]


def _redacted_input(match: re.Match[str]) -> str:
    _, comma, kind = match["value"].rpartition(", input_type=")
    return match["before"] + REDACTED + comma + kind if looks_secret(match["name"]) else match[0]
