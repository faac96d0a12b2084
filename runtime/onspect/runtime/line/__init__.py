"""A production line from cameras to sinks: `Line` and its parts.

A line never passes a part that it did not judge. A lost, damaged or late frame becomes a ``fault`` with its reason, and
every frame is counted.
"""

from onspect.runtime.line.alarm import AlarmRule
from onspect.runtime.line.frame_check import Health
from onspect.runtime.line.frame_queue import Policy
from onspect.runtime.line.loop import Line, Timing
from onspect.runtime.line.models import Models
from onspect.runtime.line.voting import Voting

__all__ = ["AlarmRule", "Health", "Line", "Models", "Policy", "Timing", "Voting"]
