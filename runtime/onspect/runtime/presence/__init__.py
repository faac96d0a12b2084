"""Presence: find the frames of a free-running camera that show a part, and choose the one to judge."""

from onspect.runtime.presence.blobs import Blob
from onspect.runtime.presence.gate import HeldFrame, PartView, PresenceGate
from onspect.runtime.presence.settings import PresenceSettings
from onspect.runtime.presence.tracker import Decision, Tracker

__all__ = ["Blob", "Decision", "HeldFrame", "PartView", "PresenceGate", "PresenceSettings", "Tracker"]
