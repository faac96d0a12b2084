"""Base class of all sinks; a subclass must implement only `write`."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

if TYPE_CHECKING:
    from onspect.runtime.inspection.inspector import Inspection
    from onspect.runtime.inspection.verdict import Verdict
    from onspect.runtime.status import Commands, LineStatus, SinkState


Delivery = Literal["record", "event", "live"]


class Sink(ABC):
    """Receiver of inspections, used as a context manager.

    A subclass implements `write`. Every other method has a default that does nothing, and the defaults of the
    attributes fit a receiver of events.
    """

    delivery: Delivery = "event"
    """How a `QueuedSink` delivers.

    ``record``: the line's own record, which is written before any receiver gets the verdict; retried without end.
    ``event``: must arrive, even late; retried without end, in order, from a spool on disk.
    ``live``: is useless later, as a PLC's coil; a verdict that cannot be delivered now counts as lost.
    """

    pictures: bool = True
    """Whether it uses frames and error maps; a `QueuedSink` drops them for a sink that does not."""

    stale_after: float = math.inf
    """Seconds after which a ``live`` sink no longer wants a waiting verdict."""

    batch: int = 1
    """Largest number of verdicts that `write_many` and `write_lines` take at once."""

    wants_status: bool = False
    """Whether it uses the line's status; a `QueuedSink` calls `report` only then."""

    history: Path | None = None
    """The database that it writes and `sinks.history` can read; None for none."""

    listens: tuple[str, int] | None = None
    """Host and port of this machine that it listens on; the host is "" for all of them. None if it does not listen."""

    evidence: Path | None = None
    """The folder of pictures that it writes; None for none."""

    def __enter__(self) -> Self:
        """Open files and connections. A receiver that is not available yet is not an error."""
        return self

    def __exit__(self, *exception: object) -> None:
        """Write the remaining verdicts, and close files and connections."""
        return

    @abstractmethod
    def write(self, inspection: Inspection) -> None:
        """Write one inspection.

        Parameters
        ----------
        inspection
            The inspection.

        Raises
        ------
        OutputError
            If it cannot be written now.
        RefusedError
            If the receiver will never accept it.
        """

    def write_many(self, inspections: Sequence[Inspection]) -> None:
        """Write several inspections in order. After an error, all of them are written again.

        Parameters
        ----------
        inspections
            The inspections, at most `batch`.

        Raises
        ------
        OutputError
            If they cannot be written now.
        RefusedError
            If the receiver will never accept them.
        """
        for inspection in inspections:
            self.write(inspection)

    def write_lines(self, lines: Sequence[bytes]) -> None:
        """Write the verdicts of a spool, as `write_many` does.

        Parameters
        ----------
        lines
            One verdict each, as `encode_verdict` returns it, without the end of the line.

        Raises
        ------
        OutputError
            If they cannot be written now.
        RefusedError
            If the receiver will never accept them.
        """
        # imported here because it loads the model's runtime
        from onspect.runtime.inspection.inspector import Inspection
        from onspect.runtime.inspection.verdict import parse_verdict

        self.write_many([Inspection.without_picture(parse_verdict(line)) for line in lines])

    def flush(self) -> None:
        """Force written data to the disk, so that it survives a power cut; raises OutputError.

        Called about once a second for a ``record`` sink, from another thread than `write`.
        """
        return

    def note_lost(self, inspections: Sequence[Inspection]) -> None:  # noqa: B027 - an optional hook
        """Note that inspections were given up for good before or by `write`; called from any thread.

        Parameters
        ----------
        inspections
            The inspections.
        """

    def read_recent(self, count: int) -> list[Verdict] | None:  # noqa: ARG002 - used by sinks that keep a record
        """Return the last verdicts of earlier runs, if the sink keeps a record.

        Parameters
        ----------
        count
            Largest number of verdicts, 1 or more.

        Returns
        -------
        list[Verdict] | None
            The verdicts, oldest first; None if it keeps no record.

        Raises
        ------
        OutputError
            If the record cannot be read.
        """
        return None

    def report(self, status: LineStatus) -> None:  # noqa: B027 - an optional hook
        """Write the status of the line; called about once a second.

        Parameters
        ----------
        status
            The status.

        Raises
        ------
        OutputError
            If it cannot be delivered.
        """

    def note(self, change: Mapping[str, Any]) -> None:  # noqa: B027 - an optional hook
        """Record a change that a person made; returns at once.

        Parameters
        ----------
        change
            JSON object (`labels.audit.Change`).
        """

    def attach(self, commands: Commands) -> None:  # noqa: B027 - an optional hook
        """Accept commands for a line from now on.

        Parameters
        ----------
        commands
            The commands of the line.
        """

    def check(self) -> str:
        """Reach the receiver without sending a verdict.

        Returns
        -------
        str
            One sentence about the receiver.

        Raises
        ------
        OutputError
            If the receiver cannot be reached.
        """
        return "can be opened"

    def probe(self) -> str:
        """Check whether the sink can work, without entering it and without writing or sending anything.

        The default enters the sink and calls `check`, which fits sinks that write nothing when they are entered.

        Returns
        -------
        str
            One sentence about the receiver.

        Raises
        ------
        OutputError
            If the sink cannot work.
        """
        with self:
            return self.check()

    def state(self) -> SinkState:
        """Return the state of the sink; may be called from any thread.

        Returns
        -------
        SinkState
            The state.
        """
        from onspect.runtime.status import SinkState  # imported here because only a running line needs it

        return SinkState(type(self).__name__)
