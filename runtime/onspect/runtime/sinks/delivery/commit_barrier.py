"""Progress of the records, so that no receiver learns a verdict before it is recorded."""

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
    """Shared by the queued sinks of one line: record sinks report their progress, and the others wait for them.

    The number of a verdict is its position among those handed to the sinks, from 1. So every sink of a barrier must get
    every verdict. A record sink that fails (a full disk) or is too slow is not waited for until it has caught up: parts
    must be rejected even if they cannot be recorded.
    """

    def __init__(self) -> None:
        self._recorders: dict[Hashable, _Recorder] = {}
        self._earlier: dict[Hashable, tuple[bytes, ...]] = {}  # kept after a sink has left: a short run ends at once
        self._asked = 0
        self._changed = threading.Condition()

    def join(self, recorder: Hashable, earlier: Sequence[bytes] | None = None) -> None:
        """Register a sink that records, before the first verdict.

        Parameters
        ----------
        recorder
            The sink.
        earlier
            The last verdicts of earlier runs that it recorded, oldest first; None if it does not know.
        """
        with self._changed:
            self._recorders[recorder] = _Recorder()
            if earlier is not None:
                self._earlier[recorder] = tuple(earlier)

    def earlier(self) -> list[bytes]:
        """Return the verdicts of earlier runs that every sink has recorded, among the sinks that know.

        Returns
        -------
        list[bytes]
            Lines as of `encode_verdict`, oldest first.
        """
        with self._changed:
            told = list(self._earlier.values())
        if not told:
            return []
        common = set.intersection(*map(set, told))
        return [line for line in dict.fromkeys(told[0]) if line in common]

    def leave(self, recorder: Hashable) -> None:
        """Remove a sink that records no more.

        Parameters
        ----------
        recorder
            The sink.
        """
        with self._changed:
            self._recorders.pop(recorder, None)
            self._changed.notify_all()

    def recorded(self, recorder: Hashable, number: int) -> None:
        """Report that a sink has recorded all verdicts up to a number.

        Parameters
        ----------
        recorder
            The sink.
        number
            Number of the last recorded verdict, 1 or more.
        """
        with self._changed:
            one = self._recorders[recorder]
            one.through = number
            one.failing = one.failing and number < self._asked
            self._changed.notify_all()

    def failing(self, recorder: Hashable) -> None:
        """Report that a sink cannot record now.

        Parameters
        ----------
        recorder
            The sink.
        """
        with self._changed:
            self._recorders[recorder].failing = True
            self._changed.notify_all()

    def wait(self, number: int, patience: float) -> bool:
        """Wait until every working sink has recorded a verdict.

        Parameters
        ----------
        number
            Number of the verdict, 1 or more.
        patience
            Longest wait in seconds.

        Returns
        -------
        bool
            False if a sink has not recorded it.
        """
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
