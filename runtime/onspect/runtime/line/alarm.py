"""An alarm that does not flicker: many bad verdicts raise it, and only few clear it."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from onspect.runtime.inspection.verdict import JUDGEMENTS, Judgement


@dataclass(frozen=True)
class AlarmRule:
    """Raised where `count` of the last `of` parts are ng or fault, cleared where fewer than `clear` of them are.

    1 <= clear <= count <= of.
    """

    count: int = 3
    of: int = 10
    clear: int = 1


class Alarm:
    """Follows verdicts; `reason` says why the alarm is raised, None where it is not."""

    def __init__(self, rule: AlarmRule) -> None:
        self._rule = rule
        self._bad: deque[bool] = deque(maxlen=rule.of)
        self.reason: str | None = None

    def add(self, judgement: Judgement) -> None:
        """Take one part's verdict."""
        self._bad.append(JUDGEMENTS[judgement].rejected)
        bad = sum(self._bad)
        if bad >= self._rule.count or (self.reason is not None and bad >= self._rule.clear):
            self.reason = f"{bad} of the last {len(self._bad)} parts are ng or fault"
        else:
            self.reason = None
