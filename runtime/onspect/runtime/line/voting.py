"""One verdict a part, from all of its frames."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Literal

from onspect.runtime.inspection.inspector import Inspection
from onspect.runtime.inspection.verdict import Judgement

Rule = Literal["worst", "majority"]

_WORST_FIRST: tuple[Judgement, ...] = ("ng", "fault", "review", "ok")


@dataclass(frozen=True)
class Voting:
    """How frames become one part's verdict.

    frames: how many a part has; without it, the frames that follow one another with one part id are a part, and where
    the source knows no parts each frame is one. rule: ``worst``, the worst of the frames' verdicts (ng, fault, review,
    ok in this order), or ``majority``, what more than half of the part's frames say, and without such a majority the
    worst. Frames that a part lacks count as faults, and a part in whose midst the source was lost is never ok.
    timeout: seconds after its last frame at which an incomplete part gets its verdict all the same; None waits for as
    long as it takes.
    """

    frames: int | None = None
    rule: Rule = "worst"
    timeout: float | None = None


@dataclass
class _Part:
    """A part whose frames are coming in: their verdicts, and of each verdict the frame with the highest score."""

    name: str | None
    last_seen: float
    broken: bool = False
    counts: Counter[Judgement] = field(default_factory=Counter)
    examples: dict[Judgement, Inspection] = field(default_factory=dict)

    def add(self, inspection: Inspection, *, gap: bool, now: float) -> None:
        self.last_seen = now
        self.broken |= gap
        judgement = inspection.verdict.verdict
        self.counts[judgement] += 1
        example = self.examples.get(judgement)
        if example is None or (inspection.verdict.score or 0.0) > (example.verdict.score or 0.0):
            self.examples[judgement] = inspection


class Voter:
    """Gathers the frames of each source's parts, and gives each part the inspection of its worst frame."""

    def __init__(self, voting: Voting, lanes: int) -> None:
        self._voting = voting
        self._open: list[_Part | None] = [None] * lanes

    def begins_part(self, lane: int, name: str | None, *, gap: bool) -> bool:
        """Tell whether the next frame of a source is the first of a part."""
        part = self._open[lane]
        return part is None or (part.name != name and not gap)

    def add(self, lane: int, inspection: Inspection, *, gap: bool, now: float) -> list[Inspection]:
        """Take one frame's inspection and return the parts that it completes.

        gap says that frames are missing in its place, nobody knows how many: the part under way ends there as a fault.
        now: seconds, on any clock that does not go back.
        """
        name = inspection.verdict.part
        done = []
        if self._open[lane] is not None and self.begins_part(lane, name, gap=gap):
            done.append(self._close(lane))
        part = self._open[lane]
        if part is None and name is None and self._voting.frames in (None, 1):
            return [*done, inspection]
        part = part or _Part(name, now)
        part.add(inspection, gap=gap, now=now)
        self._open[lane] = part
        if gap or part.counts.total() == self._voting.frames:
            done.append(self._close(lane))
        return done

    def expire(self, now: float, waiting: Collection[int]) -> list[Inspection]:
        """Return the parts whose next frame has not come for too long, and is not among those of the waiting lanes."""
        timeout = self._voting.timeout
        if timeout is None:
            return []
        late = [
            lane
            for lane, part in enumerate(self._open)
            if part is not None and now - part.last_seen > timeout and lane not in waiting
        ]
        return [self._close(lane) for lane in late]

    def flush(self) -> list[Inspection]:
        """Return the parts under way, for no frame comes any more."""
        return [self._close(lane) for lane, part in enumerate(self._open) if part is not None]

    def _close(self, lane: int) -> Inspection:
        part = self._open[lane]
        assert part is not None
        self._open[lane] = None
        seen = part.counts.total()
        missing = max(0, (self._voting.frames or 0) - seen)
        judgement = _decide(part.counts + Counter[Judgement]({"fault": missing}), self._voting.rule)
        if part.broken and judgement == "ok":
            judgement = "fault"
        reason = f"only {seen} of the part's {self._voting.frames} frames came" if missing else None
        return _as_part(part, judgement, reason)


def _decide(counts: Counter[Judgement], rule: Rule) -> Judgement:
    if rule == "majority":
        judgement, votes = counts.most_common(1)[0]
        if 2 * votes > counts.total():
            return judgement
    return next(judgement for judgement in _WORST_FIRST if counts[judgement])


def _as_part(part: _Part, judgement: Judgement, reason: str | None) -> Inspection:
    example = part.examples.get(judgement)
    if example is None:  # a fault for frames that never came
        shown = next(part.examples[name] for name in _WORST_FIRST if name in part.examples)
        verdict = dataclasses.replace(shown.verdict, verdict="fault", score=None, regions=(), reason=reason)
        return dataclasses.replace(shown, verdict=verdict, error_map=None)
    return dataclasses.replace(example, verdict=dataclasses.replace(example.verdict, part=part.name))
