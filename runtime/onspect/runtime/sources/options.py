"""Options in a source's address, such as ``?width=1280&height=720``."""

from __future__ import annotations

from urllib.parse import parse_qsl

from onspect.runtime.errors import ChoiceError


def parse_options(text: str, known: tuple[str, ...], address: str) -> dict[str, str]:
    """Return the options behind an address's question mark; raises ChoiceError for one that is not known or empty."""
    try:
        options = dict(parse_qsl(text, keep_blank_values=True, strict_parsing=bool(text)))
    except ValueError as error:
        raise ChoiceError(f"the options {text!r} of {address!r} are not NAME=VALUE&NAME=VALUE") from error
    for name, value in options.items():
        if name not in known or not value:
            there_are = ", ".join(known)
            raise ChoiceError(f"the option {name}={value!r} of {address!r} is not known; there are {there_are}")
    return options


def parse_number(options: dict[str, str], name: str, address: str) -> float | None:
    """Return an option that is a number above 0, None where it is not given; raises ChoiceError for any other."""
    if name not in options:
        return None
    try:
        value = float(options[name])
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise ChoiceError(f"the option {name}={options[name]!r} of {address!r} is not a number above 0")
    return value
