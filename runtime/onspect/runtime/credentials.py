"""Passwords and tokens: taken from the environment or from files, and kept out of every message."""

from __future__ import annotations

import os
import re
from pathlib import Path

from onspect.runtime.atomic import describe_os_error
from onspect.runtime.errors import ChoiceError

_USER = re.compile(r"(?<=://)[^\s'\"]*@")  # up to the last @: a password may hold one unescaped
_PARAMETER = re.compile(
    r"([?&;][\w.-]*(?:pass|pwd|token|secret|key|hmac|auth)[\w.-]*=)(?!env:|file:)[^&;\s'\"]+", re.IGNORECASE
)


def redact(text: str) -> str:
    """Return text with user names, passwords and tokens in its URLs replaced by ``***``; in doubt too much is.

    Where a secret is said to come from the environment or a file (``?password=env:NAME``), that stays readable.
    """
    return _PARAMETER.sub(r"\1***", _USER.sub("***@", text))


def resolve_secret(value: str) -> str:
    """Return what ``env:NAME`` or ``file:PATH`` stands for, without the line's end; any other value is itself.

    Raises ChoiceError where the variable is not set or the file cannot be read.
    """
    kind, _, place = value.partition(":")
    if kind == "env":
        if place not in os.environ:
            raise ChoiceError(f"the environment variable {place!r} is not set, and {value!r} stands for its value")
        return os.environ[place]
    if kind == "file":
        try:
            return Path(place).read_text(encoding="utf-8").rstrip("\r\n")
        except (OSError, ValueError) as error:
            why = describe_os_error(error) if isinstance(error, OSError) else "it is not UTF-8 text"
            raise ChoiceError(f"cannot read the secret {value!r}: {why}") from error
    return value
