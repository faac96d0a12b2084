"""The server behind the page, in a thread of its own."""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
import threading
from pathlib import Path
from typing import Self

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from onspect.runtime.atomic import describe_os_error
from onspect.runtime.dashboard.app import TICK, WATCHERS, AppState, build_application
from onspect.runtime.dashboard.auth import Auth, is_loopback
from onspect.runtime.dashboard.history import Archive
from onspect.runtime.dashboard.label_desk import LabelDesk
from onspect.runtime.dashboard.label_routes import ROUTES
from onspect.runtime.dashboard.renderer import RenderWorker
from onspect.runtime.dashboard.state import DashboardState
from onspect.runtime.errors import ChoiceError, OutputError
from onspect.runtime.inspection.inspector import Inspection
from onspect.runtime.labels.lessons import ADDITIONS
from onspect.runtime.labels.store import labels_path
from onspect.runtime.sinks.base import Delivery, Sink
from onspect.runtime.status import Commands, LineStatus, SinkState

_LOG = logging.getLogger("onspect")

_CONNECTIONS = 64
_LARGEST_HEAD = 16 * 1024  # bytes of a request's line and headers
_LOOK = 5.0  # seconds
_FAREWELL = 3.0  # seconds for which a closing server waits for its clients


class Dashboard(Sink):
    """A sink that shows the line in a browser, at http://HOST:PORT/.

    address: HOST:PORT; port 0 takes any that is free. token: what a browser must know to change anything, and to see
    anything where the address can be reached from other computers. history: the database that the line writes
    (`SqliteSink`); with a token, parts can be labelled, and the labels are beside it. evidence: the folder of its
    pictures (`EvidenceSink`). additions: parts that may be taught in one shift. watchers: how many pages may be open at
    a time. tick: seconds between two looks at what there is to show. look: seconds between two looks at clients that
    neither send nor read; after two of them the connection is closed.

    Raises ChoiceError where the address is none, where others could reach it without a token, and for a token that can
    be guessed; entering raises OutputError where the address cannot be had.
    """

    delivery: Delivery = "live"

    def __init__(
        self,
        address: str,
        *,
        token: str | None = None,
        history: Path | None = None,
        evidence: Path | None = None,
        additions: int = ADDITIONS,
        watchers: int = WATCHERS,
        tick: float = TICK,
        look: float = _LOOK,
    ) -> None:
        self._host, self._port = parse_address(address)
        local = is_loopback(self._host)
        if not local and token is None:
            raise ChoiceError(
                f"the dashboard at {address!r} could be seen by other computers: give it a token, "
                "or take 127.0.0.1 so that only this computer sees it"
            )
        self._room = AppState(
            board=DashboardState(),
            darkroom=RenderWorker(),
            archive=Archive(history, evidence),
            access=Auth(token),
            desk=None if token is None or history is None else LabelDesk(labels_path(history), additions=additions),
            open_to_see=local,
            most_watchers=watchers,
            tick=tick,
        )
        self._protocol = type("_Protocol", (_PatientProtocol,), {"look_seconds": look})
        self._server: uvicorn.Server | None = None
        self._thread: threading.Thread | None = None

    @property
    def url(self) -> str:
        """Where the page is."""
        host = f"[{self._host}]" if ":" in self._host else self._host
        return f"http://{host}:{self._port}/"

    def __enter__(self) -> Self:
        listener = self._listen()
        config = uvicorn.Config(
            build_application(self._room, ROUTES),
            http=self._protocol,
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
            target=self._server.run, args=([listener],), name="onspect-dashboard", daemon=True
        )
        self._thread.start()
        self._room.darkroom.open()
        if self._room.desk is not None:
            self._room.desk.open()
        return self

    def __exit__(self, *exception: object) -> None:
        self._room.closing = True
        if self._server is not None and self._thread is not None:
            self._server.should_exit = True
            self._thread.join(_FAREWELL)
        self._room.darkroom.close()
        if self._room.desk is not None:
            self._room.desk.close()

    def write(self, inspection: Inspection) -> None:
        """Show an inspection; takes microseconds, whoever looks."""
        shown = self._room.board.add(inspection)
        if inspection.verdict.verdict != "ok":
            self._room.darkroom.keep(shown)
        if self._room.desk is not None:
            self._room.desk.write(inspection)

    def report(self, status: LineStatus) -> None:
        """Show how the line is."""
        self._room.board.report(status)
        if self._room.desk is not None:
            self._room.desk.report(status)

    def state(self) -> SinkState:
        """Return how many inspections were shown."""
        return SinkState(f"dashboard {self._host}:{self._port}", delivered=self._room.board.number)

    def attach(self, commands: Commands) -> None:
        """Move this line's threshold, from now on, where somebody with the token asks for it."""
        self._room.commands = commands
        if self._room.desk is not None:
            self._room.desk.attach(commands)

    def _listen(self) -> socket.socket:
        family = socket.AF_INET6 if ":" in self._host else socket.AF_INET
        listener = socket.socket(family, socket.SOCK_STREAM)
        try:
            if hasattr(socket, "SO_EXCLUSIVEADDRUSE"):  # on Windows another program could take over the port
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_EXCLUSIVEADDRUSE, 1)
            else:
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind((self._host, self._port))
        except (OSError, UnicodeError) as error:
            listener.close()
            cure = "give another port, or end the program that has it"
            if not isinstance(error, OSError) or error.errno not in (errno.EADDRINUSE, errno.EACCES):
                cure = "give an address of this computer"
            words = describe_os_error(error) if isinstance(error, OSError) else "the host is no name"
            raise OutputError(f"cannot open the dashboard at {self._host}:{self._port}: {words}; {cure}") from error
        listener.listen(_CONNECTIONS)
        self._port = listener.getsockname()[1]
        return listener


def parse_address(address: str) -> tuple[str, int]:
    """Return host and port of ``HOST:PORT`` or ``[IPV6]:PORT``; raises ChoiceError where it is none."""
    host, _, port = address.rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        host = ""
    if not host or not (port.isascii() and port.isdigit()) or int(port) > 65535:
        raise ChoiceError(f"the dashboard's address is {address!r}; give HOST:PORT, such as 127.0.0.1:8080")
    return host, int(port)


class _Server(uvicorn.Server):
    """Leaves no connection behind, whatever its client does."""

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        await super().shutdown(sockets)
        for connection in list(self.server_state.connections):
            transport = getattr(connection, "transport", None)
            if transport is not None:
                transport.abort()
        for _ in range(3):  # turns of the loop, in which sockets are closed
            await asyncio.sleep(0)


class _PatientProtocol(H11Protocol):
    """Ends connections of clients that neither send nor read: uvicorn alone would keep them for ever."""

    look_seconds = _LOOK
    patience = 2  # looks

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._idle = 0
        self._unread = 0
        self._stuck = 0
        self._served: object = None
        self._look = self.loop.call_later(self.look_seconds, self._look_after)

    def connection_lost(self, exc: Exception | None) -> None:
        self._look.cancel()
        super().connection_lost(exc)

    def _look_after(self) -> None:
        unread = self.transport.get_write_buffer_size()
        self._stuck = self._stuck + 1 if unread > 0 and unread >= self._unread else 0
        self._unread = unread
        serving = self.cycle is not None and not self.cycle.response_complete
        self._idle = 0 if serving or self.cycle is not self._served else self._idle + 1
        self._served = self.cycle
        if self._stuck >= self.patience or self._idle >= self.patience:
            self.transport.abort()
            return
        self._look = self.loop.call_later(self.look_seconds, self._look_after)
