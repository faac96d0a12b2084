"""A PLC in memory, and the program of any PLC: it triggers parts one by one and reads their results."""

from __future__ import annotations

import dataclasses
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from onspect.runtime.errors import OutputError
from onspect.runtime.signals.base import Inputs, Outputs, SignalSource


class MemoryPlc(SignalSource):
    """A PLC whose signals are set and read by the test; keeps every output that was written."""

    def __init__(self) -> None:
        super().__init__("plc", poll=0.002)
        self.inputs = Inputs()
        self.outputs = Outputs()
        self.written: list[Outputs] = []
        self.broken = False
        self.closed = 0

    def read(self) -> Inputs:
        if self.broken:
            raise OutputError("cannot reach plc: no connection")
        return self.inputs

    def write(self, outputs: Outputs) -> None:
        if self.broken:
            raise OutputError("cannot reach plc: no connection")
        self.outputs = outputs
        self.written.append(outputs)

    def close(self) -> None:
        self.closed += 1

    def set(self, inputs: Inputs) -> None:
        self.inputs = inputs
        self.changed.set()


@dataclass
class Program:
    """The PLC's program; `look` returns the line's outputs, `tell` sets the PLC's signals."""

    look: Callable[[], Outputs]
    tell: Callable[[Inputs], None]
    pause: float = 0.001
    inputs: Inputs = field(default_factory=Inputs)

    def set(self, **changes: object) -> None:
        self.inputs = dataclasses.replace(self.inputs, **changes)  # type: ignore[arg-type]
        self.tell(self.inputs)

    def wait(self, condition: Callable[[Outputs], bool], seconds: float = 60.0) -> Outputs:
        """Wait for a state of the outputs; an AssertionError where it does not come."""
        end = time.monotonic() + seconds
        while not condition(outputs := self.look()):
            assert time.monotonic() < end, f"it did not come: {outputs}"
            time.sleep(self.pause)
        return outputs

    def run_part(self, part: str | None = None, recipe: str | None = None) -> Outputs:
        """Trigger one part and return its result, acknowledged."""
        self.wait(lambda outputs: outputs.ready)
        self.set(trigger=True, part=part, recipe=recipe)
        result = self.wait(lambda outputs: outputs.valid)
        self.set(ack=True)
        self.wait(lambda outputs: not outputs.valid)
        self.set(trigger=False, ack=False)
        return result


def program_of(plc: MemoryPlc) -> Program:
    """Return the program of a PLC in memory."""
    return Program(lambda: plc.outputs, plc.set)


def in_thread(work: Callable[[], object]) -> threading.Thread:
    """Run something beside the test."""
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    return thread
