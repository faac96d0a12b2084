"""What has been recorded so far, so that nothing is told to the outside before it is on record."""

from __future__ import annotations

import threading
import time
from collections.abc import Hashable, Sequence
from dataclasses import dataclass


@dataclass
class _Recorder:
    through: int = 0
    failing: bool = False


class CommitBarrier:
    """Shared by the queued sinks of one line: the record sinks say how far they are, the others wait for them.

    A verdict's number is its position among those handed to the sinks, from 1; so every sink of a barrier must be
    given every verdict. A record sink that fails (the disk is full) or takes longer than the patience of one who
    waits is not waited for until it has caught up: parts must be rejected also where they cannot be recorded.
    """

    def __init__(self) -> None:
        self._recorders: dict[Hashable, _Recorder] = {}
        self._earlier: dict[Hashable, tuple[bytes, ...]] = {}  # also of those that have left: a short run ends at once
        self._asked = 0
        self._changed = threading.Condition()

    def join(self, recorder: Hashable, earlier: Sequence[bytes] | None = None) -> None:
        """Say that a sink records, before the first verdict.

        earlier: the lines of the last verdicts that it holds from earlier runs, oldest first; None where it cannot say.
        """
        with self._changed:
            self._recorders[recorder] = _Recorder()
            if earlier is not None:
                self._earlier[recorder] = tuple(earlier)

    def earlier(self) -> list[bytes]:
        """Return the lines of earlier runs that every sink holds that can say so, oldest first."""
        with self._changed:
            told = list(self._earlier.values())
        if not told:
            return []
        common = set.intersection(*map(set, told))
        return [line for line in dict.fromkeys(told[0]) if line in common]

    def leave(self, recorder: Hashable) -> None:
        """Say that a sink records no more."""
        with self._changed:
            self._recorders.pop(recorder, None)
            self._changed.notify_all()

    def recorded(self, recorder: Hashable, number: int) -> None:
        """Say that a sink has recorded all verdicts up to this one."""
        with self._changed:
            one = self._recorders[recorder]
            one.through = number
            one.failing = one.failing and number < self._asked
            self._changed.notify_all()

    def failing(self, recorder: Hashable) -> None:
        """Say that a sink cannot record at present."""
        with self._changed:
            self._recorders[recorder].failing = True
            self._changed.notify_all()

    def wait(self, number: int, patience: float) -> bool:
        """Wait until every sink that can has recorded a verdict; False where one has not, after patience seconds."""
        end = time.monotonic() + patience
        with self._changed:
            self._asked = max(self._asked, number)
            while behind := [one for one in self._recorders.values() if one.through < number and not one.failing]:
                left = end - time.monotonic()
                if left <= 0:
                    for one in behind:
                        one.failing = True
                    break
                self._changed.wait(left)
            return all(one.through >= number for one in self._recorders.values())
