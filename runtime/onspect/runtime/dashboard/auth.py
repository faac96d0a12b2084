"""Access to the dashboard: one token, sessions, and a limit on guesses."""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import secrets
import time
from collections import OrderedDict
from contextlib import suppress

from onspect.runtime.errors import ChoiceError

SHORTEST_TOKEN = 12
"""Smallest number of characters of a token."""

_SESSIONS = 64
_SESSION_SECONDS = 12 * 3600.0  # longer than a shift
_GUESSES = 5  # wrong tokens of one address in a minute before it must pause
_GUESSES_OF_ALL = 30  # wrong tokens of all addresses in a minute
_LONGEST_PAUSE = 30.0  # longest pause after a wrong token, in seconds
_MINUTE = 60.0
_ADDRESSES = 1024


class Auth:
    """The token and the sessions that were opened with it; used in the server's one thread.

    Parameters
    ----------
    token
        The token, 12 characters or more; None if nothing can be changed.

    Raises
    ------
    ChoiceError
        If the token can be guessed.
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
        """Whether there is a token, so that changes are possible."""
        return self._digest is not None

    def wait_seconds(self, address: str) -> float:
        """Return the pause before the next try of an address.

        After five wrong tokens in a minute each further one costs a pause: 1 second, then 2, 4 and so on, up to 30.
        While all addresses together send many, every try costs a second. Nobody is locked out by the guesses of others.

        Parameters
        ----------
        address
            Address of the client.

        Returns
        -------
        float
            Seconds; 0 if it may try now.
        """
        now = time.monotonic()
        own = [moment for moment in self._wrong.get(address, []) if now - moment < _MINUTE]
        self._wrong_of_all = [moment for moment in self._wrong_of_all if now - moment < _MINUTE]
        if len(own) < _GUESSES:
            return 1.0 if len(self._wrong_of_all) >= _GUESSES_OF_ALL else 0.0
        pause = min(2.0 ** (len(own) - _GUESSES), _LONGEST_PAUSE)
        return max(0.0, own[-1] + pause - now)

    def check(self, token: str, address: str) -> bool:
        """Compare a token, in a time that does not depend on it; a wrong token is counted.

        Parameters
        ----------
        token
            The token of the client.
        address
            Address of the client.

        Returns
        -------
        bool
            Whether the token is right.
        """
        if self._digest is not None and hmac.compare_digest(_digest(token), self._digest):
            self._wrong.pop(address, None)
            return True
        self._wrong[address] = [*self._wrong.pop(address, [])[-2 * _GUESSES :], time.monotonic()]
        self._wrong_of_all = [*self._wrong_of_all[-_GUESSES_OF_ALL:], time.monotonic()]
        while len(self._wrong) > _ADDRESSES:
            self._wrong.popitem(last=False)
        return False

    def open_session(self) -> str:
        """Open a session; if there are too many, the oldest ends.

        Returns
        -------
        str
            Name of the session, for a cookie.
        """
        session = secrets.token_urlsafe(32)
        self._sessions[_digest(session)] = time.monotonic() + _SESSION_SECONDS
        while len(self._sessions) > _SESSIONS:
            self._sessions.popitem(last=False)
        return session

    def has_session(self, session: str) -> bool:
        """Return whether a session is open.

        Parameters
        ----------
        session
            Name of the session.

        Returns
        -------
        bool
            True until it ends.
        """
        return self._sessions.get(_digest(session), 0.0) > time.monotonic()

    def close_session(self, session: str) -> None:
        """End a session.

        Parameters
        ----------
        session
            Name of the session.
        """
        self._sessions.pop(_digest(session), None)


def is_loopback(host: str) -> bool:
    """Return whether only this computer can reach an address.

    Parameters
    ----------
    host
        Address or name.

    Returns
    -------
    bool
        False for every name other than localhost.
    """
    with suppress(ValueError):
        return ipaddress.ip_address(host).is_loopback
    return host.lower() == "localhost"


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode(errors="surrogatepass")).digest()
