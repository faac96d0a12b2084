"""Inputs and outputs of a line at a PLC, and the base class of all connections."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from dataclasses import dataclass

PART_LENGTH = 16
"""Largest number of characters of a part id over Modbus."""


@dataclass(frozen=True)
class Inputs:
    """The signals of a PLC at one moment; all are levels, and the line detects their edges."""

    trigger: bool = False
    """A part is in front of the camera. Stays set until the result is valid."""

    ack: bool = False
    """The PLC has read the result. Stays set until ``valid`` is cleared."""

    reset: bool = False
    """On its rising edge: end the current handshake, clear error and alarm, and make every part on the belt a fault."""

    part: str | None = None
    """The part id, read when the trigger rises; None if the PLC gives none."""

    recipe: str | None = None
    """The name of a recipe, or its number from 1 in the order of ``[recipes]``; None for the active recipe."""

    shift: str | None = None
    """Name or number of the shift; None if the PLC gives none."""


@dataclass(frozen=True)
class Outputs:
    """The signals of a line at one moment."""

    ready: bool = False
    """The line accepts a trigger: no handshake is active and every camera is connected."""

    busy: bool = False
    """A part was triggered and has no result yet."""

    valid: bool = False
    """`sequence`, `verdict`, `score` and `part` are the result of the triggered part."""

    alive: bool = False
    """Changes every half second while the line's connection works."""

    reject: bool = False
    """The reject coil: the part at the gate is to be rejected now."""

    error: int = 0
    """Code of the last error, 0 for none; `handshake.ERRORS` describes each code."""

    sequence: int = 0
    """Number of the part, from 1; each accepted trigger of a run increases it by one."""

    verdict: int = 0
    """1 ok, 2 ng, 3 review, 4 fault; 0 before the first result."""

    score: float = -1.0
    """The score, -1 for a fault."""

    part: str = ""
    """The part id that came with the trigger."""


class SignalSource(ABC):
    """A connection to a PLC for one thread. It connects with the first `read`, and again after `close`.

    Parameters
    ----------
    name
        The address without secrets.
    poll
        Seconds between two reads, above 0.
    """

    def __init__(self, name: str, *, poll: float) -> None:
        self.name = name
        self.poll = poll
        self.changed = threading.Event()
        """Set by a connection that learns of changes, so that the next read comes at once."""

    @abstractmethod
    def read(self) -> Inputs:
        """Return the signals of the PLC; connect if there is no connection.

        Returns
        -------
        Inputs
            The signals.

        Raises
        ------
        OutputError
            If the PLC cannot be reached or does not have the signals.
        """

    @abstractmethod
    def write(self, outputs: Outputs) -> None:
        """Write the signals of the line; the result is written before ``valid`` is set.

        Parameters
        ----------
        outputs
            The signals.

        Raises
        ------
        OutputError
            If the PLC cannot be reached or does not have the signals.
        """

    @abstractmethod
    def close(self) -> None:
        """Close the connection; never raises. The next `read` connects again."""
