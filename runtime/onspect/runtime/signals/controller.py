"""`SignalController`: the thread between a PLC and a line; it runs the handshake and the ejector."""

from __future__ import annotations

import dataclasses
import logging
import threading
import time
from collections.abc import Callable, Sequence
from queue import Empty, SimpleQueue
from typing import Self

from onspect.runtime.errors import OnspectError
from onspect.runtime.inspection.inspector import Inspection
from onspect.runtime.signals.base import Inputs, Outputs, SignalSource
from onspect.runtime.signals.ejector import Ejector, EjectorRule
from onspect.runtime.signals.handshake import ERRORS, NO_RESULT, Handshake, HandshakeTimes, Ticket
from onspect.runtime.sinks.modbus import CODES
from onspect.runtime.status import SignalState

_LOG = logging.getLogger("onspect")

_ALIVE_S = 0.5
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.1, 2.0


class SignalController:
    """Give a line its triggers, and the PLC its results; the line uses it as a context manager.

    Parameters
    ----------
    source
        The connection.
    cameras
        Number of cameras that judge each part, 1 or more.
    times
        Time limits of the handshake.
    ejector
        When the reject coil is set; None without an ejector.
    recipes
        Names of the recipes in the order of their numbers, from 1.
    """

    def __init__(
        self,
        source: SignalSource,
        *,
        cameras: int = 1,
        times: HandshakeTimes = HandshakeTimes(),
        ejector: EjectorRule | None = None,
        recipes: Sequence[str] = (),
    ) -> None:
        self._source = source
        self._handshake = Handshake(times, cameras=cameras)
        self._ejector = Ejector(ejector)
        self._recipes = list(recipes)
        self._tickets: list[SimpleQueue[Ticket]] = [SimpleQueue() for _ in range(cameras)]
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self.retired = False
        """Whether `retire` was called."""
        self._connected = False
        self._message = "not connected yet"
        self._reconnects = 0
        self._reset_before = False
        self._error_told = 0
        self._missed_told = 0
        self._can_judge: Callable[[], bool] = lambda: True
        self._on_reset: Callable[[], None] = lambda: None
        self._thread = threading.Thread(target=self._run, name="onspect-signals-io", daemon=True)
        self.shift: str | None = None
        """The last shift that the PLC gave."""

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        """Serve the parts that are on the way to the gate by time, clear all outputs, and close the connection."""
        self.retire()
        with self._lock:
            self._handshake.fail("the line was stopped before the verdict came", error=NO_RESULT)
            self._forward_result()
        self._ended.set()
        self._source.changed.set()
        self._thread.join()

    def attach(self, *, can_judge: Callable[[], bool], on_reset: Callable[[], None]) -> None:
        """Set the functions of the line; both are called in this object's thread.

        Parameters
        ----------
        can_judge
            Returns whether the line can judge a part, for ``ready``.
        on_reset
            Called at each reset.
        """
        self._can_judge, self._on_reset = can_judge, on_reset

    def retire(self) -> None:
        """Accept no more triggers; the current part gets its result."""
        self.retired = True

    def next_ticket(self, camera: int, timeout: float) -> Ticket | None:
        """Return the next trigger for one camera.

        Parameters
        ----------
        camera
            Index of the camera, 0 or more.
        timeout
            Longest wait in seconds.

        Returns
        -------
        Ticket | None
            The trigger; None if none came in time.
        """
        try:
            return self._tickets[camera].get(timeout=timeout)
        except Empty:
            return None

    def is_open(self, ticket: Ticket) -> bool:
        """Return whether the result of a part is not decided yet.

        Parameters
        ----------
        ticket
            The trigger of the part.

        Returns
        -------
        bool
            True until the result is decided.
        """
        with self._lock:
            return self._handshake.ticket is ticket

    def settle(self, inspection: Inspection) -> Inspection:
        """Use the verdict of a triggered part as its result.

        Parameters
        ----------
        inspection
            The inspection; without a ticket it is returned unchanged.

        Returns
        -------
        Inspection
            The inspection; a fault if the PLC already got a fault.
        """
        if inspection.ticket is None:
            return inspection
        verdict = inspection.verdict
        with self._lock:
            error = self._handshake.settle(inspection.ticket, verdict.verdict, verdict.score)
            self._forward_result()
        self._source.changed.set()
        if error is None or verdict.verdict == "fault":
            return inspection
        verdict = dataclasses.replace(
            verdict, verdict="fault", score=None, regions=(), reason=str(error), code=error.code
        )
        return dataclasses.replace(inspection, verdict=verdict, error_map=None)

    def state(self) -> SignalState:
        """Return the state of the connection and the counts of parts.

        Returns
        -------
        SignalState
            The state.
        """
        with self._lock:
            counts = ("parts", "acknowledged", "unacknowledged", "failed")
            return SignalState(
                self._source.name,
                connected=self._connected,
                reconnects=self._reconnects,
                **{name: getattr(self._handshake, name) for name in counts},
                ejected=self._ejector.ejected,
                missed=self._ejector.missed,
                shift=self.shift,
                message=self._message,
            )

    def _run(self) -> None:
        written: Outputs | None = None
        pause = _FIRST_PAUSE_S
        while not self._may_end():
            self._source.changed.clear()
            try:
                inputs = self._source.read()
                outputs = self._step(inputs)
                if outputs != written:
                    self._source.write(outputs)
                    written = outputs
            except Exception as error:  # noqa: BLE001 - a driver may raise anything, and the line must continue
                written = None
                self._note_loss(error)
                self._ended.wait(pause)
                pause = min(2 * pause, _LONGEST_PAUSE_S)
                continue
            pause = _FIRST_PAUSE_S
            self._source.changed.wait(self._wait())
        self._say_goodbye(connected=written is not None)

    def _may_end(self) -> bool:
        """Return whether the PLC has the last result or its time is over, and no part is on the way by time."""
        if not self._ended.is_set():
            return False
        with self._lock:
            on_its_way = self._ejector.deadline is not None
            return not self._connected or (self._handshake.phase not in ("busy", "valid") and not on_its_way)

    def _wait(self) -> float:
        with self._lock:
            times = [self._handshake.deadline, self._ejector.deadline]
        due = min((time for time in times if time is not None), default=None)
        if due is None:
            return self._source.poll
        return max(0.0, min(self._source.poll, due - time.monotonic()))

    def _step(self, inputs: Inputs) -> Outputs:
        now = time.monotonic()
        can_judge = not self.retired and self._can_judge()
        with self._lock:
            if not self._connected:
                self._connected, self._message = True, ""
            self.shift = inputs.shift if inputs.shift is not None else self.shift
            reset, self._reset_before = inputs.reset and not self._reset_before, inputs.reset
            accepted = inputs
            if self.retired and self._handshake.phase == "idle":
                accepted = dataclasses.replace(inputs, trigger=False)
            ticket = self._handshake.step(accepted, now)
            self._forward_result()
            if ticket is not None:
                self._begin(ticket, now)
            if reset:
                self._ejector.distrust()
            reject = self._step_ejector(now)
            outputs = self._build_outputs(now, can_judge=can_judge, reject=reject)
            self._tell_troubles()
        if reset:
            _LOG.warning("%s: the PLC gave a reset", self._source.name)
            self._on_reset()
        return outputs

    def _begin(self, ticket: Ticket, now: float) -> None:
        number = ticket.recipe
        if number is not None and number not in self._recipes and number.isdecimal():
            place = int(number)
            if 1 <= place <= len(self._recipes):
                ticket.recipe = self._recipes[place - 1]
        self._ejector.enter(ticket.number, now)
        for tickets in self._tickets:
            tickets.put(ticket)

    def _step_ejector(self, now: float, *, connected: bool = True) -> bool:
        reject = self._ejector.step(now, connected=connected)
        overtaken, self._ejector.overtaken = self._ejector.overtaken, None
        ticket = self._handshake.ticket
        if overtaken is not None and ticket is not None and ticket.number == overtaken:
            self._handshake.fail("the part was at the gate before its verdict came", error=NO_RESULT)
            self._forward_result()
        return reject

    def _build_outputs(self, now: float, *, can_judge: bool, reject: bool) -> Outputs:
        handshake, result = self._handshake, self._handshake.result
        return Outputs(
            ready=handshake.phase == "idle" and can_judge,
            busy=handshake.phase == "busy",
            valid=handshake.phase == "valid",
            alive=int(now / _ALIVE_S) % 2 == 1,
            reject=reject,
            error=handshake.error,
            sequence=0 if result is None else result.number,
            verdict=0 if result is None else CODES[result.verdict],
            score=-1.0 if result is None or result.score is None else result.score,
            part="" if result is None else result.part,
        )

    def _forward_result(self) -> None:
        """Give the ejector the result of the last part, once it is decided."""
        result = self._handshake.result
        if result is not None:
            self._ejector.decide(result.number, result.verdict, time.monotonic())

    def _tell_troubles(self) -> None:
        """Log an error once when it begins, and the parts that were not rejected."""
        error = self._handshake.error
        if error != self._error_told:
            self._error_told = error
            self._message = ERRORS.get(error, "")
            if error:
                _LOG.warning("%s: part %d: %s", self._source.name, self._handshake.parts, ERRORS[error])
        missed = self._ejector.missed
        if missed != self._missed_told:
            count, self._missed_told = missed - self._missed_told, missed
            _LOG.error("%s: %d parts passed the gate and were not rejected", self._source.name, count)

    def _note_loss(self, error: Exception) -> None:
        self._source.close()
        words = str(error) if isinstance(error, OnspectError) else f"{type(error).__name__}: {error}"
        with self._lock:
            if self._connected or words != self._message:
                _LOG.warning("%s: %s", self._source.name, words)
            self._reconnects += self._connected
            self._connected, self._message = False, words
            self._handshake.lose()
            self._forward_result()
            self._step_ejector(time.monotonic(), connected=False)

    def _say_goodbye(self, *, connected: bool) -> None:
        """Clear ready, busy, valid and reject, so that the last result is not taken for a new one."""
        left = self._ejector.waiting
        if left:
            _LOG.warning("%s: %d parts before the gate would be rejected; remove them", self._source.name, left)
        if connected:
            try:
                self._source.write(Outputs(sequence=self._handshake.parts, verdict=4))
            except OnspectError as error:
                _LOG.warning("%s: %s", self._source.name, error)
        self._source.close()
