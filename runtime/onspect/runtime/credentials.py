"""Passwords and tokens: read from the environment or from files, and kept out of every message.

The process remembers each secret that it reads. `redact` replaces it wherever it appears, and the logger ``onspect``
redacts every line. Secrets that were not read are found by their form.
"""

from __future__ import annotations

import logging
import os
import re
import threading
from collections.abc import Iterator
from pathlib import Path

from onspect.runtime.atomic import describe_os_error
from onspect.runtime.errors import ChoiceError

_SHORTEST = 4  # characters: a shorter secret is part of too many words
_TOKEN = 16  # smallest number of characters of a piece of a path that counts as a secret

_SECRET_NAME = re.compile(
    r"pas|pwd|psw|user|usr|login|token|secret|key|hmac|auth|sig|cred|sess|bearer|nonce|hash|ticket|streamid"
    r"|(?:^|[_.-])(?:sid|jwt|pin|otp|code|p|k|u)$",
    re.IGNORECASE,
)
_USER_NAME = re.compile(r"user|username|usr|login", re.IGNORECASE)
_URL = {False: re.compile(r"://[^\s'\"]+"), True: re.compile(r"://.+", re.DOTALL)}
_IN_PATH = re.compile(r"[/_]([\w.-]{1,40})=")
_OPTION = re.compile(r"[?&;#]([\w.-]{1,40})=(?!env:|file:)")
_STREAM_KEY = re.compile(r"/[^/?]+/(?=\w*\d)([\w-]{12,})(?=[?:]|$)")  # rtmp://HOST/APPLICATION/KEY
# options in the form of recorders
_END = re.compile(r"_(?:pass\w{0,10}|pwd|psw|channel|stream|subtype)=", re.IGNORECASE)
_OPTION_END = {False: re.compile(r"[&;\s'\"]"), True: re.compile(r"[&;]")}

_known: dict[str, str] = {}
_ordered: tuple[tuple[str, str], ...] = ()
_lock = threading.Lock()


def remember_secret(secret: str, shown: str = "***") -> None:
    """Let `redact` replace a text, also in its escaped forms. Texts of less than 4 characters are not replaced.

    Parameters
    ----------
    secret
        The text.
    shown
        Its replacement.
    """
    import json  # imported here, because most commands need no secret
    from urllib.parse import quote, unquote

    global _ordered
    forms = {secret, unquote(secret), quote(secret, safe="", errors="surrogatepass"), json.dumps(secret)[1:-1]}
    forms |= {repr(secret)[1:-1], repr(secret + "'\"")[1:-4]}  # Python escapes text with both quotes in another way
    with _lock:
        for form in forms:
            if len(form) >= _SHORTEST and form != shown:
                _known.setdefault(form, shown)
        _ordered = tuple(sorted(_known.items(), key=lambda one: -len(one[0])))


def redact(text: str) -> str:
    """Replace the known secrets in a message, and those in its URLs.

    In doubt too much is replaced. The place of a secret (``?password=env:NAME``) stays readable.

    Parameters
    ----------
    text
        The message.

    Returns
    -------
    str
        The message with ``***``, or with its place, for each secret.
    """
    for secret, shown in _ordered:
        if secret in text:
            text = text.replace(secret, shown)
    return _hide(text, whole=False)


def show_address(text: str) -> str:
    """Return an address without its secrets, and remember them.

    Parameters
    ----------
    text
        The address and nothing else, so that passwords with spaces and quotes are found too.

    Returns
    -------
    str
        The address for messages. An address from ``env:`` or ``file:`` is replaced by its place.
    """
    if text not in _known:
        _remember_parts(text)
        shown = _hide(text, whole=True)
        if shown == text:
            return text
        remember_secret(text, shown)
    return _known.get(text, "***")


