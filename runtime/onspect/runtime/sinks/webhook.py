"""Verdicts to a web server, one POST for each part, signed so that the server can check the sender."""

from __future__ import annotations

import hashlib
import hmac
import http.client
import ssl
import time
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from urllib.parse import urlsplit

from onspect.runtime.address import Options, split_url
from onspect.runtime.atomic import describe_os_error
from onspect.runtime.credentials import show_webhook
from onspect.runtime.errors import ChoiceError, OutputError, RefusedError
from onspect.runtime.explain import explaining
from onspect.runtime.inspection.inspector import Inspection
from onspect.runtime.sinks.base import Delivery, Sink
from onspect.runtime.sinks.columns import encode_verdict

_OPTIONS = {"secret": "env:NAME or file:PATH", "ca": "FILE"}
_TIMEOUT = 5.0  # seconds
_LONGEST_ANSWER = 65_536
_REFUSALS = frozenset({400, 413, 415, 422})
"""Answers that reject this verdict for good; any other failure may be temporary, even a wrong password."""


class WebhookSink(Sink):
    """Post each verdict as JSON; an answer of 2xx means delivered.

    Each request has an ``Idempotency-Key``, which is the same for each repetition of a verdict. With a secret it also
    has ``Onspect-Timestamp`` (seconds since 1970) and ``Onspect-Signature``: ``sha256=`` and the hexadecimal
    HMAC-SHA256 of the timestamp, a full stop and the body. Redirects are not followed.

    Parameters
    ----------
    url
        The URL.
    secret
        Key of the signature; None for no signature.
    ca
        File of the certificate authority; None for those of the system.
    timeout
        Longest wait for an answer, in seconds.
    """

    delivery: Delivery = "event"
    pictures = False

    def __init__(
        self, url: str, *, secret: str | None = None, ca: Path | None = None, timeout: float = _TIMEOUT
    ) -> None:
        parts = urlsplit(url)
        self.shown = show_webhook(url)
        self._target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        self._secret = None if secret is None else secret.encode(errors="surrogateescape")
        host, port = str(parts.hostname), parts.port
        self._connection: http.client.HTTPConnection
        if parts.scheme == "https":
            context = _read_authority(ca, self.shown)
            self._connection = http.client.HTTPSConnection(host, port, timeout=timeout, context=context)
        else:
            self._connection = http.client.HTTPConnection(host, port, timeout=timeout)

    def __exit__(self, *exception: object) -> None:
        self._connection.close()

    def write(self, inspection: Inspection) -> None:
        """Post one verdict.

        Parameters
        ----------
        inspection
            The inspection.

        Raises
        ------
        RefusedError
            If the server will never accept it.
        OutputError
            If the request failed.
        """
        self.write_lines([encode_verdict(inspection.verdict)])

    def write_lines(self, lines: Sequence[bytes]) -> None:
        """Post encoded verdicts, one request each.

        Parameters
        ----------
        lines
            One verdict each, as `encode_verdict` returns it.

        Raises
        ------
        RefusedError
            If the server will never accept one.
        OutputError
            If a request failed.
        """
        for line in lines:
            self._deliver(line)

    def _deliver(self, body: bytes) -> None:
        try:
            try:
                status = self._post(body)
            except (ConnectionError, http.client.BadStatusLine):
                status = self._post(body)  # the server had closed the idle connection
        except (OSError, http.client.HTTPException) as error:
            self._connection.close()
            why = describe_os_error(error) if isinstance(error, OSError) else type(error).__name__
            raise OutputError(f"cannot post to {self.shown}: {why}") from error
        if 200 <= status < 300:
            return
        self._connection.close()
        words = f"{status} {http.client.responses.get(status, '')}".strip()
        if status in _REFUSALS:
            raise RefusedError(f"{self.shown} refuses the verdict: {words}")
        hint = "; redirects are not followed, give the last address" if 300 <= status < 400 else ""
        raise OutputError(f"cannot post to {self.shown}: the answer is {words}{hint}")

    def check(self) -> str:
        """Connect to the server, with a check of its certificate over TLS, but without a request.

        Returns
        -------
        str
            One sentence about the server.

        Raises
        ------
        OutputError
            If the server cannot be reached.
        """
        with closing(self._connection), explaining(OutputError, f"cannot reach {self.shown}"):
            self._connection.connect()
        return "the server can be reached"

    def _post(self, body: bytes) -> int:
        """Send one request and return the status of the answer; the connection is kept for the next."""
        try:
            self._connection.request("POST", self._target, body, self._headers(body))
            with self._connection.getresponse() as response:
                response.read(_LONGEST_ANSWER)
                if not response.isclosed():  # the rest of the answer is not needed
                    self._connection.close()
                return response.status
        except BaseException:
            self._connection.close()
            raise

    def _headers(self, body: bytes) -> dict[str, str]:
        headers = {
            "Content-Type": "application/json",
            "User-Agent": "onspect",
            "Idempotency-Key": hashlib.sha256(body).hexdigest()[:32],
        }
        if self._secret is not None:
            stamp = str(int(time.time()))
            headers["Onspect-Timestamp"] = stamp
            headers["Onspect-Signature"] = f"sha256={sign(self._secret, stamp, body)}"
        return headers


def sign(secret: bytes, stamp: str, body: bytes) -> str:
    """Sign a request, as the server does to compare.

    Parameters
    ----------
    secret
        The key.
    stamp
        Value of ``Onspect-Timestamp``.
    body
        The body.

    Returns
    -------
    str
        Hexadecimal HMAC-SHA256 of ``stamp.body``.
    """
    return hmac.new(secret, stamp.encode() + b"." + body, hashlib.sha256).hexdigest()


def open_webhook(text: str, *, timeout: float = _TIMEOUT) -> WebhookSink:
    """Return the sink of a web server.

    Parameters
    ----------
    text
        The address, ``http[s]://HOST/PATH?QUERY#secret=env:NAME&ca=FILE``; the part after # is not sent.
    timeout
        Longest wait for an answer, in seconds.

    Returns
    -------
    WebhookSink
        The sink.

    Raises
    ------
    ChoiceError
        If the address or an option is not valid.
    """
    url, _, fragment = text.partition("#")
    shown = show_webhook(text)
    parts = split_url(url, shown)
    if "@" in parts.netloc:
        raise ChoiceError(
            f"the sink {shown!r} has a user or password before its host, where other users of this machine can read "
            "them; sign the requests with #secret=env:NAME instead, or give the whole address as env:NAME"
        )
    if not (url.isascii() and url.isprintable()) or " " in url:
        raise ChoiceError(f"the sink {shown!r} has letters that a URL cannot have; write them as %XX")
    options = Options(fragment, _OPTIONS, shown)
    if "ca" in options and parts.scheme != "https":
        raise ChoiceError(f"the sink {shown!r} names an authority with ca=; that needs https://")
    return WebhookSink(
        url,
        secret=options.secret("secret"),
        ca=options.path("ca"),
        timeout=timeout,
    )


def _read_authority(ca: Path | None, shown: str) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=ca)
    except OSError as error:
        why = "it has no certificate" if isinstance(error, ssl.SSLError) else describe_os_error(error)
        raise ChoiceError(
            f"the sink {shown!r} names the authority {str(ca)!r}, which cannot be used: {why}; check it"
        ) from error
