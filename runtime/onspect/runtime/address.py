"""Addresses of sources, sinks and brokers: one parser for URLs, for ``KIND:PLACE`` and for the options behind ``?``."""

from __future__ import annotations

import importlib
import math
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from onspect.runtime.credentials import redact, resolve_secret, show_address
from onspect.runtime.errors import ChoiceError

T = TypeVar("T")

_OPTIONS = re.compile(r"\?([A-Za-z_]+=[^?]*)$")
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([kmgt]?)(i?)b?", re.IGNORECASE)
_POWERS = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4}


class Options:
    """The options of an address, ``NAME=VALUE&NAME=VALUE``. Each method reads one.

    Parameters
    ----------
    query
        The text behind ``?``.
    allowed
        The meaning of each option's value, for messages.
    shown
        The address without secrets, for messages.
    what
        The kind of address, for messages.
    others
        Pattern of further allowed names, None for no others.

    Raises
    ------
    ChoiceError
        If an option is not allowed or has no value.
    """

    def __init__(
        self, query: str, allowed: Mapping[str, str], shown: str, what: str = "sink", *, others: str | None = None
    ) -> None:
        self._shown = shown
        self._what = what
        self.pairs = parse_qsl(query, keep_blank_values=True)
        """Every name with its value, in order. A name may appear several times."""
        for name, value in self.pairs:
            if name not in allowed and not (others and re.match(others, name)):
                known = ", ".join(f"{key}={meaning}" for key, meaning in allowed.items()) or "none"
                raise ChoiceError(f"{self} has the option {redact(name)!r}; the options are: {known}")
            if not value:
                raise ChoiceError(f"{self} has the option {name!r} without a value; give {name}={allowed.get(name)}")
        if query and not self.pairs:
            raise ChoiceError(f"{self} has options in another form; give NAME=VALUE&NAME=VALUE")
        self._values = dict(self.pairs)

    def __str__(self) -> str:
        return f"the {self._what} {self._shown!r}"

    def __contains__(self, name: str) -> bool:
        return name in self._values

    def _read(self, name: str, parse: Callable[[str], T | None], hint: str) -> T | None:
        text = self.text(name)
        value = None if text is None else parse(text)
        if value is None and text is not None:
            raise ChoiceError(f"{self}: the option {name} is {text!r}; give {hint}")
        return value

    def text(self, name: str) -> str | None:
        """Return an option unchanged.

        Parameters
        ----------
        name
            Name of the option.

        Returns
        -------
        str or None
            The value, None if the option is not given.
        """
        return self._values.get(name)

    def path(self, name: str) -> Path | None:
        """Return an option that is a file or folder.

        Parameters
        ----------
        name
            Name of the option.

        Returns
        -------
        Path or None
            The path, None if the option is not given.
        """
        return Path(self._values[name]) if name in self else None

    def choice(self, name: str, allowed: Sequence[str]) -> str | None:
        """Return an option that is one of several words.

        Parameters
        ----------
        name
            Name of the option.
        allowed
            The words.

        Returns
        -------
        str or None
            The word, None if the option is not given.

        Raises
        ------
        ChoiceError
            If the value is not one of them.
        """
        return self._read(name, lambda text: text if text in allowed else None, f"one of {', '.join(allowed)}")

    def secret(self, name: str) -> str | None:
        """Return the secret that an option names by its place.

        Parameters
        ----------
        name
            Name of the option.

        Returns
        -------
        str or None
            The secret, None if the option is not given.

        Raises
        ------
        ChoiceError
            If the value is the secret itself, or the secret cannot be read.
        """
        value = self.text(name)
        if value is None:
            return None
        if value.partition(":")[0] not in ("env", "file"):
            raise ChoiceError(f"the option {name!r} of {self._shown!r} must be env:NAME or file:PATH, not the secret")
        return resolve_secret(value)

    def size(self, name: str, *, smallest: int) -> int | None:
        """Return an option that is a size such as ``100MB`` (decimal) or ``1GiB`` (binary).

        Parameters
        ----------
        name
            Name of the option.
        smallest
            Smallest allowed number of bytes. A forgotten MB would discard nearly everything.

        Returns
        -------
        int or None
            Bytes, None if the option is not given.

        Raises
        ------
        ChoiceError
            If the value is not a size, or too small.
        """

        def parse(text: str) -> int | None:
            found = _SIZE.fullmatch(text.strip())
            if found is None:
                return None
            number, unit, binary = found.groups()
            size = round(float(number) * (1024 if binary else 1000) ** _POWERS[unit.lower()])
            return size if size >= smallest else None

        return self._read(name, parse, f"a size such as 100MB or 5GB, at least {smallest} bytes")

    def count(self, name: str, *, smallest: int, largest: int) -> int | None:
        """Return an option that is a whole number.

        Parameters
        ----------
        name
            Name of the option.
        smallest
            Smallest allowed number.
        largest
            Largest allowed number.

        Returns
        -------
        int or None
            The number, None if the option is not given.

        Raises
        ------
        ChoiceError
            If the value is not a whole number in this range.
        """

        def parse(text: str) -> int | None:
            is_number = text.isascii() and text.isdigit()
            return int(text) if is_number and smallest <= int(text) <= largest else None

        return self._read(name, parse, f"a whole number from {smallest} to {largest}")

    def number(self, name: str, *, above_zero: bool = True) -> float | None:
        """Return an option that is a finite number.

        Parameters
        ----------
        name
            Name of the option.
        above_zero
            Whether the number must be above 0.

        Returns
        -------
        float or None
            The number, None if the option is not given.

        Raises
        ------
        ChoiceError
            If the value is not such a number.
        """

        def parse(text: str) -> float | None:
            with suppress(ValueError):
                value = float(text)
                return value if math.isfinite(value) and (value > 0 or not above_zero) else None
            return None

        return self._read(name, parse, f"a number{' above 0' if above_zero else ''}")


