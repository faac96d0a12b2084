"""Presence: which frames of a free-running camera show a part, and which of them is judged."""

from onspect.runtime.presence.blobs import Blob
from onspect.runtime.presence.gate import HeldFrame, PartView, PresenceGate
from onspect.runtime.presence.settings import PresenceSettings
from onspect.runtime.presence.tracker import Decision, Tracker

__all__ = ["Blob", "Decision", "HeldFrame", "PartView", "PresenceGate", "PresenceSettings", "Tracker"]
