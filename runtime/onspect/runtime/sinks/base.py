"""What a sink is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal, Protocol, Self, runtime_checkable

if TYPE_CHECKING:
    from onspect.runtime.inspection.inspector import Inspection
    from onspect.runtime.inspection.verdict import Verdict
    from onspect.runtime.status import Commands, LineStatus


Delivery = Literal["record", "event", "live"]


class Sink(Protocol):
    """Takes inspections one by one; used as a context manager."""

    def __enter__(self) -> Self:
        """Open what must be open; a receiver that is not there yet is no error."""
        ...

    def __exit__(self, *exception: object) -> None:
        """Close it, with everything written."""
        ...

    def write(self, inspection: Inspection) -> None:
        """Take one inspection; raises OutputError where it cannot be kept, RefusedError where it never will be."""
        ...


@runtime_checkable
class BatchSink(Protocol):
    """A sink that takes many inspections faster than one by one."""

    def write_many(self, inspections: Sequence[Inspection]) -> None:
        """Take all of them, in order, or raise as `write`; then all of them come again."""
        ...


@runtime_checkable
class FlushSink(Protocol):
    """A sink whose writes outlive the process at once, and the power only once they are flushed."""

    def flush(self) -> None:
        """Bring what was written to the disk itself; raises OutputError.

        Called about once a second from a thread of its own, also while another verdict is being written.
        """
        ...


@runtime_checkable
class RecentSink(Protocol):
    """A record that can say what it holds from the run before."""

    def read_recent(self, count: int) -> list[Verdict]:
        """Return its last verdicts, oldest first, before anything new is written; raises OutputError."""
        ...


@runtime_checkable
class StatusSink(Protocol):
    """A sink that also tells how the line is."""

    def report(self, status: LineStatus) -> None:
        """Take the line's status, about once a second; raises OutputError where it cannot be delivered."""
        ...


@runtime_checkable
class CommandSink(Protocol):
    """A sink through which the line can be told something."""

    def attach(self, commands: Commands) -> None:
        """Carry out on this line, from now on, what comes in."""
        ...


@runtime_checkable
class CheckSink(Protocol):
    """A sink that can tell before the line runs whether its receiver is there."""

    def check(self) -> str:
        """Reach the receiver without telling it of a part, and say so in words; raises OutputError where it cannot."""
        ...