def show_webhook(text: str) -> str:
    """Return the address of a web server without secrets, path and options: the path is often the secret.

    Parameters
    ----------
    text
        The address and nothing else.

    Returns
    -------
    str
        The address for messages.
    """
    shown = show_address(text)
    if shown.startswith(("env:", "file:")):
        return shown
    scheme, _, place = shown.partition("://")
    host = re.split(r"[/?#]", place)[0]
    rest = text.partition("#")[0].partition("://")[2].partition("/")[2]
    if not rest:
        return f"{scheme}://{host}"
    remember_secret(f"{host}/{rest}", f"{host}/***")
    for piece in re.split(r"[/?&=]", rest):
        if len(piece) >= _TOKEN:
            remember_secret(piece)
    return f"{scheme}://{host}/***"


def resolve_secret(value: str) -> str:
    """Read the secret that a text refers to.

    Parameters
    ----------
    value
        ``env:NAME`` or ``file:PATH``. Any other text is returned unchanged.

    Returns
    -------
    str
        The secret without the line's end.

    Raises
    ------
    ChoiceError
        If the variable is not set or the file cannot be read.
    """
    kind, _, place = value.partition(":")
    if kind == "env":
        if place not in os.environ:
            raise ChoiceError(f"the environment variable {place!r} is not set, and {value!r} refers to it; set it")
        secret = os.environ[place]
    elif kind == "file":
        try:
            secret = Path(place).read_text(encoding="utf-8").rstrip("\r\n")
        except (OSError, ValueError) as error:
            why = describe_os_error(error) if isinstance(error, OSError) else "it is not UTF-8 text"
            raise ChoiceError(f"cannot read the secret {value!r}: {why}; check the file") from error
    else:
        return value
    _remember_parts(secret)
    remember_secret(secret, value)
    return secret


def _hide(text: str, *, whole: bool) -> str:
    """Replace the secrets of a text by ``***``."""
    shown, hidden = "", 0
    for start, end in sorted((start, end) for _, start, end in _find(text, whole=whole) if start < end):
        if start > hidden or not shown:  # spans that touch are one
            shown += f"{text[hidden:start]}***"
        hidden = max(hidden, end)
    return shown + text[hidden:]


def _remember_parts(address: str) -> None:
    for name, start, end in _find(address, whole=True):
        if not _USER_NAME.fullmatch(name):  # "admin" is a common word
            remember_secret(address[start:end])
            remember_secret(address[start:end].partition(":")[2])


def _find(text: str, *, whole: bool) -> Iterator[tuple[str, int, int]]:
    """Yield name, start and end of each secret: before the host, in the path, and behind the name of an option.

    The time is proportional to the length of the text, because every line of the log is searched.
    """
    for url in _URL[whole].finditer(text):
        start, end = url.start() + 3, url.end()
        if (host := text.rfind("@", start, end)) >= 0:  # the last @: a password may have an unescaped one
            yield "", start, host
        if text[max(0, url.start() - 5) : url.start()].lower().endswith(("rtmp", "rtmps")):
            for key in _STREAM_KEY.finditer(text[:end], text.find("/", start, end)):
                yield "key", key.start(1), key.end(1)
        query = text.find("?", start, end)
        hidden = 0
        for found in _IN_PATH.finditer(text, start - 1, end if query < 0 else query):
            if found.end() >= hidden and _SECRET_NAME.search(found[1]):
                stop = _END.search(text, found.end(), end)
                hidden = end if stop is None else stop.start()
                yield found[1], found.end(), hidden
    hidden = 0
    for found in _OPTION.finditer(text):
        if found.end() >= hidden and _SECRET_NAME.search(found[1]):
            stop = _OPTION_END[whole].search(text, found.end())
            hidden = len(text) if stop is None else stop.start()
            yield found[1], found.end(), hidden


class _Redact(logging.Filter):
    """Removes secrets from log lines and their tracebacks."""

    def filter(self, record: logging.LogRecord) -> bool:
        record.msg, record.args = redact(record.getMessage()), ()
        if record.exc_info and not record.exc_text:
            record.exc_text = redact(logging.Formatter().formatException(record.exc_info))
        return True


logging.getLogger("onspect").addFilter(_Redact())
