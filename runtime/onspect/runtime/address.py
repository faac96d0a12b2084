"""Addresses of sources, sinks and brokers: one parser for URLs, for ``KIND:PLACE`` and for the options behind ``?``."""

from __future__ import annotations

import importlib
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from onspect.runtime.credentials import redact, resolve_secret, show_address
from onspect.runtime.errors import ChoiceError

_OPTIONS = re.compile(r"\?([A-Za-z_]+=[^?]*)$")
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([kmgt]?)(i?)b?", re.IGNORECASE)
_POWERS = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4}


class Options:
    """The options of an address, ``NAME=VALUE&NAME=VALUE``; each method reads one and raises ChoiceError.

    allowed has what each option's value is, for messages. others: a pattern of further names that are allowed. shown:
    the address without secrets, as messages call it. what: what it is the address of.
    """

    def __init__(
        self, query: str, allowed: Mapping[str, str], shown: str, what: str = "sink", *, others: str | None = None
    ) -> None:
        self._shown = shown
        self._what = what
        self.pairs = parse_qsl(query, keep_blank_values=True)
        """Every name with its value, in order; a name may be given several times."""
        for name, value in self.pairs:
            if name not in allowed and not (others and re.match(others, name)):
                known = ", ".join(f"{key}={meaning}" for key, meaning in allowed.items()) or "none"
                raise ChoiceError(f"{self} has the option {redact(name)!r}; the options are: {known}")
            if not value:
                raise ChoiceError(f"{self} has the option {name!r} without a value; give {name}={allowed.get(name)}")
        if query and not self.pairs:
            raise ChoiceError(f"{self} has options that are not NAME=VALUE&NAME=VALUE")
        self._values = dict(self.pairs)

    def __str__(self) -> str:
        return f"the {self._what} {self._shown!r}"

    def __contains__(self, name: str) -> bool:
        return name in self._values

    def _wrong(self, name: str, hint: str) -> ChoiceError:
        return ChoiceError(f"{self}: the option {name} is {self._values[name]!r}; give {hint}")

    def text(self, name: str) -> str | None:
        """Return an option as it is, or None if it is not given, as all of these do."""
        return self._values.get(name)

    def path(self, name: str) -> Path | None:
        """Return an option that is a file or folder."""
        return Path(self._values[name]) if name in self else None

    def choice(self, name: str, allowed: Sequence[str]) -> str | None:
        """Return an option that is one of several words."""
        value = self.text(name)
        if value is not None and value not in allowed:
            raise self._wrong(name, f"one of {', '.join(allowed)}")
        return value

    def secret(self, name: str) -> str | None:
        """Return the secret that an option names by its place; the secret itself is refused."""
        value = self.text(name)
        if value is None:
            return None
        if value.partition(":")[0] not in ("env", "file"):
            raise ChoiceError(f"the option {name!r} of {self._shown!r} must be env:NAME or file:PATH, not the secret")
        return resolve_secret(value)

    def size(self, name: str, *, smallest: int) -> int | None:
        """Return the bytes of a size such as ``100MB`` (decimal) or ``1GiB`` (binary).

        smallest: fewer bytes are refused, since a forgotten MB would throw away nearly everything.
        """
        text = self.text(name)
        if text is None:
            return None
        found = _SIZE.fullmatch(text.strip())
        size = 0
        if found is not None:
            number, unit, binary = found.groups()
            size = round(float(number) * (1024 if binary else 1000) ** _POWERS[unit.lower()])
        if size < smallest:
            raise self._wrong(name, f"a size such as 100MB or 5GB, at least {smallest} bytes")
        return size

    def count(self, name: str, *, smallest: int, largest: int) -> int | None:
        """Return a whole number within its range."""
        text = self.text(name)
        if text is None:
            return None
        if not text.isascii() or not text.isdigit() or not smallest <= int(text) <= largest:
            raise self._wrong(name, f"a whole number from {smallest} to {largest}")
        return int(text)

    def number(self, name: str, *, above_zero: bool = True) -> float | None:
        """Return a finite number."""
        text = self.text(name)
        if text is None:
            return None
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not math.isfinite(value) or (above_zero and value <= 0):
            raise self._wrong(name, f"a number{' above 0' if above_zero else ''}")
        return value


