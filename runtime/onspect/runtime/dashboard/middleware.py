"""Checks of every request and headers of every answer."""

from __future__ import annotations

import ipaddress
import socket
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

LARGEST_BODY = 4096
"""Largest size of a request in bytes; the page sends about a hundred."""

_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; connect-src 'self'; "
        "manifest-src 'self'; form-action 'none'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    "Cache-Control": "no-store",
}


class SecurityMiddleware:
    """Refuse requests that come from another site, under a foreign name or that are too large; add security headers.

    Parameters
    ----------
    app
        The application.
    largest_body
        Largest size of a request in bytes.
    """

    def __init__(self, app: ASGIApp, largest_body: int = LARGEST_BODY) -> None:
        self._app = app
        self._largest_body = largest_body

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a refusal, or pass the request on."""
        if scope["type"] != "http":
            return

        async def send_safely(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers[name] = value
            await send(message)

        refusal = _find_refusal(scope, self._largest_body)
        if refusal is None:
            await self._app(scope, receive, send_safely)
            return
        status, reason = refusal
        await JSONResponse({"error": reason}, status, {"Connection": "close"})(scope, receive, send_safely)


def _find_refusal(scope: Scope, largest: int) -> tuple[int, str] | None:
    headers = Headers(scope=scope)
    hosts = headers.getlist("host")
    if len(hosts) != 1 or not _is_own_name(hosts[0]):
        return 421, "this computer is not known by that name; use its address or its own name"
    if scope["method"] not in ("GET", "HEAD", "POST"):
        return 405, f"the method {scope['method']} is not known here"
    if _comes_from_elsewhere(scope, headers, hosts[0]):
        return 403, "requests from other sites are refused"
    length = headers.get("content-length", "0")
    if headers.get("transfer-encoding") is not None or not length.isdecimal() or int(length) > largest:
        return 413, f"a request needs a Content-Length of at most {largest} bytes"
    if scope["method"] == "POST" and headers.get("content-type", "").partition(";")[0] != "application/json":
        return 415, "send application/json"
    return None


def _is_own_name(host: str) -> bool:
    """Return whether a Host header is an address, localhost or this computer's name.

    A page on another site can point its own name to this computer (DNS rebinding), but it cannot change the host that
    the browser sends.
    """
    try:
        name = urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return False
    try:
        ipaddress.ip_address(name)
    except ValueError:
        own = socket.gethostname().lower()
        return name in ("localhost", own, own.partition(".")[0])
    return True


def _comes_from_elsewhere(scope: Scope, headers: Headers, host: str) -> bool:
    """Return whether a page of another site made the browser send this; a link to the page is accepted."""
    origin = headers.get("origin")
    if origin is not None and urlsplit(origin).netloc.lower() != host.lower():
        return True
    site = headers.get("sec-fetch-site", "none")
    is_link = scope["method"] == "GET" and headers.get("sec-fetch-mode") == "navigate" and scope["path"] == "/"
    return site not in ("none", "same-origin") and not is_link
