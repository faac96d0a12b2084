"""Receivers of verdicts: files, databases, pictures, and the machines of a line; each is a `Sink`."""

from __future__ import annotations

from onspect.runtime.sinks.base import Delivery, Sink
from onspect.runtime.sinks.registry import open_sink, open_sinks

__all__ = ["Delivery", "Sink", "open_sink", "open_sinks"]
