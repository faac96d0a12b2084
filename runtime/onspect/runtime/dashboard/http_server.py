"""An HTTP server in its own thread, which no client can block."""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import socket
import sys
import threading
import time
from contextlib import suppress
from typing import Any, BinaryIO

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

from onspect.runtime.atomic import describe_os_error
from onspect.runtime.errors import ChoiceError, OutputError

LOOK = 5.0
"""Seconds between two checks for clients that neither send nor read."""

_CONNECTIONS = 64
_RESERVED = 64  # file descriptors that are reserved for cameras and sinks
_EXHAUSTED_S = 0.05
_LARGEST_HEAD = 16 * 1024  # bytes of a request's line and headers
_FAREWELL = 3.0  # seconds that a closing server waits for its clients


class BackgroundServer:
    """Serve an application at HOST:PORT.

    Parameters
    ----------
    address
        HOST:PORT; port 0 is a free one.
    name
        Name in messages.
    look
        Seconds between two checks for clients that neither send nor read; after two checks the connection is closed.

    Raises
    ------
    ChoiceError
        If the address is not valid.
    """

    def __init__(self, address: str, name: str, *, look: float = LOOK) -> None:
        self.host, self.port = parse_address(address, name)
        self._name = name
        self._protocol = type("_Protocol", (_PatientProtocol,), {"look_seconds": look})
        self._server: uvicorn.Server | None = None
        self._thread: threading.Thread | None = None

    @property
    def url(self) -> str:
        """Address of the page."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.port}/"

    def start(self, application: ASGIApp) -> None:
        """Begin to serve.

        Parameters
        ----------
        application
            The ASGI application.

        Raises
        ------
        OutputError
            If the address is not available.
        """
        listener = self._listen()
        config = uvicorn.Config(
            application,
            http=self._protocol,
            loop="asyncio",
            backlog=_CONNECTIONS,
            ws="none",
            lifespan="off",
            log_config=None,
            log_level=logging.CRITICAL,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            limit_concurrency=_CONNECTIONS,
            h11_max_incomplete_event_size=_LARGEST_HEAD,
            timeout_graceful_shutdown=1,
        )
        self._server = _Server(config)
        self._thread = threading.Thread(
            target=self._server.run, args=([listener],), name=f"onspect-{self._name}", daemon=True
        )
        self._thread.start()

    def stop(self) -> None:
        """Close all connections and end the thread."""
        if self._server is not None and self._thread is not None:
            self._server.should_exit = True
            self._thread.join(_FAREWELL)

    def _listen(self) -> socket.socket:
        family = socket.AF_INET6 if ":" in self.host else socket.AF_INET
        listener = _Listener(family, socket.SOCK_STREAM)
        try:
            if hasattr(socket, "SO_EXCLUSIVEADDRUSE"):  # otherwise another program could take over the port on Windows
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_EXCLUSIVEADDRUSE, 1)
            else:
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind((self.host, self.port))
        except (OSError, UnicodeError) as error:
            listener.close()
            cure = "give another port, or end the program that has it"
            if not isinstance(error, OSError) or error.errno not in (errno.EADDRINUSE, errno.EACCES):
                cure = "give an address of this computer"
            words = describe_os_error(error) if isinstance(error, OSError) else "the host is not a name"
            raise OutputError(f"cannot open the {self._name} at {self.host}:{self.port}: {words}; {cure}") from error
        listener.listen(_CONNECTIONS)
        self.port = listener.getsockname()[1]
        return listener


def parse_address(address: str, name: str = "dashboard") -> tuple[str, int]:
    """Return host and port of ``HOST:PORT`` or ``[IPV6]:PORT``.

    Parameters
    ----------
    address
        The address.
    name
        Name of the address in messages.

    Returns
    -------
    tuple[str, int]
        Host and port, 0 to 65535.

    Raises
    ------
    ChoiceError
        If the address is not valid.
    """
    host, _, port = address.rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        host = ""
    if not host or not (port.isascii() and port.isdigit()) or int(port) > 65535:
        raise ChoiceError(f"the {name}'s address is {address!r}; give HOST:PORT, such as 127.0.0.1:8080")
    return host, int(port)


class _Server(uvicorn.Server):
    """A server that closes every connection at its end."""

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        await super().shutdown(sockets)
        for connection in list(self.server_state.connections):
            transport = getattr(connection, "transport", None)
            if transport is not None:
                transport.abort()
        for _ in range(3):  # the loop closes sockets in its next turns
            await asyncio.sleep(0)


class _Listener(socket.socket):
    """A listener that never takes the last file descriptors: cameras and sinks need them.

    A connection without room is accepted and closed at once. asyncio alone would leave it in the queue, and log
    thousands of lines while it waits.
    """

    def __init__(self, family: int, kind: int) -> None:
        super().__init__(family, kind)
        self._spare: BinaryIO | None = open(os.devnull, "rb")  # noqa: SIM115, PTH123 - closed to accept with none left
        self._highest = _count_descriptors() - _RESERVED

    def accept(self) -> tuple[socket.socket, Any]:
        try:
            connection, address = super().accept()
        except OSError as error:
            if error.errno not in (errno.EMFILE, errno.ENFILE):
                raise
            self._refuse_one()
            raise ConnectionAbortedError from None
        if connection.fileno() >= self._highest:
            connection.close()
            raise ConnectionAbortedError
        return connection, address

    def close(self) -> None:
        if self._spare is not None:
            self._spare.close()
        super().close()

    def _refuse_one(self) -> None:
        """Accept a connection with the reserved descriptor, and close it."""
        if self._spare is not None:
            self._spare.close()
            self._spare = None
        with suppress(OSError):
            super().accept()[0].close()
        try:
            self._spare = open(os.devnull, "rb")  # noqa: SIM115, PTH123 - as above
        except OSError:
            time.sleep(_EXHAUSTED_S)  # another thread has taken it; without a pause this loop would use a whole core


def _count_descriptors() -> int:
    """Return the largest number of file descriptors of this process."""
    try:
        import resource
    except ImportError:  # Windows has no such limit
        return sys.maxsize
    soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return sys.maxsize if soft == resource.RLIM_INFINITY else soft


class _PatientProtocol(H11Protocol):
    """Close connections of clients that neither send nor read; uvicorn alone would keep them.

    If there are too many connections, the oldest idle one is closed, so half-open connections block nobody.
    """

    look_seconds = LOOK
    patience = 2  # checks

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # uvicorn names its own kind of transport
        super().connection_made(transport)
        self._idle = 0
        self._unread = 0
        self._stuck = 0
        self._served: object = None
        self._since = time.monotonic()
        self._look = self.loop.call_later(self.look_seconds, self._look_after)
        if len(self.connections) >= _CONNECTIONS:
            self._make_room()

    def _make_room(self) -> None:
        others = [one for one in self.connections if isinstance(one, _PatientProtocol) and one is not self]
        idle = [one for one in others if not one.is_serving and not one.transport.is_closing()]
        oldest = min(idle, key=lambda one: one._since, default=self)
        self.connections.discard(oldest)
        oldest.transport.abort()

    @property
    def is_serving(self) -> bool:
        """Whether a request is being answered."""
        return self.cycle is not None and not self.cycle.response_complete

    def connection_lost(self, exc: Exception | None) -> None:
        self._look.cancel()
        super().connection_lost(exc)

    def _look_after(self) -> None:
        unread = self.transport.get_write_buffer_size()
        self._stuck = self._stuck + 1 if unread > 0 and unread >= self._unread else 0
        self._unread = unread
        self._idle = 0 if self.is_serving or self.cycle is not self._served else self._idle + 1
        self._served = self.cycle
        if self._stuck >= self.patience or self._idle >= self.patience:
            self.transport.abort()
            return
        self._look = self.loop.call_later(self.look_seconds, self._look_after)
