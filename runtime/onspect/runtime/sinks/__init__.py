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

from onspect.runtime.sinks.base import (
    BatchSink,
    CheckSink,
    CommandSink,
    Delivery,
    FlushSink,
    RecentSink,
    Sink,
    StatusSink,
)
from onspect.runtime.sinks.registry import open_sink, open_sinks

__all__ = [
    "BatchSink",
    "CheckSink",
    "CommandSink",
    "Delivery",
    "FlushSink",
    "RecentSink",
    "Sink",
    "StatusSink",
    "open_sink",
    "open_sinks",
]
