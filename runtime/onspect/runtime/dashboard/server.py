"""The dashboard: a sink that shows a line in a browser."""

from __future__ import annotations

from pathlib import Path
from typing import Self

from onspect.runtime.dashboard.app import TICK, WATCHERS, AppState, build_application
from onspect.runtime.dashboard.auth import Auth, is_loopback
from onspect.runtime.dashboard.history import Archive
from onspect.runtime.dashboard.history_routes import HISTORY_ROUTES
from onspect.runtime.dashboard.http_server import LOOK, BackgroundServer
from onspect.runtime.dashboard.label_desk import LabelDesk
from onspect.runtime.dashboard.label_routes import ROUTES
from onspect.runtime.errors import ChoiceError
from onspect.runtime.inspection.inspector import Inspection
from onspect.runtime.labels.lessons import ADDITIONS
from onspect.runtime.labels.store import labels_path
from onspect.runtime.sinks.base import Delivery, Sink
from onspect.runtime.status import Commands, LineStatus, SinkState


class Dashboard(Sink):
    """A sink that shows the line in a browser, at http://HOST:PORT/.

    Parameters
    ----------
    address
        HOST:PORT; port 0 is a free one.
    token
        Secret that a browser needs for changes, and also for looking if other computers can reach the address. None if
        nothing can be changed.
    history
        The database that the line writes (`SqliteSink`); with a token, parts can be labelled. None without one.
    evidence
        The folder of pictures of the line (`EvidenceSink`); None without one.
    additions
        Largest number of parts that may be taught in one shift.
    watchers
        Largest number of open pages.
    tick
        Seconds between two updates of a page.
    look
        Seconds between two checks for clients that neither send nor read; after two checks the connection is closed.

    Raises
    ------
    ChoiceError
        If the address is not valid, if others could reach it without a token, or if the token can be guessed.
    OutputError
        When it is entered, if the address is not available.
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
        look: float = LOOK,
    ) -> None:
        self._server = BackgroundServer(address, "dashboard", look=look)
        self.listens = self._server.host, self._server.port
        local = is_loopback(self._server.host)
        if not local and token is None:
            raise ChoiceError(
                f"the dashboard at {address!r} could be seen by other computers: give it a token, "
                "or take 127.0.0.1 so that only this computer sees it"
            )
        self._app_state = AppState(
            archive=Archive(history, evidence),
            auth=Auth(token),
            desk=None if token is None or history is None else LabelDesk(labels_path(history), additions=additions),
            open_to_see=local,
            most_watchers=watchers,
            tick=tick,
        )

    @property
    def url(self) -> str:
        """Address of the page."""
        return self._server.url

    def __enter__(self) -> Self:
        self._server.start(build_application(self._app_state, HISTORY_ROUTES, ROUTES))
        self._app_state.renderer.open()
        if self._app_state.desk is not None:
            self._app_state.desk.open()
        return self

    def __exit__(self, *exception: object) -> None:
        self._app_state.closing = True
        self._server.stop()
        self._app_state.renderer.close()
        if self._app_state.desk is not None:
            self._app_state.desk.close()

    def write(self, inspection: Inspection) -> None:
        """Show an inspection; takes microseconds for any number of clients.

        Parameters
        ----------
        inspection
            The inspection.
        """
        shown = self._app_state.displayed.add(inspection)
        if inspection.verdict.verdict != "ok":
            self._app_state.renderer.keep(shown)
        if self._app_state.desk is not None:
            self._app_state.desk.write(inspection)

    def report(self, status: LineStatus) -> None:
        """Show the status of the line.

        Parameters
        ----------
        status
            The status.
        """
        self._app_state.displayed.report(status)
        if self._app_state.desk is not None:
            self._app_state.desk.report(status)

    def state(self) -> SinkState:
        """Return the state of the sink.

        Returns
        -------
        SinkState
            The state, with the number of shown inspections.
        """
        return SinkState(
            f"dashboard {self._server.host}:{self._server.port}", delivered=self._app_state.displayed.number
        )

    def attach(self, commands: Commands) -> None:
        """Accept changes for this line from now on, from browsers with the token.

        Parameters
        ----------
        commands
            The commands of the line.
        """
        self._app_state.commands = commands
        if self._app_state.desk is not None:
            self._app_state.desk.attach(commands)
