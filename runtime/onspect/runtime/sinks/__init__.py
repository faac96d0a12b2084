"""Consumers of verdicts: files, databases, pictures, and the machines beside the line.

A sink needs no more than `Sink`. Attributes say how a `Courier` is to treat it; without them it is an ``event`` that
wants pictures:

- ``delivery``: ``record`` (the line's own record: nothing is told outside before it is in; tried again for ever),
  ``event`` (must arrive, if late: tried again for ever, in order, from a spool on disk) or ``live`` (worth nothing
  later, as a PLC's coil: what cannot be delivered now is counted as lost).
- ``pictures``: whether it looks at frames and error maps; they are not kept in memory for one that does not.
- ``stale_after``: seconds after which a ``live`` sink no longer wants a verdict that waited.

The other protocols here are for sinks that can do more.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal, Protocol, Self, runtime_checkable

from onspect.runtime.errors import ChoiceError
from onspect.runtime.secrets import redact, resolve_secret

if TYPE_CHECKING:
    from onspect.runtime.inspector import Inspection
    from onspect.runtime.status import Commands, LineStatus
    from onspect.runtime.verdict import Verdict

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


_FILES = ("jsonl:FILE", "csv:FILE", "sqlite:FILE", "evidence:FOLDER")
_URLS = ("mqtt[s]://HOST/TOPIC", "http[s]://HOST/PATH", "modbus://HOST", "opcua://HOST", "prometheus://HOST")


@runtime_checkable
class CheckSink(Protocol):
    """A sink that can tell before the line runs whether its receiver is there."""

    def check(self) -> str:
        """Reach the receiver without telling it of a part, and say so in words; raises OutputError where it cannot."""
        ...


def open_sink(text: str, *, append: bool, evidence: bool = False) -> Sink:
    """Return the sink that a text such as ``jsonl:verdicts.jsonl`` names; it does nothing before it is entered.

    append: JSONL and CSV files keep what they hold. evidence: a sink of pictures runs beside it, so that a database
    can say where each picture lies. ``env:NAME`` and ``file:PATH`` stand for an address that is kept there.

    Raises ChoiceError where no sink has such a name, or not such options, and ImportError where its package is missing.
    """
    kind, _, target = text.partition(":")
    if target:
        match kind:
            case "jsonl" | "csv":
                from onspect.runtime.sinks.lines import open_lines

                return open_lines(text, append=append)
            case "sqlite":
                from onspect.runtime.sinks.sqlite import open_sqlite

                return open_sqlite(text, evidence=evidence)
            case "evidence":
                from onspect.runtime.sinks.evidence import open_evidence

                return open_evidence(text)
            case "mqtt" | "mqtts":
                from onspect.runtime.sinks.mqtt import open_mqtt

                return open_mqtt(text)
            case "http" | "https":
                from onspect.runtime.sinks.webhook import open_webhook

                return open_webhook(text)
            case "modbus":
                from onspect.runtime.sinks.modbus import open_modbus

                return open_modbus(text)
            case "prometheus":
                from onspect.runtime.sinks.prometheus import open_prometheus

                return open_prometheus(text)
            case "opcua":
                from onspect.runtime.sinks.opcua import open_opcua

                return open_opcua(text)
            case "env" | "file":
                return open_sink(resolve_secret(text), append=append, evidence=evidence)
    forms = ", ".join((*_FILES, *_URLS))
    raise ChoiceError(f"the sink {redact(text)!r} is not known; give one of {forms} (for lines, FILE may be -: stdout)")


def open_sinks(texts: Sequence[str], *, append: bool) -> list[Sink]:
    """Return the sinks that run side by side for one line, as `open_sink` does."""
    evidence = any(text.startswith("evidence:") for text in texts)
    return [open_sink(text, append=append, evidence=evidence) for text in texts]
