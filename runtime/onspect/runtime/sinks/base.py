"""What a sink is: one abstract class, of which only `write` must be filled in."""

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
    """Takes inspections, one by one; used as a context manager.

    A subclass fills in `write`. Every other method has a default that does nothing, and every attribute a default that
    fits a receiver of events.
    """

    delivery: Delivery = "event"
    """How a `QueuedSink` delivers.

    ``record``: the line's own record; nothing is told outside before it is in; tried again for ever.
    ``event``: must arrive, if late; tried again for ever, in order, from a spool on disk.
    ``live``: has no worth later, as a PLC's coil; what cannot be delivered now is counted as lost.
    """

    pictures: bool = True
    """Whether it uses frames and error maps; a `QueuedSink` keeps none in memory for a sink that does not."""

    stale_after: float = math.inf
    """Seconds after which a ``live`` sink no longer wants a verdict that waited."""

    batch: int = 1
    """Verdicts that `write_many` and `write_lines` take at once at most."""

    wants_status: bool = False
    """Whether `report` delivers the line's status; a `QueuedSink` calls it only then."""

    history: Path | None = None
    """The database that `sinks.history` can read, of a sink that writes one."""

    listens: tuple[str, int] | None = None
    """Host and port of this machine that it listens on, of a sink that does; the host is "" for all of them."""

    evidence: Path | None = None
    """The folder of pictures, of a sink that keeps some."""

    def __enter__(self) -> Self:
        """Open files and connections. A receiver that is not there yet is no error."""
        return self

    def __exit__(self, *exception: object) -> None:
        """Write what is left, and close files and connections."""
        return

    @abstractmethod
    def write(self, inspection: Inspection) -> None:
        """Take one inspection; raises OutputError if it cannot be kept now, RefusedError if it never will be."""

    def write_many(self, inspections: Sequence[Inspection]) -> None:
        """Take several inspections in order, or raise as `write`; then all of them come again."""
        for inspection in inspections:
            self.write(inspection)

    def write_lines(self, lines: Sequence[bytes]) -> None:
        """Take verdicts as the bytes that a spool holds (`encode_verdict`, without the line's end), as `write_many`."""
        from onspect.runtime.inspection.inspector import Inspection  # here, for it loads the model's runtime
        from onspect.runtime.inspection.verdict import parse_verdict

        self.write_many([Inspection.without_picture(parse_verdict(line)) for line in lines])

    def flush(self) -> None:
        """Bring what was written to the disk itself, so that it outlives a power cut; raises OutputError.

        Called about once a second for a ``record`` sink, from another thread than the one that writes.
        """
        return

    def note_lost(self, inspections: Sequence[Inspection]) -> None:  # noqa: B027 - for those that want to know
        """Take note that some inspections were given up for good before, or by, `write`; called from any thread."""

    def read_recent(self, count: int) -> list[Verdict] | None:  # noqa: ARG002 - for those that keep a record
        """Return the last verdicts of earlier runs, oldest first, or None if it keeps none; raises OutputError."""
        return None

    def report(self, status: LineStatus) -> None:  # noqa: B027 - for those that want it
        """Take the line's status, about once a second; raises OutputError if it cannot be delivered."""

    def note(self, change: Mapping[str, Any]) -> None:  # noqa: B027 - for those that tell others
        """Take a change that a person made, a JSON object (`labels.audit.Change`); returns at once."""

    def attach(self, commands: Commands) -> None:  # noqa: B027 - for those that take commands
        """Carry out commands that come in on this line from now on."""

    def check(self) -> str:
        """Reach the receiver without sending a verdict and return what was found, in words; raises OutputError."""
        return "can be opened"

    def probe(self) -> str:
        """Look, without entering it, whether the sink can work; nothing is written, and no receiver is told anything.

        Returns what was found, in words; raises OutputError. By default the sink is entered and checked, which fits
        those that write nothing by that.
        """
        with self:
            return self.check()

    def state(self) -> SinkState:
        """Return how the sink is; may be called from any thread."""
        from onspect.runtime.status import SinkState  # here, for only a running line asks

        return SinkState(type(self).__name__)
