"""Handshake between PLC and line: ready, trigger, busy, valid, ack. It has no clock and no connection."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from onspect.runtime.errors import ImageError
from onspect.runtime.judgement import WORST_FIRST, Judgement
from onspect.runtime.signals.base import Inputs

Phase = Literal["release", "idle", "busy", "valid"]
"""``release``: trigger and ack must be cleared. ``idle``: a trigger is accepted. ``busy``: the part is being judged.
``valid``: the result is shown, and the PLC must acknowledge it."""

NO_RESULT, NOT_ACKNOWLEDGED, NOT_RELEASED, WITHDRAWN, DISCONNECTED = 1, 2, 3, 4, 5
ERRORS = {
    NO_RESULT: "no verdict came in time; the result is a fault",
    NOT_ACKNOWLEDGED: "the PLC did not acknowledge the result in time; valid was cleared",
    NOT_RELEASED: "the PLC did not clear trigger and ack in time; the line is not ready",
    WITHDRAWN: "the PLC cleared trigger before the result was valid; there is no result",
    DISCONNECTED: "the connection broke during the part; the result is a fault",
}
"""Description of each value of the output ``error``."""

_REMEMBERED = 256  # tickets that were closed without a verdict, for late verdicts


@dataclass(frozen=True)
class HandshakeTimes:
    """Time limits of a handshake in seconds, above 0."""

    result: float = 0.5
    """From the trigger to the result; then the result is a fault, and so is a later verdict."""

    ack: float = 1.0
    """From ``valid`` to ``ack``, and from ``ack`` to the release of both inputs."""


@dataclass
class Ticket:
    """One accepted trigger. The worst verdict of all cameras is the result."""

    number: int
    """Number of the part, 1 or more."""
    opened: float
    """Time of the trigger in seconds."""
    part: str | None
    """The part id; None if the PLC gives none."""
    recipe: str | None
    """Name or number of the recipe; None for the active one."""
    verdicts: list[tuple[Judgement, float | None]] = field(default_factory=list)
    """Verdict and score of each camera until now."""


@dataclass(frozen=True)
class Result:
    """The result of one part for the PLC."""

    number: int
    """Number of the part, 1 or more."""
    part: str
    """The part id; empty for none."""
    verdict: Judgement
    """The verdict."""
    score: float | None
    """The score; None for a fault."""


class Handshake:
    """The state machine; the caller gives the time in seconds and owns the lock.

    Each ticket ends in exactly one result.

    Parameters
    ----------
    times
        Time limits.
    cameras
        Number of cameras that judge each part, 1 or more.
    """

    def __init__(self, times: HandshakeTimes = HandshakeTimes(), *, cameras: int = 1) -> None:
        self.phase: Phase = "release"
        self.error = 0
        self.result: Result | None = None
        self.ticket: Ticket | None = None
        """The current part; None once its result is decided."""
        self.parts = self.acknowledged = self.unacknowledged = self.failed = 0
        self._times = times
        self._cameras = cameras
        self.deadline: float | None = None
        """Time at which `step` is due even if nothing changes; None for no time."""
        self._reset_before = False
        self._released = False
        self._failures: dict[int, ImageError] = {}

    def step(self, inputs: Inputs, now: float) -> Ticket | None:
        """Process the inputs of this moment.

        Parameters
        ----------
        inputs
            The signals of the PLC.
        now
            Time in seconds on a clock that never goes back.

        Returns
        -------
        Ticket | None
            The ticket of a part that begins now; None if none begins.
        """
        reset, self._reset_before = inputs.reset and not self._reset_before, inputs.reset
        late = self.deadline is not None and now >= self.deadline
        if reset:
            self.fail("the PLC gave a reset before the verdict came", error=0)
            self.error = 0
            self._enter("release", None)
        elif self.phase == "release":
            if not inputs.trigger and not inputs.ack:
                self._enter("idle", None)
            elif late:
                self.error = NOT_RELEASED
                self.deadline = None
        elif self.phase == "idle":
            if inputs.trigger:
                return self._open(inputs, now)
        elif self.phase == "busy":
            self._step_busy(inputs, now, late=late)
        elif inputs.ack:
            self.acknowledged += 1
            self._enter("release", now + self._times.ack)
        elif late or (self._released and inputs.trigger):  # the next part has come: it must not get this result
            self.unacknowledged += 1
            self.error = NOT_ACKNOWLEDGED
            assert self.result is not None
            self.result = Result(self.result.number, self.result.part, "fault", None)
            self._enter("release", now + self._times.ack)
        else:
            self._released = not inputs.trigger
        return None

    def settle(self, number: int, verdict: Judgement, score: float | None) -> ImageError | None:
        """Add one camera's verdict.

        Parameters
        ----------
        number
            Number of the part.
        verdict
            The verdict.
        score
            The score; None for a fault.

        Returns
        -------
        ImageError | None
            The reason why the verdict is too late; None if it is in time.
        """
        if self.ticket is None or self.ticket.number != number:
            return self._failures.get(number) or ImageError("the result of this part was already decided", code="late")
        self.ticket.verdicts.append((verdict, score))
        if len(self.ticket.verdicts) >= self._cameras:
            worst = min(self.ticket.verdicts, key=lambda one: WORST_FIRST.index(one[0]))
            self._decide(*worst)
        return None

    def fail(self, reason: str, *, error: int) -> None:
        """Make the current part a fault, if there is one; a later verdict gets the reason.

        Parameters
        ----------
        reason
            One sentence.
        error
            Value of the output ``error``.
        """
        if self.ticket is None:
            return
        known = ImageError(reason, code="late") if error == NO_RESULT else ImageError(reason, code="withdrawn")
        self._failures[self.ticket.number] = known
        if len(self._failures) > _REMEMBERED:
            del self._failures[next(iter(self._failures))]
        self.failed += 1
        self.error = error
        self._decide("fault", None)

    def lose(self) -> None:
        """Process a lost connection: the current part is a fault, which is shown after the connection is back."""
        self.fail("the connection to the PLC broke before the verdict came", error=DISCONNECTED)

    def _step_busy(self, inputs: Inputs, now: float, *, late: bool) -> None:
        if self.ticket is not None and late:
            milliseconds = self._times.result * 1000.0
            self.fail(f"no verdict came within {milliseconds:g} ms of the trigger (result_ms)", error=NO_RESULT)
        if not inputs.trigger:
            self.fail("the PLC cleared the trigger before the verdict came", error=WITHDRAWN)
            self.unacknowledged += 1
            self.error = self.error or WITHDRAWN
            self._enter("release", now + self._times.ack)
        elif self.ticket is None:
            self._enter("valid", now + self._times.ack)

    def _open(self, inputs: Inputs, now: float) -> Ticket:
        self.parts += 1
        self.error = 0
        self.ticket = Ticket(self.parts, now, inputs.part, inputs.recipe)
        self._enter("busy", now + self._times.result)
        return self.ticket

    def _decide(self, verdict: Judgement, score: float | None) -> None:
        assert self.ticket is not None
        self.result = Result(self.ticket.number, self.ticket.part or "", verdict, score)
        self.ticket = None

    def _enter(self, phase: Phase, deadline: float | None) -> None:
        self.phase, self.deadline, self._released = phase, deadline, False