@dataclass(frozen=True)
class Address:
    """The parts of a URL. Username and password are resolved and never shown."""

    shown: str
    """The URL without options and secrets, for messages."""

    scheme: str = field(repr=False)
    """The scheme, such as ``mqtt``."""

    host: str = field(repr=False)
    """Name or address of the host."""

    port: int | None = field(repr=False)
    """Number of the port, None if the URL has none."""

    path: str = field(repr=False)
    """The path without its first slash, unquoted."""

    options: Options = field(repr=False)
    """The options behind ``?``."""

    username: str | None = field(repr=False, default=None)
    """The user name, None without one."""

    password: str | None = field(repr=False, default=None)
    """The password, None without one."""

    @property
    def bracketed_host(self) -> str:
        """The host as in a URL: an IPv6 address is in brackets."""
        return f"[{self.host}]" if ":" in self.host else self.host


def parse_url(text: str, allowed: Mapping[str, str], what: str = "sink") -> Address:
    """Return the parts of a URL.

    The options ``username`` and ``password`` are given as ``env:NAME`` or ``file:PATH``. A secret in the URL itself
    would appear in the list of processes and in shell histories.

    Parameters
    ----------
    text
        The URL.
    allowed
        The meaning of each option.
    what
        The kind of address, for messages.

    Returns
    -------
    Address
        The parts.

    Raises
    ------
    ChoiceError
        If the text is not a URL, has a password in it, or has an option that is not allowed.
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
    """Return the parts of a URL with a host and a readable port.

    The error does not have Python's reason, which quotes pieces of the URL. They may be pieces of a password with
    an unescaped ``?`` or ``/``.

    Parameters
    ----------
    text
        The URL.
    shown
        The URL without secrets, for messages.
    what
        The kind of address, for messages.

    Returns
    -------
    SplitResult
        The parts.

    Raises
    ------
    ChoiceError
        If the text is not a URL, or has no host.
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
    """Return the place and the options of ``KIND:PLACE?name=value&...``.

    Parameters
    ----------
    text
        The address.
    allowed
        The meaning of each option.
    what
        The kind of address, for messages.
    others
        Pattern of further allowed names, None for no others.

    Returns
    -------
    tuple[str, Options]
        The place and the options.

    Raises
    ------
    ChoiceError
        If an option is not allowed or has no value.
    """
    place, _, query = text.partition(":")[2].partition("?")
    return place, Options(query, allowed, show_address(text), what, others=others)


def parse_file(text: str, allowed: Mapping[str, str]) -> tuple[str, Options]:
    """Return the path and the options of ``KIND:FILE?name=value&...``.

    A ``?`` without options behind it is part of the file name.

    Parameters
    ----------
    text
        The address.
    allowed
        The meaning of each option.

    Returns
    -------
    tuple[str, Options]
        The path and the options.

    Raises
    ------
    ChoiceError
        If an option is not allowed or has no value.
    """
    place = text.partition(":")[2]
    found = _OPTIONS.search(place)
    query = "" if found is None else found.group(1)
    return place if found is None else place[: found.start()], Options(query, allowed, show_address(text))


@dataclass(frozen=True)
class Kind:
    """One row of a registry: a kind of source or sink, and the function that opens it."""

    package: str
    """The package of the module."""

    prefixes: tuple[str, ...]
    """Beginnings of its addresses."""

    module: str
    """The module of the function. It is loaded at its first use."""

    opener: str
    """Name of the function."""

    forms: tuple[str, ...]
    """Forms of its addresses, for messages."""

    takes: tuple[str, ...] = ()
    """Settings of `open` that the function takes."""

    show: Callable[[str], str] = show_address
    """Function that hides the secrets of an address."""

    def open(self, text: str, **settings: object) -> object:
        """Open an address of this kind.

        Parameters
        ----------
        text
            The address.
        **settings
            Settings for the function; only those in `takes` are passed.

        Returns
        -------
        object
            The source or sink.

        Raises
        ------
        ChoiceError
            If the address is not valid.
        ImportError
            If its package is not installed.
        """
        opener = getattr(importlib.import_module(f"{self.package}.{self.module}"), self.opener)
        return opener(text, **{name: settings[name] for name in self.takes})


def find_kind(kinds: Sequence[Kind], text: str) -> Kind | None:
    """Return the kind of an address. The scheme of a URL may have capitals.

    Parameters
    ----------
    kinds
        The rows of the registry.
    text
        The address.

    Returns
    -------
    Kind or None
        The row, None if no row matches.
    """
    scheme, slashes, place = text.partition("://")
    text = f"{scheme.lower()}{slashes}{place}" if slashes else text
    return next((kind for kind in kinds if text.startswith(kind.prefixes)), None)