@dataclass(frozen=True)
class Address:
    """A URL in parts; username and password are resolved and never shown.

    shown: the URL without options and secrets, as it stands in messages. path: without its first slash, unquoted.
    """

    shown: str
    scheme: str = field(repr=False)
    host: str = field(repr=False)
    port: int | None = field(repr=False)
    path: str = field(repr=False)
    options: Options = field(repr=False)
    username: str | None = field(repr=False, default=None)
    password: str | None = field(repr=False, default=None)


def parse_url(text: str, allowed: Mapping[str, str], what: str = "sink") -> Address:
    """Return a URL's parts; raises ChoiceError for what is no URL, and for options that are not allowed.

    allowed names each option with what it means. The options ``username`` and ``password`` are given as ``env:NAME``
    or ``file:PATH``: a secret in the URL itself would stand in the list of processes and in shell histories.
    """
    shown = show_address(text)
    parts = split_url(text, shown, what)
    if parts.username is not None or parts.password is not None:
        raise ChoiceError(
            f"the {what} {shown!r} has a user or password in it, where other users of this machine can read them; "
            f"append ?username=env:NAME&password=env:NAME (or file:PATH) instead"
        )
    options = Options(parts.query, allowed, shown, what)
    return Address(
        shown=shown.partition("?")[0],
        scheme=parts.scheme,
        host=str(parts.hostname),
        port=parts.port,
        path=unquote(parts.path.removeprefix("/")),
        options=options,
        username=options.secret("username"),
        password=options.secret("password"),
    )


def split_url(text: str, shown: str, what: str = "sink") -> SplitResult:
    """Return a URL's parts, with a host and a `port` that can be read; raises ChoiceError for what is no URL.

    The reason is not Python's: that quotes pieces of the URL, and where a password holds a ``?`` or ``/`` that is not
    escaped these are pieces of the password.
    """
    try:
        parts = urlsplit(text)
        _ = parts.port
    except ValueError:
        raise ChoiceError(
            f"the {what} {shown!r} is not a URL; give SCHEME://HOST:PORT/PATH, the port as a number"
        ) from None
    if not parts.hostname:
        raise ChoiceError(f"the {what} {shown!r} names no host; give {parts.scheme}://HOST")
    return parts


def parse_place(
    text: str, allowed: Mapping[str, str], what: str = "source", *, others: str | None = None
) -> tuple[str, Options]:
    """Return the place and the options of ``KIND:PLACE?name=value&...``."""
    place, _, query = text.partition(":")[2].partition("?")
    return place, Options(query, allowed, show_address(text), what, others=others)


def parse_file(text: str, allowed: Mapping[str, str]) -> tuple[str, Options]:
    """Return the path and the options of ``KIND:FILE?name=value&...``; a ``?`` without options is the file's own."""
    place = text.partition(":")[2]
    found = _OPTIONS.search(place)
    query = "" if found is None else found.group(1)
    return place if found is None else place[: found.start()], Options(query, allowed, show_address(text))


@dataclass(frozen=True)
class Kind:
    """One row of a registry: a kind of source or sink, and where the function is that opens it.

    prefixes: how its addresses begin. module, opener: the function, in a module of package; loaded when it is needed.
    forms: its addresses, for messages. takes: settings of `open` that the function takes. show: hides secrets.
    """

    package: str
    prefixes: tuple[str, ...]
    module: str
    opener: str
    forms: tuple[str, ...]
    takes: tuple[str, ...] = ()
    show: Callable[[str], str] = show_address

    def open(self, text: str, **settings: object) -> object:
        """Open an address of this kind; raises ChoiceError, and ImportError if its package is missing."""
        opener = getattr(importlib.import_module(f"{self.package}.{self.module}"), self.opener)
        return opener(text, **{name: settings[name] for name in self.takes})


def find_kind(kinds: Sequence[Kind], text: str) -> Kind | None:
    """Return the kind that an address has, by how it begins, or None; the scheme of a URL may have capitals."""
    scheme, slashes, place = text.partition("://")
    text = f"{scheme.lower()}{slashes}{place}" if slashes else text
    return next((kind for kind in kinds if text.startswith(kind.prefixes)), None)
