"""The alarm of a line: many rejected parts raise it, and only a low count clears it, so it does not flicker."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from onspect.runtime.judgement import JUDGEMENTS, Judgement


@dataclass(frozen=True)
class AlarmRule:
    """When an alarm is raised and cleared; 1 <= clear <= count <= of."""

    count: int = 3
    """Number of ng or fault parts among the last `of` that raises the alarm, 1 or more."""
    of: int = 10
    """Number of the last parts that are looked at, 1 or more."""
    clear: int = 1
    """The alarm is cleared when fewer than this many of the last parts are ng or fault, 1 or more."""


class Alarm:
    """Follow the verdicts of a line; `reason` says why the alarm is raised, or is None."""

    def __init__(self, rule: AlarmRule) -> None:
        self._rule = rule
        self._bad: deque[bool] = deque(maxlen=rule.of)
        self.reason: str | None = None

    def add(self, judgement: Judgement) -> None:
        """Count the verdict of one part, and raise or clear the alarm.

        Parameters
        ----------
        judgement
            ``ok``, ``ng``, ``review`` or ``fault``.
        """
        self._bad.append(JUDGEMENTS[judgement].rejected)
        bad = sum(self._bad)
        if bad >= self._rule.count or (self.reason is not None and bad >= self._rule.clear):
            self.reason = f"{bad} of the last {len(self._bad)} parts are ng or fault"
        else:
            self.reason = None
