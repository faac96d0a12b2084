"""Reading what stands behind ``--sink``: file names and URLs with options, and sizes such as 100MB."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from onspect.runtime.credentials import redact, resolve_secret
from onspect.runtime.errors import ChoiceError

_OPTIONS = re.compile(r"\?([a-z_]+=[^?]*)$")
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([kmgt]?)(i?)b?", re.IGNORECASE)
_POWERS = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4}


@dataclass(frozen=True)
class Address:
    """A sink's URL in parts; username and password are resolved and never shown.

    shown: the URL without its options, as it stands in messages. path: without its first slash, unquoted. options: by
    name, unquoted.
    """

    shown: str
    scheme: str
    host: str
    port: int | None
    path: str
    options: Mapping[str, str]
    username: str | None = None
    password: str | None = None

    def __repr__(self) -> str:
        return f"Address({self.shown!r})"


def read_address(text: str, allowed: Mapping[str, str], what: str = "sink") -> Address:
    """Return a URL's parts; raises ChoiceError for what is none, and for options that are not allowed.

    what: how messages call it.

    allowed names each option with what it means. The options ``username`` and ``password`` are given as ``env:NAME``
    or ``file:PATH``: a secret in the URL itself would stand in the list of processes and in shell histories.
    """
    shown = redact(text)
    parts = split_url(text, what)
    if not parts.hostname:
        raise ChoiceError(f"the {what} {shown!r} names no host; give {parts.scheme}://HOST")
    if parts.username is not None or parts.password is not None:
        raise ChoiceError(
            f"the {what} {shown!r} has a user or password before its host, where other users of this machine can read "
            "them; give ?username=env:NAME&password=env:NAME (or file:PATH) behind it"
        )
    options = read_options(shown, parts.query, allowed, what)
    return Address(
        shown=shown.partition("?")[0],
        scheme=parts.scheme,
        host=parts.hostname,
        port=parts.port,
        path=unquote(parts.path.removeprefix("/")),
        options=options,
        username=read_secret(shown, options, "username"),
        password=read_secret(shown, options, "password"),
    )


def split_url(text: str, what: str = "sink") -> SplitResult:
    """Return a URL's parts, of which `port` can be read; raises ChoiceError where they cannot be told apart.

    The reason is not Python's: that quotes pieces of the URL, and where a password holds a ``?`` or ``/`` that is not
    escaped these are pieces of the password.
    """
    try:
        parts = urlsplit(text)
        _ = parts.port
    except ValueError:
        raise ChoiceError(
            f"the {what} {redact(text)!r} is no URL; give SCHEME://HOST:PORT/PATH, the port as a number"
        ) from None
    return parts


def read_file_target(text: str, allowed: Mapping[str, str]) -> tuple[str, dict[str, str]]:
    """Return the path and the options of ``KIND:FILE?name=value&...``; raises ChoiceError for options not allowed."""
    target = text.partition(":")[2]
    found = _OPTIONS.search(target)
    if found is None:
        return target, {}
    return target[: found.start()], read_options(text, found.group(1), allowed)


def read_options(shown: str, query: str, allowed: Mapping[str, str], what: str = "sink") -> dict[str, str]:
    """Return the options of ``name=value&...``; raises ChoiceError for one that is not among those allowed."""
    pairs = parse_qsl(query, keep_blank_values=True)
    for name, _ in pairs:
        if name not in allowed:
            known = ", ".join(f"{key}={meaning}" for key, meaning in allowed.items()) or "none"
            raise ChoiceError(f"the {what} {redact(shown)!r} has the option {name!r}; the options are: {known}")
    return dict(pairs)


def read_secret(shown: str, options: Mapping[str, str], name: str) -> str | None:
    """Return an option's secret, None without it; raises ChoiceError where it stands in the URL itself."""
    value = options.get(name)
    if value is None:
        return None
    if value.partition(":")[0] not in ("env", "file"):
        raise ChoiceError(f"the option {name!r} of {shown!r} must be env:NAME or file:PATH, not the secret itself")
    return resolve_secret(value)


def read_size(text: str, name: str, *, smallest: int) -> int:
    """Return the bytes of a size such as ``100MB`` (decimal) or ``1GiB`` (binary); raises ChoiceError.

    smallest: fewer bytes are refused, since a forgotten MB would throw away nearly everything.
    """
    found = _SIZE.fullmatch(text.strip())
    size = 0
    if found is not None:
        number, unit, binary = found.groups()
        size = round(float(number) * (1024 if binary else 1000) ** _POWERS[unit.lower()])
    if size < smallest:
        raise ChoiceError(f"{name} is {text!r}; give a size such as 100MB or 5GB, at least {smallest} bytes")
    return size


def read_count(text: str, name: str, *, smallest: int, largest: int) -> int:
    """Return a whole number within its range; raises ChoiceError for any other text."""
    if not text.isascii() or not text.isdigit() or not smallest <= int(text) <= largest:
        raise ChoiceError(f"{name} is {text!r}; give a whole number from {smallest} to {largest}")
    return int(text)
