"""The loop beside the line, from cameras to sinks: `Line` and what it is made of.

A line never passes a part that it did not judge: what is lost, spoilt or late on the way becomes a ``fault`` with its
reason, and every frame is counted.
"""

from onspect.runtime.line.alarm import AlarmRule
from onspect.runtime.line.frame_check import Health
from onspect.runtime.line.frame_queue import Policy
from onspect.runtime.line.loop import Line, Timing
from onspect.runtime.line.models import Models
from onspect.runtime.line.voting import Voting

__all__ = ["AlarmRule", "Health", "Line", "Models", "Policy", "Timing", "Voting"]
