"""Signals of a PLC. Inputs: trigger, part id, recipe, reset, shift. Outputs: handshake, result, reject coil."""

from __future__ import annotations

from onspect.runtime.signals.base import Inputs, Outputs, SignalSource
from onspect.runtime.signals.controller import SignalController
from onspect.runtime.signals.ejector import EjectorRule
from onspect.runtime.signals.handshake import HandshakeTimes
from onspect.runtime.signals.registry import open_signal

__all__ = ["EjectorRule", "HandshakeTimes", "Inputs", "Outputs", "SignalController", "SignalSource", "open_signal"]
