"""The reject coil: each part is tracked from the camera to the gate, by parts or by time."""

from __future__ import annotations

from collections import deque
from collections.abc import Collection
from dataclasses import dataclass

from onspect.runtime.judgement import Judgement


@dataclass(frozen=True)
class EjectorRule:
    """Position of the gate behind the camera, and the verdicts that are rejected there."""

    parts: int | None = None
    """Number of parts between camera and gate, 0 or more; the part is at the gate after this number of later triggers.
    """

    seconds: float | None = None
    """Seconds from the trigger to the gate, 0 or more; None with `parts`."""

    pulse: float | None = None
    """Seconds that the coil is set. None: until the next trigger, or 0.1 with `seconds`."""

    rejects: Collection[Judgement] = ("ng", "fault")
    """The verdicts that are rejected: of ng, fault and review."""


_PULSE_S = 0.1


@dataclass
class _Cell:
    """One part on the belt: its time at the gate (by time), and its verdict once it is known."""

    number: int
    due: float
    verdict: Judgement | None = None


class Ejector:
    """The tracking register; the caller gives the time in seconds and owns the lock.

    A part enters with its trigger and moves with later triggers or with the time, never with the verdicts. So a dropped
    or late frame moves no other part. A part without a verdict at the gate is a fault.

    Parameters
    ----------
    rule
        The gate; None if there is none, so that no part enters.
    """

    def __init__(self, rule: EjectorRule | None) -> None:
        self._has_gate = rule is not None
        self._rule = rule = rule or EjectorRule()
        self._by_time = rule.seconds is not None
        self._behind = rule.parts or 0
        self._pulse = rule.pulse if rule.pulse is not None else (_PULSE_S if self._by_time else None)
        self._cells: deque[_Cell] = deque()
        self._at_gate: _Cell | None = None
        self._set = False
        self._until: float | None = None
        self.ejected = 0
        """Number of parts for which the coil was set."""
        self.missed = 0
        """Number of parts that should have been rejected, but passed the gate without a connection."""
        self.overtaken: int | None = None
        """The part that was at the gate without a verdict; the caller resets it to None."""

    @property
    def deadline(self) -> float | None:
        """Time at which `step` is due; None for no time."""
        due = self._cells[0].due if self._by_time and self._cells else None
        times = [time for time in (due, self._until if self._set else None) if time is not None]
        return min(times, default=None)

    @property
    def waiting(self) -> int:
        """Number of parts between camera and gate that are to be rejected or have no verdict yet."""
        return sum(self._rejects(cell) for cell in self._cells)

    def enter(self, number: int, now: float) -> None:
        """Add a part whose trigger came now; by parts, every part on the belt advances by one.

        Parameters
        ----------
        number
            Number of the part.
        now
            Time in seconds.
        """
        if not self._has_gate:
            return
        self._cells.append(_Cell(number, now + (self._rule.seconds or 0.0)))
        if self._by_time:
            return
        self._set = False
        self._at_gate = None
        if len(self._cells) > self._behind:
            self._pass(self._cells.popleft(), now, connected=True)

    def decide(self, number: int, verdict: Judgement, now: float) -> None:
        """Set the verdict of a part.

        Parameters
        ----------
        number
            Number of the part.
        verdict
            The verdict.
        now
            Time in seconds.
        """
        for cell in self._cells:
            if cell.number == number and cell.verdict is None:
                cell.verdict = verdict
        gate = self._at_gate
        if gate is not None and gate.number == number and gate.verdict is None:
            gate.verdict = verdict
            if self._rejects(gate):
                self._fire(now)

    def step(self, now: float, *, connected: bool = True) -> bool:
        """Return the coil at this moment.

        Parameters
        ----------
        now
            Time in seconds.
        connected
            Whether the PLC is connected; a reject without a connection counts as missed.

        Returns
        -------
        bool
            Whether the coil is set.
        """
        if self._set and self._until is not None and now >= self._until:
            self._set = False
        while self._by_time and self._cells and now >= self._cells[0].due:
            self._pass(self._cells.popleft(), now, connected=connected)
        return self._set

    def distrust(self) -> None:
        """Make every part between camera and gate a fault, because the belt may have been emptied or moved."""
        for cell in self._cells:
            cell.verdict = "fault"

    def _pass(self, cell: _Cell, now: float, *, connected: bool) -> None:
        """Process a part that is at the gate."""
        if cell.verdict is None and self._behind == 0 and not self._by_time:
            self._at_gate = cell  # the camera is at the gate: the coil follows the verdict
            return
        if cell.verdict is None:
            self.overtaken = cell.number
            cell.verdict = "fault"
        late = self._by_time and self._pulse is not None and now >= cell.due + self._pulse
        if not self._rejects(cell):
            return
        if not connected or late:
            self.missed += 1
        else:
            self._fire(cell.due if self._by_time else now)

    def _fire(self, now: float) -> None:
        self.ejected += 1
        self._set = True
        self._until = None if self._pulse is None else now + self._pulse

    def _rejects(self, cell: _Cell) -> bool:
        return (cell.verdict or "fault") in self._rule.rejects
