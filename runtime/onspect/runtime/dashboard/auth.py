"""Who may look and who may change something: one token, sessions, and a brake on guessing."""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import secrets
import time
from collections import OrderedDict

from onspect.runtime.errors import ChoiceError

SHORTEST_TOKEN = 12
"""Characters that a token has at least."""

_SESSIONS = 64
_SESSION_SECONDS = 12 * 3600.0  # a shift, and the one after it
_GUESSES = 5  # wrong tokens that one address has a minute before it is slowed down
_GUESSES_OF_ALL = 30  # and all addresses together
_LONGEST_PAUSE = 30.0  # seconds that a guess costs at most
_MINUTE = 60.0
_ADDRESSES = 1024


class Auth:
    """The token, None where there is none, and the sessions that were opened with it.

    Used from the server's one thread. Raises ChoiceError for a token that can be guessed.
    """

    def __init__(self, token: str | None) -> None:
        if token is not None and len(token) < SHORTEST_TOKEN:
            raise ChoiceError(
                f"the dashboard's token has {len(token)} characters; give {SHORTEST_TOKEN} or more, for example those "
                "that python -c 'import secrets; print(secrets.token_urlsafe())' prints"
            )
        self._digest = None if token is None else _digest(token)
        self._sessions: OrderedDict[bytes, float] = OrderedDict()
        self._wrong: OrderedDict[str, list[float]] = OrderedDict()
        self._wrong_of_all: list[float] = []

    @property
    def has_token(self) -> bool:
        """Whether anything can be changed at all."""
        return self._digest is not None

    def wait_seconds(self, address: str) -> float:
        """Return how long an address must wait before its next try, 0 where it may try now.

        After five wrong tokens in a minute each further one costs a pause: 1 second, then 2, 4 and so on, up to 30.
        While all addresses together send many, every try costs a second. Nobody is locked out by others' guesses.
        """
        now = time.monotonic()
        own = [moment for moment in self._wrong.get(address, []) if now - moment < _MINUTE]
        self._wrong_of_all = [moment for moment in self._wrong_of_all if now - moment < _MINUTE]
        if len(own) < _GUESSES:
            return 1.0 if len(self._wrong_of_all) >= _GUESSES_OF_ALL else 0.0
        pause = min(2.0 ** (len(own) - _GUESSES), _LONGEST_PAUSE)
        return max(0.0, own[-1] + pause - now)

    def check(self, token: str, address: str) -> bool:
        """Tell whether a token is the right one, in a time that does not depend on it; a wrong one is counted."""
        if self._digest is not None and hmac.compare_digest(_digest(token), self._digest):
            self._wrong.pop(address, None)
            return True
        self._wrong[address] = [*self._wrong.pop(address, [])[-2 * _GUESSES :], time.monotonic()]
        self._wrong_of_all = [*self._wrong_of_all[-_GUESSES_OF_ALL:], time.monotonic()]
        while len(self._wrong) > _ADDRESSES:
            self._wrong.popitem(last=False)
        return False

    def open_session(self) -> str:
        """Return a new session's name; the oldest ends where there are too many."""
        session = secrets.token_urlsafe(32)
        self._sessions[_digest(session)] = time.monotonic() + _SESSION_SECONDS
        while len(self._sessions) > _SESSIONS:
            self._sessions.popitem(last=False)
        return session

    def has_session(self, session: str) -> bool:
        """Tell whether a session is open."""
        return self._sessions.get(_digest(session), 0.0) > time.monotonic()

    def close_session(self, session: str) -> None:
        """End a session."""
        self._sessions.pop(_digest(session), None)


def is_loopback(host: str) -> bool:
    """Tell whether an address can only be reached from this computer; a name other than localhost is not."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode(errors="surrogatepass")).digest()
