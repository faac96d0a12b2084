"""What a PLC tells a line, what the line tells the PLC, and the abstract class of everything that carries both."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from dataclasses import dataclass

PART_LENGTH = 16
"""Characters of a part id over Modbus, at most."""


@dataclass(frozen=True)
class Inputs:
    """The signals of a PLC at one moment; all are levels, and the line looks for their edges."""

    trigger: bool = False
    """A part is in front of the camera. Stays set until the result is valid."""

    ack: bool = False
    """The PLC has read the result. Stays set until ``valid`` is cleared."""

    reset: bool = False
    """On its rising edge: end the handshake under way, clear error and alarm, and distrust every part on the belt."""

    part: str | None = None
    """The part's id; read when the trigger rises. None where the PLC gives none."""

    recipe: str | None = None
    """The name of a recipe, or its number from 1 in the order of ``[recipes]``; None for the active recipe."""

    shift: str | None = None
    """The shift's name or number; None where the PLC gives none."""


@dataclass(frozen=True)
class Outputs:
    """The signals of a line at one moment."""

    ready: bool = False
    """The line accepts a trigger: no handshake is under way and every camera is connected."""

    busy: bool = False
    """A part was triggered and has no result yet."""

    valid: bool = False
    """`sequence`, `verdict`, `score` and `part` are the result of the part that was triggered."""

    alive: bool = False
    """Changes every half second while the line's connection works."""

    reject: bool = False
    """The reject coil: the part at the gate is to be rejected now."""

    error: int = 0
    """The code of the last error, 0 for none; `handshake.ERRORS` describes each code."""

    sequence: int = 0
    """The number of the part, from 1; rises by one with each accepted trigger of a run."""

    verdict: int = 0
    """1 ok, 2 ng, 3 review, 4 fault; 0 before the first result."""

    score: float = -1.0
    """The score, -1 for a fault."""

    part: str = ""
    """The part id that came with the trigger."""


class SignalSource(ABC):
    """A connection to a PLC; one thread uses it. It connects with the first `read`, and anew after `close`.

    Parameters: name: the address without secrets. poll: seconds between two reads, above 0.
    """

    def __init__(self, name: str, *, poll: float) -> None:
        self.name = name
        self.poll = poll
        self.changed = threading.Event()
        """Set by a connection that is told of changes, so that the next read comes at once."""

    @abstractmethod
    def read(self) -> Inputs:
        """Return the signals of the PLC; connect where there is no connection.

        Raises OutputError where the PLC is not reachable or does not have the signals.
        """

    @abstractmethod
    def write(self, outputs: Outputs) -> None:
        """Write the signals of the line: the result before ``valid`` is set. Raises OutputError as `read`."""

    @abstractmethod
    def close(self) -> None:
        """Close the connection where there is one; never raises. The next `read` connects anew."""
