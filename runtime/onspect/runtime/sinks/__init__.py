"""Receivers of verdicts: files, databases, pictures, and the machines of a line; each is a `Sink`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from onspect.runtime.lazy import public_names

if TYPE_CHECKING:
    from onspect.runtime.sinks.base import Delivery as Delivery
    from onspect.runtime.sinks.base import Sink as Sink
    from onspect.runtime.sinks.registry import open_sink as open_sink
    from onspect.runtime.sinks.registry import open_sinks as open_sinks

__all__, __getattr__, __dir__ = public_names(__name__, {"base": "Delivery Sink", "registry": "open_sink open_sinks"})
